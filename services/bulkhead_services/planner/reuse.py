"""Results that are there already are taken over, not made again. Pure.

In: the steps of a plan that is to run, and what is held: steps whose results were accepted, in an earlier plan of this
task or in the task that this one forks. Out: the steps to run, and which of them are done.
"""

import json
from collections.abc import Sequence

from bulkhead.flow import replace
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import PlanNote, PlanStep
from bulkhead_contracts.task import TaskSubmitted
from bulkhead_services.planner.state import StepState

MAX_ADVICE_CHARS = bounds.MAX_INSTRUCTION_CHARS // 2
ADVICE = "these steps are done and will not run again; repeat those that are still needed exactly as they stand: "


def given(body: TaskSubmitted) -> tuple[StepState, ...]:
    """What a submission brings along: results of steps of its own plan."""
    steps = {one.id: one for one in body.plan.steps} if body.plan else {}
    found = []
    for row in body.given:
        step = steps.get(row.step_id, PlanStep(id=row.step_id, title="", instruction=""))
        notes = (row.title,) if row.title else ()
        found.append(StepState(step, status="done", notes=notes, result=row.result))
    return tuple(found)


def done(steps: Sequence[StepState], version: int) -> tuple[StepState, ...]:
    """What is held of a running plan, should it have to be replaced."""
    why = (f"taken over from plan {version}",)
    return tuple(replace(one, notes=why, attempt=0, deadline_unix_ms=0) for one in steps if one.status == "done")


def check(steps: Sequence[PlanStep], held: Sequence[StepState]) -> tuple[PlanNote, ...]:
    """Errors of a submission's own results: each must stand for a step, on nothing that is yet to be made.

    A result that does not fit must not merely be left out: its step would run, and write, once more.
    """
    notes = []
    names, known = [one.step.id for one in held], {one.id: one for one in steps}
    for one in held:
        name = one.step.id
        if names.count(name) > 1:
            notes.append(_error(name, f"two results are given for step {name}"))
        elif name not in known:
            notes.append(_error(name, f"a result is given for {name}, which is no step"))
        elif one.result is None or one.result.standing == "failed":
            notes.append(_error(name, f"the result that is given for {name} stands as failed"))
        elif fresh := [each for each in known[name].inputs if each not in names]:
            notes.append(
                _error(name, f"the result that is given for {name} would stand on {', '.join(fresh)}, which runs again")
            )
    return tuple(notes[: bounds.MAX_PLAN_NOTES])


def _error(step_id: str, message: str) -> PlanNote:
    return PlanNote(severity="error", code="bad_result", step_id=step_id, message=message[: bounds.MAX_REASON_CHARS])


def over(steps: Sequence[PlanStep], held: Sequence[StepState]) -> tuple[StepState, ...]:
    """The steps to run: done are those that are held and the same, on inputs that are done in the same way."""
    by_id = {one.step.id: one for one in held}
    taken: dict[str, StepState] = {}
    before = -1
    while before != (before := len(taken)):
        for step in steps:
            one = by_id.get(step.id)
            if one is not None and _same(one.step, step) and all(name in taken for name in step.inputs):
                taken[step.id] = replace(one, step=step)
    return tuple(taken.get(step.id) or StepState(step) for step in steps)


def _same(one: PlanStep, other: PlanStep) -> bool:
    """The title is for people."""
    return one == other.model_copy(update={"title": one.title})


def advice(held: Sequence[StepState], *, with_role: bool) -> tuple[str, ...]:
    """What a model that plans anew must know to keep what is done; () when nothing is. with_role: it may name roles."""
    if not held:
        return ()
    rows: list[str] = []
    fields = {"id", "title", "instruction", "tools", "inputs", "acceptance", *(("role",) if with_role else ())}
    for one in held:
        row = json.dumps(one.step.model_dump(include=fields))
        if sum(map(len, rows)) + len(row) <= MAX_ADVICE_CHARS:
            rows.append(row)
    return (ADVICE + " ".join(rows),)
