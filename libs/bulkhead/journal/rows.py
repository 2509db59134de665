"""A task's messages as rows for programs, and what each step cost.

In: entries of the journal. Out: dictionaries, sums. Pure.
"""

from typing import Any

from bulkhead.journal import approvals
from bulkhead.journal.history import Entry, each_fact
from bulkhead.plain_text import cut
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import StepEnded
from bulkhead_contracts.tool import ToolCallReplied
from bulkhead_contracts.verdict import VerdictReached

TOLD = ("tool", "prompt_id", "purpose", "resource", "key", "query", "outcome", "status", "accepted", "code")
MAX_TOLD_CHARS = 60
MAX_WHY_CHARS = 200


def step_of(entry: Entry) -> str:
    """The step that a message is about; "" for the task itself."""
    body = entry.body
    step = getattr(body, "step_id", "") or getattr(getattr(body, "step", None), "id", "")
    return str(step)


def spent(found: list[Entry]) -> dict[str, tuple[Usage, bool]]:
    """What was settled for the calls of each step, and whether that is all; a step that was cut says nothing itself."""
    steps = {getattr(one.body, "call_id", ""): step_of(one) for one in found if step_of(one)}
    settled = {one.body.reservation_id: one.body for one in found if isinstance(one.body, Settled)}
    used: dict[str, Usage] = {}
    for body in settled.values():
        step = steps.get(body.call_id, "")
        used[step] = used.get(step, Usage()) + body.usage
    held = {
        steps.get(one.body.call_id, "")
        for one in found
        if isinstance(one.body, Reserved) and one.body.reservation_id not in settled
    }
    return {step: (used.get(step, Usage()), step not in held) for step in {*used, *held} if step}


def what_of(body: object) -> str:
    """What a message says, in a few words."""
    said = []
    for name in TOLD:
        value = getattr(body, name, None)
        if value is not None and value != "":
            text = str(value) if name != "accepted" else ("accepted" if value else "rejected")
            said.append(text if len(text) <= MAX_TOLD_CHARS else text[:MAX_TOLD_CHARS] + "…")
    failure = getattr(body, "failure", None)
    if failure is not None:
        said.append(failure.code)
    if isinstance(body, ToolCallReplied):
        lacks = sorted({omission.reason for omission in body.completeness.omissions})
        said += [f"incomplete: {', '.join(lacks)}"] if lacks else []
        said += [f"holds {', '.join(body.sensitive)}"] if body.sensitive else []
    if isinstance(body, VerdictReached) and not body.accepted:
        said += [cut("; ".join(note.message for note in body.notes if note.blocking), MAX_WHY_CHARS)]
    elif isinstance(body, StepEnded) and body.reasons:
        said += [cut("; ".join(body.reasons), MAX_WHY_CHARS)]
    return " ".join(said)


def as_json(found: list[Entry]) -> list[dict[str, Any]]:
    """Every message with its offset, its reply's id and its spans; a message of several facts has a row for each.

    approval: of the message that asks people about a call, how it stands.
    """
    began = found[0].at_unix_ms
    found = each_fact(found)
    asked = approvals.questions(found)
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
            "approval": approvals.as_json(asked[entry.id]) if entry.id in asked else None,
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
        for entry in found
    ]
