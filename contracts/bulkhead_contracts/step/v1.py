"""Steps: handed to a worker, proposed to the checker or finished, stopped."""

from typing import Annotated

from pydantic import Field

from bulkhead_contracts import bounds

from ..output import OutputPolicy
from ..plan.v1 import PlanStep
from ..result import Citation, ContentRef, Failure, Label, Result, Usage
from ..tool.v1 import ToolSpec
from ..types import Body, Contract, Count, Reason, Summary, Tag, Token, UnixMs


def _empty(value: object) -> bool:
    """Not written then: older messages have none."""
    return not value


class StepInput(Contract):
    """Result of an earlier step that this one builds on."""

    step_id: Token
    title: Summary = ""
    result: Result


class StepAssigned(Body, type="mesh.step.assigned"):
    """Run this step. The envelope's grant is the step grant, narrowed by the planner to these tools.

    route: as in `TaskRequested`. labels: of `TaskSubmitted`, those of the objective and of this step's text.
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
    labels: Annotated[tuple[Label, ...], Field(max_length=bounds.MAX_LABELS, exclude_if=_empty)] = ()


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
    """A step is over without the checker: checks are off, or there is no result to check."""

    step_id: Token
    attempt: Count
    plan_version: Count
    result: Result
    failure: Failure | None = None
    usage: Usage = Usage()


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
    until_unix_ms: Annotated[UnixMs, Field(exclude_if=_empty)] = 0


class StepExtended(Body, type="mesh.step.extended"):
    """A step that is held back, or goes on after it waited for a person, has time until then, and a grant that lasts as
    long."""

    step_id: Token
    attempt: Count
    plan_version: Count
    deadline_unix_ms: UnixMs
