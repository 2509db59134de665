"""The newest decision logic: from the start, or rolled to in the middle.

In: a draw. Out: the scenario, whose tasks begin under logic 3 or come to it.
"""

import random
from dataclasses import replace

from ..scenario import Scenario
from .situation import Situation


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """Where logic 2 was, and where a roll ends."""
    if scenario.roll_after_s is not None:
        return replace(scenario, logic=draw.choice((1, 2)), newest=3)
    return replace(scenario, logic=3, newest=3) if scenario.logic == 2 else scenario


SITUATION = Situation("logics", 0.6, add)
