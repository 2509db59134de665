"""Usage told early, twice, in part, or with another status: each figure is charged, and no cut answer is free."""

import json
from typing import Any

import pytest

from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.charges import HIDDEN_TOKENS_PER_S, estimate_usage
from bulkhead_services.model_gateway.providers.assembly import Assembly
from bulkhead_services.model_gateway.providers.fields import generated_bytes
from bulkhead_services.model_gateway.providers.forms import FORMS
from bulkhead_services.model_gateway.providers.port import GenerationProgress, ModelAnswer, ProviderFault
from tests.unit.services.model_gateway.providers.calling import calling
from tests.unit.services.model_gateway.providers.dialects import DIALECTS, Said
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider

LONG = "word " * 400
WORST = Usage(model_calls=1, input_tokens=900, output_tokens=4_000)
EXPECTED_BY_LENGTH = -(-len(LONG) // 3)


def chunk(text: str = "", finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}], **more}


def counts(prompt: int | None, completion: int | None) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def start(**usage: int) -> dict[str, Any]:
    return {"type": "message_start", "message": {"model": "m", "usage": usage}}


def delta(stop: str | None = "end_turn", **usage: int) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": stop} if stop else {}, "usage": usage}


SAID = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": LONG}}
END = {"type": "message_stop"}


def generation(text: str, finish: str = "", **usage: int) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}]}}
    told = {"usageMetadata": usage} if usage else {}
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})], **told}


def fed(api: str, *events: dict[str, Any]) -> Assembly:
    assembly = FORMS[api].assembly_type()
    for event in events:
        assembly.feed_event(json.dumps(event))
    return assembly


def charged(assembly: Assembly) -> tuple[int, int]:
    """Input and output, of a call for which WORST was reserved."""
    if assembly.usage is not None:
        return assembly.usage.input_tokens, assembly.usage.output_tokens
    figures = {"told_usage": assembly.told_usage, "is_told_at_end": assembly.is_told_at_end}
    progress = GenerationProgress(generated_bytes=assembly.generated_bytes, **figures)
    usage = estimate_usage(WORST, progress, 0.0, count_hidden=False)
    return usage.input_tokens, usage.output_tokens


@pytest.mark.parametrize(
    ("api", "events"),
    [
        ("openai-chat", [chunk("a", **counts(5, 0)), chunk(LONG[1:])]),
        ("anthropic", [start(input_tokens=5, output_tokens=1), SAID]),
        ("anthropic", [start(input_tokens=5, output_tokens=1), delta(None, output_tokens=2), SAID]),
        ("gemini", [generation("a", promptTokenCount=5, candidatesTokenCount=1), generation(LONG[1:])]),
    ],
)
def test_an_answer_that_is_cut_is_charged_the_larger_of_figure_and_estimate(api, events) -> None:
    assembly = fed(api, *events)
    assert assembly.usage is None and charged(assembly) == (900, EXPECTED_BY_LENGTH)
    assembly.told_usage = Usage(input_tokens=1_000, output_tokens=5_000)
    assert charged(assembly) == (1_000, 5_000)


def test_an_input_that_was_told_before_a_cut_is_charged_as_it_was_told() -> None:
    start_usage = {"input_tokens": 10, "cache_read_input_tokens": 400, "output_tokens": 1}
    assembly = fed("anthropic", start(**start_usage), SAID)
    progress = GenerationProgress(generated_bytes=assembly.generated_bytes, told_usage=assembly.told_usage)
    usage = estimate_usage(WORST, progress, 0.0)
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == (410, 400, EXPECTED_BY_LENGTH)


@pytest.mark.parametrize(
    ("api", "events"),
    [
        ("openai-chat", [chunk("a", **counts(1_000, 1)), chunk(LONG[1:]), chunk(finish="stop")]),
        ("gemini", [generation("a", "STOP", promptTokenCount=1_000, candidatesTokenCount=1), generation(LONG[1:])]),
        ("anthropic", [start(input_tokens=1_000, output_tokens=1), SAID, delta(), END]),
    ],
)
def test_figures_of_before_the_end_are_no_figures_of_the_whole(api, events) -> None:
    assembly = fed(api, *events)
    assert isinstance(assembly.result(), ModelAnswer) and assembly.usage is None
    assert charged(assembly) == (1_000, EXPECTED_BY_LENGTH)


