"""Questions and acts for the registry, which keeps prompts and workflows.

In: a request, in the name of a person. Out: the registry's reply, or problem details.
"""

import hashlib
import secrets
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.gateway_api.prompts import PromptVersionDocument
from bulkhead.gateway_api.query import AllowedRoles
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead.text.validation_errors import find_misfits
from bulkhead_contracts.approval import SignatureReplied, SignatureRequested, SignedKind
from bulkhead_contracts.catalog import DecodeError
from bulkhead_contracts.evaluation import EvaluationReplied, EvaluationRequested, EvaluationsReplied
from bulkhead_contracts.prompt import (
    PromptContent,
    PromptPublishReplied,
    PromptPublishRequested,
    PromptsReplied,
    PromptsRequested,
    ReleaseMoveReplied,
    ReleaseMoveRequested,
    ReleasesReplied,
)
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Body, Contract
from bulkhead_contracts.workflow import WorkflowActReplied, WorkflowActRequested, WorkflowsReplied
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import idempotency_key, parse_body
from bulkhead_services.gateway.problems import Problem, not_found, unavailable

QUESTION = "prompts"
"""Stands for a task in the subject of a question, which concerns none."""
STATUS = {
    **dict.fromkeys(("unknown_prompt", "unknown_version", "unknown_release", "unknown_evaluation"), 404),
    **dict.fromkeys(("release_moved", "nothing_changes", "same_text", "canary_stands", "no_canary"), 409),
    **dict.fromkeys(("gate_statement_missing", "gate_other_digests", "gate_other_set", "gate_stale"), 409),
    **dict.fromkeys(("gate_failed", "gate_other_tenant", "already_reported"), 409),
    **dict.fromkeys(("bad_prompt", "bad_value", "no_single_change", "prompt_twice", "canary_of_shipped"), 422),
    **dict.fromkeys(("too_many_versions", "too_many_labels", "release_too_large", "idempotency_reused"), 422),
    "too_many_changes": 429,
    **dict.fromkeys(("bad_statement", "other_evaluation", "reserved_label"), 422),
    **dict.fromkeys(("not_signed", "word_too_old", "foreign_tenant"), 403),
    **dict.fromkeys(("same_content", "wrong_state", "other_digest", "not_published"), 409),
    **dict.fromkeys(("bad_workflow", "bad_schedule"), 422),
    "unknown_workflow": 404,
    "key_needed": 403,
    "role_may_not": 403,
    **dict.fromkeys(("four_eyes", "break_glass_refused", "token_required", "role_may_not_report"), 403),
}
"""HTTP status by the code of the registry's failure; any other code is a 503."""
MAX_ACT_BYTES = 256 * 1024
_LISTED = {"prompt": "prompts", "label": "releases", "number": "evaluations", "workflow": "workflows"}
B = TypeVar("B", bound=Body)
A = TypeVar("A", PromptPublishReplied, ReleaseMoveReplied, EvaluationReplied, WorkflowActReplied)
Submission = TypeVar("Submission", bound=Contract)
R = TypeVar(
    "R",
    PromptPublishReplied,
    ReleaseMoveReplied,
    PromptsReplied,
    ReleasesReplied,
    EvaluationReplied,
    EvaluationsReplied,
    WorkflowActReplied,
    WorkflowsReplied,
)


async def ask_registry(context: Context, kind: type[R], claim: RequesterClaim, body: Body, task: str = QUESTION) -> R:
    """The registry's reply, which reports no failure. Raises Problem."""
    try:
        reply = await context.publisher.request(
            "registry", body, tenant=claim.tenant, task=task, index=fresh_index("ask"), actor=claim.person
        )
    except (BusUnavailable, PublishRefused, RpcRefused, DecodeError) as error:
        detail = f"the registry, which keeps prompts and workflows, does not answer: {error}"
        hint = "tasks go on with what they have; repeat it under the same Idempotency-Key"
        raise unavailable(detail, hint) from error
    assert isinstance(reply, kind)
    if (failure := reply.failure) is not None:
        if failure.code not in STATUS:
            raise unavailable(failure.message, failure.hint)
        title = "This cannot be shown" if task == QUESTION else "Nothing was changed"
        raise Problem(STATUS[failure.code], failure.code, title, failure.message, failure.hint)
    return reply


