"""Model calls of outside agents: each is stored, paid and answered once, however often it is sent.

In: what a form read. Out: `ModelCallRequested` under the run's grant; a call whose text can be followed, and its answer
from the record. The id of a call derives from its run and its content: the same request sent again is the same call,
also at another replica, and after this one was killed.
"""

import asyncio
import hashlib
from collections import Counter
from dataclasses import replace
from functools import partial

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusError, LiveMessage
from bulkhead.callers.shares import Shares
from bulkhead.grants import GrantRefused
from bulkhead.runtime.background import cancel_tasks
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.live_text import text_delta
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.model import Conversation, ModelCallRequested
from bulkhead_contracts.task import TaskLimits
from bulkhead_services.doors import refusals
from bulkhead_services.doors.conversations.contents import ConversationBlobs, canonical_json, too_many_messages
from bulkhead_services.doors.conversations.responses import ResponseStore
from bulkhead_services.doors.feed import RunFeed, RunFeeds
from bulkhead_services.doors.flight import FollowedCall, InFlightCall
from bulkhead_services.doors.followers import FollowerRegistry, Place
from bulkhead_services.doors.journey import ModelCallExchange
from bulkhead_services.doors.port import Caller, DoorRefusal, ParsedModelCall, RunSpending
from bulkhead_services.doors.runs import RunDirectory
from bulkhead_services.doors.settings import Settings
from bulkhead_services.doors.stored_bytes import StoredBytes

PROMPT = "adopted@1"
MAX_REPEATS = 10_000
"""Contents of requests of which it is remembered how often they were sent."""


