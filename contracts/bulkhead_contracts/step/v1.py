"""Steps: handed to a worker, proposed to the checker or finished, stopped."""

import operator
from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from ..output import OutputPolicy
from ..plan.v1 import Delegation, PlanStep
from ..provenance import Pointer
from ..result import Citation, Completeness, ContentRef, Failure, Label, Result, Standing, Usage
from ..tool.v1 import ToolSpec
from ..types import Body, Contract, Count, Name, Reason, Summary, Tag, Token, UnixMs


class StepInput(Contract):
    """Result of an earlier step that this one builds on."""

    step_id: Token
    title: Summary = ""
    result: Result


class MapItem(Contract):
    """One item of the list that a map runs over: number `index`, from 0, of that field of the JSON of the result of
    step `of`."""

    of: Token
    field: Pointer = ""
    index: Count


class Gathering(Contract):
    """The inputs of a step become one JSON list, in their order, of at most this size. first: number of the first item
    in it. joins: each input is such a list itself."""

    max_bytes: Count
    first: Count = 0
    joins: bool = False


class StepAssigned(Body, type="mesh.step.assigned"):
    """Run this step. The envelope's grant is the step grant, narrowed by the planner to these tools.

    route: as in `TaskRequested`. labels: of `TaskSubmitted`, those of the objective and of this step's text. delegated:
    no model of the mesh carries it out. item: in place of the whole list that input has that item, and an agent carries
    out the step, whose kind is noop, where it has no call. gathering: nothing is carried out; of a failed input the
    list has null.
    """

    step: PlanStep
    attempt: Count
    plan_version: Count
    objective: ContentRef
    inputs: Annotated[tuple[StepInput, ...], Field(max_length=bounds.MAX_STEP_INPUTS)] = ()
    tools: Annotated[tuple[ToolSpec, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    notes: Annotated[tuple[Reason, ...], Field(max_length=16)] = ()
    check: bool = True
    final: bool = False
    output: OutputPolicy | None = None
    deadline_unix_ms: UnixMs
    route: Tag = ""
    labels: Annotated[tuple[Label, ...], Field(max_length=bounds.MAX_LABELS, exclude_if=operator.not_)] = ()
    delegated: Annotated[Delegation | None, Field(exclude_if=operator.not_)] = None
    item: Annotated[MapItem | None, Field(exclude_if=operator.not_)] = None
    gathering: Annotated[Gathering | None, Field(exclude_if=operator.not_)] = None


class StepCancelRequested(Body, type="mesh.step.cancel_requested"):
    """Stop working on a step attempt; its replies are ignored from now on."""

    step_id: Token
    attempt: Count
    plan_version: Count
    reason: Reason = ""


class Evidence(Contract):
    """Something the worker saw and may cite: a passage of rag's or a tool's result."""

    content: ContentRef
    label: Label
    citation: Citation | None = None


class StepProposed(Body, type="mesh.step.proposed"):
    """A result for the checker to judge, with all that it was made from."""

    step: PlanStep
    attempt: Count
    plan_version: Count
    objective: ContentRef
    result: Result
    evidence: Annotated[tuple[Evidence, ...], Field(max_length=bounds.MAX_EVIDENCE)] = ()
    inputs: Annotated[tuple[StepInput, ...], Field(max_length=bounds.MAX_STEP_INPUTS)] = ()
    usage: Usage = Usage()
    output: OutputPolicy | None = None
    deadline_unix_ms: UnixMs


class StepFinished(Body, type="mesh.step.finished"):
    """A step is over without the checker: checks are off, or there is no result to check.

    chosen: steps that a branch begins; the step that it looks at where it begins none, or a gate lets it pass. items:
    how many the list of a map has, or were gathered; of an item, its number. reasons: why a gate let it not pass.
    """

    step_id: Token
    attempt: Count
    plan_version: Count
    result: Result
    failure: Failure | None = None
    usage: Usage = Usage()
    chosen: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_STEP_INPUTS, exclude_if=operator.not_)] = ()
    items: Annotated[int | None, Field(ge=0, le=bounds.MAX_MAP_ITEMS, exclude_if=lambda count: count is None)] = None
    reasons: Annotated[tuple[Reason, ...], Field(max_length=16, exclude_if=operator.not_)] = ()


class StepPaused(Body, type="mesh.step.paused"):
    """A call of a step is held back by a halt or a breaker, or (`active=False`) no longer: who works on it says so.

    While it lasts the step's own time stands still; its task's deadline goes on. code: of what holds it.
    until_unix_ms: a person is waited for, until then; the task's deadline stands still, too.
    """

    step_id: Token
    attempt: Count
    plan_version: Count
    active: bool = True
    code: Tag = ""
    reason: Reason = ""
    until_unix_ms: Annotated[UnixMs, Field(exclude_if=operator.not_)] = 0


class StepExtended(Body, type="mesh.step.extended"):
    """A step that is held back, or goes on after it waited for a person, has time until then, and a grant that lasts as
    long."""

    step_id: Token
    attempt: Count
    plan_version: Count
    deadline_unix_ms: UnixMs


class DelegationRequested(Body, type="mesh.step.delegation_requested"):
    """Hand this attempt at a step to a program outside, under the envelope's step grant; answered once.

    call_id: the same id is the same hand-over; repeated with a later deadline or grant it has those. inputs: results
    of earlier steps, by reference. tools: that it may call through the doors.
    """

    call_id: Token
    step: PlanStep
    attempt: Count
    plan_version: Count
    delegated: Delegation
    objective: ContentRef
    inputs: Annotated[tuple[StepInput, ...], Field(max_length=bounds.MAX_STEP_INPUTS)] = ()
    tools: Annotated[tuple[ToolSpec, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    notes: Annotated[tuple[Reason, ...], Field(max_length=16)] = ()
    deadline_unix_ms: UnixMs


class DelegationReplied(Body, type="mesh.step.delegation_replied"):
    """Answer of a program outside for a step, or why there is none. usage: of its calls through the doors, also
    of those that took the step and lost it. provenance: its words come from outside. tries: how often it was
    taken.
    """

    call_id: Token
    step_id: Token
    outcome: Literal["succeeded", "failed"]
    failure: Failure | None = None
    content: ContentRef | None = None
    standing: Standing = "ok"
    standing_reason: Reason = ""
    completeness: Completeness = Completeness()
    provenance: Annotated[tuple[Label, ...], Field(max_length=8)] = ()
    usage: Usage = Usage()
    tries: Count = 0


class StepTaken(Body, type="mesh.step.taken"):
    """Fact among doors: a program outside has this step now. number: 1 for the first that took it. holder: what the
    program calls itself."""

    call_id: Token
    number: Annotated[int, Field(gt=0, le=bounds.MAX_STEP_TRIES)]
    identity: Name
    holder: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""


class StepAnswered(Body, type="mesh.step.answered"):
    """Fact among doors: the first answer for a step, which counts. number: of the taking that it came from, 0 where the
    step ended without any."""

    call_id: Token
    number: Annotated[int, Field(ge=0, le=bounds.MAX_STEP_TRIES)]
    failure: Failure | None = None
    content: ContentRef | None = None
    completeness: Completeness = Completeness()


class StepBeat(Contract):
    """The holder of this taking of a hand-over works on it (not stored)."""

    beats: Token
    number: Count
