"""The types of a plan: whether its steps' actions, references, fields, arguments and waits fit each other. Pure.

In: steps, and the tools that they may call, None where those are not known yet. Out: errors, as code and words that
name the step and its field. Nothing is found twice that `plans.check_plan` finds.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import jsonschema_rs

from bulkhead.flow import bounded
from bulkhead.flow.json_pointer import escape_segment, unescape_segment
from bulkhead.flow.step_calls import Reference, list_references
from bulkhead.plans.gates import find_gate_problem
from bulkhead.policy.values import form_of
from bulkhead_contracts.approval import APPROVING_ROLES
from bulkhead_contracts.bounds import MAX_POINTER_CHARS
from bulkhead_contracts.plan import ACTION_FIELDS, ASK_PERSON, JUDGE_ROLE, MapOver, PlanStep
from bulkhead_contracts.tool import ToolSpec

Problem = tuple[str, str]
WITHOUT_MODEL = frozenset({"validate", "branch", "wait"})
"""Actions of which no model has a turn and no tool a call, unless a gate asks a person."""
OPEN_KEYWORDS = frozenset({"$ref", "$dynamicRef", "anyOf", "oneOf", "allOf", "patternProperties"})
"""Keywords of a schema that may declare places elsewhere."""


def references_of(step: PlanStep) -> tuple[Reference, ...]:
    """The fields of earlier results that a step reads itself, without a model; () where its call is malformed.
    `argument` is the field of the step that says so."""
    references = [
        Reference(f"{name}.of", looked_at.of, getattr(looked_at, "field", ""))
        for name, looked_at in (("gate", step.gate), ("branch", step.branch), ("over", step.over))
        if looked_at is not None
    ]
    if step.gate is not None and step.gate.judge is not None and step.gate.judge.step:
        references.append(Reference("gate.judge.step", step.gate.judge.step, ""))
    if step.call is not None:
        try:
            references += [row for row in list_references(step.call) if row.step_id]
        except ValueError:
            return tuple(references)
    return tuple(references)


def branch_targets(step: PlanStep) -> frozenset[str]:
    """The steps that one of a branch's cases begins; none of a step that is no branch."""
    if step.branch is None:
        return frozenset()
    return frozenset(step.branch.otherwise).union(*(case.steps for case in step.branch.cases))


def field_of_items(over: MapOver, reference: Reference) -> str:
    """The field of the result with a map's list that a reference to its items stands for."""
    return f"{over.field}/*{reference.field}"


def must_run_again(step: PlanStep) -> bool:
    """True for a step whose result no other task takes over: nobody there knows which steps a branch began, and a
    person's word is for the steps after it as he was shown them."""
    asks_person = step.question is not None or (step.gate is not None and step.gate.on_fail == "person")
    return step.branch is not None or asks_person


