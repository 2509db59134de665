"""Maps: a step that is run for each item of a list. Once its list is read, each item is a plain step, of which so many
run at once; the last of them let their results be gathered. A leaf, pure.

In: a map and how many items it has; an item that is over; a gathered list. Out: the steps, and the map's result.
Ids: `STEP-0007` is an item of STEP, `STEP-g0` a part of its list, or of such parts; the last few STEP gathers itself.
"""

from bulkhead.flow import replace
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import PlanStep
from bulkhead_contracts.result import (
    Completeness,
    Omission,
    Result,
    cut_completeness,
    merge_citations,
    merge_completeness,
    merge_labels,
    worst_standing,
)
from bulkhead_contracts.step import Gathering, MapItem, StepInput
from bulkhead_services.planner.state import PlannerState
from bulkhead_services.planner.step_table import OpenMap, StepState, StepTable

FAN_IN = bounds.MAX_STEP_INPUTS
MAX_TOLD_FAILURES = 8
MAX_DETAIL_CHARS = 300


def find_excess(state: PlannerState, map_step: StepState, count: int, item_bytes: int) -> str:
    """The reason why so many items of a map, with inputs of so many bytes each, are too much beside the task's other
    maps; "" where they are not."""
    opened = [step.open_map for step in state.steps if step.open_map is not None]
    items = count + sum(row.items for row in opened)
    size_bytes = count * item_bytes + sum(row.items * row.item_bytes for row in opened)
    if items <= bounds.MAX_TASK_ITEMS and size_bytes <= bounds.MAX_TASK_ITEM_BYTES:
        return ""
    allowance = f"{bounds.MAX_TASK_ITEMS} items and {bounds.MAX_TASK_ITEM_BYTES} bytes are allowed in a task"
    name = f"with {map_step.plan_step.id} the maps have {items} items, and their inputs {size_bytes} bytes"
    return f"map_too_large: {name}; {allowance}: split it, or let the map build on fewer steps"


def open_map(state: PlannerState, map_step: StepState, count: int, item_bytes: int) -> PlannerState:
    """The state with a step for each of so many items, and for each part of what comes of them. item_bytes: of each
    item's inputs."""
    plan_step, over = map_step.plan_step, map_step.plan_step.over
    assert over is not None
    ids = [f"{plan_step.id}-{index:04}" for index in range(count)]
    kind = "agent" if plan_step.call is None else plan_step.kind
    items = (
        StepState(
            plan_step.model_copy(update={"id": step_id, "over": None, "kind": kind}),
            status="waiting" if index < over.parallel else "queued",
            map_id=plan_step.id,
            item=MapItem(of=over.of, field=over.field, index=index),
        )
        for index, step_id in enumerate(ids)
    )
    parts, gathers = list[StepState](), ids
    item_room = bounds.MAX_MAP_BYTES // max(1, count)
    spans = FAN_IN  # Items that one part of this level stands for.
    while len(gathers) > FAN_IN:
        level = [
            StepState(
                PlanStep(id=f"{plan_step.id}-g{len(parts) + number}", title="", instruction="", kind="noop"),
                map_id=plan_step.id,
                gathering=Gathering(
                    max_bytes=item_room * min(spans, count - number * spans), first=number * spans, joins=bool(parts)
                ),
                gathers=tuple(gathers[first : first + FAN_IN]),
            )
            for number, first in enumerate(range(0, len(gathers), FAN_IN))
        ]
        parts, gathers, spans = [*parts, *level], [part.plan_step.id for part in level], spans * FAN_IN
    gathering = Gathering(max_bytes=bounds.MAX_MAP_BYTES, joins=bool(parts))
    opened = OpenMap(count, item_bytes, begun=min(count, over.parallel))
    map_step = replace(map_step, status="waiting", open_map=opened, gathering=gathering, gathers=tuple(gathers))
    steps = {**state.steps.by_id, plan_step.id: map_step}
    return replace(state, steps=StepTable.from_steps((*steps.values(), *items, *parts)))


