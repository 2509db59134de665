"""The routes that tell what a task did and why: its story, its timeline, each of its calls.

In: requests of people and programs who may read the task. Out: what budget tells of its messages in the journal, folded
here; the gateway itself may not read the journal. Texts only for those who may see them, and each look is logged.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.bus.port import BusUnavailable, PublishRefused, StoredMessage
from bulkhead.gateway_api import histories as reads
from bulkhead.gateway_api.histories import CallDocument, MessageDocument, RawMessage, StoryDocument, TimelinePage
from bulkhead.gateway_api.query import EVERY_ROLE
from bulkhead.journal import lines
from bulkhead.journal.export import IN_THE_WORKS_MS
from bulkhead.journal.history import JournalEntry, build_entries
from bulkhead.journal.order import as_in_inbox, in_journal_order, stored_of
from bulkhead.journal.story import detail
from bulkhead.journal.story.calls import contents_to_read
from bulkhead.journal.story.fold import contents_to_quote, fold_story
from bulkhead.journal.story.model import CallDetail
from bulkhead.journal.story.redact import without_content
from bulkhead.journal.story.text import ENDED, render_story
from bulkhead.runtime.context import Context
from bulkhead.runtime.decider.history import collect_history
from bulkhead.runtime.decider.history_file import dump_history
from bulkhead.runtime.errors import RpcRefused
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds
from bulkhead_contracts.catalog import DecodeError
from bulkhead_contracts.journal import TaskMessagesReplied, TaskMessagesRequested, ToldMessage
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.content_access import log_content_read, may_read_history
from bulkhead_services.gateway.http.prompt_registry import show_version
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_values import check_id, existing_task
from bulkhead_services.gateway.problems import Problem, forbidden, not_found, too_large, too_many, unavailable
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds
from bulkhead_services.gateway.read_model.journaled_tasks import (
    JournaledTask,
    JournaledTaskCache,
    RenderedStory,
    bytes_of,
)
from bulkhead_services.gateway.read_model.shared_reads import SharedReads

PIECE_BYTES = 64 * 1024
PATIENCE_S = 30.0
MIN_BYTES_PER_S = 64 * 1024
log = Log("gateway.held_answer")
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
class ReadableHistory:
    """A task's messages, at least one. content: whether this caller may read what was said."""

    told: JournaledTask
    content: bool

    @property
    def entries(self) -> list[JournalEntry]:
        """The entries in their order."""
        return self.told.entries

    @property
    def cut(self) -> bool:
        """There are more."""
        return self.told.more


