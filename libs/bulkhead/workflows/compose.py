"""The plan of a run: parameters get their values, and nested workflows give their steps. And its check. Pure.

In: the content of a version, values, contents of the versions that it nests. Out: steps as a task has them, with the
texts that came from the workflow alone; or the reason why none can be made.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from bulkhead.flow import bounded
from bulkhead.flow.step_calls import FROM
from bulkhead.plans.gates import expand_judges
from bulkhead.plans.plans import check_plan, find_sinks
from bulkhead.text.validation_errors import find_misfits
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import PlanStep
from bulkhead_contracts.tool import ToolSpec
from bulkhead_contracts.workflow import PLACEHOLDER, WorkflowContent, WorkflowStep, texts_of

STEP_REFERENCES = frozenset({"of", "step_id", "step"})
"""Fields, at any depth of a step, whose text is the id of another step."""
STEP_LISTS = frozenset({"inputs", "steps", "otherwise"})
"""Fields that hold a list of such ids."""
STEP_OVERHEAD_BYTES = 1024
"""Signed labels of a step's texts, beside it in the task's message."""


class ParameterValue(NamedTuple):
    """A value as it stands in a text, and as it stands alone in the arguments of a call."""

    text: str
    literal: str | int | float | bool


Values = Mapping[str, ParameterValue]


class ComposeError(ValueError):
    """A plan that cannot be made; the message says where and why."""


@dataclass(frozen=True, slots=True)
class ComposedPlan:
    """The steps of a run. fixed: ids of those in whose texts no value of a parameter stands."""

    objective: str
    steps: tuple[PlanStep, ...]
    fixed: frozenset[str]


def complete_values(content: WorkflowContent, values: Mapping[str, str]) -> dict[str, ParameterValue]:
    """A value for each parameter. Raises ComposeError, with all that does not fit."""
    declared = {parameter.name: parameter for parameter in content.parameters}
    problems = [f"{name} is no parameter of it" for name in sorted(set(values) - set(declared))]
    completed = {}
    for name, parameter in declared.items():
        value = values.get(name, parameter.default)
        if value is None:
            problems.append(f"{name} is missing")
        elif len(value) > bounds.MAX_WORKFLOW_VALUE_CHARS:
            problems.append(f"{name} has {len(value):,} characters, of {bounds.MAX_WORKFLOW_VALUE_CHARS:,}")
        elif reason := parameter.describe_misfit(value):
            problems.append(reason)
        else:
            completed[name] = ParameterValue(value, _literal_of(parameter.kind, value))
    if problems:
        names = ", ".join(declared) or "none"
        raise ComposeError(f"{'; '.join(problems)}; its parameters are {names}")
    return completed


def compose_run(
    content: WorkflowContent, values: Mapping[str, str], nested: Mapping[str, WorkflowContent]
) -> ComposedPlan:
    """The plan of a run with these values. nested: contents by ref. Raises ComposeError."""
    completed = complete_values(content, values)
    filled, fixed = _expand_steps(content, completed, nested, ())
    steps = expand_judges(filled)
    fixed |= {step.gate.judge.step for step in steps if step.id in fixed and step.gate and step.gate.judge}
    if len(steps) > bounds.MAX_PLAN_STEPS:
        raise ComposeError(f"the run would have {len(steps)} steps, of {bounds.MAX_PLAN_STEPS}")
    objective = _fill_text(content.objective, completed)
    if not 0 < len(objective) <= bounds.MAX_OBJECTIVE_CHARS:
        raise ComposeError(f"the objective has {len(objective):,} characters, of 1 to {bounds.MAX_OBJECTIVE_CHARS:,}")
    return ComposedPlan(objective, steps, frozenset(fixed))


def list_workflow_problems(
    content: WorkflowContent, nested: Mapping[str, WorkflowContent], tools: Sequence[ToolSpec] | None
) -> tuple[str, ...]:
    """Faults that keep a version from running, for people: of its parameters, and those that the planner would find in
    its plan. tools: that a task may have; None where nobody knows them."""
    if problems := content.list_problems():
        return problems
    try:
        sample_values = {parameter.name: parameter.sample_value for parameter in content.parameters}
        steps = compose_run(content, sample_values, nested).steps
    except ComposeError as error:
        return (str(error),)
    # A sample of a text stands for no day, amount or address: whether such arguments fit is seen at the run.
    unsure = {tool for workflow in (content, *nested.values()) for tool in _find_open_calls(workflow)}
    usable = None if tools is None else [plain_tool(tool.name) if tool.name in unsure else tool for tool in tools]
    notes = check_plan(steps, usable, checked=content.check)
    return tuple(note.message for note in notes if note.severity == "error")


def _find_open_calls(content: WorkflowContent) -> Iterator[str]:
    """Tools of the calls in whose arguments a text stands that only a run knows."""
    open_texts = {parameter.name for parameter in content.parameters if parameter.is_open_text}
    for step in content.steps:
        texts = [text for _, text in texts_of(step.call.model_dump())] if step.call is not None else []
        if step.call is not None and not open_texts.isdisjoint(PLACEHOLDER.findall("\n".join(texts))):
            yield step.call.tool


def plain_tool(name: str) -> ToolSpec:
    """A tool of which no more is known than its name."""
    return ToolSpec(name=name, description="", parameters_json="{}")


def _expand_steps(
    content: WorkflowContent, values: Values, nested: Mapping[str, WorkflowContent], path: tuple[str, ...]
) -> tuple[list[PlanStep], set[str]]:
    """The steps of a content, those of what it nests in their place; and the ids of those without a value in them."""
    steps: list[PlanStep] = []
    fixed: set[str] = set()
    for step in content.steps:
        if not step.workflow:
            is_fixed = not any(PLACEHOLDER.search(text) for _, text in texts_of(step.model_dump(mode="json")))
            steps.append(_fill_step(step, values))
            fixed |= {step.id} if is_fixed else set()
            continue
        if step.workflow in path or len(path) >= bounds.MAX_WORKFLOW_DEPTH:
            lineage = " -> ".join((*path, step.workflow))
            raise ComposeError(f"workflows nest each other, or deeper than {bounds.MAX_WORKFLOW_DEPTH}: {lineage}")
        inner = nested.get(step.workflow)
        if inner is None:
            raise ComposeError(f"step {step.id} stands for {step.workflow}, which is not there")
        try:
            inner_values = complete_values(
                inner, {name: _fill_text(value, values) for name, value in step.parameters.items()}
            )
        except ComposeError as error:
            raise ComposeError(f"step {step.id} ({step.workflow}): {error}") from error
        inner_steps, inner_fixed = _expand_steps(inner, inner_values, nested, (*path, step.workflow))
        # Values that the outer workflow writes down are its own words, and not the requester's.
        is_own = not any(map(PLACEHOLDER.search, step.parameters.values()))
        placed = _place_steps(step, inner_steps)
        steps += placed
        fixed |= {new.id for old, new in zip(inner_steps, placed, strict=True) if is_own or old.id in inner_fixed}
        if len(steps) > bounds.MAX_PLAN_STEPS:
            raise ComposeError(f"step {step.id} ({step.workflow}) makes more than {bounds.MAX_PLAN_STEPS} steps")
    sizes = {step.id: len(step.model_dump_json().encode()) + STEP_OVERHEAD_BYTES for step in steps}
    if (size := sum(sizes.values())) > bounds.MAX_COMPOSED_BYTES:
        longest = max(sizes, key=sizes.__getitem__)
        raise ComposeError(
            f"the plan of a run takes {size:,} bytes, of {bounds.MAX_COMPOSED_BYTES:,}; step {longest} is the longest "
            f"of {len(sizes)}, with {sizes[longest]:,}: shorten texts or values, or nest less"
        )
    return steps, fixed


def _place_steps(place: WorkflowStep, steps: Sequence[PlanStep]) -> list[PlanStep]:
    """Steps of a nested workflow under ids of their own; the last one has the id of the step that they stand for, so
    that whoever needs its result gets it. The first ones need what that step needs."""
    ends = find_sinks(steps)
    if len(ends) != 1:
        raise ComposeError(f"step {place.id}: {place.workflow} ends in {', '.join(ends) or 'none'}, and needs one end")
    ids = {step.id: place.id if step.id == ends[0] else f"{place.id}-{step.id}" for step in steps}
    placed = []
    for step in steps:
        document = _rename_steps(step.model_dump(mode="json", exclude_defaults=True), ids)
        document["id"] = ids[step.id]
        if not step.inputs:
            document["inputs"] = list(place.inputs)
        placed.append(_read_step(document))
    return placed


def _rename_steps(value: Any, ids: Mapping[str, str], field: str = "") -> Any:
    """A document with the ids of its steps replaced, also in the arguments of a call, which are JSON themselves."""
    if isinstance(value, dict):
        return {name: _rename_steps(inner, ids, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rename_steps(inner, ids, field if field in STEP_LISTS else "") for inner in value]
    if not isinstance(value, str):
        return value
    if field == "arguments_json":
        return _dump_arguments(_rename_references(_load_arguments(value), ids))
    return ids.get(value, value) if field in STEP_REFERENCES | STEP_LISTS else value


def _rename_references(value: Any, ids: Mapping[str, str]) -> Any:
    """Arguments with the steps of their references renamed: all else in them is the tool's, whatever its name."""
    if isinstance(value, dict):
        if isinstance(step_id := value.get(FROM), str):
            return {**value, FROM: ids.get(step_id, step_id)}
        return {name: _rename_references(inner, ids) for name, inner in value.items()}
    return [_rename_references(inner, ids) for inner in value] if isinstance(value, list) else value


