"""Steps that see much: retrieval over real documents, several tools at once, handed on to a checked step.

In: a draw. Out: a wish of the tenant `port`, which has documents (library.py). That nothing of what was seen is lost on
the way, says laws/seen.py.
"""

import random
from dataclasses import replace

from bulkhead_contracts.plan import Plan, PlanStep
from tests.simulation.scenario import Scenario, Wish, scripted_step
from tests.simulation.situations.situation import Situation


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """Two steps that look, and one that puts together what they found."""
    looks: list[list[object]] = [["search_documents", {"query": "harbour fees"}]]
    sums: list[list[object]] = [
        ["calculate", {"expression": f"42 * {draw.randint(2, 30)}"}],
        ["date_add", {"date": "2026-01-31", "days": draw.randint(1, 90)}],
    ]
    if draw.random() < 0.5:
        looks, sums = [*looks, sums[0]], sums[1:]
    steps = (
        _step("a", looks, draw.random() < 0.5, ()),
        _step("b", sums, draw.random() < 0.5, ()),
        _step("z", [], False, ("a", "b")),
    )
    wish = Wish(
        name="look0",
        tenant="port",
        plan=Plan(steps=steps),
        check=draw.random() < 0.8,
        submit_after_s=draw.uniform(0, 2),
    )
    return replace(scenario, wishes=(*scenario.wishes, wish))


def _step(name: str, calls: list[list[object]], serial: bool, inputs: tuple[str, ...]) -> PlanStep:
    tools, acceptance = tuple(str(tool) for tool, _ in calls), "The result says what was found."
    wants = {"calls": calls, "serial": serial}
    return scripted_step(name, "look0", wants, tools=tools, inputs=inputs, acceptance=acceptance)


SITUATION = Situation("evidence", 0.08, add)