class HistoryRoutes:
    """The routes; each answer is made of at most MAX_STORY_MESSAGES messages and MAX_STORY_BYTES."""

    def __init__(self, context: Context, auth: GatewayAuthenticator, feeds: InboxFeeds) -> None:
        self._context, self._auth, self._feeds = context, auth, feeds
        self._places = FairSemaphore(AT_ONCE, kept=AT_ONCE - 1)
        self._exports = FairSemaphore(EXPORTS_AT_ONCE, kept=EXPORTS_AT_ONCE // 2)
        self._kept = JournaledTaskCache(context.clock)
        self._stories = SharedReads[bytes](rest_s=0)

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            query_route(reads.StoryQuery, self._auth, self.explain_task),
            query_route(reads.TimelineQuery, self._auth, self.show_timeline),
            query_route(reads.CallQuery, self._auth, self.show_call),
            query_route(reads.MessageQuery, self._auth, self.show_message),
            Route("/v1/tasks/{task_id}/export", self.export_task, methods=["GET"]),
        ]

    async def explain_task(self, claim: RequesterClaim, query: reads.StoryQuery) -> bytes:
        """The story, as JSON."""
        feed = await existing_task(query.task_id, self._feeds, claim)
        uncut, content = query.all, may_read_history(claim, feed)
        key = feed.tenant, feed.task, uncut, content
        body = await self._stories.get(key, lambda: self._story_json(feed, claim, whole=uncut, content=content))
        if content:
            log_content_read(claim, "why", feed.task)
        return body

    async def _story_json(self, feed: InboxFeed, claim: RequesterClaim, *, whole: bool, content: bool) -> bytes:
        """A StoryDocument as JSON, folded anew where there are new messages, or time has told more."""
        async with self._hold_place(claim):
            journaled, now_unix_ms = await self._read_journal(feed, claim), self._context.clock()
            cached = journaled.stories.get((whole, content))
            if cached is not None and (cached.ended or 0 <= now_unix_ms - cached.at_unix_ms < STORY_KEPT_MS):
                return cached.body
            texts = await self._read_texts(feed, contents_to_quote(journaled.entries))

            def fold_and_render() -> RenderedStory:
                story = replace(fold_story(journaled.entries, feed.task, now_unix_ms, texts), cut=journaled.more)
                story = story if content else without_content(story)
                story_text = render_story(story, whole=whole)
                document = StoryDocument(
                    task_id=feed.task,
                    status=story.status,
                    content=content,
                    cut=journaled.more,
                    text=story_text,
                    story=story,
                )
                return RenderedStory(document.model_dump_json().encode(), now_unix_ms, story.status in ENDED)

            # A long fold in a thread: streams and submissions go on meanwhile.
            rendered_story = await asyncio.to_thread(fold_and_render)
            if journaled.total_bytes + len(rendered_story.body) > bounds.MAX_STORY_BYTES:
                journaled.stories.clear()
            journaled.stories[whole, content] = rendered_story
            self._kept.keep_task(feed.tenant, feed.task, journaled)
            return rendered_story.body

    async def show_timeline(self, claim: RequesterClaim, query: reads.TimelineQuery) -> TimelinePage:
        """A page of its messages and calls."""
        feed = await existing_task(query.task_id, self._feeds, claim)
        async with self._hold_place(claim):
            history = await self._read_history(feed, claim, "timeline")
            rows = history.told.rows.get(history.content)
            if rows is None:
                texts = await self._read_texts(feed, contents_to_read(history.entries))
                rows = await asyncio.to_thread(lines.build_rows, history.entries, texts, content=history.content)
                history.told.rows[history.content] = rows
        page = lines.page_after(rows, query.after, query.limit)
        has_more = bool(page) and page[-1].number < len(rows)
        return TimelinePage(
            task_id=feed.task,
            content=history.content,
            cut=history.cut,
            text=lines.render_rows(page),
            rows=page,
            next=page[-1].number if has_more else None,
        )

    async def show_call(self, claim: RequesterClaim, query: reads.CallQuery) -> CallDocument:
        """One call."""
        feed = await existing_task(query.task_id, self._feeds, claim)
        name = check_id(query.call_id, "call")
        async with self._hold_place(claim):
            history = await self._read_history(feed, claim, f"call {name}")
            texts = await self._read_texts(feed, detail.call_contents(history.entries, name))
            call_detail = await asyncio.to_thread(detail.build_detail, history.entries, name, texts)
        if call_detail is None:
            raise not_found("call", name, f"GET /v1/tasks/{feed.task}/timeline lists the calls of the task")
        if not history.content:
            call_detail = detail.without_texts(call_detail)
        elif call_detail.call.prompt_digest:
            call_detail = await self._add_instruction(claim, call_detail)
        return CallDocument(
            task_id=feed.task, content=history.content, text=detail.render_detail(call_detail), call=call_detail
        )

    async def _add_instruction(self, claim: RequesterClaim, call_detail: CallDetail) -> CallDetail:
        """The call with the text that its model was told, of which the registry has every version."""
        prompt, _, version = call_detail.prompt_id.partition("@")
        release = call_detail.release if version.startswith("r") else ""
        try:
            document = await show_version(self._context, claim, prompt, version, release)
        except Problem as problem:
            return replace(call_detail, instruction_note=problem.body.detail)
        if document.sha256 != call_detail.prompt_digest:
            note = f"{document.name} has another text here than where the call was made"
            return replace(call_detail, instruction_note=note)
        text = document.filled_text
        note = f"cut: it has {len(text):,} characters" if len(text) > detail.MAX_TEXT_CHARS else ""
        return replace(call_detail, instruction=text[: detail.MAX_TEXT_CHARS], instruction_note=note)

    async def show_message(self, claim: RequesterClaim, query: reads.MessageQuery) -> MessageDocument:
        """The messages that bear one id."""
        feed = await existing_task(query.task_id, self._feeds, claim)
        name = check_id(query.message_id, "message")
        async with self._hold_place(claim):
            history = await self._read_history(feed, claim, f"message {name}")
        matching = [message for message in history.told.messages if message.headers.get("ce-id") == name]
        if not matching:
            raise not_found("message", name, f"GET /v1/tasks/{feed.task}/timeline lists the messages of the task")
        rows = tuple(_raw_message(message, content=history.content) for message in matching[: reads.MAX_OF_ONE_ID])
        unlisted = len(matching) - len(rows)
        return MessageDocument(
            task_id=feed.task, message_id=name, content=history.content, messages=rows, more=unlisted
        )

    def _hold_place(self, claim: RequesterClaim) -> AbstractAsyncContextManager[None]:
        self._check_waiting(self._places, claim)
        return self._places.hold_slot(claim.tenant)

    @staticmethod
    def _check_waiting(places: FairSemaphore, claim: RequesterClaim) -> None:
        if places.count_waiting(claim.tenant) >= MAX_WAITING:
            reason = f"{MAX_WAITING} others of your tenant wait for the history of a task at this replica"
            hint, title = "ask again in a moment", "Too many histories"
            raise too_many("too_many_histories", title, reason, hint, retry_after_s=RETRY_AFTER_S, limit=MAX_WAITING)

    async def export_task(self, request: Request) -> Response:
        """GET /v1/tasks/{task_id}/export"""
        claim = await self._auth.require_role(request, EVERY_ROLE, "read tasks")
        feed = await existing_task(request.path_params["task_id"], self._feeds, claim)
        if not may_read_history(claim, feed):
            raise forbidden(claim.role, "export this task", "operator, or the submitter of the task")
        self._check_waiting(self._exports, claim)
        await self._exports.acquire_slot(claim.tenant, None)
        leave = partial(self._exports.release_slot, claim.tenant)
        try:
            async with self._hold_place(claim):
                raw = await self._export_bytes(feed, claim)
        except BaseException:
            leave()
            raise
        headers = {"Content-Disposition": f'attachment; filename="{feed.task}.jsonl"', "Cache-Control": "no-store"}
        return SlotHoldingResponse(raw, headers, "application/x-ndjson", leave)

    async def _export_bytes(self, feed: InboxFeed, claim: RequesterClaim) -> bytes:
        messages, has_more = await self._fetch_messages(feed, claim, claims=True)
        if has_more or any(message.left_out_bytes for message in messages):
            raise _too_large("the task's messages", bounds.MAX_STORY_BYTES)
        log_content_read(claim, "export", feed.task)
        stored = in_journal_order(as_in_inbox(message, feed.tenant, feed.task) for message in messages)
        quiet_ms = self._context.clock() - max(message.time_unix_ms for message in stored)
        room = bounds.MAX_EXPORT_BYTES

        async def read_content(ref: ContentRef) -> bytes | None:
            nonlocal room
            try:
                data = await self._context.blobs.get(feed.tenant, ref)
            except (BlobMissing, BlobCorrupt):
                return None
            if (room := room - len(data)) < 0:
                raise _too_large("the contents of the task", bounds.MAX_EXPORT_BYTES)
            return data

        history = await collect_history(stored, read_content, settled=quiet_ms > IN_THE_WORKS_MS)
        return await asyncio.to_thread(dump_history, history)

    async def _read_history(self, feed: InboxFeed, claim: RequesterClaim, what: str) -> ReadableHistory:
        """History as budget tells it, for a caller whose look is on record. Raises Problem (503)."""
        journaled, content = await self._read_journal(feed, claim), may_read_history(claim, feed)
        if content:
            log_content_read(claim, what, feed.task)
        return ReadableHistory(journaled, content)

    async def _read_journal(self, feed: InboxFeed, claim: RequesterClaim) -> JournaledTask:
        """The task as budget tells it. Raises Problem (503)."""
        cached = self._kept.get(feed.tenant, feed.task)
        messages, has_more = await self._fetch_messages(feed, claim, known=cached)
        if cached is None or len(messages) > len(cached.messages):
            stored = [stored_of(message, feed.tenant, feed.task) for message in messages]
            folded, since = await asyncio.to_thread(_ordered_entries, stored), self._context.clock()
            cached = JournaledTask(tuple(messages), has_more, folded, since if cached is None else cached.since_unix_ms)
            self._kept.keep_task(feed.tenant, feed.task, cached)
        return cached

    async def _fetch_messages(
        self, feed: InboxFeed, claim: RequesterClaim, *, claims: bool = False, known: JournaledTask | None = None
    ) -> tuple[list[ToldMessage], bool]:
        """The messages of one answer, as many as it is made of, and whether there are more; those that are known
        are not asked for again. Raises Problem (503).
        """
        messages = list(known.messages) if known is not None else []
        room, has_more = bounds.MAX_STORY_BYTES - bytes_of(messages), True
        if known is not None and (room <= 0 or len(messages) >= bounds.MAX_STORY_MESSAGES):
            return messages, known.more
        while has_more and room > 0 and len(messages) < bounds.MAX_STORY_MESSAGES:
            after = messages[-1].sequence if messages else 0
            page = await self._fetch_page(feed, claim, TaskMessagesRequested(after=after, claims=claims))
            messages += page.messages
            room -= bytes_of(page.messages)
            has_more = page.more and bool(page.messages)
        if not messages:
            raise unavailable("the journal does not have the task yet", "ask again in a moment")
        return messages, has_more

    async def _fetch_page(
        self, feed: InboxFeed, claim: RequesterClaim, asked: TaskMessagesRequested
    ) -> TaskMessagesReplied:
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

    async def _read_texts(self, feed: InboxFeed, refs: Sequence[ContentRef]) -> dict[str, str]:
        """The contents that are quoted, as far as they are still there; also for who may not read them: their markers
        say what rests on what."""
        texts, room = dict[str, str](), bounds.MAX_STORY_BYTES
        for ref in refs:
            if ref.size_bytes > room:
                continue
            try:
                texts[ref.sha256] = text = await self._context.blobs.get_text(feed.tenant, ref)
            except (BlobMissing, BlobCorrupt):
                continue
            room -= max(len(text), ref.size_bytes)
        return texts


class SlotHoldingResponse(StreamingResponse):
    """A large answer that keeps its place until its client has it: so many are in memory at a time, however slowly they
    go. It is sent in pieces, between which a server waits for a slow client; one that takes longer than its size allows
    is cut off. leave: called once, when all is sent or nothing more will be."""

    def __init__(self, raw: bytes, headers: Mapping[str, str], media_type: str, leave: Callable[[], None]) -> None:
        super().__init__(_split_pieces(raw), 200, {**headers, "Content-Length": str(len(raw))}, media_type)
        self._leave, self._limit_s = leave, PATIENCE_S + len(raw) / MIN_BYTES_PER_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it as any response."""
        try:
            async with asyncio.timeout(self._limit_s):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            # The server closes what is not complete.
            log.warning("slow_client_cut_off", path=scope["path"], after_s=round(self._limit_s))
        finally:
            self._leave()


async def _split_pieces(raw: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(raw)
    for start in range(0, len(raw), PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]


def _raw_message(message: ToldMessage, *, content: bool) -> RawMessage:
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


def _ordered_entries(found: Sequence[StoredMessage]) -> list[JournalEntry]:
    return build_entries(in_journal_order(found))
