"""Calls of tools by outside agents: each is made once, under the run that the same caller's model calls have.

In: what an MCP client asked. Out: `ToolCallRequested` (or `RetrievalRequested`) under the run's grant; its outcome from
the record. The first half of a call's id derives from the run, the tool and its arguments, the second from the client's
own id of the request. A call that waits for an approval is found by its first half: who asks again, under whatever id,
asks for that one.
"""

import asyncio
import hashlib
from collections.abc import Callable

import rfc8785

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusError
from bulkhead.callers.shares import Shares
from bulkhead.runtime.background import cancel
from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors import refusals
from bulkhead_services.doors.feed import Feed, Feeds
from bulkhead_services.doors.mcp.journey import ToolJourney, request_of
from bulkhead_services.doors.mcp.port import ToolAnswered, ToolAsked
from bulkhead_services.doors.port import Asked, Caller, Refusal
from bulkhead_services.doors.runs import Runs
from bulkhead_services.doors.settings import Settings

Place = tuple[str, str, str]
"""Tenant, task, call."""
MAX_JOINED = 10_000
NO_CONVERSATION = Asked(model="", messages=(), options={}, max_output_tokens=None, stream=False)


class ToolCalls:
    """The tool calls of this replica. begun: called with the run of each."""

    def __init__(self, context: Context, settings: Settings, feeds: Feeds, begun: Callable[[Feed], None]) -> None:
        self._context, self._settings, self._feeds, self._begun = context, settings, feeds, begun
        self._flights: dict[Place, asyncio.Task[ToolAnswered]] = {}
        self._joined = BoundedDict[Place, str](MAX_JOINED)
        """Of requests that joined a call that waits for an approval: their own ids, and its."""
        self._shares = Shares(settings.max_calls, settings.max_calls_per_tenant, settings.max_calls_per_person)

    def busy(self, feed: Feed) -> bool:
        """Whether a call of this run is in flight here."""
        return any(place[:2] == (feed.tenant, feed.task) for place in self._flights)

    async def call(self, runs: Runs, caller: Caller, asked: ToolAsked) -> ToolAnswered:
        """Make a call, or find it. Who stops waiting leaves it on its way. Raises Refusal."""
        self._check_share(caller.claim)
        arguments_json = _canonical(asked)
        try:
            before = await self._made_before(runs, caller, asked, arguments_json)
            feed = before or await runs.current(caller, NO_CONVERSATION)
        except BusError as error:
            raise refusals.unavailable(f"the message broker does not answer: {error}") from error
        call_id = self._which(feed, asked, arguments_json)
        place = (feed.tenant, feed.task, call_id)
        flight = self._flights.get(place)
        if flight is None:
            request = request_of(asked.tool, call_id, feed, arguments_json, self._until(asked, feed))
            self._check_share(caller.claim)  # Others may have begun in the meantime.
            self._shares.take(caller.claim.tenant, caller.claim.person)
            journey = ToolJourney(self._context, self._settings, feed, request)
            flight = self._flights[place] = asyncio.create_task(self._fly(feed, journey))
            flight.add_done_callback(lambda done: self._landed(place, caller.claim, done))
            self._begun(feed)
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            if flight.cancelled():
                raise refusals.unavailable("this replica goes away", retry_after_s=1.0) from None
            raise

    def _check_share(self, claim: RequesterClaim) -> None:
        """Judge whether another call may be in flight; calls of askers who have gone away count, too. Raises
        Refusal."""
        if (full := self._shares.full(claim.tenant, claim.person)) is not None:
            raise refusals.too_many_calls(full, "of tools in flight", "wait for one of them")

    async def _made_before(self, runs: Runs, caller: Caller, asked: ToolAsked, arguments_json: str) -> Feed | None:
        """The run in which this very request was answered, though another has taken its place. Raises BusError,
        Refusal."""
        if not asked.unique:
            return None
        for feed in await runs.lately(caller, NO_CONVERSATION):
            known = (
                feed.prefix + _half(f"{feed.task}/{asked.tool.name}/{arguments_json}") + _half(f"{asked.request}/{0}")
            )
            if self._answered(feed, known) or (feed.tenant, feed.task, known) in self._flights:
                return feed
        return None

    def _until(self, asked: ToolAsked, feed: Feed) -> int:
        most_ms = max(round(self._settings.call_timeout_s * 1000), asked.tool.timeout_ms)
        return min(self._context.clock() + most_ms, feed.deadline_unix_ms)

    def _which(self, feed: Feed, asked: ToolAsked, arguments_json: str) -> str:
        half = feed.prefix + _half(f"{feed.task}/{asked.tool.name}/{arguments_json}")
        known = half + _half(f"{asked.request}/{0}")
        if asked.unique and self._taken(feed, known):
            return known
        if joined := self._joined.use((feed.tenant, feed.task, known)):
            return joined
        if waiting := self._waiting(feed, half):
            if asked.unique:
                self._joined[feed.tenant, feed.task, known] = waiting
            return waiting
        number = 0
        # Another client of the same key counts its requests alike: what is answered is not asked for again.
        while not asked.unique and self._answered(feed, known):
            number += 1
            known = half + _half(f"{asked.request}/{number}")
        return known

    def _waiting(self, feed: Feed, half: str) -> str:
        """The call of this content that was put off for an approval, and that nobody waits for here; "" for none."""
        for call_id, word in feed.calls.items():
            asks = word.kind != "replied" and word.held_for == refusals.APPROVAL_WANTED
            if asks and call_id.startswith(half) and (feed.tenant, feed.task, call_id) not in self._flights:
                return call_id
        return ""

    def _taken(self, feed: Feed, call_id: str) -> bool:
        return call_id in feed.calls or (feed.tenant, feed.task, call_id) in self._flights

    def _answered(self, feed: Feed, call_id: str) -> bool:
        word = feed.calls.get(call_id)
        return word is not None and word.kind == "replied"

    async def _fly(self, feed: Feed, journey: ToolJourney) -> ToolAnswered:
        """See a call to its end, whoever still waits for it."""
        try:
            with self._feeds.watching(feed):
                await journey.depart()
                return await journey.arrive()
        except BusError as error:
            if journey.sent:
                raise journey.unknown(f"the message broker does not answer: {error}") from error
            raise refusals.unavailable(f"the message broker does not answer: {error}") from error

    def _landed(self, place: Place, claim: RequesterClaim, flight: "asyncio.Task[ToolAnswered]") -> None:
        del self._flights[place]
        self._shares.give(claim.tenant, claim.person)
        if not flight.cancelled():
            flight.exception()  # All who waited for it may have gone.

    async def close(self) -> None:
        """End the waiting here: the calls go on, and their askers ask again, elsewhere."""
        await cancel(*self._flights.values())


def _half(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()


def _canonical(asked: ToolAsked) -> str:
    """The same text for the same arguments. Raises Refusal."""
    try:
        found = rfc8785.dumps(dict(asked.arguments)).decode()
    except ValueError as error:
        raise Refusal(400, "bad_arguments", f"the arguments have no canonical form: {error}") from error
    if len(found) > bounds.MAX_ARGUMENTS_BYTES:
        what = f"the arguments take {len(found)} bytes, and may take {bounds.MAX_ARGUMENTS_BYTES}"
        raise Refusal(400, "bad_arguments", what, "send less at once")
    return found