class ModelCalls:
    """The calls of this replica."""

    def __init__(self, context: Context, settings: Settings, feeds: RunFeeds, stored: StoredBytes) -> None:
        self._context, self._settings, self._feeds = context, settings, feeds
        self._flights: dict[Place, InFlightCall] = {}
        self.followers = FollowerRegistry(context.bus, settings.abandon_s)
        self._shares = Shares(settings.max_calls, settings.max_calls_per_tenant, settings.max_calls_per_person)
        self._of_steps = Counter[str]()
        """Calls in flight of delegated steps, by task."""
        self._working: set[asyncio.Task[None]] = set()
        self._repeats = BoundedDict[tuple[str, str], int](MAX_REPEATS)
        self._contents = ConversationBlobs(context, stored)
        self._responses = ResponseStore(context, self._contents)

    def has_call_in_flight(self, feed: RunFeed) -> bool:
        """True when a call of this run is in flight here."""
        return any(place[:2] == (feed.tenant, feed.task) for place in self._flights)

    @property
    def in_flight(self) -> int:
        """Number of calls in flight here."""
        return self._shares.held

    async def store_call(self, runs: RunDirectory, caller: Caller, asked: ParsedModelCall) -> FollowedCall:
        """Store a call in its run, which is opened when there is none. Raises DoorRefusal."""
        # Also of askers who have gone away.
        if (full := self._shares.first_full_share(caller.claim.tenant, caller.claim.person)) is not None:
            raise refusals.too_many_calls(full, "in flight", "wait for one of them; each goes on to its end")
        _check_request(asked)
        try:
            return await self._store_in_run(runs, caller, asked)
        except BusError as error:
            raise refusals.mesh_unavailable(f"the message broker does not answer: {error}") from error

    async def _store_in_run(self, runs: RunDirectory, caller: Caller, asked: ParsedModelCall) -> FollowedCall:
        before = await self._responses.find_previous(runs, caller, asked.previous) if asked.previous else None
        if before is not None and before.feed.is_open and not (caller.task or caller.run or caller.step):
            caller = replace(caller, task=before.feed.task)
        # Whoever has no run leaves nothing in the store, which is everybody's.
        known_run = await runs.find_known(caller, asked) if caller.retry else None
        current = known_run or await runs.find_or_open(caller, asked)
        continuation = (before.messages, before.answer, before.thread) if before is not None else ((), None, "")
        conversation = await self._contents.store_conversation(caller.claim.tenant, asked, *continuation)
        digest = _content_digest(asked, conversation)
        conversation = await self._contents.fold_into_lists(caller.claim.tenant, conversation)
        if caller.retry and known_run is not None:
            # Of a run that has ended meanwhile, the answer is still there.
            call_id = self._repeated_call_id(known_run, caller, digest)
            if call_id and (known_run.is_open or self._will_be_answered(known_run, call_id)):
                return await self._follow_or_send(known_run, call_id, caller, asked, conversation)
            current = await runs.find_or_open(caller, asked)
        call_id = self._repeated_call_id(current, caller, digest) if caller.retry else ""
        call_id = call_id or self._next_call_id(current, caller, digest)
        return await self._follow_or_send(current, call_id, caller, asked, conversation)

    # Which call

    def _next_call_id(self, feed: RunFeed, caller: Caller, digest: str) -> str:
        """The id of a request that is no repeat: the first of its content that is not taken."""
        if caller.idempotency_key:
            return _call_id(feed, digest, f"key/{caller.idempotency_key}")
        number = self._repeats.get_refreshed((feed.task, digest)) or 1
        while self._is_known_call(feed, call_id := _call_id(feed, digest, str(number))):
            number += 1
        self._repeats[feed.task, digest] = number
        return call_id

    def _repeated_call_id(self, feed: RunFeed, caller: Caller, digest: str) -> str:
        """The id of the call that a repeated request repeats; "" where none of its content is known."""
        if caller.idempotency_key:
            call_id = _call_id(feed, digest, f"key/{caller.idempotency_key}")
            return call_id if self._is_known_call(feed, call_id) else ""
        number, newest_id = self._repeats.get_refreshed((feed.task, digest)) or 1, ""
        while self._is_known_call(feed, call_id := _call_id(feed, digest, str(number))):
            number, newest_id = number + 1, call_id
        call_state, asked_ms = feed.calls.get(newest_id), round(self._settings.call_timeout_s * 1000)
        if (
            call_state is not None
            and call_state.kind == "replied"
            and self._context.clock() - call_state.time_unix_ms > asked_ms
        ):
            return ""  # Nobody waits so long to repeat: the try that is repeated never came here.
        return newest_id

    def _is_known_call(self, feed: RunFeed, call_id: str) -> bool:
        return call_id in feed.calls or (feed.tenant, feed.task, call_id) in self._flights

    def _will_be_answered(self, feed: RunFeed, call_id: str) -> bool:
        """True when it needs no other message to be answered."""
        call_state = feed.calls.get(call_id)
        return (feed.tenant, feed.task, call_id) in self._flights or (
            call_state is not None and call_state.kind == "replied"
        )

    # The call

    async def _follow_or_send(
        self, feed: RunFeed, call_id: str, caller: Caller, asked: ParsedModelCall, conversation: Conversation
    ) -> FollowedCall:
        """Follow a call that is in flight here, or send it. Raises DoorRefusal, BusError."""
        place = (feed.tenant, feed.task, call_id)
        flight = self._flights.get(place)
        if flight is None:
            request = self._build_request(call_id, feed, asked, conversation)
            warning = "" if call_id in feed.calls else feed.take_pending_warning(self._context.clock())
            flight = self._flights[place] = InFlightCall(
                call_id, warning, partial(self.followers.on_followers_changed, place)
            )
            self._of_steps[feed.task] += bool(feed.prefix)
            work = asyncio.create_task(self._drive_call(flight, feed, request, caller))
            self._working.add(work)
            work.add_done_callback(self._working.discard)
            self.followers.on_followers_changed(place, flight)  # Its asker may be gone before it follows.
        stored, kept_as = await asyncio.gather(
            asyncio.shield(flight.stored), self._keep_response(feed, call_id, asked, conversation)
        )
        if not stored:
            await asyncio.shield(flight.outcome)
        return FollowedCall(flight, lambda: self._run_spending(feed, flight), kept_as)

    async def _keep_response(
        self, feed: RunFeed, call_id: str, asked: ParsedModelCall, conversation: Conversation
    ) -> str:
        return await self._responses.keep_response(feed, call_id, asked, conversation) if asked.keep else ""

    def _build_request(
        self, call_id: str, feed: RunFeed, asked: ParsedModelCall, conversation: Conversation
    ) -> ModelCallRequested:
        assert feed.assigned is not None
        until = self._context.clock() + round(self._settings.call_timeout_s * 1000)
        return ModelCallRequested(
            call_id=call_id,
            step_id=feed.assigned.step.id,
            attempt=feed.assigned.attempt,
            prompt_id=PROMPT,
            tier=asked.model,
            max_output_tokens=asked.max_output_tokens or self._settings.output_tokens,
            stream=True,
            deadline_unix_ms=min(until, feed.deadline_unix_ms),
            conversation=conversation,
        )

    async def _drive_call(
        self, flight: InFlightCall, feed: RunFeed, request: ModelCallRequested, caller: Caller
    ) -> None:
        """Send a call and see it to its end, whoever still follows it. caller: whose share it is of; its model is shown
        a warning where he wants notes."""
        claim = caller.claim
        self._shares.hold_amount(claim.tenant, claim.person)
        try:
            with self._feeds.watching_feed(feed):
                journey = ModelCallExchange(self._context, self._settings, flight, feed, request)
                await journey.send_or_resend(self._settings.warning_notes and caller.notes)
                flight.stored.set_result(True)
                flight.set_outcome(await journey.wait_for_answer())
        except DoorRefusal as refusal:
            flight.set_outcome(refusal)
        except BusError as error:
            flight.set_outcome(refusals.mesh_unavailable(f"the message broker does not answer: {error}"))
        finally:
            # Else nothing: whoever follows is not left alone when this replica goes away.
            flight.set_outcome(refusals.mesh_unavailable("this replica goes away", retry_after_s=1.0))
            if not flight.stored.done():
                flight.stored.set_result(False)
            del self._flights[place := (feed.tenant, feed.task, flight.call_id)]
            self.followers.on_call_ended(place)
            self._shares.release_amount(claim.tenant, claim.person)

    def _run_spending(self, feed: RunFeed, flight: InFlightCall) -> RunSpending:
        try:
            now_ms = self._context.clock()
            grant = self._context.verifier.verify_authority(
                feed.grant, tenant=feed.tenant, task=feed.task, now_unix_ms=now_ms
            )
            limits = grant.task.limits
        except GrantRefused:
            limits = TaskLimits(cost_usd_micros=0, tokens=0)  # Its time is over; nothing is left of it.
        usage = feed.usage
        return RunSpending(
            task=feed.task,
            spent_usd_micros=usage.cost_usd_micros,
            spent_tokens=usage.input_tokens + usage.output_tokens,
            limit_usd_micros=limits.cost_usd_micros,
            limit_tokens=limits.tokens,
            warning=flight.warning,
        )

    # Text as it comes

    def on_live_text(self, live: LiveMessage) -> None:
        """A text delta from `live.model_gateway.<tenant>.<task>`."""
        # Nearly all is of other tasks: none of it is read further.
        task = live.subject.rpartition(".")[2]
        if (subjects.is_of_doors(task) or self._of_steps[task]) and (heard := text_delta(live)) is not None:
            tenant, task, delta = heard
            if (flight := self._flights.get((tenant, task, delta.call_id))) is not None:
                flight.on_text_delta(delta)

    async def close(self) -> None:
        """End all that is in flight here: its askers ask again, elsewhere."""
        await self.followers.close()
        await cancel_tasks(*self._working)


def _check_request(asked: ParsedModelCall) -> None:
    """Refuse what no model gateway takes."""
    if not asked.messages:
        raise DoorRefusal(400, "no_messages", "the conversation is empty", "send a message at least")
    if len(asked.messages) > bounds.MAX_CONVERSATION:
        raise too_many_messages(len(asked.messages))
    if not 1 <= len(asked.model) <= bounds.MAX_NAME_CHARS:
        message = f"a model's name has 1-{bounds.MAX_NAME_CHARS} characters"
        raise DoorRefusal(404, "unknown_route", message, "ask for the list of models")


def _content_digest(asked: ParsedModelCall, conversation: Conversation) -> str:
    refs = (*conversation.messages, *((conversation.options,) if conversation.options else ()))
    content = [asked.model, asked.max_output_tokens, conversation.options is not None, *(ref.sha256 for ref in refs)]
    return hashlib.blake2b(canonical_json(content), digest_size=16).hexdigest()


def _call_id(feed: RunFeed, digest: str, which: str) -> str:
    return feed.prefix + hashlib.blake2b(f"{feed.task}/{digest}/{which}".encode(), digest_size=16).hexdigest()
