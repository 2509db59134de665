"""Waits of a task's steps: for answers of peers, for leases that others hold, for those who carry them out.

In: a task's messages. Out: one row for each wait that is open, in words, with what to do. Pure.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bulkhead.journal.history import JournalEntry
from bulkhead_contracts.agent import WaitRefused
from bulkhead_contracts.lease import LeaseEnded, LeaseGranted, LeaseQueued, LeaseRefused
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepFinished, StepProposed

AGENT_HINT = (
    "it goes on when the agent calls; it ends with its last answer when it is idle for long, or by "
    "`DELETE /v1/runs/TASK` at doors"
)
DOCTOR_HINT = "`bulkhead doctor` shows whether that service runs"
StepAttempt = tuple[str, int, int]
"""A step, its attempt, the version of its plan."""


@dataclass(frozen=True, slots=True)
class StepWait:
    """step: who waits. what: for what, without since when."""

    step: str
    what: str
    todo: str
    entry: JournalEntry


def find_open_waits(entries: Iterable[JournalEntry]) -> Iterator[StepWait]:
    """Open waits of steps that are not over, in the order in which they began."""
    open_: dict[str, StepWait] = {}
    targets: dict[str, set[str]] = {}
    for entry in entries:
        body = entry.body
        if isinstance(body, AnswerRequested) and entry.sender == "worker":
            open_[body.ask_id] = _answer_wait(body, entry)
            targets[body.ask_id] = set(body.targets)
        elif isinstance(body, AnswerGiven) and entry.receiver == "worker":
            unanswered = targets.get(body.ask_id, set())
            unanswered.discard(body.target)
            wait = open_.get(body.ask_id)
            mode = wait.entry.body.mode if wait is not None and isinstance(wait.entry.body, AnswerRequested) else "all"
            if not unanswered or (mode == "any" and body.outcome == "answered"):
                open_.pop(body.ask_id, None)
        elif isinstance(body, LeaseQueued):
            open_[body.lease_id] = _lease_wait(body, entry)
        elif isinstance(body, LeaseGranted | LeaseRefused | LeaseEnded):
            open_.pop(body.lease_id, None)
        elif isinstance(body, WaitRefused):
            open_.pop(body.wait_id, None)
        elif isinstance(body, StepProposed | StepFinished | StepCancelRequested):
            answered = body.step.id if isinstance(body, StepProposed) else body.step_id
            open_ = {name: wait for name, wait in open_.items() if wait.step != answered}
    yield from open_.values()


def _answer_wait(body: AnswerRequested, entry: JournalEntry) -> StepWait:
    whom = (" or " if body.mode == "any" else " and ").join(f"step {target}" for target in body.targets)
    description = f"waits for an answer of {whom}" if body.question else f"waits for the result of {whom}"
    return StepWait(
        body.step_id, description, "it continues by itself when they have answered; budget ends a cycle of waits", entry
    )


def _lease_wait(body: LeaseQueued, entry: JournalEntry) -> StepWait:
    first = "" if body.place <= 1 else f", behind {body.place - 1} others"
    description = f"waits for {body.resource}, which step {body.holder_step} of task {body.holder_task} held{first}"
    todo = (
        f"it continues by itself when that step releases it or the lease ends; `bulkhead why {body.holder_task}` "
        "shows what the holder does"
    )
    return StepWait(body.step_id, description, todo, entry)


def handed_out_waits(
    steps: Mapping[StepAttempt, JournalEntry], proposals: Mapping[StepAttempt, JournalEntry]
) -> Iterator[StepWait]:
    """Steps in the hands of those who carry them out. proposals: those that were proposed, with the proposal."""
    for key, entry in steps.items():
        step, attempt, _ = key
        who = "the checker judges" if key in proposals else "the worker has"
        description, todo = f"{who} step {step}, attempt {attempt}", DOCTOR_HINT
        if isinstance(entry.body, StepAssigned) and entry.body.step.adopted:
            description, todo = f"an agent outside carries out step {step}, and no call of it is under way", AGENT_HINT
        elif isinstance(entry.body, StepAssigned) and entry.body.delegated is not None and key not in proposals:
            who = entry.body.delegated.name
            description = f"{who} has not answered step {step}, attempt {attempt}, which is delegated to it"
            todo = f"see whether {who} runs, and look at its log; `bulkhead timeline TASK` shows when it took the step"
        yield StepWait(step, description, todo, proposals.get(key, entry))
