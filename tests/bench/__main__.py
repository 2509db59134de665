"""`make bench`: a table on stderr, JSON lines on stdout.

Step: planner -> worker -> planner with a 64-byte no-op result, recorded before the next; time between two hand-outs
as the gateway's inbox shows them. Floor: one acked publish on a bare stream of the same broker.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.rig import Rig, rig

STARTED = "mesh.task.step_started.v1"
ENDED = "mesh.task.ended.v1"


class Table:
    """Prints each figure as soon as it is there."""

    def __init__(self, durability: str) -> None:
        self._durability = durability

    def add(self, measure: str, value: float, system: str = "bulkhead") -> None:
        """One figure."""
        row = {"system": system, "durability": self._durability, "measure": measure, "value": round(value, 3)}
        print(json.dumps(row), flush=True)
        print(f"{system:10} {self._durability:8} {measure:28} {value:12.3f}", file=sys.stderr, flush=True)


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile by rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


async def floor(mesh: Rig, table: Table, count: int) -> None:
    """Acked publishes, one after the other, into the journal's inbox under the gateway's own identity."""
    times = []
    for n in range(count):
        began = time.perf_counter()
        await mesh.context.bus.publish(
            f"blob.gateway.demo.floor{n}", b"x" * 512, {"content-type": "text/plain"}, f"floor-{n}"
        )
        times.append((time.perf_counter() - began) * 1000)
    table.add("publish_ack_p50_ms", statistics.median(times), "floor")


async def steps(mesh: Rig, table: Table, chains: int, length: int) -> None:
    """Latency of a step, one task at a time."""
    await mesh.run(length)
    gaps: list[float] = []
    for _ in range(chains):
        seen = await mesh.run(length)
        at = seen.at[STARTED]
        gaps += [(b - a) * 1000 for a, b in itertools.pairwise(at)]
    table.add("step_p50_ms", statistics.median(gaps))
    table.add("step_p99_ms", quantile(gaps, 0.99))


async def tasks(mesh: Rig, table: Table, count: int) -> None:
    """From submission to the end, three steps."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        seen = await mesh.run(3)
        times.append((seen.at[ENDED][0] - began) * 1000)
    table.add("task3_p50_ms", statistics.median(times))


async def saturation(mesh: Rig, table: Table, in_flight: int, length: int) -> None:
    """Steps per second and CPU per step with many tasks in flight."""
    cpu, began = mesh.cpu_s(), time.perf_counter()
    names = await asyncio.gather(*(mesh.submit(length) for _ in range(in_flight)))
    await asyncio.wait_for(asyncio.gather(*(mesh.tasks[name].ended.wait() for name in names)), 300)
    seconds, done = time.perf_counter() - began, in_flight * length
    table.add(f"steps_per_s_{in_flight}", done / seconds)
    table.add(f"cpu_per_step_ms_{in_flight}", (mesh.cpu_s() - cpu) / done * 1000)


async def recovery(mesh: Rig, table: Table) -> None:
    """kill -9 of the worker with 100 tasks in flight: until the first step ends that needed a worker again."""
    names = await asyncio.gather(*(mesh.submit(60) for _ in range(100)))
    while sum(len(mesh.tasks[name].at[STARTED]) for name in names) < 300:
        await asyncio.sleep(0.001)
    mesh.processes["worker"].kill()
    await mesh.processes["worker"].wait()
    began = time.perf_counter()
    await mesh.start_service("worker")
    await asyncio.wait_for(asyncio.gather(*(mesh.tasks[name].ended.wait() for name in names)), 300)
    gaps = []
    for name in names:
        at = [began, *(t for t in mesh.tasks[name].at[STARTED] if t > began)]
        gaps.append(max(b - a for a, b in itertools.pairwise(at)) if len(at) > 1 else 0.0)
    table.add("recovery_s", max(gaps))
    table.add("rerun_recorded_steps", sum(max(0, len(mesh.tasks[name].at[STARTED]) - 60) for name in names))


async def main() -> None:
    """All measures, for each durability asked for."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--durability", choices=("power", "process", "both"), default="both")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: for a first look")
    asked = parser.parse_args()
    scale = 1 if asked.quick else 10
    for durability in ("power", "process") if asked.durability == "both" else (asked.durability,):
        table = Table(durability)
        with tempfile.TemporaryDirectory(prefix="bulkhead-bench-") as folder:
            async with rig(Path(folder), durability) as mesh:
                await floor(mesh, table, 100 * scale)
                await steps(mesh, table, 2 * scale, 50)
                await tasks(mesh, table, 10 * scale)
                for in_flight in (50, 200):
                    await saturation(mesh, table, in_flight, 4 * scale)
                table.add("pss_total_mb", mesh.pss_mb())
                await recovery(mesh, table)


if __name__ == "__main__":
    asyncio.run(main())
