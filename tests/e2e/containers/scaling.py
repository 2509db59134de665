"""How much more is done with more workers: `python -m tests.e2e.containers.scaling [--json]`. Measures, judges nothing.

In: this machine's Docker. Out: for 1, 2 and 4 workers in containers: steps a second, how long the last of them waited
(its lag: they are submitted at once), and which containers used how much CPU meanwhile: where it stops.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from infra.docker import images
from infra.docker.stack import Stack, docker
from tests.e2e.containers.field import STEPS, Count, Field
from tests.e2e.fixtures.gate import GatedCounter

WORKERS = (1, 2, 4)
TASKS = 40
TOP = 4


async def measure(field: Field, workers: int, tasks: int) -> dict[str, Any]:
    """One row."""
    await asyncio.to_thread(field.stack.scale, "worker", workers)
    used = _cpu(field.stack)
    began = time.monotonic()
    async with field.client() as client:
        submitted = await asyncio.gather(*(Count(field, client).submit() for _ in range(tasks)))
        accepted_s = time.monotonic() - began
        for one in submitted:
            await one.ends_rightly()
    took = time.monotonic() - began
    spent = {name: round((now - used.get(name, 0.0)) / took, 2) for name, now in _cpu(field.stack).items()}
    cores = dict(sorted(spent.items(), key=lambda row: -row[1])[:TOP])
    return {"workers": workers, "tasks": tasks, "steps_per_s": round(tasks * STEPS / took, 1),
            "accepted_s": round(accepted_s, 1), "all_ended_s": round(took, 1), "cores": cores,
            "cores_in_all": round(sum(spent.values()), 2)}  # fmt: skip


def _cpu(stack: Stack) -> dict[str, float]:
    """CPU seconds of each service's containers so far."""
    found: dict[str, float] = {}
    for one in stack.running:
        name = stack.inspect(one)["Config"]["Labels"]["com.docker.compose.service"]
        found[name] = found.get(name, 0.0) + _seconds(one)
    return found


def _seconds(container: str) -> float:
    pid = json.loads(docker("inspect", container).stdout)[0]["State"]["Pid"]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def main(tasks: int, as_json: bool) -> int:
    """0."""
    images.ensure()
    with tempfile.TemporaryDirectory() as folder, GatedCounter(Path(folder) / "counts", host="0.0.0.0") as counter:
        url = f"http://outside:{counter.url.rpartition(':')[2]}"
        where = {"BULKHEAD_COUNTER_URL": url}
        with Stack("bulkhead-scaling", {"signer": where, "tool_executor": where}, {"BULKHEAD_SHARDS_WORKER": "4"},
                   {"tool_executor": {"extra_hosts": ["outside:host-gateway"]}}) as stack:  # fmt: skip
            stack.up()
            field = Field(stack, counter)
            rows = [await measure(field, workers, tasks) for workers in WORKERS]
    if as_json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        cores = ", ".join(f"{name} {used}" for name, used in row["cores"].items())
        print(f"{row['workers']} workers: {row['steps_per_s']} steps/s, {tasks} tasks in {row['all_ended_s']} s; "
              f"cores {row['cores_in_all']}: {cores}")  # fmt: skip
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.containers.scaling", description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS, help=f"of {STEPS} steps each, default {TASKS}")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    asked = parser.parse_args()
    sys.exit(asyncio.run(main(asked.tasks, asked.json)))
