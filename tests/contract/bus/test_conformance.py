"""What every bus adapter promises of stored messages, run against the real broker and the in-memory one.

The rest of the suite (timers, requests, live words, life and death) is in test_conformance_talk.py.
"""

import asyncio
import time
from collections.abc import Mapping

import pytest

from bulkhead.bus import wire
from bulkhead.bus.port import (
    Bus,
    BusDelivery,
    BusError,
    BusUnavailable,
    DurableCounts,
    PublishRefused,
    WrongLastSequence,
)
from bulkhead_contracts import bounds, subjects
from tests.contract.bus.probes import DEADLINE_S, FILTER, SUBJECT, TASK, TENANT, attach, bodies, put, take
from tests.contract.bus.worlds import INBOX, MAX_MESSAGE_BYTES, World
from tests.eventually import until

PATIENCE_S = 4 * DEADLINE_S
"""So long a fetch may wait that must not."""

# Publishing


async def test_publish_answers_with_stream_and_sequence(world: World) -> None:
    bus = await world.bus()
    first = await bus.publish(SUBJECT, b"a", {}, "1")
    second = await bus.publish(SUBJECT, b"b", {}, "2")
    assert (first.stream, first.sequence, first.duplicate) == (INBOX, 1, False)
    assert second.sequence == 2


async def test_a_known_message_id_is_stored_once(world: World) -> None:
    bus = await world.bus()
    first = await bus.publish(SUBJECT, b"a", {}, "same")
    again = await bus.publish(SUBJECT, b"a", {}, "same")
    assert again.duplicate and again.sequence == first.sequence
    assert bodies(await bus.read(INBOX, FILTER)) == ["a"]


async def test_many_publishes_in_flight_are_all_stored_once(world: World) -> None:
    bus = await world.bus()
    acks = await asyncio.gather(*(bus.publish(SUBJECT, b"%d" % n, {}, f"id-{n}") for n in range(200)))
    assert sorted(ack.sequence for ack in acks) == list(range(1, 201))
    assert len(await bus.read(INBOX, FILTER, limit=300)) == 200


async def test_expected_last_sequence_on_subject(world: World) -> None:
    bus = await world.bus()
    subject = subjects.record_subject("rag", TENANT, TASK, "call-1")
    claim = await bus.publish(subject, b"claim", {}, "1", expect_last_on_subject=0)
    with pytest.raises(WrongLastSequence):
        await bus.publish(subject, b"rival", {}, "2", expect_last_on_subject=0)
    outcome = await bus.publish(subject, b"outcome", {}, "3", expect_last_on_subject=claim.sequence)
    with pytest.raises(WrongLastSequence):
        await bus.publish(subject, b"late", {}, "4", expect_last_on_subject=claim.sequence)
    last = await bus.last("RECORDS_RAG", subject)
    assert last is not None and (last.body, last.sequence) == (b"outcome", outcome.sequence)


async def test_the_first_of_a_task_is_stored_as_such_or_not_at_all(world: World) -> None:
    bus = await world.bus()
    with_it = await bus.publish(SUBJECT, b"first", {}, "1", expect_none_on=FILTER)
    other = subjects.mesh_subject("budget", "worker", TENANT, TASK)
    for subject, message_id in ((other, "2"), (SUBJECT, "1"), (SUBJECT, "3")):
        with pytest.raises(WrongLastSequence):
            await bus.publish(subject, b"late", {}, message_id, expect_none_on=FILTER)
    again = await bus.publish(SUBJECT, b"first", {}, "1")
    assert again.duplicate and again.sequence == with_it.sequence
    await bus.publish(other, b"second", {}, "4")
    elsewhere = subjects.mesh_subject("planner", "worker", TENANT, "task-2")
    await bus.publish(elsewhere, b"first", {}, "5", expect_none_on=subjects.task_filter("worker", TENANT, "task-2"))
    await world.durable("worker-0")
    found = [one.stored for one in await take(await bus.open_consumer(INBOX, "worker-0"), 3)]
    assert [wire.was_first(one.headers, FILTER) for one in found] == [True, False, False]
    assert [wire.was_first(one.headers, FILTER) for one in await bus.read(INBOX, FILTER)] == [True, False]


