"""The consume loop of every service: fetch up to the free slots, decode, handle, ack last.

A message leaves in exactly one way: handled (ack), handed back (nak), or rejected (dead letter with the reason and the
original, a `MessageRejected` fact in the same inbox, then term). Messages of one task run in order where the handler
asks for it; tasks run concurrently.
"""

import asyncio
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from opentelemetry.trace import SpanKind

from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import BusDelivery, BusError, Consumer, StoredMessage
from bulkhead.bus.seek_time import last_before
from bulkhead.runtime import crash_points
from bulkhead.runtime.background import cancel_tasks
from bulkhead.runtime.component import Pool
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import HandBack, Unreadable
from bulkhead.runtime.publish.publisher import publish_persistently
from bulkhead.telemetry import names, trace
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, catalog, envelope, subjects
from bulkhead_contracts.control import MessageRejected

log = Log("shell")

HANDLER_FAILED = "handler_failed"
"""Code of what was handled, and failed, too often."""
MAX_HANDLER_FAILURES = 5
"""Bugs: so often a handler may raise on one message before it becomes a dead letter."""
HAND_BACK_MAX_AGE_S = 3600.0
"""An unknown type or version waits so long for an upgraded replica."""
FETCH_TIMEOUT_S = 5.0
DAY_MS = 24 * 3_600_000
LETTER_HEAD_BYTES = 1_024
"""Headers of a dead letter's own, about."""
RANKS = 8
TENANT_SHARE = 3
"""What a doer takes up of one tenant fills at most so many times the slots that stay free: one tenant's calls three
quarters, two tenants' three sevenths each, and whoever comes finds room (Choudhury and Hahne, "Dynamic Queue Length
Thresholds for Shared-Memory Packet Switches")."""
CROWDED_DELAY_S = 0.25
MAX_CROWDED_DELAY_S = 5.0
"""So much later it may come again, the longer the oftener it came: what finds no slot waits with the broker."""


class MessageHandler(Protocol):
    """The handler of one kind of service. It raises HandBack, or Unreadable to reject a message. ordered: messages of
    one task are handled in order; unordered handlers are slow, and tenants share the slots (TENANT_SHARE)."""

    ordered: bool

    async def handle_message(self, message: ReceivedMessage) -> None:
        """Return when every effect of the message is durable; the shell acks then."""
        ...

    def forget_task(self, tenant: str, task: str) -> None:
        """A message of this task was not handled: nothing remembered about the task can be relied on."""
        ...

    async def on_rejected(self, stored: StoredMessage, code: str, reason: str) -> None:
        """A message is about to be rejected for good: say what must be said because of it."""
        ...


def shard_rank(instance: str, shard: int) -> int:
    """Distance of a shard from a replica, 0 the nearest: with as many shards as replicas every replica has one
    of its own, with more they are spread. Replicas whose names are no numbers may be equally near, which
    costs reads.
    """
    number = int(instance) if instance.isascii() and instance.isdigit() else zlib.crc32(instance.encode())
    return (number ^ shard) % RANKS


