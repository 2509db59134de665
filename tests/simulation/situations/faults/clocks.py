"""Clocks of replicas differ by minutes, or are set by an hour while they work.

In: a draw. Out: acts that set one replica's clock, budget's while it builds the ledger anew. A service asks the broker
for its time; until it has told it, and when another of a cluster that leads tells another one, this is how it is. That
money is neither lost nor spent twice by it say the laws of every run; whether a task has its time is another matter.
"""

import random
from dataclasses import replace
from typing import Any

from tests.simulation.mesh.chaos import Fault
from tests.simulation.scenario import Act, Scenario
from tests.simulation.situations.situation import Situation

KIND = "clock"
SERVICES = ("budget", "budget", "budget", "model_gateway", "tool_executor", "gateway")
"""Not the signer: it refuses requests from another time, by design."""
HOUR_MS = 3_600_000


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """Either all of some services' replicas from the start, or one at a time and back again."""
    acts = []
    if draw.random() < 0.5:
        names = [f"{name}-{number}" for name in dict.fromkeys(SERVICES) for number in range(scenario.replicas[name])]
        acts = [_set(draw, who, 0.0, int(draw.uniform(-300_000, 300_000))) for who in names if draw.random() < 0.6]
    for _ in range(draw.choice((0, 1, 2, 3))):
        name = draw.choice(SERVICES)
        who, at_s = f"{name}-{draw.randrange(scenario.replicas[name])}", draw.uniform(0.2, 20)
        acts.append(_set(draw, who, at_s, draw.choice((-HOUR_MS, HOUR_MS, -15_000, 15_000))))
        acts.append(_set(draw, who, at_s + draw.choice((0.2, 3, 30)), 0))
        if name == "budget" and draw.random() < 0.5:
            # Then a ledger is built under that clock.
            acts.append(Act(f"emptied {at_s:.2f}", "clocks", at_s + draw.uniform(0, 0.3), "redis"))
    acts[:1] = [replace(one, name="clocks") for one in acts[:1]]
    return replace(scenario, acts=(*scenario.acts, *acts))


def _set(draw: random.Random, who: str, at_s: float, ms: int) -> Act:
    return Act(f"clock {who} {at_s:.2f}", "clocks", at_s, f"{who}/{ms}")


async def do(world: Any, act: Act) -> None:
    """It shows that much more than the broker's from now on."""
    if act.what == "redis":
        world.record.redis.clear()
        return
    who, _, ms = act.what.partition("/")
    world.ahead_ms[who] = int(ms)
    world.chaos.fired.append(Fault(KIND, act.name, 1))


SITUATION = Situation("clocks", 0.04, add, do)
