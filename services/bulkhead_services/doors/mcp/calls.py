"""Calls of tools by outside agents: each is made once, under the run that the same caller's model calls have.

In: what an MCP client asked. Out: `ToolCallRequested` (or `RetrievalRequested`) under the run's grant; its outcome from
the record. The first half of a call's id derives from the run, the tool and its arguments, the second from the client's
own id of the request. A call that waits for an approval is found by its first half: who asks again, under whatever id,
asks for that one. So is a write whose answer nobody has heard: its client gave up, and asks for it again; and a write
of which nobody knows whether it was made: both in whatever run their person asks for them (`write_notes`). Live
questions tell whether a client waits for one at another replica.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

import rfc8785
from pydantic import ValidationError

from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusError, LiveMessage
from bulkhead.health.sources.journal import PASSING
from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import CallFollowers
from bulkhead_contracts.result import Failure
from bulkhead_contracts.retrieval import RetrievalReplied, RetrievalRequested
from bulkhead_contracts.task import TaskEnded
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested, ToolProgress, WriteNoted, write_id_of
from bulkhead_contracts.wording import describe_error
from bulkhead_services.doors import refusals
from bulkhead_services.doors.feed import SERVICE, CallState, RunFeed
from bulkhead_services.doors.mcp.port import ParsedToolCall, ToolCallAnswer
from bulkhead_services.doors.mcp.write_notes import WriteNotes, note_key
from bulkhead_services.doors.model_call import ANSWER_S, PeerReplicas
from bulkhead_services.doors.port import Caller, DoorRefusal, ParsedModelCall
from bulkhead_services.doors.run_call import CallKey, CallsInFlight, Phase, RunCall, half_id
from bulkhead_services.doors.runs import KEY_HOLDS_MS, RunDirectory
from bulkhead_services.doors.settings import Settings

MAX_WRITES = 10_000
NO_CONVERSATION = ParsedModelCall(model="", messages=(), options={}, max_output_tokens=None, stream=False)
MARGIN_S = 12.0
"""After its deadline the word that it is over is waited for so long."""
ProgressListener = Callable[[ToolProgress], None]
ANOTHER_WRITE = (
    "a call under an idempotency key of its own (_meta io.bulkhead/idempotency-key, or the header Idempotency-Key) is "
    "another write"
)
ToolRequest = ToolCallRequested | RetrievalRequested
ToolOutcome = Literal["succeeded", "refused", "failed", "uncertain"]


def request_of(
    tool_call: ParsedToolCall, call_id: str, feed: RunFeed, arguments_json: str, until_unix_ms: int
) -> ToolRequest:
    """The message of a call. Raises DoorRefusal."""
    assert feed.assigned is not None
    tool, progress = tool_call.tool, tool_call.on_progress is not None
    identity = {"call_id": call_id, "step_id": feed.assigned.step.id, "attempt": feed.assigned.attempt}
    deadline = {"deadline_unix_ms": until_unix_ms}
    if tool.served_by != "rag":
        # Without an attribution: its arguments come from nowhere that the mesh knows.
        return ToolCallRequested.model_validate(
            identity | deadline | {"tool": tool.name, "arguments_json": arguments_json, "progress": progress}
        )
    arguments = json.loads(arguments_json)
    try:
        return RetrievalRequested.model_validate(
            identity | deadline | {"query": arguments.get("query"), "k": arguments.get("k", 8)}
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = f"{'.'.join(map(str, first['loc']))}: {describe_error(first)}"
        raise DoorRefusal(400, "bad_arguments", message, "send what the tool's schema asks for") from error


class ToolRunCall(RunCall[ToolRequest, ToolCallAnswer]):
    """A call. A write that has begun is made to its end, also after its run has ended."""

    not_stored = "the message broker has not said in time that it stored it"

    def __init__(
        self, context: Context, settings: Settings, feed: RunFeed, request: ToolRequest, *, is_write: bool
    ) -> None:
        service = "rag" if isinstance(request, RetrievalRequested) else "tool_executor"
        super().__init__(context, settings, feed, request, service)
        self.is_write = is_write
        self._listeners: list[ProgressListener] = []

    async def _prepare_first_request(self) -> None:
        if self.is_write:
            await self.publish_note(WriteNoted(call_id=self.call_id), "begun")

    async def publish_note(self, note: WriteNoted, index: str) -> None:
        """Store a note about this write, for every replica. Raises BusError."""
        if isinstance(self.request, ToolCallRequested):
            feed, publisher = self.feed, self._context.publisher
            key = note_key(feed.actor, self.request.tool, self.request.arguments_json)
            head = publisher.make_envelope(note, cause=feed.cause, index=f"{index}/{note.alias or note.call_id}")
            await publisher.put_message(
                publisher.make_message(SERVICE, note, head, tenant=feed.tenant, task=feed.task, key=key)
            )

    @contextmanager
    def telling_progress(self, listener: ProgressListener | None) -> Iterator[None]:
        """While its asker waits, it hears of progress."""
        if listener is not None:
            self._listeners.append(listener)
        try:
            yield
        finally:
            if listener is not None:
                self._listeners.remove(listener)

    def tell_progress(self, progress: ToolProgress) -> None:
        """Tell all who wait for it."""
        for listener in self._listeners:
            listener(progress)

    async def _may_repeat(self, call_state: CallState) -> bool:
        return await _was_put_off(self.feed, self.call_id)

    def _answer_wait_s(self) -> float:
        return max(0.0, (self.request.deadline_unix_ms - self._context.clock()) / 1000) + MARGIN_S

    def _heed_run_end(self, ended: TaskEnded, now_s: float) -> None:
        if self.phase is Phase.DEFERRED:
            raise refusals.of_end(self.feed.task, ended, self._settings.idle_s)
        self._overdue_s = min(self._overdue_s, now_s + MARGIN_S)

    def _refuse_overdue(self) -> DoorRefusal:
        return self._refuse_unknown("it has none yet" if self.feed.ended is None else "its run has ended")

    def _refuse_deferral(self, deferral: CallDeferred) -> DoorRefusal:
        if deferral.code == refusals.APPROVAL_WANTED:
            hint = "call it again with the same arguments when that is done; it is not made before"
            return DoorRefusal(409, deferral.code, deferral.reason, hint, retry=True)
        return refusals.of_deferral(deferral)

    def _refuse_broker_failure(self, reason: str) -> DoorRefusal:
        return self._refuse_unknown(reason) if self.was_sent else refusals.mesh_unavailable(reason)

    def _refuse_unknown(self, reason: str) -> DoorRefusal:
        """It was sent, and what became of it cannot be told: made again it might be made twice."""
        message = f"call {self.call_id} of task {self.feed.task} was sent, and its outcome is not known here: {reason}"
        hint = "look at the task, or call it again"
        if self.is_write:
            hint = f"call it again with the same arguments to hear its outcome: it is not made twice; {ANOTHER_WRITE}"
        return DoorRefusal(502, "outcome_unknown", message, hint)

    async def _read_answer(self, call_state: CallState) -> ToolCallAnswer:
        feed, call_id = self.feed, self.call_id
        try:
            reply = await feed.reply_of(call_id)
            outcome: ToolOutcome
            passages: list[dict[str, Any]] = []
            if isinstance(reply, RetrievalReplied):
                passages = await self._read_passages(reply)
                text, outcome = _list_passages(passages), "succeeded" if reply.outcome == "found" else reply.outcome
            elif isinstance(reply, ToolCallReplied):
                outcome = reply.outcome
                text = (
                    await self._context.blobs.get_text(feed.tenant, reply.content) if reply.content is not None else ""
                )
            else:
                raise LookupError("it is a call of a model")
        except (LookupError, BlobMissing, BlobCorrupt) as error:
            message = f"the outcome of call {call_id} cannot be read any more: {error}"
            raise DoorRefusal(
                502, "content_missing", message, "it was made: look at the task before making it again"
            ) from error
        failure = reply.failure
        if outcome != "succeeded" and failure is None:
            failure = Failure.from_text("tool_failed", "the tool gave no reason")
        if outcome == "uncertain" and failure is not None:
            failure = Failure.from_text(failure.code, failure.message, _uncertain_hint(feed, call_id))
        left_out = tuple(
            f"{omission.what}: {omission.detail}" if omission.detail else omission.what
            for omission in reply.completeness.omissions
        )
        return ToolCallAnswer(feed.task, call_id, outcome, text, failure, reply.standing, left_out, tuple(passages))

    async def _read_passages(self, reply: RetrievalReplied) -> list[dict[str, Any]]:
        """The passages, each with the place where it stands."""
        texts = await asyncio.gather(
            *(self._context.blobs.get_text(self.feed.tenant, passage.content) for passage in reply.passages)
        )
        return [
            row.citation.model_dump(mode="json") | {"title": row.title, "text": text}
            for row, text in zip(reply.passages, texts, strict=True)
        ]


def _list_passages(passages: Sequence[Mapping[str, Any]]) -> str:
    return "\n\n".join(
        f"[{row['document']} {row['start']}-{row['end']}] {row['title']}\n{row['text']}" for row in passages
    )


class ToolCalls:
    """The tool door: which call a request is, begun or joined. in_flight: the calls of this replica. announce_use:
    called with the run of each that is begun."""

    def __init__(
        self,
        context: Context,
        settings: Settings,
        runs: RunDirectory,
        in_flight: CallsInFlight[ToolRunCall],
        announce_use: Callable[[RunFeed], None],
    ) -> None:
        self._context, self._settings, self._runs = context, settings, runs
        self.in_flight, self._announce_use = in_flight, announce_use
        self._peers, self._notes = PeerReplicas(context.bus), WriteNotes(context)
        self._waiting = BoundedDict[CallKey, int](MAX_WRITES)
        """Of calls that were begun or joined here: how many wait for each."""
        self._asked = BoundedDict[CallKey, asyncio.Event](MAX_WRITES)
        """Of writes about which the other replicas are asked: set where a client waits for one."""

    async def call_tool(self, caller: Caller, tool_call: ParsedToolCall) -> ToolCallAnswer:
        """Make a call, or find it. Its asker may stop waiting: it goes on. Raises DoorRefusal."""
        self.in_flight.check_place(caller.claim)
        arguments_json = _canonical_arguments(tool_call)
        try:
            feed, call_id = await self._find_call(caller, tool_call, arguments_json)
        except BusError as error:
            raise refusals.mesh_unavailable(f"the message broker does not answer: {error}") from error
        # Nothing is awaited between the choice of its id and its start: the same request at once joins it.
        call = self.in_flight.find_call(feed.tenant, feed.task, call_id)
        if call is None:
            request = request_of(tool_call, call_id, feed, arguments_json, self._deadline_of(tool_call, feed))
            self.in_flight.check_place(caller.claim)  # Others may have begun in the meantime.
            is_write = tool_call.tool.effect == "write"
            call = ToolRunCall(self._context, self._settings, feed, request, is_write=is_write)
            self.in_flight.start_call(call, caller.claim)
            self._announce_use(feed)
        with call.telling_progress(tool_call.on_progress):
            alias = _call_id(feed, tool_call, arguments_json) if tool_call.unique else call_id
            return await self._hear_answer(call, alias if alias != call_id else "")

    def on_live_progress(self, live: LiveMessage) -> None:
        """Progress from `live.tool_executor.<tenant>.<task>`."""
        tenant, task = live.subject.split(".")[2:4]
        if not self.in_flight.has_call_of(tenant, task):
            return
        try:
            progress = ToolProgress.model_validate_json(live.body)
        except ValidationError:
            return
        if (call := self.in_flight.find_call(tenant, task, progress.call_id)) is not None:
            call.tell_progress(progress)

    async def _hear_answer(self, call: ToolRunCall, alias: str) -> ToolCallAnswer:
        """The answer of a call. Until a client has that of a write, the next call alike is this one. alias: the id of
        the request, where this is an earlier call. Raises DoorRefusal."""
        feed, key = call.feed, (call.feed.tenant, call.feed.task, call.call_id)
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            if alias and alias not in feed.aliases:
                await _publish_note(call, WriteNoted(call_id=call.call_id, alias=alias), "alias")
            answer = await asyncio.shield(call.outcome)
        finally:
            self._waiting[key] = self._waiting.get(key, 1) - 1
        if call.is_write and call.call_id in feed.unheard and answer.outcome != "uncertain":
            await _publish_note(call, WriteNoted(call_id=call.call_id, heard=True), "heard")
        return answer

    async def _find_abandoned_writes(self, feed: RunFeed, first_half: str) -> tuple[str, ...]:
        """Writes of this content whose answers nobody has heard, and for which nobody waits at another replica."""
        unheard = [call_id for call_id in feed.unheard if call_id.startswith(first_half)]
        followed = await asyncio.gather(*(self._is_followed_elsewhere(feed, call_id) for call_id in unheard))
        return tuple(call_id for call_id, is_followed in zip(unheard, followed, strict=True) if not is_followed)

    async def _is_followed_elsewhere(self, feed: RunFeed, call_id: str) -> bool:
        key = (feed.tenant, feed.task, call_id)
        if key in self._waiting:
            return False  # It was begun or joined here.
        event = self._asked.setdefault(key, asyncio.Event())
        try:
            await self._peers.publish_notice(key, CallFollowers(about=call_id))
            async with asyncio.timeout(min(ANSWER_S, self._settings.abandon_s)):
                return await event.wait()
        except TimeoutError:
            return False
        finally:
            self._asked.pop(key, None)

    def on_peer_notice(self, key: CallKey, notice: CallFollowers) -> None:
        """Note a notice of a replica, of this one perhaps: it asks who follows a call, or says that somebody does."""
        if notice.followed:
            if (event := self._asked.get(key)) is not None:
                event.set()
        elif self._waiting.get(key):
            self._peers.announce_followed(key)

    async def close(self) -> None:
        """End all that is in flight here: its askers ask again, elsewhere."""
        await self._peers.close()
        await self.in_flight.cancel_calls()

    async def _find_call(self, caller: Caller, tool_call: ParsedToolCall, arguments_json: str) -> tuple[RunFeed, str]:
        """The run and the id of a call, chosen last of all. Raises BusError, DoorRefusal."""
        feed = await self._run_answered_before(caller, tool_call, arguments_json)
        if feed is None and (doubtful := await self._find_doubtful_write(caller, tool_call, arguments_json)):
            return doubtful
        feed = feed or await self._runs.find_or_open(caller, NO_CONVERSATION)
        abandoned = await self._find_abandoned_writes(feed, _first_half(feed, tool_call, arguments_json))
        return feed, self._call_id_of(feed, tool_call, arguments_json, abandoned)

    async def _find_doubtful_write(
        self, caller: Caller, tool_call: ParsedToolCall, arguments_json: str
    ) -> tuple[RunFeed, str] | None:
        """The write of this content that may have been made, or whose result nobody has heard, in any run of this
        person or in the step that it holds. A key of its own says that this call is another one. Raises BusError,
        DoorRefusal.
        """
        if tool_call.keyed or tool_call.tool.effect != "write":
            return None
        for feed in await self._runs_of_write(caller, tool_call, arguments_json):
            if tool_call.unique and (joined := feed.aliases.get(_call_id(feed, tool_call, arguments_json))):
                return feed, joined
            first_half = _first_half(feed, tool_call, arguments_json)
            doubtful = [call_id for call_id in feed.uncertain if call_id.startswith(first_half)]
            if doubtful and not feed.has_reply(doubtful[0]):
                message = f"{tool_call.tool.name} was called alike in another step or attempt, and may have been done"
                raise DoorRefusal(409, "uncertain", message, _uncertain_hint(feed, feed.uncertain[doubtful[0]]))
            if not doubtful:
                abandoned = await self._find_abandoned_writes(feed, first_half)
                doubtful = [call_id for call_id in abandoned if await self._is_owed(feed, call_id)]
                # Others may have come for it in the meantime.
                doubtful = [call_id for call_id in doubtful if not self._waiting.get((feed.tenant, feed.task, call_id))]
            if doubtful:
                return feed, doubtful[0]
        return None

    async def _runs_of_write(
        self, caller: Caller, tool_call: ParsedToolCall, arguments_json: str
    ) -> tuple[RunFeed, ...]:
        """Runs in which a write of this content is owed an answer, the newest first. Raises BusError, DoorRefusal."""
        if caller.step is not None:
            return await self._runs.find_recent(caller, NO_CONVERSATION)
        key = note_key(caller.claim.person, tool_call.tool.name, arguments_json)
        noted = await self._notes.find_writes(caller.claim.tenant, key)
        joined = noted.run_joined_by(_second_half(tool_call)) if tool_call.unique else ""
        return await self._runs.find_runs(caller, ([joined] if joined else []) + noted.newest_runs())

    async def _is_owed(self, feed: RunFeed, call_id: str) -> bool:
        """True for a write that may be under way, or was made within a day. Raises BusError."""
        if feed.may_be_under_way(call_id):
            return True
        call_state = feed.calls[call_id]
        if call_state.kind != "replied" or call_state.time_unix_ms < self._context.clock() - KEY_HOLDS_MS:
            return False
        with suppress(LookupError):
            return (await feed.reply_of(call_id)).outcome == "succeeded"
        return False

    async def _run_answered_before(
        self, caller: Caller, tool_call: ParsedToolCall, arguments_json: str
    ) -> RunFeed | None:
        """The run in which this very request was answered, though another has taken its place. Raises BusError,
        DoorRefusal, also for a key that another call has.
        """
        if not tool_call.unique:
            return None
        for feed in await self._runs.find_recent(caller, NO_CONVERSATION, for_key=tool_call.keyed):
            call_id = _call_id(feed, tool_call, arguments_json)
            if self.in_flight.will_be_answered(feed, call_id) and (
                feed.is_open or not await _was_put_off(feed, call_id)
            ):
                return feed
            if tool_call.keyed:
                self.in_flight.check_key(feed, call_id)
        return None

    def _deadline_of(self, tool_call: ParsedToolCall, feed: RunFeed) -> int:
        most_ms = max(round(self._settings.call_timeout_s * 1000), tool_call.tool.timeout_ms)
        return min(self._context.clock() + most_ms, feed.deadline_unix_ms)

    def _call_id_of(
        self, feed: RunFeed, tool_call: ParsedToolCall, arguments_json: str, abandoned: Sequence[str]
    ) -> str:
        call_id = _call_id(feed, tool_call, arguments_json)
        if tool_call.unique and self.in_flight.is_known_call(feed, call_id):
            return call_id
        if tool_call.keyed:
            self.in_flight.check_key(feed, call_id)
        if joined := feed.aliases.get(call_id):
            return joined
        first_half = _first_half(feed, tool_call, arguments_json)
        earlier = self._awaiting_approval(feed, first_half)
        if not (earlier or tool_call.keyed):
            keys = ((feed.tenant, feed.task, unheard_id) for unheard_id in abandoned)
            earlier = next((key[2] for key in keys if not self._waiting.get(key)), "")
        if earlier:
            return earlier
        number = 0
        # Another client of the same key counts its requests alike: what is answered is not asked for again.
        while not tool_call.unique and feed.has_reply(call_id):
            number += 1
            call_id = _call_id(feed, tool_call, arguments_json, number)
        return call_id

    def _awaiting_approval(self, feed: RunFeed, first_half: str) -> str:
        """The call of this content that was put off for an approval, and that nobody waits for here; "" for none."""
        for call_id, call_state in feed.calls.items():
            is_waiting = call_state.kind != "replied" and call_state.held_for == refusals.APPROVAL_WANTED
            is_followed = self.in_flight.find_call(feed.tenant, feed.task, call_id) is not None
            if is_waiting and not is_followed and call_id.startswith(first_half):
                return call_id
        return ""


async def _publish_note(call: ToolRunCall, note: WriteNoted, index: str) -> None:
    with suppress(BusError):  # Then a call alike is taken for a repeat, which does less harm than a second write.
        await call.publish_note(note, index)


async def _was_put_off(feed: RunFeed, call_id: str) -> bool:
    """True for a call with the recorded outcome that it was not made, for a reason that passes. Raises BusError."""
    if not feed.has_reply(call_id):
        return False
    try:
        reply = await feed.reply_of(call_id)
    except LookupError:
        return False
    return reply.outcome in ("refused", "failed") and reply.failure is not None and reply.failure.code in PASSING


def _uncertain_hint(feed: RunFeed, call_id: str) -> str:
    """Why a write that may have been made is not made again, and what to do."""
    command = f"bulkhead writes resolve {write_id_of(feed.task, call_id)}"
    return (
        "it is not made again, so that it does not happen twice: a person must look at its target, then say "
        f"`{command} --happened` or `--not-happened`, with a --reason; the next call alike has that as its answer, or "
        "makes it; "
        f"{ANOTHER_WRITE}"
    )


def _call_id(feed: RunFeed, tool_call: ParsedToolCall, arguments_json: str, number: int = 0) -> str:
    return _first_half(feed, tool_call, arguments_json) + _second_half(tool_call, number)


def _second_half(tool_call: ParsedToolCall, number: int = 0) -> str:
    return half_id(f"{tool_call.request}/{number}")


def _first_half(feed: RunFeed, tool_call: ParsedToolCall, arguments_json: str) -> str:
    return feed.prefix + half_id(f"{feed.task}/{tool_call.tool.name}/{arguments_json}")


def _canonical_arguments(tool_call: ParsedToolCall) -> str:
    """The same text for the same arguments. Raises DoorRefusal."""
    try:
        text = rfc8785.dumps(dict(tool_call.arguments)).decode()
    except ValueError as error:
        raise DoorRefusal(400, "bad_arguments", f"the arguments have no canonical form: {error}") from error
    if len(text) > bounds.MAX_ARGUMENTS_BYTES:
        message = f"the arguments take {len(text)} bytes, and may take {bounds.MAX_ARGUMENTS_BYTES}"
        raise DoorRefusal(400, "bad_arguments", message, "send less at once")
    return text
