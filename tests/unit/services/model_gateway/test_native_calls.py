"""Calls in their provider's own API: passed on and answered as they are, bounded, and said in another API with gaps."""

import base64
import json
import zlib
from collections import defaultdict
from typing import Any

import pytest

from bulkhead_contracts.model import AnswerPart, Conversation, ModelApi, ModelCallRequested, TextDelta
from bulkhead_services.doors.port import ModelCallAnswer
from bulkhead_services.model_gateway.prices import PriceTable
from tests.answer_set.documents import pdf
from tests.unit.services.model_gateway.gateway_desk import Desk, desk
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, says
from tests.unit.services.model_gateway.test_conversations import asked, canonical, image_part, png

CLAUDE = "claude-sonnet-4-5-20250929"
IMAGE = base64.b64encode(png(640, 480)).decode()
BLOCK = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}}
TOOL = {"name": "look", "input_schema": {"type": "object"}, "defer_loading": True}
SEARCH = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
MESSAGES: tuple[dict[str, Any], ...] = (
    {"role": "user", "content": [{"type": "text", "text": "Look.", "cache_control": {"type": "ephemeral"}}]},
    {"role": "system", "content": "The tool was loaded.", "output_config": {"effort": "low"}},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "So.", "signature": "c2ln"},
            {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"b": 1, "a": 2}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [BLOCK]}]},
)
OPTIONS = {
    "system": [{"type": "text", "text": "Be brief."}],
    "tools": [TOOL, SEARCH],
    "top_k": 5,
    "thinking": {"type": "adaptive"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "betas": ["context-management-2025-06-27", "interleaved-thinking-2025-05-14"],
}
ITEMS: tuple[dict[str, Any], ...] = (
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Patch it."}]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "hidden"},
    {"type": "custom_tool_call", "call_id": "c_1", "name": "apply_patch", "input": "*** Begin Patch"},
    {
        "type": "custom_tool_call_output",
        "call_id": "c_1",
        "output": [{"type": "input_image", "image_url": f"data:image/png;base64,{IMAGE}"}],
    },
)
CODEX = {
    "instructions": "Be brief.",
    "tools": [
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
        {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "spawn", "parameters": {}}]},
        {"type": "local_shell"},
        {"type": "tool_search", "execution": "client"},
    ],
    "include": ["reasoning.encrypted_content"],
    "text": {"verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
}


@pytest.fixture
async def provider():
    async with ScriptedProvider() as found:
        yield found


def at(provider: ScriptedProvider, api: str, model: str = CLAUDE) -> dict[str, Any]:
    """Settings of a mesh whose one model is at a provider of this API."""
    vendor = {"anthropic": "anthropic"}.get(api, "openai")
    row = {"api": api, "base_url": provider.url, "api_key": "k", "price_provider": vendor}
    return {"providers": {"a": row}, "routes": {"default": {"model": model, "provider": "a"}}, "free_models": (model,)}


async def call(
    d: Desk, api: ModelApi, *rows: dict[str, Any], options: dict[str, Any] | None = None, call_id: str = "c1"
) -> ModelCallRequested:
    refs = tuple([await d.store(canonical(row), "doors") for row in rows])
    told = await d.store(canonical(options), "doors") if options else None
    conversation = Conversation(messages=refs, options=told, reads_calls=True, api=api)
    given: dict[str, Any] = {"prompt_id": "adopted@1", "parts": (), "max_output_tokens": 2_000, "call_id": call_id}
    return d.request(conversation=conversation, tier="default", stream=True, **given)


async def streams(x: Exchange, *events: dict[str, Any]) -> None:
    await x.begin()
    for event in events:
        await x.event(event)
    await x.end()


