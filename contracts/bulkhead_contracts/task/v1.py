"""Tasks: asked for at the edge, submitted with authority, ended always."""

import operator
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from bulkhead_contracts import bounds

from ..invisible import drop_invisible
from ..output import Delivery, OutputPolicy
from ..plan.v1 import Delegation, Plan, PlanAdopted, PlanRejected, RoleSpec
from ..result import ContentRef, Failure, Label, Result, Usage
from ..step.v1 import StepInput
from ..task_options import Replan, is_default_replan
from ..tool.v1 import ToolSpec
from ..types import (
    AskerDigest,
    Body,
    Contract,
    Count,
    Name,
    Reason,
    ReleaseRef,
    Tag,
    Title,
    Token,
    TokenCount,
    UnixMs,
    UsdMicros,
    WorkflowReleaseRef,
)

CallerRole = Literal["submitter", "approver", "operator", "auditor", "prompt_editor", "evaluator"]
CALLER_ROLES: tuple[CallerRole, ...] = get_args(CallerRole)
TaskStatus = Literal["succeeded", "failed", "cancelled", "halted"]


def _drop_invisible(objective: object) -> object:
    """An objective without characters that nobody sees; one that has no others is refused as it is."""
    return drop_invisible(objective) or objective if isinstance(objective, str) else objective


Objective = Annotated[str, Field(min_length=1, max_length=bounds.MAX_OBJECTIVE_CHARS), BeforeValidator(_drop_invisible)]


def _is_default_wait(value: object) -> bool:
    """Not written then: the default."""
    return value == bounds.DEFAULT_APPROVAL_WAIT_MS


class TaskLimits(Contract):
    """Ceilings of one task: money in micro US dollars, tokens, and time from when it has a place to run.

    approval_wait_ms: its deadline stands still while people decide about its calls, for so long at most.
    """

    cost_usd_micros: UsdMicros = bounds.DEFAULT_TASK_COST_USD_MICROS
    tokens: TokenCount = bounds.DEFAULT_TASK_TOKENS
    deadline_ms: Annotated[int, Field(gt=0, le=bounds.MAX_TASK_DEADLINE_MS)] = bounds.DEFAULT_TASK_DEADLINE_MS
    approval_wait_ms: Annotated[int, Field(ge=0, le=bounds.MAX_TASK_DEADLINE_MS, exclude_if=_is_default_wait)] = (
        bounds.DEFAULT_APPROVAL_WAIT_MS
    )

    @property
    def lifetime_ms(self) -> int:
        """From its beginning to its end at most, however long people take."""
        return min(bounds.MAX_TASK_DEADLINE_MS, self.deadline_ms + self.approval_wait_ms)

    @property
    def approvals_ms(self) -> int:
        """Time from its beginning in which people may decide: an unanswered task has time left to say so."""
        return max(self.deadline_ms, self.lifetime_ms - self.deadline_ms)


class TaskRequestedV1(Body, type="mesh.task.requested"):
    """First form of a request: one money limit in dollars. Still accepted, upcast to v2."""

    objective: Objective
    limit_usd: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    deadline_s: Annotated[int, Field(gt=0, le=bounds.MAX_TASK_DEADLINE_MS // 1000)] | None = None


class TaskSubmitted(Body, type="mesh.task.submitted"):
    """Authority is signed (the envelope's grant); the planner begins.

    given: results of steps of `plan` that are there already (of a task that this one forks); `title` says where from.
    output: the tenant's rules for its answer; None without any.
    route, replan, approve_plan: as in `TaskOptions`. labels: of the objective and of the text of each step of `plan`
    that may call something, as the requester's own words, signed by the gateway. left_out: tools that change something,
    and that the request did not name. delegated: roles of its steps that are carried out elsewhere. roles: of these,
    what a plan that the mesh makes may choose. retrievals_ahead: of the tenant's quota.
    """

    objective: ContentRef
    limits: TaskLimits
    submitted_unix_ms: UnixMs
    tools: Annotated[tuple[ToolSpec, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    check: bool = True
    plan: Plan | None = None
    given: Annotated[tuple[StepInput, ...], Field(max_length=bounds.MAX_PLAN_STEPS)] = ()
    output: OutputPolicy | None = None
    route: Tag = ""
    labels: Annotated[tuple[Label, ...], Field(max_length=bounds.MAX_PLAN_LABELS, exclude_if=operator.not_)] = ()
    left_out: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS, exclude_if=operator.not_)] = ()
    replan: Annotated[Replan, Field(exclude_if=is_default_replan)] = "same_tools"
    approve_plan: Annotated[bool, Field(exclude_if=operator.not_)] = False
    delegated: Annotated[
        tuple[Delegation, ...], Field(max_length=bounds.MAX_DELEGATED_ROLES, exclude_if=operator.not_)
    ] = ()
    roles: Annotated[tuple[RoleSpec, ...], Field(max_length=bounds.MAX_DELEGATED_ROLES, exclude_if=operator.not_)] = ()
    retrievals_ahead: Annotated[int, Field(ge=0, le=bounds.MAX_RETRIEVALS_AHEAD, exclude_if=operator.not_)] = 0


class TaskCancelRequested(Body, type="mesh.task.cancel_requested"):
    """A person or program wants the task to end."""

    reason: Reason = ""


class TaskAccepted(Body, type="mesh.task.accepted"):
    """The planner has the task and drafts a plan. delivery: what of its text may be shown, and when. left_out: tools
    that change something, which the task has not got because its request did not name them. release, workflow_release,
    asker: as at its end."""

    deadline_unix_ms: UnixMs
    delivery: Delivery = "draft"
    left_out: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS, exclude_if=operator.not_)] = ()
    release: Annotated[ReleaseRef, Field(exclude_if=operator.not_)] = ""
    asker: Annotated[AskerDigest, Field(exclude_if=operator.not_)] = ""
    workflow_release: Annotated[WorkflowReleaseRef, Field(exclude_if=operator.not_)] = ""


