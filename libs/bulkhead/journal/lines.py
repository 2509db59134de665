"""A task's timeline for programs and as plain text: each message, and of a call what was asked and what came of it.

In: entries of the journal, the calls of the story. Out: rows without texts of others but those of the calls; lines
without control characters. Pure.
"""

from collections.abc import Iterable, Sequence

from bulkhead.journal.history import JournalEntry, Replied, Requested, each_fact
from bulkhead.journal.rows import describe_body, step_of
from bulkhead.journal.story.calls import Texts, by_last_request, find_calls
from bulkhead.journal.story.model import Call, Row
from bulkhead.journal.story.redact import call_without_content, reason_name
from bulkhead.text.amounts import format_cost, format_duration
from bulkhead.text.plain_text import cut_line, escape_controls, one_line
from bulkhead_contracts.budget import Reserved, Settled

SHORT_CHARS = 100
EFFECTS = {"done": "written", "not_done": "not written", "unknown": "nobody knows whether it was written", "": ""}


def build_rows(entries: Iterable[JournalEntry], texts: Texts, *, content: bool) -> tuple[Row, ...]:
    """Every message but those about money, which stands with the calls; an answer stands with its request."""
    facts = each_fact(entries)
    calls = find_calls(facts, texts)
    shown_calls = calls if content else [call_without_content(call) for call in calls]
    calls_by_message = by_last_request(facts, shown_calls)
    answers = {id(entry.reply) for entry in facts if entry.reply is not None and entry.id in calls_by_message}
    listed = [entry for entry in facts if id(entry) not in answers and not isinstance(entry.body, Reserved | Settled)]
    began = facts[0].at_unix_ms if facts else 0
    return tuple(
        Row(
            number,
            entry.at_unix_ms - began,
            entry.sender,
            entry.receiver,
            entry.type,
            entry.id,
            entry.cause,
            step_of(entry),
            _describe_entry(entry, content=content),
            entry.problem,
            entry.reply.id if entry.reply else "",
            entry.reply.at_unix_ms - entry.at_unix_ms if entry.reply else None,
            calls_by_message.get(entry.id),
        )
        for number, entry in enumerate(listed, 1)
    )


def _describe_entry(entry: JournalEntry, *, content: bool) -> str:
    if isinstance(entry.body, Requested | Replied):
        return ""
    return describe_body(entry.body) if content else reason_name(describe_body(entry.body))


def render_rows(entries: Sequence[Row]) -> str:
    """The rows for people, a line each."""
    return "\n".join(escape_controls(one_line(_render_row(row))) for row in entries)


def _render_row(row: Row) -> str:
    name = row.type.removeprefix("mesh.").rpartition(".v")[0] or "unreadable"
    step = f" [{row.step_id}]" if row.step_id else ""
    description = describe_call(row.call) if row.call is not None else row.what
    description = f" {description}" if description else ""
    problem = f" {row.problem}" if row.problem else ""
    return f"+{row.offset_ms / 1000:.3f}s{step} {row.sender} → {row.receiver} {name}{description}{problem}"


def describe_call(call: Call) -> str:
    """The request of a call, its outcome, and its effort."""
    request = f"{call.name}({cut_line(call.arguments, SHORT_CHARS)})" if call.kind != "model" else call.prompt_name
    took = f" {format_duration(call.took_ms)}" if call.took_ms is not None else ""
    paid = f", {format_cost(call.usage.cost_usd_micros)}" if call.usage.cost_usd_micros else ""
    waited = f", waited {format_duration(call.waited_ms)} for {call.waited_for}" if call.waited_ms else ""
    chosen = f", {call.model} as {call.chosen_as}" if call.chosen_as not in ("", "first") else ""
    return f"{request} ⇒ {call.outcome}{took}{paid}{waited}{chosen}{describe_outcome(call)}"


def describe_outcome(call: Call) -> str:
    """Outcome of a call: its result or failure, attempts with what failed, why it was put off, what a write did."""
    parts = [f", {call.attempts} attempts"] if call.attempts > 1 else []
    parts += [f" (failed: {', '.join(call.retried)})"] if call.retried and call.attempts > 1 else []
    parts += [f", put off: {cut_line(call.put_off[-1], SHORT_CHARS)}"] if call.put_off else []
    parts += [f", {EFFECTS[call.effect]}"] if call.effect else []
    parts += [f": {cut_line(call.failure or call.result, SHORT_CHARS)}"] if call.failure or call.result else []
    return "".join(parts)


def page_after(entries: Sequence[Row], after: int, limit: int) -> tuple[Row, ...]:
    """The rows behind number `after`."""
    return tuple(row for row in entries if row.number > after)[:limit]
