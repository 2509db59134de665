"""The broker is away for everybody at once, and comes back to each at another moment; or another of a cluster leads.

In: a draw. Out: acts: it is gone for up to twenty seconds, what was under way stored or not; it has forgotten the last
that it noted of what it had handed out, so that this comes again under numbers that were used; Redis is emptied, or
replicas die, while it is away. That nothing is lost or done twice by it say the laws of every run.
"""

import asyncio
import random
from dataclasses import replace
from typing import Any

from tests.simulation.mesh.chaos import KILLED, Fault
from tests.simulation.mesh.net import EVERYBODY
from tests.simulation.scenario import SERVICES, Act, Scenario
from tests.simulation.situations.situation import Situation

KIND = "outage"
NOTED_S = (0.0, 0.02, 0.1, 0.5)
"""So long before it goes the broker wrote down last what it had handed out."""
BACK_S = 4.0
"""Within so long everybody has found it again."""
# A pulled cable leaves everything as it was; a restart, or another leader, ends connections and standing requests.


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """One or two of them, all before nothing new goes wrong."""
    acts = []
    for number in range(draw.choice((1, 1, 2))):
        at_s, for_s = draw.uniform(0.2, 15), draw.choice((0.0, draw.uniform(0.3, 3), draw.uniform(3, 20)))
        how = draw.choice(("restart", "restart", "cable")) if for_s else "leader"
        what = f"{for_s:.2f}/{draw.choice(NOTED_S)}/{how}/{draw.random():.6f}"
        acts.append(Act(f"outage{number}" if number else "outages", "outages", at_s, what))
        if draw.random() < 0.4:
            acts.append(Act(f"emptied{number}", "outages", at_s + for_s * draw.random() + draw.random(), "redis"))
        if draw.random() < 0.3:
            name = draw.choice((*SERVICES, "budget", "budget"))
            acts.append(Act(f"killed{number}", "outages", at_s + for_s * draw.random() + 0.3, name))
    return replace(scenario, acts=(*scenario.acts, *acts))


async def do(world: Any, act: Act) -> None:
    """See the module."""
    if act.what == "redis":
        world.record.redis.clear()
        return
    if act.what in SERVICES:
        world.chaos.fired.append(Fault(KILLED, f"{act.what}-0 by {act.name}", 1))
        world.crash(f"{act.what}-0", "while the broker is away")
        return
    for_s, noted_s, how, _ = act.what.split("/")
    draw, net, loop, away_s = random.Random(act.what), world.net, asyncio.get_running_loop(), float(for_s)
    known = net.handed_out()
    await asyncio.sleep(float(noted_s))
    world.chaos.fired.append(Fault(KIND, act.name, 1))
    net.cut_off[EVERYBODY] = loop.time() + away_s
    for who in world.running if away_s else ():
        net.cut_off[who] = loop.time() + away_s + draw.random() * draw.choice((0.1, BACK_S))
    if how == "cable":
        return
    net.lose(world.buses)
    await asyncio.sleep(away_s)
    net.hand_out_again(known)


SITUATION = Situation("outages", 0.05, add, do)
