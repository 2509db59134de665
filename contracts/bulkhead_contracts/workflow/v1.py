"""Workflows: plans with parameters, as versions that never change and facts about what each version may do."""

import json
import operator
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from bulkhead_contracts import bounds

from ..approval.v1 import SignedKind
from ..plan.v1 import ACTION_FIELDS, AnyEventKey, EventName, EventSources, PlanStep
from ..prompt.v1 import OF_WORKFLOW, CanaryWatch, StickyBy, canonical_sha256, choose_side, describe_value_misfit
from ..provenance import Pointer
from ..result import Failure
from ..task.v1 import Objective, RequesterClaim, TaskLimits
from ..task_options import TaskOptions
from ..types import (
    Body,
    Contract,
    Count,
    Name,
    Reason,
    Sha256,
    Summary,
    Title,
    Token,
    UnixMs,
    WorkflowReleaseRef,
    list_unknown_nested_fields,
    order_fields,
)

WorkflowName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
"""`weekly-report`."""
WorkflowRef = Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9-]{0,39}\.[1-9][0-9]{0,5})?$")]
"""A version of a workflow, `weekly-report.3`; spending is counted under it."""
WorkflowState = Literal["draft", "in_review", "approved", "published", "retired"]
WorkflowAction = Literal["draft", "submit", "reject", "approve", "publish", "retire", "schedule", "unschedule"]
ParameterValue = Annotated[str, StringConstraints(max_length=bounds.MAX_WORKFLOW_VALUE_CHARS)]
"""A value as text: `12.5`, `true`."""
ParameterValues = Annotated[dict[Name, ParameterValue], Field(max_length=bounds.MAX_WORKFLOW_PARAMETERS)]
PLACEHOLDER = re.compile(r"\{\{([^{}\n]{0,64})\}\}")
FILLED_FIELDS = frozenset(
    {
        "title",
        "instruction",
        "acceptance",
        "text",
        "question",
        "key",
        "at_least",
        "at_most",
        "arguments_json",
        "parameters",
    }
)
"""Fields of a step in which a parameter may stand: none that chooses a tool, a role or another step."""
_RESERVED_OPTIONS = ("workflow", "conversation", "written_by", "replan")
"""Options that a run sets: no workflow does."""


def _is_none(value: object) -> bool:
    return value is None