async def test_an_optimistic_publish_repeated_after_a_lost_ack_meets_itself(world: World) -> None:
    bus = await world.bus()
    subject = subjects.record_subject("rag", TENANT, TASK, "call-1")
    first = await bus.publish(subject, b"claim", {}, "1", expect_last_on_subject=0)
    again = await bus.publish(subject, b"claim", {}, "1", expect_last_on_subject=0)
    assert again.duplicate and again.sequence == first.sequence


async def test_a_blob_is_written_once(world: World) -> None:
    bus = await world.bus()
    subject = subjects.blob_subject("worker", TENANT, "ab" * 32)
    first = await bus.publish(subject, b"content", {}, "w1")
    with pytest.raises(PublishRefused, match="10077"):
        await bus.publish(subject, b"forged", {}, "w2")
    assert (await bus.publish(subject, b"content", {}, "w1")).sequence == first.sequence
    stored = await bus.last("BLOBS", subject)
    assert stored is not None and stored.body == b"content"


async def test_a_blob_of_the_largest_size_comes_back_whole(world: World) -> None:
    bus = await world.bus()
    content = bytes(range(256)) * (4 * 1024 * 4)
    subject = subjects.blob_subject("worker", TENANT, "cd" * 32)
    await bus.publish(subject, content, {}, "big")
    stored = await bus.last("BLOBS", subject)
    assert stored is not None and stored.body == content


async def test_a_full_stream_refuses(world: World) -> None:
    bus = await world.bus()
    await put(bus, "a", "b", subject="full.x")
    with pytest.raises(PublishRefused, match="maximum messages"):
        await bus.publish("full.x", b"c", {}, "c")


async def test_oversize_is_refused_and_the_connection_stays(world: World) -> None:
    bus = await world.bus()
    with pytest.raises(PublishRefused, match="blobs"):
        await bus.publish(SUBJECT, b"x" * (MAX_MESSAGE_BYTES + 1), {}, "big")
    with pytest.raises(PublishRefused, match="blobs"):
        await bus.publish(SUBJECT, b"x" * MAX_MESSAGE_BYTES, {"ce-id": "headers count too"}, "big")
    assert (await bus.publish(SUBJECT, b"small", {}, "small")).sequence == 1


async def test_each_stream_has_its_largest_message(world: World) -> None:
    bus = await world.bus()
    headers = {"ce-actor": "Ada Ö"}
    room = 200 - len("NATS/1.0\r\nce-actor: Ada Ö\r\nNats-Msg-Id: fits\r\n\r\n".encode())
    with pytest.raises(PublishRefused, match=r"exceeds maximum allowed.*blobs"):
        await bus.publish("small.a", b"x" * (room + 1), headers, "more")
    ack = await bus.publish("small.a", b"x" * room, headers, "fits")
    assert (ack.sequence, ack.duplicate) == (1, False)
    # What is too long is told first: before a known id, a wrong sequence, a full stream.
    for message_id, expected in (("fits", None), ("new", None), ("late", 7)):
        with pytest.raises(PublishRefused, match="exceeds maximum allowed"):
            await bus.publish("small.a", b"x" * 300, headers, message_id, expect_last_on_subject=expected)


async def test_an_inbox_takes_no_message_beyond_its_limit(world: World) -> None:
    bus = await world.bus()
    with pytest.raises(PublishRefused, match="exceeds maximum allowed"):
        await bus.publish(SUBJECT, b"x" * bounds.MAX_STORED_MESSAGE_BYTES, {}, "long")
    assert (await bus.publish(SUBJECT, b"x" * bounds.MAX_MESSAGE_BYTES, {}, "longest")).sequence == 1


@pytest.mark.parametrize(
    "subject", ["", "mesh.*.worker.1.t.x.*", "mesh.>", "mesh worker", "mesh..worker", "a." * 600, "a.b\n"]
)
async def test_what_is_no_subject_is_refused(world: World, subject: str) -> None:
    bus = await world.bus()
    with pytest.raises(PublishRefused, match="not a subject"):
        await bus.publish(subject, b"x", {}, "1")


