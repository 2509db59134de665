"""Stopped is stopped: after a halt stands, nothing goes out any more, and what speaks is cut; a cancel is heeded.

In: a Record. Out: complaints.
"""

from collections.abc import Collection, Iterator, Sequence

from bulkhead.bus.port import StoredMessage
from tests.simulation.laws.reading import body, said, task_of, wishes
from tests.simulation.laws.record import Record
from tests.simulation.mesh.chaos import PAUSES

AT_ONCE_S = 3.0
"""When nothing is lost or late on the way: a halt is heard live, or at the next look (2 s)."""
AT_LAST_S = 30.0
"""When much is lost and late: cut off (12 s), then several looks that get no answer (5 s each)."""
LATE = frozenset(
    {
        "late",
        "lose_live",
        "lose_read",
        "lose_answer",
        "lose_request",
        "cut_off",
        "stale_read",
        "crash_before",
        "crash_after",
        "redis_fails",
        "redis_forgets",
        "redis_fails_over",
        "redis_late",
        "outage",
        "clock",
        *PAUSES,
    }
)


def complain(record: Record) -> Iterator[str]:
    """See the module."""
    yield from _halts(record)
    yield from _cancels(record)


def pauses_of(record: Record, scope: str) -> Iterator[tuple[str, float, float]]:
    """Which task or tenant was halted from when to when."""
    since: dict[str, float] = {}
    for entry in record.halts:
        if not entry.subject.startswith(f"$KV.CONTROL.{scope}."):
            continue
        halt, name = body(entry), task_of(entry.subject)
        at_s = (entry.time_unix_ms - record.scenario.start_ms) / 1000
        if halt["active"] and (halt["pauses"] or scope != "task"):  # What ends a task: see _halts.
            since.setdefault(name, at_s)
        elif (began := since.pop(name, None)) is not None:
            yield name, began, at_s
    yield from ((name, began, record.ended_at_s) for name, began in since.items())


def calls_in_a_pause(
    record: Record, names: Collection[str], since_s: float, until_s: float, grace_s: float
) -> Iterator[str]:
    """Calls of these wishes that began while they were held back, and models that went on speaking to them."""
    for call in (*record.model.made, *record.counter.made):
        if call.whose not in names:
            continue
        if since_s + grace_s < call.since_s < until_s:
            yield f"{call.whose} called the {call.what} at {call.since_s:.1f} s"
        speaks_s = record.ended_at_s if call.until_s is None else call.until_s
        if call.what == "model" and call.since_s < since_s and since_s + grace_s < min(speaks_s, until_s):
            yield f"a model spoke to {call.whose} until {speaks_s:.1f} s"


def _halts(record: Record) -> Iterator[str]:
    """After the first halt of a task that stands: no request begins, no model goes on speaking."""
    grace_s = AT_LAST_S if any(fault.kind in LATE for fault in record.chaos.fired) else AT_ONCE_S
    halted: dict[str, float] = {}
    for one in record.halts:
        # What only pauses goes on again: situations/wishes/topups.py.
        if one.subject.startswith("$KV.CONTROL.task.") and body(one)["active"] and not body(one)["pauses"]:
            at_s = (one.time_unix_ms - record.scenario.start_ms) / 1000
            halted.setdefault(task_of(one.subject), at_s)
    # A step of a fork may send again what the forked one sent, under its key and with its words.
    shared = {wish.fork.of for wish in record.scenario.wishes if wish.fork is not None}
    for wish, task in wishes(record):
        if task not in halted:
            continue
        until_s = halted[task] + grace_s
        for call in (*record.model.made, *record.counter.made):
            if call.whose != wish.name or (call.what == "counter" and wish.name in shared):
                continue
            if call.since_s > until_s:
                yield (
                    f"{wish.name} was halted at {halted[task]:.1f} s; a request to the {call.what} began at "
                    f"{call.since_s:.1f} s"
                )
            elif call.what == "model" and (call.until_s is None or call.until_s > until_s):
                end = "the end" if call.until_s is None else f"{call.until_s:.1f} s"
                yield f"{wish.name} was halted at {halted[task]:.1f} s; a model spoke {call.since_s:.1f} s - {end}"


def _cancels(record: Record) -> Iterator[str]:
    """Who was told that a cancel was taken sees the task end by it, or end as it already had."""
    ends = said(record, "INBOX_GATEWAY", "mesh.task.ended")
    refused = said(record, "INBOX_GATEWAY", "mesh.task.rejected")
    taken = said(record, "INBOX_GATEWAY", "mesh.task.cancel_requested")
    passed = said(record, "INBOX_PLANNER", "mesh.task.cancel_requested")
    accepted = said(record, "INBOX_GATEWAY", "mesh.task.accepted")
    stood_still = any(fault.kind in PAUSES for fault in record.chaos.fired)
    within_s = 2 * AT_LAST_S if stood_still else AT_LAST_S
    places = {
        (task_of(one.subject), one.headers.get("ce-id", "")): one.sequence for one in record.stored("INBOX_PLANNER")
    }
    for wish, task in wishes(record):
        if task in refused or task not in ends:
            continue
        end = ends[task][0]
        status = body(end)["status"]
        if end.headers.get("ce-source") == "gateway":
            # It never had a place to run: the gateway itself ends it, and the planner never hears of it.
            if task in passed or (status == "cancelled" and task not in taken):
                yield f"{wish.name} ended while it waited as {status}, and nobody had asked for that"
            continue
        if task in passed and status != "cancelled":
            cause = places.get((task, end.headers.get("ce-causeid", "")), 0)
            if cause >= min(one.sequence for one in passed[task]):
                yield f"{wish.name} was cancelled, and ended as {status} by what came later"
        known = (*taken.get(task, ())[:1], *accepted.get(task, ())[:1])
        if task in taken and task not in passed and _before(known, end, within_s) and not wish.expects:
            yield f"{wish.name}: a cancel was taken before its end and never passed on; it ended as {status}"
        if status == "cancelled" and task not in passed:
            yield f"{wish.name} ended as cancelled, and nobody had asked for that"


def _before(known: Sequence[StoredMessage], end: StoredMessage, within_s: float) -> bool:
    """Long enough before the end that it was still to be passed on: to a planner that had the task by then."""
    return max(one.time_unix_ms for one in known) < end.time_unix_ms - int(within_s * 1000)
