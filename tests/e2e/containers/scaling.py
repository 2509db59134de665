"""How much more is done with more workers: `python -m tests.e2e.containers.scaling [--json]`. Measures, judges nothing.

In: this machine's Docker. Out: for 1, 2 and 4 workers in containers: steps a second, how long a step took and how many
messages waited for a worker at most (its lag), and who used how much CPU meanwhile: where it stops. Twice: with workers
that may use a core each, where the machine is what is short; and with workers held to a small share of a core, as if
they had a small machine each, where they are, so that it is seen whether twice as many do twice as much. Tells what
everybody else on this machine used meanwhile: figures beside which others compute are no figures. Four minutes.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bulkhead_infra.docker import images
from bulkhead_infra.docker.stack import Stack, run_docker
from tests.e2e.containers.field import STEPS, Count, Field, finished
from tests.e2e.fixtures.gate import GatedCounter

WORKERS = (1, 2, 4)
TASKS, WARMING = 32, 6
TOP = 5
HELD_PART = 4
"""A held worker may use this part of what one that is free used: then four do about as much as one."""
MIN_CPUS, FREE_CPUS = 0.02, 1.0
LOOKED_WITHIN_S = 30.0
ACCOUNT, INBOX = "MESH", "INBOX_WORKER"
LOOK = """
import json, select, urllib.request
while not select.select([0], [], [], 0.5)[0]:
    with urllib.request.urlopen("http://127.0.0.1:8222/jsz?acc={account}&consumers=true", timeout=5) as answer:
        found = json.load(answer)
    streams = found["account_details"][0]["stream_detail"]
    durables = [one for stream in streams if stream["name"] == "{inbox}" for one in stream["consumer_detail"]]
    print(sum(one["num_pending"] + one["num_ack_pending"] for one in durables), flush=True)
"""
"""Until its standard input ends: what `docker exec` has started does not end with it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. cpus: what each worker might use. cores: used meanwhile, by workers and the largest others."""

    workers: int
    cpus: float
    tasks: int
    failed: int
    steps_per_s: float
    step_p50_ms: int
    step_p95_ms: int
    waited_at_most: int
    cores: Mapping[str, float]
    cores_in_all: float
    cores_of_others: float


async def measure(field: Field, workers: int, cpus: float, tasks: int) -> Row:
    """One row: so many tasks at once, until all have ended rightly."""
    await asyncio.to_thread(field.stack.scale_service, "worker", workers)
    await asyncio.to_thread(run_docker, "update", f"--cpus={cpus:.3f}", *field.stack.running_containers_of("worker"))
    containers = await asyncio.to_thread(_processes, field.stack)
    used, busy, began = _used(containers), _busy_s(), time.monotonic()
    with _watched(field.stack) as waited:
        async with field.client() as client:
            submitted = await asyncio.gather(*(Count(field, client).submit() for _ in range(tasks)))
            ended = [await finished(one.task) for one in submitted if one.task is not None]
        took = time.monotonic() - began
        cores = {name: (now - used[name]) / took for name, now in _used(containers).items()}
        all_busy = (_busy_s() - busy) / took
    right = [one for one in ended if one["status"] == "succeeded"]
    steps = [(step["started_unix_ms"], step["ended_unix_ms"]) for one in right for step in one["steps"]]
    lasted = sorted(end - start for start, end in steps)
    span_s = (max(end for _, end in steps) - min(start for start, _ in steps)) / 1000
    top = {"worker": cores["worker"]} | dict(sorted(cores.items(), key=lambda row: -row[1])[:TOP])
    row = Row(
        workers,
        round(cpus, 3),
        tasks,
        tasks - len(right),
        round(len(steps) / span_s, 1),
        lasted[len(lasted) // 2],
        lasted[int(len(lasted) * 0.95)],
        max(waited, default=0),
        {name: round(one, 2) for name, one in top.items()},
        round(sum(cores.values()), 2),
        round(max(0.0, all_busy - sum(cores.values())), 2),
    )
    print(f"  {workers} workers of {cpus:.3f}: {row.steps_per_s} steps/s, {took:.0f} s", file=sys.stderr)
    return row


@contextmanager
def _watched(stack: Stack) -> Iterator[list[int]]:
    """How many messages wait for a worker or are in one's hands, twice a second: complete when the block has ended."""
    found: list[int] = []
    command = [
        images.docker_client(),
        "exec",
        "--interactive",
        stack.running_containers_of("nats")[0],
        "python3",
        "-S",
        "-c",
        LOOK.format(account=ACCOUNT, inbox=INBOX),
    ]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield found
    finally:
        said, _ = watcher.communicate("", timeout=LOOKED_WITHIN_S)
        found += [int(line) for line in said.split()]


