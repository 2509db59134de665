"""Bodies of writes over HTTP (unknown fields are refused, because people mistype) and their receipts.

Replies of reads stand beside their rows, in `bulkhead.gateway_api`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from bulkhead_contracts import bounds
from bulkhead_contracts.approval import Decision
from bulkhead_contracts.budget import Limit, LimitTarget
from bulkhead_contracts.control import BreakerScope, HaltScope
from bulkhead_contracts.evaluation import Envelope, SetName
from bulkhead_contracts.outside_event import EventId
from bulkhead_contracts.plan import AnyEventKey, EventName, Plan, PlanStep
from bulkhead_contracts.prompt import PromptContent, ReleaseChange, ReleaseLabel, ReviewDate, StickyBy
from bulkhead_contracts.push import Form, PushToken, PushUrl
from bulkhead_contracts.rating import RatingKind, Score
from bulkhead_contracts.result import Failure
from bulkhead_contracts.session import FactText
from bulkhead_contracts.task import ForkOf, TaskLimits
from bulkhead_contracts.task.v1 import Objective
from bulkhead_contracts.task_options import TaskOptions, WrittenBy
from bulkhead_contracts.tool import TrialSource
from bulkhead_contracts.types import Contract, Count, Name, Reason, Sha256, Summary, Tag, Title, Token, order_fields
from bulkhead_contracts.workflow import (
    ParameterValues,
    WorkflowContent,
    WorkflowSchedule,
    WorkflowShare,
    WorkflowTrigger,
)
from bulkhead_services.gateway.admission.rules import unreadable_reason
from bulkhead_services.gateway.read_model.changes import MAX_NAMED

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


def one_line(reason: object) -> object:
    """A reason on one line: with line ends of its own it could forge the next line of a listing."""
    return " ".join(reason.split()) if isinstance(reason, str) else reason


ReasonInput = Annotated[Reason, Field(min_length=1), BeforeValidator(one_line)]


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


class PlanDecisionSubmission(Contract):
    """Body of POST /v1/tasks/{task_id}/plan. sha256: of the plan that was read: the decision is about that one. plan:
    of an approval, what is to run in its place. redraft: of a rejection, to have another draft made by its reason.
    skip: of an approval of the plan that runs, its step that is to be skipped."""

    model_config = STRICT

    decision: Literal["approve", "reject"]
    sha256: Sha256
    reason: Reason = ""
    redraft: bool = False
    plan: PlanInput | None = None
    skip: Token | Literal[""] = ""

    @model_validator(mode="after")
    def _skip_stands_alone(self) -> Self:
        if self.skip and (self.decision != "approve" or self.redraft or self.plan is not None):
            raise PydanticCustomError("mixed_skip", "skip goes with the decision `approve`, and with nothing else")
        return self


class PlanDecisionReceipt(Contract):
    """The decision is stored durably; the planner takes the first one about a plan."""

    task_id: str
    status_url: str
    decision: Literal["approve", "reject"]


class TaskReceipt(Contract):
    """The task is stored durably and will be worked on."""

    task_id: str
    status_url: str
    events_url: str


class SessionSubmission(TaskOptions):
    """Body of POST /v1/sessions. Options and limits are those of each turn; the memory's are `window_turns` and
    `summary_cost_usd_micros`."""

    model_config = STRICT

    title: Title = ""
    participants: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_SESSION_PARTICIPANTS)] = ()
    limits: LimitsInput = LimitsInput()
    window_turns: Annotated[int, Field(ge=1, le=bounds.MAX_WINDOW_TURNS)] = bounds.DEFAULT_WINDOW_TURNS
    summary_cost_usd_micros: Annotated[int, Field(ge=0, le=bounds.MAX_COST_USD_MICROS)] = (
        bounds.DEFAULT_SUMMARY_COST_USD_MICROS
    )
    conversation: Tag = Field(
        default="",
        description="Name of yours: under the same name you get the same session. Of a task of yours: a session whose "
        "first turn that is. Of a session: that session.",
    )
    approve_plan: SkipJsonSchema[Literal[False]] = False  # No model drafts the plan of a turn.


class SessionForkSubmission(Contract):
    """Body of POST /v1/sessions/{session_id}/forks. task_id: of the last turn that the new session begins with."""

    model_config = STRICT

    task_id: Token


class TurnSubmission(Contract):
    """Body of POST /v1/sessions/{session_id}/turns. limits: of this turn, in place of the session's. written_by: a
    model's words stay a model's, also in a person's session. task: one of yours, of the session's conversation, that is
    the turn: nothing begins, and its objective is the text. replaces: task of a turn whose place this one takes; that
    turn and all after it are no longer part of the conversation. Without it the turn is the next one."""

    model_config = STRICT

    text: Objective
    limits: LimitsInput | None = None
    written_by: WrittenBy = "person"
    task: Tag = ""
    replaces: Tag = ""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if reason := unreadable_reason(self.text):
            raise PydanticCustomError("unreadable_objective", "{said}", {"said": reason})
        return self


class FactSubmission(Contract):
    """Body of PUT /v1/sessions/{session_id}/facts/{fact_id}. turn: whose answer it was taken from; 0 for your own
    words."""

    model_config = STRICT

    text: FactText
    turn: Annotated[int, Field(ge=0, le=bounds.MAX_SESSION_TURNS)] = 0


class TurnReceipt(TaskReceipt):
    """The turn is taken, and its task stored durably."""

    session_id: str
    number: Count


class CancelReceipt(Contract):
    """The cancel is stored durably; the planner ends the task."""

    task_id: str
    status_url: str


class ChangesDocument(Contract):
    """Data of an event `changed`: tasks of which something new is stored. more: others have changed too."""

    tasks: Annotated[tuple[str, ...], Field(max_length=MAX_NAMED)]
    more: bool = False


class DocumentReceipt(Contract):
    """State of an ingestion: `pending` until the document store has answered.

    replaced_sha256: digest of the content that this document replaced; null when there was none. pages: of a PDF, 0 for
    other forms. sparse_pages: those of them that hold almost no text, as scans do; OCR makes them searchable.
    """

    ingest_id: str
    name: str
    sha256: str
    outcome: str
    chunks: Count = 0
    detail: str = ""
    failure: Failure | None = None
    replaced_sha256: str | None = None
    pages: Count = 0
    sparse_pages: Count = 0
    status_url: str


class DeletionReceipt(Contract):
    """State of a deletion: `deleted`, or `pending` until the document store has answered."""

    name: str
    outcome: str
    versions: Count = 0


class ServerHealth(Contract):
    """Answer of the probes."""

    status: str
    reason: str = ""


class ConsoleLinkSubmission(Contract):
    """Body of POST /v1/console-links. path: the page to go on to."""

    model_config = STRICT

    path: Annotated[str, Field(max_length=500, pattern=r"^/([!-.0-\[\]-~][!-~]*)?$")] = "/"


class ConsoleLink(Contract):
    """A link that signs its maker in at the console, once, until it expires. path: below the gateway's address. The
    token behind its `#` is a secret."""

    path: str
    expires_unix_ms: Count


class HaltSubmission(Contract):
    """Body of POST /v1/halts and /v1/resumes. name: as the thing is called, for example `worker.step` or `gpt-4.1`."""

    model_config = STRICT

    scope: HaltScope
    name: Name
    reason: ReasonInput


class ResetSubmission(Contract):
    """Body of POST /v1/resets: a breaker as /v1/breakers names it, and the reason to close it."""

    model_config = STRICT

    scope: BreakerScope
    name: Name
    reason: ReasonInput


class DismissalSubmission(Contract):
    """Body of POST /v1/dead-letters/{letter_id}/dismiss."""

    model_config = STRICT

    reason: Annotated[ReasonInput, Field(max_length=1_000)]


class LimitInput(Limit):
    """Ceilings by unit; a unit that is absent or null has none."""

    model_config = STRICT


class LimitSubmission(Contract):
    """Body of PUT /v1/limits: one target and its ceilings; without ceilings its limit is removed.

    expect_revision: change nothing if the limits have another revision by now. reason: stored with the change.
    """

    model_config = STRICT

    target: LimitTarget
    limit: LimitInput = LimitInput()
    expect_revision: Count | None = None
    reason: Annotated[Reason, BeforeValidator(one_line)] = ""


class TopUpSubmission(Contract):
    """Body of POST /v1/tasks/{task_id}/topup: the amounts to add, by unit, and the reason."""

    model_config = STRICT

    add: LimitInput
    reason: ReasonInput


class TopUpReceipt(Contract):
    """Answer to a top-up. added: the sum of the task's top-ups. resumed: it was halted at its ceiling and goes on."""

    task_id: str
    added: Limit
    revision: Count
    resumed: bool
    status_url: str