def settle_item(state: PlannerState, item: StepState) -> PlannerState:
    """The state with an item that is over; the next one of its map is to begin."""
    map_step = state.step(item.map_id)
    assert map_step is not None and map_step.open_map is not None
    opened = map_step.open_map
    changed = [item]
    if opened.begun < opened.items:
        following = state.step(f"{item.map_id}-{opened.begun:04}")
        assert following is not None
        changed.append(replace(following, status="waiting"))
        opened = replace(opened, begun=opened.begun + 1)
    opened = replace(opened, left_out=opened.left_out + (item.status == "left_out"))
    return replace(state, steps=state.steps.with_steps(*changed, replace(map_step, open_map=opened)))


def may_leave_out(state: PlannerState, item: StepState) -> bool:
    """True when the map goes on though this item of it has failed, too."""
    map_step = state.step(item.map_id)
    assert map_step is not None and map_step.open_map is not None and map_step.plan_step.over is not None
    return map_step.open_map.left_out < map_step.plan_step.over.at_most


def failed_items(state: PlannerState, map_step: StepState) -> tuple[str, ...]:
    """Reasons for which items of a map have failed."""
    items = (step for step in state.steps if step.map_id == map_step.plan_step.id and step.item is not None)
    failed = [step for step in items if step.status in ("failed", "left_out")]
    failures = [f"step {step.plan_step.id}: {'; '.join(step.notes[-2:])}"[:MAX_DETAIL_CHARS] for step in failed]
    more = [f"and {len(failures) - MAX_TOLD_FAILURES} more"] if len(failures) > MAX_TOLD_FAILURES else []
    return (*failures[:MAX_TOLD_FAILURES], *more)


def inputs_to_gather(state: PlannerState, step: StepState) -> tuple[StepInput, ...]:
    """The results that a step puts together, without what they rest on: that is known here, and would not fit."""
    inputs = []
    for gathered in map(state.step, step.gathers):
        assert gathered is not None
        result = Result(standing="failed")
        if gathered.status == "done" and gathered.result is not None:
            result = Result(content=gathered.result.content, summary=gathered.result.summary)
        inputs.append(StepInput(step_id=gathered.plan_step.id, result=result))
    return tuple(inputs)


def gathered_result(state: PlannerState, step: StepState, text: Result) -> Result:
    """The result of a step that gathers. text: the list, and what of it was cut."""
    gathered = [row for name in step.gathers if (row := state.step(name)) is not None]
    over = step.plan_step.over
    source = state.step(over.of) if over is not None else None
    results = [row.result for row in (*gathered, source) if row is not None and row.result is not None]
    labels, citations = [row.provenance for row in results], [row.citations for row in results]
    lost = tuple(
        Omission(
            reason="failed_part",
            what=f"item {row.item.index} of {row.map_id}",
            detail="; ".join(row.notes[-2:])[:MAX_DETAIL_CHARS],
        )
        for row in gathered
        if row.status == "left_out" and row.item is not None
    )
    own = Completeness.with_omissions(*lost) if lost else Completeness()
    reasons = dict.fromkeys(row.standing_reason for row in (text, *results) if row.standing_reason)
    if step.open_map is not None and step.open_map.left_out:
        reasons = {f"{step.open_map.left_out} of {step.open_map.items} items failed": "", **reasons}
    return text.model_copy(
        update={
            "standing": worst_standing(*(row.standing for row in (text, *results)), "degraded" if lost else "ok"),
            "standing_reason": "; ".join(reasons)[: bounds.MAX_REASON_CHARS],
            "completeness": merge_completeness(
                own, text.completeness, *(row.completeness for row in results), cut_completeness(labels, citations)
            ),
            "provenance": merge_labels(*labels),
            "citations": merge_citations(*citations),
        }
    )
