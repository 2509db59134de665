"""A plan by splitting the objective. Enters: the planner's prompt. Leaves: the plan as data.

Statements are facts, which every step is given; questions and orders become steps.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from bulkhead_infra.offline_model.language.quantities import find_dates, find_money
from bulkhead_infra.offline_model.language.questions import CHORE, LIGHT
from bulkhead_infra.offline_model.language.text import overlap, split_sentences, stems, strip_list_sign
from bulkhead_infra.offline_model.parts import Prompt
from bulkhead_infra.offline_model.roles.calling import places_named

STEPS_MAX = 12
TASKS_MAX = 100
TASKS_BYTES_MAX = 6_000
FACTS_CHARS_MAX = 4_000
TASK_CHARS_MAX = 600
PLAN_BYTES_MAX = 9_000  # of all instructions: a plan must fit its reader's output limit
ROLE_FITS_FROM = 0.5  # of the words of a role's description that a task holds, too
ORDER = re.compile(
    r"^(?:please |kindly |first(?:ly)?,? |second(?:ly)?,? |third(?:ly)?,? |next,? |then,? |also,? |"
    r"after(?:wards| that),? |finally,? |lastly,? |and (?:then )?|"
    r"in the (?:final|last) (?:answer|step),? |using [^,]{0,200}, |from [^,]{0,200} above,? "
    r"|based on [^,]{0,200}, |with (?:this|these|that|those)[^,]{0,200}, )*"
    r"(find|look|check|determine|work|compute|calculate|answer|state|list|name|tell|explain|describe|compare|summari[sz]e|"
    r"give|decide|say|show|write|report|identify|use|call|fetch|get|search|read|collect|draft|compose|conclude|"
    r"recommend|estimate|count|add|subtract|multiply|increment|verify|confirm|review|plan|prepare|quote|cite|extract|"
    r"figure|establish|gather|outline|suggest|translate|convert|open|run|apply|total|sum|combine|let)\b",
    re.I,
)
BUILDS_ON = re.compile(
    r"(?i)^(?:using|based on|from|with)\b.{0,200}?\b(?:compute|calculate|work out|determine|answer|write|decide|tell|"
    r"give|find|summari[sz]e|compose|state)\b"
)
ASKS = re.compile(
    r"(?i)^(?:and |but |so |then |also )?(what|which|who|whom|whose|when|where|why|how|is|are|was|were|does|do|did|"
    r"can|could|may|must|should|will|would|has|have)\b"
)
ON_RESULTS = (
    r"\b(results?|findings?) (?:of|from|above)|\busing (?:the|these|those|this|that|its|their) |\bfrom (?:the above|"
    r"these|this|that|those|step)|\b(?:the )?above\b|\bbased on\b|\bthen (?:compute|calculate|answer|use)\b|"
    r"\b(?:earlier|previous|preceding) (?:steps?|results?|answers?)\b|^(?:with|after) (?:this|these|that)"
)
RESULTS = re.compile(ON_RESULTS, re.I)
LATER = re.compile(rf"{ON_RESULTS}|^then\b", re.I)
FINAL = re.compile(
    r"(?i)^(?:finally|lastly|in conclusion|to conclude|in the (?:final|last))\b|\bfinal answer\b|"
    r"^(?:so |then |and |now )?,? ?(?:summari[sz]e|conclude|compose|combine)\b"
)
DAYS = re.compile(
    r"\b(?:how many|number of) (?:\w+ )?(?:days|weeks)\b(?! of\b)(?=.{0,200}\b(?:between|before|after|from|to|until|"
    r"till|since|lie|pass|passed)\b)|\bdays? (?:between|from|until|since) |\bdays? (?:after|before) \d|"
    r"\b(?:what|which) date\b(?=.{0,80}\b(?:days?|weeks?) (?:after|before|from|later)\b)",
    re.I | re.S,
)
AMOUNT = re.compile(
    r"(?i)\b(compute|calculate|multiply|subtract|add|total|percentage of|percent of)\b|\d ?% of\b|"
    r"\bhow (?:much|many)\b|\b(?:what|which) (?:amount|sum|price)\b|\b(?:amount|sum) (?:refunded|due|payable|owed)\b|"
    r"\b(?:costs?|price|pay|charged?|together|difference|in total|the most)\b|"
    r"\bfor (?:an?|\d+|two|three|four|six|twelve) (?:day|night|week|month|year)s?\b|\d\s*[-+*/×]\s*\d"
)
FIND = re.compile(r"^(?:please )?(find|look|check|identify|list|search|read|collect|gather|whether)\b", re.I)
ACCEPTANCE = re.compile(r"\n?\s*Acceptance:.*\Z", re.S)
LEFT_OUT = "Left out of the plan for want of room:"
FORM = stems(
    "answer state give quote cite citing citation source document say reply write short brief briefly full sentence "
    "figure amount sum date name number word reason explain list point bullet please"
)
AND_ASKS = re.compile(
    r",? and (?=(?:(?:by|until|from|since|at|in|on|for|to) )?(?:what|which|who|whom|whose|when|where|why|how)\b)", re.I
)
REFERS = re.compile(r"\b(?:it|its|they|them|their|this|that|these|those|he|she|him|her|his|there|one|ones)\b", re.I)
WHOSE_WORDS = re.compile(r"^\[[^\]]*\]")  # before a description that is somebody else's
COMPOSE = "Compose the final answer to the objective from the results of the earlier steps"


@dataclass
class Draft:
    """A step before its links and texts are complete."""

    task: str
    needs_all: bool = False
    final: bool = False
    dated: bool = False
    merged: int = 1
    inputs: list[str] = field(default_factory=list)


def split_objective(objective: str) -> tuple[list[str], list[str]]:
    """An objective's facts and tasks, in order."""
    facts: list[str] = []
    tasks: list[str] = []
    for raw in split_sentences(objective):
        numbered = bool(re.match(r"\s*(?:\d{1,2}[.)]|[-*•])\s+", raw))
        for piece in _clauses(strip_list_sign(raw)):
            asks = piece.endswith("?") and not piece.endswith(":?")
            is_task = (
                asks
                or ORDER.match(piece)
                or BUILDS_ON.match(piece)
                or (ASKS.match(piece) and numbered)
                or FINAL.search(piece)
                or (numbered and LATER.search(piece))
            )
            (tasks if is_task else facts).append(piece)
    subjects = [task for task in tasks if not is_form(task)]
    return facts, subjects or tasks


