"""Plans that may run: checked with notes of severity, given one final step; or the objective as one step. Pure."""

import itertools
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from bulkhead.plans.plan_types import PlanTypes, find_longest_wait
from bulkhead.policy.planned_values import PlannedRules, rule_problem
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import WORKER_ROLE, Delegation, Plan, PlanNote, PlanStep, RoleSpec
from bulkhead_contracts.provenance import Flow, PlannedCall
from bulkhead_contracts.result import ContentRef, Failure
from bulkhead_contracts.tool import ToolSpec

Severity = Literal["error", "warning", "note"]
COMPOSE_ID = "answer"
RUN_WHOLE = "no draft could be used; the objective was run as one step"
WHOLE_ACCEPTANCE = (
    "Answers the whole objective from documents, results of tools or what the objective itself gives, with citations; "
    "or says plainly what could not be found."
)
CUT_OFF = frozenset({"plan_cut_off", "plan_too_large"})
PART_OF_MAP = re.compile(r"(.*)-(\d{4,}|g\d+)")
MAX_MAP_ID_CHARS = 64 - len("-0000")
NOT_CHECKED = "is a noop: it returns its own instruction, which nobody checks"


def rejection_failure(notes: Sequence[PlanNote]) -> Failure:
    """Failure that ends the task when its last draft has these notes."""
    errors = [note for note in notes if note.severity == "error"]
    hint = "state the objective more simply, or submit a plan of your own"
    if any(note.code in CUT_OFF for note in errors):
        hint = "ask for less at once (split the objective into several tasks), or submit a plan of your own"
    reason = f"no draft passed the plan checker: {'; '.join(note.message for note in errors)}"
    return Failure.from_text("plan_rejected", reason, hint)


def plan_of_objective(
    objective: ContentRef, tools: Sequence[ToolSpec], draft_failure: str
) -> tuple[PlanStep, PlanNote]:
    """The objective as a plan of one step with every granted tool, and the note that says so."""
    instruction = objective.summary
    if instruction.endswith("…") or not instruction.strip():
        instruction = f"Do all that the objective asks. It begins: {instruction}"
    step = PlanStep(
        id=COMPOSE_ID,
        title=cut_heading(objective.summary, bounds.MAX_TITLE_CHARS),
        instruction=instruction,
        tools=tuple(tool.name for tool in tools),
        acceptance=WHOLE_ACCEPTANCE,
    )
    return step, warning_note("no_draft", f"{RUN_WHOLE}: {draft_failure}", step.id)


def error_note(code: str, message: str, step_id: str = "") -> PlanNote:
    """A note that keeps a plan from running."""
    return _make_note("error", code, message, step_id)


def warning_note(code: str, message: str, step_id: str = "") -> PlanNote:
    """A note on what was put right, or is worth a look."""
    return _make_note("warning", code, message, step_id)


def _make_note(severity: Severity, code: str, message: str, step_id: str) -> PlanNote:
    cut = message[: bounds.MAX_REASON_CHARS]
    return PlanNote(severity=severity, code=code, step_id=step_id[:64], message=cut)


