"""The decision logic after the one of `logics`: from the start, or rolled to from it in the middle.

In: a draw. Out: the scenario, whose tasks begin under logic 4 or come to be decided beside it.
"""

import random
from dataclasses import replace

from ..scenario import Scenario
from .situation import Situation

BEFORE, NEWEST = 3, 4


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """Where logic 3 was, and where a roll to it ends; every other roll begins with it then."""
    if scenario.newest != BEFORE:
        return scenario
    if scenario.roll_after_s is not None:
        return replace(scenario, logic=draw.choice((scenario.logic, BEFORE)), newest=NEWEST)
    return replace(scenario, logic=NEWEST, newest=NEWEST)


SITUATION = Situation("newest", 0.5, add)
