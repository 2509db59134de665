"""From a model's draft to a plan that may run: parsed, checked with notes of severity, given one final step. Pure."""

import unicodedata
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.plan import Plan, PlanNote, PlanStep
from bulkhead_contracts.result import Failure, Result, worst
from bulkhead_contracts.tool import ToolSpec
from bulkhead_contracts.wording import words

COMPOSE_ID = "answer"
MAX_PLAN_BYTES = 256 * 1024
MODELS_ANSWER = "the model's answer"
"""As the model gateway names what it had to leave out of a reply."""
CUT_OFF = frozenset({"plan_cut_off", "plan_too_large"})
NOT_CHECKED = "is a noop: it returns its own instruction, which nobody checks"


class DraftStep(BaseModel):
    """A step as a model writes it."""

    id: str
    title: str = ""
    instruction: str
    tools: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    acceptance: str = ""


class Draft(BaseModel):
    """A plan as a model writes it."""

    steps: Annotated[tuple[DraftStep, ...], Field(min_length=1, max_length=bounds.MAX_PLAN_STEPS)]


def parse(text: str, cut: str = "") -> tuple[tuple[PlanStep, ...], tuple[PlanNote, ...]]:
    """Steps of a draft, or notes that say why it cannot be read. cut: what the reply says is missing from it."""
    try:
        draft = Draft.model_validate_json(text)
        rows = (step.model_dump() | {"title": heading(step.title, bounds.MAX_TITLE_CHARS)} for step in draft.steps)
        steps = tuple(PlanStep(**row) for row in rows)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:8]
        if found[0]["type"] == "json_invalid":
            # Nothing in the parser's words: another version of it has others, and a replay would differ.
            return (), (_no_json(text, cut),)
        return (), tuple(_error("unreadable_plan", f"{'.'.join(map(str, one['loc']))}: {words(one)}") for one in found)
    return steps, ()


def read(
    reply: ModelCallReplied, text: str | None, tools: Sequence[ToolSpec]
) -> tuple[tuple[PlanStep, ...], tuple[PlanNote, ...]]:
    """Steps of a model's reply, and what the checker finds. text: what it said; None when that was too long to read."""
    if text is None:
        return (), (_error("plan_too_large", f"the plan exceeds {MAX_PLAN_BYTES} bytes"),)
    lost = [one.detail or one.what for one in reply.completeness.omissions if one.what == MODELS_ANSWER]
    cut = "; ".join(lost) or ("the model reached its output limit" if reply.finish == "length" else "")
    steps, notes = parse(text, cut)
    return steps, notes or check(steps, tools)


def failure(notes: Sequence[PlanNote]) -> Failure:
    """What the task ends with when its last draft has these notes."""
    errors = [one for one in notes if one.severity == "error"]
    hint = "state the objective more simply, or submit a plan of your own"
    if any(one.code in CUT_OFF for one in errors):
        hint = "ask for less at once (split the objective into several tasks), or submit a plan of your own"
    what = f"no draft passed the plan checker: {'; '.join(one.message for one in errors)}"
    return Failure.of("plan_rejected", what, hint)


def unchecked(step: PlanStep, result: Result) -> Result:
    """A check was asked for and there was none: whatever is built on the result says so, up to the answer."""
    reason = "; ".join(filter(None, (f"step {step.id} {NOT_CHECKED}", result.standing_reason)))
    standing = worst(result.standing, "degraded")
    return result.model_copy(update={"standing": standing, "standing_reason": reason[: bounds.MAX_REASON_CHARS]})


def _ends_early(text: str) -> bool:
    """Whether a bracket or a text that was opened is never closed."""
    depth, quoted, escaped = 0, False, False
    for char in text:
        if quoted:
            quoted, escaped = (char != '"' or escaped), (char == "\\" and not escaped)
        elif char == '"':
            quoted = True
        else:
            depth += (char in "[{") - (char in "]}")
    return text.lstrip()[:1] in ("{", "[") and (quoted or depth > 0)