@pytest.mark.parametrize(
    ("api", "events", "expected"),
    [
        ("openai-chat", [chunk(LONG, "stop"), counts(1_000, 5_000), counts(1, 0)], (1_000, 5_000)),
        ("openai-chat", [chunk(LONG, "stop"), counts(1_000, 500), {"usage": {}}], (1_000, 500)),
        ("openai-chat", [chunk(LONG, "stop"), counts(0, 5_000)], (900, 5_000)),
        ("openai-chat", [chunk(LONG, "stop"), counts(-1, 5_000)], (900, 5_000)),
        ("openai-chat", [chunk(LONG, "stop"), counts(100, 0)], (100, EXPECTED_BY_LENGTH)),
        ("openai-chat", [chunk(LONG, "stop"), counts(100, None)], (100, EXPECTED_BY_LENGTH)),
        ("openai-chat", [chunk(LONG, "stop"), counts(None, None)], (900, EXPECTED_BY_LENGTH)),
        (
            "anthropic",
            [start(input_tokens=9_000), SAID, delta(output_tokens=500), start(input_tokens=1), delta(output_tokens=1)],
            (9_000, 500),
        ),
        ("gemini", [generation(LONG, "STOP", promptTokenCount=100)], (100, EXPECTED_BY_LENGTH)),
        ("gemini", [generation("", "SAFETY", promptTokenCount=100)], (100, 0)),
        ("gemini", [generation("", "MAX_TOKENS", promptTokenCount=100, thoughtsTokenCount=50)], (100, 50)),
    ],
)
def test_each_figure_is_charged_by_itself_and_the_larger_of_two(api, events, expected) -> None:
    assert charged(fed(api, *events)) == expected


def details(**tokens: int) -> dict[str, Any]:
    return {f"{place}_tokens_details": tokens for place in ("prompt", "completion", "input", "output")}


@pytest.mark.parametrize(
    ("api", "counts", "expected"),
    [
        ("openai-chat", {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 10_150}, (100, 10_050)),
        ("openai-chat", {"completion_tokens": 0, "total_tokens": 81, **details(reasoning_tokens=60)}, (21, 60)),
        ("openai-chat", {"completion_tokens": 50, "total_tokens": 181, **details(reasoning_tokens=60)}, (100, 81)),
        ("openai-chat", {"completion_tokens": 50, **details(reasoning_tokens=10_000)}, (100, 10_050)),
        ("openai-chat", {"completion_tokens": 50, **details(cached_tokens=50_000)}, (50_100, 50)),
        ("openai-chat", {"completion_tokens": 50, **details(cache_write_tokens=50_000)}, (50_100, 50)),
        ("openai-chat", {"completion_tokens": 50.0, "prompt_tokens": "50000"}, (50_000, 50)),
        ("openai-chat", {"completion_tokens": "50", "prompt_tokens": 2 * 10**10}, (10**10, 50)),
        ("openai-responses", {"input_tokens": 100, "output_tokens": 50, "total_tokens": 10_150}, (100, 10_050)),
        ("openai-responses", {"output_tokens": 50, **details(reasoning_tokens=10_000)}, (100, 10_050)),
        ("gemini", {"candidatesTokenCount": 50, "totalTokenCount": 10_150}, (100, 10_050)),
        ("gemini", {"candidatesTokenCount": 50, "cachedContentTokenCount": 50_000}, (50_100, 50)),
        ("anthropic", {"output_tokens": 50, "output_tokens_details": {"thinking_tokens": 10_000}}, (100, 10_050)),
        (
            "anthropic",
            {
                "output_tokens": 50,
                "cache_creation_input_tokens": 100,
                "cache_creation": {"ephemeral_5m_input_tokens": 20_000, "ephemeral_1h_input_tokens": 20_000},
            },
            (40_100, 50),
        ),
    ],
)
def test_a_figure_beyond_the_whole_of_which_it_is_told_is_charged_too(api, counts, expected) -> None:
    field = "usageMetadata" if api == "gemini" else "usage"
    prompt = {"prompt_tokens": expected[0] if "total_tokens" in counts else 100, "input_tokens": 100}
    assembly = FORMS[api].assembly_type()
    assembly.feed_body(
        json.dumps({**DIALECTS[api].whole(Said("x")), field: {**prompt, "promptTokenCount": 100, **counts}}).encode()
    )
    assert charged(assembly) == expected


