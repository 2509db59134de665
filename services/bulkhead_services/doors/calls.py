"""Model calls of outside agents: each is stored, paid and answered once, however often it is sent.

In: what a form read. Out: `ModelCallRequested` under the run's grant; a call whose text can be followed, and its answer
from the record. The id of a call derives from its run and its content: the same request sent again is the same call,
also at another replica, and after this one was killed.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusError, LiveMessage
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.live_text import text_delta
from bulkhead_contracts import bounds
from bulkhead_contracts.model import CallFollowers, Conversation, ModelCallRequested
from bulkhead_contracts.result import ContentRef
from bulkhead_services.doors import refusals
from bulkhead_services.doors.conversations.contents import ConversationBlobs, canonical_json, too_many_messages
from bulkhead_services.doors.conversations.responses import ResponseStore
from bulkhead_services.doors.feed import RunFeed
from bulkhead_services.doors.model_call import Allowances, FollowedCall, ModelRunCall, PeerReplicas
from bulkhead_services.doors.model_names import ModelNames
from bulkhead_services.doors.port import Caller, DoorRefusal, ParsedModelCall
from bulkhead_services.doors.run_call import CallKey, CallsInFlight, half_id
from bulkhead_services.doors.runs import RunDirectory
from bulkhead_services.doors.settings import Settings
from bulkhead_services.doors.stored_bytes import StoredBytes

PROMPT = "adopted@1"
MAX_REPEATS = 10_000
"""Contents of requests of which it is remembered how often they were sent."""


class ModelCalls:
    """The model door: which call a request is, begun or joined. in_flight: the calls of this replica."""

    def __init__(
        self,
        context: Context,
        settings: Settings,
        runs: RunDirectory,
        in_flight: CallsInFlight[ModelRunCall],
        stored: StoredBytes,
        models: ModelNames,
    ) -> None:
        self._context, self._settings, self._runs = context, settings, runs
        self.in_flight = in_flight
        self._peers = PeerReplicas(context.bus)
        self._repeats = BoundedDict[tuple[str, str], int](MAX_REPEATS)
        self._contents = ConversationBlobs(context, stored, models)
        self._responses = ResponseStore(context, self._contents)
        self._allowances = Allowances(context)

    async def begin_call(self, caller: Caller, parsed_call: ParsedModelCall) -> FollowedCall:
        """Store a call in its run, which is opened when there is none. Raises DoorRefusal."""
        self.in_flight.check_place(caller.claim)
        _check_request(parsed_call)
        try:
            feed, call_id, conversation = await self._identify_call(caller, parsed_call)
            # Nothing is awaited between the choice of its id and its start: the same request at once joins it.
            call = self.in_flight.find_call(feed.tenant, feed.task, call_id)
            if call is None:
                call = self._start_call(feed, call_id, caller, parsed_call, conversation)
            _, kept_as, allowance = await asyncio.gather(
                call.wait_until_stored(),
                self._responses.keep_response(feed, call_id, parsed_call, conversation),
                self._allowances.find_allowance(feed),
            )
            return FollowedCall(call, kept_as, allowance)
        except BusError as error:
            raise refusals.mesh_unavailable(f"the message broker does not answer: {error}") from error

    # Which call

    async def _identify_call(self, caller: Caller, parsed_call: ParsedModelCall) -> tuple[RunFeed, str, Conversation]:
        """The run of a request, the id of its call, and its stored conversation. Raises DoorRefusal, BusError."""
        runs, claim = self._runs, caller.claim
        previous = (
            await self._responses.find_previous(runs, caller, parsed_call.previous) if parsed_call.previous else None
        )
        if previous is not None and previous.feed.is_open and not (caller.task or caller.run or caller.step):
            caller = replace(caller, task=previous.feed.task)
        # A caller without a run leaves nothing in the store, which is everybody's.
        known_run = await runs.find_known(caller, parsed_call) if caller.retry else None
        feed = known_run or await runs.find_or_open(caller, parsed_call)
        continuation = (previous.messages, previous.answer, previous.thread) if previous is not None else ((), (), "")
        conversation, contents = await self._contents.store_conversation(claim, parsed_call, *continuation)
        digest = _content_digest(parsed_call, contents, has_options=conversation.options is not None)
        if caller.retry and known_run is not None:
            # In a run that has ended meanwhile, the answer is still there.
            call_id = self._repeated_call_id(known_run, caller, digest)
            if call_id and (known_run.is_open or self.in_flight.will_be_answered(known_run, call_id)):
                return known_run, call_id, conversation
            feed = await runs.find_or_open(caller, parsed_call)
        call_id = self._repeated_call_id(feed, caller, digest) if caller.retry else ""
        return feed, call_id or self._next_call_id(feed, caller, digest), conversation

    def _next_call_id(self, feed: RunFeed, caller: Caller, digest: str) -> str:
        """The id of a request that is no repeat: the first of its content that is not taken."""
        if caller.idempotency_key:
            return self._keyed_call_id(feed, caller, digest)
        number = self._repeats.get_refreshed((feed.task, digest)) or 1
        while self.in_flight.is_known_call(feed, call_id := _call_id(feed, digest, str(number))):
            number += 1
        self._repeats[feed.task, digest] = number
        return call_id

    def _repeated_call_id(self, feed: RunFeed, caller: Caller, digest: str) -> str:
        """The id of the call that a repeated request repeats; "" where none of its content is known."""
        if caller.idempotency_key:
            call_id = self._keyed_call_id(feed, caller, digest)
            return call_id if self.in_flight.is_known_call(feed, call_id) else ""
        number, newest_id = self._repeats.get_refreshed((feed.task, digest)) or 1, ""
        while self.in_flight.is_known_call(feed, call_id := _call_id(feed, digest, str(number))):
            number, newest_id = number + 1, call_id
        call_state, timeout_ms = feed.calls.get(newest_id), round(self._settings.call_timeout_s * 1000)
        if (
            call_state is not None
            and call_state.kind == "replied"
            and self._context.clock() - call_state.time_unix_ms > timeout_ms
        ):
            return ""  # Nobody waits so long to repeat: the try that is repeated never came here.
        return newest_id

    def _keyed_call_id(self, feed: RunFeed, caller: Caller, digest: str) -> str:
        """The id of a request with a key: what it asks, then the key. Raises DoorRefusal for a key that another request
        has."""
        call_id = feed.prefix + half_id(f"{feed.task}/{digest}") + half_id(f"key/{caller.idempotency_key}")
        self.in_flight.check_key(feed, call_id)
        return call_id

    # The call

    def _start_call(
        self, feed: RunFeed, call_id: str, caller: Caller, parsed_call: ParsedModelCall, conversation: Conversation
    ) -> ModelRunCall:
        assert feed.assigned is not None
        until = self._context.clock() + round(self._settings.call_timeout_s * 1000)
        request = ModelCallRequested(
            call_id=call_id,
            step_id=feed.assigned.step.id,
            attempt=feed.assigned.attempt,
            prompt_id=PROMPT,
            tier=parsed_call.model,
            max_output_tokens=parsed_call.max_output_tokens or self._settings.output_tokens,
            stream=True,
            deadline_unix_ms=min(until, feed.deadline_unix_ms),
            conversation=conversation,
        )
        warning = "" if call_id in feed.calls else feed.take_pending_warning(self._context.clock())
        notes = self._settings.warning_notes and caller.notes
        call = ModelRunCall(self._context, self._settings, feed, request, self._peers, warning, notes)
        self.in_flight.start_call(call, caller.claim)
        return call

    # What is heard of calls

    def on_live_text(self, live: LiveMessage) -> None:
        """A text delta from `live.model_gateway.<tenant>.<task>`."""
        # Nearly all is of other tasks: none of it is read further.
        if not self.in_flight.has_call_of(*live.subject.split(".")[2:4]) or (heard := text_delta(live)) is None:
            return
        tenant, task, delta = heard
        if (call := self.in_flight.find_call(tenant, task, delta.call_id)) is not None:
            call.text.on_text_delta(delta)

    def on_peer_notice(self, key: CallKey, notice: CallFollowers) -> None:
        """Note a notice of a replica, of this one perhaps, about who follows a call."""
        if (call := self.in_flight.find_call(*key)) is not None:
            call.on_peer_notice(notice)
        elif not notice.followed:
            self._peers.note_question(key)

    async def close(self) -> None:
        """End all that is in flight here: its askers ask again, elsewhere."""
        await self._peers.close()
        await self.in_flight.cancel_calls()


def _check_request(parsed_call: ParsedModelCall) -> None:
    """Refuse what no model gateway takes."""
    if not parsed_call.messages:
        raise DoorRefusal(400, "no_messages", "the conversation is empty", "send a message at least")
    if len(parsed_call.messages) > bounds.MAX_CONVERSATION_ROWS:
        raise too_many_messages(len(parsed_call.messages))
    if not 1 <= len(parsed_call.model) <= bounds.MAX_NAME_CHARS:
        message = f"a model's name has 1-{bounds.MAX_NAME_CHARS} characters"
        raise DoorRefusal(404, "unknown_route", message, "ask for the list of models")


def _content_digest(parsed_call: ParsedModelCall, contents: Sequence[ContentRef], *, has_options: bool) -> str:
    digests = (ref.sha256 for ref in contents)
    content = [parsed_call.model, parsed_call.max_output_tokens, has_options, *digests]
    return hashlib.blake2b(canonical_json(content), digest_size=16).hexdigest()


def _call_id(feed: RunFeed, digest: str, origin: str) -> str:
    return feed.prefix + hashlib.blake2b(f"{feed.task}/{digest}/{origin}".encode(), digest_size=16).hexdigest()