def _no_json(text: str, cut: str) -> PlanNote:
    if not text.strip():
        return _error("unreadable_plan", "the answer is empty; answer with the JSON object of the plan")
    if not cut and not _ends_early(text):
        return _error("unreadable_plan", "the answer is not JSON; answer with the plan's JSON object alone")
    detail = f": {cut}" if cut else ""
    return _error(
        "plan_cut_off",
        f"the plan was cut off after {len(text)} characters, before it was whole{detail}. Make it shorter: fewer "
        "steps, and an instruction of a few sentences for each",
    )


def _error(code: str, message: str) -> PlanNote:
    return PlanNote(severity="error", code=code, message=message[: bounds.MAX_REASON_CHARS])


def heading(text: str, most: int) -> str:
    """One line of at most `most` characters: cut between words where there is one, never through a character."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if len(line) <= most:
        return line
    end = most - 1
    while end > 0 and (unicodedata.combining(line[end]) or "\u200d" in line[end - 1 : end + 1]):
        end -= 1
    space = line.rfind(" ", 0, end + 1)
    # A word as long as the line is cut; dropping it would leave nothing that tells the step from others.
    return (line[:space] if space > most // 2 else line[:end]) + "…"


def check(steps: Sequence[PlanStep], tools: Sequence[ToolSpec], *, checked: bool = False) -> tuple[PlanNote, ...]:
    """Findings on a plan; any of severity `error` keeps it from running. checked: results have to pass the checker."""
    notes: list[PlanNote] = []

    def note(severity: Literal["error", "warning", "note"], code: str, step_id: str, message: str) -> None:
        cut = message[: bounds.MAX_REASON_CHARS]
        notes.append(PlanNote(severity=severity, code=code, step_id=step_id[:64], message=cut))

    if not steps:
        note("error", "empty_plan", "", "the plan has no steps")
    if len(steps) > bounds.MAX_PLAN_STEPS:
        note("error", "too_many_steps", "", f"{len(steps)} steps; at most {bounds.MAX_PLAN_STEPS} are allowed")
    known = {step.id for step in steps}
    granted = {tool.name for tool in tools}
    seen: set[str] = set()
    for step in steps:
        if step.id in seen:
            note("error", "duplicate_step", step.id, f"step id {step.id} is used twice")
        seen.add(step.id)
        if not step.instruction.strip():
            note("error", "no_instruction", step.id, f"step {step.id} does not say what to do")
        if not step.acceptance.strip() and step.kind != "noop":
            note("error", "no_acceptance", step.id, f"step {step.id} has no acceptance criterion")
        if checked and step.kind == "noop":
            note("warning", "not_checked", step.id, f"step {step.id} {NOT_CHECKED}: its result stands as degraded")
        for name in step.inputs:
            if name not in known:
                note("error", "unknown_input", step.id, f"step {step.id} needs {name}, which is no step")
        for name in step.tools:
            if name not in granted:
                text = f"step {step.id} wants tool {name}; granted are: {', '.join(sorted(granted)) or 'none'}"
                note("error", "tool_not_granted", step.id, text)
    if looped := cycle(steps):
        note("error", "cycle", looped[0], f"steps wait for each other: {' -> '.join((*looped, looped[0]))}")
    if len(sinks(steps)) > 1 and not looped:
        if len(steps) >= bounds.MAX_PLAN_STEPS:
            text = f"the plan ends in several steps, and {len(steps)} leave no room for one that composes the answer"
            note("error", "several_ends", "", text)
        else:
            note("note", "several_ends", "", "a final step that composes the answer is added")
    return tuple(notes[: bounds.MAX_PLAN_NOTES])


def cycle(steps: Sequence[PlanStep]) -> tuple[str, ...]:
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
            node, rest = stack[-1]
            following = next((name for name in rest if name in waits and name not in done), None)
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


def sinks(steps: Sequence[PlanStep]) -> tuple[str, ...]:
    """Ids of the steps that nothing else needs."""
    needed = {name for step in steps for name in step.inputs}
    return tuple(step.id for step in steps if step.id not in needed)


def adopt(steps: Sequence[PlanStep], notes: tuple[PlanNote, ...], version: int) -> Plan:
    """The plan to run: with exactly one final step, made here when the draft ends in several."""
    ends = sinks(steps)
    if len(ends) > 1:
        taken = {step.id for step in steps}
        name = next(n for n in (COMPOSE_ID, *(f"{COMPOSE_ID}_{i}" for i in range(100))) if n not in taken)
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