class ConsumeLoop:
    """Runs one handler over all shards of a service's inbox."""

    def __init__(
        self, context: Context, handler: MessageHandler, *, shards: int, slots: int, drain_timeout_s: float = 10.0
    ) -> None:
        self._context, self._handler, self._shards = context, handler, shards
        self._slots, self._drain_timeout_s = slots, drain_timeout_s
        self._draining = asyncio.Event()
        self._running: dict[BusDelivery, asyncio.Task[None]] = {}
        self._last_of_task: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._failures: dict[int, int] = {}
        self._letter_shares = DeadLetterShares()
        self._slot_freed = asyncio.Event()
        self._has_work = asyncio.Event()
        self._traced = trace.is_recording()
        self._pumps: list[asyncio.Task[None]] = []
        self.handled = 0
        self.attached = False

    async def run(self) -> None:
        """Until `drain` is called; then finish what runs and return."""
        service = self._context.service
        stream = subjects.inbox_stream(service)
        consumers = [
            await self._context.bus.open_consumer(
                stream,
                subjects.durable_name(service, shard),
                rank=shard_rank(self._context.instance, shard),
                # Whoever acts on the world must not do so beside a replica that is only busy.
                reclaims=self._handler.ordered,
            )
            for shard in range(self._shards)
        ]
        self.attached = True
        start = self._context.background.start
        heartbeat = start("heartbeat", self._keep_alive(min(c.ack_wait_s for c in consumers) / 3))
        pumps = self._pumps = [
            start(f"shard {shard}", self._pump_shard(shard_consumer)) for shard, shard_consumer in enumerate(consumers)
        ]
        try:
            if self._draining.is_set():
                self.drain()
            await asyncio.gather(*pumps, return_exceptions=True)  # They only end to drain, or in an error.
            await self._finish_running()
        finally:
            await cancel_tasks(*pumps, heartbeat, *self._running.values())
            for consumer in consumers:
                await consumer.close()

    def pool(self) -> Pool:
        """Messages in hand, of those that it may have in hand."""
        return Pool(self._slots, len(self._running))

    def drain(self) -> None:
        """Take nothing new; `run` returns when what runs has ended."""
        self._draining.set()
        for pump in self._pumps:
            # What the broker hands over at this moment comes again after its ack wait.
            pump.cancel()

    async def _finish_running(self) -> None:
        if self._running:
            log.info("draining", running=len(self._running))
            await asyncio.wait(list(self._running.values()), timeout=self._drain_timeout_s)

    async def _pump_shard(self, consumer: Consumer) -> None:
        # Each shard has its own share: what was fetched and could not start would lie there without a heartbeat.
        slots, mine, held_by_tenant = max(1, self._slots // self._shards), set[BusDelivery](), Counter[str]()
        last_delivered, epoch = (0, 0), 0

        def accept_delivery(delivery: BusDelivery) -> None:
            nonlocal last_delivered, epoch
            run, number = last_delivered
            if (delivery.run, delivery.consumer_sequence) != (run, number + 1):
                # Somebody else was served in between, or may have been under a number that the broker forgot; or a
                # delivery was lost: memory may lag the inbox.
                epoch += 1
            last_delivered = delivery.run, delivery.consumer_sequence
            tenant, task = _task_key(delivery.stored.subject)
            crowded = not self._handler.ordered and held_by_tenant[tenant] > TENANT_SHARE * (slots - len(mine))
            mine.add(delivery)
            held_by_tenant[tenant] += 1

            def free_place() -> None:
                mine.discard(delivery)
                held_by_tenant[tenant] -= 1
                if not held_by_tenant[tenant]:
                    del held_by_tenant[tenant]

            self._start_delivery(delivery, (tenant, task), epoch, free_place, crowded=crowded)

        while not self._draining.is_set():
            free = slots - len(mine)
            if free <= 0:
                self._slot_freed.clear()
                await self._slot_freed.wait()
                continue
            try:
                await consumer.hand_over(free, accept_delivery, FETCH_TIMEOUT_S)
            except BusError as error:
                log.warning("fetch_failed", reason=str(error))
                await asyncio.sleep(0.5)

    def _start_delivery(
        self, delivery: BusDelivery, key: tuple[str, str], epoch: int, on_ended: Callable[[], None], *, crowded: bool
    ) -> None:
        previous = tail = None
        if self._handler.ordered:
            previous = self._last_of_task.get(key)
            tail = self._last_of_task[key] = asyncio.get_running_loop().create_future()

        def release_next() -> None:
            if tail is not None and not tail.done():
                tail.set_result(None)

        if crowded:
            work = self._hand_back(delivery, min(CROWDED_DELAY_S * delivery.attempts, MAX_CROWDED_DELAY_S))
        else:
            work = self._process_delivery(delivery, epoch, previous, release_next)
        task = asyncio.create_task(work)
        self._running[delivery] = task
        self._has_work.set()

        def on_done(done: asyncio.Task[None]) -> None:
            self._running.pop(delivery, None)
            on_ended()
            release_next()
            if tail is not None and self._last_of_task.get(key) is tail:
                del self._last_of_task[key]
            self._slot_freed.set()
            if not done.cancelled() and done.exception() is not None:
                log.error("shell_bug", error=repr(done.exception()))

        task.add_done_callback(on_done)

    async def _process_delivery(
        self, delivery: BusDelivery, epoch: int, previous: asyncio.Future[None] | None, release: Callable[[], None]
    ) -> None:
        if previous is not None and not previous.done():
            await asyncio.wait({previous})
        stored = delivery.stored
        crash_points.pass_point("after_receive")
        try:
            message = inbound.read_message(
                stored, self._context.service, attempts=delivery.attempts, epoch=epoch, release=release
            )
            if isinstance(message.body, MessageRejected) and self._handler.ordered is False:
                await delivery.ack()
                return
            await self._handle_traced(message)
            crash_points.pass_point("before_ack")
            await delivery.ack()
            crash_points.pass_point("after_ack")
            self.handled += 1
            self._failures.pop(stored.sequence, None)
            return
        except HandBack as hand_back:
            if hand_back.newer:
                log.warning(
                    "waits_for_upgrade", sequence=stored.sequence, code=hand_back.newer, reason=hand_back.reason
                )
            else:
                log.debug("handed_back", sequence=stored.sequence, reason=hand_back.reason)
            await self._hand_back(delivery, hand_back.delay_s)
        except Unreadable as error:
            await self._on_unreadable(delivery, error)
        except BusError as error:
            log.warning("bus_failed", sequence=stored.sequence, reason=str(error))
            await self._hand_back(delivery, 1.0)
        except Exception as error:
            await self._on_handler_failure(delivery, error)
        self._handler.forget_task(*_task_key(stored.subject))

    async def _handle_traced(self, message: ReceivedMessage) -> None:
        if not message.envelope.traceparent and not self._traced:
            await self._handler.handle_message(message)
            return
        template = f"mesh.{message.sender}.{message.receiver}"
        attributes: Mapping[str, str | int | float | bool] = {
            names.MESSAGING_SYSTEM: "nats",
            names.MESSAGING_TEMPLATE: template,
            names.MESSAGING_ID: message.envelope.id,
            names.MESSAGE_TYPE: message.envelope.type,
            names.TASK: message.task,
            names.TENANT: message.tenant,
            names.CAUSE: message.envelope.cause,
        }
        with trace.span(f"{names.PROCESS} {template}", message.envelope.traceparent, SpanKind.CONSUMER, attributes):
            await self._handler.handle_message(message)

    async def _on_unreadable(self, delivery: BusDelivery, error: Unreadable) -> None:
        stored = delivery.stored
        age_s = (self._context.clock() - stored.time_unix_ms) / 1000
        # What waits keeps a place in the durable's window: an outside publisher could fill it and starve everybody.
        outside = stored.subject.startswith("mesh.pub_")
        if error.later and not outside and age_s < HAND_BACK_MAX_AGE_S:
            log.warning("waits_for_upgrade", sequence=stored.sequence, code=error.code, reason=error.reason)
            await self._hand_back(delivery, min(30.0, 1.0 + delivery.attempts))
            return
        await self._reject_delivery(delivery, error.code, error.reason)

    async def _on_handler_failure(self, delivery: BusDelivery, error: Exception) -> None:
        sequence = delivery.stored.sequence
        failures = self._failures[sequence] = self._failures.get(sequence, 0) + 1
        log.error(
            "handler_failed", exc_info=True, sequence=sequence, failures=failures, subject=delivery.stored.subject
        )
        if failures < MAX_HANDLER_FAILURES:
            await self._hand_back(delivery, 0.2 * 2**failures)
            return
        await self._reject_delivery(delivery, HANDLER_FAILED, f"{type(error).__name__}: {error}"[:1000])

    async def _reject_delivery(self, delivery: BusDelivery, code: str, reason: str) -> None:
        """Dead letter first, then the fact in the inbox, then term: a crash between them repeats, harmlessly."""
        stored, context = delivery.stored, self._context
        log.error("message_rejected", sequence=stored.sequence, code=code, reason=reason, subject=stored.subject)
        try:
            await self._announce_rejection(stored, code, reason)
            if full := await self._letter_shares.full_reason(context, stored):
                log.warning("dead_letter_not_kept", sequence=stored.sequence, sender=stored.sender)
                await _publish_rejection(context, stored, code, f"{reason}; {full}", dead_id="")
            else:
                await bury_message(context, stored, code, reason)
            await delivery.term(code)
            self._failures.pop(stored.sequence, None)
        except BusError as error:
            log.warning("reject_failed", sequence=stored.sequence, reason=str(error))
            await self._hand_back(delivery, 1.0)

    async def _announce_rejection(self, stored: StoredMessage, code: str, reason: str) -> None:
        try:
            await self._handler.on_rejected(stored, code, reason)
        except BusError:
            raise
        except Exception:
            # The bug of which it is rejected may stand in the way here too; the dead letter must not wait for that.
            log.error("rejection_not_told", exc_info=True, sequence=stored.sequence, subject=stored.subject)

    @staticmethod
    async def _hand_back(delivery: BusDelivery, delay_s: float) -> None:
        try:
            await delivery.nak(delay_s)
        except BusError:
            pass  # The broker redelivers after ack_wait by itself.

    async def _keep_alive(self, every_s: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            if not self._running:
                # A replica without work is not woken up.
                self._has_work.clear()
                await self._has_work.wait()
            left_s = every_s - (loop.time() - began) % every_s
            await asyncio.sleep(left_s if left_s > every_s / 1_000 else every_s)
            for delivery in list(self._running):
                try:
                    await delivery.in_progress()
                except BusError:
                    break


async def bury_message(context: Context, stored: StoredMessage, code: str, reason: str) -> None:
    """Publish the dead letter of a stored message and, when its task is known, the `MessageRejected` fact."""
    service = context.service
    tenant, task = _task_of_message(stored) or ("unknown", "unknown")
    dead_id = envelope.derive_id(service, f"{stored.subject}/{stored.sequence}", "dead")
    headers = {
        f"bulkhead-original-{key.lower()}": value
        for key, value in stored.headers.items()
        if not key.lower().startswith("nats-")
    }
    headers |= {
        "bulkhead-dead-id": dead_id,
        "bulkhead-dead-code": code,
        "bulkhead-dead-reason": " ".join(reason.split())[:1000].encode("ascii", "replace").decode(),
        "bulkhead-dead-subject": stored.subject,
        "bulkhead-dead-sequence": str(stored.sequence),
        "bulkhead-dead-service": service,
    }
    message_id = envelope.message_id(context.message_key, dead_id)
    subject = subjects.dead_letter_subject(service, tenant, task)
    await publish_persistently(lambda: context.bus.publish(subject, stored.body, headers, message_id))
    await _publish_rejection(context, stored, code, reason, dead_id)


async def _publish_rejection(context: Context, stored: StoredMessage, code: str, reason: str, dead_id: str) -> None:
    """The fact by which every fold skips the message, when its task is known. dead_id: "" where no letter is kept."""
    if (address := _task_of_message(stored)) is not None:
        service, (tenant, task) = context.service, address
        cause = dead_id or envelope.derive_id(service, f"{stored.subject}/{stored.sequence}", "dead")
        fact = MessageRejected(sequence=stored.sequence, code=code[:64], reason=reason[:2000], dead_letter_id=dead_id)
        await context.publisher.send(service, fact, tenant=tenant, task=task, cause=cause, index="rejected")


def _task_of_message(stored: StoredMessage) -> tuple[str, str] | None:
    try:
        address = subjects.parse(stored.subject)
    except subjects.SubjectError:
        return None
    return address.tenant, address.task


class DeadLetterShares:
    """Bytes of dead letters that each program outside may put into the shared stream in a day.

    Of what came before this replica began the inbox tells: a service may not read the letters.
    """

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}
        self._day = 0

    async def full_reason(self, context: Context, stored: StoredMessage) -> str:
        """Count a letter; the reason why it is not kept, or "". Services of the mesh are not bounded. Raises
        BusError."""
        if stored.sender in catalog.EVERY_SERVICE:
            return ""
        if (day := context.clock() // DAY_MS) != self._day:
            self._bytes, self._day = {}, day
        if stored.sender not in self._bytes:
            self._bytes[stored.sender] = await _letter_bytes_before(context, stored, day * DAY_MS)
        size = _letter_size(stored)
        if self._bytes[stored.sender] + size > bounds.MAX_DEAD_LETTER_BYTES_PER_DAY:
            most = bounds.MAX_DEAD_LETTER_BYTES_PER_DAY
            return f"no dead letter is kept: those of {stored.sender} take {most} bytes today"
        self._bytes[stored.sender] += size
        return ""


def _letter_size(stored: StoredMessage) -> int:
    return LETTER_HEAD_BYTES + len(stored.body) + sum(len(k) + len(v) for k, v in stored.headers.items())


async def _letter_bytes_before(context: Context, stored: StoredMessage, since_unix_ms: int) -> int:
    """Bytes of the letters that a sender's messages became since a time, before this one: those that cannot be read.
    Raises BusError."""
    bus, service = context.bus, context.service
    stream, subject, total = subjects.inbox_stream(service), f"mesh.{stored.sender}.{service}.>", 0
    after = await last_before(bus, stream, subject, since_unix_ms, stored.sequence)
    async for earlier in stored_messages(bus, stream, subject, after=after):
        if earlier.sequence >= stored.sequence or total > bounds.MAX_DEAD_LETTER_BYTES_PER_DAY:
            break
        try:
            inbound.read_message(earlier, service)
        except Unreadable as error:
            is_old = context.clock() - earlier.time_unix_ms > HAND_BACK_MAX_AGE_S * 1000
            total += _letter_size(earlier) if is_old or not error.later else 0
    return total


def _task_key(subject: str) -> tuple[str, str]:
    parts = subject.split(".")
    return (parts[4], parts[5]) if len(parts) > 5 else ("", subject)