def cut_heading(text: str, max_chars: int) -> str:
    """One line of at most `max_chars` characters: cut between words where there is one, never through a character."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if len(line) <= max_chars:
        return line
    end = max_chars - 1
    while end > 0 and (unicodedata.combining(line[end]) or "\u200d" in line[end - 1 : end + 1]):
        end -= 1
    space = line.rfind(" ", 0, end + 1)
    # A word as long as the line is cut; dropping it would leave nothing that tells the step from others.
    return (line[:space] if space > max_chars // 2 else line[:end]) + "…"


def check_plan(
    steps: Sequence[PlanStep],
    tools: Sequence[ToolSpec] | None,
    *,
    checked: bool = False,
    roles: Sequence[RoleSpec] | None = None,
    began_unix_ms: int = 0,
    deadline_unix_ms: int = 0,
) -> tuple[PlanNote, ...]:
    """Findings on a plan; any of severity `error` keeps it from running. tools: those that are granted, None where that
    is not known yet. checked: results have to pass the checker. roles: that a step may have besides the worker's; None
    where the signer has looked at them. began_unix_ms, deadline_unix_ms: of its task, 0 where they are not known."""
    notes: list[PlanNote] = []

    def add_note(severity: Severity, code: str, step_id: str, message: str) -> None:
        notes.append(_make_note(severity, code, message, step_id))

    if not steps:
        add_note("error", "empty_plan", "", "the plan has no steps")
    if len(steps) > bounds.MAX_PLAN_STEPS:
        add_note("error", "too_many_steps", "", f"{len(steps)} steps; at most {bounds.MAX_PLAN_STEPS} are allowed")
    step_ids = {step.id for step in steps}
    granted = {tool.name: tool for tool in tools} if tools is not None else None
    types = PlanTypes.from_steps(steps, granted)
    seen_ids: set[str] = set()
    flowing_steps = tuple(step for step in steps if step.flows)
    part_ids = {match[1]: match[0] for match in map(PART_OF_MAP.fullmatch, step_ids) if match is not None}
    for step in steps:
        if step.id in seen_ids:
            add_note("error", "duplicate_step", step.id, f"step id {step.id} is used twice")
        seen_ids.add(step.id)
        needs_words = step.action in ("agent", "noop") or (step.over is not None and step.call is None)
        if not step.instruction.strip() and needs_words:
            add_note("error", "no_instruction", step.id, f"step {step.id} does not say what to do")
        is_carried_out_by_agent = step.action == "agent" or (step.action == "map" and step.call is None)
        if not step.acceptance.strip() and is_carried_out_by_agent:
            add_note("error", "no_acceptance", step.id, f"step {step.id} has no acceptance criterion")
        if checked and step.action == "noop":
            add_note("warning", "not_checked", step.id, f"step {step.id} {NOT_CHECKED}: its result stands as degraded")
        for name in step.inputs:
            if name not in step_ids:
                add_note("error", "unknown_input", step.id, f"step {step.id} needs {name}, which is no step")
        for name in step.tools:
            if granted is not None and name not in granted:
                text = f"step {step.id} wants tool {name}; granted are: {', '.join(sorted(granted)) or 'none'}"
                add_note("error", "tool_not_granted", step.id, text)
        if roles is not None and step.role not in (WORKER_ROLE, *(role.name for role in roles)):
            names = ", ".join(role.name for role in roles) or "none"
            text = f"step {step.id} wants role {step.role}; granted are: {names}; {WORKER_ROLE} stands for no role"
            add_note("error", "role_not_granted", step.id, text)
        if (problem := find_flow_problem(step, flowing_steps, step_ids)) is not None:
            add_note("error", problem[0], step.id, problem[1])
        if (problem := find_map_problem(step, part_ids)) is not None:
            add_note("error", problem[0], step.id, problem[1])
        for code, text in types.find_problems(step):
            add_note("error", code, step.id, text)
    if looped := find_cycle(steps):
        add_note("error", "cycle", looped[0], f"steps wait for each other: {' -> '.join((*looped, looped[0]))}")
    ends = find_sinks(steps)
    if len(ends) > 1 and not looped:
        if len(steps) >= bounds.MAX_PLAN_STEPS:
            text = f"the plan ends in several steps, and {len(steps)} leave no room for one that composes the answer"
            add_note("error", "several_ends", "", text)
        elif len(ends) > bounds.MAX_STEP_INPUTS:
            text = (
                f"the plan ends in {len(ends)} steps, {ends[-1]} the last; one step composes {bounds.MAX_STEP_INPUTS}"
            )
            add_note("error", "several_ends", ends[-1], f"{text}: add steps that put some of them together")
        else:
            add_note("note", "several_ends", "", "a final step that composes the answer is added")
    if deadline_unix_ms and not looped:
        waiting, until = find_longest_wait(steps, began_unix_ms)
        if until > began_unix_ms and until >= deadline_unix_ms:
            text = f"{until - began_unix_ms} ms pass until then; the task has {deadline_unix_ms - began_unix_ms} ms"
            add_note("error", "wait_beyond_deadline", waiting, f"step {waiting} waits too long: {text}: give it more")
    return tuple(notes[: bounds.MAX_PLAN_NOTES])


def flows_of(step: PlanStep, steps: Sequence[PlanStep]) -> tuple[Flow, ...]:
    """The flows into a step's calls, and out of their results: what chooses a call that feeds another chooses both."""
    out = (flow for consumer in steps for flow in consumer.flows if flow.step_id == step.id and consumer.id != step.id)
    return (*step.flows, *out)


def fit_calls(calls: Sequence[PlannedCall]) -> tuple[PlannedCall, ...]:
    """Calls that fit into a grant, in their order; the others count as not foreseen."""
    sizes = itertools.accumulate(len(call.model_dump_json()) for call in calls)
    fitting = itertools.takewhile(lambda size_bytes: size_bytes <= bounds.MAX_GRANT_FLOWS_BYTES, sizes)
    return tuple(calls[: min(len(list(fitting)), bounds.MAX_FLOWS)])


def find_flow_problem(step: PlanStep, steps: Sequence[PlanStep], known: Collection[str]) -> tuple[str, str] | None:
    """Problem with the flows and calls that a step declares, or None: code and words."""
    for flow in step.flows:
        if flow.tool not in step.tools or flow.step_id not in known:
            detail = (
                f"step {step.id} lets {flow.field} of {flow.from_tool} in step {flow.step_id} flow into {flow.tool}"
            )
            return "unknown_flow", f"{detail}; both must be there: a tool of this step, and a step of this plan"
    for call in step.calls:
        if call.tool not in step.tools:
            detail = f"step {step.id} foresees a call of {call.tool}, which is no tool of it"
            return "unknown_call", f"{detail}: name it in `tools`, or leave the call out"
    for tool in step.tools:
        own_flows = tuple(flow for flow in step.flows if flow.tool == tool)
        own_calls = tuple(call for call in step.calls if call.tool == tool)
        if reason := rule_problem(PlannedRules(tool, own_flows, own_calls)):
            return "unfit_rule", f"step {step.id} cannot state a value of {tool}: {reason}"
    flows = flows_of(step, steps)
    size = sum(len(declared.model_dump_json()) for declared in (*flows, *step.calls))
    if size > bounds.MAX_GRANT_FLOWS_BYTES or len(flows) > bounds.MAX_FLOWS:
        fit = f"{bounds.MAX_GRANT_FLOWS_BYTES} fit into its grant"
        detail = f"the flows into and out of step {step.id}, and its calls, take {size} bytes; {fit}"
        return "too_many_flows", f"{detail}: declare fewer, or split the step"
    return None