async def claude(x: Exchange) -> None:
    """Thoughts, a search of the tools, text, and a call."""
    found = {"type": "tool_search_tool_result", "tool_use_id": "srv_1", "content": {"tool_references": []}}
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        (
            {"type": "thinking", "thinking": ""},
            [{"type": "thinking_delta", "thinking": "Hm."}, {"type": "signature_delta", "signature": "c2ln"}],
        ),
        (
            {"type": "server_tool_use", "id": "srv_1", "name": "tool_search_tool_regex", "input": {}},
            [{"type": "input_json_delta", "partial_json": '{"query": "lo'}, {"partial_json": 'ok"}'}],
        ),
        (found, []),
        ({"type": "text", "text": ""}, [{"type": "text_delta", "text": "I look"}]),
        (
            {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}},
            [{"type": "input_json_delta", "partial_json": '{"a": 1}'}],
        ),
    ]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 5, "output_tokens": 1}}}
    ]
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": "tool_use", "stop_sequence": None}
    applied = {"applied_edits": []}
    events.append(
        {"type": "message_delta", "delta": ended, "context_management": applied, "usage": {"output_tokens": 9}}
    )
    await streams(x, *events, {"type": "message_stop"})


CLAUDE_SAID = [
    {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
    {"type": "server_tool_use", "id": "srv_1", "name": "tool_search_tool_regex", "input": {"query": "look"}},
    {"type": "tool_search_tool_result", "tool_use_id": "srv_1", "content": {"tool_references": []}},
    {"type": "text", "text": "I look"},
    {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {"a": 1}},
]
CODEX_SAID: list[dict[str, Any]] = [
    {"type": "reasoning", "id": "rs_2", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": "e"},
    {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c_2", "name": "apply_patch", "input": "*** Begin"},
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "c_3",
        "name": "spawn",
        "namespace": "agents",
        "arguments": "{}",
    },
    {"type": "function_call", "id": "fc_2", "call_id": "c_4", "name": "look", "arguments": '{"a": 1}'},
]


async def codex(x: Exchange) -> None:
    """A thought, a call of a tool of free text, one of a namespace, and one of a function."""
    events = [
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "summary": []}},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "Hm."},
    ]
    for index, item in enumerate(CODEX_SAID):
        begun = item | {name: "" for name in ("input", "arguments") if name in item}
        if index:
            events.append({"type": "response.output_item.added", "output_index": index, "item": begun})
        if "arguments" in item:
            piece = {"output_index": index, "delta": item["arguments"]}
            events.append({"type": "response.function_call_arguments.delta", **piece})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    usage = {"input_tokens": 5, "output_tokens": 9}
    ended = {"status": "completed", "model": "m", "output": CODEX_SAID, "usage": usage}
    await streams(x, *events, {"type": "response.completed", "response": ended})


async def hear_parts(d: Desk, live: Any, most: int) -> dict[AnswerPart, str]:
    """The parts that were published, whole."""
    parts = defaultdict[AnswerPart, str](str)
    async for message in live:
        delta = TextDelta.model_validate_json(message.body)
        parts[delta.part] += delta.piece
        if sum(map(len, parts.values())) >= most:
            return parts
    raise AssertionError("the live stream ended")


# The same API


async def test_a_message_reaches_its_provider_as_it_came_and_its_answer_comes_back_so(provider):
    provider.will(claude)
    async with desk(provider, **at(provider, "anthropic")) as d:
        live = await d.live()
        reply = await asked(d, await call(d, "anthropic", *MESSAGES, options=OPTIONS))
        (x,) = provider.asked
        native = json.loads(await d.text(reply.native))
        answer = ModelCallAnswer(
            "c1",
            "m",
            await d.text(reply.content),
            reply.tool_calls,
            reply.finish,
            reply.usage,
            1,
            thoughts=tuple(json.loads(await d.text(reply.thoughts))),
            native=native,
        )
        told = {piece.part: piece.text for piece in answer.parts}
        assert await hear_parts(d, live, sum(map(len, told.values()))) == told, "live and record are one"
    sent = {name: value for name, value in OPTIONS.items() if name != "betas"}
    added = {"model": CLAUDE, "max_tokens": 2_000, "stream": True, "messages": list(MESSAGES)}
    assert x.body == sent | added and f'"messages":[{",".join(map(canonical, MESSAGES))}]'.encode() in x.sent
    assert x.headers["anthropic-beta"] == ",".join(OPTIONS["betas"])
    assert native == {"content": CLAUDE_SAID, "stop_reason": "tool_use", "context_management": {"applied_edits": []}}
    assert reply.completeness.complete and [part.told_kind for part in told] == [
        *("thinking", "signature", "block", "block", "text", "call")
    ]


