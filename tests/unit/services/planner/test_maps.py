"""Maps: each item is a plain step, so many at once; what fails, what is gathered, and in which order."""

import pytest

from bulkhead.plans import plans
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import MapOver, Plan, PlanStep, StepCall
from bulkhead_contracts.result import Failure, Label, Result
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepFinished
from bulkhead_contracts.task import StepEnded, StepStarted, TaskEnded
from bulkhead_services.planner.core import Planner
from tests.playbook import Playbook
from tests.unit.services.planner.test_playbook import CALC, PAY, accepts, submit

LIST_LABEL = Label(sha256="a" * 64, kind="tool_result", observed_by="tool_executor")


def fare_map(**over: object) -> PlanStep:
    return PlanStep(
        id="fares",
        title="Fare",
        instruction="name the fare",
        acceptance="it is named",
        kind="noop",
        inputs=("lines",),
        over=MapOver(of="lines", **{"field": "/rows", "parallel": 2, **over}),
    )


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def begin(play: Playbook, items: int, check: bool = True, **over: object) -> None:
    """A plan whose first step is done, and whose map has read a list of so many items."""
    lines = PlanStep(id="lines", title="Lines", instruction="list the lines", acceptance="listed")
    submit(play, plan=Plan(steps=(lines, fare_map(**over))), check=check)
    accepts(play, "lines", provenance=(LIST_LABEL,))
    assert play.only_output(StepAssigned).step.id == "fares"
    finishes(play, "fares", items=items)


def finishes(play: Playbook, step: str, attempt: int = 1, **fields: object) -> None:
    body = StepFinished(step_id=step, attempt=attempt, plan_version=1, **{"result": Result(), **fields})
    play.hears(body, sender="worker")


def fails(play: Playbook, step: str, attempt: int = 1, code: str = "model_failed") -> None:
    finishes(play, step, attempt, failure=Failure(code=code, message=f"no fare in {step}"))


def assigned_ids(play: Playbook) -> list[str]:
    return [body.step.id for body in play.outputs_of(StepAssigned)]


def test_so_many_items_run_at_once_and_the_next_begins_when_one_ends(play: Playbook) -> None:
    begin(play, 3)
    first, second = play.outputs_of(StepAssigned)
    assert (first.step.id, first.step.over, first.check) == ("fares-0000", None, True)
    assert first.step.kind == "noop", "what knows no items ends it at once"
    assert (second.item.index, second.item.of, second.item.field) == (1, "lines", "/rows")
    assert first.step.prompt_text == fare_map().prompt_text, "the label of its text covers each item's"
    accepts(play, "fares-0001")
    assert assigned_ids(play) == ["fares-0002"]
    accepts(play, "fares-0000")
    assert assigned_ids(play) == []
    accepts(play, "fares-0002")
    gathering = play.only_output(StepAssigned)
    assert gathering.step.id == "fares" and [row.step_id for row in gathering.inputs] == [
        f"fares-000{index}" for index in range(3)
    ]
    assert play.outputs_of(StepStarted) == [], "a map has begun once"
    finishes(play, "fares", 2, items=3, result=Result(content=play.add_content("[1,2,3]", "worker")))
    ended = play.only_output(TaskEnded)
    assert (ended.status, ended.steps_done, ended.steps_total) == ("succeeded", 2, 2)
    assert ended.result.summary == "" and LIST_LABEL in ended.result.provenance
    play.replays()


def test_a_map_of_nothing_gathers_nothing(play: Playbook) -> None:
    begin(play, 0)
    assert play.only_output(StepAssigned).gathering is not None
    finishes(play, "fares", 2, items=0, result=Result(content=play.add_content("[]", "worker")))
    assert play.only_output(TaskEnded).status == "succeeded"


def test_a_worker_that_knows_no_items_ends_none_and_gathers_nothing(play: Playbook) -> None:
    begin(play, 1, check=False)
    finishes(play, "fares-0000")
    assert "update the workers" in play.only_output(StepEnded).reasons[0]
    finishes(play, "fares-0000", 2, items=0)
    assert play.only_output(StepAssigned).gathering is not None
    finishes(play, "fares", 2)
    assert "update the workers" in play.only_output(StepEnded).reasons[0]


def test_a_verdict_is_no_gathered_list(play: Playbook) -> None:
    begin(play, 1)
    accepts(play, "fares-0000")
    accepts(play, "fares", 2)
    assert play.only_output(StepEnded).outcome == "rejected"
    assert play.only_output(StepAssigned).gathering is not None


