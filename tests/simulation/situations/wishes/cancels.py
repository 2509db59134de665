"""Tasks that are cancelled while their model speaks slowly: the stream is cut, nothing begins afterwards.

In: a draw. Out: one more wish; the laws are those of laws/stops.py.
"""

import json
import random
from dataclasses import replace

from bulkhead_contracts.plan import Plan, PlanStep
from tests.simulation.scenario import Scenario, Wish, scripted_step
from tests.simulation.situations.situation import Situation


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """A write, then a step whose answer takes 44 s, and a cancel somewhere."""
    writes = [["counter_increment", {"name": f"stop0.a.{number}", "amount": 1}] for number in range(2)]
    wants = {"calls": writes[:1], "pace_s": 4.0} if draw.random() < 0.3 else {"calls": writes, "serial": True}
    steps = (
        scripted_step("a", "stop0", wants, tools=("counter_increment",), acceptance="It is done."),
        scripted_step("b", "stop0", {"calls": [], "pace_s": 11.0}, inputs=("a",), acceptance="It is done."),
    )
    wish = Wish(
        name="stop0",
        tenant=draw.choice(("demo", "acme")),
        plan=Plan(steps=steps),
        check=draw.random() < 0.3,
        submit_after_s=draw.uniform(0, 2),
        cancel_after_s=draw.choice((0.0, draw.uniform(0, 1), *[draw.uniform(2, 10)] * 3, draw.uniform(12, 40))),
    )
    if draw.random() < 0.3:
        wish = replace(wish, via=f"pub_{wish.tenant}", plan=None, objective=f"See to stop0. SIM{_drafted(steps)}")
    return replace(scenario, wishes=(*scenario.wishes, wish))


def _drafted(steps: tuple[PlanStep, ...]) -> str:
    return json.dumps({"plan": [one.model_dump(mode="json") for one in steps]})


SITUATION = Situation("cancels", 0.06, add)
