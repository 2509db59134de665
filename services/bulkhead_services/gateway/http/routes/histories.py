"""The routes that tell what a task did and why: its story, its timeline, each of its calls.

In: requests of people and programs who may read the task. Out: what budget tells of its messages in the journal, folded
here; the gateway itself may not read the journal. Texts only for those who may see them, and each look is logged.
"""

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.bus.port import BusUnavailable, PublishRefused, Stored
from bulkhead.journal import lines
from bulkhead.journal.export import IN_THE_WORKS_MS
from bulkhead.journal.history import Entry, entries
from bulkhead.journal.story import detail
from bulkhead.journal.story.calls import contents
from bulkhead.journal.story.fold import tell, wanted
from bulkhead.journal.story.redact import without_content
from bulkhead.journal.story.text import ENDED, text
from bulkhead.journal.told import as_in_inbox, in_order, stored_of
from bulkhead.runtime.context import Context
from bulkhead.runtime.decider.history import collect
from bulkhead.runtime.decider.history_file import dump
from bulkhead.runtime.errors import RpcRefused
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead_contracts import bounds
from bulkhead_contracts.catalog import DecodeError
from bulkhead_contracts.journal import TaskMessagesReplied, TaskMessagesRequested, ToldMessage
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.http.auth import Authenticator
from bulkhead_services.gateway.http.content_access import may_read_history, on_record
from bulkhead_services.gateway.http.history_schemas import (
    MAX_OF_ONE_ID,
    CallDocument,
    MessageDocument,
    RawMessage,
    StoryDocument,
    TimelinePage,
)
from bulkhead_services.gateway.http.request_values import answered, existing_task, flag_of, number_of, size_of, token
from bulkhead_services.gateway.http.routes.held_answer import HeldAnswer
from bulkhead_services.gateway.problems import Problem, forbidden, not_found, too_large, too_many, unavailable
from bulkhead_services.gateway.read_model import task_view
from bulkhead_services.gateway.read_model.feeds import Feed, Feeds
from bulkhead_services.gateway.read_model.shared_answers import SharedAnswers
from bulkhead_services.gateway.read_model.told_tasks import Told, ToldTask, ToldTasks, bytes_of

AT_ONCE = 2
"""Foldings of two tenants at a time: a fold holds megabytes, and the processor for a moment."""
EXPORTS_AT_ONCE = 4
"""Exports in memory at a time, until their clients have them: a slow one keeps nobody from a timeline."""
MAX_WAITING = 8
"""Requests of one tenant that may wait for it."""
RETRY_AFTER_S = 2
SAY_WHAT_IT_IS = frozenset({"ce-id", "ce-type", "ce-time", "ce-causeid", "ce-specversion"})
"""Headers without words of anybody."""
STORY_KEPT_MS = 1_000
"""The story of a task that runs tells how long it has waited: for so long it may be told again as it was."""


@dataclass(frozen=True, slots=True)
class History:
    """A task's messages, at least one. content: whether this caller may read what was said."""

    told: ToldTask
    content: bool

    @property
    def entries(self) -> list[Entry]:
        """In their order."""
        return self.told.entries

    @property
    def cut(self) -> bool:
        """There are more."""
        return self.told.more