async def test_a_subject_without_a_stream_is_refused(world: World) -> None:
    bus = await world.bus()
    with pytest.raises(PublishRefused, match="no stream"):
        await bus.publish("nowhere.x", b"x", {}, "1")


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-Rollup": "all"},
        {"Nats-TTL": "1s"},
        {"Nats-Schedule": "@at 2030-01-01T00:00:00Z", "Nats-Schedule-Target": SUBJECT},
    ],
)
async def test_an_inbox_takes_nothing_that_erases_or_forges(world: World, headers: Mapping[str, str]) -> None:
    bus = await world.bus()
    await put(bus, "kept")
    with pytest.raises(PublishRefused):
        await bus.publish(SUBJECT, b"x", headers, "attack")
    assert bodies(await bus.read(INBOX, FILTER)) == ["kept"]


# Reading


async def test_read_gives_one_task_in_order_after_a_sequence(world: World) -> None:
    bus = await world.bus()
    other = subjects.mesh_subject("planner", "worker", TENANT, "task-2")
    await put(bus, "a", "b")
    await put(bus, "x", subject=other)
    await put(bus, "c", subject=subjects.mesh_subject("rag", "worker", TENANT, TASK))
    found = await bus.read(INBOX, FILTER)
    assert [(one.body, one.sequence) for one in found] == [(b"a", 1), (b"b", 2), (b"c", 4)]
    assert bodies(await bus.read(INBOX, FILTER, after=1)) == ["b", "c"]
    assert bodies(await bus.read(INBOX, FILTER, after=1, limit=1)) == ["b"]
    assert await bus.read(INBOX, FILTER, after=4) == []
    assert await bus.read(INBOX, subjects.task_filter("worker", TENANT, "unknown")) == []
    assert bodies(await bus.read(INBOX, "mesh.*.worker.>")) == ["a", "b", "x", "c"]


async def test_read_pages_through_many(world: World) -> None:
    bus = await world.bus()
    await asyncio.gather(*(bus.publish(SUBJECT, b"%d" % n, {}, str(n)) for n in range(300)))
    seen: list[int] = []
    while page := await bus.read(INBOX, FILTER, after=seen[-1] if seen else 0, limit=128):
        seen += [one.sequence for one in page]
    assert seen == list(range(1, 301))


async def test_last_is_the_newest_of_one_subject(world: World) -> None:
    bus = await world.bus()
    assert await bus.last(INBOX, SUBJECT) is None
    await put(bus, "a", "b")
    last = await bus.last(INBOX, SUBJECT)
    assert last is not None and (last.body, last.sequence, last.subject) == (b"b", 2, SUBJECT)
    await put(bus, "c", subject=subjects.mesh_subject("planner", "worker", TENANT, "task-2"))
    last = await bus.last(INBOX, "mesh.*.worker.>")
    assert last is not None and last.body == b"c"
    last = await bus.last(INBOX, SUBJECT.rpartition(".")[0] + ".*")
    assert last is not None and last.body == b"b"
    assert await bus.last(INBOX, "mesh.*.nobody.>") is None


async def test_the_last_on_a_subject_is_of_no_other_key_or_task(world: World) -> None:
    bus = await world.bus()
    keyed = subjects.mesh_subject("planner", "worker", TENANT, TASK, "call-1")
    assert await bus.last_on(INBOX, keyed) is None
    await put(bus, "a", subject=keyed)
    await put(bus, "b")
    await put(bus, "c", subject=subjects.mesh_subject("planner", "worker", TENANT, TASK, "call-2"))
    last = await bus.last_on(INBOX, keyed)
    assert last is not None and (last.body, last.sequence, last.subject, last.key) == (b"a", 1, keyed, "call-1")
    with pytest.raises(BusError):
        await bus.last_on("INBOX_NOBODY", keyed)


async def test_a_stream_tells_how_far_it_has_come(world: World) -> None:
    bus = await world.bus()
    assert await bus.last_sequence(INBOX) == 0
    await put(bus, "a", "b")
    await put(bus, "c", subject=subjects.mesh_subject("planner", "worker", TENANT, "task-2"))
    assert await bus.last_sequence(INBOX) == 3
    with pytest.raises(BusError):
        await bus.last_sequence("INBOX_NOBODY")