def test_an_item_is_tried_again_as_any_step_and_nobody_takes_its_place(play: Playbook) -> None:
    begin(play, 3)
    fails(play, "fares-0000")
    assert [(body.step.id, body.attempt) for body in play.outputs_of(StepAssigned)] == [("fares-0000", 2)]


def test_a_failed_item_is_left_out_while_the_map_lets_it_and_is_told(play: Playbook) -> None:
    begin(play, 3, at_most=1)
    for attempt in range(1, bounds.MAX_STEP_ATTEMPTS + 1):
        fails(play, "fares-0000", attempt)
    assert play.outputs_of(StepEnded)[0].outcome == "failed" and assigned_ids(play) == ["fares-0002"]
    accepts(play, "fares-0001")
    accepts(play, "fares-0002")
    assert [row.result.standing for row in play.only_output(StepAssigned).inputs] == ["failed", "ok", "ok"]
    finishes(play, "fares", 2, items=3, result=Result(content=play.add_content("[null,2,3]", "worker")))
    result = play.only_output(TaskEnded).result
    assert (result.standing, result.standing_reason) == ("degraded", "1 of 3 items failed")
    assert result.completeness.omissions[0].what == "item 0 of fares"
    assert "no fare in fares-0000" in result.completeness.omissions[0].detail


def test_one_failed_item_too_many_ends_the_map_with_the_reasons_of_all(play: Playbook) -> None:
    begin(play, 3, at_most=1)
    fails(play, "fares-0000", code="approval_denied")
    assert assigned_ids(play) == ["fares-0002"], "what was denied is not asked for again"
    for attempt in range(1, bounds.MAX_STEP_ATTEMPTS + 1):
        fails(play, "fares-0001", attempt)
    assert [body.step_id for body in play.outputs_of(StepCancelRequested)] == ["fares-0002"]
    reasons = next(body for body in play.outputs_of(StepEnded) if body.step_id == "fares").reasons
    assert "fares-0000" in reasons[0] and "fares-0001" in reasons[1]
    play.replays()


def test_no_item_is_left_out_that_may_have_been_done(play: Playbook) -> None:
    begin(play, 3, at_most=3)
    fails(play, "fares-0000", code="uncertain_effect")
    assert play.only_output(TaskEnded).failure.code == "uncertain_effect"


def test_many_results_are_gathered_in_parts(play: Playbook) -> None:
    count = bounds.MAX_STEP_INPUTS + 2
    begin(play, count, parallel=64)
    for index in range(count):
        accepts(play, f"fares-{index:04}")
    assert assigned_ids(play)[-1] == "fares-g1"
    finishes(play, "fares-g1", items=2, result=Result(content=play.add_content("[64,65]", "worker")))
    play.says()
    finishes(play, "fares-g0", items=64, result=Result(content=play.add_content("[0]", "worker")))
    joined = play.only_output(StepAssigned)
    assert [row.step_id for row in joined.inputs] == ["fares-g0", "fares-g1"] and joined.gathering.joins
    play.replays()


def test_a_part_never_gathers_more_than_one_message_may_name(play: Playbook) -> None:
    count = bounds.MAX_MAP_ITEMS
    begin(play, count, max_items=count)
    steps = play.state.steps.by_id
    parts = [steps["fares"], *(step for step in steps.values() if step.map_id and step.item is None)]
    assert all(len(part.gathers) <= bounds.MAX_STEP_INPUTS for part in parts)
    names = [name for part in parts for name in part.gathers]
    assert len(names) == len(set(names)) == count + len(parts) - 1, "each is gathered once"
    first_part = next(part for part in parts if part.gathers[0] == "fares-0064")
    above = next(part for part in parts if first_part.plan_step.id in part.gathers)
    assert (first_part.gathering.first, first_part.gathering.joins, above.gathering.joins) == (64, False, True)
    of_items = [part for part in parts if not part.gathering.joins]
    assert sum(part.gathering.max_bytes for part in of_items) <= bounds.MAX_MAP_BYTES
    assert steps["fares"].gathers[0] not in {part.plan_step.id for part in of_items}, "there are three levels"


