"""People's words about calls and plans that wait: signed by the signer, passed on to the executor or the planner.

In: who decides, about what, and how. Out: a durable `ApprovalDecided` or `PlanDecided`, or a Problem. Who gets it looks
again at all of it: what is refused here is refused early, in words for people.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.gateway_api.query import APPROVERS
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import HandBack, RpcRefused
from bulkhead.telemetry.log import Log
from bulkhead_contracts.approval import ApprovalDecided, DecideRequested, SignatureReplied, SignatureRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.problems import Problem, forbidden, not_found, not_stored, unavailable
from bulkhead_services.gateway.read_model import task_view
from bulkhead_services.gateway.read_model.approvals import ApprovalIndex, ApprovalRow
from bulkhead_services.gateway.read_model.feeds import InboxFeeds
from bulkhead_services.gateway.settings import PublisherSettings

log = Log("gateway.decisions")
SEEN_WITHIN_S = 3.0
LOOK_S = 0.05
RETRY_S = 1.0
_DOES_NOT_COUNT = "The decision does not count"


class Decisions:
    """See the module."""

    def __init__(self, context: Context, index: ApprovalIndex, feeds: InboxFeeds) -> None:
        self._context, self._index, self._feeds = context, index, feeds

    async def apply_outside_decision(
        self, message: ReceivedMessage, body: DecideRequested, policies: Mapping[str, PublisherSettings]
    ) -> None:
        """The word of an outside program. One that does not count is told in the log. Raises HandBack."""
        claim = task_view.requester_of(message, policies)
        try:
            if isinstance(claim, task_view.RequestRefusal):
                raise Problem(403, claim.code, _DOES_NOT_COUNT, claim.message, claim.hint)
            await self.send_decision(claim, body.approval_id, body)
        except Problem as problem:
            if problem.body.status == 503:
                raise HandBack(RETRY_S, problem.body.detail) from problem
            log.warning("decision_refused", tenant=message.tenant, by=message.sender, reason=problem.body.detail)

    async def send_decision(
        self, claim: RequesterClaim, approval_id: str, word: DecideRequested, credential: str = ""
    ) -> ApprovalRow:
        """Have the word signed and pass it on. credential: the person's own token, for the signer alone.

        Raises Problem (403, 404, 409, 422, 503), BusError.
        """
        row = await self._index.find_row(claim.tenant, approval_id)
        if row is None:
            raise not_found("approval", approval_id, "`bulkhead approvals` lists those that wait")
        await self._check_allowed(claim, row, word)
        now_unix_ms = self._context.clock()
        ask = SignatureRequested(
            requester=claim,
            approval_id=approval_id,
            arguments_sha256=word.arguments_sha256,
            decision=word.decision,
            reason=word.reason,
            requested_unix_ms=now_unix_ms,
            credential=credential,
        )
        index = f"decide/{approval_id}/{claim.person}/{word.decision}/{now_unix_ms}"
        await self.send_signed(
            ask, row.task, index, lambda token: ApprovalDecided(approval_id=approval_id, token=token)
        )
        return row

    async def send_signed(
        self,
        ask: SignatureRequested,
        task: str,
        index: str,
        make_body: Callable[[str], Body],
        to: str = "tool_executor",
    ) -> None:
        """Have a word signed, and pass on what its token makes. Raises Problem (403, 503)."""
        tenant, person = ask.requester.tenant, ask.requester.person
        try:
            reply = await self._context.publisher.request(
                "signer", ask, tenant=tenant, task=task, index=index, actor=person
            )
            assert isinstance(reply, SignatureReplied)
            if reply.failure is not None:
                failure = reply.failure
                raise Problem(403, failure.code, _DOES_NOT_COUNT, failure.message, failure.hint)
            await self._context.publisher.send(
                to, make_body(reply.token), tenant=tenant, task=task, index=index, actor=person
            )
        except RpcRefused as error:
            raise unavailable(f"the signer, which signs decisions, does not answer: {error}") from error
        except (BusUnavailable, PublishRefused) as error:
            raise not_stored(error) from error

    async def wait_until_applied(self, claim: RequesterClaim, row: ApprovalRow, word: DecideRequested) -> ApprovalRow:
        """The row as the executor took the word, if it does so soon. Raises Problem (409) where another was first."""
        async with asyncio.timeout(None) as patience:
            patience.reschedule(asyncio.get_running_loop().time() + SEEN_WITHIN_S)
            try:
                while row.ended is None:
                    await asyncio.sleep(LOOK_S)
                    row = await self._index.find_row(claim.tenant, row.request.approval_id) or row
            except asyncio.CancelledError:
                if not patience.expired():
                    raise
        if row.ended is not None and (row.ended.person, row.ended.outcome) != (claim.person, word.decision):
            raise _not_waiting(row.ended.outcome, row.ended.person)
        return row

    async def mark_ended_tasks(self, tenant: str, rows: Iterable[ApprovalRow]) -> None:
        """Mark the rows whose task has ended meanwhile. Raises BusError."""
        now_unix_ms = self._context.clock()
        for row in rows:
            if row.state_at(now_unix_ms) == "waiting":
                feed = await self._feeds.fresh_feed(tenant, row.task)
                row.task_ended = feed.view.status in task_view.ENDED

    async def _check_allowed(self, claim: RequesterClaim, row: ApprovalRow, word: DecideRequested) -> None:
        request, title = row.request, _DOES_NOT_COUNT
        if claim.role not in APPROVERS.names:
            raise forbidden(claim.role, "decide about calls", "approver or operator")
        if word.arguments_sha256 != request.arguments_sha256:
            detail = "the digest is not that of the call: it is another call, or its arguments are others"
            hint = f"read it (`bulkhead approvals show {request.approval_id}`) and decide about what you see"
            raise Problem(409, "other_arguments", title, detail, hint)
        if request.four_eyes and word.decision == "granted" and claim.person == request.asked_for:
            detail = f"{claim.person} asked for the task, and {request.tool} wants a second person (four eyes)"
            raise Problem(403, "four_eyes", title, detail, "have another approver decide; you may deny it")
        if request.roles and claim.role not in request.roles:
            raise forbidden(claim.role, "decide about this question", " or ".join(request.roles))
        await self.mark_ended_tasks(claim.tenant, (row,))
        state = row.state_at(self._context.clock())
        if state == "abandoned":
            detail, hint = f"task {row.task} has ended", "submit the task again; nothing waits for the decision"
            raise Problem(409, "already_ended", title, detail, hint)
        if state != "waiting":
            raise _not_waiting(state, row.ended.person if row.ended is not None else "")


def _not_waiting(state: str, person: str) -> Problem:
    by = f" by {person}" if person else ""
    return Problem(409, "not_waiting", _DOES_NOT_COUNT, f"it was {state}{by}", "nothing is left to decide")
