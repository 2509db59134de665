"""Results that are there already are taken over, not made again. Pure.

In: the steps of a plan that is to run, and what is held: steps whose results were accepted, in an earlier plan of this
task or in the task that this one forks. Out: the steps to run, and which of them are done.
"""

from collections.abc import Sequence

from bulkhead.flow import replace
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import PlanNote, PlanStep
from bulkhead_contracts.task import TaskSubmitted
from bulkhead_services.planner.state import StepState


def steps_of_submission(body: TaskSubmitted) -> tuple[StepState, ...]:
    """Steps of its own plan whose results a submission brings along."""
    steps = {plan_step.id: plan_step for plan_step in body.plan.steps} if body.plan else {}
    held_steps = []
    for row in body.given:
        step = steps.get(row.step_id, PlanStep(id=row.step_id, title="", instruction=""))
        notes = (row.title,) if row.title else ()
        held_steps.append(StepState(step, status="done", notes=notes, result=row.result))
    return tuple(held_steps)


def check_given_results(steps: Sequence[PlanStep], held: Sequence[StepState]) -> tuple[PlanNote, ...]:
    """Errors of a submission's own results: each must stand for a step, on nothing that is yet to be made.

    A result that does not fit must not merely be left out: its step would run, and write, once more.
    """
    notes = []
    names, plan_steps = [held_step.step.id for held_step in held], {step.id: step for step in steps}
    for held_step in held:
        name = held_step.step.id
        if names.count(name) > 1:
            notes.append(_bad_result_note(name, f"two results are given for step {name}"))
        elif name not in plan_steps:
            notes.append(_bad_result_note(name, f"a result is given for {name}, which is no step"))
        elif held_step.result is None or held_step.result.standing == "failed":
            notes.append(_bad_result_note(name, f"the result that is given for {name} stands as failed"))
        elif fresh := [step_id for step_id in plan_steps[name].inputs if step_id not in names]:
            notes.append(
                _bad_result_note(
                    name, f"the result that is given for {name} would stand on {', '.join(fresh)}, which runs again"
                )
            )
    return tuple(notes[: bounds.MAX_PLAN_NOTES])


def _bad_result_note(step_id: str, message: str) -> PlanNote:
    return PlanNote(severity="error", code="bad_result", step_id=step_id, message=message[: bounds.MAX_REASON_CHARS])


def take_over_results(steps: Sequence[PlanStep], held: Sequence[StepState]) -> tuple[StepState, ...]:
    """The steps to run: done are those that are held and the same, on inputs that are done in the same way."""
    by_id = {held_step.step.id: held_step for held_step in held}
    taken_over: dict[str, StepState] = {}
    before = -1
    while before != (before := len(taken_over)):
        for step in steps:
            held_step = by_id.get(step.id)
            if (
                held_step is not None
                and _is_same_step(held_step.step, step)
                and all(name in taken_over for name in step.inputs)
            ):
                taken_over[step.id] = replace(held_step, step=step)
    return tuple(taken_over.get(step.id) or StepState(step) for step in steps)


def _is_same_step(earlier: PlanStep, step: PlanStep) -> bool:
    """The title is for people."""
    return earlier == step.model_copy(update={"title": earlier.title})
