"""Searches that steps which have not begun will make whatever comes before them. A leaf, pure.

In: the state, and steps that have just begun. Out: the steps next to them whose call is a search, with its query.
Nothing is foreseen beyond a person's word or a wait: what waits for consent, or for its time, is not to be begun.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bulkhead.flow import bounded
from bulkhead.flow.step_calls import list_references
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import PlanStep
from bulkhead_services.planner.state import PlannerState
from bulkhead_services.planner.step_table import StepState

MAX_GATES = 3
"""Gates and branches between a step that runs and one that is foreseen: they take no time."""
DECIDED_AT_ONCE = frozenset({"validate", "branch"})


class ForeseenSearch(NamedTuple):
    """A step that will search for this."""

    step: StepState
    query: str


def find_searches(state: PlannerState, begun: Sequence[str], room: int) -> tuple[ForeseenSearch, ...]:
    """The first `room` searches that follow these steps and were not foreseen before."""
    searches: list[ForeseenSearch] = []
    seen, layer = set(state.foreseen_steps), begun
    for gates in range(MAX_GATES + 1 if room > 0 else 0):
        between: list[str] = []
        for step_id in dict.fromkeys(name for begun_id in layer for name in state.steps.dependents.get(begun_id, ())):
            step = state.steps.by_id[step_id]
            if step_id in seen or step.status != "waiting" or not _comes_next(state, step.plan_step, gates):
                continue
            seen.add(step_id)
            if step.plan_step.action in DECIDED_AT_ONCE:
                between.append(step_id)
            elif query := _literal_query(state, step.plan_step):
                searches.append(ForeseenSearch(step, query))
                if len(searches) == room:
                    return tuple(searches)
        layer = between
    return tuple(searches)


def _comes_next(state: PlannerState, plan_step: PlanStep, gates: int) -> bool:
    """True when each of its inputs is over, runs, or is a gate or branch to which that applies in turn."""
    inputs = (state.steps.by_id[name] for name in plan_step.inputs)
    return all(step.is_over or _leads_on(state, step, gates) for step in inputs)


def _leads_on(state: PlannerState, step: StepState, gates: int) -> bool:
    plan_step = step.plan_step
    asks_person = plan_step.gate is not None and plan_step.gate.on_fail == "person"
    if asks_person or plan_step.action in ("approval", "wait"):
        return False
    if step.status == "running":
        return True
    return plan_step.action in DECIDED_AT_ONCE and gates > 0 and _comes_next(state, plan_step, gates - 1)


def _literal_query(state: PlannerState, plan_step: PlanStep) -> str:
    """The query of a step that searches documents, without anything of earlier results; "" of any other."""
    call, tools = plan_step.call, state.tools_of(plan_step)
    if call is None or plan_step.over is not None or not any(tool.served_by == "rag" for tool in tools):
        return ""
    try:
        query = {} if list_references(call) else bounded.load_json(call.arguments_json)
    except ValueError:
        return ""  # The worker says what is wrong with it.
    text = query.get("query") if isinstance(query, dict) else None
    return text if isinstance(text, str) and len(text) <= bounds.MAX_QUERY_CHARS else ""
