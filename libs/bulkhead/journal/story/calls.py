"""The calls of a task: what was asked, why, what came of it, what it cost and what it waited for. Pure.

In: the task's facts in journal order, and the contents that could be read. Out: calls in the order of asking.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from bulkhead.amounts import seconds
from bulkhead.journal import approvals
from bulkhead.journal.history import Entry
from bulkhead.journal.story.model import Call, CallKind, Effect
from bulkhead.journal.story.sources import of_passage
from bulkhead.pause_status import when_over
from bulkhead.plain_text import cut
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.result import ContentRef, Usage
from bulkhead_contracts.retrieval import RetrievalReplied, RetrievalRequested
from bulkhead_contracts.task import TaskEnded, TaskSubmitted
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested

Requested = ModelCallRequested | ToolCallRequested | RetrievalRequested
Replied = ModelCallReplied | ToolCallReplied | RetrievalReplied
Texts = Mapping[str, str]
"""Contents by digest."""
MAX_ARGUMENTS_CHARS = 2_000
MAX_SAID_CHARS = 2_000
MAX_RESULT_CHARS = 2_000
MAX_PUT_OFF = 8
MAX_CONTENTS = 256
MAX_FOUND = 20
_KINDS: dict[type[Requested], CallKind] = {
    ModelCallRequested: "model",
    ToolCallRequested: "tool",
    RetrievalRequested: "search",
}


def text_of(ref: ContentRef | None, texts: Texts) -> str:
    """A content as far as it is known: its text, else its summary."""
    return "" if ref is None else texts.get(ref.sha256, ref.summary)


def contents(told: Iterable[Entry]) -> list[ContentRef]:
    """What calls brought, and their summaries do not have whole."""
    refs = [one.body.content for one in told if isinstance(one.body, ModelCallReplied | ToolCallReplied)]
    long = [ref for ref in refs if ref is not None and ref.summary.endswith("…")]
    return list({ref.sha256: ref for ref in long}.values())[:MAX_CONTENTS]


def calls(told: Iterable[Entry], texts: Texts) -> list[Call]:
    """Every call once, however often it was asked again while it was put off."""
    told = list(told)
    asked: dict[tuple[str, str], Entry] = {}
    replies: dict[tuple[str, str], Entry] = {}
    put_off: dict[tuple[str, str], list[str]] = {}
    settled: dict[tuple[str, str], dict[str, Settled]] = {}
    for entry in told:
        body = entry.body
        if isinstance(body, Requested):
            asked.setdefault((entry.receiver, body.call_id), entry)
        elif isinstance(body, Replied):
            replies.setdefault((entry.sender, body.call_id), entry)
        elif isinstance(body, CallDeferred):
            put_off.setdefault((entry.sender, body.call_id), []).append(_put_off(body))
        elif isinstance(body, Settled):
            settled.setdefault((entry.sender, body.call_id), {}).setdefault(body.reservation_id, body)
    writing = _writing(told)
    by_id = {entry.id: entry for entry in told if isinstance(entry.body, ModelCallReplied)}
    answered = {row.asked.call_id: approvals.answer(row) for row in approvals.questions(told).values()}
    over = any(isinstance(entry.body, TaskEnded) for entry in told)
    found = []
    for key, entry in asked.items():
        paid = tuple(settled.get(key, {}).values())
        call = _call(entry, replies.get(key), texts, by_id.get(entry.cause))
        found.append(_with_costs(call, paid, put_off.get(key, []), writing, answered, over=over))
    return found


def by_last_request(told: Iterable[Entry], made: Iterable[Call]) -> dict[str, Call]:
    """Calls by the message that asked for each the last time: that one was answered, those before were put off."""
    last = {(one.sender, one.body.call_id): one.id for one in told if isinstance(one.body, Requested)}
    return {last.get((call.by, call.call_id), call.message): call for call in made}


def _writing(told: Iterable[Entry]) -> frozenset[str]:
    """The tools that change something."""
    return frozenset(
        tool.name
        for entry in told
        if isinstance(entry.body, TaskSubmitted)
        for tool in entry.body.tools
        if tool.effect == "write"
    )


def _put_off(body: CallDeferred) -> str:
    return f"{when_over(body.reason) or body.code or 'it could not begin'} (for {seconds(body.after_ms)})"


def _call(entry: Entry, reply: Entry | None, texts: Texts, said: Entry | None) -> Call:
    body = entry.body
    assert isinstance(body, Requested)
    name, arguments, why = "search", "", ""
    match body:
        case ModelCallRequested():
            name = body.prompt_id
        case ToolCallRequested():
            name, arguments = body.tool, body.arguments_json
        case RetrievalRequested():
            arguments = body.query
    if said is not None and isinstance(said.body, ModelCallReplied) and said.body.tool_calls:
        why = cut(text_of(said.body.content, texts), MAX_SAID_CHARS)
    call = Call(
        call_id=body.call_id,
        kind=_KINDS[type(body)],
        by=entry.sender,
        name=name,
        step_id=body.step_id,
        attempt=body.attempt,
        asked_unix_ms=entry.at_unix_ms,
        arguments=cut(arguments, MAX_ARGUMENTS_CHARS),
        why=why,
        message=entry.id,
    )
    return _answered(call, reply, texts) if reply is not None else call


def _answered(call: Call, entry: Entry, texts: Texts) -> Call:
    body = entry.body
    assert isinstance(body, Replied)
    more: dict[str, object] = {"took_ms": max(0, entry.at_unix_ms - call.asked_unix_ms), "outcome": body.outcome}
    if body.failure is not None:
        more["failure"] = f"{body.failure.code}: {when_over(body.failure.message)}"
    match body:
        case ModelCallReplied():
            wanted = "; ".join(f"{one.name} {one.arguments_json}" for one in body.tool_calls)
            text = text_of(body.content, texts)
            more |= {
                "result": cut(f"asks for {wanted}" if wanted else text, MAX_RESULT_CHARS),
                "model": body.model or body.pinned,
                "chosen_as": body.chosen_as,
                "attempts": body.provider_attempts,
                "waited_ms": body.waited_ms,
                "waited_for": body.waited_for,
                "cached": body.cached,
            }
            if wanted and not call.step_id:
                more["why"] = cut(text, MAX_SAID_CHARS)
        case ToolCallReplied():
            more |= {"result": cut(text_of(body.content, texts), MAX_RESULT_CHARS), "writes": body.effect == "write"}
        case RetrievalReplied():
            more["found"] = tuple(of_passage(one, call.step_id, texts) for one in body.passages[:MAX_FOUND])
    return _replace(call, more)


def _with_costs(
    call: Call,
    paid: tuple[Settled, ...],
    put_off: list[str],
    writing: frozenset[str],
    answered: Mapping[str, str],
    *,
    over: bool,
) -> Call:
    usage = sum((one.usage for one in paid), Usage())
    writes = call.writes or (call.kind == "tool" and call.name in writing)
    return _replace(
        call,
        {
            "usage": usage,
            "retried": tuple(one.failed for one in paid if one.failed),
            "attempts": max(call.attempts, len(paid)),
            "put_off": tuple(dict.fromkeys(put_off))[:MAX_PUT_OFF],
            "writes": writes,
            "effect": _effect(call, put_off, over=over) if writes else "",
            "approval": answered.get(call.call_id, ""),
        },
    )


def _effect(call: Call, put_off: list[str], *, over: bool) -> Effect:
    """What a write did, as far as its doer can tell."""
    if call.outcome == "succeeded":
        return "done"
    if call.outcome == "refused" or (call.outcome == "open" and put_off):
        return "not_done"
    if call.outcome == "failed":
        return "not_done"  # A doer that cannot tell answers `uncertain`.
    return "unknown" if call.outcome == "uncertain" or over else ""


def _replace(call: Call, more: Mapping[str, object]) -> Call:
    return replace(call, **more)  # type: ignore[arg-type]


def short_arguments(text: str, chars: int) -> str:
    """Arguments for people: `{"expression": "2 * 3"}` of one value as that value."""
    try:
        found = json.loads(text)
    except ValueError:
        return cut(text, chars)
    if isinstance(found, dict) and len(found) == 1:
        only = next(iter(found.values()))
        return cut(only if isinstance(only, str) else json.dumps(only, ensure_ascii=False), chars)
    return cut(text, chars)
