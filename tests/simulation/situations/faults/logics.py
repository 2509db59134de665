"""The next version of the decision logic (tests/replay/next_logic.py): from the start, or rolled to in the middle.

In: a draw. Out: the scenario, whose tasks begin under the next version, or come to be decided beside it.
"""

import random
from dataclasses import replace

from tests.replay.next_logic import NEXT
from tests.simulation.scenario import Scenario
from tests.simulation.situations.situation import Situation


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """Every other one of these runs is a roll."""
    roll_after_s = draw.uniform(0.1, 3)
    if draw.random() < 0.5:
        return replace(scenario, newest=NEXT, roll_after_s=roll_after_s)
    return replace(scenario, logic=NEXT, newest=NEXT)


SITUATION = Situation("logics", 0.6, add)
