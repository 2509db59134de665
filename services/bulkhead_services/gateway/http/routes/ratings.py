"""Ratings over HTTP: a word on a task's answer, the queue and the export of labels, and quality over time.

In: requests of people, and of judges. Out: what stands, or problem details. A rating is a message in the gateway's
inbox, beside those of its task; queue and quality are read from the rows of the task list.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.gateway_api.query import EVERY_ROLE, OVERSEERS, period_s
from bulkhead.gateway_api.ratings import (
    MAX_EXPORT_DOCUMENTS,
    MAX_EXPORT_ROWS,
    LabelExport,
    LabelExportQuery,
    LabelledAnswer,
    LabelledDocument,
    LabelQueue,
    LabelQueueQuery,
    QualityPage,
    QualityQuery,
)
from bulkhead.gateway_api.tasks import CitationListQuery, CitationQuery
from bulkhead.journal.quality import NO_ANSWER, answering_model
from bulkhead.runtime.context import Context
from bulkhead.telemetry.redaction import without_sensitive
from bulkhead_contracts import bounds
from bulkhead_contracts.rating import TaskRated
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.admission.durable_writes import DurableWrites
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import existing_task, json_response, parse_body
from bulkhead_services.gateway.http.routes.citations import CitationRoutes
from bulkhead_services.gateway.http.routes.task_list import TaskListRoutes
from bulkhead_services.gateway.http.schemas import RatingSubmission
from bulkhead_services.gateway.problems import Problem, not_stored
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds
from bulkhead_services.gateway.read_model.ratings import quality
from bulkhead_services.gateway.read_model.ratings.labels import LabelledTask, build_queue
from bulkhead_services.gateway.read_model.ratings.standing import describe_ratings, labels_of, rating_id_of
from bulkhead_services.gateway.read_model.shared_reads import SharedReads
from bulkhead_services.gateway.read_model.task_rows import TaskRow

MAX_BODY_BYTES = 16 * 1024
TITLE = "The rating does not count"
JUDGE_ROLE = "evaluator"


class RatingRoutes:
    """The routes of ratings, labels and quality."""

    def __init__(
        self,
        context: Context,
        auth: GatewayAuthenticator,
        bodies: GatewayRequestBodies,
        feeds: InboxFeeds,
        writes: DurableWrites,
        task_list: TaskListRoutes,
        citations: CitationRoutes,
    ) -> None:
        self._context, self._auth, self._bodies = context, auth, bodies
        self._feeds, self._writes = feeds, writes
        self._task_list, self._citations = task_list, citations
        self._quality = SharedReads[QualityPage]()
        self._quality_turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            Route("/v1/tasks/{task_id}/rating", self.rate_task, methods=["PUT"]),
            query_route(LabelQueueQuery, self._auth, self.show_queue),
            query_route(LabelExportQuery, self._auth, self.export_labels),
            query_route(QualityQuery, self._auth, self.show_quality),
        ]

    async def rate_task(self, request: Request) -> Response:
        """PUT /v1/tasks/{task_id}/rating: the same again changes nothing, another replaces it."""
        claim = await self._auth.require_role(request, EVERY_ROLE, "rate tasks")
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            body = parse_body(RatingSubmission, raw)
        _require_own_kind(claim, body)
        feed = await existing_task(request.path_params["task_id"], self._feeds, claim)
        _require_answer(feed, body)
        rating = TaskRated(
            rating_id=rating_id_of(self._context.message_key, feed.task, claim.person, body.kind, body.judge),
            score=body.score,
            # Operators and auditors read it, and it becomes the origin of cases.
            comment=without_sensitive(body.comment)[: bounds.MAX_REASON_CHARS],
            kind=body.kind,
            person=claim.person,
            role=claim.role,
            judge=body.judge,
            certified=body.certified,
            rated_unix_ms=self._context.clock(),
        )
        standing = feed.view.ratings.get(rating.rating_id)
        if standing is None or _without_time(standing.body) != _without_time(rating):
            _check_room(feed, rating)
            await self._store_rating(feed, rating, standing.changes if standing else 0)
        return json_response(describe_ratings(feed.view.ratings, claim))

    async def _store_rating(self, feed: InboxFeed, rating: TaskRated, changes: int) -> None:
        digest = hashlib.sha256(repr(_without_time(rating)).encode()).hexdigest()[:32]
        write = self._context.publisher.send(
            "gateway",
            rating,
            tenant=feed.tenant,
            task=feed.task,
            # No header names the person: histories, which more people read, leave out whose a rating is.
            index=f"rating/{feed.task}/{rating.rating_id}/{changes}/{digest}",
        )
        try:
            ack = await self._writes.write_within(write)
            await feed.refresh(ack.sequence)
        except (BusUnavailable, PublishRefused) as error:
            raise not_stored(error) from error

    async def show_queue(self, claim: RequesterClaim, query: LabelQueueQuery) -> LabelQueue:
        """Answers that the caller is to label."""
        rows, unread = await self._task_list.read_all_rows(claim)
        tasks = [
            LabelledTask(row.summary.task_id, row.labels)
            for row in self._answered_rows(rows, query.feature, query.release, query.since)
        ]
        oversees = claim.role in OVERSEERS.names
        # In a thread: of 10,000 tasks it takes a fifth of a second.
        queue = await asyncio.to_thread(
            build_queue, tasks, claim.person, query.share, query.double_every, oversees=oversees
        )
        return queue.model_copy(update={"unread": unread})

    async def export_labels(self, claim: RequesterClaim, query: LabelExportQuery) -> LabelExport:
        """Answers with labels, in the order of their tasks' ids."""
        rows, unread = await self._task_list.read_all_rows(claim)
        labelled = [row for row in self._answered_rows(rows, query.feature, query.release, query.since) if row.labels]
        labelled.sort(key=lambda row: row.summary.task_id)
        # By the last id, and not by a number: what is labelled between two pages shifts no other.
        labelled = [row for row in labelled if row.summary.task_id > query.after]
        page = labelled[:MAX_EXPORT_ROWS]
        answers = [await self._labelled_answer(claim, row) for row in page]
        return LabelExport(
            rows=tuple(answer for answer in answers if answer is not None),
            next=page[-1].summary.task_id if len(labelled) > len(page) else None,
            unread=unread,
        )

    async def _labelled_answer(self, claim: RequesterClaim, row: TaskRow) -> LabelledAnswer | None:
        """The row of one task; None when it was purged, or its answer has expired, meanwhile."""
        feed = await self._feeds.read_feed(claim.tenant, row.summary.task_id)
        if feed.view.request is None or feed.view.result is None or feed.view.result.content is None:
            return None
        try:
            answer = await self._context.blobs.get_text(feed.tenant, feed.view.result.content)
        except (BlobMissing, BlobCorrupt):
            return None
        model = answering_model(feed.view.result)
        page = await self._citations.list_citations(claim, CitationListQuery(task_id=feed.task))
        passages: dict[str, list[str]] = {}
        for cited in [cited for cited in page.citations if cited.kind != "unknown"][:MAX_EXPORT_DOCUMENTS]:
            source = await self._citations.show_citation(claim, CitationQuery(task_id=feed.task, marker=cited.marker))
            passages.setdefault(cited.source, []).append(source.text or "")
        return LabelledAnswer(
            id=feed.task,
            question=feed.view.request.objective,
            documents=tuple(LabelledDocument(name=name, text="\n\n".join(texts)) for name, texts in passages.items()),
            answer=answer,
            labels=labels_of(feed.view.ratings),
            model="" if model == NO_ANSWER else model,
            release=row.summary.release,
        )

    async def show_quality(self, claim: RequesterClaim, query: QualityQuery) -> QualityPage:
        """Quality by name and over time: one reading for all who ask for the same, and one at a time for a tenant."""
        return await self._quality.get((claim.tenant, query), partial(self._read_quality, claim, query))

    async def _read_quality(self, claim: RequesterClaim, query: QualityQuery) -> QualityPage:
        rows, unread = await self._task_list.read_all_rows(claim)
        now_unix_ms = self._context.clock()
        since_unix_ms = max(0, now_unix_ms - period_s(query.since) * 1_000)
        summaries = [row.summary for row in rows if not query.feature or row.summary.feature == query.feature]
        async with self._quality_turns[claim.tenant]:
            page = await asyncio.to_thread(
                quality.measure_quality, summaries, query.by, since_unix_ms, now_unix_ms, query.slices
            )
        return page.model_copy(update={"unread": unread})

    def _answered_rows(self, rows: Iterable[TaskRow], feature: str, release: str, since: str) -> Sequence[TaskRow]:
        since_unix_ms = self._context.clock() - period_s(since) * 1_000
        return [
            row
            for row in rows
            if quality.is_counted(row.summary)
            and row.summary.status == "succeeded"
            and row.summary.standing is not None
            and row.summary.updated_unix_ms >= since_unix_ms
            and (not feature or row.summary.feature == feature)
            and (not release or row.summary.release == release)
        ]


