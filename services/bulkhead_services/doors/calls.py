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
from bulkhead.bus.port import BusError, Live
from bulkhead.callers.shares import Shares
from bulkhead.grants import GrantRefused
from bulkhead.runtime.background import cancel
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.live_text import text_delta
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.model import Conversation, ModelCallRequested
from bulkhead_contracts.task import TaskLimits
from bulkhead_services.doors import refusals
from bulkhead_services.doors.conversations.contents import Contents, canonical, too_many
from bulkhead_services.doors.conversations.responses import Responses
from bulkhead_services.doors.feed import Feed, Feeds
from bulkhead_services.doors.flight import Flight, FollowedCall
from bulkhead_services.doors.followers import Followers, Place
from bulkhead_services.doors.journey import Journey
from bulkhead_services.doors.port import Asked, Caller, Refusal, Standing
from bulkhead_services.doors.runs import Runs
from bulkhead_services.doors.settings import Settings
from bulkhead_services.doors.stored_bytes import StoredBytes

PROMPT = "adopted@1"
MAX_REPEATS = 10_000
"""Contents of requests of which it is remembered how often they were sent."""


class Calls:
    """The calls of this replica."""

    def __init__(self, context: Context, settings: Settings, feeds: Feeds, stored: StoredBytes) -> None:
        self._context, self._settings, self._feeds = context, settings, feeds
        self._flights: dict[Place, Flight] = {}
        self.followers = Followers(context.bus, settings.abandon_s)
        self._shares = Shares(settings.max_calls, settings.max_calls_per_tenant, settings.max_calls_per_person)
        self._of_steps = Counter[str]()
        """Calls in flight of delegated steps, by task."""
        self._working: set[asyncio.Task[None]] = set()
        self._repeats = BoundedDict[tuple[str, str], int](MAX_REPEATS)
        self._contents = Contents(context, stored)
        self._responses = Responses(context, self._contents)

    def busy(self, feed: Feed) -> bool:
        """Whether a call of this run is in flight here."""
        return any(place[:2] == (feed.tenant, feed.task) for place in self._flights)

    @property
    def in_flight(self) -> int:
        """How many are."""
        return self._shares.held

    async def ask(self, runs: Runs, caller: Caller, asked: Asked) -> FollowedCall:
        """Store a call in its run, which is opened when there is none. Raises Refusal."""
        # Also of askers who have gone away.
        if (full := self._shares.full(caller.claim.tenant, caller.claim.person)) is not None:
            raise refusals.too_many_calls(full, "in flight", "wait for one of them; each goes on to its end")
        _check(asked)
        try:
            return await self._ask(runs, caller, asked)
        except BusError as error:
            raise refusals.unavailable(f"the message broker does not answer: {error}") from error

    async def _ask(self, runs: Runs, caller: Caller, asked: Asked) -> FollowedCall:
        before = await self._responses.before(runs, caller, asked.previous) if asked.previous else None
        if before is not None and before.feed.is_open and not (caller.task or caller.run or caller.step):
            caller = replace(caller, task=before.feed.task)
        # Whoever has no run leaves nothing in the store, which is everybody's.
        known = await runs.known(caller, asked) if caller.retry else None
        current = known or await runs.current(caller, asked)
        then = (before.messages, before.answer, before.thread) if before is not None else ((), None, "")
        conversation = await self._contents.stored(caller.claim.tenant, asked, *then)
        digest = _digest(asked, conversation)
        conversation = await self._contents.listed(caller.claim.tenant, conversation)
        if caller.retry and known is not None:
            # Of a run that has ended meanwhile, the answer is still there.
            call_id = self._newest(known, caller, digest)
            if call_id and (known.is_open or self._stands(known, call_id)):
                return await self._begin(known, call_id, caller, asked, conversation)
            current = await runs.current(caller, asked)
        call_id = self._newest(current, caller, digest) if caller.retry else ""
        call_id = call_id or self._next(current, caller, digest)
        return await self._begin(current, call_id, caller, asked, conversation)

    # Which call

    def _next(self, feed: Feed, caller: Caller, digest: str) -> str:
        """The id of a request that is no repeat: the first of its content that is not taken."""
        if caller.idempotency_key:
            return _call_id(feed, digest, f"key/{caller.idempotency_key}")
        number = self._repeats.use((feed.task, digest)) or 1
        while self._taken(feed, call_id := _call_id(feed, digest, str(number))):
            number += 1
        self._repeats[feed.task, digest] = number
        return call_id

    def _newest(self, feed: Feed, caller: Caller, digest: str) -> str:
        """The id of the call that a repeated request repeats; "" where none of its content is known."""
        if caller.idempotency_key:
            call_id = _call_id(feed, digest, f"key/{caller.idempotency_key}")
            return call_id if self._taken(feed, call_id) else ""
        number, found = self._repeats.use((feed.task, digest)) or 1, ""
        while self._taken(feed, call_id := _call_id(feed, digest, str(number))):
            number, found = number + 1, call_id
        word, asked_ms = feed.calls.get(found), round(self._settings.call_timeout_s * 1000)
        if word is not None and word.kind == "replied" and self._context.clock() - word.time_unix_ms > asked_ms:
            return ""  # Nobody waits so long to repeat: the try that is repeated never came here.
        return found

    def _taken(self, feed: Feed, call_id: str) -> bool:
        return call_id in feed.calls or (feed.tenant, feed.task, call_id) in self._flights

    def _stands(self, feed: Feed, call_id: str) -> bool:
        """Whether it needs no other message to be answered."""
        word = feed.calls.get(call_id)
        return (feed.tenant, feed.task, call_id) in self._flights or (word is not None and word.kind == "replied")

    # The call

    async def _begin(
        self, feed: Feed, call_id: str, caller: Caller, asked: Asked, conversation: Conversation
    ) -> FollowedCall:
        """Follow a call that is in flight here, or send it. Raises Refusal, BusError."""
        place = (feed.tenant, feed.task, call_id)
        flight = self._flights.get(place)
        if flight is None:
            request = self._request(call_id, feed, asked, conversation)
            warning = "" if call_id in feed.calls else feed.warning(self._context.clock())
            flight = self._flights[place] = Flight(call_id, warning, partial(self.followers.changed, place))
            self._of_steps[feed.task] += bool(feed.prefix)
            work = asyncio.create_task(self._fly(flight, feed, request, caller))
            self._working.add(work)
            work.add_done_callback(self._working.discard)
            self.followers.changed(place, flight)  # Its asker may be gone before it follows.
        stored, kept_as = await asyncio.gather(
            asyncio.shield(flight.stored), self._kept_as(feed, call_id, asked, conversation)
        )
        if not stored:
            await asyncio.shield(flight.outcome)
        return FollowedCall(flight, lambda: self._standing(feed, flight), kept_as)

    async def _kept_as(self, feed: Feed, call_id: str, asked: Asked, conversation: Conversation) -> str:
        return await self._responses.keep(feed, call_id, asked, conversation) if asked.keep else ""

    def _request(self, call_id: str, feed: Feed, asked: Asked, conversation: Conversation) -> ModelCallRequested:
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

    async def _fly(self, flight: Flight, feed: Feed, request: ModelCallRequested, caller: Caller) -> None:
        """Send a call and see it to its end, whoever still follows it. caller: whose share it is of; its model is shown
        a warning where he wants notes."""
        claim = caller.claim
        self._shares.take(claim.tenant, claim.person)
        try:
            with self._feeds.watching(feed):
                journey = Journey(self._context, self._settings, flight, feed, request)
                await journey.depart(self._settings.warning_notes and caller.notes)
                flight.stored.set_result(True)
                flight.end(await journey.arrive())
        except Refusal as refusal:
            flight.end(refusal)
        except BusError as error:
            flight.end(refusals.unavailable(f"the message broker does not answer: {error}"))
        finally:
            # Else nothing: whoever follows is not left alone when this replica goes away.
            flight.end(refusals.unavailable("this replica goes away", retry_after_s=1.0))
            if not flight.stored.done():
                flight.stored.set_result(False)
            del self._flights[place := (feed.tenant, feed.task, flight.call_id)]
            self.followers.over(place)
            self._shares.give(claim.tenant, claim.person)

    def _standing(self, feed: Feed, flight: Flight) -> Standing:
        try:
            now = self._context.clock()
            grant = self._context.verifier.authority(feed.grant, tenant=feed.tenant, task=feed.task, now_unix_ms=now)
            limits = grant.task.limits
        except GrantRefused:
            limits = TaskLimits(cost_usd_micros=0, tokens=0)  # Its time is over; nothing is left of it.
        usage = feed.usage
        return Standing(
            task=feed.task,
            spent_usd_micros=usage.cost_usd_micros,
            spent_tokens=usage.input_tokens + usage.output_tokens,
            limit_usd_micros=limits.cost_usd_micros,
            limit_tokens=limits.tokens,
            warning=flight.warning,
        )

    # Text as it comes

    def hear(self, live: Live) -> None:
        """A text delta from `live.model_gateway.<tenant>.<task>`."""
        # Nearly all is of other tasks: none of it is read further.
        task = live.subject.rpartition(".")[2]
        if (subjects.is_of_doors(task) or self._of_steps[task]) and (heard := text_delta(live)) is not None:
            tenant, task, delta = heard
            if (flight := self._flights.get((tenant, task, delta.call_id))) is not None:
                flight.hear(delta)

    async def close(self) -> None:
        """End all that is in flight here: its askers ask again, elsewhere."""
        await self.followers.close()
        await cancel(*self._working)


def _check(asked: Asked) -> None:
    """Refuse what no model gateway takes."""
    if not asked.messages:
        raise Refusal(400, "no_messages", "the conversation is empty", "send a message at least")
    if len(asked.messages) > bounds.MAX_CONVERSATION:
        raise too_many(len(asked.messages))
    if not 1 <= len(asked.model) <= bounds.MAX_NAME_CHARS:
        what = f"a model's name has 1-{bounds.MAX_NAME_CHARS} characters"
        raise Refusal(404, "unknown_route", what, "ask for the list of models")


def _digest(asked: Asked, conversation: Conversation) -> str:
    refs = (*conversation.messages, *((conversation.options,) if conversation.options else ()))
    said = [asked.model, asked.max_output_tokens, conversation.options is not None, *(ref.sha256 for ref in refs)]
    return hashlib.blake2b(canonical(said), digest_size=16).hexdigest()


def _call_id(feed: Feed, digest: str, which: str) -> str:
    return feed.prefix + hashlib.blake2b(f"{feed.task}/{digest}/{which}".encode(), digest_size=16).hexdigest()
