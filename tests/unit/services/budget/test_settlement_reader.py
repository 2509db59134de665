"""Settlements in replies: read where they lie, applied once, never passed over, whatever lags or is built anew."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from bulkhead.bus.memory.broker import MemoryBroker
from bulkhead.runtime.context import Context
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Usage
from bulkhead_services.budget import settlement_reader
from bulkhead_services.budget.app import Budget, build
from bulkhead_services.budget.ledger import fact_lookup
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.replies import EDGES, ReplyEdge
from bulkhead_services.budget.settings import Settings
from tests.eventually import until
from tests.integration.budget.budget_world import DOER, TASK, TENANT, World

EDGE = ReplyEdge(DOER, "worker")
Read = Callable[[], Any]


class Follower(MemoryBroker):
    """What answers reads of worker's inbox has so much of it."""

    has: int | None = None

    def horizon(self, stream: str) -> int | None:
        return self.has if stream == EDGE.stream else None


@asynccontextmanager
async def mesh_with_budget(**settings: Any) -> AsyncIterator[World]:
    edges: dict[str, Budget] = {}

    def make(context: Context) -> Budget:
        known = Settings(redis_url=SecretStr("memory://"), retry_after_ms=20, ceiling="end", **settings)
        edges[context.instance] = build(context, known)
        return edges[context.instance]

    async with MemoryMesh({"budget": make}, broker=Follower) as mesh:
        world = World(mesh, edges, in_replies=True)
        await world.ready()
        yield world


async def position(world: World) -> int:
    return (await world.edges["0"].store.reply_positions()).get(EDGE.name, 0)


async def applied(world: World, sequence: int) -> None:
    async def there() -> bool:
        return await position(world) == sequence

    await until(there)


async def rebuild(world: World) -> None:
    keeper = world.edges["0"].keeper
    keeper.require_rebuild("asked by the test")
    await keeper.wait_until_built()


def test_the_edges_are_those_on_which_doers_reply() -> None:
    assert {edge.doer for edge in EDGES} == set(catalog.DOERS)
    assert ("doors", "worker") in catalog.BY_TYPE["mesh.control.call_deferred"].edges
    assert ReplyEdge("doors", "worker") not in EDGES, "what doors tells of money counts for nothing"


async def test_a_reply_is_charged_once_however_often_it_is_told() -> None:
    async with mesh_with_budget() as world:
        await world.ask("r1", cost=30)
        first = await world.settle("r1", cost=7)
        await world.settled_balance(spent=7)
        again = await world.settle("r1", cost=7, index="again")
        await applied(world, again.sequence)
        assert again.sequence > first.sequence and not await world.mesh.messages("INBOX_BUDGET", "mesh.model_gateway.>")
        await world.settled_balance(spent=7)


