"""Plans: a DAG of steps, its version, its approval, and the checker's notes on it."""

import hashlib
import operator
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from bulkhead_contracts import bounds

from ..provenance import Flow, PlannedCall, Pointer, TextTest
from ..types import Body, Contract, Count, Name, Reason, Sha256, Summary, Title, Token, UnixMs

StepKind = Literal["agent", "noop"]
StepAction = Literal["agent", "noop", "tool", "approval", "validate", "branch", "wait", "map"]
ACTION_FIELDS = ("call", "question", "gate", "branch", "wait", "over")
"""Of a step that does something else than its kind says."""
RetryMode = Literal["with_feedback", "fresh"]
"""Whether the next attempt at a step is told why the last one was not accepted."""
Approval = Literal["not_required", "draft", "in_review", "approved", "rejected"]
Severity = Literal["error", "warning", "note"]


Role = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]

WORKER_ROLE = "step"
"""Of a step that names no other role."""
JUDGE_ROLE = "gate_judge"
"""Of a step that judges another one's result for a gate: no checker judges it, and nothing but the gate reads it."""
ASK_PERSON = "ask_person"
"""The tool by which a step of action `approval` asks a person: policy asks about each of its calls."""
PLAN_CALL_SOURCE = "plan call "
"""The source of a label of a person's own call, before its step's id."""
AGENT_TOOL = "agent_"
"""The tool of a remote agent is called by this and the agent's name: providers of models take no dot in it."""


def planned_ids(step_id: str) -> tuple[str, ...]:
    """Ids under which a plan may have the step: its own, and that of the map of which it is an item; never both."""
    map_id, _, index = step_id.rpartition("-")
    return (step_id, map_id) if map_id and len(index) == 4 and index.isdigit() else (step_id,)


class Delegation(Contract):
    """A role whose steps are carried out elsewhere: by a program outside (`worker`, of this identity) through doors, or
    by a remote agent, as one call of the tool `agent_NAME`.

    name: of the identity or of the agent. deadline_ms: of one attempt at a step.
    """

    role: Role
    to: Literal["worker", "agent"]
    name: Token
    deadline_ms: Annotated[int, Field(gt=0, le=bounds.MAX_TASK_DEADLINE_MS)] = bounds.DEFAULT_DELEGATED_STEP_MS

    @property
    def agent_tool(self) -> str:
        """The tool that a step of this role calls; "" where doors hand it to a worker."""
        return f"{AGENT_TOOL}{self.name}" if self.to == "agent" else ""


class RoleSpec(Contract):
    """A delegated role that a plan may choose, in words for the model that makes it; a `Delegation` has the authority.

    description: one line, which may be empty.
    """

    name: Role
    description: Summary = ""


class StepCall(Contract):
    """Call of a step of action `tool`, which no model makes.

    arguments_json: an object. In it `{"$from": "STEP", "field": "/pointer"}` is that field of an earlier result's JSON,
    and `{"$item": "/pointer"}` that of the item of a `map`; of "" it is the whole.
    """

    tool: Name
    arguments_json: Annotated[str, Field(max_length=bounds.MAX_ARGUMENTS_BYTES)] = "{}"

    def text_in(self, step_id: str) -> str:
        """The call as a label of a submitted plan covers it, beside its step's `prompt_text`."""
        return f"{step_id}\n{self.tool}\n{self.arguments_json}"


class ApprovalQuestion(Contract):
    """Question of a step of action `approval`, asked before steps that build on it begin. roles: any of them; empty for
    whoever may approve calls. expires_ms: how long he has."""

    text: Annotated[str, Field(min_length=1, max_length=bounds.MAX_REASON_CHARS)]
    roles: Annotated[tuple[Name, ...], Field(max_length=8)] = ()
    expires_ms: Annotated[int, Field(gt=0, le=bounds.MAX_TASK_DEADLINE_MS)] = bounds.DEFAULT_APPROVAL_WAIT_MS

    @property
    def signed_sha256(self) -> str:
        """Digest of the question, which its step's grant holds."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class PropertyCheck(Contract):
    """One property of a result's text. text: what it contains, lacks or matches (RE2); or a number, of words, or that
    it says; "" for `cites`: it cites at least one source."""

    test: Literal["contains", "lacks", "matches", "min_words", "max_words", "equals_number", "cites"]
    text: Summary = ""


class GateJudge(Contract):
    """Model that judges a result for a gate. question: what it decides. threshold: least score, from 0 to 1, beside its
    verdict. uncertified: nobody has shown that its verdicts are right, so that by `advise` a result that it fails goes
    on, degraded, once there is no retry left; by `allow` the run fails. step: that judges, of the role `gate_judge`; ""
    where composing a workflow's run makes that step."""

    question: Annotated[str, Field(min_length=1, max_length=bounds.MAX_ACCEPTANCE_CHARS)]
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    uncertified: Literal["advise", "allow"] = "advise"
    step: Token | Literal[""] = ""


