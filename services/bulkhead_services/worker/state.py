"""State of one task's steps, as a worker folds them. One `StepAttempt` per (plan version, step, attempt).

| phase    | message                         | next                                                         |
| -------- | ------------------------------- | ------------------------------------------------------------ |
| -        | StepAssigned                    | thinking (model asked), or over (a noop, gate, branch, map)  |
| thinking | ModelCallReplied                | acting (calls out), thinking (only bad calls), or over       |
| acting   | ToolCallReplied, RetrievalReplied | acting (others outstanding), thinking, or over (caps)      |
| -        | StepAssigned, delegated         | acting: one call of doors or of a remote agent, then over    |
| -        | StepAssigned, with a call       | acting: that one call, or a person's question, then over     |
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
from typing import Literal, NamedTuple, TypedDict

from bulkhead.flow import replace
from bulkhead.flow.attempts import AttemptKey, AttemptReference, key_of
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.lease import LeaseGranted
from bulkhead_contracts.model import ToolAnswer, ToolCall, Turn
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.result import Completeness, ContentRef, Label, Usage
from bulkhead_contracts.step import Evidence, StepAssigned
from bulkhead_contracts.types import Body


class AttemptIdentity(TypedDict):
    """The fields that name one attempt in each message about it."""

    step_id: str
    attempt: int
    plan_version: int


def identity_of(assigned: StepAssigned) -> AttemptIdentity:
    """The fields that name an assigned attempt."""
    return {"step_id": assigned.step.id, "attempt": assigned.attempt, "plan_version": assigned.plan_version}


Phase = Literal["thinking", "acting"]


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A call that failed. turn: the model's turn that made it. slip: nothing was asked of anybody, for the model made
    the call wrongly. refused: nothing failed, it was not to be made."""

    tool: str
    reason: str
    turn: int
    slip: bool
    refused: bool = False


class OutstandingCall(NamedTuple):
    """A request without a reply yet: to which service, and for which call of the model ("" for none)."""

    request: Body
    to: str
    model_call_id: str = ""


@dataclass(frozen=True, slots=True)
class StepAttempt:
    """One attempt at one step."""

    assigned: StepAssigned
    grant: str
    item_name: str = ""
    """Of an item of a map, whatever its place in the list is; "" of any other step."""
    phase: Phase = "thinking"
    turns: tuple[Turn, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    """Of the current turn, in the model's order."""
    model_text: ContentRef | None = None
    """The model's text beside these calls."""
    answers: Mapping[str, ToolAnswer] = field(default_factory=dict)
    """By the model's call id."""
    outstanding: Mapping[str, OutstandingCall] = field(default_factory=dict)
    """By our call id."""
    deferrals: int = 0
    calls_made: int = 0
    call_errors: int = 0
    evidence: tuple[Evidence, ...] = ()
    labels: tuple[Label, ...] = ()
    completeness: Completeness = Completeness()
    degraded_reasons: tuple[str, ...] = ()
    failed_calls: Mapping[str, FailedCall] = field(default_factory=dict)
    """Calls without whose answers the result is made, by what they ask for (`calls.call_identity`)."""
    usage: Usage = Usage()
    leases: Mapping[str, LeaseGranted] = field(default_factory=dict)
    """Those that it holds, by lease id."""
    peer_answers: Mapping[str, tuple[AnswerGiven, ...]] = field(default_factory=dict)
    """Answers of peers until now, by ask id."""
    questions: tuple[AnswerRequested, ...] = ()
    """Of peers that wait for this step."""
    notices: tuple[str, ...] = ()
    """Words from outside, shown with every later turn."""
    sleeping_calls: frozenset[str] = frozenset()
    """Calls that were put off and are not made again yet."""
    held_calls: Mapping[str, CallDeferred] = field(default_factory=dict)
    """Calls that a halt, a breaker or a person's word to come holds back, as far as is known, and why."""

    @property
    def key(self) -> AttemptKey:
        """Its key in the worker's state."""
        return (self.assigned.plan_version, self.assigned.step.id, self.assigned.attempt)

    @property
    def is_plan_call(self) -> bool:
        """True when the plan makes its one call, and no model."""
        return self.assigned.step.action in ("tool", "approval")

    @property
    def has_one_call(self) -> bool:
        """True when its one call's answer is its result, and no model has a turn."""
        return self.is_plan_call or self.assigned.delegated is not None

    @property
    def is_at_doors(self) -> bool:
        """True when doors have it, for a program outside."""
        delegated = self.assigned.delegated
        return delegated is not None and delegated.to == "worker"

    def call_by_id(self, call_id: str) -> ToolCall | None:
        """The call of the model's current turn that has this id."""
        return next((call for call in self.tool_calls if call.id == call_id), None)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """The fold of one task's messages in the worker's inbox."""

    running: Mapping[AttemptKey, StepAttempt] = field(default_factory=dict)
    """Those that are not over: a message concerns few, however many steps a task has had."""
    over: frozenset[AttemptKey] = frozenset()
    """Of those that are, nothing is kept but that a repeat is known: a map has thousands of them."""

    def owner_of(self, call_id: str) -> StepAttempt | None:
        """The attempt that waits for this call."""
        return next((attempt for attempt in self.running.values() if call_id in attempt.outstanding), None)

    def running_attempt(self, reference: AttemptReference) -> StepAttempt | None:
        """The attempt that this speaks of, unless it is over."""
        return self.running.get(key_of(reference))

    def with_attempt(self, attempt: StepAttempt) -> "WorkerState":
        """This state with one attempt replaced."""
        return replace(self, running={**self.running, attempt.key: attempt})

    def without_attempt(self, over: StepAttempt) -> "WorkerState":
        """This state with one attempt over."""
        running = {key: attempt for key, attempt in self.running.items() if key != over.key}
        return replace(self, running=running, over=self.over | {over.key})