class WorkflowParameter(Contract, extra="forbid"):
    """A value that a run gives, `{{name}}` in a text. default: what it is where a run gives none; null for one that
    every run has to give. choices: of a choice alone."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    kind: Literal["text", "number", "boolean", "choice"] = "text"
    choices: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_PROMPT_CHOICES)] = ()
    default: Annotated[ParameterValue | None, Field(exclude_if=_is_none)] = None
    description: Summary = ""

    @model_validator(mode="after")
    def _default_fits(self) -> "WorkflowParameter":
        if self.default is not None and (reason := self.describe_misfit(self.default)):
            raise ValueError(reason)
        if (self.kind == "choice") != bool(self.choices):
            raise ValueError(f"{self.name}: choices belong to the kind choice, which needs them")
        return self

    def describe_misfit(self, value: str) -> str:
        """Reason for which this is no value of it; "" when it is."""
        if self.kind == "boolean":
            return "" if value in ("true", "false") else f"{self.name} is true or false"
        # A text may have several lines.
        return describe_value_misfit(self.name, self.kind, self.choices, re.sub(r"[\n\t]", " ", value))

    @property
    def is_open_text(self) -> bool:
        """True for a text that every run has to give."""
        return self.kind == "text" and self.default is None

    @property
    def sample_value(self) -> str:
        """A value that fits, for a check without a run."""
        samples = {"number": "1", "boolean": "true", "choice": next(iter(self.choices), ""), "text": "text"}
        return self.default if self.default is not None else samples[self.kind]


class WorkflowStep(PlanStep, extra="forbid"):
    """A step of a workflow: one of a plan; or, with `workflow`, all steps of that version, which take its place.

    workflow: version of the workflow that stands here, `market-scan.2`; the step has its id, inputs and `parameters`
    alone then. parameters: values for it, in which parameters of the outer workflow may stand.
    """

    title: Title = ""
    instruction: Annotated[str, Field(max_length=bounds.MAX_INSTRUCTION_CHARS)] = ""
    workflow: Annotated[WorkflowRef, Field(exclude_if=operator.not_)] = ""
    parameters: Annotated[ParameterValues, Field(exclude_if=operator.not_)] = {}

    @model_validator(mode="before")
    @classmethod
    def _kind_follows(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and (unknown := next(list_unknown_nested_fields(cls, fields), "")):
            raise ValueError(unknown)
        # Of a step with an action the kind says nothing: nobody has to write it.
        has_action = isinstance(fields, dict) and any(fields.get(name) for name in ACTION_FIELDS)
        return {"kind": "noop", **fields} if has_action else fields


@order_fields("description objective parameters steps limits")
class WorkflowContent(TaskOptions, extra="forbid"):
    """Content of a version: all that a run does. Its digest names it.

    objective: of the tasks that run it; parameters may stand in it. The options and limits are those of such a task.
    """

    description: Summary = ""
    objective: Objective
    parameters: Annotated[tuple[WorkflowParameter, ...], Field(max_length=bounds.MAX_WORKFLOW_PARAMETERS)] = ()
    steps: Annotated[tuple[WorkflowStep, ...], Field(min_length=1, max_length=bounds.MAX_PLAN_STEPS)]
    limits: TaskLimits = TaskLimits()

    def to_document(self) -> dict[str, Any]:
        """The content without what has its default."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def sha256(self) -> str:
        """Digest of the content in canonical form."""
        return canonical_sha256(self.to_document())

    @property
    def nested_refs(self) -> tuple[str, ...]:
        """Versions of other workflows that its steps stand for."""
        return tuple(dict.fromkeys(step.workflow for step in self.steps if step.workflow))

    def list_problems(self) -> tuple[str, ...]:
        """Faults of the text alone, for people; () without any."""
        declared = [parameter.name for parameter in self.parameters]
        places = [(step.id, *place) for step in self.steps for place in texts_of(step.model_dump(mode="json"))]
        used = {name for text in (self.objective, *(text for *_, text in places)) for name in PLACEHOLDER.findall(text)}
        problems = [f"{{{{{name}}}}} stands in a text and is not declared" for name in sorted(used - set(declared))]
        problems += [f"the parameter {name} stands nowhere" for name in sorted(set(declared) - used)]
        problems += [
            f"the parameter {name} is declared twice" for name in sorted(set(declared)) if declared.count(name) > 1
        ]
        misplaced: dict[str, set[str]] = {}
        for step_id, field, text in places:
            if field not in FILLED_FIELDS and PLACEHOLDER.search(text):
                misplaced.setdefault(step_id, set()).add(f"`{field}`")
        problems += [
            f"step {step_id}: a parameter may not stand in {', '.join(sorted(fields))}"
            for step_id, fields in misplaced.items()
        ]
        defaults = {name: field.default for name, field in TaskOptions.model_fields.items()}
        problems += [
            f"`{name}` is set by each run, and not by a workflow"
            for name in _RESERVED_OPTIONS
            if getattr(self, name) != defaults[name]
        ]
        for step in self.steps:
            if step.adopted:
                problems.append(f"step {step.id} is adopted, and only doors may ask for one")
            if step.parameters and not step.workflow:
                problems.append(f"step {step.id} has parameters, and names no workflow that takes them")
            if step.workflow and (step.instruction or step.acceptance or step.tools):
                problems.append(f"step {step.id} stands for {step.workflow}: it has id, inputs and parameters alone")
        if (size := len(self.model_dump_json().encode())) > bounds.MAX_WORKFLOW_BYTES:
            problems.append(f"the workflow has {size:,} bytes, of {bounds.MAX_WORKFLOW_BYTES:,}")
        return tuple(problems)


class WorkflowVersion(Contract):
    """One version of a tenant's workflow; it never changes. number: 1, 2, ... of this workflow. source_task: the task
    that it was saved from. note: what changed, and why."""

    workflow: WorkflowName
    number: Annotated[Count, Field(ge=1)]
    content: WorkflowContent
    sha256: Sha256
    note: Reason
    source_task: Annotated[str, Field(max_length=64, exclude_if=operator.not_)] = ""
    person: Name
    role: Name
    act: Token
    act_sha256: Sha256
    drafted_unix_ms: UnixMs

    @property
    def ref(self) -> str:
        """`weekly-report.3`."""
        return f"{self.workflow}.{self.number}"


class WorkflowSchedule(Contract):
    """Times at which a published version runs, until it is retired or the schedule ends. cron: five fields. zone:
    `Europe/Berlin`. missed: of runs whose time passed while nobody could begin them: none, or the last one.
    parameters: values of each run. paused: no run begins, and none of that time is made up for."""

    cron: Annotated[str, StringConstraints(min_length=9, max_length=120)]
    zone: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "UTC"
    parameters: ParameterValues = {}
    missed: Literal["skip", "run_once"] = "skip"
    paused: Annotated[bool, Field(exclude_if=operator.not_)] = False


