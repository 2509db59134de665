"""Tasks that take over results of earlier ones: rightly, too soon, and with a step that they changed.

In: a draw, the wishes that are there. Out: one or two. That what was taken over is what it was, byte for byte, and
is not run, says laws/taking.py; that what does not hold is refused by name, laws/work.py.
"""

import random
from dataclasses import replace

from tests.simulation.scenario import Fork, Scenario, Wish
from tests.simulation.situations.situation import Situation


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """A fork of a task that is nothing special, perhaps a fork of the fork."""
    parents = [
        one
        for one in scenario.wishes
        if not one.poison and one.cost_usd_micros >= 50_000 and one.name.startswith(("w", "again", "look"))
    ]
    if not parents:
        return scenario
    kind = draw.choice(("all", "all", "all", "edited", "edited", "soon"))
    long = [one for one in parents if one.plan and len(one.plan.steps) > 1 and one.plan.steps[0].kind == "agent"]
    if kind == "edited" and not long:
        kind = "all"
    parent = draw.choice(long if kind == "edited" else parents)
    fork = Fork(parent.name, keep="edited" if kind == "edited" else "all", soon=kind == "soon")
    expects = "fork_changed_step" if kind == "edited" else ""
    wishes = [_wish(draw, "fork0", parent, fork, expects)]
    if kind == "all" and draw.random() < 0.4:
        wishes.append(_wish(draw, "fork1", wishes[0], Fork("fork0"), ""))
    return replace(scenario, wishes=(*scenario.wishes, *wishes))


def _wish(draw: random.Random, name: str, parent: Wish, fork: Fork, expects: str) -> Wish:
    return Wish(
        name=name,
        tenant=parent.tenant,
        check=parent.check,
        submit_after_s=draw.uniform(0, 4),
        fork=fork,
        expects=expects,
        repeats=draw.choice((0, 0, 1)),
    )


SITUATION = Situation("forks", 0.08, add)