class PushSubmission(Contract):
    """Address to which a task's states are posted. token: sent with each post in `X-A2A-Notification-Token`.
    form: the version of A2A in whose form it is posted.
    """

    model_config = STRICT

    url: PushUrl
    token: PushToken = ""
    form: Form = "1.0"


class RatingSubmission(Contract):
    """Body of PUT /v1/tasks/{task_id}/rating. comment: why. kind: `label` is blind, and shown to nobody; `judge` is a
    judge model's, with its certificate's `name@digest`, and whether that holds now."""

    model_config = STRICT

    score: Score
    comment: Annotated[Reason, BeforeValidator(one_line)] = ""
    kind: RatingKind = "rating"
    judge: Summary = ""
    certified: bool = False

    @model_validator(mode="after")
    def _names_judge(self) -> Self:
        if (self.kind == "judge") != bool(self.judge) or (self.certified and self.kind != "judge"):
            raise PydanticCustomError("judge", "`judge` is named where kind is judge, and there alone")
        return self


class ResolutionSubmission(Contract):
    """Body of POST /v1/writes/{write_id}. happened: the write was made; else it was not, and may be made. result: what
    its asker is told as its result."""

    model_config = STRICT

    happened: bool
    reason: ReasonInput
    result: Reason = ""

    @model_validator(mode="after")
    def _has_result_of_what_happened(self) -> Self:
        if self.result and not self.happened:
            raise PydanticCustomError("result_of_nothing", "only a write that happened has a result: leave it out")
        return self


