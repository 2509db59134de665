"""Reads about tasks, what their answers cite, and where their push notifications go."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from bulkhead.gateway_api.query import (
    SINCE,
    SUBMITTERS,
    Choices,
    Flag,
    Id,
    PageSize,
    Query,
    Remedy,
    TaskId,
    Word,
    period_s,
)
from bulkhead.gateway_api.ratings import RatedAs, RatingCounts, TaskRatings
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.budget import Charge
from bulkhead_contracts.plan import Plan
from bulkhead_contracts.prompt import ReleaseRef
from bulkhead_contracts.push import CONFIG_ID, Form
from bulkhead_contracts.result import Answered, Failure, Result, Standing, Usage
from bulkhead_contracts.task import RequesterClaim, TaskLimits
from bulkhead_contracts.task_options import Replan, TaskOptions
from bulkhead_contracts.tool import CitedCall, UncertainWrite
from bulkhead_contracts.types import (
    Contract,
    Count,
    Marker,
    Reason,
    Sha256,
    Summary,
    Tag,
    WorkflowReleaseRef,
    order_fields,
)

Status = Literal[
    "unknown", "requested", "queued", "running", "paused", "rejected", "succeeded", "failed", "cancelled", "halted"
]
StepStatus = Literal["waiting", "running", "accepted", "rejected", "failed", "stopped", "skipped"]
TaskKind = Literal["planned", "adopted"]
TaskAnswered = Answered | Literal["unknown"]
ANSWERS = (*get_args(Answered), "unknown")
TaskSort = Literal["newest", "updated", "cost", "duration"]
MAX_NAMES = 50
SourceKind = Literal["document", "tool_result", "step_result", "objective", "unknown"]


class StepDocument(Contract):
    """One step of a task. answered: of the result of its last attempt. until_unix_ms: it waits until then; 0 otherwise.
    `skipped` by a branch that began other steps."""

    step_id: str
    title: str
    status: StepStatus
    attempts: Count
    plan_version: Count
    reasons: tuple[str, ...] = ()
    started_unix_ms: Count = 0
    ended_unix_ms: Count = 0
    usage: Usage
    answered: Answered | None = None
    until_unix_ms: Count = 0


class TaskSummary(Contract):
    """One row of GET /v1/tasks. standing, complete, answered: as in TaskDocument.

    cost_usd_micros: all that has settled, also while the task runs; held_usd_micros: reserved for calls that have not
    settled; null while the ledger does not answer: the cost is that of ended steps then. estimated_usd_micros: the
    part of the cost that no provider told. duration_ms: until now, or until its end. model_calls, tool_calls: counted
    as the cost is. models, tools: of the results that its ended steps rest on. failure_code: of one that ended badly;
    `uncertain_effect` where a person must look. pause_code: why one that is `paused` waits. fork_of: the task that it
    forks. result_summary: the first words of its result. citations: how many its result has. release: of the prompts
    that it was given; "" for the shipped ones. rated: what people say of it: `bad` where one does.
    """

    task_id: str
    kind: TaskKind = "planned"
    status: Status
    objective: str
    created_unix_ms: Count
    updated_unix_ms: Count
    duration_ms: Count = 0
    person: str
    cost_usd_micros: Count
    held_usd_micros: Count | None = 0
    estimated_usd_micros: Count = 0
    model_calls: Count = 0
    tool_calls: Count = 0
    models: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    standing: Standing | None = None
    complete: bool | None = None
    answered: TaskAnswered | None = None
    failure_code: str = ""
    conversation: Tag = ""
    feature: Tag = ""
    workflow: Tag = ""
    pause_code: str = ""
    fork_of: Tag = ""
    result_summary: Summary = ""
    citations: Count = 0
    release: ReleaseRef = ""
    rated: RatedAs = "none"
    ratings: RatingCounts = RatingCounts()


class TaskNames(Contract):
    """Names that the tasks have, the most frequent first, at most 50 of a kind; codes: of failures."""

    people: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()


class TaskCounts(Contract):
    """Numbers of tasks that fit all of the query but `status`, `pause` and `answered`. read: tasks that have been read;
    while it is less than the page's `total` the numbers are those of the tasks that were read, and grow.

    pause: by the code of those that are paused. answered: of those that succeeded. names: of all that were read.
    """

    read: Count
    fitting: Count
    status: Mapping[str, Count] = {}
    pause: Mapping[str, Count] = {}
    answered: Mapping[str, Count] = {}
    names: TaskNames = TaskNames()


class TaskPage(Contract):
    """Tasks in the order of the query; `next` leads to the next page and is null on the last one. total: of all that
    are listed, whatever the filters. note: what may be missing, why, and what to do; "" where nothing is."""

    tasks: tuple[TaskSummary, ...]
    next: str | None = None
    total: Count = 0
    counts: TaskCounts | None = None
    note: str = ""


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
    answered: whether the task gives what was asked for, with the reason if not; a task that did not succeed is answered
    `no`, and where neither a fact nor the judge says it, as in an outside agent's run, it is `unknown`. null while the
    task runs.
    uncertain_writes: calls of a task that did not succeed, which may or may not have been done and are not repeated: a
    person must check them. null while they cannot be known: ask again. more_uncertain_writes: how many are not listed.
    kind: `adopted` is the run of an outside agent. fork_of: the task that it forks. release: of the prompts that it was
    given; "" for the shipped ones, and while it runs. workflow_release: by which its version of the workflow was
    chosen, "" where no canary stood, and while it runs. Options are as submitted.
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
    answered: TaskAnswered | None = None
    answered_reason: Reason = ""
    queue: QueueDocument | None = None
    pause: PauseDocument | None = None
    tools_left_out: Annotated[tuple[str, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    uncertain_writes: Annotated[tuple[UncertainWrite, ...], Field(max_length=bounds.MAX_WRITES_LISTED)] | None = ()
    more_uncertain_writes: Count = 0
    tools: Annotated[tuple[str, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    fork_of: Tag = ""
    replan: Replan = "same_tools"
    release: ReleaseRef = ""
    workflow_release: WorkflowReleaseRef = ""
    ratings: TaskRatings = TaskRatings()
    events_url: str


class CitationRow(Contract):
    """One `[#marker]` of an answer: characters of a document, or a tool's or a step's result, or the objective.

    source: the document's name, the tool or the step. sha256: of the cited content; document_sha256: of the cited
    version of the document. step_id: the step that used it. `unknown`: no accepted result of the task names it.
    """

    marker: Marker
    kind: SourceKind
    source: str = ""
    sha256: str = ""
    document_sha256: Sha256 | None = None
    start: Count | None = None
    end: Count | None = None
    step_id: str = ""

    @property
    def place(self) -> str:
        """`characters 0–46` of a document; "" of other sources, which are cited whole."""
        return "" if self.start is None else f"characters {self.start}–{self.end}"


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


class PushDocument(Contract):
    """Push notifications that are wanted. token: shown to the person who set it. waiting: posts that are not taken yet.
    given_up: why nothing more is posted; "" while it is."""

    config_id: str
    task_id: str
    url: str
    token: str
    form: Form
    person: str
    set_unix_ms: int
    waiting: Count
    given_up: str


class PushPage(Contract):
    """All push notifications of a task that are wanted."""

    configs: tuple[PushDocument, ...]


PUSH_OF = (
    "For submitters and operators, where the tenant's row names hosts (`push`). Each change of the task's state is "
    "posted, in the form of A2A; the first post says how it stands when the config is set."
)


def to_unix_ms(moment: str, now_unix_ms: int) -> int:
    """The moment of `2h` (so long ago), `2026-11-26` or `2026-11-26T08:30` (UTC). Raises ValueError for anything
    else."""
    if re.fullmatch(SINCE, moment):
        return now_unix_ms - period_s(moment) * 1_000
    if not re.match(r"\d{4}-\d\d-\d\d", moment):
        raise ValueError("no moment")
    date = datetime.fromisoformat(moment)
    return max(0, round((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1_000))


def _check_moment(moment: str) -> str:
    if moment:
        to_unix_ms(moment, 0)
    return moment


def _parse_amount(value: object) -> object:
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value) else value


Moment = Annotated[
    str, AfterValidator(_check_moment), Remedy("send a time like 90s, 20m, 1h, 7d, 2026-11-26 or 2026-11-26T08:30")
]
Amount = Annotated[int, Field(ge=0, le=10**15), BeforeValidator(_parse_amount), Remedy("send a whole number")]
Codes = Annotated[
    tuple[Word, ...],
    Choices,
    WithJsonSchema({"type": "array", "items": {"type": "string"}}),
    Remedy("send one or several codes, with commas between"),
]


class TaskListQuery(Query[TaskPage], name="listTasks", path="/v1/tasks", action="read tasks"):
    """List the tenant's tasks, the newest first.

    A page reads 500 tasks at most that were not read before: it may be short, and `next` leads on. What has not ended
    is found at once. An order other than `newest`, and `counts`, are of the tasks that have been read: after a start
    the gateway reads on by itself, a few seconds for 10,000.
    """

    limit: PageSize = 20
    cursor: Annotated[
        str, Field(description="`next` of the previous page", json_schema_extra={"pattern": "^[A-Za-z0-9_-]{11}$"})
    ] = ""
    opened_by: Annotated[
        Literal["", "doors"],
        Field(description="Only the runs of agents outside"),
        WithJsonSchema({"type": "string", "enum": [subjects.DOORS]}),
        Remedy(f"send {subjects.DOORS}, or leave it out"),
    ] = ""
    kind: Annotated[
        Literal["", "planned", "adopted"],
        Field(description="Only tasks of the mesh (planned), or only runs of outside agents (adopted)"),
        WithJsonSchema({"type": "string", "enum": list(get_args(TaskKind))}),
        Remedy(f"send {' or '.join(get_args(TaskKind))}, or leave it out"),
    ] = ""
    text: Annotated[
        Word,
        Field(description="Words that the objective or the id has, in any order; small letters and capitals alike"),
    ] = ""
    status: Annotated[
        tuple[Status, ...],
        Choices,
        Field(description="Only tasks of these statuses"),
        WithJsonSchema({"type": "array", "items": {"enum": list(get_args(Status))}}),
        Remedy(f"send one or several of {', '.join(get_args(Status))}, with commas between"),
    ] = ()
    since: Annotated[
        Moment, Field(description="Only tasks that began since then: so long ago (24h, 7d), or a UTC time (2026-11-26)")
    ] = ""
    until: Annotated[Moment, Field(description="Only tasks that began before then; written as `since`")] = ""
    person: Annotated[Word, Field(description="Only tasks of this person")] = ""
    feature: Annotated[Word, Field(description="Only tasks of this feature")] = ""
    workflow: Annotated[Word, Field(description="Only runs of this version of a workflow, weekly-report.2")] = ""
    standing: Annotated[
        tuple[Standing, ...],
        Choices,
        Field(description="Only results of these"),
        WithJsonSchema({"type": "array", "items": {"enum": list(get_args(Standing))}}),
        Remedy(f"send one or several of {', '.join(get_args(Standing))}, with commas between"),
    ] = ()
    answered: Annotated[
        tuple[TaskAnswered, ...],
        Choices,
        Field(description="Only tasks that are answered so"),
        WithJsonSchema({"type": "array", "items": {"enum": list(ANSWERS)}}),
        Remedy(f"send one or several of {', '.join(ANSWERS)}, with commas between"),
    ] = ()
    code: Annotated[Codes, Field(description="Only tasks that ended with these failures")] = ()
    pause: Annotated[Codes, Field(description="Only tasks that are paused for these reasons")] = ()
    model: Annotated[Word, Field(description="Only tasks whose ended steps rest on answers of this model")] = ""
    tool: Annotated[
        Word, Field(description="Only tasks that called this tool, also where the call failed or was refused")
    ] = ""
    min_cost_usd_micros: Annotated[Amount, Field(description="Only tasks that cost so much, settled and held")] = 0
    min_duration_ms: Annotated[Amount, Field(description="Only tasks that took, or have run, so long")] = 0
    fork_of: Annotated[Word, Field(description="Only forks of this task")] = ""
    rated: Annotated[
        tuple[RatedAs, ...],
        Choices,
        Field(description="Only tasks that people rate so; bad where one of them does"),
        WithJsonSchema({"type": "array", "items": {"enum": list(get_args(RatedAs))}}),
        Remedy(f"send one or several of {', '.join(get_args(RatedAs))}, with commas between"),
    ] = ()
    sort: Annotated[
        TaskSort,
        Field(description="Order: begun last, changed last, dearest or longest first"),
        Remedy(f"send one of {', '.join(get_args(TaskSort))}"),
    ] = "newest"
    counts: Annotated[Flag, Field(description="Whether to count tasks by state, and to list the names they have")] = (
        False
    )


class TaskQuery(Query[TaskDocument], name="showTask", path="/v1/tasks/{task_id}", action="read tasks"):
    """Show one task."""

    task_id: TaskId


class PlanDocument(Contract):
    """The plan of a task. state: `in_review` while it waits for a person, until then, and the decision names `sha256`;
    `none` where there is none yet. An adopted one stands in `plan` as it runs, with `sha256` where a person may skip
    a step of it."""

    task_id: str
    state: Literal["none", "in_review", "adopted"]
    sha256: str = ""
    until_unix_ms: Count = 0
    plan: Plan | None = None


class PlanQuery(Query[PlanDocument], name="showPlan", path="/v1/tasks/{task_id}/plan", action="read tasks"):
    """Show a task's plan, and whether it waits for a person."""

    task_id: TaskId


class CitationListQuery(
    Query[CitationPage], name="listCitations", path="/v1/tasks/{task_id}/citations", action="read tasks"
):
    """List what the markers of a task's answer cite."""

    task_id: TaskId


class CitationQuery(
    Query[CitationDocument], name="showCitation", path="/v1/tasks/{task_id}/citations/{marker}", action="read tasks"
):
    """Show the text behind a marker, from the version that was cited."""

    task_id: TaskId
    marker: Annotated[Id, Field(description="The 12 hexadecimal digits of [#...]")]


class PushListQuery(
    Query[PushPage],
    name="listPush",
    path="/v1/tasks/{task_id}/push",
    action="see and set push notifications",
    allowed=SUBMITTERS,
    note=PUSH_OF,
):
    """List where push notifications of a task go."""

    task_id: TaskId


class PushQuery(
    Query[PushDocument],
    name="showPush",
    path="/v1/tasks/{task_id}/push/{config_id}",
    action="see and set push notifications",
    allowed=SUBMITTERS,
    problems=(422,),
):
    """Show one of them, and whether it was given up."""

    task_id: TaskId
    config_id: Annotated[str, Field(description="The config's id", json_schema_extra={"pattern": CONFIG_ID})]
