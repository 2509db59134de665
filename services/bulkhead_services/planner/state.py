"""State of one task, as the planner folds it. Frozen; `phase` and each step's `status` drive, the rest reports.

| phase    | message             | next                                                     |
| -------- | ------------------- | -------------------------------------------------------- |
| new      | TaskSubmitted       | drafting (ask the model), or running (a plan was given)  |
| drafting | ModelCallReplied    | running, drafting again with notes, or ended             |
|          |                     | (running: the draft, or the objective as one step;       |
|          |                     | where a person is to approve it, it is `proposed` first) |
| drafting | PlanDecided         | running, drafting again with the reason, or ended        |
| running  | VerdictReached      | running (next steps, or the step again), drafting, ended |
| running  | PlanDecided         | running; a person skips a step that the plan lets him   |
| running  | StepFinished        | as above; of an adopted step from doors alone, one end   |
|          |                     | (a gate that lets nothing pass: the gated step again;    |
|          |                     | a branch: the steps of its other cases are skipped)      |
| any      | TimerFired          | the step again, or ended (deadline); a wait is done, or  |
|          |                     | the event that it is for did not come                    |
| running  | EventMatched        | a wait for an event is done                              |
| any      | StepPaused          | the same; the step's time stands still, or goes on;      |
|          |                     | for a person the task's, too                             |
| any      | TaskCancelRequested | ended                                                    |
| any      | TaskHalted          | ended                                                    |
| ended    | anything            | ended; nothing is said any more                          |
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bulkhead.flow import replace
from bulkhead.flow.attempts import AttemptReference
from bulkhead_contracts.lease import LeaseRequested
from bulkhead_contracts.output import DRAFT, OutputPolicy
from bulkhead_contracts.outside_event import EventAwaited, EventOccurred
from bulkhead_contracts.peer import AnswerRequested
from bulkhead_contracts.plan import ASK_PERSON, Delegation, Plan, PlanStep, RoleSpec
from bulkhead_contracts.provenance import Flow
from bulkhead_contracts.result import ContentRef, Label, Result, Usage
from bulkhead_contracts.task import TaskLimits
from bulkhead_contracts.task_options import Replan
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner.step_table import StepState, StepTable

Phase = Literal["new", "drafting", "running", "ended"]


STEP_FAILED = "step_failed"
"""Code of what holds a task back with a step that failed for good, and that a person may skip."""


def may_change_outside(tools: Iterable[ToolSpec]) -> bool:
    """True when one of the tools writes: what asks a person is a write for the sake of its approval alone."""
    return any(tool.effect == "write" and tool.name != ASK_PERSON for tool in tools)


@dataclass(frozen=True, slots=True)
class PendingAsk:
    """A step waits for others. informed_attempts: those that were handed the question, by step and attempt."""

    body: AnswerRequested
    unanswered: tuple[str, ...]
    informed_attempts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class LeaseBook:
    """Holder of a resource, and those that wait for it, in order.

    token: of the last grant; a place in the inbox, so that it grows for as long as the inbox stands.
    expires_unix_ms: of the holder's lease. messages: since the resource was last free.
    """

    holder: LeaseRequested | None = None
    token: int = 0
    expires_unix_ms: int = 0
    queue: tuple[LeaseRequested, ...] = ()
    messages: int = 0


@dataclass(frozen=True, slots=True)
class EventChannel:
    """Events of one name and key, each with its place in the inbox, and steps that wait for such."""

    events: tuple[tuple[int, EventOccurred], ...] = ()
    waiters: tuple[EventAwaited, ...] = ()


@dataclass(frozen=True, slots=True)
class Pause:
    """A step, or ("") the draft of this number, is held back. code, reason: of what holds it. until_unix_ms: a person
    is waited for, until then. source: who works on the step."""

    step_id: str
    attempt: int
    plan_version: int
    code: str
    reason: str
    until_unix_ms: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class PlannerState:
    """The fold of one task's messages in the planner's inbox, of one resource's (`lease_book`), or of the events of one
    name and key (`event_channel`)."""

    phase: Phase = "new"
    objective: ContentRef | None = None
    limits: TaskLimits = TaskLimits()
    tools: tuple[ToolSpec, ...] = ()
    check: bool = True
    output: OutputPolicy = DRAFT
    route: str = ""
    """Of the model gateway, for the task's calls; "" is the default one."""
    labels: Mapping[str, Label] = field(default_factory=dict)
    """Of the requester's own words, by their digests: the objective, and the steps of a submitted plan."""
    requester_trusts: frozenset[str] = frozenset()
    """How far these words are trusted."""
    grant: str = ""
    deadline_unix_ms: int = 0
    """While a person is waited for: as if he took all his time."""
    latest_unix_ms: int = 0
    """Of the deadline, however long people take."""
    clock_stopped_unix_ms: int = 0
    """Since when the task's clock stands still, for a person; 0 when it goes."""
    own_deadline_unix_ms: int = 0
    """Its deadline when the clock stopped."""
    generation: int = 1
    drafts: int = 0
    vain_drafts: int = 0
    """Drafts in a row of which no plan came."""
    submitted_plan: Plan | None = None
    """The plan that the task came with: no later one has more tools or writes."""
    first_steps: tuple[PlanStep, ...] = ()
    """Of the task's first plan: the calls that they foresee bound each later plan."""
    delegations: tuple[Delegation, ...] = ()
    """Roles of its steps that are carried out elsewhere."""
    roles: tuple[RoleSpec, ...] = ()
    """Of these, what a plan that the model makes may choose."""
    replan: Replan = "same_tools"
    """What may take that plan's place when it fails."""
    runs_whole: bool = False
    """True when the objective runs as one step, since no draft could be used: no further one is asked for."""
    deferrals: int = 0
    draft_notes: tuple[str, ...] = ()
    approve_plan: bool = False
    """True when a person approves each plan that the mesh drafts, before it runs."""
    proposed: Plan | None = None
    """The plan that waits for that."""
    plan: Plan | None = None
    draft_standing: Result = Result()
    """Standing and completeness of the reply that drafted the plan."""
    steps: StepTable = StepTable()
    retrievals_ahead: int = 0
    """For so many steps the query is embedded ahead, at most."""
    foreseen_steps: frozenset[str] = frozenset()
    """Those for which it was asked."""
    flowing_steps: tuple[PlanStep, ...] = ()
    """Of the plan, those that declare flows."""
    referred_flows: Mapping[str, tuple[Flow, ...]] = field(default_factory=dict)
    """Of references in calls of the plan, by the step that makes the call and by the one that is referred to."""
    final_step_id: str = ""
    """The step whose result is the task's answer."""
    usage: Usage = Usage()
    step_timer_unix_ms: int = 0
    """When the timer of the running steps fires; 0 when none is set."""
    wrote: bool = False
    """True once a step that may write was handed out: such a plan is not re-planned by itself."""
    held_steps: tuple[StepState, ...] = ()
    """Done, with accepted results that a plan to come may take over."""
    asks: tuple[PendingAsk, ...] = ()
    lease_book: LeaseBook = LeaseBook()
    event_channel: EventChannel = EventChannel()
    event_places: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of the events that the task had, by channel: none ends a second wait."""
    pauses: tuple[Pause, ...] = ()
    """What is held back now."""
    sleeping_call_id: str = ""
    """The draft's call, while it is put off and not made again yet."""

    @property
    def adopted(self) -> bool:
        """True when an outside agent carries the task out: doors hears of its end."""
        return self.submitted_plan is not None and any(step.adopted for step in self.submitted_plan.steps)

    @property
    def draft_call_id(self) -> str:
        """The model call of the draft that was asked for last."""
        return f"plan-{self.generation}-{self.drafts}"

    def delegation(self, step: PlanStep) -> Delegation | None:
        """Delegation of a step that is carried out elsewhere; None for one of the mesh, or that nobody does."""
        if step.adopted or step.kind == "noop":
            return None
        return next((row for row in self.delegations if row.role == step.role), None)

    @property
    def selectable_delegations(self) -> tuple[Delegation, ...]:
        """The delegations that a plan which the model makes may choose."""
        names = {role.name for role in self.roles}
        return tuple(row for row in self.delegations if row.role in names)

    def step(self, step_id: str) -> StepState | None:
        """The state of a step of the running plan."""
        return self.steps.by_id.get(step_id)

    def running_step(self, reference: AttemptReference) -> StepState | None:
        """The step, if exactly this attempt of it runs now; anything else is late or repeated."""
        step = self.step(reference.step_id)
        if self.phase != "running" or self.plan is None or step is None or step.status != "running":
            return None
        return step if (step.attempt, self.plan.version) == (reference.attempt, reference.plan_version) else None

    def may_report(self, source: str, step_id: str) -> bool:
        """True when this service may speak of the step: doors of adopted ones alone, and nobody else of those; of a
        wait, on which nobody works, none."""
        step = self.step(step_id)
        if step is not None and step.plan_step.wait is not None:
            return False
        return (source == "doors") == (step is not None and step.plan_step.adopted)

    def tools_of(self, step: PlanStep) -> tuple[ToolSpec, ...]:
        """The tools of a step: its own, or the one call of a remote agent in its place."""
        delegated = self.delegation(step)
        # A gate that is to ask a person has no question yet: under its grant none of a worker's own could be asked.
        names = (step.called_tool,) if step.called_tool else () if step.gate is not None else step.tools
        if delegated is not None and delegated.to == "agent":
            names = (delegated.agent_tool,)
        return tuple(tool for tool in self.tools if tool.name in names)

    def tools_of_step(self, step: StepState) -> tuple[ToolSpec, ...]:
        """The tools of a step as it is now: a map calls none itself."""
        return () if step.gathering is not None or step.plan_step.over is not None else self.tools_of(step.plan_step)

    @property
    def is_objective_of_model(self) -> bool:
        """True unless the task has words of a person, and no model's: then no plan made of it is a person's word."""
        return self.requester_trusts != {"user"}

    @property
    def may_draft_flows(self) -> bool:
        """True while the model that drafts is told a person's words and this house's alone: neither what steps brought,
        nor what others say of their own tools and agents. Any other could be talked into a flow, or a figure."""
        sha256 = self.objective.sha256 if self.objective is not None else ""
        label = self.labels.get(sha256)
        is_of_person = label is not None and label.trust == "user"
        told_by_others = bool(self.roles) or any(tool.unchecked for tool in self.tools)
        return is_of_person and self.generation == 1 and not told_by_others

    def with_step(self, changed: StepState, **more: object) -> "PlannerState":
        """This state with one step replaced, and whatever else changes."""
        return replace(self, steps=self.steps.with_steps(changed), **more)  # type: ignore[arg-type]