class QualityGate(Contract):
    """Gate of a step of action `validate`: what the result of step `of` must be. json_schema: a JSON schema of the
    whole, without references; "" for none. judge: in the place of schema and checks.

    on_fail: `retry` repeats that step with the reasons, at most `retries` times, then fails; `person` asks one.
    """

    of: Token
    json_schema: Annotated[str, Field(max_length=bounds.MAX_SCHEMA_BYTES)] = ""
    checks: Annotated[tuple[PropertyCheck, ...], Field(max_length=16)] = ()
    on_fail: Literal["fail", "retry", "person"] = "fail"
    retries: Annotated[int, Field(ge=1, lt=bounds.MAX_STEP_ATTEMPTS)] = 1
    judge: Annotated[GateJudge | None, Field(exclude_if=operator.not_)] = None


class BranchCase(Contract):
    """The steps that are run when a value passes this test."""

    test: TextTest
    text: Summary = ""
    steps: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_STEP_INPUTS)]


class Branch(Contract):
    """Branch of a step of action `branch`: the first case that the value passes, else `otherwise`. Steps of the others
    are skipped, and what builds on skipped ones alone. of, field: of which step's result, which field of its JSON; ""
    for its text."""

    of: Token
    field: Pointer = ""
    cases: Annotated[tuple[BranchCase, ...], Field(min_length=1, max_length=16)]
    otherwise: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_STEP_INPUTS)] = ()


EventName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}(\.[a-z][a-z0-9_-]{0,31}){0,3}$")]
"""`order.paid`."""
EventKey = Annotated[str, StringConstraints(min_length=1, max_length=bounds.MAX_EVENT_KEY_CHARS)]
"""By which events of a name are told apart: an order's number."""
AnyEventKey = Annotated[str, StringConstraints(max_length=bounds.MAX_EVENT_KEY_CHARS)]
EventSources = Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_EVENT_SOURCES)]
"""People whose events count, by the name of their key, token or publisher."""


class AwaitedEvent(Contract):
    """Event from outside that a step of action `wait` waits for. key: of the one that is meant, such as an order's.
    sources: empty for anybody of the tenant. early_ms: one that came so long before the wait began counts, too.
    on_timeout: `continue` goes on without it, and says so."""

    name: EventName
    key: EventKey
    sources: EventSources = ()
    early_ms: Annotated[int, Field(ge=0, le=bounds.MAX_EVENT_EARLY_MS)] = 3_600_000
    on_timeout: Literal["fail", "continue"] = "fail"


class TimedWait(Contract):
    """Time of a step of action `wait`: for so long, or until then; one of the two. event: ends it earlier."""

    duration_ms: Annotated[int, Field(ge=0, le=bounds.MAX_TASK_DEADLINE_MS)] = 0
    until_unix_ms: Annotated[int, Field(ge=0, lt=2**53)] = 0
    event: Annotated[AwaitedEvent | None, Field(exclude_if=operator.not_)] = None


class MapOver(Contract):
    """List of a step of action `map`: its step (a call, or an agent's instruction) is run for each item of a list.

    of, field: of which step's result, which list of its JSON. parallel: items at once. at_most: of them may fail
    without failing the map; what they lack is told.
    """

    of: Token
    field: Pointer = ""
    parallel: Annotated[int, Field(ge=1, le=64)] = 8
    max_items: Annotated[int, Field(ge=1, le=bounds.MAX_MAP_ITEMS)] = 100
    at_most: Annotated[int, Field(ge=0, le=bounds.MAX_MAP_ITEMS)] = 0


