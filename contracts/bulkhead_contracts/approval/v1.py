"""Approvals: a call that waits for a person's word, the word, and what became of it."""

import operator
from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from ..provenance import ValueOrigin
from ..result import Failure
from ..task.v1 import RequesterClaim
from ..types import Body, Contract, Name, Reason, Sha256, Token, UnixMs

APPROVING_ROLES = ("approver", "operator")
"""Roles of people who may decide about calls."""
Risk = Literal["low", "medium", "high"]
Decision = Literal["granted", "denied"]
ApprovalOutcome = Literal["granted", "denied", "expired"]
SignedKind = Literal["approval", "resolution", "prompt"]
"""What a signed word is about: a call or a drafted plan that waits (of a plan, `approval_id` is its digest, and
`arguments_sha256` that of the whole word); or an uncertain write, whose id is its `approval_id`, whose
resolution has the digest `arguments_sha256`, and which happened when the decision is `granted`; or an act on
prompts or a workflow, whose id is both its task and its `approval_id`."""


def _is_approval(value: object) -> bool:
    return value == "approval"


class ApprovalRequested(Body, type="mesh.approval.requested"):
    """A call waits until a person lets it be made, exactly as it stands here.

    arguments_json: in canonical form (RFC 8785); arguments_sha256: of that, with the tool's name and the task. preview:
    the call as people read it. why: what policy says of it; values: those of its arguments that are not the asker's
    own words, with their sources. rule: of the policy of that digest. four_eyes: not to be granted by who asked.
    roles: one of which who grants it must have; none for whoever may approve.
    """

    approval_id: Token
    call_id: Token
    step_id: Token
    tool: Name
    arguments_json: Annotated[str, Field(max_length=bounds.MAX_ARGUMENTS_BYTES)]
    arguments_sha256: Sha256
    preview: Annotated[str, Field(max_length=bounds.MAX_PREVIEW_CHARS)] = ""
    risk: Risk
    why: Annotated[tuple[Reason, ...], Field(max_length=bounds.MAX_FINDINGS)] = ()
    values: Annotated[tuple[ValueOrigin, ...], Field(max_length=bounds.MAX_FINDINGS)] = ()
    rule: Name
    policy_sha256: Sha256
    asked_for: Name
    four_eyes: bool = False
    roles: Annotated[tuple[Name, ...], Field(max_length=8, exclude_if=operator.not_)] = ()
    requested_unix_ms: UnixMs
    expires_unix_ms: UnixMs


class ApprovalEnded(Body, type="mesh.approval.ended"):
    """A person decided, or nobody did in time. The first end counts; what is said later changes nothing."""

    approval_id: Token
    outcome: ApprovalOutcome
    person: str = ""
    role: str = ""
    reason: Reason = ""
    ended_unix_ms: UnixMs


class ApprovalGrant(Contract):
    """A person's word about one call, as the signer signed it. Good for what has that digest alone, once."""

    kind: SignedKind = "approval"
    tenant: Token
    task: Token
    approval_id: Token
    arguments_sha256: Sha256
    decision: Decision
    person: Name
    role: Name
    via: Name
    reason: Reason = ""
    decided_unix_ms: UnixMs


class DecideRequested(Body, type="mesh.approval.decide_requested"):
    """A person, or an outside program in a person's name, lets a call be made or does not.

    requester counts only when the gateway itself wrote it.
    """

    approval_id: Token
    arguments_sha256: Sha256
    decision: Decision
    reason: Reason = ""
    requester: RequesterClaim | None = None


class SignatureRequested(Body, type="mesh.approval.signature_requested"):
    """The gateway has a person's word signed (rpc); the signer looks whether the person's role allows it.

    kind: `resolution` for a word on an uncertain write, `prompt` for an act on prompts or a workflow. credential: the
    requester's own token where he has one; nothing stores or logs it.
    """

    kind: Annotated[SignedKind, Field(exclude_if=_is_approval)] = "approval"
    requester: RequesterClaim
    approval_id: Token
    arguments_sha256: Sha256
    decision: Decision
    reason: Reason = ""
    requested_unix_ms: UnixMs
    credential: Annotated[str, Field(max_length=bounds.MAX_CREDENTIAL_CHARS, exclude_if=operator.not_, repr=False)] = ""


class SignatureReplied(Body, type="mesh.approval.signature_replied"):
    """The signed word, or why there is none."""

    token: Annotated[str, Field(max_length=bounds.MAX_GRANT_TOKEN_BYTES)] = ""
    failure: Failure | None = None


class ApprovalDecided(Body, type="mesh.approval.decided"):
    """A person's word for the executor: nothing in it counts but what the signer signed."""

    approval_id: Token
    token: Annotated[str, Field(max_length=bounds.MAX_GRANT_TOKEN_BYTES)]
