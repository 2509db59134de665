"""State of one task's steps, as a worker folds them. One `StepAttempt` per (plan version, step, attempt).

| phase    | message                         | next                                                         |
| -------- | ------------------------------- | ------------------------------------------------------------ |
| -        | StepAssigned                    | thinking (model asked), or over (a noop)                     |
| thinking | ModelCallReplied                | acting (calls out), thinking (only bad calls), or over       |
| acting   | ToolCallReplied, RetrievalReplied | acting (others outstanding), thinking, or over (caps)      |
| -        | StepAssigned, delegated         | acting: one call of doors or of a remote agent, then over    |
| acting   | StepCancelRequested, at doors   | acting, until doors have said what was spent                 |
| both     | CallDeferred, TimerFired        | the same call again, later                                   |
| both     | StepCancelRequested             | over                                                         |
| acting   | answers of peers and of leases  | as replies of tools                                          |
| acting   | WaitRefused                     | the wait is answered with an error; the first of both wins   |
| both     | AnswerRequested, AgentWarned    | the same; the next turn shows it                             |
| both     | CallResumed, StepExtended       | the same call again, at once; more time                      |
| over     | anything                        | over                                                         |
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from bulkhead.flow import replace
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.lease import LeaseGranted
from bulkhead_contracts.model import ToolAnswer, ToolCall, Turn
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.result import Completeness, ContentRef, Label, Usage
from bulkhead_contracts.step import Evidence, StepAssigned
from bulkhead_contracts.types import Body


class AttemptIdentity(TypedDict):
    """Names one attempt, in the fields of whatever is said of it."""

    step_id: str
    attempt: int
    plan_version: int


def identity_of(assigned: StepAssigned) -> AttemptIdentity:
    """The place of an assigned attempt."""
    return {"step_id": assigned.step.id, "attempt": assigned.attempt, "plan_version": assigned.plan_version}


Phase = Literal["thinking", "acting", "over"]
Key = tuple[int, str, int]
"""(plan version, step id, attempt)."""


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A call that failed. turn: the model's turn that made it. slip: nothing was asked of anybody, for the model made
    the call wrongly. refused: nothing failed, it was not to be made."""

    tool: str
    why: str
    turn: int
    slip: bool
    refused: bool = False


@dataclass(frozen=True, slots=True)
class StepAttempt:
    """One attempt at one step."""

    assigned: StepAssigned
    grant: str
    phase: Phase = "thinking"
    turns: tuple[Turn, ...] = ()
    asked: tuple[ToolCall, ...] = ()
    """Calls of the current turn, in the model's order."""
    said: ContentRef | None = None
    """What the model said beside its calls."""
    answers: Mapping[str, ToolAnswer] = field(default_factory=dict)
    """By the model's call id."""
    outstanding: Mapping[str, tuple[Body, str, str]] = field(default_factory=dict)
    """By our call id: the request, to whom, and the model's call id."""
    deferrals: int = 0
    calls: int = 0
    errors: int = 0
    evidence: tuple[Evidence, ...] = ()
    labels: tuple[Label, ...] = ()
    completeness: Completeness = Completeness()
    degraded: tuple[str, ...] = ()
    failed_calls: Mapping[str, FailedCall] = field(default_factory=dict)
    """Calls without whose answers the result is made, by what they ask for (`calls.identity`)."""
    usage: Usage = Usage()
    leases: Mapping[str, LeaseGranted] = field(default_factory=dict)
    """What it holds, by lease id."""
    heard: Mapping[str, tuple[AnswerGiven, ...]] = field(default_factory=dict)
    """What peers have answered so far, by ask id."""
    questions: tuple[AnswerRequested, ...] = ()
    """Of peers that wait for this step."""
    told: tuple[str, ...] = ()
    """What it was told from outside: shown with every later turn."""
    asleep: frozenset[str] = frozenset()
    """Calls that were put off and are not asked again yet."""
    held: Mapping[str, CallDeferred] = field(default_factory=dict)
    """Calls that a halt, a breaker or a person's word to come holds back, as far as is known, and what was said."""

    def call_by_id(self, call_id: str) -> ToolCall | None:
        """The call of the model's current turn that has this id."""
        return next((call for call in self.asked if call.id == call_id), None)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """The fold of one task's messages in the worker's inbox."""

    attempts: Mapping[Key, StepAttempt] = field(default_factory=dict)

    def owner_of(self, call_id: str) -> tuple[Key, StepAttempt] | None:
        """The attempt that waits for this call."""
        for key, attempt in self.attempts.items():
            if attempt.phase != "over" and call_id in attempt.outstanding:
                return key, attempt
        return None

    def with_attempt(self, key: Key, attempt: StepAttempt) -> "WorkerState":
        """This state with one attempt replaced."""
        return replace(self, attempts={**self.attempts, key: attempt})
