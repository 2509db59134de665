"""So many publishes to one stream are under way, in order, and no place is ever lost."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bulkhead.bus.jetstream import bus as jetstream_bus
from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.jetstream.client import SocketMessage
from bulkhead.bus.jetstream.connection import ConnectionLost
from bulkhead.bus.jetstream.publish_window import WIDTH, PublishWindow, PublishWindows
from bulkhead.bus.port import BusUnavailable
from bulkhead_contracts import subjects


@example(1, ["enter", "enter", "turn", "leave", "give up"])
@example(2, ["enter", "enter", "enter", "turn", "enter", "leave", "leave"])
@given(st.integers(1, 3), st.lists(st.sampled_from(["enter", "leave", "give up", "turn"]), max_size=40))
def test_whatever_happens_they_enter_in_order_and_every_place_is_there_again(width: int, what: list[str]) -> None:
    asyncio.run(_happens(width, what))


async def _happens(width: int, what: list[str]) -> None:
    window, came, inside = PublishWindow(width), list[asyncio.Task[None]](), list[int]()
    given_up = set[int]()

    async def one(number: int) -> None:
        await window.wait_for_slot()
        inside.append(number)

    left = 0
    for word in [*what, "turn"]:
        if word == "enter":
            came.append(asyncio.create_task(one(len(came))))
        elif word == "leave" and left < len(inside):
            left += 1
            window.release_slot()
        elif word == "give up":
            # Perhaps in the very moment in which it was given its place.
            waiting = [number for number, task in enumerate(came) if number not in given_up and number not in inside]
            if waiting:
                came[waiting[0]].cancel()
                given_up.add(waiting[0])
        elif word == "turn":
            await _quiet()
            assert len(inside) - left <= width
    assert inside == sorted(inside)
    for _ in range(len(came)):
        if left < len(inside):
            left += 1
            window.release_slot()
        await _quiet()
    assert inside == [number for number in range(len(came)) if number in inside]
    assert set(inside) | given_up == set(range(len(came))), "somebody waits for ever"
    assert window.free == width


async def _quiet() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_an_inbox_has_one_window_whoever_speaks_and_another_inbox_another() -> None:
    windows = PublishWindows()
    mine = windows.window_of(subjects.mesh_subject("planner", "worker", "acme", "t1"))
    assert windows.window_of(subjects.mesh_subject("gateway", "worker", "other", "t2")) is mine
    others = [
        subjects.mesh_subject("planner", "gateway", "acme", "t1"),
        subjects.blob_subject("worker", "acme", "ff"),
        subjects.timer_set("worker", "acme", "t1", "k"),
        subjects.record_subject("worker", "acme", "t1", "k"),
        subjects.dead_letter_subject("worker", "acme", "t1"),
        "mesh",
        "mesh.x",
    ]
    assert len({id(windows.window_of(one)) for one in others} | {id(mine)}) == len(others)


class _Broker:
    """Stands for the broker behind `ReplyCollector`: answers what it has when it is told to."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.open: dict[str, asyncio.Future[list[SocketMessage]]] = {}
        self.most = 0

    async def request_replies(
        self, subject: str, body: bytes, headers: dict[str, str], *, timeout_s: float
    ) -> list[SocketMessage]:
        name = body.decode()
        self.sent.append(name)
        done = self.open[name] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.open))
        try:
            return await done
        finally:
            del self.open[name]

    def answer(self) -> None:
        for number, done in enumerate(list(self.open.values())):
            done.set_result([SocketMessage("", "", json.dumps({"stream": "S", "seq": number + 1}).encode(), None)])

    def lose(self) -> None:
        for done in list(self.open.values()):
            done.set_exception(ConnectionLost("lost"))


def _bus(broker: _Broker) -> JetStreamBus:
    connection: Any = SimpleNamespace(connected=True, on_lost=set(), on_renewed=set())
    bus = JetStreamBus(connection, "planner", "$JS.API", "_INBOX")
    bus._replies = broker  # type: ignore[assignment]
    return bus


async def test_a_stream_is_given_its_share_and_the_rest_as_it_answers() -> None:
    broker = _Broker()
    bus = _bus(broker)
    subject = subjects.mesh_subject("planner", "worker", "acme", "t1")
    names = [f"m{number}" for number in range(3 * WIDTH)]
    saying = [asyncio.create_task(bus.publish(subject, name.encode(), {}, name)) for name in names]
    await _quiet()
    assert broker.sent == names[:WIDTH]
    while not all(one.done() for one in saying):
        broker.answer()
        await _quiet()
    assert broker.sent == names and broker.most == WIDTH


async def test_after_a_broken_connection_nothing_overtakes_what_was_under_way() -> None:
    """An end that waited must not be stored before the progress that was written and lost."""
    broker = _Broker()
    bus = _bus(broker)
    subject = subjects.mesh_subject("planner", "gateway", "acme", "t1")
    names = [f"m{number}" for number in range(WIDTH + 8)]
    saying = [asyncio.create_task(bus.publish(subject, name.encode(), {}, name)) for name in names]
    await _quiet()
    broker.lose()
    await _quiet()
    assert broker.sent == [*names[:WIDTH], *names[:WIDTH]]
    while not all(one.done() for one in saying):
        broker.answer()
        await _quiet()
    assert broker.sent[WIDTH:] == names


async def test_who_waits_too_long_hears_that_nothing_was_sent_and_all_of_them_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker that is gone answers nobody: who waited behind those that it was asked by waits no second time."""
    monkeypatch.setattr(jetstream_bus, "PUBLISH_TIMEOUT_S", 0.05)
    broker = _Broker()
    bus = _bus(broker)
    subject = subjects.mesh_subject("planner", "worker", "acme", "t1")
    saying = [asyncio.create_task(bus.publish(subject, b"%d" % n, {}, str(n))) for n in range(3 * WIDTH)]
    await asyncio.sleep(0.1)
    for done in list(broker.open.values()):
        done.set_exception(BusUnavailable("no answer"))
    await _quiet()
    said = [str(one.exception()) for one in saying]
    assert len(broker.sent) == WIDTH and all("no time is left" in one for one in said[WIDTH:]), said


async def test_who_gives_up_or_is_refused_gives_its_place_back() -> None:
    broker = _Broker()
    bus = _bus(broker)
    subject = subjects.mesh_subject("planner", "worker", "acme", "t1")
    saying = [asyncio.create_task(bus.publish(subject, b"%d" % n, {}, str(n))) for n in range(WIDTH + 1)]
    await _quiet()
    for one in saying[:WIDTH]:
        one.cancel()
    await _quiet()
    assert broker.sent[-1] == str(WIDTH) and not saying[WIDTH].done()
    broker.answer()
    await saying[WIDTH]
