"""A person halts a tenant, a tool or a model while tasks run, and lets it go on some seconds later.

In: a draw. Out: acts that halt and resume, by the code of the command line. Law, of every run: while a tenant is halted
none of its calls begins and no model goes on speaking to it; that everything ends as it should, and nothing is done
twice, say the laws of every task.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bulkhead.bus.memory import MemoryBus
from bulkhead.runtime.publisher import Publisher
from bulkhead.runtime.switching import OPERATOR, Wish, switch
from bulkhead_contracts.result import Failure

from ..laws.stops import AT_LAST_S, AT_ONCE_S, LATE
from ..reading import body
from ..scenario import Act, Scenario
from .situation import Situation

TARGETS = (("tenant", "demo"), ("tenant", "acme"), ("tool", "counter_increment"), ("agent", "worker"))
LONGEST_S = 8.0


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """One or two halts, each with its end."""
    acts = []
    for scope, name in draw.sample(TARGETS, draw.choice((1, 1, 2))):
        at_s = draw.uniform(0.05, 6)
        acts += [Act("halt", "halting", at_s, f"{scope}/{name}"),
                 Act("resume", "halting", at_s + draw.uniform(0.2, LONGEST_S), f"{scope}/{name}")]  # fmt: skip
    return replace(scenario, acts=(*scenario.acts, *acts))


async def do(world: Any, act: Act) -> None:
    """As `bulkhead halt` on the machine of the mesh; nothing fails on that way."""
    scope, name = act.what.split("/")
    bus, now = MemoryBus(world.net, "operator"), world.net.clock.now_ms
    wish = Wish(scope, "", name, act.name == "halt", "look at it first", f"{OPERATOR}ada", now())  # type: ignore[arg-type]
    calm, world.chaos.calm = world.chaos.calm, True
    try:
        found = await switch(bus, Publisher("operator", bus, b"operator", now), wish)
    finally:
        world.chaos.calm = calm
    assert not isinstance(found, Failure), found
    world.tell(f"{act.name} {act.what}")


def complain(record: Any) -> Iterator[str]:
    """See the module."""
    grace_s = AT_LAST_S if any(fault.kind in LATE for fault in record.chaos.fired) else AT_ONCE_S
    for tenant, since_s, until_s in _spans(record):
        names = {wish.name for wish in record.scenario.wishes if wish.tenant == tenant}
        what = f"{tenant} was halted from {since_s:.1f} to {until_s:.1f} s"
        for call in (*record.model.made, *record.counter.made):
            if call.whose not in names:
                continue
            if since_s + grace_s < call.since_s < until_s:
                yield f"{what}; {call.whose} called the {call.what} at {call.since_s:.1f} s"
            speaks_s = record.ended_at_s if call.until_s is None else call.until_s
            if call.what == "model" and call.since_s < since_s and since_s + grace_s < min(speaks_s, until_s):
                yield f"{what}; a model spoke to {call.whose} until {speaks_s:.1f} s"


def _spans(record: Any) -> Iterator[tuple[str, float, float]]:
    """Which tenant was halted from when to when."""
    since: dict[str, float] = {}
    for one in record.halts:
        if not one.subject.startswith("$KV.CONTROL.tenant."):
            continue
        entry, at_s = body(one), (one.time_unix_ms - record.scenario.start_ms) / 1000
        if entry["active"]:
            since.setdefault(entry["name"], at_s)
        elif (began := since.pop(entry["name"], None)) is not None:
            yield entry["name"], began, at_s
    yield from ((name, began, record.ended_at_s) for name, began in since.items())


SITUATION = Situation("halting", 0.08, add, do, complain)
