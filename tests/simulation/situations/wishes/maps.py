"""A plan that makes one write for each item of a list, a few at a time, while services come and go.

In: a draw. Out: a wish of a list and its map. Laws, of every run: no item is counted twice, and never are more of them
handed out than may run at once; when nothing goes wrong each is counted, and the answer has them in the list's order.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bulkhead_contracts.plan import MapOver, Plan, PlanStep, StepCall
from tests.simulation.laws.reading import body, is_calm, is_stray, of, said, task_of, type_of, wishes
from tests.simulation.scenario import Act, Scenario, Wish
from tests.simulation.situations.situation import Situation
from tests.simulation.situations.wishes import approvals

NAME = "mapped0"


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """One wish, and sometimes a replica that goes meanwhile."""
    names = [f"{NAME}.c.{number}" for number in range(draw.choice((0, 1, 3, 9)))]
    over = MapOver(of="n", parallel=draw.choice((1, 2, 4, 9)))
    writes = StepCall(tool="counter_increment", arguments_json=json.dumps({"name": {"$item": ""}, "amount": 1}))
    steps = (
        PlanStep(id="n", title=f"{NAME} n", instruction=json.dumps(names), kind="noop"),
        PlanStep(
            id="c",
            title=f"{NAME} c",
            instruction="",
            kind="noop",
            inputs=("n",),
            call=writes,
            over=over,
            acceptance=".",
        ),
    )
    wish = Wish(
        name=NAME,
        tenant=draw.choice(("demo", "acme")),
        plan=Plan(steps=steps),
        check=draw.random() < 0.5,
        deadline_ms=60_000,
        submit_after_s=draw.uniform(0, 1),
    )
    acts = [
        Act(f"gone{number}", "maps", draw.uniform(0.2, 10), f"{draw.choice(('restart', 'crash'))}/{service}")
        for number, service in enumerate(draw.choices(approvals.AWAY, k=draw.choice((0, 0, 1, 2))))
    ]
    return replace(scenario, wishes=(*scenario.wishes, wish), acts=(*scenario.acts, *acts))


def complain(record: Any) -> Iterator[str]:
    """See the module."""
    for wish, task in wishes(record):
        if wish.name != NAME or wish.plan is None or wish.plan.steps[1].over is None:
            continue
        names = json.loads(wish.plan.steps[0].instruction)
        parallel = wish.plan.steps[1].over.parallel
        yield from _window(record, task, parallel)
        yield from (f"{name} was counted twice" for name in names if record.counter.counts.get(name, 0) > 1)
        for message in said(record, "INBOX_GATEWAY", "mesh.task.ended").get(task, []) if is_calm(record) else ():
            end, lost = body(message), [name for name in names if record.counter.counts.get(name) != 1]
            if end["status"] != "succeeded" or lost:
                yield f"{NAME} ended as {end['status']} ({end['failure']}) without {lost}, and nothing was in its way"
            elif json.loads(record.views[task]["answer"]) != [f"counter {name} = 1" for name in names]:
                yield f"{NAME}: the answer is {record.views[task]['answer']!r}"


def _window(record: Any, task: str, parallel: int) -> Iterator[str]:
    """Items that were handed out and not over yet, by what the planner had heard when it handed them out."""
    handed = defaultdict[str, set[str]](set)
    for message in of(record, "INBOX_WORKER", "mesh.step.assigned"):
        if task_of(message.subject) == task and body(message).get("item") is not None:
            handed[message.headers["ce-causeid"]].add(body(message)["step"]["id"])
    running: set[str] = set()
    for message in record.stored("INBOX_PLANNER"):
        if is_stray(message) or task_of(message.subject) != task:
            continue
        if type_of(message).startswith("mesh.step.finished."):
            running.discard(body(message)["step_id"])
        running |= handed.pop(message.headers["ce-id"], set())
        if len(running) > parallel:
            yield f"{len(running)} items of {NAME} ran at once, not {parallel}: {sorted(running)}"


SITUATION = Situation("maps", 0.06, add, approvals.take_away, complain)
