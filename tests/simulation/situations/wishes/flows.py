"""A plan with a gate that repeats its step, a branch, steps that are skipped, and a wait.

In: a draw. Out: one more wish. Laws, of every run: what was told as skipped was handed to nobody; the gate lets nothing
pass but a second try, so that its branch begins one case alone; and what builds on a wait begins after it.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bulkhead_contracts.envelope import parse
from bulkhead_contracts.plan import Branch, BranchCase, Plan, PlanStep, PropertyCheck, QualityGate, TimedWait
from tests.simulation.laws.reading import body, is_calm, of, said, task_of, wishes
from tests.simulation.laws.record import Record
from tests.simulation.scenario import Scenario, Wish, scripted_step
from tests.simulation.situations.situation import Situation

NAME = "flow0"
SECOND_TRY = "Another try"
"""What the scripted model says when it was told what was wrong before."""


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """`left` follows a second try, `right` and `more` a first one, which the gate does not let pass."""
    steps = (
        _counts("a", ()),
        _plain(
            "gate",
            ("a",),
            gate=QualityGate(of="a", checks=(PropertyCheck(test="contains", text=SECOND_TRY),), on_fail="retry"),
        ),
        _plain(
            "which",
            ("gate",),
            branch=Branch(
                of="gate", cases=(BranchCase(test="contains", text=SECOND_TRY, steps=("left",)),), otherwise=("right",)
            ),
        ),
        _counts("left", ("which",)),
        _counts("right", ("which",)),
        _counts("more", ("right",)),
        _plain("pause", ("gate",), wait=TimedWait(duration_ms=draw.choice((1, 500, 5_000)))),
        _counts("z", ("left", "more", "pause")),
    )
    wish = Wish(
        name=NAME,
        tenant=draw.choice(("demo", "acme")),
        plan=Plan(steps=steps),
        check=draw.random() < 0.5,
        submit_after_s=draw.uniform(0, 2),
        cancel_after_s=draw.uniform(0.1, 4) if draw.random() < 0.1 else None,
    )
    return replace(scenario, wishes=(*scenario.wishes, wish))


def _counts(name: str, inputs: tuple[str, ...]) -> PlanStep:
    calls = [["counter_increment", {"name": f"{NAME}.{name}", "amount": 1}]]
    return scripted_step(name, NAME, {"calls": calls}, tools=("counter_increment",), inputs=inputs)


def _plain(name: str, inputs: tuple[str, ...], **action: Any) -> PlanStep:
    return PlanStep(id=name, title=name, instruction="", kind="noop", inputs=inputs, **action)


def complain(record: Record) -> Iterator[str]:
    """See the module."""
    assigned = said(record, "INBOX_WORKER", "mesh.step.assigned")
    for task, skipped in skipped_steps(record).items():
        for stored in assigned.get(task, ()):
            if body(stored)["step"]["id"] in skipped:
                yield f"{task}: step {body(stored)['step']['id']} was skipped, and handed to a worker"
    for wish, task in wishes(record):
        if wish.name != NAME:
            continue
        rows = {body(stored)["step"]["id"]: stored for stored in assigned.get(task, ())}
        for name in {"right", "more", "pause"} & rows.keys():
            yield f"{task}: step {name} was handed to a worker"
        over = [
            body(stored)["until_unix_ms"]
            for stored in of(record, "INBOX_GATEWAY", "mesh.task.step_started")
            if task_of(stored.subject) == task and body(stored)["step_id"] == "pause"
        ]
        if "z" in rows and is_calm(record) and parse(rows["z"].headers).time_unix_ms < max(over, default=0):
            yield f"{task}: the step after a wait began before it was over"


def skipped_steps(record: Record) -> dict[str, set[str]]:
    """The steps of each task that were told as skipped."""
    skipped: dict[str, set[str]] = {}
    for stored in of(record, "INBOX_GATEWAY", "mesh.task.step_ended"):
        skipped.setdefault(task_of(stored.subject), set()).update(body(stored).get("skipped", ()))
    return skipped


SITUATION = Situation("flows", 0.05, add, None, complain)