async def test_what_was_applied_before_its_position_was_moved_is_applied_again_and_charged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As by a leader that dies in between."""
    real, lost = MemoryStore.move_reply_position, [True, True]

    async def move(store: MemoryStore, edge: str, sequence: int) -> None:
        if not (sequence and lost and lost.pop()):
            await real(store, edge, sequence)

    monkeypatch.setattr(MemoryStore, "move_reply_position", move)
    async with mesh_with_budget() as world:
        await world.ask("r1", cost=30)
        reply = await world.settle("r1", cost=7)
        await applied(world, reply.sequence)
        assert not lost
        await world.settled_balance(spent=7)


async def test_a_position_is_moved_when_all_before_it_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    real = MemoryStore.move_reply_position

    async def move(store: MemoryStore, edge: str, sequence: int) -> None:
        if sequence:
            balance = await store.read_balance(f"task:{TENANT}:{TASK}")
            seen.append((sequence, balance.settled))
        await real(store, edge, sequence)

    monkeypatch.setattr(MemoryStore, "move_reply_position", move)
    async with mesh_with_budget() as world:
        for number in range(3):
            await world.ask(f"r{number}")
        last = [await world.settle(f"r{number}", cost=1) for number in range(3)][-1]
        await applied(world, last.sequence)
        assert all(settled >= sequence for sequence, settled in seen), seen


async def test_what_a_follower_does_not_have_yet_is_held_and_read_later() -> None:
    async with mesh_with_budget() as world:
        await world.ask("r1", cost=60)
        world.mesh.broker.has = 0  # type: ignore[attr-defined]
        reply = await world.settle("r1", cost=7)
        assert (await world.ask("r2", cost=60)).decision == "wait", "a lag costs room"
        await rebuild(world)
        assert await position(world) == 0 and (await world.ask("r3", cost=60)).decision == "wait"
        world.mesh.broker.has = None  # type: ignore[attr-defined]
        await applied(world, reply.sequence)
        await world.settled_balance(spent=7)
        assert (await world.ask("r4", cost=60)).decision == "reserved"


async def test_an_admission_without_room_has_replies_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement_reader, "SWEEP_S", 3_600.0)
    async with mesh_with_budget() as world:
        await world.ask("r1", cost=60)
        reader = world.edges["0"].reader
        reader._expected_until_s.clear()
        reader._poll_s = 0.0
        await until(lambda: not reader._woken.is_set())
        reply = await world.settle("r1", cost=7)
        assert await position(world) < reply.sequence
        await world.asked_until("reserved", "r2", cost=60)


async def test_a_limit_of_time_knows_what_the_call_before_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reserves time: a reply that was not read would be as much time more."""
    monkeypatch.setattr(settlement_reader, "SWEEP_S", 3_600.0)
    async with mesh_with_budget() as world:
        await world.limits("task", wall_ms=1_000)
        await world.asked_until("reserved", "r1")
        reader = world.edges["0"].reader
        reader._poll_s = 0.0
        reader._expected_until_s.clear()
        used = Settled(reservation_id="r1", call_id="r1", usage=Usage(cost_usd_micros=1), wall_ms=1_500)
        reply = CallDeferred(call_id="r1", after_ms=1, settled=(used,))
        await world.doer.publisher.send("worker", reply, tenant=TENANT, task=TASK, cause="r1")
        refused = await world.ask("r2", cost=1)
        assert refused.decision == "refused" and "spent 1.5 s of calls" in refused.reason, refused


async def test_a_rebuilt_ledger_has_what_replies_told_and_what_follows_is_not_told_twice() -> None:
    async with mesh_with_budget() as world:
        await world.ask("r1", cost=30)
        await world.ask("r2", cost=30)
        await world.settle("r1", cost=80)
        await world.settled_balance(spent=80, reserved=30)
        await rebuild(world)
        await world.settled_balance(spent=80, reserved=30)
        reply = await world.settle("r2", cost=5)
        await applied(world, reply.sequence)
        await world.settled_balance(spent=85)


async def test_what_was_folded_and_not_applied_still_halts_and_alerts() -> None:
    """It came while no ledger stood: its money is in the one that was built, and nobody has been told of it."""
    async with mesh_with_budget() as world:
        await world.ask("r1", cost=30)
        edge = world.edges["0"]
        real, edge.settlement.apply_settled = edge.settlement.apply_settled, never  # type: ignore[method-assign]
        reply = await world.settle("r1", cost=200)
        await until(lambda: edge.reader._broken or edge.reader._left_out)
        edge.settlement.apply_settled = real  # type: ignore[method-assign]
        edge.reader._left_out.clear()
        await rebuild(world)
        await applied(world, reply.sequence)
        halted = await world.mesh.messages("INBOX_PLANNER", f"mesh.budget.planner.*.{TENANT}.{TASK}.*")
        assert halted and (await world.balance()).spent.cost_usd_micros == 200


async def never(*_: object) -> None:
    raise ValueError("a bug")


async def test_a_reader_never_begins_before_the_checkpoint_of_its_ledger() -> None:
    """The ledger would take what lies there for new."""
    async with mesh_with_budget() as world:
        await world.ask("r1", cost=30)
        reply = await world.settle("r1", cost=7)
        await applied(world, reply.sequence)
        edge = world.edges["0"]
        assert await edge.checkpoints.make_checkpoint(at_once=True)
        edge.store._reply_positions = {EDGE.name: 0}  # type: ignore[attr-defined]
        edge.keeper.applied.clear()
        await rebuild(world)
        assert await position(world) == reply.sequence