async def test_a_stream_tells_how_much_it_holds_and_what_waits_for_a_durable(world: World) -> None:
    bus = await world.bus()
    await world.durable("worker-0")
    assert await _shows(bus, pending=0, in_work=0)
    await put(bus, "a", "b", "c")
    held = await bus.stream_counts(INBOX, "mesh.*.worker.>")
    assert (held.last_sequence, dict(held.by_subject)) == (3, {SUBJECT: 3}) and held.bytes > 0
    assert (await bus.stream_counts(INBOX)).by_subject == {}, "who asks about no subjects is not told of any"
    assert await _shows(bus, pending=3, in_work=0)
    [handed, *_] = await take(await bus.open_consumer(INBOX, "worker-0"), 2)
    assert await _shows(bus, pending=1, in_work=2)
    await handed.ack()
    await until(lambda: _shows(bus, pending=1, in_work=1))
    assert await bus.durable_counts(INBOX, "worker-1") is None


async def test_a_durable_tells_how_many_ask_for_its_messages_and_how_long_it_has_been_quiet(world: World) -> None:
    bus, other = await world.bus(), await world.bus()
    await world.durable("worker-0")
    counts = await _durable(bus)
    assert counts.asking == 0 and counts.quiet_ms > DEADLINE_S * 1000, "nobody ever asked, nothing was ever handed out"
    one, two = await bus.open_consumer(INBOX, "worker-0"), await other.open_consumer(INBOX, "worker-0")
    asking = [asyncio.create_task(consumer.fetch(4, 2 * DEADLINE_S)) for consumer in (one, two)]
    await until(lambda: _shows(bus, asking=2))
    await two.close()
    await until(lambda: _shows(bus, asking=1), "who has gone asks no more")
    await asyncio.gather(asking.pop(), return_exceptions=True)
    await put(bus, "a")
    [handed] = await asking.pop()
    assert (await _durable(bus)).quiet_ms < DEADLINE_S * 1000
    await handed.ack()


async def _durable(bus: Bus) -> DurableCounts:
    found = await bus.durable_counts(INBOX, "worker-0")
    assert found is not None
    return found


async def _shows(bus: Bus, **wanted: int) -> bool:
    found = await _durable(bus)
    return all(getattr(found, name) == count for name, count in wanted.items())


async def test_read_and_consumer_show_the_same_message(world: World) -> None:
    bus = await world.bus()
    await world.durable("worker-0")
    before = time.time_ns() // 1_000_000
    await bus.publish(SUBJECT, b"body", {"ce-id": "1", "ce-actor": "person äöü", "traceparent": "00-ab"}, "1")
    [read] = await bus.read(INBOX, FILTER)
    [handed] = await take(await bus.open_consumer(INBOX, "worker-0"), 1)
    assert handed.stored == read == await bus.last(INBOX, SUBJECT)
    assert read.headers["ce-actor"] == "person äöü"
    assert before - 5 <= read.time_unix_ms <= time.time_ns() // 1_000_000 + 5


@pytest.mark.parametrize("forged", ["204", "404", "503", "²"])
async def test_a_message_that_calls_itself_a_status_ends_no_answer(world: World, forged: str) -> None:
    """Whoever may publish chooses headers: one must not hide what comes after it, nor end the connection."""
    bus = await world.bus()
    await world.durable("worker-0")
    await put(bus, "a")
    await bus.publish(SUBJECT, b"b", {"Status": forged, "Description": "EOB", "ce-id": "1"}, "b")
    await put(bus, "c")
    assert bodies(await bus.read(INBOX, FILTER)) == ["a", "b", "c"]
    assert bodies(await take(await bus.open_consumer(INBOX, "worker-0"), 3)) == ["a", "b", "c"]
    last = await bus.last(INBOX, SUBJECT)
    assert last is not None and last.body == b"c"
    await put(bus, "d")
    assert bodies(await bus.read(INBOX, FILTER, after=3)) == ["d"]


async def test_reading_an_unknown_stream_is_no_empty_answer(world: World) -> None:
    bus = await world.bus()
    with pytest.raises(BusUnavailable, match="provision"):
        await bus.read("INBOX_NOBODY", "mesh.>")
    with pytest.raises(BusUnavailable, match="provision"):
        await bus.last("INBOX_NOBODY", SUBJECT)


# Consuming


