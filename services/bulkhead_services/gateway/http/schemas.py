"""Shapes of the HTTP API: requests (unknown fields are refused, because people mistype) and answers."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from bulkhead_contracts import bounds
from bulkhead_contracts.budget import Charge
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.result import Failure, Result, Standing, Usage
from bulkhead_contracts.retrieval import StoredDocument
from bulkhead_contracts.task import ForkOf, RequesterClaim, TaskLimits
from bulkhead_contracts.task.v1 import Objective
from bulkhead_contracts.task_options import Replan, TaskOptions
from bulkhead_contracts.tool import CitedCall, UncertainWrite
from bulkhead_contracts.types import Contract, Count, Marker, Reason, Sha256, Tag, order_fields
from bulkhead_services.gateway.admission.rules import unreadable_reason
from bulkhead_services.gateway.read_model.changes import MAX_NAMED
from bulkhead_services.gateway.read_model.citations import Kind
from bulkhead_services.gateway.read_model.task_view import Kind as TaskKind
from bulkhead_services.gateway.read_model.task_view import Status, StepStatus

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class LimitsInput(TaskLimits):
    """Ceilings of a task: money in micro US dollars, tokens, and milliseconds from the time it has a place to run.

    A ceiling of zero is refused: no task could begin.
    """

    model_config = STRICT

    cost_usd_micros: Annotated[int, Field(ge=1, le=bounds.MAX_COST_USD_MICROS)] = bounds.DEFAULT_TASK_COST_USD_MICROS
    tokens: Annotated[int, Field(ge=1, le=bounds.MAX_TOKENS)] = bounds.DEFAULT_TASK_TOKENS


def _no_default(schema: dict[str, Any]) -> None:
    del schema["default"]


class PlanStepInput(PlanStep):
    """A step of a plan that the caller brings. acceptance: when the step counts as done; only a `noop` needs none."""

    model_config = ConfigDict(
        **STRICT,
        json_schema_extra={
            "if": {"properties": {"kind": {"const": "noop"}}, "required": ["kind"]},
            "else": {"properties": {"acceptance": {"pattern": r"\S"}}, "required": ["acceptance"]},
        },
    )

    acceptance: Annotated[str, Field(max_length=bounds.MAX_ACCEPTANCE_CHARS, json_schema_extra=_no_default)] = ""
    adopted: SkipJsonSchema[Literal[False]] = False  # Such plans come by doors alone.

    @model_validator(mode="after")
    def _accepted_by(self) -> Self:
        if self.kind != "noop" and not self.acceptance.strip():
            raise PydanticCustomError("no_acceptance", "acceptance is missing: say when this step counts as done")
        return self


class PlanInput(Contract):
    """A plan that the caller brings; the mesh checks it as it checks its own."""

    model_config = STRICT

    steps: Annotated[tuple[PlanStepInput, ...], Field(min_length=1, max_length=bounds.MAX_PLAN_STEPS)]

    def to_plan(self) -> Plan:
        """The plan as the contract has it."""
        return Plan(steps=tuple(PlanStep(**step.model_dump()) for step in self.steps))


class ForkInput(ForkOf):
    """An ended task of the caller's tenant; the results of these steps, unchanged in `to_plan`, are reused."""

    model_config = STRICT


# Of this order is the digest that tells a repeat under the same key.
@order_fields("objective limits tools check plan fork")
class TaskSubmission(TaskOptions):
    """Body of POST /v1/tasks."""

    model_config = STRICT

    objective: Objective
    limits: LimitsInput = LimitsInput()
    plan: PlanInput | None = None
    fork: ForkInput | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if reason := unreadable_reason(self.objective):
            raise PydanticCustomError("unreadable_objective", "{said}", {"said": reason})
        return self


class CancelSubmission(Contract):
    """Body of POST /v1/tasks/{task_id}/cancel; may be absent."""

    model_config = STRICT

    reason: Reason = ""


class TaskReceipt(Contract):
    """The task is stored durably and will be worked on."""

    task_id: str
    status_url: str
    events_url: str


class CancelReceipt(Contract):
    """The cancel is stored durably; the planner ends the task."""

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
    """One row of GET /v1/tasks. standing, complete: as in TaskDocument. estimated_usd_micros: the part of the cost that
    no provider told. failure_code: of one that ended badly; `uncertain_effect` where a person must look. pause_code:
    why one that is `paused` waits. fork_of: the task that it forks."""

    task_id: str
    kind: TaskKind = "planned"
    status: Status
    objective: str
    created_unix_ms: Count
    updated_unix_ms: Count
    person: str
    cost_usd_micros: Count
    estimated_usd_micros: Count = 0
    standing: Standing | None = None
    complete: bool | None = None
    failure_code: str = ""
    conversation: Tag = ""
    feature: Tag = ""
    pause_code: str = ""
    fork_of: Tag = ""


