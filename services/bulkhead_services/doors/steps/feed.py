"""One delegated step as this replica knows it: the fold of its messages in the own inbox, and of its calls.

In: messages of its task. Out: who has it, whether it is answered, what its calls have cost. As a run's feed it is not
authoritative: what was forgotten is read again from the stream.
"""

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, StoredMessage
from bulkhead.runtime.doer.deferred_calls import BACKSTOP_MS
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts.bounds import MAX_STEP_TRIES
from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.result import Usage
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.step import DelegationRequested, StepAnswered, StepCancelRequested, StepTaken
from bulkhead_contracts.tool import ToolCallReplied, WriteNoted, WriteResolution
from bulkhead_services.doors.feed import MAX_CALLS, SERVICE, Reply, RunFeed

PREFIX_CHARS = 12
HELD_MS, MOST_HELD_MS = BACKSTOP_MS, 3_600_000
"""So long a step whose call was put off is handed to nobody: twice as long each time that its next holder meets the
same, up to the second."""


class StepFeed(RunFeed):
    """One hand-over. request: the newest form of it, with the latest deadline. taken: the newest taking. answered: the
    first answer, with the sequence and the id of its message. own_sequence: of the newest message of doors about the
    task, by which replicas exclude each other. held: a taking ends it, as far as is known: nobody asks again for a call
    whose holder has gone, so that nobody would hear that it may go on."""

    def __init__(self, bus: Bus, tenant: str, task: str, call_id: str) -> None:
        self.call_id, self.own_sequence = call_id, 0
        super().__init__(bus, tenant, task)
        self.prefix = f"{call_id[:PREFIX_CHARS]}-"

    def _reset_fold(self) -> None:
        super()._reset_fold()
        self.request: DelegationRequested | None = None
        self.taken: StepTaken | None = None
        self.taken_id = ""
        self.taken_unix_ms = 0
        self.answered_by: StepAnswered | None = None
        self.answered_sequence = 0
        self.cancelled: str | None = None
        self._held_unix_ms = self._held_again = 0
        """When a call was put off last; how many takings since then met the same."""
        self._was_found_made = False
        """Whether a person says of an own write that was uncertain that it was made."""
        self._foreign_replies = BoundedDict[str, ToolCallReplied](MAX_CALLS)
        """Of writes of other attempts and steps that a person says were made, by the ids that calls alike have here."""

    @property
    def held_until_unix_ms(self) -> int:
        """Time until which nobody is handed the step; 0 when no call of it is held back."""
        if self.held is None:
            return 0
        most_ms = max(min(HELD_MS << self._held_again, MOST_HELD_MS), self.held.after_ms)
        return max(self.held.until_unix_ms, self._held_unix_ms + most_ms)

    @property
    def is_over(self) -> bool:
        """True when it is answered, or nobody waits for an answer."""
        return self.answered_by is not None or self.cancelled is not None

    @property
    def may_have_written(self) -> bool:
        """True when another attempt might make a write a second time: an own one is, or was, of unknown outcome."""
        own_ids = (call_id for call_id, doubtful_id in self.uncertain.items() if call_id == doubtful_id)
        return self._was_found_made or any(map(self.has_reply, own_ids))

    def knows_taking(self, number: int) -> bool:
        """True when the taking of this number, or a later one, has been read."""
        return self.request is not None and self.taken is not None and self.taken.number >= number

    def _note_stored_message(self, stored: StoredMessage) -> None:
        if stored.sender == SERVICE:
            self.own_sequence = stored.sequence

    def _apply_message(self, message: ReceivedMessage) -> None:
        body = message.body
        match body:
            case DelegationRequested() if body.call_id == self.call_id:
                self._apply_request(message, body)
            case StepCancelRequested() if self.request is not None and message.sender == "worker":
                place = (body.step_id, body.attempt, body.plan_version)
                if place == (self.request.step.id, self.request.attempt, self.request.plan_version):
                    self.cancelled = body.reason or "the step was stopped"
            case StepTaken() if body.call_id == self.call_id:
                self.taken, self.taken_id, self.taken_unix_ms = body, message.envelope.id, message.time_unix_ms
                self._held_again = min(self._held_again + (self.held is not None), MAX_STEP_TRIES)
                self._set_hold(message, None)
            case StepAnswered() if body.call_id == self.call_id and self.answered_by is None:
                self.answered_by, self.answered_sequence = body, message.sequence
            case ToolCallReplied(outcome="uncertain", call_id=call_id) if not call_id.startswith(self.prefix):
                # Of an earlier attempt, or of a step beside it: the next holder's call alike is that write again.
                self.uncertain[self.prefix + call_id[len(self.prefix) :]] = call_id
            case ToolCallReplied(resolution=WriteResolution() as resolution, call_id=call_id) if not call_id.startswith(
                self.prefix
            ):
                self._apply_foreign_resolution(message, body, resolution)
            case (
                ModelCallReplied()
                | ToolCallReplied()
                | RetrievalReplied()
                | CallDeferred()
                | CallResumed()
                | WriteNoted()
            ):
                if body.call_id.startswith(self.prefix):
                    self._apply_call_message(message)
            case _:
                pass

    def _apply_foreign_resolution(
        self, message: ReceivedMessage, reply: ToolCallReplied, resolution: WriteResolution
    ) -> None:
        """A person's word on a write of another attempt or step: one that was made answers the call alike here."""
        alike = self.prefix + reply.call_id[len(self.prefix) :]
        if not resolution.happened or alike in self.calls:
            self._apply_resolution(reply.call_id, resolution)
            return
        self._foreign_replies[alike] = reply.model_copy(update={"call_id": alike})
        self._record_call_state(message, "replied", alike, Usage())
        self.uncertain[alike], self.unheard[alike] = reply.call_id, None

    async def reply_of(self, call_id: str) -> Reply:
        """The reply to a call that has one, perhaps that of a call alike. Raises BusError, LookupError."""
        return self._foreign_replies.get(call_id) or await super().reply_of(call_id)

    def _apply_call_message(self, message: ReceivedMessage) -> None:
        super()._apply_message(message)
        match message.body:
            case ToolCallReplied(resolution=WriteResolution(happened=True)):
                self._was_found_made = True
            case ToolCallReplied(call_id=call_id):
                self._foreign_replies.pop(call_id, None)
            case WriteNoted(heard=True, call_id=call_id):
                self.uncertain.pop(call_id, None)
            case _:
                pass
        if not isinstance(message.body, CallDeferred):
            self._held_again = 0
        elif message.body.paused:
            self._held_unix_ms = message.time_unix_ms

    def _apply_request(self, message: ReceivedMessage, body: DelegationRequested) -> None:
        if self.request is None:
            head = message.envelope
            self.cause, self.actor, self.traceparent = head.id, head.actor, head.traceparent
            self.opened_unix_ms = message.time_unix_ms
        elif body.deadline_unix_ms < self.request.deadline_unix_ms:
            return  # An older form of it, told again.
        self.assigned = self.request = body
        self.deadline_unix_ms, self.grant = body.deadline_unix_ms, message.envelope.grant