async def test_an_unknown_durable_is_told_at_once(world: World) -> None:
    bus = await world.bus()
    with pytest.raises(BusUnavailable, match="provisioner"):
        await bus.open_consumer(INBOX, "nobody-0")
    with pytest.raises(BusUnavailable, match="provisioner"):
        await bus.open_consumer("INBOX_NOBODY", "worker-0")


async def test_messages_come_in_order_and_once(world: World) -> None:
    bus = await world.bus()
    await world.durable("worker-0")
    await put(bus, *(f"m{n}" for n in range(20)))
    consumer = await bus.open_consumer(INBOX, "worker-0")
    found = await take(consumer, 20, room=7)
    assert bodies(found) == [f"m{n}" for n in range(20)]
    assert [one.consumer_sequence for one in found] == list(range(1, 21))
    assert {one.attempts for one in found} == {1} and {one.stream for one in found} == {INBOX}
    for one in found:
        await one.ack()

    async def all_acked() -> bool:
        return await world.outstanding("worker-0") == 0

    await until(all_acked, "all acks arrive")
    assert await consumer.fetch(1, 0.1) == []


async def test_fetch_waits_and_returns_as_soon_as_there_is_one(world: World) -> None:
    bus = await world.bus()
    consumer = await attach(world, bus)
    waiting = asyncio.create_task(consumer.fetch(10, PATIENCE_S))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    begun = time.monotonic()
    await put(bus, "a")
    assert bodies(await waiting) == ["a"]
    assert time.monotonic() - begun < PATIENCE_S / 2


async def test_what_is_handed_over_is_all_of_it_in_order_and_no_more_than_there_is_room_for(world: World) -> None:
    bus = await world.bus()
    consumer = await attach(world, bus)
    taken: list[BusDelivery] = []
    for room in (2, 1, 3):
        before = len(taken)
        waiting = asyncio.create_task(consumer.hand_over(room, taken.append, PATIENCE_S))
        for text in "abc":
            await put(bus, f"{room}{text}")
        await waiting
        assert before < len(taken) <= before + room
    while len(taken) < 9:
        await consumer.hand_over(9 - len(taken), taken.append, DEADLINE_S)
    assert bodies(taken) == ["2a", "2b", "2c", "1a", "1b", "1c", "3a", "3b", "3c"]
    assert [one.consumer_sequence for one in taken] == list(range(1, 10))
    for one in taken:
        await one.ack()


async def test_fetch_returns_nothing_after_its_timeout(world: World) -> None:
    bus = await world.bus()
    consumer = await attach(world, bus)
    begun = time.monotonic()
    assert await consumer.fetch(10, 0.2) == []
    assert time.monotonic() - begun > 0.15


async def test_no_more_is_handed_out_than_was_asked_for(world: World) -> None:
    bus = await world.bus()
    await world.durable("worker-0")
    await put(bus, "a", "b", "c", "d", "e")
    consumer = await bus.open_consumer(INBOX, "worker-0")
    held = await take(consumer, 2, room=2)
    assert bodies(held) == ["a", "b"]
    assert await world.outstanding("worker-0") == 2
    await held[0].ack()
    held = [held[1], *await take(consumer, 1, room=1)]
    assert bodies(held) == ["b", "c"]
    assert await world.outstanding("worker-0") == 2


async def test_a_message_that_is_not_acked_comes_again(world: World) -> None:
    bus = await world.bus()
    consumer = await attach(world, bus, 300)
    assert consumer.ack_wait_s == pytest.approx(0.3)
    begun = time.monotonic()
    await put(bus, "a")
    [first] = await take(consumer, 1)
    [again] = await take(consumer, 1)
    assert time.monotonic() - begun > 0.29
    assert (again.stored, again.attempts) == (first.stored, 2)
    assert again.consumer_sequence == first.consumer_sequence + 1
    await again.ack()
    assert await consumer.fetch(1, 0.5) == []


async def test_nak_hands_back_at_once_or_after_a_delay(world: World) -> None:
    bus = await world.bus()
    consumer = await attach(world, bus)
    await put(bus, "a")
    [first] = await take(consumer, 1)
    await first.nak()
    [second] = await take(consumer, 1, within_s=1.0)
    assert second.attempts == 2
    begun = time.monotonic()
    await second.nak(0.4)
    [third] = await take(consumer, 1)
    assert third.attempts == 3
    assert time.monotonic() - begun > 0.39


