"""What the watcher tells is true, told once, and has its consequence; who only works is not stopped.

In: a Record. Out: complaints.
"""

import json
from collections.abc import Iterator
from typing import Any

from tests.simulation.laws.reading import body, is_calm, of, said, task_of, wants, wishes
from tests.simulation.laws.record import Record

from ..scenario import Wish

STOPPED = {"loop": "loop_stopped", "chatter": "chatter_stopped"}
"""Detectors that end a task, and the code that it ends with."""
SHARED = ("deadlock", "breaker")
"""Detectors whose evidence is of several tasks."""


def complain(record: Record) -> Iterator[str]:
    """See the module."""
    trips: dict[str, tuple[str, dict[str, Any]]] = {}
    for one in of(record, "INBOX_JOURNAL", "mesh.budget.tripped"):
        fact, task = body(one), task_of(one.subject)
        if trips.setdefault(fact["trip"], (task, fact)) != (task, fact):
            yield f"trip {fact['trip']} was told twice, differently: {trips[fact['trip']][1]} and {fact}"
    if trips and not record.scenario.watched:
        yield "somebody watched though nobody was to"
    yield from _consequences(record, trips)
    yield from _evidence(record, trips)
    yield from _justice(record, trips)


def _consequences(record: Record, trips: dict[str, tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """A fact that says that a task was halted has the halt beside it, and no halt lacks its fact. The planner, who is
    told, halts what it ends as well: that comes later, and only if it hears of it."""
    halted = {
        task_of(one.subject)
        for one in record.halts
        if one.subject.startswith("$KV.CONTROL.task.")
        and body(one)["by"] == "budget"
        and body(one)["code"] in STOPPED.values()
    }
    told = said(record, "INBOX_PLANNER", "mesh.budget.task_halted")
    for task, fact in trips.values():
        if fact["halted"] and (task not in halted or task not in told):
            yield f"{task}: the trip {fact['detector']} says that it was halted, and it was not"
    for task, found in told.items():
        code = body(found[0])["code"]
        known = {STOPPED.get(fact["detector"].partition(".")[0]) for of_task, fact in trips.values() if of_task == task}
        if code in STOPPED.values() and code not in known and record.idle:
            yield f"{task} was halted as {code}, and no trip tells why"


def _evidence(record: Record, trips: dict[str, tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Every message that a trip names was said, and of that very task where it is about one alone."""
    if not trips:
        return
    ids: dict[str, set[str]] = {}
    for saying in record.sayings:
        if name := saying.headers.get("ce-id"):
            ids.setdefault(task_of(saying.subject), set()).add(name)
    everything = {name for names in ids.values() for name in names}
    for task, fact in trips.values():
        known = everything if fact["detector"].startswith(SHARED) else ids.get(task, set())
        if strange := [one for one in fact["evidence"] if one not in known]:
            yield f"{task}: the trip {fact['detector']} names messages that nobody said: {strange[:3]}"


def _justice(record: Record, trips: dict[str, tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Stopped is who loops, and nobody else; when nothing goes wrong nobody else is told to stall."""
    found: dict[str, list[dict[str, Any]]] = {}
    for task, fact in trips.values():
        found.setdefault(task, []).append(fact)
    ends = {task: body(each[0]) for task, each in said(record, "INBOX_GATEWAY", "mesh.task.ended").items()}
    for wish, task in wishes(record):
        mine = found.get(task, [])
        if not _loops(wish):
            for fact in mine:
                if fact["halted"] and not _hopeless(wish):
                    yield f"{wish.name} only works, and was stopped by {fact['detector']}: {fact['what']}"
                if fact["detector"] == "stall" and is_calm(record):
                    yield f"{wish.name} was told to stall though nothing went wrong: {fact['what']}"
        elif record.scenario.watched and is_calm(record) and task in ends:
            end = ends[task]
            failure = end["failure"] or {}
            code, why = failure.get("code"), failure.get("message", "")
            # A call that the halt cuts off may tell the planner sooner than the watch does: in the same words.
            told = code == "loop_stopped" or (code == "halted" and any(one["what"] in why for one in mine))
            if end["status"] != "halted" or not told:
                yield f"{wish.name} loops, and ended as {end['status']} ({code}: {why})"


def _loops(wish: Wish) -> bool:
    return any("loop" in one for one in wants(wish))


def _hopeless(wish: Wish) -> bool:
    """Rejected again and again it says the same again and again, which is a loop as well."""
    texts = json.dumps([one.instruction for one in wish.plan.steps]) if wish.plan else wish.objective
    return '"reject": 9' in texts.replace("\\", "") or wish.fork is not None
