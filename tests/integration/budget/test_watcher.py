"""Budget's watcher over a journal and a real Redis: what it finds is told once, by one replica, whoever is killed."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bulkhead.bus.memory.clock import StandingClock
from bulkhead.bus.port import StoredMessage
from bulkhead.health.thresholds import DEFAULT
from bulkhead.runtime.context import Context
from bulkhead.runtime.halts.operator import read_breakers, reset_breaker
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.agent import AgentWarned
from bulkhead_contracts.budget import Amount, Charge, NoticeRequested, TaskCharged, TaskHalted, Tripped
from bulkhead_contracts.control import Halt
from bulkhead_contracts.result import ContentRef, Failure
from bulkhead_contracts.task import TaskEnded, TaskLimits, TaskSubmitted
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from bulkhead_services.budget.app import Budget, build
from bulkhead_services.budget.ledger.store import Fenced
from bulkhead_services.budget.settings import Settings
from bulkhead_services.budget.watch.fold import TaskSpan, WatchFold, WatchMark
from bulkhead_services.budget.watch.watcher import MARK_NAME, Watcher
from tests.eventually import until
from tests.redis_server import EphemeralRedis

TENANT = "acme"


class World:
    """A mesh with budget in it; the test speaks as worker, tools, gateway and planner."""

    def __init__(self, mesh: MemoryMesh, edges: dict[str, Budget]) -> None:
        self.mesh, self.edges = mesh, edges
        self._numbers = itertools.count()

    def watcher(self, instance: str = "0") -> Watcher:
        found = self.edges[instance].watcher
        assert found is not None
        return found

    async def submit(self, task: str) -> None:
        ref = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)
        body = TaskSubmitted(objective=ref, limits=TaskLimits(), submitted_unix_ms=1)
        await self.mesh.context("gateway").publisher.send("planner", body, tenant=TENANT, task=task, index=task)

    async def end(self, task: str) -> None:
        await self.mesh.context("planner").publisher.send(
            "gateway", TaskEnded(status="succeeded"), tenant=TENANT, task=task, index=f"{task}/end"
        )

    async def call(self, task: str, arguments: str = '{"q":"x"}', answer: str = "a", failure: str = "") -> None:
        name = f"c{next(self._numbers)}"
        asked = ToolCallRequested(
            call_id=name, step_id="s1", attempt=1, tool="look", arguments_json=arguments, deadline_unix_ms=1
        )
        content = ContentRef(author="tool_executor", sha256=(answer * 64)[:64], size_bytes=1)
        said = ToolCallReplied(call_id=name, step_id="s1", outcome="succeeded", content=content)
        if failure:
            said = ToolCallReplied(
                call_id=name, step_id="s1", outcome="failed", failure=Failure(code=failure, message=f"{failure} {name}")
            )
        for sender, to, body in (("worker", "tool_executor", asked), ("tool_executor", "worker", said)):
            await self.mesh.context(sender).publisher.send(to, body, tenant=TENANT, task=task, index=f"{task}/{name}")

    async def tripped(self, task: str) -> list[Tripped]:
        """The facts of one task, repeated ones too."""
        found = []
        for stored in await self.mesh.messages("INBOX_JOURNAL", f"mesh.budget.journal.*.{TENANT}.{task}.*"):
            body = catalog.decode_body(stored.ce_type, stored.body)
            if isinstance(body, Tripped):
                found.append(body)
        return found

    async def halted(self, task: str) -> list[TaskHalted]:
        found = []
        for stored in await self.mesh.messages("INBOX_PLANNER", f"mesh.budget.planner.*.{TENANT}.{task}.*"):
            body = catalog.decode_body(stored.ce_type, stored.body)
            assert isinstance(body, TaskHalted)
            found.append(body)
        return found

    async def folded(self, instance: str = "0") -> None:
        """Until the watcher has folded everything that was said so far, once the journal has all of it."""

        async def whole() -> bool:
            said = [await self.mesh.messages(subjects.inbox_stream(one)) for one in catalog.INBOXES]
            return len(await self.mesh.messages("JOURNAL", "mesh.>")) == sum(map(len, said))

        await until(whole)
        (last,) = (await self.mesh.messages("JOURNAL", "mesh.>"))[-1:]
        await until(
            lambda: (
                (self.watcher(instance)._last or last).sequence >= last.sequence and self.watcher(instance).caught_up
            )
        )


@asynccontextmanager
async def watched(redis: EphemeralRedis, name: str) -> AsyncIterator[World]:
    """A world whose ledger is its own in Redis, once its watcher has caught up."""
    edges: dict[str, Budget] = {}
    prefix = "".join(one for one in name if one.isalnum())[:60]

    def make(context: Context) -> Budget:
        settings = Settings(redis_url=redis.url, redis_prefix=prefix, watch_interval_s=0.02)
        edges[context.instance] = build(context, settings)
        return edges[context.instance]

    # Pauses tell patience from loops, also those of a busy machine: here there are none.
    async with MemoryMesh({"budget": make}, clock=StandingClock()) as mesh:
        world = World(mesh, edges)
        await until(lambda: world.watcher().caught_up)
        yield world
    for edge in edges.values():
        await edge.stop()


@pytest.fixture
async def world(redis: EphemeralRedis, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with watched(redis, request.node.name) as found:
        yield found


async def test_a_loop_is_warned_of_then_halted_with_its_evidence(world: World) -> None:
    await world.submit("t1")
    for _ in range(3):
        await world.call("t1")

    async def warned() -> bool:
        return [one.level for one in await world.tripped("t1")] == ["warn"]

    await until(warned)
    assert await world.halted("t1") == []
    (told,) = await world.mesh.messages("INBOX_WORKER", f"mesh.budget.worker.*.{TENANT}.t1.*")
    warning = AgentWarned.model_validate_json(told.body)
    assert warning.step_id == "s1" and "called look with the same arguments" in warning.what and warning.hint
    await world.call("t1")

    async def stopped() -> bool:
        return [one.level for one in await world.tripped("t1")] == ["warn", "stop"]

    await until(stopped)
    (halted,) = await world.halted("t1")
    assert halted.code == "loop_stopped" and "called look with the same arguments" in halted.reason
    trip = (await world.tripped("t1"))[-1]
    replies = await world.mesh.messages("INBOX_WORKER", f"mesh.tool_executor.worker.*.{TENANT}.t1.*")
    assert trip.halted and list(trip.evidence) == [one.ce_id for one in replies]
    (entry,) = await world.mesh.messages("KV_CONTROL", f"$KV.CONTROL.task.{TENANT}.t1")
    assert Halt.model_validate_json(entry.body).code == "loop_stopped"
    (ended,) = await world.mesh.messages("INBOX_PLANNER", f"mesh.budget.planner.*.{TENANT}.t1.*")
    assert ended.time_unix_ms <= entry.time_unix_ms, "or a call that the halt cut short ends the task, and says less"
    # What it cost is told whole, as of a task that somebody cancels: nothing is held any more.
    said = await world.mesh.messages("INBOX_GATEWAY", f"mesh.budget.gateway.*.{TENANT}.t1.*")
    charged = [one.body for one in said if one.ce_type == TaskCharged.ce_type()]  # An alert may stand beside it.
    assert [TaskCharged.model_validate_json(body) for body in charged] == [TaskCharged(charged=Charge(), held=Amount())]


async def test_a_trip_stays_due_while_there_is_no_ledger_to_tell_the_cost_from(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = world.edges["0"].store, []

    async def gone(scope: str) -> None:
        asked.append(scope)
        raise Fenced("it is built anew")

    with monkeypatch.context() as patch:
        patch.setattr(store, "stop_scope", gone)
        await world.submit("t1")
        for _ in range(4):
            await world.call("t1")
        await until(lambda: len(asked) > 1)
        # The warning is out or still due, with the stop behind it when both were seen at once.
        assert {one.level for one in await world.tripped("t1")} <= {"warn"}, "its halt is out, its fact is not"
    await until(lambda: _len(world.tripped("t1"), 2))
    assert len(await world.halted("t1")) == 1 and set(asked) == {f"task:{TENANT}:t1"}


async def test_a_breaker_opens_for_all_to_see_and_a_person_closes_it(world: World) -> None:
    # Of several tasks: so many failures of one alone would be a loop. The last one is t1's.
    tasks = ("t4", "t3", "t2", "t1")
    for task in tasks:
        await world.submit(task)
    for number in range(DEFAULT.breakers.min_calls):
        task = tasks[number * len(tasks) // DEFAULT.breakers.min_calls]
        await world.call(task, arguments=f'{{"q":"{number}"}}', failure="timeout")
    bus = world.mesh.context("budget").bus

    async def stands(phase: str) -> bool:
        return [one.phase for one in await read_breakers(bus)] == [phase]

    await until(lambda: stands("open"))
    await until(lambda: _some(world.tripped("t1")))
    (breaker,), (trip,) = (
        await read_breakers(bus),
        [one for one in await world.tripped("t1") if "breaker" in one.detector],
    )
    assert (breaker.scope, breaker.tenant, breaker.name, trip.detector) == ("tool", TENANT, "look", "breaker.tool")
    assert breaker.evidence == trip.evidence
    assert len(trip.evidence) == DEFAULT.breakers.min_calls and not trip.halted and await world.halted("t1") == []
    # Whoever begins to lead now finds it open, and does not tell of it again.
    await world.mesh.start("budget", "1")
    await until(lambda: world.watcher("1").caught_up)
    world.mesh.kill_replica("budget", "0")
    await world.watcher("0").stop()
    await until(lambda: world.watcher("1").leads)
    await until(lambda: world.watcher("1").fold.watch.breakers.states["tool", TENANT, "look"].phase == "open")
    publisher = world.mesh.context("budget").publisher
    assert await reset_breaker(bus, publisher, breaker, "operator:ada", world.mesh.context("gateway").clock())
    await until(lambda: world.watcher("1").fold.watch.breakers.states["tool", TENANT, "look"].phase == "closed")
    assert await stands("closed") and not await reset_breaker(bus, publisher, breaker, "operator:ada", 1)
    assert len([one for one in await world.tripped("t1") if "breaker" in one.detector]) == 1

    async def noticed() -> list[str]:
        stored = await world.mesh.messages("INBOX_TOOL_EXECUTOR", f"mesh.budget.tool_executor.*.{TENANT}.*.*")
        return [NoticeRequested.model_validate_json(one.body).kind for one in stored]

    await until(lambda: _len(noticed(), 2))
    assert await noticed() == ["breaker_opened", "breaker_reset"], "each once, whoever led"


async def test_a_killed_leader_loses_nothing_and_nothing_is_told_twice(world: World) -> None:
    await world.mesh.start("budget", "1")
    await until(lambda: world.watcher("1").caught_up)
    leader = "0" if world.watcher("0").leads else "1"
    standby = "1" if leader == "0" else "0"
    assert not world.watcher(standby).leads
    await world.submit("t1")
    for _ in range(3):
        await world.call("t1")
    await until(lambda: _some(world.tripped("t1")))
    # It is killed with a trip on its lips: found, and not told.
    world.watcher(leader)._publish_trip = _never  # type: ignore[method-assign]
    await world.call("t1")
    await world.folded(leader)
    world.mesh.kill_replica("budget", leader)
    await world.watcher(leader).stop()

    async def told() -> bool:
        return [one.level for one in await world.tripped("t1")] == ["warn", "stop"]

    await until(told)
    assert len(await world.halted("t1")) == 1 and world.watcher(standby).leads
    # One that begins now folds it all again and has nothing to tell.
    await world.mesh.start("budget", "2")
    await until(lambda: world.watcher("2").caught_up)
    assert world.watcher("2").fold.due == {} and world.watcher("2").fold.folded > 0
    assert len(await world.tripped("t1")) == 2


async def _some(found: Awaitable[list[Tripped]]) -> bool:
    return bool(await found)


async def _never(*_: object) -> None:
    await asyncio.Event().wait()


async def test_a_fold_from_the_mark_knows_what_the_whole_journal_says(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few messages of the past are read again: those of tasks that lived, and the last ones."""
    monkeypatch.setattr("bulkhead_services.budget.watch.watcher.REFOLD_MESSAGES", 5)
    monkeypatch.setattr("bulkhead_services.budget.watch.watcher.MARK_EVERY", 1)
    await world.submit("old")
    for _ in range(3):
        await world.call("old")
    await until(lambda: _some(world.tripped("old")))
    for number in range(20):
        await world.submit(f"done{number}")
        await world.call(f"done{number}")
        await world.end(f"done{number}")
    await world.folded()

    async def marked() -> bool:
        kept = WatchMark.decode(await world.edges["0"].store.get_value(MARK_NAME))
        return kept.after == world.watcher().fold.make_mark().after and list(kept.living) == ["acme/old"]

    await until(marked)
    whole = world.watcher().fold.folded
    stored = await world.mesh.messages("JOURNAL", f"mesh.*.*.*.{TENANT}.old.*")
    mark = world.watcher().fold.make_mark()
    assert mark.living["acme/old"] == (stored[0].sequence, len(stored), stored[-1].sequence)
    asked: list[tuple[str, int]] = []
    bus = world.watcher("0")._bus
    read = type(bus).read

    async def listens(self: object, stream: str, subject: str, after: int = 0, limit: int = 256) -> list[StoredMessage]:
        asked.append((subject, limit))
        return await read(self, stream, subject, after, limit)  # type: ignore[arg-type]

    monkeypatch.setattr(type(bus), "read", listens)
    await world.mesh.start("budget", "1")
    await until(lambda: world.watcher("1").caught_up)
    whole_of_old = [limit for subject, limit in asked if subject.endswith(".old.*")]
    assert whole_of_old == [len(stored)], "nothing is searched for beyond"
    assert world.watcher("1").fold.folded < whole / 2
    world.watcher("0").leads = False
    monkeypatch.setattr(world.edges["0"].store, "take_lead", _no)
    await world.call("old")

    async def stopped() -> bool:
        return [one.level for one in await world.tripped("old")] == ["warn", "stop"]

    await until(stopped)
    assert world.watcher("1").trips_told == 1


