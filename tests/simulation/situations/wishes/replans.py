"""A plan that fails and is replaced by one in which a step is as it was, a step is another, and one is mended.

In: a draw. Out: one more wish. What a plan takes over from the one before is laws/work.py's.
"""

import json
import random
from dataclasses import replace

from bulkhead_contracts.plan import Plan, PlanStep
from tests.simulation.scenario import Scenario, Wish, scripted_step
from tests.simulation.situations.situation import Situation


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """a and b are done, c fails for good; then comes a plan with the same a, perhaps another b, and a c that works."""
    a = _step("a", [["calculate", {"expression": f"3 * {draw.randint(2, 99)}"}]], ())
    b = _step("b", [["date_add", {"date": "2026-01-31", "days": draw.randint(1, 99)}]], draw.choice(((), ("a",))))
    c = _step("c", [], ("a", "b"))
    broken = c.model_copy(update={"instruction": 'Do your part of again0. SIM{"calls": [], "reject": 9}'})
    other = draw.choice((b, _step("b", [["calculate", {"expression": "7 * 7"}]], b.inputs)))
    again = json.dumps({"again": [one.model_dump(mode="json") for one in (a, other, c)]})
    wish = Wish(
        name="again0",
        tenant=draw.choice(("demo", "acme")),
        objective=f"See to again0. SIM{again}",
        plan=Plan(steps=(a, b, broken)),
        check=True,
        submit_after_s=draw.uniform(0, 2),
    )
    return replace(scenario, wishes=(*scenario.wishes, wish))


def _step(name: str, calls: list[list[object]], inputs: tuple[str, ...]) -> PlanStep:
    return scripted_step(name, "again0", {"calls": calls}, tools=tuple(str(tool) for tool, _ in calls), inputs=inputs)


SITUATION = Situation("replans", 0.06, add)
