"""The routes as people see them: models, prices with their source and date, fallbacks, and never a key."""

import json

from bulkhead_services.model_gateway.routing.route_rows import list_routes
from bulkhead_services.model_gateway.settings import Settings

PRICES = """
[models."mine-1"]
input = "1.25"
output = "5"
cached_input = "0.25"
context_tokens = 9000
as_of = "2026-11-02"
"""


def test_a_row_per_route_with_its_price_where_it_is_from_and_its_fallback(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(PRICES)
    settings = Settings(
        openai_api_key="sk-secret",
        model="gpt-4o-mini-2024-07-18",
        judge_model="free-1",
        free_models=("free-1",),
        prices_file=file,
        providers={
            "eu": {"base_url": "https://ada:pass@models.example.org/v1", "api_key": "eu-secret", "region": "eu"}
        },
        routes={"small": {"provider": "eu", "model": "mine-1", "temperature": 0, "fallback": {"model": "free-1"}}},
    )
    found = list_routes(settings)
    assert [row["route"] for row in found] == ["default", "judge", "small"]
    default, judge, small = found
    price = {"input_usd_per_mtok": 0.15, "cached_input_usd_per_mtok": 0.075, "output_usd_per_mtok": 0.6}
    assert price.items() <= default["price"].items() and default["price"]["source"].startswith("genai-prices ")
    assert judge["price"]["source"] == "BULKHEAD_FREE_MODELS" and judge["price"]["output_usd_per_mtok"] == 0
    assert (small["provider"], small["region"], small["base_url"]) == ("eu", "eu", "https://models.example.org/v1")
    assert (small["context_tokens"], small["temperature"], [one["model"] for one in small["fallback"]]) == (
        9_000,
        0,
        ["free-1"],
    )
    told = {"input_usd_per_mtok": 1.25, "cached_input_usd_per_mtok": 0.25, "output_usd_per_mtok": 5.0}
    assert (told | {"source": "mine.toml", "as_of": "2026-11-02"}).items() <= small["price"].items()
    own = {"provider": "eu", "model": "mine-1", "temperature": 0.0, "fallback": [{"model": "free-1"}]}
    assert small["settings"] == own, "a row of BULKHEAD_ROUTES"
    text = json.dumps(found)
    assert "secret" not in text and "pass@" not in text