@dataclass(frozen=True, slots=True)
class PlanTypes:
    """The steps by id, and the tools by name. readers: the steps that have a step among their inputs, by its id.
    branches: the branches that may begin it, likewise."""

    steps: Mapping[str, PlanStep]
    tools: Mapping[str, ToolSpec] | None
    readers: Mapping[str, Sequence[str]]
    branches: Mapping[str, Sequence[str]]

    @classmethod
    def from_steps(cls, steps: Iterable[PlanStep], tools: Mapping[str, ToolSpec] | None) -> "PlanTypes":
        """The types of these steps; of those with one id, the last."""
        by_id = {step.id: step for step in steps}
        readers, branches = dict[str, list[str]](), dict[str, list[str]]()
        for step in by_id.values():
            for name in dict.fromkeys(step.inputs):
                readers.setdefault(name, []).append(step.id)
            for name in branch_targets(step):
                branches.setdefault(name, []).append(step.id)
        return cls(by_id, tools, readers, branches)

    def find_problems(self, step: PlanStep) -> Iterator[Problem]:
        """The errors of one step."""
        fields = [name for name in ACTION_FIELDS if getattr(step, name) is not None]
        if len(fields) > 1 and fields != ["call", "over"]:
            yield "mixed_step", f"step {step.id} has {' and '.join(fields)}: split it into a step for each"
            return
        if fields and (step.kind != "noop" or step.adopted):
            yield "mixed_step", f"step {step.id} has {fields[0]}, and so its kind must be noop, and not adopted"
        if step.skippable and (step.adopted or step.action in ("approval", "branch", "map")):
            yield "unskippable_step", f"step {step.id} is of action {step.action}: leave skippable out"
        unused = [name for name in ("tools", "flows", "calls") if getattr(step, name)]
        if step.gate is not None and step.gate.on_fail == "person" and step.tools == (ASK_PERSON,):
            unused.remove("tools")
        if step.action in WITHOUT_MODEL and unused:
            yield "unused_field", f"step {step.id} is a {step.action}: leave {', '.join(unused)} out"
        for reference in references_of(step):
            yield from self._find_reference_problem(step, reference)
        if step.gate is not None:
            yield from self._find_gate_problems(step)
        if step.role == JUDGE_ROLE:
            yield from self._find_judge_problems(step)
        if step.branch is not None:
            yield from self._find_branch_problems(step)
        if step.wait is not None and bool(step.wait.duration_ms) == bool(step.wait.until_unix_ms):
            yield "bad_wait", f"step {step.id}, wait: write either duration_ms or until_unix_ms"
        if step.question is not None and (others := sorted({*step.question.roles} - {*APPROVING_ROLES})):
            text = f"{', '.join(others)} may not approve; {' and '.join(APPROVING_ROLES)} may"
            yield "unknown_role", f"step {step.id}, question.roles: {text}"
        if step.call is not None:
            yield from self._find_call_problems(step)

    def _find_reference_problem(self, step: PlanStep, reference: Reference) -> Iterator[Problem]:
        name, place = reference.step_id, f"step {step.id}, {_place_of(step, reference)}"
        if name not in self.steps:
            yield "unknown_input", f"{place}: {name} is no step"
            return
        if name not in step.inputs:
            yield "unread_input", f"{place}: {name} is none of its inputs; add it to `inputs`"
            return
        kind, argument_kind = self._produced_kind(name, reference.field), self._wanted_kind(step, reference)
        if kind is None:
            yield "unknown_field", f"{place}: the result of {name} has no field {reference.field}"
        elif (
            argument_kind != "any"
            and kind not in ("any", "null", argument_kind)
            and (kind, argument_kind) != ("integer", "number")
        ):
            yield (
                "unfit_field",
                f"{place}: {reference.field} of {name} is of type {kind}, and {argument_kind} is wanted",
            )

    def _produced_kind(self, step_id: str, field: str) -> str | None:
        """The type of a field of a step's result; "any" where it is not declared, None where there is no such field."""
        step = self.steps[step_id]
        for _ in self.steps:
            through = step.gate or step.branch  # Both hand on what they look at.
            if through is None or through.of not in self.steps:
                break
            step = self.steps[through.of]
        spec = (self.tools or {}).get(step.call.tool) if step.call is not None and step.over is None else None
        if spec is None or not field:
            return "any"
        if spec.output_json or not spec.result_fields:
            return _kind_at(_load_schema(spec.output_json), field)
        return "any" if any(_covers(declared, field) for declared in spec.result_fields) else None

    def _wanted_kind(self, step: PlanStep, reference: Reference) -> str:
        """The type that is wanted where a reference stands; "any" where that is not known."""
        if step.over is not None and reference.argument == "over.of":
            return "array"
        spec = (self.tools or {}).get(step.call.tool) if step.call is not None else None
        if spec is None or not reference.argument.startswith("/") or not reference.field:
            return "any"
        return _kind_at(_load_schema(spec.parameters_json), reference.argument) or "any"

    def _find_gate_problems(self, step: PlanStep) -> Iterator[Problem]:
        gate = step.gate
        assert gate is not None
        if reason := find_gate_problem(gate):
            yield "bad_gate", f"step {step.id}, {reason}"
        judging = self.steps.get(gate.judge.step) if gate.judge is not None else None
        if gate.judge is not None and (judging is None or judging.role != JUDGE_ROLE or gate.of not in judging.inputs):
            text = f"name the step that judges, of the role {JUDGE_ROLE} and with {gate.of} among its inputs"
            yield "bad_gate", f"step {step.id}, gate.judge.step: {text}"
        gated = self.steps.get(gate.of)
        if gate.on_fail != "retry" or gated is None:
            return
        spec = (self.tools or {}).get(gated.call.tool) if gated.call is not None else None
        if gated.action not in ("agent", "tool") or (spec is not None and spec.effect == "write"):
            text = f"{gate.of} is repeated with the gate's reasons, which a model or a call that reads alone can be"
            yield "bad_gate", f"step {step.id}, gate.on_fail: {text}"
        gates = {step.id, judging.id if judging is not None else ""}
        if readers := [name for name in self.readers.get(gate.of, ()) if name not in gates]:
            text = f"{', '.join(readers)} would build on {gate.of} before it has passed; let them build on {step.id}"
            yield "bypassed_gate", f"step {step.id}, gate.of: {text}, which hands the result on"

    def _find_judge_problems(self, step: PlanStep) -> Iterator[Problem]:
        readers = [self.steps[name] for name in self.readers.get(step.id, ())]
        gates = [reader.gate for reader in readers if reader.gate is not None and reader.gate.judge is not None]
        judged = [gate.judge.step for gate in gates if gate.judge is not None]
        if step.action != "agent" or step.tools or judged != [step.id] or len(readers) > 1:
            text = "it has no tools and no action of its own, and the one gate that names it alone builds on it"
            yield "bad_judge", f"step {step.id} has the role {JUDGE_ROLE}: {text}"

    def _find_branch_problems(self, step: PlanStep) -> Iterator[Problem]:
        branch = step.branch
        assert branch is not None
        for index, case in enumerate(branch.cases):
            is_figure = form_of(case.text)[0] in ("number", "date", "time", "account")
            if not case.text.strip() or (case.test in ("at_least", "at_most") and not is_figure):
                remedy = "a number or a day" if case.text.strip() else "the text that is looked for"
                yield "bad_case", f"step {step.id}, branch.cases[{index}].text: write {remedy}"
        for name in sorted(branch_targets(step)):
            target = self.steps.get(name)
            if target is None:
                yield "unknown_target", f"step {step.id}, branch: {name} is no step"
            elif step.id not in target.inputs:
                text = f"{name} does not wait for the branch; add {step.id} to its inputs"
                yield "unbranched_target", f"step {step.id}, branch: {text}"
            elif branches := [branch_id for branch_id in self.branches[name] if branch_id != step.id]:
                yield "shared_target", f"step {step.id}, branch: {name} is begun by {', '.join(branches)}, too"

    def _find_call_problems(self, step: PlanStep) -> Iterator[Problem]:
        call = step.call
        assert call is not None
        if call.tool == ASK_PERSON:
            yield "asks_by_call", f"step {step.id}, call.tool: a person is asked by `question`, and by no call"
            return
        try:
            references = list_references(call)
        except ValueError as error:
            yield "bad_arguments", f"step {step.id}, call.arguments_json: {error}"
            return
        if step.over is None and any(not row.step_id for row in references):
            yield "bad_arguments", f"step {step.id}, call.arguments_json: $item stands outside of a map"
        for row in references:
            if step.over is not None and not row.step_id and len(field_of_items(step.over, row)) > MAX_POINTER_CHARS:
                text = f"over.field and $item at {row.argument} make up more than {MAX_POINTER_CHARS} characters"
                yield "bad_arguments", f"step {step.id}, call.arguments_json: {text}"
        if self.tools is None:
            return
        spec = self.tools.get(call.tool)
        if spec is None:
            if call.tool not in step.tools:  # Else it is found as any tool that is not granted.
                text = f"{call.tool} is not granted; granted are: {', '.join(sorted(self.tools)) or 'none'}"
                yield "tool_not_granted", f"step {step.id}, call.tool: {text}"
            return
        if reason := _arguments_reason(spec, bounded.load_json(call.arguments_json), references):
            yield "bad_arguments", f"step {step.id}, call.arguments_json: {reason}"


