"""Prompts, schemas, prices and settings: the files and knobs that the gateway starts from."""

import json
import logging
from types import SimpleNamespace

import jsonschema_rs
import pytest
from pydantic import ValidationError

from bulkhead.prompts.files import PromptError, Prompts
from bulkhead_contracts import bounds
from bulkhead_contracts.model import Part
from bulkhead_contracts.provenance import Flow, PlannedValue
from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.app import build
from bulkhead_services.model_gateway.attempts import RetryPolicy
from bulkhead_services.model_gateway.prices import PriceTable, PriceTableError
from bulkhead_services.model_gateway.providers.errors import fault_of_status
from bulkhead_services.model_gateway.providers.sse import SseDecoder
from bulkhead_services.model_gateway.settings import Settings
from bulkhead_services.planner import drafts
from tests.unit.services.model_gateway.gateway_desk import KEY, desk
from tests.unit.services.model_gateway.scripted_provider import ScriptedProvider, says

# A released prompt never changes: write a new version and add its line.
RELEASED = {
    "checker.judge.short@1": "daaf56f30bb3639d6213017d55bd6498805824ac18d9c45f0339aafdaee3a577",
    "planner.draft.short@1": "d5eff604677706188328efd7665f29d6d8de1d2fd5facbd6cafdaa38acbf98a0",
    "planner.revise.short@1": "b27f7310f5037b960e26b3f5e8df015be0bc9565376cbb24b7e3be52847ad6b8",
    "worker.step.short@1": "01508c732ab72afdcb4573843ef547522f194624c0c2838160af34c6431aa9d7",
    "checker.judge.short@2": "1c1c2a690e48395bae9c93d20aec19f6c4004543acc8187018a00cacfbe12815",
    "checker.judge@2": "634a0d191f148aedd78f60d4f8d5bdb93d890c3ff21fcfda1ddec853407ff2c9",
    "checker.judge@1": "adc3545a3ad4464eb41286a5e39d882d497794abb989a26135a2a986343828a5",
    "planner.draft@2": "143d517dd04f774ada8bd5ff9e7e3fdc5dec5aea1b4c70c8f97ec5645a1afd43",
    "planner.revise@2": "101d51af8d8d3fc78ecc750a37737174b10cabd5f27a9e4948c7527a42902cf1",
    "planner.draft.roles.short@1": "49ece12f697caa2fe284125f0e4c4f7636e06877752c4e3e8ee9cf19ea813b49",
    "planner.draft.roles@2": "9329860816d0ae275c083dda168edbee1d0fcd5a09a58008a327489b02b04f5f",
    "planner.revise.roles.short@1": "5f5a4bc4f7c54e3269429528227df57da49a050b1d105b12ee11fe9c0b34a697",
    "planner.revise.roles@2": "ade80b506273a0d7c8e010211a358157b07d814febb46c1631e6e23977c500ac",
    "worker.gate_judge@1": "f46ceab8ca26646b4885b1013f1580c95cfecc05758ab03a8f6e75f4dd5f9cbc",
    "worker.step@1": "3b66f2cbe888a9d3f3a053230e26cfb938f3ca62c8c5548e9972f71242c0a689",
}


def test_released_prompts_have_not_changed():
    prompts = Prompts()
    assert {name: prompts.find_prompt(name).digest for name in prompts.names} == RELEASED


def test_a_name_without_version_means_the_newest():
    prompts = Prompts()
    assert prompts.find_prompt("worker.step") is prompts.find_prompt("worker.step@1")
    assert (
        prompts.find_prompt("worker.step@2") is None
        and prompts.find_prompt("worker") is None
        and prompts.find_prompt("") is None
    )


DECIDERS_PROMPTS = ("planner.draft", "planner.revise", "worker.step", "checker.judge")


@pytest.mark.parametrize("name", DECIDERS_PROMPTS)
def test_a_short_variant_is_a_few_lines_and_taken_only_where_the_route_says_so(name):
    prompts = Prompts()
    full, short = prompts.find_prompt(name), prompts.find_prompt(name, "short")
    assert (full.id, short.id) == (name, f"{name}.short") and prompts.find_prompt(full.name, "short") is full
    assert len(short.text) < len(full.text) / 2.5 and short.text.count("\n") <= 12
    assert prompts.find_prompt("worker.desk", "short") is None