async def test_items_reach_their_provider_as_they_came_and_its_items_come_back_so(provider):
    provider.will(codex)
    async with desk(provider, **at(provider, "openai-responses", "m1")) as d:
        live = await d.live()
        reply = await asked(d, await call(d, "openai-responses", *ITEMS, options=CODEX))
        (x,) = provider.asked
        native = json.loads(await d.text(reply.native))
        answer = ModelCallAnswer("c1", "m", "", reply.tool_calls, reply.finish, reply.usage, 1, native=native)
        told = {piece.part: piece.text for piece in answer.parts}
        assert await hear_parts(d, live, sum(map(len, told.values()))) == told, "live and record are one"
    added = {"model": "m1", "max_output_tokens": 2_000, "stream": True, "store": False, "input": list(ITEMS)}
    assert x.body == CODEX | added and native == {"output": CODEX_SAID}
    assert [part.told_kind for part in told] == ["block", "block", "block", "call"] and reply.completeness.complete


async def test_what_is_on_no_list_is_refused_though_doors_let_it_pass(provider):
    async with desk(provider, **at(provider, "anthropic")) as d:
        names = ("mcp_servers", "container", "speed", "max_tokens", "stream", "model", "thinking.effort_tokens")
        for number, name in enumerate(names):
            outer, _, inner = name.partition(".")
            options = OPTIONS | {outer: {inner: "x"} if inner else "x"}
            reply = await asked(d, await call(d, "anthropic", *MESSAGES, options=options, call_id=f"c{number}"))
            assert (reply.outcome, reply.failure.code) == ("refused", "unsupported_parameter")
            assert f"the parameter {name} is not passed on" in reply.failure.message
    assert not provider.asked


async def test_what_has_no_price_is_left_out_by_name(provider):
    provider.will(claude)
    web = {"type": "web_search_20250305", "name": "web_search"}
    more = {
        "tools": [TOOL, web],
        "tool_choice": {"type": "tool", "name": "web_search"},
        "betas": ["fast-mode-2026-02-01", "context-management-2025-06-27"],
        "context_management": {"edits": [{"type": "compact_20260112"}]},
    }
    added = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": web}}
    rows = ({"role": "user", "content": "x", "server": 1}, {"role": "system", "content": [added]})
    async with desk(provider, **at(provider, "anthropic")) as d:
        reply = await asked(d, await call(d, "anthropic", *rows, options=more))
        (x,) = provider.asked
    assert x.body["tools"] == [TOOL] and not {"tool_choice", "context_management"} & set(x.body)
    assert x.body["messages"][0] == {"role": "user", "content": "x"}
    assert x.body["messages"][1]["content"][0]["text"].startswith("[the tool web_search left out: its provider runs it")
    assert x.headers["anthropic-beta"] == "context-management-2025-06-27"
    assert {row.what for row in reply.completeness.omissions} == {
        *("the tool web_search (2 times)", "the beta fast-mode-2026-02-01", "the edit compact_20260112"),
        "the field server of a message",
    }


# Money


async def reserved(d: Desk, request: ModelCallRequested) -> int:
    before = len(d.purse.asked)
    assert (await asked(d, request)).outcome == "answered"
    return d.purse.asked[before].worst_case.tokens


def document(content: bytes) -> dict[str, Any]:
    data = base64.b64encode(content).decode()
    source = {"type": "base64", "media_type": "application/pdf", "data": data}
    result = [{"type": "text", "text": "Here."}, {"type": "document", "source": source}]
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": result}]}