def find_longest_wait(steps: Sequence[PlanStep], began_unix_ms: int) -> tuple[str, int]:
    """The step of an acyclic plan at which its waits alone have lasted longest, and when that is."""
    by_id = {step.id: step for step in steps}
    over: dict[str, int] = {}
    pending = list(by_id)
    while pending:
        step = by_id[pending[-1]]
        missing = [name for name in step.inputs if name in by_id and name not in over]
        if missing:
            pending += missing
            continue
        pending.pop()
        begins = max((over.get(name, began_unix_ms) for name in step.inputs), default=began_unix_ms)
        over[step.id] = due_of_wait(step, begins) if step.wait is not None else begins
    return max(over.items(), key=lambda row: row[1], default=("", began_unix_ms))


def due_of_wait(step: PlanStep, begins_unix_ms: int) -> int:
    """When a wait is over that begins then."""
    assert step.wait is not None
    return max(begins_unix_ms + step.wait.duration_ms, step.wait.until_unix_ms)


def _place_of(step: PlanStep, reference: Reference) -> str:
    return f"call.arguments_json at {reference.argument}" if reference.argument[:1] in ("", "/") else reference.argument


def _covers(pattern: str, pointer: str) -> bool:
    """True when a declared place, `*` for any item, is this one, or lies within it."""
    declared, sought = pattern.split("/"), pointer.split("/")
    pairs = zip(declared, sought, strict=False)
    return len(declared) >= len(sought) and all(segment in ("*", sought_segment) for segment, sought_segment in pairs)


