"""Approvals of a task as its timeline tells them: a row for each question, with its answer and how long it took.

In: the task's facts, in order. Out: the answer to each question; what else was said of it, and needs no row: calls that
are asked again while they wait, pauses, timers, and the ways of a person's word.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from bulkhead.journal.history import JournalEntry
from bulkhead.text.amounts import format_duration
from bulkhead_contracts.approval import ApprovalDecided, ApprovalEnded, ApprovalRequested, DecideRequested
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.step import StepExtended, StepPaused
from bulkhead_contracts.task import TaskEnded, TaskPaused
from bulkhead_contracts.tool import ToolCallRequested

SHORT_ID_CHARS = 12


@dataclass(frozen=True, slots=True)
class AskedApproval:
    """state: as `bulkhead approvals` names it. waited_ms: until it was answered, or until the newest message."""

    asked: ApprovalRequested
    state: str
    waited_ms: int
    ended: ApprovalEnded | None = None


def find_questions(entries: Iterable[JournalEntry]) -> dict[str, AskedApproval]:
    """By the id of the message that asked people; the executor's notice to itself is none."""
    entries = list(entries)
    ends: dict[str, JournalEntry] = {}
    for entry in entries:
        if isinstance(entry.body, ApprovalEnded):
            ends.setdefault(entry.body.approval_id, entry)
    task_end = next((entry for entry in entries if isinstance(entry.body, TaskEnded)), None)
    rows = {}
    for entry in entries:
        if not isinstance(entry.body, ApprovalRequested) or entry.receiver != "gateway":
            continue
        end = ends.get(entry.body.approval_id)
        ended = end.body if end is not None and isinstance(end.body, ApprovalEnded) else None
        state = ended.outcome if ended is not None else "abandoned" if task_end is not None else "waiting"
        waited_ms = max(0, (end or task_end or entries[-1]).at_unix_ms - entry.at_unix_ms)
        rows[entry.id] = AskedApproval(entry.body, state, waited_ms, ended)
    return rows


def as_json(row: AskedApproval) -> dict[str, Any]:
    """The answer to a question, for programs."""
    end = row.ended
    who = {"person": end.person, "role": end.role, "reason": end.reason} if end is not None else {}
    return {"state": row.state, "person": "", "role": "", "reason": "", **who, "waited_ms": row.waited_ms}


def describe_answer(row: AskedApproval) -> str:
    """The answer in words, and how long it took."""
    short, took = row.asked.approval_id[:SHORT_ID_CHARS], format_duration(row.waited_ms)
    if row.state == "waiting":
        return f"waits for {took}: `bulkhead approvals show {short}`"
    if row.ended is None:
        return f"abandoned after {took}: the task ended before anybody decided ({short})"
    by = f" by {row.ended.person} ({row.ended.role})" if row.ended.person else ""
    reason = f": {row.ended.reason}" if row.ended.reason else ""
    return f"{row.state}{by} after {took}{reason} ({short})"


def covered_entries(entries: Iterable[JournalEntry], rows: Iterable[AskedApproval]) -> set[int]:
    """`id()` of the entries that the rows of the questions stand for."""
    entries, calls = list(entries), {row.asked.call_id for row in rows}
    acted = {entry.cause for entry in entries if not isinstance(entry.body, StepExtended | TaskPaused | TimerFired)}
    hidden: set[int] = set()
    pauses: set[str] = set()
    waiting: set[str] = set()
    for entry in entries:
        if _belongs_to_question(entry, calls) or _belongs_to_wait(entry, pauses, waiting, acted):
            hidden.add(id(entry))
    return hidden


def _belongs_to_question(entry: JournalEntry, calls: set[str]) -> bool:
    body = entry.body
    match body:
        case ApprovalRequested():
            return entry.receiver != "gateway"
        case ApprovalEnded() | ApprovalDecided() | DecideRequested():
            return True
        case ToolCallRequested():
            put_off = entry.reply.body if entry.reply is not None else None
            return isinstance(put_off, CallDeferred) and put_off.until_unix_ms > 0 and body.call_id in calls
        case CallDeferred():
            return body.until_unix_ms > 0 and body.call_id in calls
        case CallResumed():
            return body.call_id in calls
        case TimerFired():
            return any(body.key.endswith(f"-{call}") for call in calls)
    return False


def _belongs_to_wait(entry: JournalEntry, pauses: set[str], waiting: set[str], acted: Collection[str]) -> bool:
    """Pauses for a person, and what they bring about. pauses: their messages; waiting: their steps; both grow. acted:
    messages that brought something about: another step's timer, which has nothing to do with the wait, is told."""
    body = entry.body
    if isinstance(body, StepPaused):
        mine = body.until_unix_ms > 0 or body.step_id in waiting
        if mine:
            pauses.add(entry.id)
        (waiting.add if body.until_unix_ms else waiting.discard)(body.step_id)
        return mine
    if isinstance(body, TimerFired) and waiting:
        return entry.id not in acted  # The time that it tells of stands still.
    return isinstance(body, StepExtended | TaskPaused | TimerFired) and entry.cause in pauses