@pytest.mark.parametrize(
    ("kinds", "documented"),
    [
        (({},), 346),
        (({"type": "bash_20250124"},), 346 + 245),
        (({"type": "text_editor_20250728"}, {"type": "computer_20250124"}), 499 + 700 + 735),
    ],
)
async def test_tokens_that_anthropic_adds_for_tools_are_reserved(provider, kinds, documented):
    provider.will(claude)
    schema = {"type": "object", "properties": {}}
    tools = [{"name": f"t{number}", "input_schema": schema} | kind for number, kind in enumerate(kinds)]
    async with desk(provider, **at(provider, "anthropic")) as d:
        bare = await reserved(d, await call(d, "anthropic", MESSAGES[0]))
        tokens = await reserved(d, await call(d, "anthropic", MESSAGES[0], options={"tools": tools}, call_id="c2"))
    assert documented <= tokens - bare <= documented * 1.6 + 100


async def test_a_pdf_in_a_tools_result_reserves_its_pages_as_text_and_image(provider):
    provider.will(claude)
    async with desk(provider, **at(provider, "anthropic")) as d:
        none, few, many = [
            await reserved(d, await call(d, "anthropic", *MESSAGES[:3], row, call_id=f"c{number}"))
            for number, row in enumerate(
                (
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "-"}]},
                    document(pdf(["one"])),
                    document(pdf(["word " * 50] * 30)),
                )
            )
        ]
    page = 3_000 + 4_800
    assert page <= few - none < page + 200 and 30 * page <= many - none < 30 * page + 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"%PDF-1.7\n" + zlib.compress(b"word " * 500_000), "the PDF is damaged"),
        (pdf(["x"] * 601), "601 pages exceed 600"),
        (b"PK\x03\x04\x00\x00", "it is neither text nor a PDF"),
    ],
)
async def test_a_document_that_cannot_be_counted_leaves_its_name_and_the_session_goes_on(provider, content, said):
    provider.will(claude)
    async with desk(provider, **at(provider, "anthropic")) as d:
        reply = await asked(d, await call(d, "anthropic", *MESSAGES[:3], document(content)))
        (x,) = provider.asked
    first, second = x.body["messages"][3]["content"][0]["content"]
    assert first == {"type": "text", "text": "Here."} and second["text"].startswith(f"[document left out: {said}")
    assert reply.outcome == "answered" and reply.completeness.omissions[0].detail.startswith(said)


@pytest.mark.parametrize(("ttl", "factor"), [(None, 1.25), ({}, 1.25), ({"ttl": "1h"}, 2.0)])
async def test_what_a_chat_provider_may_write_to_its_cache_is_reserved_and_charged(provider, ttl, factor):
    details = {"prompt_tokens_details": {"cache_write_tokens": 1_000}}
    provider.will(says("x", told={"prompt_tokens": 1_000, "completion_tokens": 1, **details}))
    mark = {} if ttl is None else {"cache_control": {"type": "ephemeral", **ttl}}
    row = {"role": "user", "content": [{"type": "text", "text": "word " * 4_000, **mark}]}
    settings = at(provider, "openai-chat") | {"free_models": ()}
    settings["providers"]["a"]["price_provider"] = "anthropic"
    async with desk(provider, **settings) as d:
        await reserved(d, await call(d, "", row))
        worst, settled = d.purse.asked[0].worst_case, (await d.settled(1))[0].usage
    inputs = worst.tokens - 2_000
    assert abs(worst.cost_usd_micros - (inputs * 3 * factor + 2_000 * 15)) <= 2
    assert settled.cost_usd_micros - 15 == 1_000 * 3 * factor


@pytest.mark.parametrize(("ttl", "factor"), [({}, 1.25), ({"ttl": "1h"}, 2.0), (None, 1.0)])
async def test_what_may_be_written_to_a_cache_is_reserved_at_its_price(provider, ttl, factor):
    provider.will(claude)
    mark = {} if ttl is None else {"cache_control": {"type": "ephemeral", **ttl}}
    row = {"role": "user", "content": [{"type": "text", "text": "word " * 4_000, **mark}]}
    settings = at(provider, "anthropic") | {"free_models": ()}
    async with desk(provider, **settings) as d:
        await reserved(d, await call(d, "anthropic", row))
        worst = d.purse.asked[0].worst_case
    price = PriceTable().find_price(CLAUDE, "anthropic", "")
    assert price is not None
    inputs = worst.tokens - 2_000
    assert abs(worst.cost_usd_micros - (inputs * 3 * factor + 2_000 * 15)) <= 2