async def test_a_reply_that_only_a_newer_budget_can_read_is_waited_for() -> None:
    async with mesh_with_budget() as world:
        await world.ask("r1", cost=30)
        await world.ask("r2", cost=30)
        publisher = world.doer.publisher
        newer = CallDeferred(
            call_id="r1", after_ms=1, settled=(Settled(reservation_id="r1", call_id="r1", usage=Usage()),)
        )
        head = publisher.make_envelope(newer, cause="r1")
        message = publisher.make_message("worker", newer, head, tenant=TENANT, task=TASK)
        headers = {**message.headers, "ce-type": "mesh.control.call_deferred.v9"}
        ack = await world.doer.bus.publish(message.subject, message.data, headers, message.message_id)
        await world.settle("r2", cost=5)
        await world.edges["0"].reader._read_due()
        assert await position(world) < ack.sequence
        await rebuild(world)
        assert await position(world) < ack.sequence and (await world.balance()).reserved.cost_usd_micros == 60


async def test_a_bug_in_what_follows_from_one_settlement_holds_up_no_other() -> None:
    async with mesh_with_budget() as world:
        alerts = world.edges["0"].alerts
        real = alerts.alert_on_settled

        async def broken(message: Any, body: Settled, charge: Any) -> Any:
            if body.reservation_id == "r1":
                raise ValueError("a bug")
            return await real(message, body, charge)

        alerts.alert_on_settled = broken  # type: ignore[method-assign]
        for name in ("r1", "r2"):
            await world.ask(name, cost=30)
        await world.settle("r1", cost=7)
        last = await world.settle("r2", cost=5)
        await applied(world, last.sequence)
        await world.settled_balance(spent=12)


@pytest.mark.parametrize("positions", [{}, {EDGE.name: 10**6}])
async def test_positions_that_are_gone_or_of_another_inbox_make_the_ledger_be_built_anew(
    positions: dict[str, int],
) -> None:
    async with mesh_with_budget() as world:
        await world.ask("r1", cost=30)
        edge = world.edges["0"]
        edge.store._reply_positions = dict(positions)  # type: ignore[attr-defined]
        edge.reader._check_due_s = 0.0
        await edge.reader._read_due()
        await until(lambda: edge.keeper.rebuilds == 2)
        await world.settle("r1", cost=7)
        await world.settled_balance(spent=7)


async def test_a_message_and_a_reply_that_settle_the_same_skip_each_other_only_by_age(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both forgotten by Redis: the younger is no new charge, and of two that came together one is."""
    async with mesh_with_budget() as world:
        await world.ask("r1", cost=60)
        bus, body = world.mesh.context("budget").bus, Settled(reservation_id="r1", call_id="r1", usage=Usage())
        await world.settle("r1", cost=7)
        await world.doer.publisher.send("budget", body, tenant=TENANT, task=TASK, cause="r1", index="settled")
        told = {message.receiver: message async for message in fact_lookup.settlements_of_task(bus, TENANT, TASK)}
        assert set(told) == {"budget", "worker"}
        assert not any([await fact_lookup.was_settled_before(bus, message) for message in told.values()])
        monkeypatch.setattr(fact_lookup, "BROKERS_MS", -60_000)
        assert all([await fact_lookup.was_settled_before(bus, message) for message in told.values()])


async def test_what_doors_says_of_money_counts_for_nothing() -> None:
    async with mesh_with_budget() as world:
        await world.ask("r1", cost=60)
        lie = CallDeferred(
            call_id="r1", after_ms=1, settled=(Settled(reservation_id="r1", call_id="r1", usage=Usage()),)
        )
        await world.mesh.context("doors").publisher.send("worker", lie, tenant=TENANT, task=TASK, cause="x")
        await world.ask("r2", cost=60)
        reply = await world.settle("r3-unknown", cost=0)
        await applied(world, reply.sequence)
        assert (await world.balance()).reserved.cost_usd_micros == 60
        assert subjects.inbox_stream("worker") == EDGE.stream
