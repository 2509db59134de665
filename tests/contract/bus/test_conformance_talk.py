"""What every bus adapter promises beyond stored messages, run against the real broker and the in-memory one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import pytest

from bulkhead.bus import wire
from bulkhead.bus.port import BusUnavailable, LiveMessage, PublishRefused, Schedule, StoredMessage
from bulkhead_contracts import subjects
from tests.contract.bus.probes import DEADLINE_S, FILTER, SUBJECT, TASK, TENANT, attach, bodies, hear, put, take
from tests.contract.bus.worlds import INBOX, World
from tests.eventually import until

# Timers, journal, control


def timer(key: str, due_unix_ms: int) -> Schedule:
    """A timer of the worker for TASK."""
    return Schedule(
        subject=subjects.timer_set("worker", TENANT, TASK, key),
        target=subjects.timer_fired("worker", TENANT, TASK),
        due_unix_ms=due_unix_ms,
        body=key.encode(),
        headers={"ce-id": f"id-{key}", "ce-type": "mesh.timer.fired.v1", "ce-source": "worker"},
    )


async def test_a_timer_fires_into_the_inbox(world: World) -> None:
    bus = await world.bus()
    consumer = await attach(world, bus)
    due = time.time_ns() // 1_000_000 + 400
    ack = await bus.schedule(timer("deadline", due), "t1")
    assert ack.stream == "TIMERS_WORKER"
    assert (await bus.schedule(timer("deadline", due), "t1")).duplicate
    [fired] = await take(consumer, 1)
    assert fired.stored.subject == subjects.mesh_subject("worker", "worker", TENANT, TASK)
    assert subjects.parse(fired.stored.subject).sender == "worker"
    assert fired.stored.headers["ce-id"] == "id-deadline"
    assert fired.stored.headers["ce-type"] == "mesh.timer.fired.v1"
    assert fired.stored.body == b"deadline"
    assert fired.stored.time_unix_ms >= due - 5
    assert await consumer.fetch(1, 0.5) == []


async def test_a_late_timer_fires_at_once(world: World) -> None:
    bus = await world.bus()
    consumer = await attach(world, bus)
    await bus.schedule(timer("late", time.time_ns() // 1_000_000 - 60_000), "t1")
    assert bodies(await take(consumer, 1, within_s=2.0)) == ["late"]


async def test_setting_a_timer_again_replaces_it(world: World) -> None:
    bus = await world.bus()
    consumer = await attach(world, bus)
    now = time.time_ns() // 1_000_000
    await bus.schedule(timer("beat", now + 200), "t1")
    await bus.schedule(timer("beat", now + 700), "t2")
    [fired] = await take(consumer, 1)
    assert fired.stored.time_unix_ms >= now + 690
    assert await consumer.fetch(1, 0.5) == []


async def test_a_schedule_stays_in_its_own_stream(world: World) -> None:
    bus = await world.bus()
    now = time.time_ns() // 1_000_000
    forged = Schedule(subjects.timer_set("worker", TENANT, TASK, "k"), SUBJECT, now, b"forged")
    with pytest.raises(PublishRefused):
        await bus.schedule(forged, "t1")


async def test_the_journal_repeats_every_inbox(world: World) -> None:
    bus = await world.bus()
    await put(bus, "to-worker")
    await put(bus, "to-planner", subject=subjects.mesh_subject("worker", "planner", TENANT, TASK))
    await bus.schedule(timer("late", time.time_ns() // 1_000_000 - 1_000), "t1")

    async def whole_journal() -> list[StoredMessage]:
        stored = await bus.read("JOURNAL", f"mesh.*.*.*.{TENANT}.{TASK}.*")
        return stored if len(stored) == 3 else []

    found = {one.body.decode(): one for one in await until(whole_journal, "the journal has all three")}
    assert found["to-worker"].subject == SUBJECT and found["to-worker"].headers["ce-id"] == "to-worker"
    assert found["to-planner"].subject == subjects.mesh_subject("worker", "planner", TENANT, TASK)
    assert found["late"].subject == subjects.mesh_subject("worker", "worker", TENANT, TASK)


async def test_control_entries_are_read_and_heard(world: World) -> None:
    bus, watcher = await world.bus("budget"), await world.bus()
    live = await watcher.subscribe_live("control.live.>")
    key = subjects.control_key("task", TASK)
    await bus.publish(key, b'{"active": true}', {}, "1")
    await bus.publish(key, b'{"active": false}', {}, "2")
    heard = await hear(live, 2)
    assert {word.subject for word in heard} == {f"control.live.task.{TASK}"}
    assert [word.body for word in heard] == [b'{"active": true}', b'{"active": false}']
    assert [one.body for one in await watcher.read("KV_CONTROL", "$KV.CONTROL.>")] == [b'{"active": false}']


# Requests and live words


async def test_a_request_is_answered_by_one_of_the_servers(world: World) -> None:
    asker, budget = await world.bus(), await world.bus("budget")
    served: list[str] = []

    def server(name: str) -> Callable[[LiveMessage], Awaitable[tuple[Mapping[str, str], bytes]]]:
        async def answer(request: LiveMessage) -> tuple[Mapping[str, str], bytes]:
            served.append(name)
            return {"ce-type": "x", "asked": request.headers["ce-id"]}, request.subject.encode() + b"/" + request.body

        return answer

    stops = [await budget.serve("rpc.*.budget.>", "budget", server(name)) for name in ("one", "two")]
    subject = subjects.rpc_subject("worker", "budget", TENANT, TASK)
    answers = await asyncio.gather(*(asker.request(subject, b"%d" % n, {"ce-id": str(n)}) for n in range(20)))
    assert [answer.body for answer in answers] == [f"{subject}/{n}".encode() for n in range(20)]
    assert [answer.headers["asked"] for answer in answers] == [str(n) for n in range(20)]
    assert len(served) == 20
    for stop in stops:
        await stop()
    with pytest.raises(BusUnavailable):
        await asker.request(subject, b"x", {"ce-id": "late"}, timeout_s=0.5)


async def test_nobody_answers(world: World) -> None:
    bus = await world.bus()
    begun = time.monotonic()
    with pytest.raises(BusUnavailable, match="nobody answers"):
        await bus.request(subjects.rpc_subject("worker", "budget", TENANT, TASK), b"x", timeout_s=4 * DEADLINE_S)
    assert time.monotonic() - begun < 2 * DEADLINE_S


async def test_a_slow_answer_is_given_up(world: World) -> None:
    asker, budget = await world.bus(), await world.bus("budget")
    release = asyncio.Event()

    async def never(request: LiveMessage) -> tuple[Mapping[str, str], bytes]:
        await release.wait()
        return {}, b"too late"

    await budget.serve("rpc.*.budget.>", "budget", never)
    with pytest.raises(BusUnavailable, match="within"):
        await asker.request(subjects.rpc_subject("worker", "budget", TENANT, TASK), b"x", timeout_s=0.2)
    release.set()


async def test_live_words_reach_every_listener_and_are_not_stored(world: World) -> None:
    speaker, one, two = await world.bus("model_gateway"), await world.bus(), await world.bus("gateway")
    subject = subjects.live_subject("model_gateway", TENANT, TASK)
    first, second = await one.subscribe_live(subject), await two.subscribe_live("live.*.acme.>")
    await speaker.publish_live("live.model_gateway.other.x", b"not for them")
    for n in range(5):
        await speaker.publish_live(subject, b"%d" % n, {"n": str(n)})
    for live in (first, second):
        heard = await hear(live, 5)
        assert [word.body for word in heard] == [b"0", b"1", b"2", b"3", b"4"]
        assert heard[3].headers["n"] == "3" and heard[3].subject == subject
        assert live.dropped == 0


async def test_a_slow_listener_drops_and_counts(world: World) -> None:
    bus = await world.bus()
    live = await bus.subscribe_live("live.a.b.c", max_pending=3)
    for n in range(10):
        await bus.publish_live("live.a.b.c", b"%d" % n)

    await until(lambda: live.dropped == 7, "seven words are dropped and counted")
    assert [word.body for word in await hear(live, 3)] == [b"0", b"1", b"2"]
    await bus.publish_live("live.a.b.c", b"more")
    assert [word.body for word in await hear(live, 1)] == [b"more"]


async def test_closing_a_live_subscription_ends_its_iteration(world: World) -> None:
    bus = await world.bus()
    live = await bus.subscribe_live("live.a.b.c")

    heard: list[LiveMessage] = []

    async def listen() -> None:
        async for word in live:
            heard.append(word)

    listening = asyncio.create_task(listen())
    await bus.publish_live("live.a.b.c", b"1")
    await until(lambda: heard, "the word arrives")
    await live.close()
    await asyncio.wait_for(listening, DEADLINE_S)
    assert len(heard) == 1


# Life and death


async def test_a_closed_bus_says_so_everywhere(world: World) -> None:
    bus = await world.bus()
    await world.durable("worker-0")
    assert await bus.is_ready()
    consumer = await bus.open_consumer(INBOX, "worker-0")
    fetching = asyncio.create_task(consumer.fetch(1, 60))
    closed = asyncio.create_task(bus.wait_closed())
    await asyncio.sleep(0.05)
    assert not closed.done()
    await bus.close()
    assert "closed by this process" in await asyncio.wait_for(closed, DEADLINE_S)
    with pytest.raises(BusUnavailable):
        await asyncio.wait_for(fetching, DEADLINE_S)
    for act in (
        lambda: bus.publish(SUBJECT, b"x", {}, "1"),
        lambda: bus.read(INBOX, FILTER),
        lambda: bus.request("rpc.a.b.1.t.x", b""),
        lambda: consumer.fetch(1, 1),
    ):
        with pytest.raises(BusUnavailable, match="closed"):
            await act()
    assert not await bus.is_ready()
    await bus.close()


def answer(sequence: int, before: int) -> tuple[dict[str, str], bytes]:
    """As the server answers a batched direct get; each message names the one before it."""
    return {
        "Nats-Stream": "INBOX_WORKER",
        "Nats-Subject": "mesh.planner.worker.1.demo.t1.-",
        "Nats-Sequence": str(sequence),
        "Nats-Last-Sequence": str(before),
        "Nats-Time-Stamp": "2027-01-15T08:00:00.123456789Z",
    }, b"{}"


def end(before: int) -> tuple[dict[str, str], bytes]:
    return {"Status": "204", "Description": "EOB", "Nats-Last-Sequence": str(before)}, b""


def test_a_whole_answer_is_a_page():
    page = wire.read_page([answer(4, 0), answer(7, 4), answer(9, 7), end(9)], "INBOX_WORKER")
    assert [one.sequence for one in page] == [4, 7, 9]


@pytest.mark.parametrize(
    "answers",
    [[answer(4, 0), answer(9, 7), end(9)], [answer(4, 0), answer(7, 4), end(9)]],
    ids=["in the middle", "at the end"],
)
def test_an_answer_with_a_hole_is_none(answers):
    with pytest.raises(BusUnavailable, match="hole after"):
        wire.read_page(answers, "INBOX_WORKER")
