"""A plan as a model drafts it: asked for, and read with tolerance for what does no harm. A leaf, pure.

In: the state of a task without a plan; the text of a model's reply. Out: the model's call; steps with notes: a warning
for each thing put right, an error where the draft leaves open what is meant.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bulkhead.flow import InboxMessage, Send, Transition, bounded, replace
from bulkhead.flow.json_pointer import unescape_segment
from bulkhead.flow.schema_places import list_places
from bulkhead.plans.plans import check_plan, cut_heading, error_note, find_cycle, find_flow_problem, warning_note
from bulkhead_contracts import bounds
from bulkhead_contracts.model import DEFAULT_TIER, ModelCallReplied, ModelCallRequested, Part
from bulkhead_contracts.plan import WORKER_ROLE, PlanNote, PlanStep, RoleSpec
from bulkhead_contracts.provenance import Flow, PlannedCall, PlannedValue
from bulkhead_contracts.tool import ToolSpec
from bulkhead_contracts.wording import describe_error
from bulkhead_services.planner.state import PlannerState
from bulkhead_services.planner.step_table import StepTable

PLAN_OUTPUT_TOKENS = 4_000
MAX_PART_CHARS = bounds.MAX_INSTRUCTION_CHARS * 2
"""Bound of one part of a prompt."""
MAX_PLAN_BYTES = 256 * 1024
MODELS_ANSWER = "the model's answer"
"""As the model gateway names what it had to leave out of a reply."""
ACCEPTANCE = "Does what the step asks, with its sources, or says plainly what could not be found."
NAMES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "step_id", "step", "number", "name"),
    "title": ("title", "name", "summary"),
    "instruction": ("instruction", "instructions", "description", "task", "action", "title"),
    "tools": ("tools", "tool"),
    "inputs": ("inputs", "input", "depends_on", "dependencies", "requires", "needs"),
    "acceptance": ("acceptance", "acceptance_criteria", "criteria", "acceptance_criterion"),
    "role": ("role", "roles", "agent", "assignee"),
}
"""Names under which models write each field; the first that holds something counts."""
NOTHING = frozenset({"", "none", "null", "n/a", "na", "nothing", "objective", "user", "input", "start"})
"""Words that stand in a list where it should be empty."""
WORKERS = frozenset({WORKER_ROLE, "worker", "default", *NOTHING})
"""Words for the role of a step that is not delegated."""
_NO_TOKEN = re.compile(r"[^A-Za-z0-9_-]+")
_NO_ROLE = re.compile(r"[^a-z0-9_]+")


def request_draft(state: PlannerState, message: InboxMessage, notes: tuple[str, ...]) -> Transition[PlannerState]:
    """Ask the model for a plan; `notes` say what was wrong with the last one."""
    state = replace(state, phase="drafting", drafts=state.drafts + 1, deferrals=0, draft_notes=notes, steps=StepTable())
    return Transition(state, (build_draft_call(state, message),))


def build_draft_call(state: PlannerState, message: InboxMessage) -> Send:
    """The call that drafts a plan, with as much time as there is now."""
    assert state.objective is not None
    parts = [Part(kind="objective", content=state.objective), *_tool_parts(state), *_role_parts(state)]
    if state.draft_notes:
        text = "\n".join(f"- {note}" for note in state.draft_notes)
        parts.append(Part(kind="notes", text=text[: bounds.MAX_INSTRUCTION_CHARS]))
    body = ModelCallRequested(
        call_id=state.draft_call_id,
        attempt=state.drafts,
        prompt_id="planner.revise" if state.draft_notes else "planner.draft",
        parts=tuple(parts),
        response="plan",
        tier=state.route or DEFAULT_TIER,
        stream=False,
        max_output_tokens=PLAN_OUTPUT_TOKENS,
        roles=tuple(role.name for role in state.roles),
        deadline_unix_ms=min(state.deadline_unix_ms, message.time_unix_ms + bounds.DEFAULT_MODEL_CALL_TIMEOUT_MS),
    )
    return Send("model_gateway", body, grant=state.grant)


def _tool_parts(state: PlannerState) -> tuple[Part, ...]:
    """Tools that the task may use, in as many parts as that takes."""
    texts: list[str] = []
    may_change = any(map(_may_change, state.tools))
    for tool in state.tools:
        row = _describe_tool(tool)
        if may_change:  # Else a plan has nothing to bound, and pays for no names.
            row = f"{row}{_describe_places(tool)}"[:MAX_PART_CHARS]
        if texts and len(texts[-1]) + 1 + len(row) <= MAX_PART_CHARS:
            texts[-1] += f"\n{row}"
        else:
            texts.append(row)
    return tuple(Part(kind="tools", text=text) for text in texts or ("none",))


def _describe_tool(tool: ToolSpec) -> str:
    effect = f"{tool.effect}, sends out" if tool.egress and tool.effect == "read" else tool.effect
    return f"{tool.name}: {tool.description} ({effect})"


def _may_change(tool: ToolSpec) -> bool:
    return tool.effect == "write" or tool.egress


def _describe_places(tool: ToolSpec) -> str:
    """The pointers by which a plan names its arguments (with `!` where they choose what is done) and the fields of its
    results."""
    all_choose = tool.egress if tool.effect == "read" else not tool.sinks
    chooses = tuple(f"{sink.argument}/" for sink in tool.sinks if sink.kind != "text")
    takes = ", ".join(
        f"{pointer} {kind}{'!' if all_choose or f'{pointer}/'.startswith(chooses) else ''}"
        for pointer, kind in list_places(_schema_of(tool))
    )
    gives = ", ".join(tool.result_fields)
    return (f" takes {takes}" if takes else "") + (f"; gives {gives}" if gives else "")


def _schema_of(tool: ToolSpec) -> object:
    try:
        return bounded.load_json(tool.parameters_json)
    except ValueError:
        return {}


def _is_argument(tool: ToolSpec, pointer: str) -> bool:
    """True for a place in an argument that the tool declares by name; a pattern for every argument is none."""
    schema, (_, *parts) = _schema_of(tool), pointer.split("/")
    declared = schema.get("properties") if isinstance(schema, dict) else None
    return bool(parts) and isinstance(declared, dict) and unescape_segment(parts[0]) in declared


def _role_parts(state: PlannerState) -> tuple[Part, ...]:
    """Roles that may carry out a step; () where there are none, so that nothing is paid for them."""
    if not state.roles:
        return ()
    rows = (f"{role.name}: {role.description}" if role.description else role.name for role in state.roles)
    return (Part(kind="context", title="roles", text="\n".join(rows)),)


# Reading


class DraftStep(BaseModel):
    """A step as a model writes it."""

    id: str
    title: str = ""
    instruction: str
    tools: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    acceptance: str = ""
    role: str = WORKER_ROLE
    flows: tuple[Flow, ...] = ()
    calls: tuple[PlannedCall, ...] = ()


class DraftCall(PlannedCall):
    """A call that a model foresees. A field that is not known might be a value under another name: without it the call
    would be bound by less than was meant. figures: values that are bounded or calculated, apart from those that are
    copied."""

    model_config = ConfigDict(extra="forbid")
    figures: Annotated[tuple[PlannedValue, ...], Field(max_length=bounds.MAX_FLOWS)] = ()

    def as_planned(self) -> PlannedCall:
        """The call with all its values; a figure without a rule says nothing."""
        stated = tuple(figure for figure in self.figures if not figure.is_literal)
        return PlannedCall(tool=self.tool, values=(*self.values, *stated), times=self.times)


class StepBound(BaseModel):
    """The part of a step that bounds what it may do without anybody being asked."""

    flows: Annotated[tuple[Flow, ...], Field(max_length=bounds.MAX_FLOWS)] = ()
    calls: Annotated[tuple[DraftCall, ...], Field(max_length=bounds.MAX_FLOWS)] = ()


class PlanDraft(BaseModel):
    """A plan as a model writes it."""

    steps: Annotated[tuple[DraftStep, ...], Field(min_length=1, max_length=bounds.MAX_DRAFT_STEPS)]


Steps = tuple[PlanStep, ...]
Notes = tuple[PlanNote, ...]


def read_reply(
    reply: ModelCallReplied, text: str | None, tools: Sequence[ToolSpec], roles: Sequence[RoleSpec] = ()
) -> tuple[Steps, Notes]:
    """Steps of a model's reply, and what the checker finds. text: None when it was too long to read. roles:
    those that the prompt named; where it named none, a role is left out, as any other field."""
    if text is None:
        return (), (error_note("plan_too_large", f"the plan exceeds {MAX_PLAN_BYTES} bytes"),)
    lost = [
        omission.detail or omission.what for omission in reply.completeness.omissions if omission.what == MODELS_ANSWER
    ]
    cut = "; ".join(lost) or ("the model reached its output limit" if reply.finish == "length" else "")
    steps, notes = parse(text, cut, roles)
    if not steps:
        return (), notes
    steps, mended = _mend_steps(steps, tools)
    # Errors first: a bound on notes must not hide one.
    findings = check_plan(steps, tools, roles=roles)
    return steps, (*findings, *notes, *mended)[: bounds.MAX_PLAN_NOTES]


def parse(text: str, cut: str = "", roles: Sequence[RoleSpec] = ()) -> tuple[Steps, Notes]:
    """Steps of a draft with what was put right, or notes that say why it cannot be read.

    cut: what the reply says is missing from it. roles: as in `read_reply`.
    """
    try:
        document = bounded.load_json(text)
    except ValueError:
        # Nothing in the parser's words: another version of it has others, and a replay would differ.
        return (), (_no_json(text, cut),)
    notes: list[PlanNote] = []
    if isinstance(document, dict) and isinstance(document.get("steps"), list):
        document = {"steps": _plan_rows(document["steps"][: bounds.MAX_DRAFT_STEPS + 1], notes, roles)}
    try:
        draft = PlanDraft.model_validate(document)
        steps = tuple(PlanStep(**step.model_dump()) for step in draft.steps)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[:8]
        where = (("plan", *problem["loc"])[bool(problem["loc"]) :] for problem in wrong)
        rows = zip(where, wrong, strict=True)
        return (), tuple(
            error_note("unreadable_plan", f"{'.'.join(map(str, place))}: {describe_error(problem)}")
            for place, problem in rows
        )
    return steps, tuple(notes)


def _no_json(text: str, cut: str) -> PlanNote:
    if not text.strip():
        return error_note("unreadable_plan", "the answer is empty; answer with the JSON object of the plan")
    if not cut and not _ends_early(text):
        return error_note("unreadable_plan", "the answer is not JSON; answer with the plan's JSON object alone")
    detail = f": {cut}" if cut else ""
    return error_note(
        "plan_cut_off",
        f"the plan was cut off after {len(text)} characters, before it was whole{detail}. Make it shorter: fewer "
        "steps, and an instruction of a few sentences for each",
    )


def _ends_early(text: str) -> bool:
    """True when a bracket or a text that was opened is never closed."""
    depth, quoted, escaped = 0, False, False
    for char in text:
        if quoted:
            quoted, escaped = (char != '"' or escaped), (char == "\\" and not escaped)
        elif char == '"':
            quoted = True
        else:
            depth += (char in "[{") - (char in "]}")
    return text.lstrip()[:1] in ("{", "[") and (quoted or depth > 0)


# Rows


def _plan_rows(rows: list[Any], notes: list[PlanNote], roles: Sequence[RoleSpec]) -> list[Any]:
    """The steps with the fields that a plan has; what is no step stays as it is, and is refused."""
    listed = [_as_row(row) for row in rows]
    names = _unique_ids([_field_of(row, "id") for row in listed], notes)
    ids_by_name: dict[str, str] = {}
    for row, name in zip(listed, names, strict=True):
        ids_by_name.setdefault(_name_of(_field_of(row, "id")) or name, name)
        ids_by_name.setdefault(name, name)
    plan_rows = []
    for place, (row, name) in enumerate(zip(listed, names, strict=True)):
        if not isinstance(row, dict):
            plan_rows.append(row)
            continue
        inputs = [ids_by_name.get(input_name, input_name) for input_name in _names_in(_field_of(row, "inputs"))]
        if rows[place] is not row and place:
            inputs = [names[place - 1]]
            notes.append(warning_note("plain_step", f"step {name} is a bare text: it waits for the one before", name))
        if name in inputs:
            notes.append(warning_note("self_input", f"step {name} named itself as its input; that is left out", name))
        acceptance = _joined_text(_field_of(row, "acceptance"), "; ")[: bounds.MAX_ACCEPTANCE_CHARS]
        if not acceptance.strip():
            acceptance = ACCEPTANCE
            notes.append(
                warning_note("default_acceptance", f"step {name} said no acceptance: it has a general one", name)
            )
        plan_rows.append(
            {
                "id": name,
                "title": cut_heading(_joined_text(_field_of(row, "title"), " "), bounds.MAX_TITLE_CHARS),
                "instruction": _joined_text(_field_of(row, "instruction"), " "),
                "tools": [tool.removeprefix("functions.") for tool in _names_in(_field_of(row, "tools"))],
                "inputs": list(dict.fromkeys(input_id for input_id in inputs if input_id != name)),
                "acceptance": acceptance,
                "role": (role := _role_of(row, roles)),
                # Whoever carries out a delegated step calls other tools in place of its own.
                **(_read_bound(row, name, ids_by_name, notes) if role == WORKER_ROLE else {}),
            }
        )
    return plan_rows


def _read_bound(row: dict[str, Any], name: str, ids: Mapping[str, str], notes: list[PlanNote]) -> dict[str, Any]:
    """The flows and calls of a step, read strictly: where one is malformed the step has none of them, as if the model
    had foreseen nothing."""
    flows, calls = row.get("flows") or (), row.get("calls") or ()
    if isinstance(flows, list):
        flows = [
            flow
            | {"step_id": ids.get(_name_of(flow.get("step_id")), "")}
            | {"where": [_read_test(test) for test in _rows_of(flow, "where")]}
            if isinstance(flow, dict)
            else flow
            for flow in flows
        ]
    if isinstance(calls, list):
        calls = [
            call | {"figures": [_read_figure(figure) for figure in _rows_of(call, "figures")]}
            if isinstance(call, dict)
            else call
            for call in calls
        ]
    try:
        bound = StepBound.model_validate({"flows": flows, "calls": calls})
        return {"flows": bound.flows, "calls": tuple(call.as_planned() for call in bound.calls)}
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, problem['loc']))}: {describe_error(problem)}"
        notes.append(_bound_note(name, reason))
        return {}


def _rows_of(row: Mapping[str, Any], name: str) -> list[Any]:
    rows = row.get(name) or []
    return rows if isinstance(rows, list) else [rows]


def _read_test(test: Any) -> Any:
    """`is /sender Kim Roe`, `ends_with .tmp`, `last` as a selector."""
    if not isinstance(test, str):
        return test
    kind, _, over = test.strip().partition(" ")
    field, _, text = over.partition(" ") if over.startswith("/") else ("", "", over)
    return {"test": kind, "field": field, "text": text.strip()}


def _read_figure(figure: Any) -> Any:
    """`/amount = net * 2` or `/amount 10..20` as a planned value."""
    if not isinstance(figure, str):
        return figure
    argument, _, rule = figure.strip().partition(" ")
    if rule.startswith("="):
        return {"argument": argument, "calculate": rule[1:].strip()}
    least, dots, most = rule.partition("..")
    return {"argument": argument, "at_least": least.strip(), "at_most": most.strip()} if dots else figure


def _bound_note(name: str, reason: str) -> PlanNote:
    return warning_note("bound_left_out", f"step {name} goes without its flows and calls: {reason}", name)


def _role_of(row: dict[str, Any], roles: Sequence[RoleSpec]) -> str:
    """The role that a row names, written as roles are; whether it is granted is for the checker to say."""
    role_field = _field_of(row, "role") if roles else ""
    name = "_".join(map(_name_of, role_field)) if isinstance(role_field, list) else _name_of(role_field)
    granted = {role.name for role in roles}
    if name in granted:
        return name
    if name.lower() in WORKERS - granted:
        return WORKER_ROLE
    name = _NO_ROLE.sub("_", name.lower()).strip("_")
    return (name if name[:1].isalpha() else f"role_{name}")[:32]


def _as_row(row: Any) -> Any:
    return {"instruction": row} if isinstance(row, str) and row.strip() else row


def _field_of(row: Any, field: str) -> Any:
    """Value of a row's field, under any of its names."""
    if not isinstance(row, dict):
        return None
    return next((row[name] for name in NAMES[field] if row.get(name) not in (None, "", [], {})), None)