class TaskPage(Contract):
    """Tasks, the newest first; `next` leads to the next page and is null on the last one. total: of all that are
    listed, whatever the filters."""

    tasks: tuple[TaskSummary, ...]
    next: str | None = None
    total: Count = 0


class ChangesDocument(Contract):
    """Data of an event `changed`: tasks of which something new is stored. more: others have changed too."""

    tasks: Annotated[tuple[str, ...], Field(max_length=MAX_NAMED)]
    more: bool = False


class QueueDocument(Contract):
    """The queue before a task: `running` of `limit` places are taken, of its tenant or (`full`: mesh) of the mesh.

    ahead: waiting tasks of the same tenant that came before it; the tenant's people take turns.
    """

    since_unix_ms: Count
    ahead: Count
    waiting: Count
    full: Literal["tenant", "mesh"]
    running: Count
    limit: Count


class PauseDocument(Contract):
    """Why a task is paused, and what lets it go on. step_id: the paused step, "" for the plan. until_unix_ms: it waits
    for a person, until then, and its deadline stands still; 0 otherwise."""

    since_unix_ms: Count
    code: str
    reason: Reason
    step_id: str
    until_unix_ms: Count = 0


class SpendingDocument(Contract):
    """Spending of a run that goes on, and amounts that are held for its calls that have not settled."""

    cost_usd_micros: Count
    tokens: Count
    model_calls: Count
    tool_calls: Count
    held_usd_micros: Count
    held_tokens: Count


@order_fields()
class TaskDocument(TaskOptions):
    """Everything known about a task. `answer` is the text of the result, with citation markers [#…].

    usage: while the task runs, of its ended steps only; `GET /v1/spend?by=task` counts every settled call.
    spent_more: calls were in progress when the task ended; their cost is not in `usage`, which is a lower bound then.
    charged: the whole cost of a task that was ended early, once its last call has settled. spending: of an outside
    agent's run that goes on; null while it cannot be known.
    standing, complete: of `result`, null without one. An answer that is `degraded` or not complete must be read with
    its warnings (`result`.standing_reason, .completeness).
    uncertain_writes: calls of a task that did not succeed, which may or may not have been done and are not repeated: a
    person must check them. null while they cannot be known: ask again. more_uncertain_writes: how many are not listed.
    kind: `adopted` is the run of an outside agent. fork_of: the task that it forks. Options are as submitted.
    """

    task_id: str
    kind: TaskKind = "planned"
    conversation: Tag = ""
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
    charged: Charge | None = None
    spending: SpendingDocument | None = None
    standing: Standing | None = None
    complete: bool | None = None
    queue: QueueDocument | None = None
    pause: PauseDocument | None = None
    tools_left_out: Annotated[tuple[str, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    uncertain_writes: Annotated[tuple[UncertainWrite, ...], Field(max_length=bounds.MAX_WRITES_LISTED)] | None = ()
    more_uncertain_writes: Count = 0
    tools: Annotated[tuple[str, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    fork_of: Tag = ""
    replan: Replan = "same_tools"
    events_url: str


class CitationRow(Contract):
    """One `[#marker]` of an answer: characters of a document, or a tool's or a step's result, or the objective.

    source: the document's name, the tool or the step. sha256: of the cited content; document_sha256: of the cited
    version of the document. step_id: the step that used it. `unknown`: no accepted result of the task names it.
    """

    marker: Marker
    kind: Kind
    source: str = ""
    sha256: str = ""
    document_sha256: Sha256 | None = None
    start: Count | None = None
    end: Count | None = None
    step_id: str = ""


class CitationPage(Contract):
    """The citations of a task's answer, in its order; `more` are not listed."""

    task_id: str
    citations: Annotated[tuple[CitationRow, ...], Field(max_length=bounds.MAX_CITATIONS)]
    more: Count = 0


class CitationDocument(CitationRow):
    """The source behind a marker. text: null when it is `erased` (with its document) or `expired`; `cut` at a
    bound.

    state: of a document's passage `current`, or `superseded`: another version (superseded_by) stands there
    now, and text is what was cited. call: the call of a tool; null when another task made it (a fork's). Its
    arguments are shown where the tenant's output policy delivers drafts. An auditor gets neither text nor
    arguments.
    """

    state: Literal["current", "superseded", "kept", "erased", "expired"]
    text: Annotated[str, Field(max_length=bounds.MAX_CITED_CHARS)] | None
    cut: bool = False
    superseded_by: Sha256 | None = None
    call: CitedCall | None = None
    note: str = ""


class DocumentReceipt(Contract):
    """State of an ingestion: `pending` until the document store has answered.

    replaced_sha256: digest of the content that this document replaced; null when there was none.
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
    """State of a deletion: `deleted`, or `pending` until the document store has answered."""

    name: str
    outcome: str
    versions: Count = 0


class DocumentPage(Contract):
    """Documents by name; `next` leads to the next page and is null on the last one."""

    documents: tuple[StoredDocument, ...]
    next: str | None = None


class ServerHealth(Contract):
    """Answer of the probes."""

    status: str
    reason: str = ""