class Histories:
    """The routes; each answer is made of at most MAX_STORY_MESSAGES messages and MAX_STORY_BYTES."""

    def __init__(self, context: Context, auth: Authenticator, feeds: Feeds) -> None:
        self._context, self._auth, self._feeds = context, auth, feeds
        self._places = FairSemaphore(AT_ONCE, kept=AT_ONCE - 1)
        self._exports = FairSemaphore(EXPORTS_AT_ONCE, kept=EXPORTS_AT_ONCE // 2)
        self._kept = ToldTasks(context.clock)
        self._stories = SharedAnswers[bytes]()

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/v1/tasks/{task_id}/why", self.why, methods=["GET"]),
            Route("/v1/tasks/{task_id}/timeline", self.timeline, methods=["GET"]),
            Route("/v1/tasks/{task_id}/calls/{call_id}", self.call, methods=["GET"]),
            Route("/v1/tasks/{task_id}/messages/{message_id}", self.message, methods=["GET"]),
            Route("/v1/tasks/{task_id}/export", self.export, methods=["GET"]),
        ]

    async def why(self, request: Request) -> Response:
        """GET /v1/tasks/{task_id}/why"""
        claim, feed = await self._asked(request)
        whole, content = flag_of(request, "all"), may_read_history(claim, feed)
        key = feed.tenant, feed.task, whole, content
        body = await self._stories.of(key, lambda: self._story(feed, claim, whole=whole, content=content))
        if content:
            on_record(claim, "why", feed.task)
        return Response(body, 200, {"Cache-Control": "no-store"}, "application/json")

    async def _story(self, feed: Feed, claim: RequesterClaim, *, whole: bool, content: bool) -> bytes:
        """A StoryDocument as JSON, folded anew where there are new messages, or time has told more."""
        async with self._place(claim):
            told, now = await self._read(feed, claim), self._context.clock()
            known = told.stories.get((whole, content))
            if known is not None and (known.ended or 0 <= now - known.at_unix_ms < STORY_KEPT_MS):
                return known.body
            texts = await self._texts(feed, wanted(told.entries))

            def folded() -> Told:
                story = replace(tell(told.entries, feed.task, now, texts), cut=told.more)
                story = story if content else without_content(story)
                said = text(story, whole=whole)
                document = StoryDocument(
                    task_id=feed.task, status=story.status, content=content, cut=told.more, text=said, story=story
                )
                return Told(document.model_dump_json().encode(), now, story.status in ENDED)

            # A long fold in a thread: streams and submissions go on meanwhile.
            made = await asyncio.to_thread(folded)
            if told.bytes + len(made.body) > bounds.MAX_STORY_BYTES:
                told.stories.clear()
            told.stories[whole, content] = made
            self._kept.keep(feed.tenant, feed.task, told)
            return made.body

    async def timeline(self, request: Request) -> Response:
        """GET /v1/tasks/{task_id}/timeline"""
        claim, feed = await self._asked(request)
        limit, after = size_of(request), number_of(request, "after")
        async with self._place(claim):
            history = await self._history(feed, claim, "timeline")
            found = history.told.rows.get(history.content)
            if found is None:
                texts = await self._texts(feed, contents(history.entries))
                found = await asyncio.to_thread(lines.rows, history.entries, texts, content=history.content)
                history.told.rows[history.content] = found
        page = lines.page(found, after, limit)
        more = bool(page) and page[-1].number < len(found)
        return answered(
            TimelinePage(
                task_id=feed.task,
                content=history.content,
                cut=history.cut,
                text=lines.text(page),
                rows=page,
                next=page[-1].number if more else None,
            )
        )

    async def call(self, request: Request) -> Response:
        """GET /v1/tasks/{task_id}/calls/{call_id}"""
        claim, feed = await self._asked(request)
        name = token(request, "call_id", "call")
        async with self._place(claim):
            history = await self._history(feed, claim, f"call {name}")
            texts = await self._texts(feed, detail.named(history.entries, name))
            found = await asyncio.to_thread(detail.detail, history.entries, name, texts)
        if found is None:
            raise not_found("call", name, f"GET /v1/tasks/{feed.task}/timeline lists the calls of the task")
        found = found if history.content else detail.bare(found)
        return answered(CallDocument(task_id=feed.task, content=history.content, text=detail.text(found), call=found))

    async def message(self, request: Request) -> Response:
        """GET /v1/tasks/{task_id}/messages/{message_id}"""
        claim, feed = await self._asked(request)
        name = token(request, "message_id", "message")
        async with self._place(claim):
            history = await self._history(feed, claim, f"message {name}")
        found = [one for one in history.told.messages if one.headers.get("ce-id") == name]
        if not found:
            raise not_found("message", name, f"GET /v1/tasks/{feed.task}/timeline lists the messages of the task")
        rows = tuple(_raw(one, content=history.content) for one in found[:MAX_OF_ONE_ID])
        more = len(found) - len(rows)
        return answered(
            MessageDocument(task_id=feed.task, message_id=name, content=history.content, messages=rows, more=more)
        )

    async def _asked(self, request: Request) -> tuple[RequesterClaim, Feed]:
        claim = await self._auth.allowed(request, task_view.MAY_READ, "read tasks", "submitter")
        return claim, await existing_task(request, self._feeds, claim)

    def _place(self, claim: RequesterClaim) -> AbstractAsyncContextManager[None]:
        self._check_waiting(self._places, claim)
        return self._places.held(claim.tenant)

    @staticmethod
    def _check_waiting(places: FairSemaphore, claim: RequesterClaim) -> None:
        if places.waiting(claim.tenant) >= MAX_WAITING:
            what = f"{MAX_WAITING} others of your tenant wait for the history of a task at this replica"
            hint, title = "ask again in a moment", "Too many histories"
            raise too_many("too_many_histories", title, what, hint, retry_after_s=RETRY_AFTER_S, limit=MAX_WAITING)

    async def export(self, request: Request) -> Response:
        """GET /v1/tasks/{task_id}/export"""
        claim, feed = await self._asked(request)
        if not may_read_history(claim, feed):
            raise forbidden(claim.role, "export this task", "operator, or the submitter of the task")
        self._check_waiting(self._exports, claim)
        await self._exports.enter(claim.tenant, None)
        leave = partial(self._exports.leave, claim.tenant)
        try:
            async with self._place(claim):
                raw = await self._exported(feed, claim)
        except BaseException:
            leave()
            raise
        headers = {"Content-Disposition": f'attachment; filename="{feed.task}.jsonl"', "Cache-Control": "no-store"}
        return HeldAnswer(raw, headers, "application/x-ndjson", leave)

    async def _exported(self, feed: Feed, claim: RequesterClaim) -> bytes:
        told, more = await self._told(feed, claim, claims=True)
        if more or any(one.left_out_bytes for one in told):
            raise _too_large("the task's messages", bounds.MAX_STORY_BYTES)
        on_record(claim, "export", feed.task)
        found = in_order(as_in_inbox(one, feed.tenant, feed.task) for one in told)
        quiet_ms = self._context.clock() - max(one.time_unix_ms for one in found)
        room = bounds.MAX_EXPORT_BYTES

        async def read(ref: ContentRef) -> bytes | None:
            nonlocal room
            try:
                data = await self._context.blobs.get(feed.tenant, ref)
            except (BlobMissing, BlobCorrupt):
                return None
            if (room := room - len(data)) < 0:
                raise _too_large("the contents of the task", bounds.MAX_EXPORT_BYTES)
            return data

        history = await collect(found, read, settled=quiet_ms > IN_THE_WORKS_MS)
        return await asyncio.to_thread(dump, history)

    async def _history(self, feed: Feed, claim: RequesterClaim, what: str) -> History:
        """What budget tells of the task, to a caller whose look is on record. Raises Problem (503)."""
        told, content = await self._read(feed, claim), may_read_history(claim, feed)
        if content:
            on_record(claim, what, feed.task)
        return History(told, content)

    async def _read(self, feed: Feed, claim: RequesterClaim) -> ToldTask:
        """What budget tells of the task. Raises Problem (503)."""
        kept = self._kept.get(feed.tenant, feed.task)
        told, more = await self._told(feed, claim, known=kept)
        if kept is None or len(told) > len(kept.messages):
            found = [stored_of(one, feed.tenant, feed.task) for one in told]
            folded, since = await asyncio.to_thread(_entries, found), self._context.clock()
            kept = ToldTask(tuple(told), more, folded, since if kept is None else kept.since_unix_ms)
            self._kept.keep(feed.tenant, feed.task, kept)
        return kept

    async def _told(
        self, feed: Feed, claim: RequesterClaim, *, claims: bool = False, known: ToldTask | None = None
    ) -> tuple[list[ToldMessage], bool]:
        """As many messages as one answer is made of, and whether there are more; those that are known are not asked for
        again. Raises Problem (503)."""
        found = list(known.messages) if known is not None else []
        room, more = bounds.MAX_STORY_BYTES - bytes_of(found), True
        if known is not None and (room <= 0 or len(found) >= bounds.MAX_STORY_MESSAGES):
            return found, known.more
        while more and room > 0 and len(found) < bounds.MAX_STORY_MESSAGES:
            after = found[-1].sequence if found else 0
            page = await self._page(feed, claim, TaskMessagesRequested(after=after, claims=claims))
            found += page.messages
            room -= bytes_of(page.messages)
            more = page.more and bool(page.messages)
        if not found:
            raise unavailable("the journal does not have the task yet", "ask again in a moment")
        return found, more

    async def _page(self, feed: Feed, claim: RequesterClaim, asked: TaskMessagesRequested) -> TaskMessagesReplied:
        try:
            reply = await self._context.publisher.request(
                "budget",
                asked,
                tenant=feed.tenant,
                task=feed.task,
                index=f"history/{secrets.token_hex(8)}",
                actor=claim.person,
                timeout_s=bounds.WRITES_TIMEOUT_MS / 1_000,
            )
        except (BusUnavailable, PublishRefused, RpcRefused, DecodeError) as error:
            raise unavailable(f"budget does not answer: {error}", "ask again in a moment") from error
        assert isinstance(reply, TaskMessagesReplied)
        if reply.failure is not None:
            raise unavailable(reply.failure.message, reply.failure.hint or "ask again in a moment")
        return reply

    async def _texts(self, feed: Feed, refs: Sequence[ContentRef]) -> dict[str, str]:
        """The contents that are quoted, as far as they are still there; also for who may not read them: their markers
        say what rests on what."""
        texts, room = dict[str, str](), bounds.MAX_STORY_BYTES
        for ref in refs:
            if ref.size_bytes > room:
                continue
            try:
                texts[ref.sha256] = text = await self._context.blobs.text(feed.tenant, ref)
            except (BlobMissing, BlobCorrupt):
                continue
            room -= max(len(text), ref.size_bytes)
        return texts


def _raw(message: ToldMessage, *, content: bool) -> RawMessage:
    """A message for who may read it; content: whether its body too, and headers that are their author's to fill."""
    headers = {name: value for name, value in message.headers.items() if content or name in SAY_WHAT_IT_IS}
    return RawMessage(
        type=message.headers.get("ce-type", ""),
        cause=message.headers.get("ce-causeid", ""),
        headers=headers,
        body=message.body if content else "",
        left_out_bytes=message.left_out_bytes if content else len(message.body.encode()) or message.left_out_bytes,
        **message.model_dump(include={"sequence", "inbox_sequence", "stored_unix_ms", "sender", "receiver"}),
    )


def _too_large(what: str, limit: int) -> Problem:
    hint = "`bulkhead export` on the machine of the mesh has no such limit"
    return too_large(what, limit, "bytes, or cannot be read as text", hint)


def _entries(found: Sequence[Stored]) -> list[Entry]:
    return entries(in_order(found))