def test_what_fits_a_short_schema_fits_the_full_one():
    prompts = Prompts()
    step = {"id": "a", "title": "t", "instruction": "i", "tools": ["x"], "inputs": [], "acceptance": "x"}
    support = [{"sentence": 1, "source": "3fa9c1d2e4b5"}]
    verdict = {"verdict": "accept", "answered": "yes", "score": 0.5, "reasons": ["because"], "support": support}
    unbound = {"calls": [], "flows": []}  # A small model is not asked what its steps may change.
    for form, answer, whole in (
        ("plan", {"steps": [step] * 4}, {"steps": [step | unbound] * 4}),
        ("verdict", verdict, verdict),
    ):
        short, full = prompts.schema_of(form, "short"), prompts.schema_of(form)
        assert short != full and full is prompts.schemas[form]
        jsonschema_rs.validate(short, answer)
        jsonschema_rs.validate(full, whole)


async def test_a_route_says_that_prompts_are_short():
    async with ScriptedProvider() as provider:
        provider.will(says('{"steps": []}'), says("hello"))
        async with desk(provider, prompts="short") as d:
            asked = {"prompt_id": "planner.draft", "response": "plan", "stream": False}
            reply = await d.answered(d.request(**asked))
            assert reply.prompt_id == "planner.draft.short@1"
            body = provider.asked[0].body
            assert body["messages"][0]["content"] == Prompts().find_prompt("planner.draft", "short").text
            assert body["response_format"]["json_schema"]["schema"] == Prompts().schema_of("plan", "short")
            await d.answered(d.request(call_id="c2"))
            assert (
                provider.asked[1].body["messages"][0]["content"] == Prompts().find_prompt("worker.step", "short").text
            )


@pytest.mark.parametrize("name", ["planner.draft", "planner.revise"])
@pytest.mark.parametrize("style", ["full", "short"])
def test_a_plan_that_may_choose_roles_has_a_prompt_and_a_schema_that_name_them_and_no_other_has(name, style):
    prompts = Prompts()
    plain, told = prompts.find_prompt(name, style), prompts.find_prompt(name, style, roles=True)
    assert told.id == plain.id.replace(name, f"{name}.roles") and "titled `roles`" in told.text
    assert "role" not in plain.text and prompts.find_prompt(f"{name}@2", style, roles=True).id == name
    assert prompts.find_prompt("worker.step", style, roles=True) is prompts.find_prompt("worker.step", style)
    schema = prompts.schema_of("plan", style, roles=("refunds", "sales"))
    step = schema["properties"]["steps"]["items"]
    assert step["properties"]["role"]["enum"] == ["step", "refunds", "sales"]
    assert set(step["required"]) == set(step["properties"]), "strict mode"
    assert '"role"' not in json.dumps(prompts.schema_of("plan", style)), "the schema of others stays as it is"
    assert prompts.schema_of("verdict", style, roles=("refunds",)) == prompts.schema_of("verdict", style)


async def test_a_call_with_roles_is_asked_with_their_prompt_and_schema():
    async with ScriptedProvider() as provider:
        provider.will(says('{"steps": []}'), says('{"steps": []}'))
        async with desk(provider) as d:
            wish = {"prompt_id": "planner.draft", "response": "plan", "stream": False}
            reply = await d.answered(d.request(roles=("refunds",), **wish))
            assert reply.prompt_id == "planner.draft.roles@2"
            assert (await d.answered(d.request(call_id="c2", **wish))).prompt_id == "planner.draft@2"
            for seen, roles in zip(provider.asked, (("refunds",), ()), strict=True):
                assert seen.body["response_format"]["json_schema"]["schema"] == Prompts().schema_of("plan", roles=roles)
                assert (
                    seen.body["messages"][0]["content"]
                    == Prompts().find_prompt("planner.draft", roles=bool(roles)).text
                )


def _write(folder, name: str, text: str):
    for form in ("plan", "verdict"):
        (folder / f"{form}.schema.json").write_text("{}")
    (folder / name).write_text(text)


def _prompt(version: int, body: str = "Do it.\n") -> str:
    return f"---\nid: a.b\nversion: {version}\ndescription: d\nowner: o\n---\n{body}"


def test_the_newest_is_by_number_and_not_by_letter(tmp_path):
    for version in (2, 10):
        _write(tmp_path, f"a.b@{version}.md", _prompt(version, "x\n---\ny\n"))
    found = Prompts(tmp_path).find_prompt("a.b")
    assert found.version == 10 and found.text == "x\n---\ny\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.b@2.md", _prompt(1)),
        ("a.b@1.md", "no front matter"),
        ("a.b@1.md", "---\nid: [\n---\n"),
        ("a.b@1.md", "---\nid: a.b\n---\nx"),
        ("a.b@1.md", "x" * 40_000),
    ],
)
def test_a_damaged_prompt_stops_the_start_and_names_the_file(tmp_path, name, text):
    _write(tmp_path, name, text)
    with pytest.raises(PromptError, match=name.replace(".", r"\.")):
        Prompts(tmp_path)


