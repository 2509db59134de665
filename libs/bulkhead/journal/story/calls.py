"""The calls of a task: what was asked, why, what came of it, what it cost and what it waited for. Pure.

In: the task's facts in journal order, and the contents that could be read. Out: calls in the order of asking.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from bulkhead.journal import approvals
from bulkhead.journal.history import JournalEntry, Replied, Requested
from bulkhead.journal.pause_status import when_over
from bulkhead.journal.story.model import Call, CallKind, Effect
from bulkhead.journal.story.sources import source_of_passage
from bulkhead.journal.story.waits import waits_of_call
from bulkhead.text.amounts import format_duration
from bulkhead.text.plain_text import cut_line
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.result import ContentRef, Usage
from bulkhead_contracts.retrieval import RetrievalReplied, RetrievalRequested
from bulkhead_contracts.task import TaskEnded, TaskSubmitted
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested

Texts = Mapping[str, str]
"""Contents by digest."""
SEARCH_TOOL = "search_documents"
"""The tool by which an agent asks for a retrieval."""
MAX_ARGUMENTS_CHARS = 2_000
MAX_STATED_CHARS = 2_000
MAX_RESULT_CHARS = 2_000
MAX_PUT_OFF = 8
MAX_CONTENTS = 256
MAX_PASSAGES = 20
_KINDS: dict[type[Requested], CallKind] = {
    ModelCallRequested: "model",
    ToolCallRequested: "tool",
    RetrievalRequested: "search",
}


def text_of(ref: ContentRef | None, texts: Texts) -> str:
    """A content as far as it is known: its text, else its summary."""
    return "" if ref is None else texts.get(ref.sha256, ref.summary)


def contents_to_read(entries: Iterable[JournalEntry]) -> list[ContentRef]:
    """Contents that calls brought, and that their summaries do not have whole."""
    refs = [entry.body.content for entry in entries if isinstance(entry.body, ModelCallReplied | ToolCallReplied)]
    long = [ref for ref in refs if ref is not None and ref.summary.endswith("…")]
    return list({ref.sha256: ref for ref in long}.values())[:MAX_CONTENTS]


def find_calls(entries: Iterable[JournalEntry], texts: Texts) -> list[Call]:
    """Every call once, however often it was asked again while it was put off."""
    entries = list(entries)
    requests: dict[tuple[str, str], JournalEntry] = {}
    replies: dict[tuple[str, str], JournalEntry] = {}
    put_off: dict[tuple[str, str], list[str]] = {}
    askings: dict[tuple[str, str], list[JournalEntry]] = {}
    settled: dict[tuple[str, str], dict[str, Settled]] = {}
    reserved = Counter[tuple[str, str]]()
    for entry in entries:
        body = entry.body
        if isinstance(body, Requested):
            requests.setdefault((entry.receiver, body.call_id), entry)
            askings.setdefault((entry.receiver, body.call_id), []).append(entry)
        elif isinstance(body, Replied):
            replies.setdefault((entry.sender, body.call_id), entry)
        elif isinstance(body, CallDeferred):
            reason = when_over(body.reason) or body.code or "it could not begin"
            deferral = f"{reason} (for {format_duration(body.after_ms)})"
            put_off.setdefault((entry.sender, body.call_id), []).append(deferral)
            askings.setdefault((entry.sender, body.call_id), []).append(entry)
        elif isinstance(body, Reserved):
            reserved[body.service, body.call_id] += body.amount.cost_usd_micros
        elif isinstance(body, Settled):
            settled.setdefault((entry.sender, body.call_id), {}).setdefault(body.reservation_id, body)
    writing_tools = _writing_tools(entries)
    by_id = {entry.id: entry for entry in entries if isinstance(entry.body, ModelCallReplied)}
    answered = {row.asked.call_id: approvals.describe_answer(row) for row in approvals.find_questions(entries).values()}
    end_unix_ms = next((entry.at_unix_ms for entry in entries if isinstance(entry.body, TaskEnded)), None)
    has_ended = end_unix_ms is not None
    calls = []
    for key, entry in requests.items():
        paid = tuple(settled.get(key, {}).values())
        call = _build_call(entry, replies.get(key), texts, by_id.get(entry.cause))
        costs = _describe_costs(call, paid, put_off.get(key, []), writing_tools, answered, has_ended=has_ended)
        if end_unix_ms is not None and call.outcome == "open":  # The task waits for no answer any more.
            call = replace(call, outcome="stopped", took_ms=max(0, end_unix_ms - call.asked_unix_ms))
        waits = waits_of_call(call, askings[key], paid)
        calls.append(_update_call(call, costs | {"waits": waits, "reserved_usd_micros": reserved[key]}))
    return calls


def by_last_request(entries: Iterable[JournalEntry], calls: Iterable[Call]) -> dict[str, Call]:
    """Calls by the message that asked for each the last time: that one was answered, those before were put off."""
    last = {(entry.sender, entry.body.call_id): entry.id for entry in entries if isinstance(entry.body, Requested)}
    return {last.get((call.by, call.call_id), call.message): call for call in calls}


def _writing_tools(entries: Iterable[JournalEntry]) -> frozenset[str]:
    """The tools that change something."""
    return frozenset(
        tool.name
        for entry in entries
        if isinstance(entry.body, TaskSubmitted)
        for tool in entry.body.tools
        if tool.effect == "write"
    )


def _build_call(
    entry: JournalEntry, reply: JournalEntry | None, texts: Texts, model_reply: JournalEntry | None
) -> Call:
    body = entry.body
    assert isinstance(body, Requested)
    name, arguments, stated_reason = SEARCH_TOOL, "", ""
    match body:
        case ModelCallRequested():
            name = body.prompt_id
            if body.conversation is not None:
                name, arguments = body.tier, words_of_message(text_of(body.conversation.messages[-1], texts))
        case ToolCallRequested():
            name, arguments = body.tool, body.arguments_json
        case RetrievalRequested():
            arguments = f"embedded ahead: {body.query}" if body.asked_ahead else body.query
    if model_reply is not None and isinstance(model_reply.body, ModelCallReplied) and model_reply.body.tool_calls:
        stated_reason = cut_line(text_of(model_reply.body.content, texts), MAX_STATED_CHARS)
    call = Call(
        call_id=body.call_id,
        kind=_KINDS[type(body)],
        by=entry.sender,
        name=name,
        step_id=body.step_id,
        attempt=body.attempt,
        asked_unix_ms=entry.at_unix_ms,
        arguments=cut_line(arguments, MAX_ARGUMENTS_CHARS),
        why=stated_reason,
        message=entry.id,
    )
    return _add_reply(call, reply, texts) if reply is not None else call


def _add_reply(call: Call, entry: JournalEntry, texts: Texts) -> Call:
    body = entry.body
    assert isinstance(body, Replied)
    changes: dict[str, object] = {"took_ms": max(0, entry.at_unix_ms - call.asked_unix_ms), "outcome": body.outcome}
    if body.failure is not None:
        changes["failure"] = f"{body.failure.code}: {when_over(body.failure.message)}"
    match body:
        case ModelCallReplied():
            requested_tools = "; ".join(f"{tool_call.name} {tool_call.arguments_json}" for tool_call in body.tool_calls)
            text = text_of(body.content, texts)
            changes |= {
                "result": cut_line(f"asks for {requested_tools}" if requested_tools else text, MAX_RESULT_CHARS),
                "model": body.model or body.pinned,
                "chosen_as": body.chosen_as,
                "attempts": body.provider_attempts,
                "waited_ms": body.waited_ms,
                "waited_for": body.waited_for,
                "cached": body.cached,
            }
            # An outside agent brings a prompt of its own.
            if body.prompt_id.startswith(call.name):
                changes |= {
                    "prompt": body.prompt_id,
                    "prompt_digest": body.prompt_digest,
                    "release": body.release if body.prompt_digest else "",
                }
            if requested_tools and not call.step_id:
                changes["why"] = cut_line(text, MAX_STATED_CHARS)
        case ToolCallReplied():
            changes |= {
                "result": cut_line(text_of(body.content, texts), MAX_RESULT_CHARS),
                "writes": body.effect == "write",
            }
        case RetrievalReplied():
            changes["found"] = tuple(
                source_of_passage(passage, call.step_id, texts) for passage in body.passages[:MAX_PASSAGES]
            )
    return _update_call(call, changes)


def _describe_costs(
    call: Call,
    paid: tuple[Settled, ...],
    put_off: list[str],
    writing_tools: frozenset[str],
    answered: Mapping[str, str],
    *,
    has_ended: bool,
) -> dict[str, object]:
    usage = sum((settlement.usage for settlement in paid), Usage())
    writes = call.writes or (call.kind == "tool" and call.name in writing_tools)
    return {
        "usage": usage,
        "retried": tuple(settlement.failed for settlement in paid if settlement.failed),
        "attempts": max(call.attempts, len(paid)),
        "put_off": tuple(dict.fromkeys(put_off))[:MAX_PUT_OFF],
        "writes": writes,
        "effect": _write_effect(call, put_off, has_ended=has_ended) if writes else "",
        "approval": answered.get(call.call_id, ""),
    }


def _write_effect(call: Call, put_off: list[str], *, has_ended: bool) -> Effect:
    """Effect of a write, as far as its doer can tell."""
    if call.outcome == "succeeded":
        return "done"
    if call.outcome == "refused" or (call.outcome == "open" and put_off):
        return "not_done"
    if call.outcome == "failed":
        return "not_done"  # A doer that cannot tell answers `uncertain`.
    return "unknown" if call.outcome == "uncertain" or has_ended else ""


def _update_call(call: Call, more: Mapping[str, object]) -> Call:
    return replace(call, **more)  # type: ignore[arg-type]


def words_of_message(text: str) -> str:
    """The words of an outside agent's message, whatever API's form it has; the text itself where it is no JSON."""
    try:
        message = json.loads(text)
    except ValueError:
        return text
    content = message.get("content", message.get("output", message)) if isinstance(message, dict) else message
    if isinstance(content, list):
        content = " ".join(
            str(part.get("text") or part.get("content") or "") for part in content if isinstance(part, dict)
        )
    return content if isinstance(content, str) and content else text


def short_arguments(text: str, chars: int) -> str:
    """Arguments for people: `{"expression": "2 * 3"}` of one value as that value."""
    try:
        arguments = json.loads(text)
    except ValueError:
        return cut_line(text, chars)
    if isinstance(arguments, dict) and len(arguments) == 1:
        only = next(iter(arguments.values()))
        return cut_line(only if isinstance(only, str) else json.dumps(only, ensure_ascii=False), chars)
    return cut_line(text, chars)
