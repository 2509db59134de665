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
from bulkhead.runtime.background import cancel_tasks
from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors import refusals
from bulkhead_services.doors.feed import RunFeed, RunFeeds
from bulkhead_services.doors.mcp.journey import ToolCallExchange, request_of
from bulkhead_services.doors.mcp.port import ParsedToolCall, ToolCallAnswer
from bulkhead_services.doors.port import Caller, DoorRefusal, ParsedModelCall
from bulkhead_services.doors.runs import RunDirectory
from bulkhead_services.doors.settings import Settings

Place = tuple[str, str, str]
"""Tenant, task, call."""
MAX_JOINED = 10_000
NO_CONVERSATION = ParsedModelCall(model="", messages=(), options={}, max_output_tokens=None, stream=False)


class ToolCalls:
    """The tool calls of this replica. begun: called with the run of each."""

    def __init__(self, context: Context, settings: Settings, feeds: RunFeeds, begun: Callable[[RunFeed], None]) -> None:
        self._context, self._settings, self._feeds, self._begun = context, settings, feeds, begun
        self._flights: dict[Place, asyncio.Task[ToolCallAnswer]] = {}
        self._joined = BoundedDict[Place, str](MAX_JOINED)
        """Of requests that joined a call that waits for an approval: their own ids, and its."""
        self._shares = Shares(settings.max_calls, settings.max_calls_per_tenant, settings.max_calls_per_person)

    def has_call_in_flight(self, feed: RunFeed) -> bool:
        """True when a call of this run is in flight here."""
        return any(place[:2] == (feed.tenant, feed.task) for place in self._flights)

    async def call_tool(self, runs: RunDirectory, caller: Caller, asked: ParsedToolCall) -> ToolCallAnswer:
        """Make a call, or find it. Who stops waiting leaves it on its way. Raises DoorRefusal."""
        self._check_share(caller.claim)
        arguments_json = _canonical_arguments(asked)
        try:
            before = await self._run_answered_before(runs, caller, asked, arguments_json)
            feed = before or await runs.find_or_open(caller, NO_CONVERSATION)
        except BusError as error:
            raise refusals.mesh_unavailable(f"the message broker does not answer: {error}") from error
        call_id = self._call_id_of(feed, asked, arguments_json)
        place = (feed.tenant, feed.task, call_id)
        flight = self._flights.get(place)
        if flight is None:
            request = request_of(asked.tool, call_id, feed, arguments_json, self._deadline_of(asked, feed))
            self._check_share(caller.claim)  # Others may have begun in the meantime.
            self._shares.hold_amount(caller.claim.tenant, caller.claim.person)
            journey = ToolCallExchange(self._context, self._settings, feed, request)
            flight = self._flights[place] = asyncio.create_task(self._drive_call(feed, journey))
            flight.add_done_callback(lambda done: self._on_call_done(place, caller.claim, done))
            self._begun(feed)
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            if flight.cancelled():
                raise refusals.mesh_unavailable("this replica goes away", retry_after_s=1.0) from None
            raise

    def _check_share(self, claim: RequesterClaim) -> None:
        """Judge whether another call may be in flight; calls of askers who have gone away count, too. Raises
        DoorRefusal.
        """
        if (full := self._shares.first_full_share(claim.tenant, claim.person)) is not None:
            raise refusals.too_many_calls(full, "of tools in flight", "wait for one of them")

    async def _run_answered_before(
        self, runs: RunDirectory, caller: Caller, asked: ParsedToolCall, arguments_json: str
    ) -> RunFeed | None:
        """The run in which this very request was answered, though another has taken its place. Raises BusError,
        DoorRefusal.
        """
        if not asked.unique:
            return None
        for feed in await runs.find_recent(caller, NO_CONVERSATION):
            call_id = (
                feed.prefix
                + _half_id(f"{feed.task}/{asked.tool.name}/{arguments_json}")
                + _half_id(f"{asked.request}/{0}")
            )
            if self._is_answered(feed, call_id) or (feed.tenant, feed.task, call_id) in self._flights:
                return feed
        return None

    def _deadline_of(self, asked: ParsedToolCall, feed: RunFeed) -> int:
        most_ms = max(round(self._settings.call_timeout_s * 1000), asked.tool.timeout_ms)
        return min(self._context.clock() + most_ms, feed.deadline_unix_ms)

    def _call_id_of(self, feed: RunFeed, asked: ParsedToolCall, arguments_json: str) -> str:
        half = feed.prefix + _half_id(f"{feed.task}/{asked.tool.name}/{arguments_json}")
        call_id = half + _half_id(f"{asked.request}/{0}")
        if asked.unique and self._is_known_call(feed, call_id):
            return call_id
        if joined := self._joined.get_refreshed((feed.tenant, feed.task, call_id)):
            return joined
        if waiting := self._awaiting_approval(feed, half):
            if asked.unique:
                self._joined[feed.tenant, feed.task, call_id] = waiting
            return waiting
        number = 0
        # Another client of the same key counts its requests alike: what is answered is not asked for again.
        while not asked.unique and self._is_answered(feed, call_id):
            number += 1
            call_id = half + _half_id(f"{asked.request}/{number}")
        return call_id

    def _awaiting_approval(self, feed: RunFeed, half: str) -> str:
        """The call of this content that was put off for an approval, and that nobody waits for here; "" for none."""
        for call_id, call_state in feed.calls.items():
            asks = call_state.kind != "replied" and call_state.held_for == refusals.APPROVAL_WANTED
            if asks and call_id.startswith(half) and (feed.tenant, feed.task, call_id) not in self._flights:
                return call_id
        return ""

    def _is_known_call(self, feed: RunFeed, call_id: str) -> bool:
        return call_id in feed.calls or (feed.tenant, feed.task, call_id) in self._flights

    def _is_answered(self, feed: RunFeed, call_id: str) -> bool:
        call_state = feed.calls.get(call_id)
        return call_state is not None and call_state.kind == "replied"

    async def _drive_call(self, feed: RunFeed, journey: ToolCallExchange) -> ToolCallAnswer:
        """See a call to its end, whoever still waits for it."""
        try:
            with self._feeds.watching_feed(feed):
                await journey.send_or_resend()
                return await journey.wait_for_answer()
        except BusError as error:
            if journey.sent:
                raise journey.outcome_unknown(f"the message broker does not answer: {error}") from error
            raise refusals.mesh_unavailable(f"the message broker does not answer: {error}") from error

    def _on_call_done(self, place: Place, claim: RequesterClaim, flight: "asyncio.Task[ToolCallAnswer]") -> None:
        del self._flights[place]
        self._shares.release_amount(claim.tenant, claim.person)
        if not flight.cancelled():
            flight.exception()  # All who waited for it may have gone.

    async def close(self) -> None:
        """End the waiting here: the calls go on, and their askers ask again, elsewhere."""
        await cancel_tasks(*self._flights.values())


def _half_id(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()


def _canonical_arguments(asked: ParsedToolCall) -> str:
    """The same text for the same arguments. Raises DoorRefusal."""
    try:
        text = rfc8785.dumps(dict(asked.arguments)).decode()
    except ValueError as error:
        raise DoorRefusal(400, "bad_arguments", f"the arguments have no canonical form: {error}") from error
    if len(text) > bounds.MAX_ARGUMENTS_BYTES:
        message = f"the arguments take {len(text)} bytes, and may take {bounds.MAX_ARGUMENTS_BYTES}"
        raise DoorRefusal(400, "bad_arguments", message, "send less at once")
    return text