@pytest.mark.parametrize("place", ["choice", "x_groq"])
def test_figures_in_the_places_of_single_vendors_are_charged(place) -> None:
    end = chunk(finish="stop")
    (end["choices"][0] if place == "choice" else end.setdefault("x_groq", {})).update(counts(1_000, 5_000))
    assert charged(fed("openai-chat", chunk(LONG), end)) == (1_000, 5_000)


def test_silence_counts_as_reasoning_also_behind_the_first_word() -> None:
    progress = GenerationProgress(began_s=10.0)
    progress.note_progress(3, 10.5)
    progress.note_progress(3, 15.0)  # A ping, no word.
    progress.note_progress(6, 20.5)
    progress.note_progress(9, 21.0)
    silent_s = 0.5 + 10.0 + 2.0
    assert estimate_usage(WORST, progress, 23.0).output_tokens == 3 + silent_s * HIDDEN_TOKENS_PER_S
    assert estimate_usage(WORST, progress, 23.0, count_hidden=False).output_tokens == 3


def test_figures_that_grow_with_the_answer_are_those_of_the_whole() -> None:
    growing = [chunk("word ", **counts(100, number)) for number in range(1, 9)]
    assert charged(fed("openai-chat", *growing, chunk(finish="stop"))) == (100, 8)


RESPONSE = {"type": "response.completed", "response": {"status": "completed"}}


def completed(prompt: int, completion: int) -> dict[str, Any]:
    usage = {"input_tokens": prompt, "output_tokens": completion}
    return {**RESPONSE, "response": {"status": "completed", "usage": usage}}


@pytest.mark.parametrize(
    ("api", "events", "expected"),
    [
        ("openai-responses", [completed(100, 1), completed(100, 5_000)], (100, 5_000)),
        ("openai-responses", [completed(100, 5_000), completed(1, 1)], (100, 5_000)),
        ("openai-responses", [RESPONSE, completed(100, 5_000)], (100, 5_000)),
        ("openai-chat", [chunk(LONG, "stop"), "[DONE]", counts(1_000, 5_000)], (1_000, 5_000)),
        ("anthropic", [start(input_tokens=9), SAID, delta(output_tokens=5), END, delta(output_tokens=500)], (9, 500)),
    ],
)
async def test_figures_behind_the_end_of_an_answer_are_charged(api, events, expected) -> None:
    async def answers(x: Exchange) -> None:
        await x.begin()
        for event in events:
            await x.event(event)
        await x.end()

    async with ScriptedProvider() as server, calling(api, server.url.removesuffix("/v1")) as call:
        server.will(answers)
        result, _ = await call()
    assert result.usage is not None and (result.usage.input_tokens, result.usage.output_tokens) == expected


@pytest.mark.parametrize(
    ("iterations", "expected"),
    [
        (
            [{"input_tokens": 9_000, "output_tokens": 500}, {"input_tokens": 9_000, "output_tokens": 600}],
            (18_000, 1_100),
        ),
        ([{"input_tokens": 90, "cache_read_input_tokens": 9_000, "output_tokens": 1}], (9_090, 500)),
        ([{"input_tokens": 1, "output_tokens": 1}], (100, 500)),
        ([{"input_tokens": 10**10, "output_tokens": 10**10}] * 3, (10**10, 10**10)),
        ([{"type": "message"}, "x"], (100, 500)),
    ],
)
def test_iterations_are_charged_where_they_are_more_than_the_whole(iterations, expected) -> None:
    assembly = fed("anthropic", start(input_tokens=100), SAID, delta(output_tokens=500, iterations=iterations), END)
    assert charged(assembly) == expected


