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
from bulkhead_services.gateway.http.request_values import answered, cursor_of, flag_of, size_of, to_cursor, token
from bulkhead_services.gateway.http.routes.budget_requests import MAY_SEE_ALL, OPERATORS, BudgetRequests, Words

log = Log("gateway.dead_letters")
_READS = Words("reads the dead letters", "they are told anew", "Dead letters cannot be shown")
_MARKS = Words("marks dead letters", "it counts once; /v1/dead-letters says how it stands", "The letter is as it was")


class DeadLetters(BudgetRequests):
    """The routes under /v1/dead-letters."""

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            Route("/v1/dead-letters", self.list, methods=["GET"]),
            Route("/v1/dead-letters/{letter_id}", self.show, methods=["GET"]),
            Route("/v1/dead-letters/{letter_id}/dismiss", self.dismiss, methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        """GET /v1/dead-letters"""
        claim = await self._auth.allowed(request, MAY_SEE_ALL, "see dead letters", "operator")
        ask = DeadLettersRequested(
            requester=claim,
            after=cursor_of(request.query_params.get("cursor", "")),
            limit=size_of(request),
            everything=flag_of(request, "all"),
        )
        reply = await self._ask(
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
            self._on_record(claim.tenant, claim.person, claim.role, claim.via, "dead letters")
        following = to_cursor(reply.next) if reply.next else None
        return answered(DeadLetterPage(letters=reply.letters, content=content, next=following))

    async def show(self, request: Request) -> Response:
        """GET /v1/dead-letters/{letter_id}"""
        claim = await self._auth.allowed(request, MAY_SEE_ALL, "see dead letters", "operator")
        letter = token(request, "letter_id", "dead letter")
        reply = await self._ask(
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
            self._on_record(
                claim.tenant, claim.person, claim.role, claim.via, f"dead letter {reply.letter.id}", reply.letter.task
            )
        found = {name: getattr(reply, name) for name in DeadLetterDocument.model_fields}
        return answered(DeadLetterDocument(**found))

    async def dismiss(self, request: Request) -> Response:
        """POST /v1/dead-letters/{letter_id}/dismiss"""
        letter = token(request, "letter_id", "dead letter")
        claim, key, body = await self._change(request, DismissalSubmission, "dismiss dead letters")
        reply = await self._ask(
            DismissalReplied,
            claim,
            DismissalRequested(requester=claim, letter=letter, reason=body.reason),
            _MARKS,
            task=operator.HALTS,
            index=f"dismiss/{letter}/{claim.person}/{key}",
            timeout_ms=bounds.WRITES_TIMEOUT_MS,
        )
        assert reply.letter is not None
        return answered(reply.letter)

    @staticmethod
    def _on_record(tenant: str, person: str, role: str, via: str, what: str, task: str = "") -> None:
        """Each look at content is on record."""
        log.info("content_read", what=what, tenant=tenant, task=task, person=person, role=role, via=via)
