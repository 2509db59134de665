"""The room of models and tools: what is known of a model by several roads stands in one row."""

import json
from pathlib import Path

from bulkhead_contracts.budget import SpendRow, Spent
from bulkhead_services.gateway.console import pages
from bulkhead_services.gateway.console.models import rows_by_name
from tests.integration.console.browsing import browsing
from tests.replay.stage import APPROVER, OPERATOR, OTHER_OPERATOR, plan, stage
from tests.unit.services.model_gateway.scripted_provider import says


async def test_models_that_were_called_are_listed_with_their_cost(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client, browsing(on, APPROVER) as bob:
        on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
        await on.run()
        page = (await client.get("/models")).text
        assert "offline-rules-1" in page and "closed" in page and '<td class="main">search_documents</td>' in page
        async with browsing(on, OTHER_OPERATOR) as other:
            assert "No model was called" in (await other.get("/models")).text
        seen = await bob.get("/models")
        assert seen.status_code == 200 and "may not see" in seen.text and "offline-rules-1" not in seen.text


def test_calls_of_which_none_has_settled_have_no_percentiles() -> None:
    row = json.loads(SpendRow(name="offline-rules-1", spent=Spent(calls=1)).model_dump_json())
    models = rows_by_name("model", [], [], [row])
    page = pages.render_template(
        "models/models.html",
        **{"models": models, "tools": [], "refused": None, "unwatched": None, "span": "24h"},
        **{"claim": None, "bare": True, "path": "/models", "url": "/models", "theme": "auto"},
    )
    assert "offline-rules-1" in page and "–" in page


def test_a_model_that_is_held_back_stands_first_with_all_that_is_known() -> None:
    window = {"scope": "model", "name": "b", "phase": "open", "calls": 9, "failed": 8, "slow": 0}
    opened = {"scope": "model", "name": "b", "called": "", "phase": "open", "reason": "8 of 9 failed"}
    rows = rows_by_name(
        "model", [window, window | {"scope": "tool"}], [opened], [{"name": n, "spent": {}} for n in ("a", "b", "")]
    )
    assert [row["name"] for row in rows] == ["b", "a"]
    spending = {"name": "b", "spent": {}}
    assert rows[0] == {"name": "b", "phase": "open", "reason": "8 of 9 failed", "spending": spending}
