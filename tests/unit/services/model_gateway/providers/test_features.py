"""Each cell of the table of features (docs/reference/providers.md), held to what the wire form sends and reads."""

import json
import time
from collections import Counter
from dataclasses import replace

import pytest
from pydantic import SecretStr, ValidationError

from bulkhead_contracts import bounds
from bulkhead_contracts.model import TEXT, AnswerPart, ModelCallRequested
from bulkhead_services.model_gateway.providers.fields import mapping_of
from bulkhead_services.model_gateway.providers.forms import FORMS
from bulkhead_services.model_gateway.providers.port import Chat, ModelAnswer, ProviderFault, ProviderRequest
from bulkhead_services.model_gateway.routing.options import ProviderSettings, RouteSettings
from bulkhead_services.model_gateway.settings import Settings
from tests.paths import ROOT
from tests.unit.services.model_gateway.providers import misbehaviours
from tests.unit.services.model_gateway.providers.calling import CHAT, calling
from tests.unit.services.model_gateway.providers.dialects import DIALECTS, Said
from tests.unit.services.model_gateway.scripted_provider import ScriptedProvider

PARAMETERS = {"type": "object", "properties": {"a": {"type": "number"}}}
FUNCTION = {"name": "multiply", "description": "Multiplies.", "parameters": PARAMETERS}
SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "string"}},
    "required": ["sum"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "plan", "strict": True, "schema": SCHEMA}}
EVERYTHING = Chat(
    "scripted-1", {**CHAT.payload, "tools": [{"type": "function", "function": FUNCTION}], "response_format": FORM}, 100
)
THOUGHTS = "Hm, forty and two."


def said_by(api, told):
    """What the form makes of an answer, whole; it is the same in pieces."""
    whole, streamed = FORMS[api].assembly_type(), FORMS[api].assembly_type()
    whole.feed_body(json.dumps(DIALECTS[api].whole(told)).encode())
    for event in DIALECTS[api].stream(told):
        streamed.feed_event(json.dumps(event))
    assert whole.result() == streamed.result()
    assert whole.usage == streamed.usage
    return whole.result()


def body_of(api):
    return json.loads(FORMS[api].build_request(EVERYTHING).body)


def holds(value, wanted):
    """Whether a JSON value stands anywhere in another one."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value == wanted or any(holds(row, wanted) for row in inner)


def names(value):
    """Every key and every word of a schema."""
    if isinstance(value, dict):
        return {*value, *(name for row in value.values() for name in names(row))}
    if isinstance(value, list):
        return {name for row in value for name in names(row)}
    return {str(value)}


async def streaming(api):
    async with ScriptedProvider() as server, calling(api, server.url.removesuffix("/v1")) as call:
        server.will(misbehaviours.says(Said("The answer is 42."))(DIALECTS[api]))
        _, heard = await call()
    return "".join(heard) == "The answer is 42." and len(heard) > 1


def tools(api):
    said = said_by(api, Said(calls=(("c_1", "multiply", '{"a": 7}'),), end="tool_calls"))
    offered = holds(body_of(api), "multiply") and holds(body_of(api), PARAMETERS)
    return offered and [(row.name, json.loads(row.arguments_json)) for row in said.calls] == [("multiply", {"a": 7})]


def parallel_tools(api):
    made = [(f"c_{n}", "multiply", json.dumps({"a": n})) for n in range(3)]
    said = said_by(api, Said("Let me see.", calls=tuple(made), end="tool_calls"))
    return [(row.id, row.name, row.arguments_json) for row in said.calls] == made and said.finish == "tool_calls"


def structured_output(api):
    return holds(body_of(api), SCHEMA)


def reasoning(api):
    """Thoughts are no part of the text; their tokens are of the output."""
    said = said_by(api, Said("It is 42.", thoughts=THOUGHTS, counts=(100, 20, 0, 8)))
    assert said.usage is not None
    return said.text == "It is 42." and said.usage.output_tokens == 20


def prompt_caching(api):
    said = said_by(api, Said("It is 42.", counts=(100, 20, 15, 0)))
    assert said.usage is not None
    marked = holds(body_of(api), {"type": "ephemeral"})
    assert marked == (api == "anthropic")
    return said.usage.cached_input_tokens == 15


def usage(api):
    said = said_by(api, Said("It is 42.", counts=(100, 20, 0, 0)))
    asked = mapping_of(body_of(api).get("stream_options")).get("include_usage", api not in misbehaviours.CHAT)
    return bool(asked) and said.usage is not None and (said.usage.input_tokens, said.usage.output_tokens) == (100, 20)


def refusals(api):
    if api == "ollama":
        # It has no field for one: what its models say in an answer's place is text like any other.
        return isinstance(said_by(api, Said("I cannot help.")), ProviderFault)
    said = said_by(api, Said("I cannot help.", end="refusal"))
    return isinstance(said, ProviderFault) and said.code in ("model_refused", "content_filter") and not said.retryable


def parameter(api, name, value, said):
    """Whether a route's parameter is sent as it is, or refused at the start in these words."""
    route = RouteSettings(provider="other", model="gpt-4.1-mini-2025-04-14", **{name: value})
    base_url = "https://models.example/openai/v1"
    other = ProviderSettings(api=api, base_url=base_url, api_key=SecretStr("k"), price_provider="openai")
    try:
        Settings(openai_api_key=SecretStr("k"), providers={"other": other}, routes={"hot": route})
    except ValidationError as error:
        assert said in str(error)
        return "refused"
    body = json.loads(FORMS[api].build_request(replace(EVERYTHING, parameters=route.parameters())).body)
    return value in (body.get(name), mapping_of(body.get("generationConfig")).get(name))


