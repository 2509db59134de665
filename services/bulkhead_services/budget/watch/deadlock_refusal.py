"""A confirmed deadlock in words, and the message that breaks it. Pure.

In: the trip that the watch makes of it. Out: the trip as people read it; `WaitRefused` for the victim, whose task and
step the wait's name holds.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from bulkhead.health.deadlock.evidence import Suspected
from bulkhead.health.findings import Finding
from bulkhead.health.sources.journal_waits import shown, step_of, wait_of
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


def told(trip: Finding) -> Finding:
    """The trip of a deadlock with names as people know them."""
    cycle = _texts(trip.facts["cycle"])
    victim = shown(str(trip.facts["victim"]))
    what = f"{words(cycle)}: nobody of them can go on. The wait of {victim} was refused, which has spent least"
    return replace(trip, what=what, hint=FOR_PEOPLE, agents=tuple(shown(one) for one in trip.agents))


def circle(trip: Finding) -> dict[str, Any]:
    """What a fact says of a deadlock beside its words: its parties, who gave way, and where its evidence stands."""
    if trip.detector != "deadlock":
        return {}
    cycle, waits = _texts(trip.facts["cycle"]), _texts(trip.facts["waits"])
    return {
        "cycle": tuple(shown(one)[: bounds.MAX_SUMMARY_CHARS] for one in cycle[: bounds.MAX_TRIP_AGENTS]),
        "victim": shown(str(trip.facts["victim"]))[: bounds.MAX_SUMMARY_CHARS] if trip.facts["refuse"] else "",
        # Of a longer chain the evidence is cut in its middle.
        "tasks": tuple(map(_said_in, waits)) if len(waits) == len(trip.evidence) else (),
    }


def _said_in(wait: str) -> str:
    """The task in whose messages a wait was opened. One for a resource is asked of the resource, in its own book."""
    kind, _, rest = wait.partition("/")
    task = rest.split("/")[1] if rest.count("/") >= 2 and kind != "want" else ""
    return task if _TOKEN.fullmatch(task) else ""


def refusal(trip: Finding) -> tuple[str, str, WaitRefused] | None:
    """Tenant and task of the victim, and what it is told; None when nothing in the circle can be refused."""
    found = wait_of(str(trip.facts["refuse"]))
    if found is None:
        return None
    tenant, task, wait_id = found
    step, cycle = step_of(str(trip.facts["victim"])), _texts(trip.facts["cycle"])
    if not all(_TOKEN.fullmatch(one) for one in (tenant, task, wait_id, step)):
        return None  # Whoever said such a name was not understood: there is nobody to refuse anything to.
    reason = f"{words(cycle)}: nobody of them can go on. Your wait was refused, so that the others can"
    reason = reason[: bounds.MAX_REASON_CHARS]
    parties = tuple(shown(name)[: bounds.MAX_SUMMARY_CHARS] for name in cycle[: bounds.MAX_TRIP_AGENTS])
    told = WaitRefused(trip=trip.id, wait_id=wait_id, step_id=step, cycle=parties, reason=reason, hint=HINT)
    return tenant, task, told


def as_refused(suspected: Suspected, subject: str, body: bytes) -> Suspected:
    """A suspicion with the victim whose wait this message, which confirmed it, has refused: there is one, whatever is
    known of the others by now."""
    try:
        wait_id = WaitRefused.model_validate_json(body).wait_id
    except ValueError:
        return suspected
    place = (*subject.split(".")[-2:], wait_id)
    wait = next((one for one in suspected.waits if wait_of(one.key) == place), None)
    return suspected if wait is None else replace(suspected, victim=wait.waiter, refuse=wait.key)


def words(cycle: Sequence[str]) -> str:
    """One round: `t1/a waits for crm:account:42, which is held by t2/b, which waits for ...`."""
    names = [*cycle[:MAX_TOLD], cycle[0]]
    text = shown(names[0])
    for at, (one, other) in enumerate(pairwise(names)):
        does = "is held by" if one.startswith("lease:") else "waits for"
        text += f"{', which' if at else ''} {does} {shown(other)}"
    return text


def _texts(found: object) -> list[str]:
    return [str(one) for one in found] if isinstance(found, list | tuple) else []
