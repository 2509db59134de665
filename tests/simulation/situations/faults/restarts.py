"""Services are restarted as an upgrade does it, replica by replica: each takes nothing new, ends its work, and goes.

In: a draw. Out: acts that restart a service, budget and what acts outside before others; some at the same time. That
nothing is lost or done twice by it say the laws of every run.
"""

import random
from dataclasses import replace
from typing import Any

from tests.simulation.scenario import SERVICES, Act, Scenario
from tests.simulation.situations.situation import Situation

MORE_OFTEN = ("budget", "budget", "model_gateway", "tool_executor", "gateway")


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """One to six of them; all before nothing new goes wrong."""
    acts = [
        Act(f"restart{number}", "restarts", draw.uniform(0.1, 25), draw.choice((*SERVICES, *MORE_OFTEN)))
        for number in range(draw.randint(1, 6))
    ]
    if draw.random() < 0.3:
        acts += [Act(f"restart_{name}", "restarts", acts[0].at_s + draw.uniform(0, 0.5), name) for name in SERVICES]
    return replace(scenario, acts=(*scenario.acts, *acts))


async def do(world: Any, act: Act) -> None:
    """SIGTERM to each; the next one when the one before has gone."""
    await world.restart(act.what)


SITUATION = Situation("restarts", 0.08, add, do)