def _fill_step(step: WorkflowStep, values: Values) -> PlanStep:
    document = step.model_dump(mode="json", exclude_defaults=True, exclude={"workflow", "parameters"})
    return _read_step(_fill_fields(document, values, ""))


def _read_step(document: dict[str, Any]) -> PlanStep:
    try:
        return PlanStep.model_validate({"title": "", "instruction": "", **document})
    except ValidationError as error:
        raise ComposeError(f"step {document.get('id')}: {find_misfits(error, PlanStep)[0]}") from error


def _fill_fields(value: Any, values: Values, field: str) -> Any:
    if isinstance(value, dict):
        return {name: _fill_fields(inner, values, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_fill_fields(inner, values, field) for inner in value]
    if not isinstance(value, str):
        return value
    if field == "arguments_json":
        return _dump_arguments(_fill_argument(_load_arguments(value), values))
    return _fill_text(value, values)


def _fill_argument(value: Any, values: Values) -> Any:
    """A value of a call: one that is a placeholder and nothing else becomes a number or truth where it is one."""
    if isinstance(value, dict):
        return {name: _fill_argument(inner, values) for name, inner in value.items()}
    if isinstance(value, list):
        return [_fill_argument(inner, values) for inner in value]
    if not isinstance(value, str):
        return value
    place = PLACEHOLDER.fullmatch(value)
    return values[place[1]].literal if place and place[1] in values else _fill_text(value, values)


def _fill_text(text: str, values: Values) -> str:
    size = len(text) + sum(len(values[name].text) for name in PLACEHOLDER.findall(text) if name in values)
    if size > bounds.MAX_COMPOSED_BYTES:
        raise ComposeError(f"a text would have {size:,} characters with its values: name a parameter less often")
    return PLACEHOLDER.sub(lambda place: values[place[1]].text if place[1] in values else place[0], text)


def _literal_of(kind: str, text: str) -> str | int | float | bool:
    match kind:
        case "boolean":
            return text == "true"
        case "number":
            return float(text) if "." in text else int(text)
    return text


def _load_arguments(text: str) -> Any:
    try:
        return bounded.load_json(text)
    except ValueError as error:
        raise ComposeError(f"the arguments of a call are no JSON: {error}") from error


def _dump_arguments(arguments: Any) -> str:
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