async def show_version(
    context: Context, claim: RequesterClaim, prompt: str, version: str, release: str = ""
) -> PromptVersionDocument:
    """A version, shipped or the tenant's, as a release fills it. Raises Problem."""
    try:
        ask = PromptsRequested(requester=claim, prompt=prompt, version=version, release=release)
    except ValidationError as error:
        raise not_found("prompt", prompt, "GET /v1/prompts lists them") from error
    reply = await ask_registry(context, PromptsReplied, claim, ask)
    name = f"{prompt}@{version}"
    if not reply.versions:
        text = reply.shipped_text
        return PromptVersionDocument(name=name, sha256=reply.shipped_sha256, text=text, filled_text=text)
    content: PromptContent = reply.versions[0].content
    return PromptVersionDocument(
        name=name,
        sha256=reply.versions[0].sha256,
        text=content.text,
        variables=content.variables,
        values=reply.values,
        # As the model gateway sends it.
        filled_text=content.fill_variables(reply.values).strip() + "\n",
        version=reply.versions[0],
    )


def fresh_index(word: str) -> str:
    """Index of a request: asked again it is another one, which the act's own id makes harmless."""
    return f"{word}/{secrets.token_hex(8)}"


class RegistryActs:
    """Acts of people that the signer signs and the registry does."""

    def __init__(self, context: Context, auth: GatewayAuthenticator, bodies: GatewayRequestBodies) -> None:
        self._context, self._auth, self._bodies = context, auth, bodies

    async def read_act(
        self, request: Request, allowed: AllowedRoles, action: str, model: type[Submission]
    ) -> tuple[RequesterClaim, str, Submission]:
        """Claim, id and body of an act. Raises Problem."""
        claim = await self._auth.require_role(request, allowed, action)
        key = idempotency_key(request, required=False) or secrets.token_hex(16)
        async with self._bodies.read_body(request, claim, MAX_ACT_BYTES) as raw:
            body = parse_body(model, raw)
        owned_key = f"{claim.tenant}/{claim.person}/{key}".encode()
        digest = hashlib.blake2b(owned_key, digest_size=16, person=b"bulkhead-act").hexdigest()
        return claim, f"act-{digest}", body

    async def do_signed(
        self,
        model: type[A],
        claim: RequesterClaim,
        act: PromptPublishRequested | ReleaseMoveRequested | EvaluationRequested | WorkflowActRequested,
        reason: str,
        credential: str,
        kind: SignedKind = "prompt",
    ) -> A:
        """Have an act signed, and have the registry do it. Raises Problem."""
        ask = SignatureRequested(
            kind=kind,
            requester=claim,
            approval_id=act.act,
            arguments_sha256=act.act_sha256,
            decision="granted",
            reason=reason,
            requested_unix_ms=self._context.clock(),
            credential=credential,
        )
        try:
            signed = await self._context.publisher.request(
                "signer", ask, tenant=claim.tenant, task=act.act, index=fresh_index("sign"), actor=claim.person
            )
        except (BusUnavailable, PublishRefused, RpcRefused) as error:
            raise unavailable(f"the signer, which looks at your role, does not answer: {error}") from error
        assert isinstance(signed, SignatureReplied)
        if (failure := signed.failure) is not None:
            raise Problem(403, failure.code, "The signer refuses this", failure.message, failure.hint)
        return await ask_registry(self._context, model, claim, act.model_copy(update={"token": signed.token}), act.act)


def build_request(model: type[B], named: str, name: str | int, **fields: Any) -> B:
    """A request about what a path names. Raises Problem 404, 422."""
    try:
        return model.model_validate({named: name, **fields})
    except ValidationError as error:
        if any(problem["loc"][:1] == (named,) for problem in error.errors()):
            raise not_found(named, str(name), f"GET /v1/{_LISTED[named]} lists them") from error
        misfits = find_misfits(error, model)
        detail = "; ".join(f"{misfit.where}: {misfit.what}" for misfit in misfits[:3])
        hint = "/openapi.json has the whole schema"
        raise Problem(422, "invalid_body", "The body does not fit", detail, hint) from error
