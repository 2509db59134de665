"""Questions and acts for the registry, which keeps prompts.

In: a request, in the name of a person. Out: the registry's reply, or problem details.
"""

import secrets
from typing import TypeVar

from pydantic import ValidationError

from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.gateway_api.prompts import PromptVersionDocument
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead_contracts.evaluation import EvaluationReplied, EvaluationsReplied
from bulkhead_contracts.prompt import (
    PromptContent,
    PromptPublishReplied,
    PromptsReplied,
    PromptsRequested,
    ReleaseMoveReplied,
    ReleasesReplied,
)
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Body
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
    **dict.fromkeys(("four_eyes", "break_glass_refused", "token_required", "role_may_not_report"), 403),
}
"""HTTP status by the code of the registry's failure; any other code is a 503."""
R = TypeVar(
    "R",
    PromptPublishReplied,
    ReleaseMoveReplied,
    PromptsReplied,
    ReleasesReplied,
    EvaluationReplied,
    EvaluationsReplied,
)


async def ask_registry(context: Context, kind: type[R], claim: RequesterClaim, body: Body, task: str = QUESTION) -> R:
    """The registry's reply, which reports no failure. Raises Problem."""
    try:
        reply = await context.publisher.request(
            "registry", body, tenant=claim.tenant, task=task, index=fresh_index("ask"), actor=claim.person
        )
    except (BusUnavailable, PublishRefused, RpcRefused) as error:
        detail = f"the registry, which keeps prompts, does not answer: {error}"
        hint = "tasks go on with what they have; repeat it under the same Idempotency-Key"
        raise unavailable(detail, hint) from error
    assert isinstance(reply, kind)
    if (failure := reply.failure) is not None:
        if failure.code not in STATUS:
            raise unavailable(failure.message, failure.hint)
        title = "The prompt cannot be shown" if task == QUESTION else "Nothing was changed"
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
