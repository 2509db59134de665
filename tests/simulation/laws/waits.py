"""Leases and waits: one holder at a time, in the order of asking; a wait is refused only in a circle that really stood.

In: a Record. Out: complaints. All is told by what the planner's inbox caused: times of storing say nothing of order.
"""

from collections.abc import Iterator
from typing import Any

from bulkhead.bus.port import StoredMessage
from tests.simulation.laws.reading import body, is_stray, of, said, task_of
from tests.simulation.laws.record import Record

ANSWERS = ("mesh.lease.granted", "mesh.lease.refused", "mesh.lease.ended", "mesh.peer.answer_given")
LATE_MS = 8_000
"""The journal lags by three seconds at most, the watcher looks each second, and is put off when Redis fails."""


def complain(record: Record) -> Iterator[str]:
    """See the module."""
    yield from _leases(record)
    yield from _refusals(record)


def _leases(record: Record) -> Iterator[str]:
    """For each resource: tokens grow, the one before is over when the next is granted, who asked first is first."""
    places = {one.headers.get("ce-id", ""): one.sequence for one in record.stored("INBOX_PLANNER")}

    def place(one: StoredMessage) -> int:
        return places.get(one.headers.get("ce-causeid", ""), 0)

    granted: dict[str, dict[int, tuple[str, int]]] = {}
    over: dict[str, int] = {}
    asked: dict[str, int] = {}
    withdrawn: set[str] = set()
    for one in of(record, "INBOX_PLANNER", "mesh.lease.requested"):
        asked.setdefault(body(one)["lease_id"], one.sequence)
    for one in of(record, "INBOX_PLANNER", "mesh.lease.release_requested"):
        withdrawn.add(body(one)["lease_id"])
    for one in of(record, "INBOX_WORKER", "mesh.lease.ended"):
        lease = body(one)["lease_id"]
        over[lease] = min(over.get(lease, place(one)), place(one))
    for one in of(record, "INBOX_WORKER", "mesh.lease.granted"):
        fact, tenant = body(one), one.subject.split(".")[4]
        holders = granted.setdefault(f"{tenant} {fact['resource']}", {})
        first = holders.setdefault(fact["fencing_token"], (fact["lease_id"], place(one)))
        if first[0] != fact["lease_id"]:
            yield f"{fact['resource']}: two leases have the token {fact['fencing_token']}"
    for resource, holders in granted.items():
        yield from _one_at_a_time(resource, holders, over)
        order = [holders[token][0] for token in sorted(holders)]
        ranks = [asked[lease] for lease in order if lease in asked and lease not in withdrawn - set(over)]
        if ranks != sorted(ranks):
            yield f"{resource} was granted in another order than it was asked for: {ranks}"


def _one_at_a_time(resource: str, holders: dict[int, tuple[str, int]], over: dict[str, int]) -> Iterator[str]:
    before: tuple[int, str] | None = None
    for token, (lease, at) in sorted(holders.items()):
        if before is not None and before[1] != lease:
            ended = over.get(before[1])
            if ended is None or ended > at:
                yield f"{resource}: token {token} was granted while token {before[0]} still held it"
        before = (token, lease)


def _refusals(record: Record) -> Iterator[str]:
    """Who is refused waits, as the trip says; what was answered long before was no circle any more."""
    trips = {body(one)["trip"]: body(one) for one in of(record, "INBOX_JOURNAL", "mesh.budget.tripped")}
    asks = _asks(record)
    answered: dict[str, int] = {}
    for task, found in said(record, "INBOX_WORKER", *ANSWERS).items():
        for one in found:
            fact = body(one)
            name = fact.get("lease_id") or fact.get("ask_id")
            answered.setdefault(f"{task} {name}", one.time_unix_ms)
    for one in (
        refusal for found in said(record, "INBOX_WORKER", "mesh.agent.wait_refused").values() for refusal in found
    ):
        fact, task = body(one), task_of(one.subject)
        trip = trips.get(fact["trip"])
        if trip is None:
            if record.idle:
                yield f"{task}: the wait {fact['wait_id']} was refused, and no trip tells why"
            continue
        if (task, fact["wait_id"]) not in asks:
            yield f"{task}: a wait was refused that nobody has asked for: {fact['wait_id']}"
        at_ms = answered.get(f"{task} {fact['wait_id']}")
        if at_ms is not None and at_ms < one.time_unix_ms - LATE_MS:
            late_ms = one.time_unix_ms - at_ms
            yield f"{task}: the wait {fact['wait_id']} was refused {late_ms} ms after its answer"


def _asks(record: Record) -> set[tuple[str, str]]:
    """Task and name of every lease or ask that anybody wanted."""
    found: set[tuple[str, str]] = set()
    for one in of(record, "INBOX_PLANNER", "mesh.lease.requested", "mesh.peer.answer_requested"):
        fact: dict[str, Any] = body(one)
        if not is_stray(one):
            found.add((fact.get("task") or task_of(one.subject), fact.get("lease_id") or fact["ask_id"]))
    return found