@pytest.mark.parametrize(
    ("event", "expected_bytes"),
    [
        ({"choices": [{"delta": {"hidden_thoughts": LONG}}]}, len(LONG)),
        ({"choices": [{"delta": {"audio": {"id": "a1", "data": LONG}}}]}, len(LONG)),
        ({"choices": [{"delta": {"steps": [{"note": LONG}]}}]}, len(LONG)),
        ({"type": "content_block_delta", "delta": {"type": "new_delta", "words": LONG}}, len(LONG)),
        (
            {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"q": LONG}}}]}}]},
            len(LONG) + 1,
        ),
        ({"type": "response.new.delta", "delta": LONG, "obfuscation": "xx"}, len(LONG)),
        ({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, 0),
        ({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"service_tier": "standard"}}, 0),
        ({"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": LONG}}, 0),
        ({"type": "content_block_delta", "delta": {"type": "citations_delta", "citation": {"cited_text": LONG}}}, 0),
    ],
)
def test_what_stands_in_a_delta_counts_as_written_whatever_its_name(event, expected_bytes) -> None:
    assert generated_bytes(event) == expected_bytes


TOLD = {
    "openai-chat": counts(1_000, 900),
    "openai-responses": {"usage": {"input_tokens": 1_000, "output_tokens": 900}},
    "anthropic": {"usage": {"input_tokens": 1_000, "output_tokens": 900}},
    "gemini": {"usageMetadata": {"promptTokenCount": 1_000, "candidatesTokenCount": 900}},
}


@pytest.mark.parametrize("api", TOLD)
@pytest.mark.parametrize("status", [202, 206, 400, 403, 500])
async def test_usage_that_comes_with_another_status_is_charged(api, status) -> None:
    async def answers(x: Exchange) -> None:
        await x.json(status, {"error": {"message": "No."}, **TOLD[api]})

    async with ScriptedProvider() as server, calling(api, server.url.removesuffix("/v1")) as call:
        server.will(answers)
        result, _ = await call()
    assert isinstance(result, ProviderFault) and result.usage is not None
    assert (result.usage.input_tokens, result.usage.output_tokens) == (1_000, 900)


@pytest.mark.parametrize("api", TOLD)
@pytest.mark.parametrize("body", [{"error": {"message": "No."}}, {"choices": None, "output": None}])
def test_usage_in_a_body_that_is_no_answer_is_charged(api, body) -> None:
    assembly = FORMS[api].assembly_type()
    assembly.feed_body(json.dumps(body | TOLD[api]).encode())
    assert isinstance(assembly.result(), ProviderFault) and charged(assembly) == (1_000, 900)


@pytest.mark.parametrize("api", TOLD)
def test_usage_beside_an_error_in_a_stream_is_charged_where_it_is_the_larger(api) -> None:
    assembly = fed(api, {"error": {"message": "No."}, **TOLD[api]})
    assert isinstance(assembly.result(), ProviderFault) and charged(assembly) == (1_000, 900)


FAULT = {"error": {"message": "No."}}


@pytest.mark.parametrize(
    ("api", "events"),
    [
        ("openai-chat", [chunk(LONG, "stop"), counts(1_000, 500), FAULT]),
        ("openai-chat", [chunk(LONG, "stop"), FAULT, counts(1_000, 500)]),
        ("openai-chat", [chunk(LONG, "stop"), FAULT | counts(1_000, 500)]),
        ("anthropic", [start(input_tokens=1_000), SAID, delta(output_tokens=500), {"type": "error", **FAULT}]),
        ("gemini", [generation(LONG, "STOP", promptTokenCount=1_000, candidatesTokenCount=500), FAULT]),
    ],
)
def test_an_error_behind_the_end_of_an_answer_takes_nothing_away_from_it(api, events) -> None:
    assembly = fed(api, *events)
    assert isinstance(assembly.result(), ModelAnswer) and charged(assembly) == (1_000, 500)


@pytest.mark.parametrize(("status", "consumed"), [(202, True), (206, True), (400, False), (503, False)])
async def test_without_usage_a_success_is_estimated_and_an_error_costs_nothing(status, consumed) -> None:
    async def answers(x: Exchange) -> None:
        await x.json(status, {"detail": "x"})

    async with ScriptedProvider() as server, calling("openai-chat", server.url.removesuffix("/v1")) as call:
        server.will(answers)
        result, _ = await call()
    assert isinstance(result, ProviderFault) and (result.usage, result.consumed) == (None, consumed)