async def test_others_go_on_while_one_waits_handed_back(world: World) -> None:
    bus = await world.bus()
    consumer = await attach(world, bus)
    await put(bus, "a", "b")
    [a] = await take(consumer, 1, room=1)
    await a.nak(0.3)
    [b] = await take(consumer, 1, room=1)
    assert bodies([b]) == ["b"]
    await b.ack()
    assert bodies(await take(consumer, 1)) == ["a"]


async def test_in_progress_keeps_a_message(world: World) -> None:
    bus = await world.bus()
    consumer = await attach(world, bus, 400)
    await put(bus, "a")
    [held] = await take(consumer, 1)
    for _ in range(6):
        await held.in_progress()
        assert await consumer.fetch(1, 0.15) == []
    await held.ack()
    assert await consumer.fetch(1, 0.5) == []


async def test_term_gives_up_for_good(world: World) -> None:
    bus = await world.bus()
    consumer = await attach(world, bus, 200)
    await put(bus, "poison", "fine")
    [poison] = await take(consumer, 1, room=1)
    await poison.term("unreadable")
    assert bodies(await take(consumer, 1)) == ["fine"]

    async def gone() -> bool:
        return await world.outstanding("worker-0") <= 1

    await until(gone, "term arrives")
    assert bodies(await bus.read(INBOX, FILTER)) == ["poison", "fine"]


async def test_two_consumers_share_a_durable(world: World) -> None:
    """A gap in the numbers tells each that the other was served; together they miss nothing."""
    one, two = await world.bus(), await world.bus()
    await world.durable("worker-0")
    a, b = await one.open_consumer(INBOX, "worker-0"), await two.open_consumer(INBOX, "worker-0")
    waiting = [asyncio.create_task(a.fetch(1, DEADLINE_S)), asyncio.create_task(b.fetch(1, DEADLINE_S))]
    await asyncio.sleep(0.1)
    await put(one, "m0", "m1")
    found = [one for part in await asyncio.gather(*waiting) for one in part]
    assert sorted(bodies(found)) == ["m0", "m1"]
    assert sorted(delivery.consumer_sequence for delivery in found) == [1, 2]
    await put(one, "m2")
    [third] = await take(a, 1)
    assert third.consumer_sequence == 3


async def test_what_nobody_asks_for_any_more_comes_again_at_once_to_who_reclaims_it(world: World) -> None:
    killed, successor = await world.bus(), await world.bus()
    await world.durable("worker-0", ack_wait_ms=60_000)

    async def nobody_asks() -> bool:
        counts = await successor.durable_counts(INBOX, "worker-0")
        return counts is not None and not counts.asking

    consumer = await killed.open_consumer(INBOX, "worker-0")
    await put(killed, "a", "b", "c", "d")
    first, *_ = await take(consumer, 4)
    waiting = asyncio.create_task(consumer.fetch(1, DEADLINE_S))
    await first.ack()
    await asyncio.sleep(0.3)
    beside = await successor.open_consumer(INBOX, "worker-0", reclaims=True)
    assert await beside.fetch(8, 0.2) == []
    await beside.close()
    await world.kill(killed)
    await asyncio.gather(waiting, return_exceptions=True)
    await until(nobody_asks, "the broker knows of the kill")
    reclaimed = await take(await successor.open_consumer(INBOX, "worker-0", reclaims=True), 3)
    assert sorted(bodies(reclaimed)) == ["b", "c", "d"] and {one.attempts for one in reclaimed} == {2}
    for one in reclaimed:
        await one.ack()


async def test_a_closed_consumer_hands_back_what_nobody_fetched(world: World) -> None:
    bus = await world.bus()
    await world.durable("worker-0", ack_wait_ms=60_000)
    leaving, staying = await bus.open_consumer(INBOX, "worker-0"), await bus.open_consumer(INBOX, "worker-0")
    fetching = asyncio.create_task(leaving.fetch(5, DEADLINE_S))
    await asyncio.sleep(0.05)
    fetching.cancel()
    await asyncio.gather(fetching, return_exceptions=True)
    await put(bus, "a", "b")
    await leaving.close()
    assert sorted(bodies(await take(staying, 2))) == ["a", "b"]
    with pytest.raises(BusUnavailable):
        await leaving.fetch(1, 0.1)