def test_no_prompts_is_said(tmp_path):
    with pytest.raises(PromptError, match="install"):
        Prompts(tmp_path)


def test_every_prompt_that_a_decider_names_is_there():
    for name in DECIDERS_PROMPTS:
        text = Prompts().find_prompt(name).text
        assert "trust=untrusted" in text and "[[/part ID]]" in text


def test_schemas_hold_the_limits_and_strict_mode():
    schemas = Prompts().schemas
    steps = schemas["plan"]["properties"]["steps"]
    assert steps["maxItems"] == bounds.MAX_DRAFT_STEPS
    assert steps["items"]["properties"]["inputs"]["maxItems"] == bounds.MAX_STEP_INPUTS
    assert steps["items"]["properties"]["tools"]["maxItems"] == bounds.MAX_TOOLS
    for node in (schemas["plan"], steps["items"], schemas["verdict"]):
        assert node["additionalProperties"] is False and set(node["required"]) == set(node["properties"])


def test_what_fits_the_plan_schema_is_a_plan():
    call = {"tool": "pay", "values": [{"argument": "/to", "text": "Ann"}], "times": 2}
    flow = {"tool": "pay", "argument": "/n", "step_id": "a", "from_tool": "read", "field": "/rows/*/n", "operand": "n"}
    where = [{"test": "is", "field": "/name", "text": "x"}, {"test": "last"}]
    step = {"id": "a", "title": "t", "instruction": "i", "tools": [], "inputs": [], "acceptance": "x"}
    step |= {"calls": [call | {"figures": ["/n = 2 * n"]}], "flows": [flow | {"where": ["is /name x", "last"]}]}
    jsonschema_rs.validate(Prompts().schemas["plan"], {"steps": [step]})
    (parsed,), notes = drafts.parse(json.dumps({"steps": [step]}))
    assert not notes and parsed.flows == (Flow.model_validate(flow | {"where": where}),)
    [foreseen] = parsed.calls
    assert foreseen.values == (PlannedValue(argument="/to", text="Ann"), PlannedValue(argument="/n", calculate="2 * n"))


# Prices


def test_money_is_rounded_up():
    price = PriceTable().find_price("offline-rules-1", "", "http://127.0.0.1/v1")
    assert price.cost_usd_micros(Usage(input_tokens=1)) == 1 and price.cost_usd_micros(Usage()) == 0
    assert price.cost_usd_micros(Usage(input_tokens=1_000_000, output_tokens=1_000_000)) == 750_000


def test_public_prices_need_their_provider():
    prices = PriceTable()
    name = "gpt-4o-mini-2024-07-18"
    found = prices.find_price(name, "", "https://api.openai.com/v1")
    assert found.cost_usd_micros(Usage(input_tokens=10**6, output_tokens=10**6)) == 750_000
    assert found.cost_usd_micros(Usage(input_tokens=10**6, cached_input_tokens=10**6)) == 75_000
    assert found.digest.startswith("genai-prices ") and found.context_tokens == 128_000
    assert prices.find_price(name, "", "https://unknown.example/v1") is None
    assert prices.find_price(name, "openai", "https://unknown.example/v1").digest == found.digest
    assert (
        prices.find_price("no-such-model", "openai", "") is None
        and prices.find_price("x", "no-such-provider", "") is None
    )


def test_own_rows_win_and_have_their_own_digest(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text('[models."offline-rules-1"]\ninput = "1"\noutput = 2\ncached_input = "0.5"\n')
    price = PriceTable(extra=path).find_price("offline-rules-1", "", "")
    assert price.cost_usd_micros(Usage(input_tokens=10)) == 10 and price.context_tokens is None
    assert price.cost_usd_micros(Usage(input_tokens=10, cached_input_tokens=4, output_tokens=1)) == 10
    assert price.digest != PriceTable().find_price("offline-rules-1", "", "").digest


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[models.a]\ninput = '1'",
        "[models.a]\ninput = 'dear'\noutput = '1'",
        "[models.a]\ninput = '-1'\noutput = '1'",
        "[models.a]\ninput='nan'\noutput='1'",
        "[models.a]\ninput='0.15'\noutput='0'",
        "[models.a]\ninput='0.00000015'\noutput='0.0000006'",
        "[models.a]\ninput='150000'\noutput='600000'",
        "[models.a]\ninput='1'\noutput='2'\ncached_input='3'",
        "[models.a]\ninput='1'\noutput='2'\ncontext_tokens='many'",
        "[models.a]\ninput='1'\noutput='2'\ncached='0.1'",
        "models = 3",
        None,
    ],
)
def test_a_damaged_price_file_stops_the_start(tmp_path, text):
    path = tmp_path / "p.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PriceTableError):
        PriceTable(extra=path)


