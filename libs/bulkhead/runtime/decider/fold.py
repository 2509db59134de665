"""The decider shell: folds a task's inbox and publishes what `decide` returns (DESIGN 4).

For the message at sequence S, `decide` sees the fold of all of that task's messages in this inbox below S, and
nothing else. Memory is an optimisation: it is used only while this replica was served without a gap.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from bulkhead.blobs import BlobMissing
from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus import wire
from bulkhead.bus.port import StoredMessage
from bulkhead.flow import Decider, InboxMessage, Output, Send, SetTimer
from bulkhead.grants import Signer
from bulkhead.grants.labels import verify_labels, verify_plan_word
from bulkhead.runtime import crash_points
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import HandBack, Unreadable
from bulkhead.telemetry import trace
from bulkhead.telemetry.latency import run_overlapped
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.control import MessageRejected, TimerFired
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.types import Body

MAX_FOLDS_IN_MEMORY = 10_000
Outputs = tuple[Output, ...]
OPENING_MAX_AGE_MS = 600_000
"""So long a message may wait for the one that opens its task (the signer may be away)."""
MIN_DELIVERIES = 4
CONTENT_MAX_AGE_MS = 5_000
"""So long a message may wait for a content that it refers to; then it is rejected, and the task goes on without."""


@dataclass(slots=True)
class TaskFold:
    """The fold of one task in one inbox. `epoch`: as of which gap-free run of deliveries it is whole.

    early: messages from before the one that opens the task (another sender was faster); they are decided with it.
    logic: the version that the task began under and keeps, whatever version a later message names.
    begun: in whose inboxes this one has begun the task.
    """

    state: Any
    decider: Decider[Any] | None = None
    logic: int = 0
    sequence: int = 0
    seen: set[str] = field(default_factory=set)
    early: list[InboxMessage] = field(default_factory=list)
    epoch: int = -1
    begun: set[str] = field(default_factory=set)


def fold_message(fold: TaskFold, message: InboxMessage, logics: Mapping[int, Decider[Any]]) -> Outputs:
    """Fold one message in and return its outputs; a known ce-id changes nothing. Pure but for `fold` itself.

    Raises Unreadable: the task's logic version is not here (later), or the task has too many messages.
    """
    if isinstance(message.body, MessageRejected):
        sequence = message.body.sequence
        fold.early = [early for early in fold.early if early.sequence != sequence]
        return ()
    # By sender: no service can replace another's message by choosing its id.
    message_key = f"{message.envelope.source}/{message.envelope.id}"
    if message_key in fold.seen:
        return ()
    # The service's own messages are its timers: no flood may keep a deadline from being noticed.
    is_own = fold.decider is not None and message.envelope.source == fold.decider.service
    if len(fold.seen) >= bounds.MAX_MESSAGES_PER_TASK and not is_own:
        raise Unreadable("too_many_messages", f"the task has over {bounds.MAX_MESSAGES_PER_TASK} messages here")
    if fold.decider is None:
        logic = message.envelope.logic
        if logic not in logics:
            raise Unreadable("unknown_logic", f"logic version {logic} is not on this replica", later=True)
        if type(message.body) not in logics[logic].opening:
            fold.seen.add(message_key)
            fold.early.append(message)
            return ()
        fold.decider, fold.logic = logics[logic], logic
        fold.state = fold.decider.initial_state()
    outputs: Outputs = ()
    for next_message in (message, *fold.early):
        decision = fold.decider.decide(fold.state, next_message)
        fold.state = decision.state
        outputs += decision.outputs
    fold.early = []
    fold.seen.add(message_key)
    begins = fold.decider.begins
    fold.begun.update(output.to for output in outputs if isinstance(output, Send) and type(output.body) in begins)
    if fold.decider.is_at_rest(fold.state):
        # As if it had just begun: what goes on for ever must not end at the bound of messages.
        fold.seen = {message_key}
    return outputs


class FoldHandler:
    """Handles a decider's inbox. `logics`: decision logic by version."""

    ordered = True

    def __init__(self, context: Context, logics: Mapping[int, Decider[Any]]) -> None:
        self._context, self._logics = context, logics
        self._stream = subjects.inbox_stream(context.service)
        self._folds = BoundedDict[tuple[str, str], TaskFold](MAX_FOLDS_IN_MEMORY)
        self.gap_reads = 0

    async def handle_message(self, message: ReceivedMessage) -> None:
        """Fold up to the message, decide, publish everything, remember."""
        key = (message.tenant, message.task)
        if isinstance(message.body, MessageRejected):
            # Heeded by whoever reads the inbox; memory starts anew from there.
            self._folds.pop(key, None)
            return
        ahead = fold = self._folds.pop(key, None)
        if fold is None or fold.sequence >= message.sequence:
            fold = TaskFold(state=None)
        else:
            ahead = None
        if fold.epoch != message.epoch:
            if fold.sequence or not self._is_first(message):
                await self._catch_up(fold, message)
            fold.epoch = message.epoch
        live_message = await self._live_message(message, fold.logic)
        crash_points.pass_point("before_decide")
        begun = frozenset(fold.begun)
        outputs = fold_message(fold, live_message, self._logics)
        if fold.decider is None:
            await self._await_opening(message)
            return
        fold.sequence = message.sequence
        if message.attempts > 1:
            # Later messages of the task may have been served before this repeat: memory cannot know.
            fold.epoch = -1
        remembered = ahead or fold
        if remembered.decider is not None and not remembered.decider.has_ended(remembered.state):
            self._folds[key] = remembered
        await self._publish_outputs(live_message, outputs, fold, begun, message.release)

    def forget_task(self, tenant: str, task: str) -> None:
        """A message of this task was not handled: the next one must look at the inbox again."""
        self._folds.pop((tenant, task), None)

    async def on_rejected(self, stored: StoredMessage, code: str, reason: str) -> None:
        """When it is the message that opens its task, whoever waits for the task must hear of its end."""
        decider = self._logics[max(self._logics)]
        if not stored.ce_type.startswith(tuple(f"{kind.TYPE}.v" for kind in decider.begins_task)):
            return
        try:
            address = subjects.parse(stored.subject)
        except subjects.SubjectError:
            return
        for index, output in enumerate(decider.reject_opening(code, reason)):
            tenant, task, cause = address.tenant, address.task, stored.ce_id
            await self._context.publisher.send(
                output.to,
                output.body,
                tenant=tenant,
                task=task,
                cause=cause,
                index=f"unopened/{index}",
                actor=stored.actor,
            )

    async def _await_opening(self, message: ReceivedMessage) -> None:
        """A message before its task's opening: fine once the opening stands in the inbox, which decides it too.

        Raises HandBack while the opening may still come, Unreadable when it did not.
        """
        opening = tuple(f"{kind.TYPE}.v" for logic in self._logics.values() for kind in logic.opening)
        task_filter = subjects.task_filter(self._context.service, message.tenant, message.task)
        after = message.sequence
        while page := await self._context.bus.read(self._stream, task_filter, after=after):
            if any(stored.ce_type.startswith(opening) for stored in page):
                return
            after = page[-1].sequence
        if not _is_given_up(self._context.clock(), message, OPENING_MAX_AGE_MS):
            raise HandBack(min(5.0, 0.1 * 2 ** min(message.attempts, 6)), "the task is not opened yet")
        raise Unreadable("not_opened", f"{message.envelope.type}, but nothing opened the task")

    def _is_first(self, message: ReceivedMessage) -> bool:
        """Check whether nothing of the task lies before this message, by the broker's word when it stored it.

        Not for what the service says to itself: a timer was stored elsewhere before it was copied here.
        """
        service = self._context.service
        task_filter = subjects.task_filter(service, message.tenant, message.task)
        return message.sender != service and wire.was_first(message.headers, task_filter)

    async def _catch_up(self, fold: TaskFold, message: ReceivedMessage) -> None:
        """Read what lies between the fold and the message, and fold it. Raises HandBack."""
        self.gap_reads += 1
        sequence = message.sequence
        task_filter = subjects.task_filter(self._context.service, message.tenant, message.task)
        rejected: set[int] | None = None
        after = fold.sequence
        while True:
            page = await self._context.bus.read(self._stream, task_filter, after=after)
            for stored in page:
                if stored.sequence >= sequence:
                    break
                if rejected is None:
                    rejected = await self._rejected_sequences(message.tenant, message.task)
                # Also what could be read by now: those that went on without it will not look again.
                if stored.sequence not in rejected:
                    try:
                        await self._fold_stored(fold, stored)
                    except Unreadable as error:
                        # What waits for another version waits for people.
                        delay_s = min(30.0 if error.later else 5.0, 0.1 * 2 ** min(message.attempts, 9))
                        newer = error.code if error.later else ""
                        reason = f"message {stored.sequence} blocks the fold: {error}"
                        raise HandBack(delay_s, reason, newer) from error
                fold.sequence = stored.sequence
            if page and page[-1].sequence >= sequence:
                return
            if not page:
                # A replica of the stream may lag behind the one that delivered.
                raise HandBack(0.05, f"the inbox does not show message {sequence} yet")
            after = page[-1].sequence

    async def _fold_stored(self, fold: TaskFold, stored: StoredMessage) -> None:
        try:
            message = await self._decider_message(inbound.read_message(stored, self._context.service), fold.logic)
        except BlobMissing as error:
            raise Unreadable("content_missing", str(error)) from error
        try:
            fold_message(fold, message, self._logics)
        except Unreadable:
            raise
        except Exception as bug:
            raise Unreadable("handler_failed", f"{type(bug).__name__}: {bug}") from bug

    async def _rejected_sequences(self, tenant: str, task: str) -> set[int]:
        """Sequences that a `MessageRejected` of this inbox names. Only this service's own word counts."""
        own_subject = subjects.mesh_subject(self._context.service, self._context.service, tenant, task)
        sequences: set[int] = set()
        after = 0
        while page := await self._context.bus.read(self._stream, own_subject, after=after):
            for stored in page:
                try:
                    body = inbound.read_message(stored, self._context.service).body
                except Unreadable:
                    continue
                if isinstance(body, MessageRejected):
                    sequences.add(body.sequence)
            after = page[-1].sequence
        return sequences

    async def _live_message(self, message: ReceivedMessage, logic: int) -> InboxMessage:
        try:
            return await self._decider_message(message, logic)
        except BlobMissing as error:
            if not _is_given_up(self._context.clock(), message, CONTENT_MAX_AGE_MS):
                raise HandBack(0.5, str(error)) from error
            raise Unreadable("content_missing", str(error)) from error

    async def _decider_message(self, message: ReceivedMessage, logic: int) -> InboxMessage:
        """With the contents that the decision needs. Raises BlobMissing."""
        contents: dict[str, str] = {}
        decider = self._logics.get(logic or message.envelope.logic)
        if decider is not None:
            for ref in decider.wanted_contents(message.body):
                contents[ref.sha256] = await self._context.blobs.get_text(message.tenant, ref)
        tenant, task, verifier = message.tenant, message.task, self._context.verifier
        body = verify_labels(message.body, message.sender, tenant, task, verifier)
        body = verify_plan_word(body, tenant, task, verifier)
        return as_message(message if body is message.body else replace(message, body=body), contents)

    async def _publish_outputs(
        self, cause: InboxMessage, outputs: Outputs, fold: TaskFold, begun: frozenset[str], release: Callable[[], None]
    ) -> None:
        """Say it. begun: as `fold.begun` was before this decision. release: called when all is on its way.

        What follows may then be decided on a fold whose own word is not durable yet. That word follows from what the
        inbox holds, by whoever folds it, so that only its order is at stake; that a replica that died leaves open, too.
        """
        if not outputs:
            return
        assert fold.decider is not None, "only a decider has outputs"
        begins, to_begin = fold.decider.begins, fold.begun - begun
        service, publisher = self._context.service, self._context.publisher
        signer, unsent = self._context.signer, len(outputs)

        async def send_output(index: int, output: Output) -> None:
            nonlocal unsent
            _, head = seal(service, cause, index, output, signer, fold.logic)
            if isinstance(output, Send):
                for text in output.contents:
                    await self._context.blobs.put(cause.tenant, text)
                task, first = output.task or cause.task, output.to in to_begin and type(output.body) in begins
                if first:
                    to_begin.discard(output.to)
                await publisher.post(output.to, output.body, head, tenant=cause.tenant, task=task, first=first)
            else:
                await publisher.set_timer(output.key, output.due_unix_ms, head, tenant=cause.tenant, task=cause.task)
            unsent -= 1
            if unsent:
                crash_points.pass_point("between_publishes")

        # Timers last: nothing waits for them.
        ordered = sorted(enumerate(outputs), key=lambda row: isinstance(row[1], SetTimer))
        # Messages that a failure leaves out are published when the cause comes again, under the same ids.
        await run_overlapped([partial(send_output, *row) for row in ordered], release)