class PlanStep(Contract):
    """One step: what to do, with which tools, on whose results, and when it counts as done.

    kind `noop` returns its instruction as its result: for wiring tests and benchmarks. role: which worker prompt
    runs it, `worker.<role>`. flows: fields of earlier results that may become arguments without anybody being asked.
    calls: with any, what its tools may change or tell outside without anybody being asked, and nothing else.
    adopted: an outside agent of the name `role` carries it out, through doors; its kind is `noop`, so that a replica
    which does not know the field ends it at once. call, question, gate, branch, wait, over: one of them makes it a step
    of that `action`, and its kind is `noop` for the same reason; a map has a call besides where it is one of a tool.
    tools: of a step that calls one itself, or a gate that asks a person, it is that one, named or not. skippable: a
    person may skip it while the task runs; where it fails for good the task waits for that.
    """

    id: Token
    title: Title
    instruction: Annotated[str, Field(max_length=bounds.MAX_INSTRUCTION_CHARS)]
    tools: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    inputs: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_STEP_INPUTS)] = ()
    acceptance: Annotated[str, Field(max_length=bounds.MAX_ACCEPTANCE_CHARS)] = ""
    kind: StepKind = "agent"
    role: Role = WORKER_ROLE
    flows: Annotated[tuple[Flow, ...], Field(max_length=bounds.MAX_FLOWS, exclude_if=operator.not_)] = ()
    calls: Annotated[tuple[PlannedCall, ...], Field(max_length=bounds.MAX_FLOWS, exclude_if=operator.not_)] = ()
    adopted: Annotated[bool, Field(exclude_if=operator.not_)] = False
    skippable: Annotated[bool, Field(exclude_if=operator.not_)] = False
    retry: Annotated[RetryMode, Field(exclude_if=lambda mode: mode == "with_feedback")] = "with_feedback"
    call: Annotated[StepCall | None, Field(exclude_if=operator.not_)] = None
    question: Annotated[ApprovalQuestion | None, Field(exclude_if=operator.not_)] = None
    gate: Annotated[QualityGate | None, Field(exclude_if=operator.not_)] = None
    branch: Annotated[Branch | None, Field(exclude_if=operator.not_)] = None
    wait: Annotated[TimedWait | None, Field(exclude_if=operator.not_)] = None
    over: Annotated[MapOver | None, Field(exclude_if=operator.not_)] = None

    @model_validator(mode="after")
    def _names_called_tool(self) -> Self:
        asks = self.gate is not None and self.gate.on_fail == "person"
        if not self.tools and (tool := ASK_PERSON if asks else self.called_tool):
            self.__dict__["tools"] = (tool,)
        return self

    @property
    def called_tool(self) -> str:
        """The tool that the step itself calls, without a model; "" for none."""
        return self.call.tool if self.call is not None else ASK_PERSON if self.question is not None else ""

    @property
    def action(self) -> StepAction:
        """The way in which it is carried out: its kind, or by which of its fields it is more than that."""
        if self.over is not None:
            return "map"
        by_field: tuple[tuple[StepAction, object], ...] = (
            ("tool", self.call),
            ("approval", self.question),
            ("validate", self.gate),
            ("branch", self.branch),
            ("wait", self.wait),
        )
        return next((action for action, field in by_field if field is not None), self.kind)

    @property
    def prompt_text(self) -> str:
        """The step as a model is shown it. A submitted plan's texts are labelled by digest, so that each service must
        write them alike."""
        text = f"{self.title}\n{self.instruction}" if self.title else self.instruction
        return f"{text}\nAcceptance: {self.acceptance}" if self.acceptance else text


class PlanNote(Contract):
    """A finding of the plan checker."""

    severity: Severity
    code: Name
    step_id: str = ""
    message: Reason


class Plan(Contract):
    """A checked plan. `version` counts generations of one task; `approval` is who let it run."""

    version: Count = 1
    approval: Approval = "not_required"
    steps: Annotated[tuple[PlanStep, ...], Field(max_length=bounds.MAX_PLAN_STEPS)]
    notes: Annotated[tuple[PlanNote, ...], Field(max_length=bounds.MAX_PLAN_NOTES)] = ()

    @property
    def steps_sha256(self) -> str:
        """Digest of the steps: what a person approves."""
        return hashlib.sha256("\n".join(step.model_dump_json() for step in self.steps).encode()).hexdigest()


class PlanProposed(Body, type="mesh.plan.proposed"):
    """A drafted plan waits for a person's word, until then: its task asked for that. sha256: of its steps, which the
    word is bound to."""

    plan: Plan
    sha256: Sha256
    until_unix_ms: UnixMs


class PlanDecided(Body, type="mesh.plan.decided"):
    """A person's word on the proposed plan of this digest. plan: the steps that he would have run in its place.
    redraft: of a rejection; another draft is made, which is told the reason. skip: the word is on the plan that runs,
    without this step. token: the signer's, over all the rest; without it the word decides nothing."""

    sha256: Sha256
    decision: Literal["approve", "reject"]
    reason: Reason = ""
    plan: Plan | None = None
    redraft: bool = False
    skip: Annotated[Token | Literal[""], Field(exclude_if=operator.not_)] = ""
    person: Name
    role: Name
    token: Annotated[str, Field(max_length=bounds.MAX_GRANT_TOKEN_BYTES, exclude_if=operator.not_)] = ""

    @property
    def signed_sha256(self) -> str:
        """Digest of all of it, which the signer signs."""
        return hashlib.sha256(self.model_dump_json(exclude={"token"}).encode()).hexdigest()


class PlanAdopted(Body, type="mesh.plan.adopted"):
    """The planner runs this plan now."""

    plan: Plan


class PlanRejected(Body, type="mesh.plan.rejected"):
    """A draft did not pass the plan checker; the notes went back to the model."""

    draft: Count
    notes: Annotated[tuple[PlanNote, ...], Field(max_length=bounds.MAX_PLAN_NOTES)]
