"""A confirmed deadlock in words, and the message that breaks it. Pure.

In: the trip that the watch makes of it. Out: the trip as people read it; `WaitRefused` for the victim, whose task and
step the wait's name holds.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from bulkhead.health.deadlock.evidence import SuspectedDeadlock
from bulkhead.health.findings import HealthFinding
from bulkhead.health.sources.journal_waits import party_label, step_of, wait_of
from bulkhead_contracts import bounds
from bulkhead_contracts.agent import WaitRefused

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_TOLD = 12
"""Parties of a circle that are told by name."""
HINT = (
    "give back with release_lease what you hold and others wait for; answer who asks you; then ask again, for several "
    "resources in the same order as everybody else; or go on without it, and say so in the answer"
)
FOR_PEOPLE = (
    "nothing has to be done: the wait of the victim was refused, and its agent told; `bulkhead timeline` shows what it "
    "did then. If it comes again, let the steps ask in one order, or let one of them do both"
)


def describe_trip(trip: HealthFinding) -> HealthFinding:
    """The trip of a deadlock with names as people know them."""
    cycle = _as_texts(trip.facts["cycle"])
    victim = party_label(str(trip.facts["victim"]))
    description = (
        f"{cycle_in_words(cycle)}: nobody of them can go on. The wait of {victim} was refused, which has spent least"
    )
    return replace(trip, what=description, hint=FOR_PEOPLE, agents=tuple(party_label(agent) for agent in trip.agents))


def circle_fields(trip: HealthFinding) -> dict[str, Any]:
    """Fields of a fact beside its words: where its evidence stands; of a deadlock its parties, and who gave way."""
    if trip.detector != "deadlock":
        tasks = _as_texts(trip.facts.get("tasks", ()))
        return {"tasks": tuple(tasks)} if len(tasks) == len(trip.evidence) else {}
    cycle, waits = _as_texts(trip.facts["cycle"]), _as_texts(trip.facts["waits"])
    return {
        "cycle": tuple(party_label(party)[: bounds.MAX_SUMMARY_CHARS] for party in cycle[: bounds.MAX_TRIP_AGENTS]),
        "victim": party_label(str(trip.facts["victim"]))[: bounds.MAX_SUMMARY_CHARS] if trip.facts["refuse"] else "",
        # Of a longer chain the evidence is cut in its middle.
        "tasks": tuple(map(_task_of_wait, waits)) if len(waits) == len(trip.evidence) else (),
    }


def _task_of_wait(wait: str) -> str:
    """The task in whose messages a wait was opened. One for a resource is asked of the resource, in its own book."""
    kind, _, path = wait.partition("/")
    task = path.split("/")[1] if path.count("/") >= 2 and kind != "want" else ""
    return task if _TOKEN.fullmatch(task) else ""


def build_refusal(trip: HealthFinding) -> tuple[str, str, WaitRefused] | None:
    """Tenant and task of the victim, and what it is told; None when nothing in the circle can be refused."""
    victim_wait = wait_of(str(trip.facts["refuse"]))
    if victim_wait is None:
        return None
    tenant, task, wait_id = victim_wait
    step, cycle = step_of(str(trip.facts["victim"])), _as_texts(trip.facts["cycle"])
    if not all(_TOKEN.fullmatch(token) for token in (tenant, task, wait_id, step)):
        return None  # Whoever said such a name was not understood: there is nobody to refuse anything to.
    reason = f"{cycle_in_words(cycle)}: nobody of them can go on. Your wait was refused, so that the others can"
    reason = reason[: bounds.MAX_REASON_CHARS]
    parties = tuple(party_label(name)[: bounds.MAX_SUMMARY_CHARS] for name in cycle[: bounds.MAX_TRIP_AGENTS])
    body = WaitRefused(trip=trip.id, wait_id=wait_id, step_id=step, cycle=parties, reason=reason, hint=HINT)
    return tenant, task, body


def with_refused_victim(suspected: SuspectedDeadlock, subject: str, body: bytes) -> SuspectedDeadlock:
    """A suspicion with the victim whose wait this message, which confirmed it, has refused: there is one, whatever is
    known of the others by now."""
    try:
        wait_id = WaitRefused.model_validate_json(body).wait_id
    except ValueError:
        return suspected
    place = (*subject.split(".")[4:6], wait_id)
    wait = next((candidate for candidate in suspected.waits if wait_of(candidate.key) == place), None)
    return suspected if wait is None else replace(suspected, victim=wait.waiter, refused_wait=wait.key)


def cycle_in_words(cycle: Sequence[str]) -> str:
    """One round: `t1/a waits for crm:account:42, which is held by t2/b, which waits for ...`."""
    names = [*cycle[:MAX_TOLD], cycle[0]]
    text = party_label(names[0])
    for position, (waiter, target) in enumerate(pairwise(names)):
        does = "is held by" if waiter.startswith("lease:") else "waits for"
        text += f"{', which' if position else ''} {does} {party_label(target)}"
    return text


def _as_texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else []
