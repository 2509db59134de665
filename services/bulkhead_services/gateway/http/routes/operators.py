"""Routes for operators and auditors, and what everybody of a tenant may see of theirs: halts, breakers, limits,
spending, coordination, load, subscribers, dead letters. Budget judges, stores, applies and sums.

In: requests of people and programs. Out: budget's reply, or problem details. All of it belongs to the caller's tenant,
but the load of the mesh, which names nobody: the operator of the mesh halts what all tenants share, from the command
line. The id of a change derives from its key: repeated, it counts once, whatever others changed since; with another
content it is refused. Each look at content is logged. To send a dead letter's message again takes the operator's key of
the mesh (ADR 0043).
"""

import secrets
from collections.abc import Mapping
from typing import NamedTuple, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.gateway_api import operators as reads
from bulkhead.gateway_api.query import OPERATORS, period_s
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead.runtime.halts import operator
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.budget import (
    CallsReplied,
    CallsRequested,
    CoordinationReplied,
    CoordinationRequested,
    DeadLetterReplied,
    DeadLetterRequested,
    DeadLettersReplied,
    DeadLettersRequested,
    DismissalReplied,
    DismissalRequested,
    Limit,
    LimitsReplied,
    LimitsRequested,
    MeshReplied,
    MeshRequested,
    SpendReplied,
    SpendRequested,
    SubscribersReplied,
    SubscribersRequested,
    TopUpReplied,
    TopUpRequested,
)
from bulkhead_contracts.control import HaltReplied, HaltRequested, ResetReplied, ResetRequested
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Body, Contract
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.content_access import log_content_read
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import (
    M,
    check_id,
    cursor_of,
    existing_task,
    idempotency_key,
    json_response,
    parse_body,
    to_cursor,
)
from bulkhead_services.gateway.http.schemas import (
    DismissalSubmission,
    HaltSubmission,
    LimitSubmission,
    ResetSubmission,
    TopUpReceipt,
    TopUpSubmission,
)
from bulkhead_services.gateway.http.submission_checks import SubmissionChecks
from bulkhead_services.gateway.problems import Problem, already_ended, invalid_query, unavailable
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds
from bulkhead_services.gateway.settings import SubscriberSettings

MAX_BODY_BYTES = 16 * 1024
LIMITS_BOOK = "limits"
"""The task token in the subject of a request about limits or spending, which concerns no task."""
AFTERWARDS_MS = 3_600_000
"""A top-up is kept this long after the deadline: clocks differ, and the end comes a moment late."""
STATUS = {
    **dict.fromkeys(("forbidden", "not_yours", "tripped_it"), 403),
    "no_such_letter": 404,
    **dict.fromkeys(("dismissed", "several_letters"), 409),
    **dict.fromkeys(("not_open", "ended", "at_its_ceiling", "not_halted", "busy", "changed_meanwhile"), 409),
    **dict.fromkeys(("too_many_limits", "too_much", "idempotency_reused", "adds_nothing"), 422),
}
"""HTTP status by the code of budget's failure; any other code is a 503."""


class BudgetFailureTexts(NamedTuple):
    """Texts of a failure. keeps: budget's part; repeated: the effect of a repeat under one key."""

    keeps: str
    repeated: str
    title: str


_NOT_CHANGED = "The state was not changed"
_HALTS = BudgetFailureTexts("sets halts", "it counts once; /v1/halts says how it stands", _NOT_CHANGED)
_BREAKERS = BudgetFailureTexts("keeps the breakers", "it counts once; /v1/breakers says how it stands", _NOT_CHANGED)
_WATCH = BudgetFailureTexts("watches the tasks", "it is told anew", "Coordination cannot be shown")
_LOAD = BudgetFailureTexts("watches the mesh", "it is told anew", "The mesh cannot be shown")
_SUBSCRIBERS = BudgetFailureTexts(
    "asks the broker about subscribers", "they are told anew", "Subscribers cannot be shown"
)
_LETTERS = BudgetFailureTexts("reads the dead letters", "they are told anew", "Dead letters cannot be shown")
_MARKS = BudgetFailureTexts(
    "marks dead letters", "it counts once; /v1/dead-letters says how it stands", "The letter is as it was"
)
_LIMITS = BudgetFailureTexts("keeps limits and accounts", "a change is made once", "The limit was not changed")
_SPENDING = _LIMITS._replace(title="Spending cannot be shown")
_CALLS = _LIMITS._replace(title="Calls cannot be listed")
_TOP_UPS = _LIMITS._replace(repeated="it counts once", title="The task was not topped up")


class _BudgetReply(Protocol):
    @property
    def failure(self) -> Failure | None: ...


