"""Dead letters over HTTP: operators and auditors of a tenant list its own, operators read and dismiss them.

In: requests of people and programs. Out: what budget tells of them, or problem details; the gateway itself may not read
the stream. Each look at content is logged. To send a message again takes the operator's key of the mesh (ADR 0043).
"""

import secrets

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.runtime.halts import operator
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import (
    DeadLetterReplied,
    DeadLetterRequested,
    DeadLettersReplied,
    DeadLettersRequested,
    DismissalReplied,
    DismissalRequested,
)
from bulkhead_services.gateway.http.operator_schemas import DeadLetterDocument, DeadLetterPage, DismissalSubmission
from bulkhead_services.gateway.http.request_values import (
    cursor_of,
    flag_of,
    json_response,
    path_token,
    size_of,
    to_cursor,
)
from bulkhead_services.gateway.http.routes.budget_requests import (
    MAY_SEE_ALL,
    OPERATORS,
    BudgetFailureTexts,
    BudgetRequests,
)

log = Log("gateway.dead_letters")
_READS = BudgetFailureTexts("reads the dead letters", "they are told anew", "Dead letters cannot be shown")
_MARKS = BudgetFailureTexts(
    "marks dead letters", "it counts once; /v1/dead-letters says how it stands", "The letter is as it was"
)


class DeadLetterRoutes(BudgetRequests):
    """The routes under /v1/dead-letters."""

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            Route("/v1/dead-letters", self.list_letters, methods=["GET"]),
            Route("/v1/dead-letters/{letter_id}", self.show_letter, methods=["GET"]),
            Route("/v1/dead-letters/{letter_id}/dismiss", self.dismiss_letter, methods=["POST"]),
        ]

    async def list_letters(self, request: Request) -> Response:
        """GET /v1/dead-letters"""
        claim = await self._auth.require_role(request, MAY_SEE_ALL, "see dead letters", "operator")
        ask = DeadLettersRequested(
            requester=claim,
            after=cursor_of(request.query_params.get("cursor", "")),
            limit=size_of(request),
            everything=flag_of(request, "all"),
        )
        reply = await self._ask_budget(
            DeadLettersReplied,
            claim,
            ask,
            _READS,
            task=operator.HALTS,
            index=f"letters/{secrets.token_hex(8)}",
            timeout_ms=bounds.WRITES_TIMEOUT_MS,
        )
        content = claim.role in OPERATORS
        if content and reply.letters:
            self._log_content_read(claim.tenant, claim.person, claim.role, claim.via, "dead letters")
        following = to_cursor(reply.next) if reply.next else None
        return json_response(DeadLetterPage(letters=reply.letters, content=content, next=following))

    async def show_letter(self, request: Request) -> Response:
        """GET /v1/dead-letters/{letter_id}"""
        claim = await self._auth.require_role(request, MAY_SEE_ALL, "see dead letters", "operator")
        letter = path_token(request, "letter_id", "dead letter")
        reply = await self._ask_budget(
            DeadLetterReplied,
            claim,
            DeadLetterRequested(requester=claim, letter=letter),
            _READS,
            task=operator.HALTS,
            index=f"letter/{letter}/{secrets.token_hex(8)}",
            timeout_ms=bounds.WRITES_TIMEOUT_MS,
        )
        assert reply.letter is not None
        if reply.content:
            self._log_content_read(
                claim.tenant, claim.person, claim.role, claim.via, f"dead letter {reply.letter.id}", reply.letter.task
            )
        fields = {name: getattr(reply, name) for name in DeadLetterDocument.model_fields}
        return json_response(DeadLetterDocument(**fields))

    async def dismiss_letter(self, request: Request) -> Response:
        """POST /v1/dead-letters/{letter_id}/dismiss"""
        letter = path_token(request, "letter_id", "dead letter")
        claim, key, body = await self._read_change(request, DismissalSubmission, "dismiss dead letters")
        reply = await self._ask_budget(
            DismissalReplied,
            claim,
            DismissalRequested(requester=claim, letter=letter, reason=body.reason),
            _MARKS,
            task=operator.HALTS,
            index=f"dismiss/{letter}/{claim.person}/{key}",
            timeout_ms=bounds.WRITES_TIMEOUT_MS,
        )
        assert reply.letter is not None
        return json_response(reply.letter)

    @staticmethod
    def _log_content_read(tenant: str, person: str, role: str, via: str, what: str, task: str = "") -> None:
        """Each look at content is on record."""
        log.info("content_read", what=what, tenant=tenant, task=task, person=person, role=role, via=via)
