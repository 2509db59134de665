"""What comes up in a part of the runs, one module each; a new one is a module here and its name in SITUATIONS.

A situation draws from a generator of its own: what a seed brought before there was this situation, it still brings, so
that schedules in found/ keep their meaning. This is where leases, asks between steps, loops and races for the ledger
belong, too: wishes whose scripted steps lease, ask or loop (`SIM{...}`), acts that race, and the law about each.
"""

import random

from tests.simulation.situations.agents import evidence, waits, watched
from tests.simulation.situations.faults import checkpoints, clocks, logics, outages, purges, restarts, strays
from tests.simulation.situations.wishes import (
    ahead,
    approvals,
    cancels,
    ceilings,
    events,
    floods,
    flows,
    forks,
    halting,
    hurry,
    maps,
    plan_calls,
    publishers,
    replans,
    topups,
)

from ..scenario import Scenario
from .situation import Situation

SITUATIONS: tuple[Situation, ...] = (
    cancels.SITUATION,
    ceilings.SITUATION,
    evidence.SITUATION,
    forks.SITUATION,
    publishers.SITUATION,
    replans.SITUATION,
    strays.SITUATION,
    purges.SITUATION,
    logics.SITUATION,
    watched.SITUATION,
    floods.SITUATION,
    waits.SITUATION,
    halting.SITUATION,
    topups.SITUATION,
    checkpoints.SITUATION,
    restarts.SITUATION,
    outages.SITUATION,
    clocks.SITUATION,
    hurry.SITUATION,
    approvals.SITUATION,
    flows.SITUATION,
    plan_calls.SITUATION,
    maps.SITUATION,
    ahead.SITUATION,
    events.SITUATION,
)
BY_NAME = {one.name: one for one in SITUATIONS}


def with_situations(scenario: Scenario, kept: frozenset[str] = frozenset()) -> Scenario:
    """The scenario with those that its seed brings, and those after which an act is called that is kept."""
    for one in SITUATIONS:
        draw = random.Random(f"{one.name}/{scenario.seed}")
        if draw.random() < one.share or one.name in kept:
            scenario = one.add(draw, scenario)
    return scenario