def _name_of(field: Any) -> str:
    """An id or a name as models write it: a text, a number, or an object that has one."""
    if isinstance(field, dict):
        field = next((field[name] for name in ("id", "name", "step_id", "step") if field.get(name)), "")
    return str(field).strip() if isinstance(field, str | int) and not isinstance(field, bool) else ""


def _names_in(field: Any) -> list[str]:
    listed = field if isinstance(field, list) else [field]
    return list(dict.fromkeys(name for item in listed if (name := _name_of(item)).lower() not in NOTHING))


def _joined_text(field: Any, separator: str) -> str:
    if isinstance(field, list):
        return separator.join(str(item) for item in field if isinstance(item, str | int))
    return str(field) if isinstance(field, str | int) else ""


def _unique_ids(fields: list[Any], notes: list[PlanNote]) -> list[str]:
    """An id for each step that can stand in a subject, each once."""
    names: list[str] = []
    for place, field in enumerate(fields, 1):
        name = _NO_TOKEN.sub("_", _name_of(field)).strip("_")[:48] or f"s{place}"
        if name in names:
            unique_name = next(new for n in range(2, bounds.MAX_DRAFT_STEPS + 3) if (new := f"{name}_{n}") not in names)
            text = f"step id {name} was used twice: the later one is {unique_name}"
            notes.append(warning_note("renamed_step", text, unique_name))
            name = unique_name
        names.append(name)
    return names