def _require_own_kind(claim: RequesterClaim, body: RatingSubmission) -> None:
    """Raises Problem 403 for a word that is not the caller's to give."""
    if (body.kind == "judge") != (claim.role == JUDGE_ROLE):
        detail = f"the role {claim.role} gives no rating of the kind {body.kind}"
        hint = f"judges rate by a key with the role {JUDGE_ROLE}, as kind `judge`; people by any other"
        raise Problem(403, "rating_kind", TITLE, detail, hint)
    if claim.agent:
        detail = "the key is an agent's, and what comes under it are a model's words"
        raise Problem(403, "rating_kind", TITLE, detail, "rate with the key of a person")


def _require_answer(feed: InboxFeed, body: RatingSubmission) -> None:
    """Raises Problem 409 for a task that has nothing to rate."""
    if not feed.has_ended or feed.view.status == "rejected":
        detail = "the task was turned away" if feed.has_ended else "the task goes on"
        raise Problem(409, "nothing_to_rate", TITLE, detail, "rate a task that has ended")
    if body.kind != "rating" and (feed.view.result is None or feed.view.result.content is None):
        raise Problem(409, "nothing_to_rate", TITLE, "the task has no answer", "rate a task with an answer")


def _check_room(feed: InboxFeed, rating: TaskRated) -> None:
    """Raises Problem 409."""
    standing = feed.view.ratings.get(rating.rating_id)
    if standing is not None and standing.changes >= bounds.MAX_RATING_CHANGES:
        detail = f"your rating of this task was changed {bounds.MAX_RATING_CHANGES} times, which is the most"
        raise Problem(409, "rating_limit", TITLE, detail, "leave what stands", limit=bounds.MAX_RATING_CHANGES)
    raters = sum(other.body.kind == rating.kind for other in feed.view.ratings.values())
    if standing is None and raters >= bounds.MAX_RATERS:
        detail = f"the task has {bounds.MAX_RATERS} ratings of this kind, which is the most"
        raise Problem(409, "rating_limit", TITLE, detail, "rate another task", limit=bounds.MAX_RATERS)


def _without_time(rating: TaskRated) -> TaskRated:
    return rating.model_copy(update={"rated_unix_ms": 0})
