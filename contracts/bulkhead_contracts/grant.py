"""Authority: a task grant signed by the signer, step grants that can only narrow it.

A grant travels as a compact EdDSA JWT in the envelope. A step grant carries its task grant's token as `parent`.
"""

import base64
import hashlib
import json
import operator
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from .output import InputPolicy, OutputPolicy
from .plan.v1 import Delegation, RoleSpec
from .prompt.v1 import ReleaseChoice
from .provenance import Flow, PlannedCall
from .result import Failure
from .task.v1 import RequesterClaim, TaskLimits
from .tool.v1 import ToolSpec
from .types import Body, Constraints, Contract, Count, Name, Reason, ReleaseRef, Tag, Token, UnixMs, WorkflowReleaseRef


class TaskGrant(Contract):
    """Rights of a task: for whom, with which tools, over whose documents, up to which limits.

    origin: the task that this one forks (of forks of forks, the first): a write that is unchanged goes out
    under the key that it had there, and a tool that honours keys does not do it again. feature, workflow:
    what its spending is counted under besides; left out of the token when there is none. constraints: on the
    values of arguments, of every call, in the language of `bulkhead.policy.constraints`. delegated: roles of
    its steps that are carried out elsewhere, and by whom alone. release: the tenant's versions of prompts that the task
    began with, and keeps. workflow_release: by which the version of the workflow was chosen.
    """

    kind: Literal["task"] = "task"
    tenant: Token
    task: Token
    actor: Name
    role: Annotated[str, Field(max_length=32, exclude_if=operator.not_)] = ""
    tools: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS)]
    document_scopes: Annotated[tuple[Token, ...], Field(max_length=16)]
    limits: TaskLimits
    day_cost_usd_micros: Count
    day_tokens: Count
    expires_unix_ms: UnixMs
    origin: Token | None = None
    # Tokens that were signed before there were tags keep their bytes.
    feature: Annotated[Tag, Field(exclude_if=operator.not_)] = ""
    workflow: Annotated[Tag, Field(exclude_if=operator.not_)] = ""
    constraints: Constraints = ()
    delegated: Annotated[
        tuple[Delegation, ...], Field(max_length=bounds.MAX_DELEGATED_ROLES, exclude_if=operator.not_)
    ] = ()
    release: Annotated[ReleaseRef, Field(exclude_if=operator.not_)] = ""
    workflow_release: Annotated[WorkflowReleaseRef, Field(exclude_if=operator.not_)] = ""

    @property
    def asker(self) -> str:
        """Digest of tenant and actor."""
        named = f"{self.tenant}/{self.actor}".encode()
        return hashlib.blake2b(named, digest_size=16, person=b"bulkhead-asker").hexdigest()


@lru_cache(maxsize=256)
def task_claims(token: str) -> TaskGrant | None:
    """Claims of a task grant, whose signature is not checked: enough to tell of, and no authority. None for what is no
    such token."""
    try:
        claims = token.split(".")[1]
        document = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return TaskGrant.model_validate(document["grant"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


class StepGrant(Contract):
    """Rights of one step attempt. Tools must be a subset of the task grant's.

    role: of the step's agent, so that a halt of it reaches its calls; left out of the token when it is not
    known. flows, calls: of the plan, so that nobody has to believe a worker what it declares. question_sha256: of the
    one question that its plan asks a person; "" where it asks none. constraints: hold beside the task's.
    parent_sha256: of the task grant that it narrows, without its signature; written where it is signed.
    """

    kind: Literal["step"] = "step"
    tenant: Token
    task: Token
    step_id: Token
    attempt: Count
    plan_version: Count
    tools: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS)]
    expires_unix_ms: UnixMs
    # Tokens that were signed before there were roles keep their bytes.
    role: Annotated[str, Field(max_length=32, exclude_if=operator.not_)] = ""
    flows: Annotated[tuple[Flow, ...], Field(max_length=bounds.MAX_FLOWS, exclude_if=operator.not_)] = ()
    calls: Annotated[tuple[PlannedCall, ...], Field(max_length=bounds.MAX_FLOWS, exclude_if=operator.not_)] = ()
    question_sha256: Annotated[str, Field(max_length=64, exclude_if=operator.not_)] = ""
    constraints: Constraints = ()
    parent_sha256: Annotated[str, Field(max_length=64, exclude_if=operator.not_)] = ""