class WorkflowTrigger(Contract):
    """Events from outside that begin runs of a published version, one each, until it is retired or the trigger ends.

    event: its name, order.paid. key: "" for any. sources: whose events count. parameters: values of each run; fields:
    of others, where in the event's body they stand. runs_per_minute: more are refused.
    """

    event: EventName
    key: AnyEventKey = ""
    sources: Annotated[EventSources, Field(min_length=1)]
    parameters: ParameterValues = {}
    fields: Annotated[dict[Name, Pointer], Field(max_length=bounds.MAX_WORKFLOW_PARAMETERS)] = {}
    runs_per_minute: Annotated[int, Field(ge=1, le=bounds.MAX_TRIGGER_RUNS_PER_MINUTE)] = 10


class WorkflowTransition(Contract):
    """A fact about a version: the next state of it, or of its schedule; written once. sha256: of the content that the
    person saw. place: 1, 2, ... of this version's facts. schedule, trigger: that stands from here on, one at most. via:
    how the person came, `api_key` or `jwt`: the runs of both need a key that is still there."""

    workflow: WorkflowName
    number: Annotated[Count, Field(ge=1)]
    place: Annotated[Count, Field(ge=1)]
    action: WorkflowAction
    state: WorkflowState
    sha256: Sha256
    schedule: Annotated[WorkflowSchedule | None, Field(exclude_if=_is_none)] = None
    trigger: Annotated[WorkflowTrigger | None, Field(exclude_if=_is_none)] = None
    reason: Reason
    person: Name
    role: Name
    via: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS, exclude_if=operator.not_)] = ""
    act: Token
    act_sha256: Sha256
    moved_unix_ms: UnixMs


class WorkflowShare(Contract):
    """Share of the runs that a version is tried on. percent: of the runs that name no version; 0 for none any more.
    sticky_by: runs are shared out, or people, who all keep theirs."""

    percent: Annotated[int, Field(ge=0, le=50)]
    sticky_by: StickyBy = "task"


class WorkflowCanary(WorkflowShare):
    """An approved version that a share of the runs gets in the place of the published one. number: of the version.
    facts: that were known about it: it ends with the next one. published: number of the version that it is compared
    with: it ends with that, too. began: number of the release that began it."""

    percent: Annotated[int, Field(ge=1, le=50)]
    number: Annotated[Count, Field(ge=1)]
    facts: Count
    published: Annotated[Count, Field(ge=1)]
    began: Annotated[Count, Field(ge=1)]


class WorkflowRelease(Contract):
    """Canary of a workflow from a moment on, null for none; it never changes: the next one has the next number.
    rolled_back: the canary that the registry ended by making this release."""

    workflow: WorkflowName
    number: Annotated[Count, Field(ge=1)]
    canary: Annotated[WorkflowCanary | None, Field(exclude_if=_is_none)] = None
    rolled_back: Annotated[CanaryWatch | None, Field(exclude_if=_is_none)] = None
    reason: Reason
    person: Name
    role: Name
    act: Token
    act_sha256: Sha256
    moved_unix_ms: UnixMs

    @property
    def ref(self) -> str:
        """`weekly-report.3`."""
        return f"{self.workflow}.{self.number}"

    def ref_for(self, task: str, person: str) -> str:
        """The release or its canary, for a run of a person; the same for the same."""
        return choose_side(self.ref, f"{OF_WORKFLOW}{self.workflow}", self.canary, task, person)


class WorkflowRow(Contract):
    """A version as a list shows it. canary: that stands of it. transitions: of one that was asked for; of a list the
    last alone, its reason cut. The values of a schedule or trigger stand in the row that was asked for, and nowhere
    else."""

    workflow: WorkflowName
    number: Annotated[Count, Field(ge=1)]
    state: WorkflowState = "draft"
    sha256: Sha256
    description: Summary = ""
    person: Name
    note: Summary = ""
    drafted_unix_ms: UnixMs
    transitions: Annotated[tuple[WorkflowTransition, ...], Field(max_length=bounds.MAX_WORKFLOW_TRANSITIONS)] = ()
    schedule: Annotated[WorkflowSchedule | None, Field(exclude_if=_is_none)] = None
    canary: Annotated[WorkflowCanary | None, Field(exclude_if=_is_none)] = None
    trigger: Annotated[WorkflowTrigger | None, Field(exclude_if=_is_none)] = None

    @property
    def begins_runs(self) -> bool:
        """True for a version whose schedule or trigger begins runs."""
        return self.state == "published" and (self.schedule is not None or self.trigger is not None)