def test_a_message_with_inputs_to_gather_fits_whatever_they_rest_on(play: Playbook) -> None:
    begin(play, bounds.MAX_STEP_INPUTS, parallel=64)
    labels = tuple(LIST_LABEL.model_copy(update={"sha256": f"{number:064x}"}) for number in range(bounds.MAX_LABELS))
    for index in range(bounds.MAX_STEP_INPUTS):
        accepts(play, f"fares-{index:04}", provenance=labels)
    gathering = play.only_output(StepAssigned)
    assert len(gathering.encode()) < bounds.MAX_MESSAGE_BYTES
    finishes(play, "fares", 2, items=64, result=Result(content=play.add_content("[1]", "worker")))
    result = play.only_output(TaskEnded).result
    assert len(result.provenance) == bounds.MAX_LABELS and not result.completeness.complete


def test_the_maps_of_a_task_are_bounded_together(play: Playbook) -> None:
    lines = PlanStep(id="lines", title="Lines", instruction="list the lines", acceptance="listed")
    count = bounds.MAX_MAP_ITEMS // 2 + 1
    steps = [fare_map(max_items=count, parallel=1).model_copy(update={"id": name}) for name in ("m0", "m1", "m2")]
    submit(play, plan=Plan(steps=(lines, *steps)))
    accepts(play, "lines")
    finishes(play, "m0", items=count)
    finishes(play, "m1", items=bounds.MAX_TASK_ITEMS - count)
    assert play.only_output(StepAssigned).item is not None
    finishes(play, "m2", items=1)
    assert play.outputs_of(StepEnded)[0].reasons[0].startswith("map_too_large: with m2 the maps have 10001 items")
    assert play.only_output(TaskEnded).failure.code == "step_failed"


def test_the_inputs_of_a_tasks_items_are_bounded_together(play: Playbook) -> None:
    labels = tuple(LIST_LABEL.model_copy(update={"sha256": f"{number:064x}"}) for number in range(bounds.MAX_LABELS))
    lines = PlanStep(id="lines", title="Lines", instruction="list the lines", acceptance="listed")
    wide = fare_map(max_items=bounds.MAX_MAP_ITEMS)
    others = [lines.model_copy(update={"id": f"l{number}"}) for number in range(8)]
    wide = wide.model_copy(update={"inputs": ("lines", *(step.id for step in others))})
    submit(play, plan=Plan(steps=(lines, *others, wide)))
    for step in (lines, *others):
        accepts(play, step.id, provenance=labels)
    finishes(play, "fares", items=bounds.MAX_MAP_ITEMS)
    assert "bytes are allowed in a task" in play.outputs_of(StepEnded)[0].reasons[0]


def test_an_item_of_a_call_is_handed_what_its_call_refers_to(play: Playbook) -> None:
    lines = PlanStep(id="lines", title="Lines", instruction="list the lines", acceptance="listed")
    others = [lines.model_copy(update={"id": name}) for name in ("rate", "aside")]
    call = StepCall(tool="calculate", arguments_json='{"of": {"$item": ""}, "at": {"$from": "rate"}}')
    changes = {"call": call, "tools": ("calculate",), "inputs": ("lines", "rate", "aside")}
    submit(play, plan=Plan(steps=(lines, *others, fare_map().model_copy(update=changes))))
    for step_id in ("lines", "rate", "aside"):
        accepts(play, step_id)
    finishes(play, "fares", items=1)
    assert [row.step_id for row in play.only_output(StepAssigned).inputs] == ["lines", "rate"]


def test_a_map_whose_list_was_not_counted_is_not_run(play: Playbook) -> None:
    begin(play, 101)
    assert [(body.step.id, body.attempt) for body in play.outputs_of(StepAssigned)] == [("fares", 2)]


def test_a_map_names_its_list_and_leaves_room_for_its_items() -> None:
    def codes(*steps: PlanStep) -> list[str]:
        return [note.code for note in plans.check_plan(steps, (CALC, PAY)) if note.severity == "error"]

    lines = PlanStep(id="lines", title="", instruction="list", acceptance="listed")
    assert codes(lines, fare_map()) == []
    assert codes(lines, fare_map().model_copy(update={"inputs": ()})) == ["unread_input"]
    assert codes(lines, fare_map().model_copy(update={"id": "f" * 60})) == ["map_id_too_long"]
    assert codes(lines, fare_map(), lines.model_copy(update={"id": "fares-0003"})) == ["map_id_taken"]
    assert codes(lines, fare_map().model_copy(update={"acceptance": ""})) == ["no_acceptance"]