# Steps


def _bound_problem(step: PlanStep, steps: Steps, tools: Sequence[ToolSpec]) -> str | None:
    """The reason why a step's flows and calls cannot be what was meant; None where they can."""
    if not step.flows and not step.calls:
        return None
    if (problem := find_flow_problem(step, steps, {other.id for other in steps})) is not None:
        return problem[1]
    foreseen, specs = {call.tool for call in step.calls}, {tool.name: tool for tool in tools}
    for flow in step.flows:
        spec = specs.get(flow.tool)
        if spec is not None and _may_change(spec) and flow.tool not in foreseen:
            return f"a value flows into {flow.tool}, of which no call is foreseen"
    named = [(flow.tool, flow.argument) for flow in step.flows]
    named += [(call.tool, planned.argument) for call in step.calls for planned in call.values]
    for tool, argument in named:
        if tool in specs and not _is_argument(specs[tool], argument):
            return f"{tool} takes no argument {argument}"
    return None


def _mend_steps(steps: Steps, tools: Sequence[ToolSpec]) -> tuple[Steps, Notes]:
    """The steps without tools that nobody granted (where others are left), without what cannot bound them, and without
    waiting for each other."""
    granted, notes = {tool.name for tool in tools}, []
    mended = []
    for step in steps:
        granted_tools = tuple(name for name in step.tools if name in granted)
        if granted_tools and len(granted_tools) < len(step.tools):
            left_out = ", ".join(name[:80] for name in step.tools if name not in granted)
            notes.append(
                warning_note("tool_left_out", f"step {step.id} goes without what is no tool: {left_out}", step.id)
            )
            step = step.model_copy(update={"tools": granted_tools})
        if (problem := _bound_problem(step, steps, tools)) is not None:
            notes.append(_bound_note(step.id, problem))
            step = step.model_copy(update={"flows": (), "calls": ()})
        mended.append(step)
    if not find_cycle(mended):
        return tuple(mended), tuple(notes)
    earlier_ids: set[str] = set()
    known_ids = {step.id for step in mended}
    for place, step in enumerate(mended):
        inputs = tuple(name for name in step.inputs if name in earlier_ids or name not in known_ids)
        if later := [name for name in step.inputs if name not in inputs]:
            text = f"steps waited for each other: {step.id} no longer waits for the later {', '.join(later)}"
            notes.append(warning_note("later_input", text, step.id))
            mended[place] = step.model_copy(update={"inputs": inputs})
        earlier_ids.add(step.id)
    return tuple(mended), tuple(notes)