async def test_a_budget_of_thoughts_fits_into_what_the_model_may_write(provider):
    provider.will(claude)
    async with desk(provider, **at(provider, "anthropic")) as d:
        options = {"thinking": {"type": "enabled", "budget_tokens": 31_999}}
        reply = await asked(d, await call(d, "anthropic", MESSAGES[0], options=options))
    assert provider.asked[0].body["thinking"] == {"type": "enabled", "budget_tokens": 1_999}
    assert [gap.what for gap in reply.completeness.omissions] == ["the budget of thoughts beyond 1999 tokens"]


# Another API


async def test_a_message_is_said_in_another_api_with_its_images_and_its_gaps(provider):
    provider.will(says("seen"))
    async with desk(provider, **at(provider, "openai-chat", "m1")) as d:
        reply = await asked(d, await call(d, "anthropic", *MESSAGES, options=OPTIONS))
        (x,) = provider.asked
    roles = [row["role"] for row in x.body["messages"]]
    assert roles == ["system", "user", "system", "assistant", "tool", "user"]
    assert x.body["messages"][-1]["content"] == [image_part(png(640, 480))]
    assert [tool["function"]["name"] for tool in x.body["tools"]] == ["look"] and reply.native is None
    assert {row.what for row in reply.completeness.omissions} == {
        *("a signed thought", "the option thinking", "the option context_management"),
        "the tool tool_search_tool_regex",
    }


@pytest.mark.parametrize("api", ["anthropic", "gemini"])
async def test_items_are_said_in_another_api_with_their_images_and_their_gaps(provider, api):
    provider.will(claude if api == "anthropic" else generates)
    async with desk(provider, **at(provider, api, "m1")) as d:
        reply = await asked(d, await call(d, "openai-responses", *ITEMS, options=CODEX))
        (x,) = provider.asked
    assert IMAGE in x.sent.decode() and "agents__spawn" in x.sent.decode()
    assert {row.what for row in reply.completeness.omissions} >= {
        *("an encrypted thought", "the option verbosity", "the tool local_shell", "the tool tool_search")
    }


async def generates(x: Exchange) -> None:
    candidate = {"content": {"parts": [{"text": "seen"}]}, "finishReason": "STOP"}
    counts = {"promptTokenCount": 5, "candidatesTokenCount": 2}
    await streams(x, {"candidates": [candidate], "usageMetadata": counts})


async def test_a_note_of_the_mesh_is_said_in_each_api(provider):
    note = {"role": "system", "content": "Note of Bulkhead."}
    sent: list[dict[str, Any]] = []
    for api, rows, script in (("anthropic", MESSAGES, claude), ("openai-responses", ITEMS, codex)):
        provider.will(script)
        async with desk(provider, **at(provider, api, "m1")) as d:
            request = await call(d, api, *rows, note)
            talk = request.conversation
            assert talk is not None
            await asked(d, request.model_copy(update={"conversation": talk.model_copy(update={"notes": 1})}))
        sent.append(provider.asked[-1].body)
    assert sent[0]["messages"][-1]["content"][-1] == {"type": "text", "text": "Note of Bulkhead."}
    assert sent[1]["input"][-1] == {"type": "message", "role": "developer", "content": "Note of Bulkhead."}


async def test_citations_are_left_out_by_name_for_a_stream_holds_none(provider):
    provider.will(claude)
    row = document(pdf(["one"]))
    row["content"][0]["content"][1]["citations"] = {"enabled": True}
    async with desk(provider, **at(provider, "anthropic")) as d:
        reply = await asked(d, await call(d, "anthropic", *MESSAGES[:3], row))
    assert "citations" not in provider.asked[0].body["messages"][3]["content"][0]["content"][1]
    assert [gap.what for gap in reply.completeness.omissions] == ["the citations of a document"]