def _kind_at(schema: object, pointer: str) -> str | None:
    """The type that a schema declares at a pointer; "any" where that is left open, None where it has no such place."""
    node = schema
    for raw_segment in pointer.split("/")[1:]:
        if not isinstance(node, dict) or not OPEN_KEYWORDS.isdisjoint(node):
            return "any"
        segment, properties, items = (unescape_segment(raw_segment), node.get("properties"), node.get("items"))
        if isinstance(properties, dict):
            if segment not in properties:
                return "any" if node.get("additionalProperties") else None
            node = properties[segment]
        elif isinstance(items, dict):
            node = items
        else:
            return "any"
    kind = node.get("type") if isinstance(node, dict) else None
    return kind if isinstance(kind, str) else "any"


def _load_schema(text: str) -> object:
    try:
        return bounded.load_json(text)
    except ValueError:
        return {}


def _arguments_reason(spec: ToolSpec, arguments: object, references: Sequence[Reference]) -> str:
    """The reason why the literal arguments of a call do not fit its tool's schema; what references stand for is not
    known yet."""
    schema = _load_schema(spec.parameters_json)
    if not isinstance(schema, dict):
        return ""
    try:
        validator = jsonschema_rs.Draft202012Validator(
            schema, offline=True, pattern_options=jsonschema_rs.RegexOptions()
        )
        errors = list(validator.iter_errors(json.loads(json.dumps(arguments))))
    except (ValueError, TypeError, jsonschema_rs.ReferencingError):
        return ""  # The executor looks at it when the call is made.
    for error in errors:
        place = "".join(f"/{escape_segment(part)}" for part in error.instance_path)
        keyword = str(error.schema_path[-1]) if error.schema_path else ""
        names_fields = keyword in ("required", "additionalProperties") and all(
            row.argument != place for row in references
        )
        is_open = any(
            f"{row.argument}/".startswith(f"{place}/") or f"{place}/".startswith(f"{row.argument}/")
            for row in references
        )
        if names_fields or not is_open:
            return f"{place or 'they'}: {error.message[:300]}"
    return ""