class WorkflowActRequested(Body, type="mesh.workflow.act_requested"):
    """A person drafts a version or moves one on (rpc). number, sha256: of the version that the person saw; 0 and "" of
    a draft, which has `content`. schedule, trigger: one of them with the action `schedule`. canary: with `publish`,
    for a share of the runs alone, which is no fact about it. act: by which it is signed and known when it comes again;
    token: the signer's."""

    act: Token
    workflow: WorkflowName
    action: WorkflowAction
    number: Count = 0
    sha256: Sha256 | Literal[""] = ""
    content: Annotated[WorkflowContent | None, Field(exclude_if=_is_none)] = None
    source_task: Annotated[str, Field(max_length=64, exclude_if=operator.not_)] = ""
    schedule: Annotated[WorkflowSchedule | None, Field(exclude_if=_is_none)] = None
    canary: Annotated[WorkflowShare | None, Field(exclude_if=_is_none)] = None
    trigger: Annotated[WorkflowTrigger | None, Field(exclude_if=_is_none)] = None
    reason: Annotated[str, StringConstraints(min_length=1, max_length=bounds.MAX_REASON_CHARS)]
    token: Annotated[str, Field(max_length=bounds.MAX_GRANT_TOKEN_BYTES)] = ""

    @property
    def act_sha256(self) -> str:
        """Digest of all that the person asks for."""
        # With the type: the signer's word on it is of a kind that other acts have, too.
        return canonical_sha256({"type": self.TYPE} | self.model_dump(mode="json", exclude={"token"}))

    @property
    def signed_kind(self) -> SignedKind:
        """Kind of the signer's word on it: that of a decision where the person decides about what others drafted."""
        return "approval" if self.action in ("approve", "reject") else "prompt"


class WorkflowActReplied(Body, type="mesh.workflow.act_replied"):
    """The version as it stands now, or why nothing was done."""

    row: WorkflowRow | None = None
    failure: Failure | None = None


class WorkflowsRequested(Body, type="mesh.workflow.workflows_requested"):
    """Question for a tenant's workflows, or for one version (rpc). workflow: "" for all; then those behind `after` in
    the order of names. number: 0 for the newest published version, or, where there is none, the newest. runnable: to
    run it: refused unless it and all that it nests are published. run: task of a run that names no version: with a
    canary, that of its side."""

    requester: RequesterClaim
    workflow: WorkflowName | Literal[""] = ""
    number: Count = 0
    runnable: bool = False
    run: Annotated[str, Field(max_length=64, exclude_if=operator.not_)] = ""
    after: Annotated[WorkflowName | Literal[""], Field(exclude_if=operator.not_)] = ""


class WorkflowsReplied(Body, type="mesh.workflow.workflows_replied"):
    """Rows by name, the newest version first, as far as one message holds them. more: there are others behind them.
    version: that was asked for; nested: versions that its steps stand for, and theirs. release: the workflow's last
    one; watch: its canary as it does. chosen_by: side of the canary by which a run's version was chosen, "" without
    one."""

    rows: Annotated[tuple[WorkflowRow, ...], Field(max_length=bounds.MAX_WORKFLOW_ROWS)] = ()
    version: WorkflowVersion | None = None
    nested: Annotated[tuple[WorkflowVersion, ...], Field(max_length=bounds.MAX_NESTED_WORKFLOWS)] = ()
    release: Annotated[WorkflowRelease | None, Field(exclude_if=_is_none)] = None
    watch: Annotated[CanaryWatch | None, Field(exclude_if=_is_none)] = None
    chosen_by: Annotated[WorkflowReleaseRef, Field(exclude_if=operator.not_)] = ""
    failure: Failure | None = None
    more: Annotated[bool, Field(exclude_if=operator.not_)] = False


def texts_of(document: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """All strings of a document of JSON, each with the name of the field that it stands in. Of arguments those that
    their JSON stands for, since values are filled into these, and the names with them."""
    if isinstance(document, str) and field == "arguments_json":
        yield from _argument_texts(document)
    elif isinstance(document, str):
        yield field, document
    elif isinstance(document, dict):
        for name, value in document.items():
            yield from texts_of(value, field if field == "parameters" else name)
    elif isinstance(document, list):
        for value in document:
            yield from texts_of(value, field)


def _argument_texts(arguments_json: str) -> list[tuple[str, str]]:
    texts: list[tuple[str, str]] = []
    try:
        waiting = [json.loads(arguments_json)]
    except (ValueError, RecursionError):
        return [("arguments_json", arguments_json)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts.append(("arguments_json", value))
        elif isinstance(value, dict):
            texts += [("name of an argument", name) for name in value]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return texts
