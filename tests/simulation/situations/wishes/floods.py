"""One tenant submits far more than it may run at once; another goes on with its work.

In: a draw. Out: many small tasks of `crowd` and `horde`, some cancelled while they wait. Laws, of every run: never more
tasks of a tenant run than its quota lets; a task begins once, by a place that was given to it, and one that gave up
waiting never does.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bulkhead_contracts.plan import Plan, PlanStep
from tests.simulation.laws import reading
from tests.simulation.scenario import Scenario, Wish, scripted_step
from tests.simulation.situations.situation import Situation

QUOTAS = {"crowd": 2, "horde": 3}
DEFAULT = 64
ENDS = ("mesh.task.ended", "mesh.task.rejected")


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """Six to sixteen tasks of one of them, or of both."""
    tenants = draw.choice((("crowd",), ("crowd", "horde")))
    wishes = tuple(flooding(draw, number, draw.choice(tenants)) for number in range(draw.randint(6, 16)))
    return replace(scenario, wishes=(*scenario.wishes, *wishes))


def flooding(draw: random.Random, number: int, tenant: str) -> Wish:
    """One step that takes no model, or one that takes a second."""
    name = f"flood{number}"
    if draw.random() < 0.6:
        step = PlanStep(id="a", title=name, instruction=f"Note {name}.", kind="noop", acceptance="It is noted.")
    else:
        step = scripted_step("a", name, {"calls": [], "pace_s": 0.25}, title=name)
    return Wish(
        name=name,
        tenant=tenant,
        plan=Plan(steps=(step,)),
        submit_after_s=draw.uniform(0, 1),
        cancel_after_s=draw.uniform(0.01, 2) if draw.random() < 0.15 else None,
        repeats=draw.choice((0, 0, 1)),
    )


def complain(record: Any) -> Iterator[str]:
    """See the module."""
    running: dict[tuple[str, str], int] = {}
    given: Counter[tuple[str, str]] = Counter()
    dropped: set[tuple[str, str]] = set()
    for one in reading.of(record, "INBOX_GATEWAY", "mesh.task.places_given", *ENDS):
        tenant, task = one.subject.split(".")[4:6]
        if reading.type_of(one).startswith(ENDS):
            running.pop((tenant, task), None)
            continue
        body = reading.body(one)
        dropped |= {(gone["tenant"], gone["task"]) for gone in body["dropped"]}
        for place in body["given"]:
            key = (place["tenant"], place["task"])
            given[key] += 1
            running[key] = one.sequence
        busy = Counter(name for name, _ in running)
        for name, count in busy.items():
            if count > QUOTAS.get(name, DEFAULT):
                yield f"{count} tasks of {name} run at {one.sequence}, of {QUOTAS.get(name, DEFAULT)} that may"
    began = {(one.tenant, one.task) for one in reading.of(record, "INBOX_PLANNER", "mesh.task.submitted")}
    # An id that a purge has freed begins another task.
    yield from (
        f"{key} was given a place {count} times"
        for key, count in given.items()
        if count > 1 and key[1] not in record.gone
    )
    yield from (f"{key} has begun without a place" for key in sorted(began - set(given)))
    yield from (f"{key} gave up waiting, and has begun" for key in sorted(began & dropped) if key[1] not in record.gone)


SITUATION = Situation("floods", 0.06, add, complain=complain)
