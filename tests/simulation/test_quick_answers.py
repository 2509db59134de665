"""Rebuilds begin at every moment of an admission, quick or slow, in virtual time: whatever was told to hold is held by
the ledger that is built, and by every later one; a quick admission is told without a second look.
"""

import asyncio

from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.grants import Signer
from bulkhead.runtime.context import ServiceIdentity, make_context
from bulkhead_contracts.budget import Amount, ReserveReplied, ReserveRequested
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.task import TaskLimits
from bulkhead_services.budget.app import Budget
from bulkhead_services.budget.ledger.store import QUICK_ADMISSION_S, REBUILD_REST_S
from tests.simulation.mesh.chaos import Chaos
from tests.simulation.mesh.loop import SimulationLoop
from tests.simulation.mesh.net import Link

from . import world
from .scenario import Scenario

SERVICE, TENANT, TASK = "model_gateway", "demo", "quick"
STORED_AFTER_S = (0.0, 0.03, 0.08, 0.11, 0.25, 0.29, 0.31, 0.45, 0.7)
"""So long a fact is under way."""
BEGUN_AFTER_S = (0.0, 0.002, 0.004, 0.006, 0.02, 0.05, 0.1, 0.4)
"""So long after the ask a rebuild begins: before and after the hold, the fact, the answer."""


class Two(world.World):
    """A mesh with two replicas of budget, and both at hand."""

    edges: list[Budget]

    def _overheard(self, component: Budget) -> Budget:
        self.edges.append(component)
        return super()._overheard(component)

    async def stands(self) -> None:
        """Until both replicas have the ledger."""
        for edge in self.edges:
            await edge.keeper.wait_until_built()

    def rebuild(self, number: int) -> None:
        """As at the start of a replica, of the one that was asked or the other; now and then Redis has lost everything,
        too."""
        if number % 3 == 0:
            self.record.redis.clear()
        keeper = self.edges[number % 2].keeper
        keeper._fresh = True
        keeper.mark_lost("asked by the test")


async def _held(folder, loop: SimulationLoop) -> tuple[set[tuple[float, float]], set[tuple[float, float]]]:
    """Of all pairs of delays: those that were told at once although a rebuild began meanwhile, and those put off."""
    Two.edges = []
    mesh = Two(Scenario(seed=1, wishes=()), Chaos(1, rates={}), folder, loop)
    for number in range(2):
        mesh.start(f"budget-{number}")
    identity = ServiceIdentity(f"seed-of-{SERVICE}", world.seeds()[SERVICE], mesh.publics)
    who = f"{SERVICE}-0"
    doer = make_context(SERVICE, who, MemoryBus(Link(mesh, who), who), identity, clock=mesh._clock.now_ms)
    grant = Signer("signer", world.seeds()["signer"]).sign_grant(
        TaskGrant(
            tenant=TENANT,
            task=TASK,
            actor="ann",
            tools=(),
            document_scopes=(),
            day_cost_usd_micros=10**9,
            day_tokens=10**9,
            limits=TaskLimits(cost_usd_micros=10**9, tokens=10**9),
            expires_unix_ms=mesh._clock.now_ms() + 3_600_000,
        )
    )
    under_way_s = 0.0
    for edge in mesh.edges:
        edge.admission._writer.store_fact = _late(edge.admission._writer.store_fact, lambda: under_way_s)  # type: ignore[method-assign]

    async def ask(name: str) -> str:
        body = ReserveRequested(
            reservation_id=name, call_id=name, purpose="model", resource="m", worst_case=Amount(cost_usd_micros=1)
        )
        answer = await doer.publisher.request("budget", body, tenant=TENANT, task=TASK, grant=grant, cause=name)
        assert isinstance(answer, ReserveReplied)
        return answer.decision

    told: dict[tuple[float, float, int], str] = {}
    put_off: set[tuple[float, float]] = set()
    await mesh.stands()
    assert await ask("first") == "reserved"
    every = [(stored, begun) for stored in STORED_AFTER_S for begun in BEGUN_AFTER_S for _ in mesh.edges]
    for number, pair in enumerate(every):
        under_way_s, begun_s = pair
        loop.call_later(begun_s, mesh.rebuild, number)
        decision = await ask(name := f"call-{number}")
        if decision == "reserved":
            told[(*pair, number)] = name
        else:
            put_off.add(pair)
        await asyncio.sleep(2.0)
        await mesh.stands()
        _holds(mesh, told.values())
    mesh.rebuild(1)
    await asyncio.sleep(2.0)
    await mesh.stands()
    _holds(mesh, told.values())
    await mesh.end()
    return {pair[:2] for pair in told}, put_off


def _late(real, under_way_s):
    async def append(*args) -> None:
        await asyncio.sleep(under_way_s())
        await real(*args)

    return append


def _holds(mesh: Two, names) -> None:
    held = {key.rpartition("/")[2] for key, one in mesh.record.redis.ledger.entries.items() if one.state == "open"}
    assert set(names) <= held, f"told, and in no ledger: {set(names) - held}"


def test_what_was_told_is_held_whenever_a_rebuild_begins(folder):
    told, put_off = world.in_virtual_time(lambda loop: _held(folder, loop))
    quick = {pair for pair in told if 0 < pair[1] < pair[0] < QUICK_ADMISSION_S}
    slow = {pair for pair in put_off if pair[0] > REBUILD_REST_S and 0.01 < pair[1] < pair[0]}
    assert quick, "nobody was told without a second look while a ledger was being built"
    assert slow, "nobody who took long was found out by the second look"