# Settings


@pytest.mark.parametrize("name", ["latest", "gpt-4o-latest", "chatgpt-4o-latest", "openrouter/auto", "llama3:latest"])
def test_moving_names_are_refused(name):
    for given in ({"model": name}, {"judge_model": name}, {"fallback_model": name}, {"routes": {"x": {"model": name}}}):
        with pytest.raises(ValidationError, match="dated version"):
            Settings(**given)


def test_openai_variables_have_no_prefix(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("BULKHEAD_MODEL", "offline-rules-1")
    monkeypatch.setenv("BULKHEAD_ROUTES", '{"genius": {"model": "big-1", "fallback": {"model": "small-1"}}}')
    monkeypatch.setenv("BULKHEAD_FREE_MODELS", '["big-1", "small-1"]')
    settings = Settings()
    assert settings.all_providers()["openai"].api_key.get_secret_value() == KEY
    assert settings.all_routes()["judge"].model == "offline-rules-1"
    assert settings.all_routes()["genius"].fallback[0].model == "small-1"
    assert KEY not in repr(settings) and KEY not in settings.model_dump_json()


def test_a_route_to_nowhere_is_refused():
    with pytest.raises(ValidationError, match="not configured"):
        Settings(routes={"default": {"model": "m-1", "provider": "nobody"}})
    with pytest.raises(ValidationError, match="http"):
        Settings(openai_base_url="ftp://x")


def test_no_key_stops_the_start_except_on_this_machine():
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        build(
            SimpleNamespace(verifier=None, bus=None),
            Settings(openai_api_key="", openai_base_url="https://api.openai.com/v1"),
        )
    for url in ("http://127.0.0.1:1/v1", "http://localhost:1/v1", "http://[::1]:1/v1"):
        build(
            SimpleNamespace(verifier=None, bus=None),
            Settings(openai_api_key="", openai_base_url=url, model="offline-rules-1"),
        )


@pytest.mark.parametrize(
    "given",
    [
        {"model": "nobody-knows-1"},
        {"judge_model": "nobody-knows-1"},
        {"fallback_model": "nobody-knows-1"},
        {"routes": {"x": {"model": "nobody-knows-1"}}},
    ],
)
def test_a_model_without_a_price_is_refused_at_the_start(given):
    with pytest.raises(ValidationError, match=r"nobody-knows-1.*BULKHEAD_FREE_MODELS"):
        Settings(**given)
    assert Settings(**given, free_models=("nobody-knows-1",))


def test_a_price_belongs_to_a_provider_that_is_known():
    with pytest.raises(ValidationError, match="BULKHEAD_PRICE_PROVIDER"):
        Settings(openai_base_url="http://127.0.0.1:1/v1")
    assert Settings(openai_base_url="http://127.0.0.1:1/v1", price_provider="openai")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"context_tokens": 2_560}, r"context of 2560 tokens; a prompt takes .* set its max_output_tokens to \d+ in"),
        ({"context_tokens": 1_024}, "use a model with a longer context"),
        ({"provider_ca_file": "/nowhere.pem"}, "BULKHEAD_PROVIDER_CA_FILE /nowhere.pem cannot be used: No such file"),
        ({"provider_ca_file": __file__}, "holds no certificate in PEM form"),
        ({"provider_proxy": "proxy:3128"}, "BULKHEAD_PROVIDER_PROXY 'proxy:3128' must begin with http"),
        (
            {"provider_proxy": "http://me:secret@proxy:99999"},
            r"//\*\*\*@proxy:99999' cannot be read: Port out of range",
        ),
        ({"openai_base_url": "https://"}, "OPENAI_BASE_URL 'https://' must .* name a host"),
        ({"providers": {"p": {"base_url": "http://a/v1", "base_urls": ["http://b/v1"]}}}, "not both"),
        (
            {"providers": {"p": {"base_url": "http://a/v1", "api_keys": ["a", "a"]}}},
            "same key at the same address twice",
        ),
        (
            {"providers": {"p": {"base_urls": ["http://a/v1", "http://b/v1"], "api_keys": ["a", "b", "c"]}}},
            "3 api_keys and 2 base_urls are no pairs",
        ),
        (
            {"routes": {"x": {"model": "offline-rules-1", "hedge_after_ms": 9}}},
            "hedge_after_ms and nothing else to ask",
        ),
        (
            {"routes": {"x": {"model": "offline-rules-1", "fallback": [{"model": "offline-rules-1"}] * 10}}},
            "names 10 models at most, this one 11",
        ),
    ],
)
def test_what_cannot_work_is_told_before_anything_starts(given, match):
    with pytest.raises(ValidationError, match=match):
        Settings(**{"model": "offline-rules-1", **given})