class StepStarted(Body, type="mesh.task.step_started"):
    """Progress: a step was handed to a worker. until_unix_ms: it is a wait, and lasts until then."""

    step_id: Token
    title: Title
    attempt: Count
    plan_version: Count
    until_unix_ms: Annotated[UnixMs, Field(exclude_if=operator.not_)] = 0


class StepEnded(Body, type="mesh.task.step_ended"):
    """Progress: a step is over; `final` marks the step whose result is the task's answer. skipped: steps that are not
    run, since this one is a branch and began others."""

    step_id: Token
    attempt: Count
    plan_version: Count
    outcome: Literal["accepted", "rejected", "failed"]
    reasons: Annotated[tuple[Reason, ...], Field(max_length=16)] = ()
    result: Result | None = None
    final: bool = False
    usage: Usage = Usage()
    skipped: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_PLAN_STEPS, exclude_if=operator.not_)] = ()


class Progressed(Body, type="mesh.task.progressed", can_wait=True):
    """Progress: what one decision has to tell of it, in one message; each part means what it means alone.

    In this order: `rejected`, `adopted`, `ended`, `started`, after `accepted`. Read it by `list_facts`.
    """

    accepted: TaskAccepted | None = None
    rejected: PlanRejected | None = None
    adopted: PlanAdopted | None = None
    ended: Annotated[tuple[StepEnded, ...], Field(max_length=bounds.MAX_PLAN_STEPS)] = ()
    started: Annotated[tuple[StepStarted, ...], Field(max_length=bounds.MAX_PLAN_STEPS)] = ()


def list_facts(body: Body) -> tuple[Body, ...]:
    """Facts of a message, one by one: the parts of a `Progressed`, in order; the steps that ended with a task,
    then its end; any other body stands for itself.
    """
    if isinstance(body, TaskEnded):
        return (*body.ended_steps, body)
    if not isinstance(body, Progressed):
        return (body,)
    alone = (body.accepted, body.rejected, body.adopted)
    return (*(fact for fact in alone if fact is not None), *body.ended, *body.started)


class TaskPaused(Body, type="mesh.task.paused"):
    """Progress: the task is held back where it stands, or (`active=False`) goes on; nothing of it is lost or repeated.

    code and reason: of what holds it, with what to do. step_id: the step that it is seen in, "" for the plan's draft.
    until_unix_ms: it waits for a person, until then. deadline_unix_ms: the task's own, where that has moved it.
    """

    active: bool = True
    code: Tag = ""
    reason: Reason = ""
    step_id: str = ""
    until_unix_ms: Annotated[UnixMs, Field(exclude_if=operator.not_)] = 0
    deadline_unix_ms: Annotated[UnixMs, Field(exclude_if=operator.not_)] = 0


class TaskEnded(Body, type="mesh.task.ended"):
    """The task is over: always said, exactly once, with a reason that a person can act on.

    ended_steps: attempts that ended with it, told in the same message; they come before the end. release,
    workflow_release, feature: of its grant. asker: of a task with a release of either kind, digest of who asked for it.
    began_unix_ms: of such a task, when it was submitted.
    """

    status: TaskStatus
    failure: Failure | None = None
    result: Result | None = None
    usage: Usage = Usage()
    steps_done: Count = 0
    steps_total: Count = 0
    plan_versions: Count = 0
    ended_unix_ms: UnixMs = 0
    ended_steps: Annotated[tuple[StepEnded, ...], Field(max_length=bounds.MAX_PLAN_STEPS)] = ()
    release: Annotated[ReleaseRef, Field(exclude_if=operator.not_)] = ""
    asker: Annotated[AskerDigest, Field(exclude_if=operator.not_)] = ""
    feature: Annotated[Tag, Field(exclude_if=operator.not_)] = ""
    began_unix_ms: Annotated[UnixMs, Field(exclude_if=operator.not_)] = 0
    workflow_release: Annotated[WorkflowReleaseRef, Field(exclude_if=operator.not_)] = ""


