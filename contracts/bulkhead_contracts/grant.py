"""Authority: a task grant signed by the signer, step grants that can only narrow it.

A grant travels as a compact EdDSA JWT in the envelope. A step grant carries its task grant's token as `parent`.
"""

from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from bulkhead_contracts import bounds

from .task.v1 import RequesterClaim, TaskLimits
from .tool.v1 import ToolSpec
from .types import Body, Contract, Count, Name, Reason, Tag, Token, UnixMs


class TaskGrant(Contract):
    """What a task may do: for whom, with which tools, over whose documents, up to which limits.

    origin: the task that this one forks (of forks of forks, the first): a write that is unchanged goes out under the
    key that it had there, and a tool that honours keys does not do it again. feature, workflow: what its spending is
    counted under besides; left out of the token when there is none.
    """

    kind: Literal["task"] = "task"
    tenant: Token
    task: Token
    actor: Name
    tools: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS)]
    document_scopes: Annotated[tuple[Token, ...], Field(max_length=16)]
    limits: TaskLimits
    day_cost_usd_micros: Count
    day_tokens: Count
    expires_unix_ms: UnixMs
    origin: Token | None = None
    feature: Tag = ""
    workflow: Tag = ""

    @model_serializer(mode="wrap")
    def _without_empty_tags(self, full: SerializerFunctionWrapHandler) -> dict[str, object]:
        found: dict[str, object] = full(self)
        for name in ("feature", "workflow"):
            if not found[name]:
                del found[name]  # Tokens that were signed before there were tags keep their bytes.
        return found


class StepGrant(Contract):
    """What one step attempt may do. Tools must be a subset of the task grant's.

    role: of the step's agent, so that a halt of it reaches its calls; left out of the token when it is not known.
    """

    kind: Literal["step"] = "step"
    tenant: Token
    task: Token
    step_id: Token
    attempt: Count
    plan_version: Count
    tools: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS)]
    expires_unix_ms: UnixMs
    role: Annotated[str, Field(max_length=32)] = ""

    @model_serializer(mode="wrap")
    def _without_empty_role(self, full: SerializerFunctionWrapHandler) -> dict[str, object]:
        found: dict[str, object] = full(self)
        if not self.role:
            del found["role"]  # Tokens that were signed before there were roles keep their bytes.
        return found


class GrantRequested(Body, type="mesh.grant.requested"):
    """The gateway asks the signer for a task grant (rpc); the signer holds it to the tenant's policy.

    worker_roles: of the steps of a plan that the requester brings; a grant for a role that nobody plays helps nobody.
    """

    requester: RequesterClaim
    purpose: Literal["task", "ingest"] = "task"
    tools: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    limits: TaskLimits = TaskLimits()
    requested_unix_ms: UnixMs
    origin: Token | None = None
    worker_roles: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_PLAN_STEPS)] = ()
    feature: Tag = ""
    workflow: Tag = ""


class GrantReplied(Body, type="mesh.grant.replied"):
    """A signed token and the tools that it names, or why not."""

    granted: bool
    token: Annotated[str, Field(max_length=bounds.MAX_GRANT_TOKEN_BYTES)] = ""
    tools: Annotated[tuple[ToolSpec, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    limits: TaskLimits | None = None
    code: str = ""
    reason: Reason = ""
    hint: Reason = ""
