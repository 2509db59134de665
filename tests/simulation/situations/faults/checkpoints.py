"""Budget makes checkpoints of its ledger all the time, so that every rebuild begins with one and reads only a tail.

In: a draw. Out: the act by which that is so in a run; a Redis that forgets now and then even where nothing else goes
wrong. That the ledger is what all facts add up to, whatever it was built of, says laws/money.py.
"""

import random
from dataclasses import replace
from typing import Any

from tests.simulation.scenario import Act, Scenario
from tests.simulation.situations.situation import Situation

MESSAGES = 3
"""So few new ones are worth a checkpoint."""


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """How often they are made; and when Redis is emptied."""
    every = Act("checkpoints", "checkpoints", 0.0, f"{draw.choice((0.1, 0.5, 2.0))}")
    forgets = [
        Act(f"forget{number}", "checkpoints", draw.uniform(1, 30), "redis") for number in range(draw.choice((1, 2, 4)))
    ]
    return replace(scenario, acts=(*scenario.acts, every, *forgets))


async def do(world: Any, act: Act) -> None:
    """Redis forgets; that checkpoints are made is a setting."""
    if act.name != "checkpoints":
        world.record.redis.clear()


def settings_of(scenario: Scenario) -> dict[str, Any]:
    """Of budget."""
    every = [float(one.what) for one in scenario.acts if one.name == "checkpoints"]
    return {"checkpoint_s": every[0], "checkpoint_messages": MESSAGES} if every else {}


SITUATION = Situation("checkpoints", 0.08, add, do)
