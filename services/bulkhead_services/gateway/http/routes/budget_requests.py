"""Requests of people to budget: how they are read, sent and answered.

In: a request of an operator or auditor. Out: budget's reply, or problem details. The id of a change derives from its
key: repeated, it counts once, whatever others changed since; with another content it is refused.
"""

import secrets
from typing import NamedTuple, TypeVar

from starlette.requests import Request

from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import (
    CoordinationReplied,
    DeadLetterReplied,
    DeadLettersReplied,
    DismissalReplied,
    LimitsReplied,
    MeshReplied,
    SpendReplied,
    SubscribersReplied,
    TopUpReplied,
)
from bulkhead_contracts.control import HaltReplied, ResetReplied
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import M, idempotency_key, parse_body
from bulkhead_services.gateway.problems import Problem, unavailable

OPERATORS = frozenset({"operator"})
MAY_SEE_ALL = frozenset({"operator", "auditor"})
"""Who sees what all people of the tenant spend and do."""
MAX_BODY_BYTES = 16 * 1024
STATUS = {
    **dict.fromkeys(("forbidden", "not_yours", "tripped_it"), 403),
    "no_such_letter": 404,
    **dict.fromkeys(("dismissed", "several_letters"), 409),
    **dict.fromkeys(("not_open", "ended", "at_its_ceiling", "not_halted", "busy", "changed_meanwhile"), 409),
    **dict.fromkeys(("too_many_limits", "too_much", "idempotency_reused", "adds_nothing"), 422),
}
"""HTTP status by the code of budget's failure; any other code is a 503."""

R = TypeVar(
    "R",
    CoordinationReplied,
    DeadLetterReplied,
    DeadLettersReplied,
    DismissalReplied,
    MeshReplied,
    HaltReplied,
    ResetReplied,
    LimitsReplied,
    SpendReplied,
    SubscribersReplied,
    TopUpReplied,
)


class BudgetFailureTexts(NamedTuple):
    """Texts of a failure. keeps: budget's part; repeated: the effect of a repeat under one key."""

    keeps: str
    repeated: str
    title: str


class BudgetRequests:
    """The base of routes that budget answers."""

    def __init__(self, context: Context, auth: GatewayAuthenticator, bodies: GatewayRequestBodies) -> None:
        self._context, self._auth, self._bodies = context, auth, bodies

    async def _read_change(self, request: Request, model: type[M], action: str) -> tuple[RequesterClaim, str, M]:
        """An operator's change: the claim, the key and the body. Raises Problem."""
        claim = await self._auth.require_role(request, OPERATORS, action, "operator")
        key = idempotency_key(request, required=False) or secrets.token_hex(16)
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            return claim, key, parse_body(model, raw)

    async def _ask_budget(
        self,
        kind: type[R],
        claim: RequesterClaim,
        body: Body,
        words: BudgetFailureTexts,
        *,
        task: str,
        index: str,
        timeout_ms: int = bounds.RPC_TIMEOUT_MS,
    ) -> R:
        """Budget's reply, which reports no failure. Raises Problem."""
        try:
            timeout_s = timeout_ms / 1000
            reply = await self._context.publisher.request(
                "budget", body, tenant=claim.tenant, task=task, index=index, actor=claim.person, timeout_s=timeout_s
            )
        except (BusUnavailable, PublishRefused, RpcRefused) as error:
            detail = f"budget, which {words.keeps}, does not answer: {error}"
            raise unavailable(detail, f"repeat it under the same Idempotency-Key: then {words.repeated}") from error
        assert isinstance(reply, kind)
        if (failure := reply.failure) is not None:
            if failure.code not in STATUS:
                raise unavailable(failure.message, failure.hint)
            raise Problem(STATUS[failure.code], failure.code, words.title, failure.message, failure.hint)
        return reply
