"""A proposed call, and what policy says of it. Pure data; `decision.decide` makes the one of the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.provenance import Flow, Isolation, PlannedCall, Source, ValueOrigin
from bulkhead_contracts.tool import ToolSpec

Effect = Literal["permit", "ask", "forbid"]
Risk = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class CallProposal:
    """A call before it is made.

    values: where its arguments come from, as signed; None where nobody vouches for it. least_trusted: the source
    of least trust that stood in the context. shown: all sources that did, by name, with `unknown` where these may
    not be all. agent: the service and role that asks (`worker.step`). role: of the
    person for whom; "" where it is not known. flows: of the plan. planned: calls that the plan foresees in this step,
    and that bound it where there are any. planned_before: of the earlier calls of this tool in this step, for each its
    position in `planned`, -1 where that is not known. calls_before: other calls of it in this task. spent_usd_micros:
    of the task, where known. isolation: what this executor has for this tool. calls: the step of each earlier call by
    its id, where an origin's call_id is not the step's. constraints: such as hold beside those of the grants.
    """

    task: TaskGrant
    step: StepGrant | None
    tool: ToolSpec
    arguments: Mapping[str, Any]
    values: tuple[ValueOrigin, ...] | None = None
    least_trusted: Source = "model"
    shown: tuple[str, ...] = ("unknown",)
    agent: str = "worker"
    role: str = ""
    flows: tuple[Flow, ...] = ()
    planned: tuple[PlannedCall, ...] = ()
    planned_before: tuple[int, ...] = ()
    calls_before: int = 0
    spent_usd_micros: int = 0
    isolation: Isolation = "none"
    calls: Mapping[str, str] = field(default_factory=dict)
    constraints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaintFinding:
    """A value that does not come from where policy wants it from. pointer: the argument; text: the value, cut."""

    pointer: str
    text: str
    sources: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class CallRuling:
    """rule: what decided, by name; policy_sha256: of all files of the policy. reasons: for people, the first one
    decided. code: for programs, of a forbidden call."""

    effect: Effect
    rule: str
    policy_sha256: str
    risk: Risk = "low"
    code: str = ""
    reasons: tuple[str, ...] = ()
    findings: tuple[TaintFinding, ...] = field(default=())
