"""Plans: a DAG of steps, its version, its approval, and the checker's notes on it."""

import operator
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from bulkhead_contracts import bounds

from ..provenance import Flow, PlannedCall
from ..types import Body, Contract, Count, Name, Reason, Summary, Title, Token

StepKind = Literal["agent", "noop"]
Approval = Literal["not_required", "draft", "in_review", "approved", "rejected"]
Severity = Literal["error", "warning", "note"]


Role = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]

WORKER_ROLE = "step"
"""Of a step that names no other role."""
AGENT_TOOL = "agent_"
"""The tool of a remote agent is called by this and the agent's name: providers of models take no dot in it."""


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


class PlanStep(Contract):
    """One step: what to do, with which tools, on whose results, and when it counts as done.

    kind `noop` returns its instruction as its result: for wiring tests and benchmarks. role: which worker prompt
    runs it, `worker.<role>`. flows: fields of earlier results that may become arguments without anybody being asked.
    calls: with any, what its tools may change or tell outside without anybody being asked, and nothing else.
    adopted: an outside agent of the name `role` carries it out, through doors; its kind is `noop`, so that a replica
    which does not know the field ends it at once.
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


class PlanAdopted(Body, type="mesh.plan.adopted"):
    """The planner runs this plan now."""

    plan: Plan


class PlanRejected(Body, type="mesh.plan.rejected"):
    """A draft did not pass the plan checker; the notes went back to the model."""

    draft: Count
    notes: Annotated[tuple[PlanNote, ...], Field(max_length=bounds.MAX_PLAN_NOTES)]
