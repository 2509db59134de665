"""A task's messages as rows for programs, and what each step cost.

In: entries of the journal. Out: dictionaries, sums. Pure.
"""

from typing import Any

from bulkhead.journal import approvals
from bulkhead.journal.history import JournalEntry, each_fact
from bulkhead.text.plain_text import cut_line
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import StepEnded
from bulkhead_contracts.tool import ToolCallReplied
from bulkhead_contracts.verdict import VerdictReached

SHOWN_FIELDS = (
    "tool",
    "prompt_id",
    "release",
    "purpose",
    "resource",
    "key",
    "query",
    "outcome",
    "status",
    "accepted",
    "code",
)
MAX_FIELD_CHARS = 60
MAX_REASONS_CHARS = 200


def step_of(entry: JournalEntry) -> str:
    """The step that a message is about; "" for the task itself."""
    fields = _fields_of(entry)
    return str(fields.get("step_id") or getattr(fields.get("step"), "id", ""))


def _fields_of(entry: JournalEntry) -> dict[str, Any]:
    """The fields of a message's body; asking a model for an attribute that it lacks is slow."""
    return vars(entry.body) if entry.body is not None else {}


def spending_by_step(entries: list[JournalEntry]) -> dict[str, tuple[Usage, bool]]:
    """Usage settled for the calls of each step, and whether that is all; a step that was cut says nothing itself."""
    steps = {_fields_of(entry).get("call_id", ""): step for entry in entries if (step := step_of(entry))}
    settled = {entry.body.reservation_id: entry.body for entry in entries if isinstance(entry.body, Settled)}
    used: dict[str, Usage] = {}
    for body in settled.values():
        step = steps.get(body.call_id, "")
        used[step] = used.get(step, Usage()) + body.usage
    unsettled_steps = {
        steps.get(entry.body.call_id, "")
        for entry in entries
        if isinstance(entry.body, Reserved) and entry.body.reservation_id not in settled
    }
    return {step: (used.get(step, Usage()), step not in unsettled_steps) for step in {*used, *unsettled_steps} if step}


def describe_body(body: object) -> str:
    """The content of a message, in a few words."""
    parts = []
    for name in SHOWN_FIELDS:
        value = getattr(body, name, None)
        if value is not None and value != "":
            text = str(value) if name != "accepted" else ("accepted" if value else "rejected")
            parts.append(text if len(text) <= MAX_FIELD_CHARS else text[:MAX_FIELD_CHARS] + "…")
    failure = getattr(body, "failure", None)
    if failure is not None:
        parts.append(failure.code)
    if (resolution := getattr(body, "resolution", None)) is not None:
        happened = "it happened" if resolution.happened else "it did not happen"
        parts.append(f"{resolution.person}: {happened}: {cut_line(resolution.reason, MAX_REASONS_CHARS)}")
    if isinstance(body, ToolCallReplied):
        lacks = sorted({omission.reason for omission in body.completeness.omissions})
        parts += [f"incomplete: {', '.join(lacks)}"] if lacks else []
        parts += [f"holds {', '.join(body.sensitive)}"] if body.sensitive else []
    if isinstance(body, VerdictReached) and not body.accepted:
        parts += [cut_line("; ".join(note.message for note in body.notes if note.blocking), MAX_REASONS_CHARS)]
    elif isinstance(body, StepEnded):
        parts += [cut_line("; ".join(body.reasons), MAX_REASONS_CHARS)] if body.reasons else []
        parts += [f"skips {', '.join(body.skipped)}"] if body.skipped else []
    return " ".join(parts)


def as_json(entries: list[JournalEntry]) -> list[dict[str, Any]]:
    """Every message with its offset, its reply's id and its spans; a message of several facts has a row for each.

    approval: of the message that asks people about a call, how it stands.
    """
    began = entries[0].at_unix_ms
    entries = each_fact(entries)
    questions = approvals.find_questions(entries)
    return [
        {
            "offset_ms": entry.at_unix_ms - began,
            "sequence": entry.sequence,
            "from": entry.sender,
            "to": entry.receiver,
            "type": entry.type,
            "id": entry.id,
            "cause": entry.cause,
            "step_id": step_of(entry),
            "problem": entry.problem,
            "reply": entry.reply.id if entry.reply else None,
            "took_ms": entry.reply.at_unix_ms - entry.at_unix_ms if entry.reply else None,
            "body": entry.body.model_dump(mode="json") if entry.body else None,
            "approval": approvals.as_json(questions[entry.id]) if entry.id in questions else None,
            "spans": [
                {
                    "name": span.name,
                    "service": span.service,
                    "duration_ms": span.duration_ms,
                    "attributes": span.attributes,
                }
                for span in entry.spans
            ],
        }
        for entry in entries
    ]