def temperature(api):
    return parameter(api, "temperature", 1.5, "takes 1.0 at most")


def seeds(api):
    return parameter(api, "seed", 7, "leave seed out of the route")


def images(api):
    """No message of ours holds one, and one that a model makes is left out by name."""
    asked_for = any("image" in name.lower() for name in names(ModelCallRequested.model_json_schema()["$defs"]))
    event = {
        "gemini": {"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "x"}}]}}]},
        "openai-responses": {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {"type": "image_generation_call", "id": "i", "status": "completed", "result": "x"},
        },
        "anthropic": None,
    }.get(api, {"choices": [{"delta": {"images": [{"type": "image_url", "image_url": {"url": "data:"}}]}}]})
    if event:
        assembly = FORMS[api].assembly_type()
        for row in (event, *DIALECTS[api].stream(Said("Look."))):
            assembly.feed_event(json.dumps(row))
        said = assembly.result()
        assert isinstance(said, ModelAnswer) and "image" in said.omissions[0].what and said.text == "Look."
    return asked_for


OBSERVED = {
    "streaming": streaming,
    "tools": tools,
    "parallel tools": parallel_tools,
    "structured output": structured_output,
    "reasoning": reasoning,
    "prompt caching": prompt_caching,
    "usage": usage,
    "refusals": refusals,
    "temperature over 1": temperature,
    "images": images,
    "seeds": seeds,
}


PAGE = (ROOT / "docs/reference/providers.md").read_text()
HEAD, _, *ROWS = (
    [cell.strip(" `") for cell in row.strip("|").split("|")] for row in PAGE.splitlines() if row[:1] == "|"
)
OFFERS = {row[0]: {api: cell.partition(" ")[0] for api, cell in zip(HEAD[1:], row[1:], strict=True)} for row in ROWS}


def test_the_table_has_a_column_for_each_form_and_a_row_for_each_feature():
    assert HEAD[1:] == [*FORMS] and sorted(OFFERS) == sorted(OBSERVED)


@pytest.mark.parametrize("api", FORMS)
@pytest.mark.parametrize("feature", OFFERS)
async def test_a_cell_says_what_the_form_does(feature, api):
    seen = OBSERVED[feature](api)
    seen = await seen if feature == "streaming" else seen
    offer = seen if isinstance(seen, str) else "yes" if seen else "none"
    assert OFFERS[feature][api] == offer


@pytest.mark.parametrize("adopted", [True, False])
@pytest.mark.parametrize("api", FORMS)
def test_what_is_told_live_is_what_the_answer_holds_and_of_the_meshs_own_calls_the_text_alone(api, adopted):
    uses = tuple((f"call_{number}", "add", json.dumps({"a": number, "b": 40})) for number in range(2))
    told, heard, pieces = Said("Let me add.", THOUGHTS, uses, "tool_calls"), dict[AnswerPart, str](), Counter[str]()
    streamed = FORMS[api].assembly_type(ProviderRequest("", b"", adopted=adopted))
    for event in DIALECTS[api].stream(told):
        streamed.feed_event(json.dumps(event))
        for part, piece in streamed.drain_pieces():
            heard[part] = heard.get(part, "") + piece
            pieces[part.kind] += 1
    said = streamed.result()
    assert heard.pop(TEXT) == said.text == "Let me add."
    if not adopted:
        assert not heard
        return
    calls = {(part.id, part.name): text for part, text in heard.items() if part.kind == "call"}
    assert calls == {(call.id, call.name): call.arguments_json for call in said.calls}
    if api == "gemini":  # Its calls come whole, and its thoughts are not asked for.
        return
    assert pieces["call"] > 2
    thoughts = {part.kind: text for part, text in heard.items() if part.kind != "call"}
    [block] = said.thoughts
    signed = {"thinking": block.get("thinking"), "signature": block.get("signature")}
    assert thoughts == (signed if api == "anthropic" else {"reasoning": THOUGHTS})


def test_a_call_whose_id_was_given_before_is_not_told_live():
    assembly = FORMS["openai-chat"].assembly_type(
        ProviderRequest("", b"", call_ids=frozenset({"call_1"}), adopted=True)
    )
    for event in DIALECTS["openai-chat"].stream(Said(calls=(("call_1", "add", "{}"),), end="tool_calls")):
        assembly.feed_event(json.dumps(event))
    assert not assembly.drain_pieces() and assembly.result().calls[0].id != "call_1"


def thinks(index: int, **delta: str) -> dict[str, object]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def block_begins(index: int, **block: str) -> dict[str, object]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def test_thoughts_told_live_are_those_of_the_answer_however_a_provider_words_them():
    events = (
        block_begins(4, type="thinking", thinking="Fir"),
        block_begins(1, type="redacted_thinking", data="xyz", thinking="no field of it"),
        thinks(4, type="thinking_delta", thinking="st\ud83d"),
        thinks(9, type="thinking_delta", thinking="of no block"),
        thinks(4, type="signature_delta", signature="s"),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
    )
    assembly, heard = (
        FORMS["anthropic"].assembly_type(ProviderRequest("", b"", adopted=True)),
        dict[tuple[str, str], str](),
    )
    for event in events:
        assembly.feed_event(json.dumps(event))
        for part, piece in assembly.drain_pieces():
            heard[part.kind, part.id] = heard.get((part.kind, part.id), "") + piece
    first, second = assembly.result().thoughts
    assert first == {"type": "thinking", "thinking": "First?", "signature": "s"}
    assert second == {"type": "redacted_thinking", "data": "xyz"}
    assert heard == {("thinking", "0"): "First?", ("signature", "0"): "s", ("redacted", "1"): "xyz"}


def nameless(place: int) -> dict[str, object]:
    call = {"index": 0, "function": {"name": "f", "arguments": "}" if place else '{"a": "'}}
    return {"choices": [{"delta": {"tool_calls": [call]}}]}


@pytest.mark.parametrize(
    ("api", "event"),
    [
        ("anthropic", lambda place: block_begins(place, type="thinking", thinking="x")),
        ("openai-chat", lambda place: {"choices": [{"delta": {"reasoning_content": "x"}}]}),
        ("openai-chat", nameless),
    ],
    ids=["blocks", "reasoning", "a_name_with_each_piece_and_no_id"],
)
@pytest.mark.slow
def test_an_answer_in_single_letters_is_put_together_in_time(api, event):
    assembly = FORMS[api].assembly_type(ProviderRequest("", b"", adopted=True))
    began_s = time.process_time()
    for place in range(40_000):
        assembly.feed_event(json.dumps(event(place)))
        assembly.drain_pieces()
    assert time.process_time() - began_s < 5


@pytest.mark.parametrize("adopted", [True, False])
@pytest.mark.parametrize("api", sorted(set(FORMS) - {"anthropic", "gemini"}))
def test_visible_reasoning_is_kept_beside_the_answer_of_an_outside_agents_call_alone(api, adopted):
    told = Said("It is 42.", thoughts=THOUGHTS)
    whole, streamed = (FORMS[api].assembly_type(ProviderRequest("", b"", adopted=adopted)) for _ in range(2))
    whole.feed_body(json.dumps(DIALECTS[api].whole(told)).encode())
    for event in DIALECTS[api].stream(told):
        streamed.feed_event(json.dumps(event))
    wanted = ({"type": "reasoning", "text": THOUGHTS},) if adopted else ()
    for said in (whole.result(), streamed.result()):
        assert said.text == "It is 42." and said.thoughts == wanted


def test_visible_reasoning_over_its_bound_is_cut_and_told(monkeypatch):
    monkeypatch.setattr(bounds, "MAX_MODEL_ANSWER_BYTES", 12)
    whole = FORMS["openai-chat"].assembly_type(ProviderRequest("", b"", adopted=True))
    whole.feed_body(json.dumps(DIALECTS["openai-chat"].whole(Said("42", thoughts=THOUGHTS))).encode())
    said = whole.result()
    assert said.thoughts == ({"type": "reasoning", "text": THOUGHTS[:12]},)
    assert [one.what for one in said.omissions] == ["the model's thoughts"]
