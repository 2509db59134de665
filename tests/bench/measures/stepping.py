"""The price of a step: planner -> worker -> planner with a 64-byte no-op result, recorded before the next.

In: a running rig. Out: figures. Latency is the time between two hand-outs of a chain as the broker recorded them
in the worker's inbox, one task at a time; throughput is counted over all tasks from the first submission to the last
end.
"""

import itertools
import json

from bulkhead_contracts import subjects
from bulkhead_infra.processes.http import get_url
from tests.bench import accounting
from tests.bench.figures import Book, quantile
from tests.bench.rig import ENDED, Rig

CHAIN = 50
LOADS = (50, 200)
MEMORY_LENGTH = 10
UNTIL_WARM = 3
"""Chains before the first that counts: imports, connections and the interpreter's caches."""


def load_length(scale: int) -> int:
    """Steps of each task under load; a task's own beginning and end count, so that few steps would flatter nobody."""
    return 10 if scale == 1 else 4 * scale


async def gaps_ms(mesh: Rig, chains: int) -> list[float]:
    """Milliseconds from each step's hand-out to the next one's."""
    found: list[float] = []
    for _ in range(chains):
        found += [b - a for a, b in itertools.pairwise(await mesh.chain_ms(CHAIN))]
    return found


async def latency(mesh: Rig, book: Book, scale: int) -> None:
    """A step's latency, one task at a time."""
    await gaps_ms(mesh, UNTIL_WARM)
    gaps = await gaps_ms(mesh, 2 * scale)
    book.add("step_p50_ms", quantile(gaps, 0.5))
    book.add("step_p99_ms", quantile(gaps, 0.99))


async def tasks_of_three(mesh: Rig, book: Book, scale: int) -> None:
    """From submission to the end, three steps."""
    times = []
    for _ in range(10 * scale):
        seen = await mesh.run(3)
        times.append((seen.at[ENDED][0] - seen.submitted) * 1000)
    book.add("task3_p50_ms", quantile(times, 0.5))


async def saturation(mesh: Rig, book: Book, scale: int) -> None:
    """Steps per second and CPU per step with many tasks in flight, and whose CPU that is."""
    length, rates, used = load_length(scale), [], dict[str, float]()
    for in_flight in LOADS:
        before, done = mesh.cpu_by_name(), in_flight * length
        rates.append(done / await mesh.run_many(in_flight, length))
        used = {name: seconds - before[name] for name, seconds in mesh.cpu_by_name().items()}
        book.add(f"steps_per_s_{in_flight}", rates[-1])
        book.add(f"cpu_per_step_ms_{in_flight}", sum(used.values()) / done * 1000)
    book.add("steps_per_s", max(rates))
    book.add("cpu_per_step_ms", sum(used.values()) / done * 1000)
    for name, seconds in used.items():
        book.add(f"cpu_per_step_ms_{name}", seconds / done * 1000)


async def writes(mesh: Rig, book: Book, scale: int) -> None:
    """Durable messages of a step, and of a task beside its steps."""
    per_step, per_task = await writes_of_a_step(mesh)
    book.add("durable_writes_per_step", per_step)
    book.add("durable_writes_per_task", per_task)


async def writes_of_a_step(mesh: Rig) -> tuple[float, float]:
    """The difference between a long and a short task is the steps'; what is left of the short one is the task's."""
    counts, url, more = [], mesh.server.plan.monitor_url, 20
    for length in (1, 1 + more):
        before = sum((await stored_messages(url)).values())
        await mesh.run(length)
        counts.append(sum((await stored_messages(url)).values()) - before)
    per_step = (counts[1] - counts[0]) / more
    return per_step, counts[0] - per_step


async def checks_on(mesh: Rig, book: Book, scale: int) -> None:
    """The same with the task's checks on. A no-op result has nothing to check, so its way is the same by design:
    what a checked step costs is measured with agent steps (whole.py, judged)."""
    length = load_length(scale)
    for in_flight in LOADS:
        seconds = await mesh.run_many(in_flight, length, check=True)
        book.add(f"steps_per_s_{in_flight}_check", in_flight * length / seconds)


async def traced(mesh: Rig, book: Book, scale: int) -> None:
    """The same with spans written to a file, as `bulkhead up` has it; the other figures are without."""
    await gaps_ms(mesh, UNTIL_WARM)
    book.add("step_p50_ms_traced", quantile(await gaps_ms(mesh, scale), 0.5))
    before, done = mesh.cpu_by_name(), LOADS[-1] * load_length(scale)
    book.add("steps_per_s_200_traced", done / await mesh.run_many(LOADS[-1], load_length(scale)))
    used = sum(mesh.cpu_by_name().values()) - sum(before.values())
    book.add("cpu_per_step_ms_200_traced", used / done * 1000)


async def memory(mesh: Rig, book: Book, scale: int) -> None:
    """Of broker, planner and worker, after a load that is the same whatever else is asked for; and what more steps
    add: history on disk should not cost memory, but the folds of a task are remembered while it may go on."""
    for in_flight in LOADS:
        await mesh.run_many(in_flight, MEMORY_LENGTH)
    before = {name: accounting.pss_mb([pid]) for name, pid in mesh.by_name().items()}
    book.add("pss_total_mb", sum(before.values()))
    for name, used_mb in before.items():
        book.add(f"pss_mb_{name}", used_mb)
    for _ in range(2 if scale == 1 else 5):
        await mesh.run_many(LOADS[-1], MEMORY_LENGTH)
    steps = (2 if scale == 1 else 5) * LOADS[-1] * MEMORY_LENGTH
    book.add("pss_growth_kb_per_step", (accounting.pss_mb(mesh.pids()) - sum(before.values())) * 1024 / steps)


async def stored_messages(monitor_url: str) -> dict[str, int]:
    """Messages ever stored, by stream, without the journal: that is a copy, and not fsynced."""
    _, body = await get_url(f"{monitor_url}/jsz?streams=true&accounts=true", timeout_s=5)
    accounts = json.loads(body)["account_details"]
    streams = [stream for account in accounts for stream in account.get("stream_detail", ())]
    return {one["name"]: one["state"]["last_seq"] for one in streams if one["name"] != subjects.JOURNAL_STREAM}