def _is_given_up(now_unix_ms: int, message: ReceivedMessage, max_age_ms: int) -> bool:
    """Old, and looked at often: after an outage everything is old at the first look, which a lagging follower may
    answer."""
    return message.attempts >= MIN_DELIVERIES and now_unix_ms - message.time_unix_ms >= max_age_ms


def as_message(message: ReceivedMessage, contents: Mapping[str, str]) -> InboxMessage:
    """The form in which a decider sees an inbound message."""
    return InboxMessage(message.envelope, message.body, message.tenant, message.task, message.sequence, contents)


def seal(
    service: str, cause: InboxMessage, index: int, output: Output, signer: Signer | None, logic: int = 0
) -> tuple[Output, Envelope]:
    """An output with its envelope. Without a signer (replay) a step grant stays unsigned and its digest empty.

    logic: the task's version; 0 takes that of the cause. They differ when somebody outside the deciders speaks (a
    cancel, a halt): what follows from it must not open another inbox under another version.
    """
    time_unix_ms = cause.time_unix_ms
    body: type[Body]
    grant = ""
    if isinstance(output, SetTimer):
        # The fired message tells the time that was asked for: the decider's clock at that moment.
        time_unix_ms, body = max(time_unix_ms, output.due_unix_ms), TimerFired
    else:
        body = type(output.body)
        grant = output.grant
        if output.step_grant is not None:
            grant = signer.sign_grant(output.step_grant, parent=output.grant) if signer is not None else ""
    return output, Envelope(
        id=envelope.derive_id(service, cause.envelope.id, index),
        type=body.ce_type(),
        source=service,
        time_unix_ms=time_unix_ms,
        cause=cause.envelope.id,
        actor=cause.envelope.actor,
        grant=grant,
        grant_digest=envelope.grant_digest(grant) or cause.envelope.grant_digest,
        approval=cause.envelope.approval,
        traceparent=trace.current_traceparent(),
        logic=logic or cause.envelope.logic,
    )
