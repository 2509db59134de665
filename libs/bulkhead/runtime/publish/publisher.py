"""The publisher of a service: bodies go out under its own name, with ids that derive from their cause.

In: a body, its receiver and task. Out: the broker's ack (durable), or the reply (rpc).
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypedDict, Unpack

from bulkhead.bus.port import Bus, BusClosed, BusUnavailable, PubAck, Schedule, WrongLastSequence
from bulkhead.runtime import crash_points
from bulkhead.runtime.errors import RpcRefused
from bulkhead.runtime.publish.coalesce import PublishQueue
from bulkhead.telemetry import trace
from bulkhead_contracts import bounds, catalog, envelope, subjects
from bulkhead_contracts.control import TimerFired
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.types import Body

PUBLISH_ATTEMPTS = 4
PUBLISH_BACKOFF_S, MAX_PUBLISH_BACKOFF_S = 0.25, 2.0


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message as it goes out; `Publisher.put_message` sends it."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    message_id: str
    queue: "PublishQueue"
    can_wait: bool


class EnvelopeAttributes(TypedDict, total=False):
    """The arguments of `Publisher.make_envelope` beside the body."""

    cause: str
    index: int | str
    actor: str
    grant: str
    grant_digest: str
    traceparent: str
    approval: str
    logic: int
    time_unix_ms: int | None


class Publisher:
    """Sends as one service. `clock` gives unix milliseconds."""

    def __init__(self, service: str, bus: Bus, message_key: bytes, clock: Callable[[], int]) -> None:
        self.service, self._bus, self._key, self._clock = service, bus, message_key, clock
        self._queues: dict[str, PublishQueue] = defaultdict(PublishQueue)
        self.answers: dict[str, bool] = {}
        """By service that was asked: whether it answered last time."""

    def make_envelope(
        self,
        body: Body,
        *,
        cause: str = "",
        index: int | str = 0,
        actor: str = "",
        grant: str = "",
        grant_digest: str = "",
        traceparent: str = "",
        approval: str = "",
        logic: int = 1,
        time_unix_ms: int | None = None,
    ) -> Envelope:
        """The envelope that `send` would use. An empty cause needs an index that is unique for the sender."""
        return Envelope(
            id=envelope.derive_id(self.service, cause, index),
            type=body.ce_type(),
            source=self.service,
            time_unix_ms=self._clock() if time_unix_ms is None else time_unix_ms,
            cause=cause,
            actor=actor,
            grant=grant,
            grant_digest=grant_digest or envelope.grant_digest(grant),
            approval=approval,
            traceparent=traceparent or trace.current_traceparent(),
            logic=logic,
        )

    async def send(
        self,
        to: str,
        body: Body,
        *,
        tenant: str,
        task: str,
        expect_last_on_subject: int | None = None,
        first: bool = False,
        patience_s: float = 0.0,
        **attributes: Unpack[EnvelopeAttributes],
    ) -> PubAck:
        """Store a message in `to`'s inbox. Keyword attributes are those of `make_envelope`; first: as in `post`.

        Retries with the same ids while the broker does not answer, for `patience_s` at least. Raises
        BusUnavailable, PublishRefused, WrongLastSequence.
        """
        head, expect = self.make_envelope(body, **attributes), expect_last_on_subject
        return await self.post(
            to, body, head, tenant=tenant, task=task, first=first, patience_s=patience_s, expect_last_on_subject=expect
        )

    async def post(
        self,
        to: str,
        body: Body,
        head: Envelope,
        *,
        tenant: str,
        task: str,
        expect_last_on_subject: int | None = None,
        first: bool = False,
        patience_s: float = 0.0,
    ) -> PubAck:
        """Store a message as `send` does, with the envelope already made.

        first: nothing of this task should lie there yet. If the broker holds that, whoever folds it need not look
        for what came before; if not, also for this very message of an earlier try, it is sent as any other.
        """
        message, expect = self.make_message(to, body, head, tenant=tenant, task=task), expect_last_on_subject
        expect_none_on = subjects.task_filter(to, tenant, task) if first else ""
        return await self.put_message(
            message, expect_last_on_subject=expect, expect_none_on=expect_none_on, patience_s=patience_s
        )

    def make_message(
        self,
        to: str,
        body: Body,
        head: Envelope,
        *,
        tenant: str,
        task: str,
        key: str = subjects.NO_KEY,
        handling: str = "",
    ) -> OutgoingMessage:
        """Make a message before it is known whether it is sent. key: of the call whose outcome it is; handling: of the
        call, where two must not take each other's outcome for their own."""
        subject = subjects.mesh_subject(self.service, to, tenant, task, key)
        data = body.encode()
        if len(data) > bounds.MAX_MESSAGE_BYTES:
            # No retry can help: a bug of the sender, to be met like one.
            raise ValueError(f"{head.type} of {len(data)} bytes exceeds {bounds.MAX_MESSAGE_BYTES}")
        message_id = envelope.message_id(self._key, subject, head.id, *([handling] if handling else []))
        return OutgoingMessage(subject, data, head.to_headers(), message_id, self._queues[to], body.CAN_WAIT)

    async def publish_event(
        self, body: Body, *, tenant: str, task: str, **attributes: Unpack[EnvelopeAttributes]
    ) -> PubAck:
        """Store an event for outside subscribers. Raises BusUnavailable, PublishRefused."""
        head = self.make_envelope(body, **attributes)
        subject = subjects.event_subject(tenant, body.TYPE.removeprefix("event."), task)
        message_id = envelope.message_id(self._key, subject, head.id)
        crash_points.pass_point("before_publish")
        ack = await publish_persistently(
            lambda: self._bus.publish(subject, body.encode(), head.to_headers(), message_id)
        )
        crash_points.pass_point("after_publish")
        return ack

    async def put_message(
        self,
        message: OutgoingMessage,
        *,
        expect_last_on_subject: int | None = None,
        expect_none_on: str = "",
        patience_s: float = 0.0,
    ) -> PubAck:
        """Send a message that is already made, as `post` does. expect_none_on: see Bus.publish."""
        subject, data, headers, message_id = message.subject, message.data, message.headers, message.message_id
        await message.queue.wait_turn(can_wait=message.can_wait)
        crash_points.pass_point("before_publish")
        try:
            ack = await publish_persistently(
                lambda: self._bus.publish(
                    subject,
                    data,
                    headers,
                    message_id,
                    expect_last_on_subject=expect_last_on_subject,
                    expect_none_on=expect_none_on,
                ),
                patience_s=patience_s,
            )
        except WrongLastSequence:
            if not expect_none_on:
                raise
            ack = await publish_persistently(lambda: self._bus.publish(subject, data, headers, message_id))
        crash_points.pass_point("after_publish")
        return ack

    def entry_id(self, key: str, text: str) -> str:
        """Message id of a control entry: no other service can occupy it."""
        return envelope.message_id(self._key, key, text)

    async def set_timer(self, key: str, due_unix_ms: int, head: Envelope, *, tenant: str, task: str) -> PubAck:
        """Have `TimerFired(key)` appear in this service's own inbox at a time."""
        body = TimerFired(key=key, due_unix_ms=due_unix_ms)
        schedule = Schedule(
            subject=subjects.timer_set(self.service, tenant, task, key),
            target=subjects.timer_fired(self.service, tenant, task),
            due_unix_ms=due_unix_ms,
            body=body.encode(),
            headers=head.to_headers(),
        )
        message_id = envelope.message_id(self._key, schedule.subject, head.id)
        crash_points.pass_point("before_publish")
        ack = await publish_persistently(lambda: self._bus.schedule(schedule, message_id))
        crash_points.pass_point("after_publish")
        return ack

    async def request(
        self,
        to: str,
        body: Body,
        *,
        tenant: str,
        task: str,
        timeout_s: float = 2.0,
        **attributes: Unpack[EnvelopeAttributes],
    ) -> Body:
        """Ask another service and wait for its answer. Raises BusUnavailable, RpcRefused, DecodeError."""
        head = self.make_envelope(body, **attributes)
        subject = subjects.rpc_subject(self.service, to, tenant, task)
        try:
            answer = await self._bus.request(subject, body.encode(), head.to_headers(), timeout_s)
        except BusUnavailable:
            self.answers[to] = False
            raise
        self.answers[to] = True
        headers = {key.lower(): value for key, value in answer.headers.items()}
        if "bulkhead-error" in headers:
            raise RpcRefused(json.loads(answer.body or b"{}").get("message", headers["bulkhead-error"]))
        return catalog.decode_body(headers.get("ce-type", ""), answer.body)


async def publish_persistently(publish: Callable[[], Awaitable[PubAck]], *, patience_s: float = 0.0) -> PubAck:
    """Call `publish` until the broker answers, a few times, and for as long as `patience_s`: the ids make a repeat
    harmless."""
    loop, attempt = asyncio.get_running_loop(), 0
    deadline = loop.time() + patience_s
    while True:
        try:
            return await publish()
        except BusClosed:
            raise
        except BusUnavailable:
            attempt += 1
            if attempt >= PUBLISH_ATTEMPTS and loop.time() >= deadline:
                raise
            await asyncio.sleep(min(PUBLISH_BACKOFF_S * 2 ** min(attempt - 1, 8), MAX_PUBLISH_BACKOFF_S))