def is_form(task: str) -> bool:
    """Whether an order is only about the form of the answer (`state the amount and cite the document`)."""
    if task.endswith("?") or FINAL.search(task) or LATER.search(task) or re.search(r"\d", task):
        return False
    return not stems(task) - FORM


def questions_of(task: str) -> list[str]:
    """The questions of a step's task, each to be answered by itself."""
    return list(dict.fromkeys(split_objective(task)[1])) or [task]


def task_and_facts(step: str) -> tuple[str, str]:
    """A step's own task, without the title above it and the criterion below, and the facts given with it."""
    title, _, rest = ACCEPTANCE.sub("", step).partition("\n")
    whole = rest if rest.strip() and not rest.lstrip().startswith("Given:") else f"{title}\n{rest}"
    task, _, facts = whole.partition("\nGiven:")
    return task.strip(), facts.strip()


def _two_questions(sentence: str) -> list[str]:
    """A question that asks two things, each with a subject of its own, as two; [] for any other sentence."""
    pieces = [piece.strip(" ,") for piece in AND_ASKS.split(sentence.rstrip("? "))] if sentence.endswith("?") else []
    if len(pieces) < 2 or not ASKS.match(pieces[0]):
        return []
    # In `Who does it and by when?` the second half says little alone: it stays with the first.
    whole = all(len(piece.split()) > 3 and stems(piece) - LIGHT - CHORE for piece in pieces)
    if not whole or any(REFERS.search(piece) for piece in pieces[1:]):
        return []
    return [f"{piece[0].upper()}{piece[1:]}?" for piece in pieces]


