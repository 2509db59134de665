"""A person halts a tenant, a tool or an agent while tasks run, and lets it go on some seconds later.

In: a draw. Out: acts that halt and resume, by the code of the command line. Law, of every run: while a tenant is halted
none of its calls begins and no model goes on speaking to it; that everything ends as it should, and nothing is done
twice, say the laws of every task.
"""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.bus.port import BusError
from bulkhead.runtime.halts.operator import OPERATOR, HaltRequest, switch_halt
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts.plan import Plan
from bulkhead_contracts.result import Failure
from tests.simulation.laws.stops import AT_LAST_S, AT_ONCE_S, calls_in_a_pause, pauses_of
from tests.simulation.mesh.chaos import PAUSES
from tests.simulation.scenario import Act, Scenario, scripted_step
from tests.simulation.scenario import Wish as Request
from tests.simulation.situations.situation import Situation

OTHERS = (("tool", "counter_increment"), ("agent", "worker"), ("agent", "checker"))
DEAF = frozenset({"late", "lose_live", "lose_read", "lose_answer", "cut_off", "stale_read", "outage", *PAUSES})
"""Faults by which a doer hears late of a halt."""
PACE_S = 0.25
"""Of each of four pieces of an answer: the task takes some ten seconds."""


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """A task that takes long, its tenant halted in the middle of it, and sometimes something else too."""
    tenant = draw.choice(("demo", "acme"))
    halts = [("tenant", tenant, draw.uniform(1, 4), draw.uniform(6, 10))]
    if draw.random() < 0.4:
        scope, name = draw.choice(OTHERS)
        halts.append((scope, name, draw.uniform(0.05, 6), draw.uniform(0.2, 6)))
    acts = [
        act
        for scope, name, at_s, lasts_s in halts
        for act in (
            Act("halt", "halting", at_s, f"{scope}/{name}"),
            Act("resume", "halting", at_s + lasts_s, f"{scope}/{name}"),
        )
    ]
    return replace(scenario, wishes=(*scenario.wishes, _long(draw, tenant)), acts=(*scenario.acts, *acts))


def _long(draw: random.Random, tenant: str) -> Request:
    calls = [["calculate", {"expression": f"{draw.randint(2, 99)} * {number}"}] for number in range(2, 10)]
    step = scripted_step("a", "long0", {"calls": calls, "serial": True, "pace_s": PACE_S}, tools=("calculate",))
    return Request(name="long0", tenant=tenant, plan=Plan(steps=(step,)), submit_after_s=draw.uniform(0, 0.5))


async def do(world: Any, act: Act) -> None:
    """As `bulkhead halt` on the machine of the mesh; nothing fails on that way."""
    scope, name = act.what.split("/")
    bus, now = MemoryBus(world.net, "operator"), world.net.clock.now_ms
    wish = HaltRequest(scope, "", name, act.name == "halt", "look at it first", f"{OPERATOR}ada", now())  # type: ignore[arg-type]
    calm, world.chaos.calm = world.chaos.calm, True
    try:
        while True:
            try:
                found = await switch_halt(bus, Publisher("operator", bus, b"operator", now), wish)
                break
            except BusError:
                await asyncio.sleep(0.5)
    finally:
        world.chaos.calm = calm
    # A schedule that is being shrunk may have lost the halt that this lifts.
    assert not isinstance(found, Failure) or found.code == "not_halted", found
    world.tell(f"{act.name} {act.what}")


def complain(record: Any) -> Iterator[str]:
    """See the module."""
    grace_s = AT_LAST_S if any(fault.kind in DEAF for fault in record.chaos.fired) else AT_ONCE_S
    for tenant, since_s, until_s in pauses_of(record, "tenant"):
        names = {wish.name for wish in record.scenario.wishes if wish.tenant == tenant}
        what = f"{tenant} was halted from {since_s:.1f} to {until_s:.1f} s"
        yield from (f"{what}; {call}" for call in calls_in_a_pause(record, names, since_s, until_s, grace_s))


SITUATION = Situation("halting", 0.08, add, do, complain)
