"""A task's timeline for programs and as plain text: each message, and of a call what was asked and what came of it.

In: entries of the journal, the calls of the story. Out: rows without texts of others but those of the calls; lines
without control characters. Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bulkhead.amounts import cost, seconds
from bulkhead.journal.history import Entry, each_fact
from bulkhead.journal.rows import step_of, what_of
from bulkhead.journal.story.calls import Replied, Requested, Texts, by_last_request, calls
from bulkhead.journal.story.model import Call
from bulkhead.journal.story.redact import call_without_content, named
from bulkhead.plain_text import cut, harmless, one_line
from bulkhead_contracts.budget import Reserved, Settled

SHORT_CHARS = 100
EFFECTS = {"done": "written", "not_done": "not written", "unknown": "nobody knows whether it was written", "": ""}


@dataclass(frozen=True, slots=True)
class Row:
    """One message. what: in a few words. call: what was asked, of the message that asks last. reply_id: of the message
    that answers it."""

    number: int
    offset_ms: int
    sender: str
    receiver: str
    type: str
    id: str
    cause: str
    step_id: str = ""
    what: str = ""
    problem: str = ""
    reply_id: str = ""
    took_ms: int | None = None
    call: Call | None = None


def rows(found: Iterable[Entry], texts: Texts, *, content: bool) -> tuple[Row, ...]:
    """Every message but those about money, which stands with the calls; an answer stands with its request."""
    told = each_fact(found)
    found_calls = calls(told, texts)
    shown = found_calls if content else [call_without_content(call) for call in found_calls]
    made = by_last_request(told, shown)
    answers = {id(entry.reply) for entry in told if entry.reply is not None and entry.id in made}
    kept = [one for one in told if id(one) not in answers and not isinstance(one.body, Reserved | Settled)]
    began = told[0].at_unix_ms if told else 0
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
            _what(entry, content=content),
            entry.problem,
            entry.reply.id if entry.reply else "",
            entry.reply.at_unix_ms - entry.at_unix_ms if entry.reply else None,
            made.get(entry.id),
        )
        for number, entry in enumerate(kept, 1)
    )


def _what(entry: Entry, *, content: bool) -> str:
    if isinstance(entry.body, Requested | Replied):
        return ""
    return what_of(entry.body) if content else named(what_of(entry.body))


def text(found: Sequence[Row]) -> str:
    """The rows for people, a line each."""
    return "\n".join(harmless(one_line(_line(row))) for row in found)


def _line(row: Row) -> str:
    name = row.type.removeprefix("mesh.").rpartition(".v")[0] or "unreadable"
    step = f" [{row.step_id}]" if row.step_id else ""
    what = of_call(row.call) if row.call is not None else row.what
    what = f" {what}" if what else ""
    problem = f" {row.problem}" if row.problem else ""
    return f"+{row.offset_ms / 1000:.3f}s{step} {row.sender} → {row.receiver} {name}{what}{problem}"


def of_call(call: Call) -> str:
    """What was asked, what came of it, and how."""
    asked = f"{call.name}({cut(call.arguments, SHORT_CHARS)})" if call.kind != "model" else call.name
    took = f" {seconds(call.took_ms)}" if call.took_ms is not None else ""
    paid = f", {cost(call.usage.cost_usd_micros)}" if call.usage.cost_usd_micros else ""
    waited = f", waited {seconds(call.waited_ms)} for {call.waited_for}" if call.waited_ms else ""
    chosen = f", {call.model} as {call.chosen_as}" if call.chosen_as not in ("", "first") else ""
    return f"{asked} ⇒ {call.outcome}{took}{paid}{waited}{chosen}{beside(call)}"


def beside(call: Call) -> str:
    """What came of a call: its result or failure, attempts with what failed, why it was put off, what a write did."""
    said = [f", {call.attempts} attempts"] if call.attempts > 1 else []
    said += [f" (failed: {', '.join(call.retried)})"] if call.retried and call.attempts > 1 else []
    said += [f", put off: {cut(call.put_off[-1], SHORT_CHARS)}"] if call.put_off else []
    said += [f", {EFFECTS[call.effect]}"] if call.effect else []
    said += [f": {cut(call.failure or call.result, SHORT_CHARS)}"] if call.failure or call.result else []
    return "".join(said)


def page(found: Sequence[Row], after: int, limit: int) -> tuple[Row, ...]:
    """The rows behind number `after`."""
    return tuple(row for row in found if row.number > after)[:limit]