class Voucher(Contract):
    """The signer's word that it saw the requester's own token when this task was asked for. For that task alone."""

    kind: Literal["voucher"] = "voucher"
    requester: RequesterClaim
    tenant: Token
    task: Token
    expires_unix_ms: UnixMs


class VouchRequested(Body, type="mesh.grant.vouch_requested"):
    """The gateway has the signer see a requester's own token (rpc), for a task that may begin later and elsewhere.

    credential: the token; nothing stores or logs it.
    """

    requester: RequesterClaim
    requested_unix_ms: UnixMs
    credential: Annotated[str, Field(max_length=bounds.MAX_CREDENTIAL_CHARS, repr=False)]


class VouchReplied(Body, type="mesh.grant.vouch_replied"):
    """The signed voucher, or why there is none; neither where the signer has no key set and believes the gateway."""

    voucher: Annotated[str, Field(max_length=bounds.MAX_VOUCHER_CHARS)] = ""
    failure: Failure | None = None


class ToolsRequested(Body, type="mesh.grant.tools_requested"):
    """Doors ask which tools a task of this requester could be granted (rpc)."""

    requester: RequesterClaim


class ToolsReplied(Body, type="mesh.grant.tools_replied"):
    """Tools of the requester's tenant that are there and that somebody outside can call, or why none are told."""

    tools: Annotated[tuple[ToolSpec, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    failure: Failure | None = None


class GrantRequested(Body, type="mesh.grant.requested"):
    """The gateway asks the signer for a task grant (rpc); the signer holds it to the tenant's policy.

    worker_roles: of the steps of a plan that the requester brings; a grant for a role that nobody plays helps nobody.
    plan_tools: of those steps, where the request itself names none: what a plan names it asks for.
    credential: the requester's own token where he has one (nothing stores or logs it); of a task its voucher.
    constraints: beside the tenant's; the grant holds all. release: of prompts, that the task asks for.
    workflow_release: as in the grant. drafted: the
    task comes without a plan, and its model may choose among the delegated roles.
    """

    requester: RequesterClaim
    purpose: Literal["task", "ingest"] = "task"
    tools: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    limits: TaskLimits = TaskLimits()
    requested_unix_ms: UnixMs
    origin: Token | None = None
    worker_roles: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_DRAFT_STEPS)] = ()
    feature: Tag = ""
    workflow: Tag = ""
    release: Annotated[ReleaseChoice, Field(exclude_if=operator.not_)] = ""
    plan_tools: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS, exclude_if=operator.not_)] = ()
    credential: Annotated[str, Field(max_length=bounds.MAX_CREDENTIAL_CHARS, exclude_if=operator.not_, repr=False)] = ""
    constraints: Constraints = ()
    drafted: Annotated[bool, Field(exclude_if=operator.not_)] = False
    workflow_release: Annotated[WorkflowReleaseRef, Field(exclude_if=operator.not_)] = ""


class GrantReplied(Body, type="mesh.grant.replied"):
    """A signed token and the tools that it names, or why not. input, output: the tenant's rules. left_out: tools that
    change something, which the task would get if its request named them. delegated: as in the token. roles: of these,
    what a plan that the mesh makes may choose."""

    granted: bool
    token: Annotated[str, Field(max_length=bounds.MAX_GRANT_TOKEN_BYTES)] = ""
    tools: Annotated[tuple[ToolSpec, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    limits: TaskLimits | None = None
    input: InputPolicy | None = None
    output: OutputPolicy | None = None
    left_out: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS, exclude_if=operator.not_)] = ()
    delegated: Annotated[
        tuple[Delegation, ...], Field(max_length=bounds.MAX_DELEGATED_ROLES, exclude_if=operator.not_)
    ] = ()
    roles: Annotated[tuple[RoleSpec, ...], Field(max_length=bounds.MAX_DELEGATED_ROLES, exclude_if=operator.not_)] = ()
    code: str = ""
    reason: Reason = ""
    hint: Reason = ""