def find_map_problem(step: PlanStep, part_ids: Mapping[str, str]) -> tuple[str, str] | None:
    """Problem with a map, or None: code and words. part_ids: ids of the plan that parts of maps have, by the map's."""
    if step.id in part_ids and (step.over is not None or step.call is not None):
        text = f"step {part_ids[step.id]} has an id that items of {step.id} would have: rename one of them"
        return "map_id_taken", text
    if step.over is not None and len(step.id) > MAX_MAP_ID_CHARS:
        return "map_id_too_long", f"the id of map {step.id} leaves no room for its items': {MAX_MAP_ID_CHARS} fit"
    return None


def without_figures(calls: Iterable[PlannedCall]) -> tuple[PlannedCall, ...]:
    """The calls with the values alone that stand as they are written. A bound or a calculation lets pass what its
    writer chose, so that it is a person's to give."""
    return tuple(
        call.model_copy(update={"values": tuple(value for value in call.values if value.is_literal)}) for call in calls
    )


def tools_of(
    steps: Sequence[PlanStep], tools: Sequence[ToolSpec], delegated: Sequence[Delegation] = ()
) -> tuple[ToolSpec, ...]:
    """The granted tools that these steps use, or that are used in their place."""
    used = {name for step in steps for name in step.tools} | {row.agent_tool for row in delegated}
    return tuple(tool for tool in tools if tool.name in used)


def effects_beyond(
    steps: Sequence[PlanStep],
    submitted: Sequence[PlanStep],
    tools: Sequence[ToolSpec],
    delegated: Sequence[Delegation] = (),
) -> tuple[PlanNote, ...]:
    """Findings where a plan could have more effects than the submitted one whose place it takes. delegated: the roles
    that it may choose; nobody here knows what a program outside does, so each step of one may change something."""
    notes = []
    for row in delegated:
        allowed, count = (sum(row.role == step.role for step in plan) for plan in (submitted, steps))
        if count > allowed:
            detail = f"{count} steps have the role {row.role}; the submitted plan allows it in {allowed}"
            notes.append(error_note("more_effects", detail))
    for name in (tool.name for tool in tools if tool.effect != "read" or tool.egress):
        allowed, count = (sum(name in step.tools for step in plan) for plan in (submitted, steps))
        if count > allowed:
            detail = f"{count} steps use {name}; the submitted plan allows it in {allowed}"
            notes.append(error_note("more_effects", detail))
    return tuple(notes)


def find_cycle(steps: Sequence[PlanStep]) -> tuple[str, ...]:
    """Ids of one cycle in waiting order, or ()."""
    waits = {step.id: list(step.inputs) for step in steps}
    done: set[str] = set()
    for start in waits:
        path: list[str] = []
        stack = [(start, iter(waits[start]))]
        on_path = {start}
        path.append(start)
        if start in done:
            continue
        while stack:
            node, remaining = stack[-1]
            following = next((name for name in remaining if name in waits and name not in done), None)
            if following is None:
                stack.pop()
                path.pop()
                on_path.discard(node)
                done.add(node)
            elif following in on_path:
                return tuple(path[path.index(following) :])
            else:
                stack.append((following, iter(waits[following])))
                on_path.add(following)
                path.append(following)
    return ()


def find_sinks(steps: Sequence[PlanStep]) -> tuple[str, ...]:
    """Ids of the steps that nothing else needs."""
    needed = {name for step in steps for name in step.inputs}
    return tuple(step.id for step in steps if step.id not in needed)


def compose_plan(steps: Sequence[PlanStep], notes: tuple[PlanNote, ...], version: int) -> Plan:
    """The plan to run: with exactly one final step, made here when the draft ends in several."""
    ends = find_sinks(steps)
    if len(ends) > 1:
        used_ids = {step.id for step in steps}
        name = next(n for n in (COMPOSE_ID, *(f"{COMPOSE_ID}_{i}" for i in range(100))) if n not in used_ids)
        steps = (
            *steps,
            PlanStep(
                id=name,
                title="Compose the answer",
                instruction="Compose the final answer to the objective from the results of the earlier steps. "
                "Keep every citation. Add nothing that the results do not say.",
                inputs=ends,
                acceptance="Answers the whole objective, from the given results alone, with their citations.",
            ),
        )
    return Plan(version=version, steps=tuple(steps), notes=notes)