def _processes(stack: Stack) -> dict[str, list[int]]:
    """By service, the first process of each of its containers; and this one, which drives them."""
    found: dict[str, list[int]] = {"(driver)": [os.getpid()]}
    for one in json.loads(run_docker("inspect", *stack.running_containers).stdout):
        found.setdefault(one["Config"]["Labels"]["com.docker.compose.service"], []).append(one["State"]["Pid"])
    return found


def _used(processes: Mapping[str, list[int]]) -> dict[str, float]:
    """CPU seconds of each so far, its ended children among them."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = {}
    for name, pids in processes.items():
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15] for pid in pids]
        found[name] = sum(int(one) for row in fields for one in row) / ticks
    return found


def _busy_s() -> float:
    """CPU seconds of everybody on this machine: user, nice, system, irq, softirq."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[place]) for place in (0, 1, 2, 5, 6)) / os.sysconf("SC_CLK_TCK")


def _middle(rows: list[Row]) -> Row:
    """Of one thing measured several times, the one in the middle."""
    return sorted(rows, key=lambda row: row.steps_per_s)[(len(rows) - 1) // 2]


async def series(field: Field, cpus: float, tasks: Mapping[int, int], rounds: int) -> list[Row]:
    """1, 2, 4 workers, in turns: what else the machine does meanwhile comes and goes. tasks: by workers."""
    found: dict[int, list[Row]] = {}
    for _ in range(rounds):
        for workers in WORKERS:
            found.setdefault(workers, []).append(await measure(field, workers, cpus, tasks[workers]))
    return [_middle(rows) for rows in found.values()]


async def everything(tasks: int, rounds: int) -> dict[str, Any]:
    """The whole document."""
    began = time.monotonic()
    await asyncio.to_thread(images.ensure_images)
    built_s = time.monotonic() - began
    with GatedCounter(host="0.0.0.0") as counter:
        url = f"http://outside:{counter.url.rpartition(':')[2]}"
        where = {"BULKHEAD_COUNTER_URL": url}
        shards = {"BULKHEAD_SHARDS_WORKER": str(max(WORKERS))}
        with Stack(
            "bulkhead-scaling",
            {"signer": where, "tool_executor": where},
            shards,
            {"tool_executor": {"extra_hosts": ["outside:host-gateway"]}},
        ) as stack:
            await asyncio.to_thread(stack.up)
            field = Field(stack, counter)
            await measure(field, 1, FREE_CPUS, WARMING)
            free = await series(field, FREE_CPUS, dict.fromkeys(WORKERS, tasks), rounds)
            share = max(MIN_CPUS, free[0].cores["worker"] / HELD_PART)
            # As much for each worker: a step that waits for minutes fails.
            held = await series(field, share, {one: tasks * one // max(WORKERS) for one in WORKERS}, rounds)
    return {
        "free": [asdict(row) for row in free],
        "held": [asdict(row) for row in held],
        "machine": {"cores": os.cpu_count(), "load_1m": round(os.getloadavg()[0], 1)},
        "of_each": {"tasks": tasks, "steps_per_task": STEPS, "rounds": rounds},
        "images_s": round(built_s, 1),
        "took_s": round(time.monotonic() - began, 1),
        "at": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
    }


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """As people read it."""
    tasks = found["of_each"]["tasks"]
    yield f"{found['at']}, {found['machine']['cores']} cores, {tasks} tasks of {STEPS} steps at once"
    yield "| workers | of each | steps/s | step p50, p95 | waited at most | cores used | by others |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in (*found["free"], *found["held"]):
        cores = ", ".join(f"{name} {used}" for name, used in row["cores"].items())
        yield (
            f"| {row['workers']} | {row['cpus']} core | {row['steps_per_s']} | {row['step_p50_ms']}, "
            f"{row['step_p95_ms']} ms | {row['waited_at_most']} | {row['cores_in_all']}: {cores} | "
            f"{row['cores_of_others']} |"
        )
    yield f"took {found['took_s']} s, of which images {found['images_s']} s"


def main() -> int:
    """0."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e.containers.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tasks", type=int, default=TASKS, help=f"of {STEPS} steps each, default {TASKS}")
    parser.add_argument("--rounds", type=int, default=1, help="measure each so often, in turns; the middle one counts")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--of", type=Path, metavar="FILE", help="measure nothing: print what such a document holds")
    asked = parser.parse_args()
    found = json.loads(asked.of.read_text()) if asked.of else asyncio.run(everything(asked.tasks, asked.rounds))
    print(json.dumps(found, indent=1) if asked.json else "\n".join(table(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