R = TypeVar("R", bound=_BudgetReply)
PageOf = TypeVar("PageOf", bound=Contract)


class OperatorRoutes:
    """The routes. subscribers: rows of all tenants."""

    def __init__(
        self,
        context: Context,
        auth: GatewayAuthenticator,
        bodies: GatewayRequestBodies,
        checks: SubmissionChecks,
        feeds: InboxFeeds,
        subscribers: Mapping[str, SubscriberSettings],
    ) -> None:
        self._context, self._auth, self._bodies = context, auth, bodies
        self._checks, self._feeds, self._subscribers = checks, feeds, subscribers

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            query_route(reads.HaltListQuery, self._auth, self.list_halts),
            query_route(reads.BreakerListQuery, self._auth, self.list_breakers),
            query_route(reads.TaskCoordinationQuery, self._auth, self.show_coordination),
            query_route(reads.MeshQuery, self._auth, self.show_mesh),
            query_route(reads.LetterListQuery, self._auth, self.list_letters),
            query_route(reads.LetterQuery, self._auth, self.show_letter),
            query_route(reads.SubscriberListQuery, self._auth, self.list_subscribers),
            query_route(reads.LimitsQuery, self._auth, self.show_limits),
            query_route(reads.SpendingQuery, self._auth, self.show_spending),
            query_route(reads.CallListQuery, self._auth, self.list_calls),
            Route("/v1/halts", self.set_halt, methods=["POST"]),
            Route("/v1/resumes", self.lift_halt, methods=["POST"]),
            Route("/v1/resets", self.reset_breaker, methods=["POST"]),
            Route("/v1/dead-letters/{letter_id}/dismiss", self.dismiss_letter, methods=["POST"]),
            Route("/v1/limits", self.change_limit, methods=["PUT"]),
            Route("/v1/tasks/{task_id}/topup", self.top_up, methods=["POST"]),
        ]

    async def list_halts(self, claim: RequesterClaim, _: reads.HaltListQuery) -> reads.HaltPage:
        """Halts of the tenant."""
        halts = await operator.standing_halts(self._context.bus, claim.tenant)
        return reads.HaltPage(halts=tuple(halts[: reads.MAX_LISTED]))

    async def list_breakers(self, claim: RequesterClaim, _: reads.BreakerListQuery) -> reads.BreakerPage:
        """Breakers of the tenant."""
        breakers = await operator.read_breakers(self._context.bus, claim.tenant)
        return reads.BreakerPage(breakers=tuple(breakers[: reads.MAX_LISTED]))

    async def show_coordination(
        self, claim: RequesterClaim, query: reads.TaskCoordinationQuery
    ) -> reads.CoordinationPage:
        """Coordination of the tenant's tasks."""
        ask = CoordinationRequested(requester=claim, at_unix_ms=query.at)
        index = f"coordination/{claim.person}/{self._context.clock()}"
        return _page_of(reads.CoordinationPage, await self._ask_budget(CoordinationReplied, claim, ask, _WATCH, index))

    async def show_mesh(self, claim: RequesterClaim, _: reads.MeshQuery) -> reads.MeshPage:
        """Load of the whole mesh."""
        ask, index = MeshRequested(requester=claim), f"mesh/{claim.person}/{self._context.clock()}"
        page = _page_of(reads.MeshPage, await self._ask_budget(MeshReplied, claim, ask, _LOAD, index))
        # The signer has no inbox that could be counted: its standing is whether it answered this gateway last time.
        answers = self._context.publisher.answers.get("signer")
        services = tuple(
            load.model_copy(update={"listens": answers}) if load.service == "signer" else load for load in page.services
        )
        return page.model_copy(update={"services": services})

    async def list_subscribers(self, claim: RequesterClaim, _: reads.SubscriberListQuery) -> reads.SubscriberPage:
        """The tenant's outside subscribers: the gateway itself may not ask the broker about any durable but its own."""
        names = sorted(name for name, row in self._subscribers.items() if row.tenant == claim.tenant)
        if not names:
            return reads.SubscriberPage(subscribers=())
        ask = SubscribersRequested(requester=claim, names=tuple(names[: bounds.MAX_SUBSCRIBERS]))
        index = f"subscribers/{secrets.token_hex(8)}"
        reply = await self._ask_budget(SubscribersReplied, claim, ask, _SUBSCRIBERS, index)
        documents = tuple(
            reads.SubscriberDocument(**row.model_dump(), tenant=claim.tenant, events=self._subscribers[row.name].events)
            for row in reply.subscribers
        )
        return reads.SubscriberPage(subscribers=documents)

    async def list_letters(self, claim: RequesterClaim, query: reads.LetterListQuery) -> reads.DeadLetterPage:
        """Dead letters of the tenant: the gateway itself may not read their stream."""
        after = cursor_of(query.cursor)
        ask = DeadLettersRequested(requester=claim, after=after, limit=query.limit, everything=query.all)
        index, timeout_ms = f"letters/{secrets.token_hex(8)}", bounds.WRITES_TIMEOUT_MS
        reply = await self._ask_budget(DeadLettersReplied, claim, ask, _LETTERS, index, timeout_ms=timeout_ms)
        content = claim.role in OPERATORS.names
        if content and reply.letters:
            log_content_read(claim, "dead letters")
        following = to_cursor(reply.next) if reply.next else None
        return reads.DeadLetterPage(letters=reply.letters, content=content, next=following)

    async def show_letter(self, claim: RequesterClaim, query: reads.LetterQuery) -> reads.DeadLetterDocument:
        """One dead letter."""
        letter = check_id(query.letter_id, "dead letter")
        ask, index = DeadLetterRequested(requester=claim, letter=letter), f"letter/{letter}/{secrets.token_hex(8)}"
        timeout_ms = bounds.WRITES_TIMEOUT_MS
        reply = await self._ask_budget(DeadLetterReplied, claim, ask, _LETTERS, index, timeout_ms=timeout_ms)
        assert reply.letter is not None
        if reply.content:
            log_content_read(claim, f"dead letter {reply.letter.id}", reply.letter.task)
        return _page_of(reads.DeadLetterDocument, reply)

    async def show_limits(self, claim: RequesterClaim, query: reads.LimitsQuery) -> reads.LimitPage:
        """Limits of the tenant."""
        ask = LimitsRequested(requester=claim, history=query.history)
        return await self._request_limits(claim, ask, f"read/{self._context.clock()}")

    async def _request_limits(self, claim: RequesterClaim, ask: LimitsRequested, about: str) -> reads.LimitPage:
        index = f"{claim.person}/{about}"
        reply = await self._ask_budget(LimitsReplied, claim, ask, _LIMITS, index, task=LIMITS_BOOK)
        same = {name: getattr(reply, name) for name in ("revision", "limits", "top_ups", "alerts", "history")}
        return reads.LimitPage(**same, policy=self._checks.policy(claim.tenant))

    async def show_spending(self, claim: RequesterClaim, query: reads.SpendingQuery) -> reads.SpendPage:
        """Spending of the tenant."""
        ask = SpendRequested(
            requester=claim,
            by="model" if query.by == "prompt" else query.by,
            prompts=query.by == "prompt",
            since_s=period_s(query.since),
            top=query.limit,
            slices=query.slices,
            tasks=_named_tasks(query.tasks),
            skip=query.skip,
            outliers=query.outliers,
        )
        index = f"{claim.person}/{query.by}/{query.since}/{self._context.clock()}"
        reply = await self._ask_budget(
            SpendReplied, claim, ask, _SPENDING, index, task=LIMITS_BOOK, timeout_ms=bounds.SPEND_TIMEOUT_MS
        )
        return _page_of(reads.SpendPage, reply).model_copy(update={"by": query.by})

    async def list_calls(self, claim: RequesterClaim, query: reads.CallListQuery) -> reads.CallPage:
        """Single calls of the tenant."""
        ask = CallsRequested(
            requester=claim,
            since_s=period_s(query.since),
            kind=query.kind,
            name=query.name,
            failed=query.failed,
            order=query.order,
            top=query.limit,
        )
        index, timeout_ms = f"calls/{secrets.token_hex(8)}", bounds.SPEND_TIMEOUT_MS
        return _page_of(
            reads.CallPage, await self._ask_budget(CallsReplied, claim, ask, _CALLS, index, timeout_ms=timeout_ms)
        )

    async def set_halt(self, request: Request) -> Response:
        """POST /v1/halts"""
        return await self._submit_halt(request, active=True)

    async def lift_halt(self, request: Request) -> Response:
        """POST /v1/resumes"""
        return await self._submit_halt(request, active=False)

    async def _submit_halt(self, request: Request, *, active: bool) -> Response:
        claim, key, body = await self._read_change(request, HaltSubmission, "halt or resume")
        name = subjects.as_token(body.name)
        ask = HaltRequested(
            requester=claim, scope=body.scope, name=name, active=active, reason=body.reason, called=body.name
        )
        index = f"switch/{body.scope}/{body.name}/{claim.person}/{key}"
        reply = await self._ask_budget(HaltReplied, claim, ask, _HALTS, index)
        assert reply.halt is not None
        return json_response(reply.halt)

    async def reset_breaker(self, request: Request) -> Response:
        """POST /v1/resets"""
        claim, key, body = await self._read_change(request, ResetSubmission, "reset breakers")
        name = subjects.as_token(body.name)
        ask = ResetRequested(requester=claim, scope=body.scope, name=name, reason=body.reason, called=body.name)
        index = f"reset/{body.scope}/{body.name}/{claim.person}/{key}"
        reply = await self._ask_budget(ResetReplied, claim, ask, _BREAKERS, index)
        assert reply.breaker is not None
        return json_response(reply.breaker)

    async def dismiss_letter(self, request: Request) -> Response:
        """POST /v1/dead-letters/{letter_id}/dismiss"""
        letter = check_id(request.path_params["letter_id"], "dead letter")
        claim, key, body = await self._read_change(request, DismissalSubmission, "dismiss dead letters")
        ask = DismissalRequested(requester=claim, letter=letter, reason=body.reason)
        index, timeout_ms = f"dismiss/{letter}/{claim.person}/{key}", bounds.WRITES_TIMEOUT_MS
        reply = await self._ask_budget(DismissalReplied, claim, ask, _MARKS, index, timeout_ms=timeout_ms)
        assert reply.letter is not None
        return json_response(reply.letter)

    async def change_limit(self, request: Request) -> Response:
        """PUT /v1/limits"""
        claim, key, body = await self._read_change(request, LimitSubmission, "change limits")
        limit = Limit(**body.limit.model_dump())
        ask = LimitsRequested(
            requester=claim, target=body.target, limit=limit, expect_revision=body.expect_revision, reason=body.reason
        )
        return json_response(await self._request_limits(claim, ask, f"change/{key}"))

    async def top_up(self, request: Request) -> Response:
        """POST /v1/tasks/{task_id}/topup"""
        claim, key, body = await self._read_change(request, TopUpSubmission, "top up tasks")
        feed = await existing_task(request.path_params["task_id"], self._feeds, claim)
        if feed.has_ended:
            raise already_ended(
                feed.view.status, "submit it again with a higher limit, or fork it to keep the finished steps"
            )
        add, until = Limit(**body.add.model_dump()), _latest_end(feed, self._context.clock())
        ask = TopUpRequested(requester=claim, task=feed.task, add=add, until_unix_ms=until, reason=body.reason)
        index = f"topup/{claim.person}/{feed.task}/{key}"
        reply = await self._ask_budget(TopUpReplied, claim, ask, _TOP_UPS, index, task=feed.task)
        task, url, same = feed.task, f"/v1/tasks/{feed.task}", reply.model_dump(include={"revision", "resumed"})
        return json_response(TopUpReceipt(task_id=task, status_url=url, added=reply.added, **same))

    async def _read_change(self, request: Request, model: type[M], action: str) -> tuple[RequesterClaim, str, M]:
        """An operator's change: the claim, the key and the body. Raises Problem."""
        claim = await self._auth.require_role(request, OPERATORS, action)
        key = idempotency_key(request, required=False) or secrets.token_hex(16)
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            return claim, key, parse_body(model, raw)

    async def _ask_budget(
        self,
        kind: type[R],
        claim: RequesterClaim,
        body: Body,
        words: BudgetFailureTexts,
        index: str,
        *,
        task: str = operator.HALTS,
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


def _page_of(page: type[PageOf], reply: object) -> PageOf:
    """The fields of budget's reply that the page has."""
    return page(**{name: getattr(reply, name) for name in page.model_fields})


def _named_tasks(text: str) -> tuple[str, ...]:
    """The query's `tasks`; empty for all. Raises Problem 422."""
    named = tuple(dict.fromkeys(text.split(","))) if text else ()
    if len(named) > bounds.MAX_SPEND_ROWS:
        raise invalid_query("tasks", f"{len(named)} tasks", f"name at most {bounds.MAX_SPEND_ROWS} tasks at once")
    try:
        return tuple(subjects.check_token(task) for task in named)
    except subjects.SubjectError as error:
        hint = "send ids of tasks with a comma between two; they are made of A-Z a-z 0-9 _ - only"
        raise invalid_query("tasks", text, hint) from error


def _latest_end(feed: InboxFeed, now_unix_ms: int) -> int:
    """When the task has ended at the latest; one that waits for a place has its whole time before it."""
    request = feed.view.request
    waits_ms = request.limits.approval_wait_ms if request is not None else 0
    deadline = feed.view.deadline_unix_ms or now_unix_ms + bounds.MAX_TASK_DEADLINE_MS
    return deadline + waits_ms + AFTERWARDS_MS