def test_a_price_must_hold_at_every_address():
    row = {"base_urls": ["https://api.openai.com/v1", "https://unknown.example/v1"], "api_key": "k"}
    with pytest.raises(ValidationError, match=r"unknown\.example"):
        Settings(providers={"p": row}, routes={"x": {"model": "gpt-4.1-mini-2025-04-14", "provider": "p"}})


def test_the_judge_has_the_models_of_the_default_route_where_it_has_none_of_its_own():
    given = {"providers": {"p": {"base_url": "http://a/v1"}}, "free_models": ("m-1", "j-1"), "model": "offline-rules-1"}
    routes = {"default": {"model": "m-1", "provider": "p"}}
    assert Settings(**given, routes=routes).all_routes()["judge"].provider == "p"
    assert Settings(**given, routes=routes, judge_model="j-1").all_routes()["judge"].model == "j-1"


def test_one_key_of_several_may_not_be_missing():
    row = {"base_url": "https://api.example.com/v1", "api_keys": ["a", ""]}
    route = {"model": "offline-rules-1", "provider": "p"}
    settings = Settings(openai_api_key=KEY, providers={"p": row}, routes={"default": route})
    assert settings.start_problems() and "provider p" in settings.start_problems()[0]


def test_a_named_provider_takes_the_key_of_its_variable_at_the_vendors_address_alone():
    def keys(**row):
        return Settings(openai_api_key=KEY, providers={"p": row}).all_providers()["p"].api_key.get_secret_value()

    assert keys(base_url="https://api.openai.com/v1", region="us") == KEY
    assert keys(base_url="https://proxy.example/v1") == ""
    assert keys(base_urls=["https://api.openai.com/v1", "https://proxy.example/v1"]) == ""


# Bounds of what a provider sends


def test_a_line_end_cut_in_two_is_one_line_end():
    decoder = SseDecoder()
    found = [decoder.feed(piece) for piece in (b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n")]
    assert found == [[], [], [], ["a\nb"]] and decoder.flush() == []


def test_an_error_is_read_and_passed_on_within_bounds():
    fault = fault_of_status(500, {}, b'{"error": {"message": "' + b"x" * 50_000 + b'"}}')
    assert len(fault.message) <= bounds.MAX_PROVIDER_ERROR_CHARS + 20
    assert fault_of_status(500, {}, b"\xff<html>").message == "status 500: status 500"


def test_the_pause_is_jittered_bounded_and_not_before_retry_after():
    drawn = iter([0.0, 1.0, 1.0, 0.5])
    policy = RetryPolicy(4, 100, 1_000, 1.0, lambda: next(drawn))
    assert policy.pause_s(1, None) == 0.0 and policy.pause_s(2, None) == 0.2
    assert policy.pause_s(9, None) == 1.0 and policy.pause_s(1, 3.0) == pytest.approx(3.05)


# What must not get out


async def test_neither_prompt_nor_answer_nor_key_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("bulkhead").setLevel(logging.DEBUG)
    async with ScriptedProvider() as provider:

        async def echoes(x) -> None:
            await x.json(500, {"error": {"message": str(x.body["messages"]) + KEY}})

        provider.will(echoes, says("the-secret-answer"))
        async with desk(provider) as d:
            parts = (Part(kind="step", text="the-secret-prompt"),)
            await d.answered(d.request(parts=parts))
    text = caplog.text + str([vars(one) for one in caplog.records])
    assert "provider_call_failed" in text
    assert not [word for word in ("the-secret-prompt", "the-secret-answer", KEY) if word in text]