RUN_ENDED = "run_ended"


class TaskStopped(Body, type="mesh.task.stopped"):
    """The task ended before its time: budget halts its calls that are still in flight, live.

    code: `RUN_ENDED` of an outside agent's run that ended well; there may be no such calls.
    """

    code: Name
    reason: Reason = ""


class TaskQueued(Body, type="mesh.task.queued"):
    """All places are taken: the task waits for one, durably, until it is released, cancelled or `until`.

    request: sequence of its request in the gateway's inbox. ahead: how many of its tenant waited before it. running of
    limit: of the tenant, or of the whole mesh when that is what is full.
    """

    request: Count
    person: Name
    ahead: Count
    full: Literal["tenant", "mesh"]
    running: Count
    limit: Count
    until_unix_ms: UnixMs


class TaskReleased(Body, type="mesh.task.released"):
    """A task that waited has a place now, and begins; its time counts from here."""

    request: Count


Replica = Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS, exclude_if=operator.not_)]


class PlaceReturned(Body, type="mesh.task.place_returned"):
    """A replica of doors has no call of an outside agent's run in flight: when all that use it have said so, its place
    is free for others; who waits leaves the queue. replica: "" for all of them.
    """

    replica: Replica = ""


class PlaceTaken(Body, type="mesh.task.place_taken"):
    """A replica of doors wants the place of an outside agent's run for a call: a run that gave it back waits for its
    turn. person: the asker, for a gateway that does not know the run any more. until_unix_ms: not heeded any more.
    """

    person: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS, exclude_if=operator.not_)] = ""
    until_unix_ms: Annotated[UnixMs, Field(exclude_if=operator.not_)] = 0
    replica: Replica = ""


class PlaceGranted(Body, type="mesh.task.place_granted"):
    """An outside agent's run has a place again: its next calls may begin."""


class Place(Contract):
    """A task that has a place to run, until it ends or gives it back. queued: it waited, and has a `TaskReleased` of
    its own. again: it has begun before, and gave its place back. holders: replicas of doors that use it, "" for the one
    that opened the run, which alone does so where there are none.
    """

    tenant: Token
    task: Token
    person: Name
    request: Count
    queued: bool = False
    again: Annotated[bool, Field(exclude_if=operator.not_)] = False
    holders: Annotated[
        tuple[Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)], ...],
        Field(max_length=bounds.MAX_PLACE_HOLDERS, exclude_if=operator.not_),
    ] = ()


class Dropped(Contract):
    """A task that ends without ever having had a place."""

    tenant: Token
    task: Token
    request: Count
    code: Literal["cancelled", "queue_timeout"]
    reason: Reason = ""


class PlacesGiven(Body, type="mesh.task.places_given"):
    """The next tasks to run: one decision about all tenants, each made in the knowledge of the one before it.

    turn, credit: where the round of the tenants stands, and how many more tasks that tenant may begin in its turn.
    running: who had places just before, told now and then; `snapshot` is the sequence of the newest decision before
    this one that tells it. through: what the decider had read; waiting_from: no waiting task's `TaskQueued` or
    `PlaceTaken` lies below.

    Lies in the gateway's inbox under tenant and task `places`: nobody outside can name that subject.
    """

    given: Annotated[tuple[Place, ...], Field(max_length=bounds.MAX_PLACES_AT_ONCE)] = ()
    dropped: Annotated[tuple[Dropped, ...], Field(max_length=bounds.MAX_PLACES_AT_ONCE)] = ()
    turn: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    credit: Count = 0
    running: Annotated[tuple[Place, ...], Field(max_length=bounds.MAX_RUNNING_TASKS)] | None = None
    snapshot: Count = 0
    through: Count
    waiting_from: Count


class ForkOf(Contract):
    """An ended task of the same tenant; the results of these steps, which stand in the new plan too, are taken over."""

    task: Token
    steps: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_PLAN_STEPS)] = ()


class SessionTurn(Contract):
    """Place of a task in a session: it answers a turn, or makes the summary of the turns up to `number`. Counts only
    where the gateway itself wrote it. memory: what is shown of the session."""

    session: Token
    number: Count
    is_summary: Annotated[bool, Field(exclude_if=operator.not_)] = False
    memory: Annotated[tuple[StepInput, ...], Field(max_length=bounds.MAX_TURN_INPUTS)] = ()


class RequesterClaim(Contract):
    """The asker, as the edge established it (never taken from the body of an outside message). agent: the key or token
    is a program's whose words a model writes."""

    tenant: Token
    person: Name
    role: CallerRole
    via: Literal["api_key", "jwt", "publisher"]
    agent: Annotated[bool, Field(exclude_if=operator.not_)] = False