def _clauses(sentence: str) -> list[str]:
    """A sentence cut where it orders or asks a second thing: `..., and then compute ...`, `... and how much ...?`."""
    asked = _two_questions(sentence)
    if asked:
        return asked
    pieces = re.split(r"(?:,|;)?\s+(?:and then|, then|; then|and finally|and afterwards)\s+", sentence)
    if len(pieces) > 1 and all(ORDER.match(piece) or index == 0 for index, piece in enumerate(pieces)):
        head = pieces[0]
        if ORDER.match(head) or head.endswith("?"):
            return [head, *(f"Then {piece[0].lower()}{piece[1:]}" for piece in pieces[1:])]
    return [sentence]


def make_plan(prompt: Prompt) -> dict[str, Any]:
    """The plan `{"steps": [...]}` of the objective in the prompt, with the tools that it grants."""
    objective = prompt.text("objective") or prompt.loose or prompt.text("context")
    facts, tasks = split_objective(objective)
    if not tasks:
        tasks, facts = [" ".join(facts)[:TASK_CHARS_MAX] or "Answer the objective"], []
    granted, roles = granted_tools(prompt.text("tools")), told_roles(prompt)
    tasks = list(dict.fromkeys(tasks))
    room = _room_for(tasks)
    drafts = _merged(_drafts(tasks[:room], facts))
    if room < len(tasks):
        facts = [f"{LEFT_OUT} {len(tasks) - room} of {len(tasks)} tasks, from this on: {tasks[room][:120]}", *facts]
    _link(drafts)
    known = _fitted(" ".join(" ".join(facts).split()), drafts)
    steps = [_step(index, draft, known, granted) | _role(draft, roles) for index, draft in enumerate(drafts, 1)]
    return {"steps": steps}


def _room_for(tasks: Sequence[str]) -> int:
    """Count of tasks that a plan can hold; at least one."""
    sizes = accumulate(len(task[:TASK_CHARS_MAX].encode()) for task in tasks[:TASKS_MAX])
    return max(1, sum(size <= TASKS_BYTES_MAX for size in sizes))


