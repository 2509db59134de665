"""Two tenants whose day is short of money, each with several tasks at once; the others must not notice.

In: a draw. Out: wishes of the tenants `tight` (money) and `small` (tokens). The law about ceilings is laws/money.py's;
that the rest of the run succeeds is laws/work.py's.
"""

import random
from dataclasses import replace

from bulkhead_contracts.plan import Plan
from tests.simulation.scenario import Scenario, Wish, steps_of
from tests.simulation.situations.situation import Situation


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """Two or three tasks for each."""
    wishes = []
    for tenant in ("tight", "small"):
        for number in range(draw.choice((2, 3))):
            name = f"{tenant}{number}"
            wishes.append(
                Wish(
                    name=name,
                    tenant=tenant,
                    plan=Plan(steps=steps_of(draw, name)),
                    check=draw.random() < 0.3,
                    cost_usd_micros=50_000,
                    submit_after_s=draw.uniform(0, 1.5),
                )
            )
    return replace(scenario, wishes=(*scenario.wishes, *wishes))


SITUATION = Situation("ceilings", 0.03, add)
