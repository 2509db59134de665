"""Budget watches: the journal is read live, loops are stopped, whoever leads may die or lose its Redis.

In: a draw. Out: the act by which a run is watched; mostly a task whose agent goes round in circles, and one that looks
like it and does not. What a trip must be, and who must not be stopped, says laws/trips.py.
"""

import random
from dataclasses import replace
from typing import Any

from bulkhead_contracts.plan import Plan
from tests.simulation.scenario import Act, Scenario, Wish, scripted_step
from tests.simulation.situations.situation import Situation

RINGS = {
    "same": [["calculate", {"expression": "6 * 7"}]],
    "alternating": [["calculate", {"expression": "6 * 7"}], ["date_add", {"date": "2026-01-31", "days": 3}]],
    "three": [["calculate", {"expression": f"{number} * 7"}] for number in (2, 3, 4)],
    "spaced": [["calculate", {"expression": "6 * 7"}], ["calculate", {"expression": "6  *  7"}]],
}
"""What a looping agent does over and over. `spaced`: the same in other clothes."""
PACE_S = 0.5
"""Of each of four pieces of an answer: turns that are slower than the watcher, and quicker than polling."""


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """See the module."""
    wishes = []
    if draw.random() < 0.7:
        kind = draw.choice(tuple(RINGS))
        wishes.append(_wish(draw, "loop0", {"calls": [], "loop": RINGS[kind], "pace_s": PACE_S}))
    if draw.random() < 0.4:
        many = [["calculate", {"expression": f"{draw.randint(2, 99)} * {number}"}] for number in range(2, 8)]
        wishes.append(_wish(draw, "busy0", {"calls": many, "serial": True, "pace_s": PACE_S / 2}))
    watch = Act("watch", "watched", 0.0)
    return replace(scenario, wishes=(*scenario.wishes, *wishes), acts=(*scenario.acts, watch))


def _wish(draw: random.Random, name: str, wants: dict[str, object]) -> Wish:
    step = scripted_step("a", name, wants, tools=("calculate", "date_add"))
    return Wish(
        name=name,
        tenant=draw.choice(("demo", "acme")),
        plan=Plan(steps=(step,)),
        check=draw.random() < 0.3,
        submit_after_s=draw.uniform(0, 2),
    )


async def do(world: Any, act: Act) -> None:
    """Nothing happens: the act stands for the watching."""


SITUATION = Situation("watched", 0.07, add, do)