def _fitted(facts: str, drafts: Sequence[Draft]) -> str:
    """The facts, cut so that all steps together stay within the plan's bound."""
    tasks = sum(len(draft.task[:TASK_CHARS_MAX].encode()) for draft in drafts)
    room = min(FACTS_CHARS_MAX, max(0, PLAN_BYTES_MAX - tasks) // max(1, len(drafts)))
    return facts.encode()[:room].decode(errors="ignore")


def granted_tools(text: str) -> list[str]:
    """Tool names of the `tools` part, one per line `name: description (effect)`."""
    matches = (re.match(r"\s*[-*]?\s*`?([A-Za-z_][\w.-]*)`?\s*:", line) for line in text.splitlines())
    return [match.group(1) for match in matches if match]


def told_roles(prompt: Prompt) -> dict[str, str]:
    """Descriptions of the roles in the part titled `roles`, one per line `name: description`."""
    told = (part.text for part in prompt.of("context") if part.attributes.get("title") == "roles")
    rows = (line.partition(":") for text in told for line in text.splitlines())
    return {name.strip(): description.strip() for name, _, description in rows}


def _role(draft: Draft, roles: Mapping[str, str]) -> dict[str, str]:
    """The role whose description fits a task best, as a field of its step; {} where none fits. A name alone never
    does, and composing from results is nobody else's."""
    if draft.task == COMPOSE:
        return {}
    held = stems(draft.task)
    fits = {name: overlap(stems(WHOSE_WORDS.sub("", told)), held) for name, told in roles.items()}
    best = max(fits, key=fits.__getitem__, default="")
    return {"role": best} if best and fits[best] >= ROLE_FITS_FROM else {}


def _drafts(tasks: Sequence[str], facts: Sequence[str]) -> list[Draft]:
    drafts = [Draft(task, bool(LATER.search(task)), bool(FINAL.search(task))) for task in tasks]
    if len(drafts) == 1 and AMOUNT.search(drafts[0].task) and find_money(" ".join([*facts, drafts[0].task])):
        return _amount_drafts(drafts[0].task, [*facts, drafts[0].task])
    return drafts


def _amount_drafts(task: str, facts: Sequence[str]) -> list[Draft]:
    """A single question for an amount in three steps: rules, exceptions, the calculation."""
    question = task.rstrip("?.")
    # Which dates count depends on the rules found: the step that calculates may ask for the span.
    dated = len(find_dates(" ".join(facts))) >= 2
    return [
        Draft(f"Find the rules, percentages, fees and limits that decide this question: {question}"),
        Draft(f"Find whether an exception or waiver applies in this question: {question}"),
        Draft(f"Using the results of the earlier steps, calculate: {question}", needs_all=True, dated=dated),
    ]


def _merged(drafts: list[Draft]) -> list[Draft]:
    """At most `STEPS_MAX` steps, one of them left for composing: neighbouring tasks share a step."""
    room = STEPS_MAX - 1
    while len(drafts) > room:
        shortest = min(range(len(drafts) - 1), key=lambda i: len(drafts[i].task) + len(drafts[i + 1].task))
        left, right = drafts[shortest], drafts[shortest + 1]
        joined = f"{left.task.rstrip('.')}{'' if left.task.endswith('?') else '.'} {right.task}"
        both = Draft(joined, left.needs_all or right.needs_all, right.final, merged=left.merged + right.merged)
        drafts[shortest : shortest + 2] = [both]
    return drafts


def _link(drafts: list[Draft]) -> None:
    """Inputs of every step, and a composing step where several would be last."""
    if len(drafts) > 1:
        for index, draft in enumerate(drafts):
            if index and (draft.needs_all or draft.final):
                draft.inputs = [f"s{i}" for i in range(1, index + 1)]
    used = {step for draft in drafts for step in draft.inputs}
    sinks = [index for index in range(len(drafts)) if f"s{index + 1}" not in used]
    last = drafts[-1]
    whole = last.final or (last.needs_all and bool(RESULTS.search(last.task)) and not DAYS.search(last.task))
    if len(sinks) > 1 or (len(drafts) > 1 and not whole):
        inputs = [f"s{i}" for i in range(1, len(drafts) + 1)]
        drafts.append(Draft(COMPOSE, needs_all=True, final=True, inputs=inputs))


def _step(index: int, draft: Draft, known: str, granted: Sequence[str]) -> dict[str, Any]:
    task = draft.task[: TASK_CHARS_MAX * draft.merged].strip()
    title = " ".join(task.split()[:9])
    if draft.merged > 1:
        title = f"{draft.merged} tasks in one step: {title}"
    given = f"\nGiven: {known}" if known else ""
    return {
        "id": f"s{index}",
        "title": title[:80] or f"Step {index}",
        "instruction": f"{task}{given}",
        "tools": tools_for(draft, granted),
        "inputs": draft.inputs,
        "acceptance": acceptance_for(draft),
    }


def tools_for(draft: Draft, granted: Sequence[str]) -> list[str]:
    """The granted tools that a task can use, or those that it names."""
    wanted: set[str] = {name for name in granted if places_named(name, draft.task)}
    if not wanted:
        composes = draft.final and bool(draft.inputs)
        if DAYS.search(draft.task):
            wanted |= {"date_difference", "date_add"}
        elif AMOUNT.search(draft.task) and not composes and not FIND.search(draft.task):
            wanted |= {"calculate"}
        # Every step may search, but for those that only work on the results of others.
        if not draft.inputs or not (composes or (wanted and RESULTS.search(draft.task))):
            wanted |= {"search_documents"}
        if re.search(r"https?://", draft.task):
            wanted |= {"http_get"}
    if draft.dated:
        wanted |= {"date_difference"}
    return [name for name in granted if name in wanted]


def acceptance_for(draft: Draft) -> str:
    """A criterion by which a checker can judge the result."""
    if DAYS.search(draft.task) and (draft.inputs or find_dates(draft.task)):
        return "Gives the number of days or the date asked for, worked out by a tool and cited."
    if draft.final and draft.inputs:
        return "Answers the question from the results of the earlier steps, each statement cited."
    if draft.inputs and AMOUNT.search(draft.task) and not FIND.search(draft.task):
        return "Gives the amount asked for with its calculation, and cites what every number rests on."
    return "Gives what the documents say on this with citations, or says plainly that they hold no answer."
