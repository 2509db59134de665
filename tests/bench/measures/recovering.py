"""kill -9 of the worker with 100 tasks in flight: how long they stand still, and what is done again.

In: a running rig. Out: recovery_s, and counts of steps by what stood in the planner's inbox at the kill.
"""

import asyncio
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import StoredMessage
from tests.bench.figures import Book
from tests.bench.rig import STARTED, Rig

TASKS, STEPS = 100, 60
STEPS_BEFORE_KILL = 300
MORE_KILLS = 5
ASSIGNED, FINISHED = "mesh.step.assigned.v", "mesh.step.finished.v"


@dataclass(frozen=True, slots=True)
class Pending:
    """The worker's durable at the kill: all up to `floor` is acked, `unacked` of what was handed out to `last` not."""

    floor: int
    last: int
    unacked: int


async def recovery(mesh: Rig, book: Book, scale: int) -> None:
    """The worst of some kills; counts over all of them. A kill that met nothing unacked interrupted nobody: it is done
    again, for it would flatter."""
    worst, reruns, again, first, kills = 0.0, 0, 0, 0, 0
    wanted = 3 if scale > 1 else 1
    for _ in range(wanted + MORE_KILLS):
        stood_s, names, killed_unix_ms, pending = await _kill(mesh)
        kills += bool(pending.unacked)
        worst = max(worst, stood_s)
        async with mesh.reader() as bus:
            reruns += await _recorded_twice(mesh, bus, names)
            recorded = await _recorded_unacked(bus, pending, killed_unix_ms)
        again, first = again + recorded, first + pending.unacked - recorded
        for name in names:
            del mesh.tasks[name]
        if kills == wanted:
            break
    assert kills == wanted, f"only {kills} of {wanted + MORE_KILLS} kills met an unacked message"
    book.add("recovery_s", worst)
    book.add("rerun_recorded_steps", reruns)
    book.add("redelivered_recorded_steps", again)
    book.add("redelivered_unrecorded_steps", first)


async def _kill(mesh: Rig) -> tuple[float, list[str], int, Pending]:
    """The longest that any task stood still, the tasks, and how things stood at the kill."""
    names = await asyncio.gather(*(mesh.submit(STEPS) for _ in range(TASKS)))
    while sum(len(mesh.tasks[name].at[STARTED]) for name in names) < STEPS_BEFORE_KILL:
        await asyncio.sleep(0.001)
    await mesh.stop_service("worker", kill=True)
    began, killed_unix_ms = time.perf_counter(), time.time_ns() // 1_000_000
    pending = await _pending(mesh)
    in_flight = [name for name in names if not mesh.tasks[name].ended.is_set()]
    assert len(in_flight) == TASKS, f"only {len(in_flight)} of {TASKS} tasks were in flight at the kill"
    await mesh.start_service("worker")
    await mesh.wait(names)
    stood = 0.0
    for name in in_flight:
        at = [began, *(t for t in mesh.tasks[name].at[STARTED] if t > began)]
        stood = max(stood, *(b - a for a, b in itertools.pairwise([*at, mesh.tasks[name].ended_at])))
    return stood, list(names), killed_unix_ms, pending


async def _pending(mesh: Rig) -> Pending:
    found = await mesh.jsz("streams=true&accounts=true&consumers=true")
    for account in found["account_details"]:
        for stream in account.get("stream_detail", ()):
            for one in stream.get("consumer_detail") or ():
                if one["name"] == "worker-0":
                    floor, last = one["ack_floor"]["stream_seq"], one["delivered"]["stream_seq"]
                    return Pending(floor, last, one["num_ack_pending"])
    raise AssertionError("the broker shows no durable worker-0")


async def _recorded_twice(mesh: Rig, bus: JetStreamBus, names: list[str]) -> int:
    """Steps whose work was done again after its result was recorded: a second result, or handed out again."""
    wanted, counted = set(names), Counter[tuple[str, str]]()
    for stored in await _all(bus, "INBOX_PLANNER", "mesh.worker.planner.>"):
        task = stored.task
        if task in wanted and stored.ce_type.startswith(FINISHED):
            counted[task, json.loads(stored.body)["step_id"]] += 1
    assert len(counted) == TASKS * STEPS, f"{len(counted)} steps have a result, not {TASKS * STEPS}"
    handed_out = sum(len(mesh.tasks[name].at[STARTED]) - STEPS for name in names)
    return sum(times - 1 for times in counted.values()) + handed_out


async def _recorded_unacked(bus: JetStreamBus, pending: Pending, killed_unix_ms: int) -> int:
    """How many of the unacked steps had their result recorded: the worker decides them again, and says the same.

    What is acked is recorded, so that of the recorded ones above the floor all but the acked ones are meant.
    """
    assigned = {
        stored.ce_id
        for stored in await _all(bus, "INBOX_WORKER", "mesh.planner.worker.>", pending.floor)
        if stored.sequence <= pending.last and stored.ce_type.startswith(ASSIGNED)
    }
    recorded = {
        stored.cause
        for stored in await _all(bus, "INBOX_PLANNER", "mesh.worker.planner.>")
        if stored.time_unix_ms <= killed_unix_ms
    }
    acked = len(assigned) - pending.unacked
    return max(0, len(assigned & recorded) - acked)


async def _all(bus: JetStreamBus, stream: str, subject: str, after: int = 0) -> list[StoredMessage]:
    found: list[StoredMessage] = []
    while page := await bus.read(stream, subject, after=found[-1].sequence if found else after):
        found += page
    return found
