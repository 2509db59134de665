"""Shapes of the HTTP API: what people send (unknown fields are refused, they mistype) and what they read."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from bulkhead_contracts import bounds
from bulkhead_contracts.budget import Amount
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.result import Failure, Result, Standing, Usage
from bulkhead_contracts.retrieval import StoredDocument
from bulkhead_contracts.task import ForkOf, RequesterClaim, TaskLimits
from bulkhead_contracts.task.v1 import Objective
from bulkhead_contracts.tool import UncertainWrite
from bulkhead_contracts.types import Contract, Count, Name, Reason, Tag
from bulkhead_services.gateway.read_model.task_view import Status, StepStatus

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class LimitsInput(TaskLimits):
    """Ceilings: money in micro US dollars, tokens, milliseconds from when it has a place to run.

    With nothing no task could begin.
    """

    model_config = _STRICT

    cost_usd_micros: Annotated[int, Field(ge=1, le=bounds.MAX_COST_USD_MICROS)] = bounds.DEFAULT_TASK_COST_USD_MICROS
    tokens: Annotated[int, Field(ge=1, le=bounds.MAX_TOKENS)] = bounds.DEFAULT_TASK_TOKENS


class PlanStepInput(PlanStep):
    """A step of a plan that the caller brings."""

    model_config = _STRICT


class PlanInput(Contract):
    """A plan that the caller brings; the mesh checks it as it checks its own."""

    model_config = _STRICT

    steps: Annotated[tuple[PlanStepInput, ...], Field(min_length=1, max_length=bounds.MAX_PLAN_STEPS)]

    def plan(self) -> Plan:
        """As the contract."""
        return Plan(steps=tuple(PlanStep(**step.model_dump()) for step in self.steps))


class ForkInput(ForkOf):
    """An ended task of the caller's tenant whose results are taken over: of these steps, unchanged in `plan`."""

    model_config = _STRICT


class TaskSubmission(Contract):
    """Body of POST /v1/tasks."""

    model_config = _STRICT

    objective: Objective
    limits: LimitsInput = LimitsInput()
    tools: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    check: bool = True
    plan: PlanInput | None = None
    fork: ForkInput | None = None
    feature: Tag = ""
    workflow: Tag = ""


class CancelSubmission(Contract):
    """Body of POST /v1/tasks/{task_id}/cancel; may be absent."""

    model_config = _STRICT

    reason: Reason = ""


class TaskReceipt(Contract):
    """The task is stored durably and will be worked on."""

    task_id: str
    status_url: str
    events_url: str


class CancelReceipt(Contract):
    """The wish to cancel is stored durably; the planner ends the task."""

    task_id: str
    status_url: str


class StepDocument(Contract):
    """One step of a task."""

    step_id: str
    title: str
    status: StepStatus
    attempts: Count
    plan_version: Count
    reasons: tuple[str, ...] = ()
    started_unix_ms: Count = 0
    ended_unix_ms: Count = 0
    usage: Usage


class TaskSummary(Contract):
    """One row of GET /v1/tasks. standing, complete: as in TaskDocument."""

    task_id: str
    status: Status
    objective: str
    created_unix_ms: Count
    updated_unix_ms: Count
    person: str
    cost_usd_micros: Count
    standing: Standing | None = None
    complete: bool | None = None


class TaskPage(Contract):
    """Tasks, the newest first; `next` continues, absent on the last page."""

    tasks: tuple[TaskSummary, ...]
    next: str | None = None


class QueueDocument(Contract):
    """How a task waits for a place to run: as many as `limit` run, of its tenant or (`full`: mesh) of all.

    ahead: tasks of the same tenant that wait and came before it; those of others of the tenant's people take turns.
    """

    since_unix_ms: Count
    ahead: Count
    waiting: Count
    full: Literal["tenant", "mesh"]
    running: Count
    limit: Count


class PauseDocument(Contract):
    """Why a task is held back where it stands, with what lets it go on. step_id: where it is seen, "" for the plan."""

    since_unix_ms: Count
    code: str
    reason: Reason
    step_id: str


class TaskDocument(Contract):
    """All that is known of a task. `answer` is the text of the result, with citation markers [#…].

    usage: until it has ended, of the steps that have alone; `GET /v1/spend?by=task` counts every call that settled.
    spent_more: calls were in the works when it ended; what they cost is not in `usage`, which is the least then.
    charged: of a task that was ended early, all that it cost, as soon as the last of its calls has settled.
    standing, complete: of `result`, null without one. A task that succeeded has an answer; one that is `degraded` or
    not complete is to be read with its warnings (`result`.standing_reason, .completeness).
    uncertain_writes: of a task that did not succeed, calls that may or may not have been done, and that nobody repeats:
    a person looks. null when they cannot be told just now: ask again. more_uncertain_writes: so many are not listed.
    """

    task_id: str
    status: Status
    objective: str
    requester: RequesterClaim | None
    limits: TaskLimits | None
    created_unix_ms: Count
    updated_unix_ms: Count
    deadline_unix_ms: Count
    duration_ms: Count
    plan_version: Count
    plans_rejected: Count
    steps: tuple[StepDocument, ...]
    steps_done: Count
    steps_total: Count
    failure: Failure | None
    result: Result | None
    answer: str | None
    usage: Usage
    spent_more: bool = False
    charged: Amount | None = None
    standing: Standing | None = None
    complete: bool | None = None
    queue: QueueDocument | None = None
    pause: PauseDocument | None = None
    uncertain_writes: Annotated[tuple[UncertainWrite, ...], Field(max_length=bounds.MAX_WRITES_LISTED)] | None = ()
    more_uncertain_writes: Count = 0
    events_url: str


class DocumentReceipt(Contract):
    """How the ingestion stands: `pending` until the document store has answered.

    replaced_sha256: digest of the other content that stood under this name until now; null when there was none.
    """

    ingest_id: str
    name: str
    sha256: str
    outcome: str
    chunks: Count = 0
    detail: str = ""
    failure: Failure | None = None
    replaced_sha256: str | None = None
    status_url: str


class DeletionReceipt(Contract):
    """How the deletion stands: `deleted`, or `pending` until the document store has answered."""

    name: str
    outcome: str
    versions: Count = 0


class DocumentPage(Contract):
    """Documents by name; `next` continues, absent on the last page."""

    documents: tuple[StoredDocument, ...]
    next: str | None = None


class ServerHealth(Contract):
    """Answer of the probes."""

    status: str
    reason: str = ""