class PromptSubmission(Contract):
    """Body of POST /v1/prompts/{prompt}: the next version of a prompt. note: what changes, and why. review_by: day
    until which somebody reads it again, 2027-03-31."""

    model_config = STRICT

    content: PromptContent
    note: ReasonInput
    owner: Name
    based_on: Summary = ""
    review_by: ReviewDate = ""


class ReleaseSubmission(Contract):
    """Body of POST /v1/releases/{label}. after: number of the release that was seen, 0 before the first. Then one of:
    changes, for everybody or as a canary of `percent`; `percent` of the canary that stands; restore; end_canary.
    break_glass: without the statements that the label's gate asks for; by a role that the gate names."""

    model_config = STRICT

    after: Count
    changes: Annotated[tuple[ReleaseChange, ...], Field(max_length=bounds.MAX_RELEASED_PROMPTS)] = ()
    percent: Annotated[int, Field(ge=0, le=50)] = 0
    sticky_by: StickyBy = "task"
    restore: Count = 0
    end_canary: Literal["", "drop", "promote"] = ""
    break_glass: bool = False
    reason: ReasonInput


class EvaluationSubmission(Contract):
    """Body of POST /v1/evaluations. changes: on top of what the label stands for. case_set: name of a set that an
    evaluator has; without one there is a release to try the changes on, and nobody evaluates it."""

    model_config = STRICT

    label: ReleaseLabel
    changes: Annotated[tuple[ReleaseChange, ...], Field(max_length=bounds.MAX_RELEASED_PROMPTS)] = ()
    case_set: SetName = ""
    reason: ReasonInput


class ReportSubmission(Contract):
    """Body of POST /v1/evaluations/{number}/report. envelope: the signed statement, a DSSE envelope as JSON text."""

    model_config = STRICT

    envelope: Envelope


class WorkflowSubmission(Contract):
    """Body of POST /v1/workflows/{workflow}: a draft of its next version. note: what changes, and why. source_task: the
    task that it was saved from."""

    model_config = STRICT

    content: WorkflowContent
    note: ReasonInput
    source_task: Tag = ""


class WorkflowActSubmission(Contract):
    """Body of POST /v1/workflows/{workflow}/versions/{number}: what happens to a version. sha256: of the version that
    was read. schedule, trigger: one of them with the action `schedule`, and with no other. canary: with `publish`, for
    a share of the runs alone."""

    model_config = STRICT

    action: Literal["submit", "reject", "approve", "publish", "retire", "schedule", "unschedule"]
    sha256: Sha256
    reason: ReasonInput
    schedule: WorkflowSchedule | None = None
    canary: WorkflowShare | None = None
    trigger: WorkflowTrigger | None = None


class EventSubmission(Contract):
    """Body of POST /v1/events: something that happened outside. id: yours; the same is the same event. key: by which
    steps that wait tell events of a name apart. body: what is known of it."""

    model_config = STRICT

    name: EventName
    id: EventId
    key: AnyEventKey = ""
    body: Any = Field(default_factory=dict)


class EventReceipt(Contract):
    """The event is stored durably. event: by which it is known in the mesh. repeated: it was there before."""

    event: str
    repeated: bool = False


class RunSubmission(Contract):
    """Body of POST /v1/workflows/{workflow}/runs. parameters: values by name. version: number of it; 0 for the newest
    published one. limits: they can only lower those of the version. written_by: who wrote the values."""

    model_config = STRICT

    parameters: ParameterValues = {}
    version: Annotated[int, Field(ge=0, le=999_999)] = 0
    limits: LimitsInput | None = None
    conversation: Tag = ""
    written_by: WrittenBy = "person"


class DecisionSubmission(Contract):
    """Body of POST /v1/approvals/{approval_id}. arguments_sha256: of the request that was read: the decision is about
    that call and no other."""

    model_config = STRICT

    decision: Decision
    arguments_sha256: Sha256
    reason: ReasonInput = "no reason was given"


class TrialSourceInput(TrialSource):
    """A text that would stand before the agent. source: who is behind it; name: of the document or tool."""

    model_config = STRICT


class PolicyTrialSubmission(Contract):
    """Body of POST /v1/policy-trials. sources: texts in which the values of the arguments are looked for, as the model
    gateway does; a value that stands in none is the model's. person: for whom the call would be made, the caller where
    it is absent; role: of that person."""

    model_config = STRICT

    tool: Name
    arguments: dict[str, Any]
    sources: Annotated[tuple[TrialSourceInput, ...], Field(max_length=bounds.MAX_TRIAL_SOURCES)] = ()
    person: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    role: Literal["submitter", "operator"] = "submitter"
    feature: Tag = ""
