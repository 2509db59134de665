"""A plan by splitting the objective. Enters: the planner's prompt. Leaves: the plan as data.

Statements are facts, which every step is given; questions and orders become steps.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from bulkhead_infra.offline_model.parts import Prompt
from bulkhead_infra.offline_model.refund_case import kind_of_task, read_case
from bulkhead_infra.offline_model.roles.calling import (
    CALCULATE,
    DIFFERENCE,
    SEARCH,
    days_call,
    find_expression,
    named_calls,
    named_places,
)
from bulkhead_infra.offline_model.text import overlap, split_sentences, stems

STEPS_MAX, TASKS_MAX, TASK_CHARS_MAX = 12, 100, 600
TASKS_CHARS_MAX, PLAN_CHARS_MAX = 6_000, 9_000  # a plan must fit its reader's output limit
ROLE_FITS_FROM = 0.5  # of the words of a role's description that a task holds, too
ORDER = re.compile(
    r"(?i)^(?:please |first,? |next,? |then,? |finally,? |in the final answer,? |using [^,]{0,200}, )*"
    r"(?:find|look|check|determine|work|compute|calculate|answer|state|list|name|tell|explain|describe|compare|give|"
    r"decide|say|show|write|report|identify|use|call|fetch|get|search|read|collect|count|draft|compose|conclude|"
    r"recommend|summari[sz]e|cite|quote|join|reply|move|plan|prepare)\b"
)
LATER = re.compile(
    r"(?i)^(?:then|finally|using the results|in the final answer)\b|\b(?:from|of) the results\b|\bfinal answer\b"
)
FINAL = re.compile(r"(?i)^(?:finally|then summari[sz]e)\b|\bfinal answer\b")
FORM = re.compile(r"(?i)^(?:answer|cite|quote|reply) (?:in|the|it|with|briefly)\b[^?\d]*$")
ACCEPTANCE = re.compile(r"\n?\s*Acceptance:.*\Z", re.S)
WHOSE_WORDS = re.compile(r"^\[[^\]]*\]")  # before a description that is somebody else's
TOOL_ROW = re.compile(r"(?m)^([A-Za-z_]\w*): .*\((read|write|read, sends out)\)(.*)$")
CHOOSES = re.compile(r"/(\w+) (\w+)!")
COMPOSE = "Compose the final answer to the objective from the results of the earlier steps"


def split_objective(objective: str) -> tuple[list[str], list[str]]:
    """An objective's facts and tasks, in order; an order about the answer's form is a task where nothing else is."""
    facts: list[str] = []
    tasks: list[str] = []
    for sentence in split_sentences(objective):
        (tasks if sentence.endswith("?") or ORDER.match(sentence) else facts).append(sentence)
    return facts, [task for task in tasks if not FORM.match(task)] or tasks


def task_and_facts(step: str) -> tuple[str, str]:
    """A step's own task, without the title above it and the criterion below, and the facts given with it."""
    title, _, rest = ACCEPTANCE.sub("", step).partition("\n")
    whole = rest if rest.strip() and not rest.lstrip().startswith("Given:") else f"{title}\n{rest}"
    task, _, facts = whole.partition("\nGiven:")
    return task.strip(), facts.strip()


def make_plan(prompt: Prompt, *, foresees: bool = False) -> dict[str, Any]:
    """The plan `{"steps": [...]}` of the objective in the prompt, with the tools that it grants. foresees: each step
    says which calls it may make."""
    facts, tasks = split_objective(prompt.objective)
    if not tasks:
        tasks, facts = [" ".join(facts) or "Answer the objective"], []
    tasks = [task[:TASK_CHARS_MAX] for task in dict.fromkeys(tasks)][:TASKS_MAX]
    while len(tasks) > 1 and sum(map(len, tasks)) > TASKS_CHARS_MAX:
        tasks.pop()
    size = -(-len(tasks) // (STEPS_MAX - 1))  # neighbours share a step where there are many; one step composes
    groups = [" ".join(tasks[at : at + size]) for at in range(0, len(tasks), size)]
    if len(groups) > 1 and not FINAL.search(groups[-1]):
        groups.append(COMPOSE)
    given = " ".join(facts)[: (PLAN_CHARS_MAX - sum(map(len, groups))) // len(groups)]
    return {"steps": [_make_step(index, group, given, prompt, foresees) for index, group in enumerate(groups, 1)]}


def _make_step(index: int, task: str, given: str, prompt: Prompt, foresees: bool) -> dict[str, Any]:
    offered = prompt.text("tools")
    granted = re.findall(r"(?m)^\s*[-*]?\s*`?([A-Za-z_][\w.-]*)`?\s*:", offered)
    inputs = [f"s{number}" for number in range(1, index)] if LATER.search(task) else []
    step: dict[str, Any] = {
        "id": f"s{index}",
        "title": " ".join(task.split()[:9])[:80] or f"Step {index}",
        "instruction": f"{task}\nGiven: {given}" if given else task,
        "tools": _tools_for(task, granted, bool(read_case(given)), bool(inputs and FINAL.search(task))),
        "inputs": inputs,
        "acceptance": "Gives what the task asks for, each statement cited, or says plainly that there is no answer.",
    }
    if foresees:
        step |= {"calls": _foreseen_calls(task, step["tools"], offered), "flows": []}
    texts = (part.text for part in prompt.of("context") if part.attributes.get("title") == "roles")
    rows = [line.partition(":") for text in texts for line in text.splitlines()]
    # A name alone never fits a task, and composing from results is nobody else's.
    fits = {name.strip(): overlap(stems(WHOSE_WORDS.sub("", text.strip())), stems(task)) for name, _, text in rows}
    best = max(fits, key=fits.__getitem__, default="")
    role = best if best and fits[best] >= ROLE_FITS_FROM and task != COMPOSE else "step"
    return step | {"role": role} if rows else step


def _foreseen_calls(task: str, tools: Sequence[str], offered: str) -> list[dict[str, Any]]:
    """The calls of writing and sending tools that a task names, with what it gives the arguments that choose."""
    rows = {name: row for name, effect, row in TOOL_ROW.findall(offered) if name in tools and effect != "read"}
    schemas = {
        name: {"properties": {key: {"type": kind} for key, kind in CHOOSES.findall(row)}} for name, row in rows.items()
    }
    named = [(call.name, json.loads(call.arguments)) for call in named_calls(task, schemas)]
    return [
        {
            "tool": name,
            "values": [_planned_value(key, value) for key, value in given.items()],
            "figures": [],
            "times": 1,
        }
        for name, given in named
    ]


def _planned_value(argument: str, value: object) -> dict[str, str]:
    return {"argument": f"/{argument}", "text": value if isinstance(value, str) else json.dumps(value)}


def _tools_for(text: str, granted: Sequence[str], in_case: bool, composes: bool) -> list[str]:
    """The granted tools that tasks name, or else those that they can use."""
    usable: set[str] = set()
    for task in split_objective(text)[1] or [text]:
        named = {name for name in granted if named_places(name, task)}
        kind = kind_of_task(task) if in_case else ""
        if named or composes:
            usable |= named
        elif (kind == "amount" or find_expression(task)) and CALCULATE in granted:
            usable.add(CALCULATE)
        elif (kind == "days" or days_call(task)) and DIFFERENCE in granted:
            usable.add(DIFFERENCE)
        else:
            usable.add(SEARCH)
    return [name for name in granted if name in usable]