async def _no(*_: object) -> bool:
    return False


async def _len(found: Awaitable[list[Any]], count: int) -> bool:
    return len(await found) == count


def test_a_mark_that_cannot_be_read_is_none() -> None:
    talks = ((("agent", "t", "worker.step"), {"t/y": (5, ("m1", "m2"), "ada")}, {"bob": 9}),)
    said = (("t", "openai", "m-1", "fingerprint", [["fp_a", "m1", 5]]),)
    mark = WatchMark(7, "mesh.a.b.1.t.x.-", 3, {"t/x": TaskSpan(2, 5, 6)}, {"worker": 4}, talks, said)
    assert WatchMark.decode(mark.encode()) == mark
    for raw in (
        b"",
        b"{",
        b"[]",
        b'[4,1,"b",3,{},{},[],[]]',
        b'[5,"a","b",3,{},{},[],[]]',
        b'[5,1,"b",3,[],{},[],[]]',
        b'[5,1,"b",3,{"t/x":7},{},[],[]]',
        b'[5,1,"b",3,{"t/x":[1,2,3,4]},{},[],[]]',
        b'[5,1,"b",3,{},{},7,[]]',
        b'[5,1,"b",3,{},{},[[["a","b"],{},{}]],[]]',
        b'[5,1,"b",3,{},{},[[["a","b","c"],{"t":[1]},{}]],[]]',
        b'[5,1,"b",3,{},{},[]]',
        b'[5,1,"b",3,{},{},[],[["t","p","m","name",7]]]',
    ):
        assert WatchMark.decode(raw) == WatchMark()
    assert WatchFold(DEFAULT).make_mark() == WatchMark()
