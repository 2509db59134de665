"""The peer: DBOS over PostgreSQL, two processes, each pinned to a core, doing the same no-op steps.

In: a durability. Out: figures under the names of the mesh's. `power` waits for fsync at every commit; for `process`
the server's fsync is off, which survives the same kills as the mesh does then, and no power cut either.
"""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bulkhead_infra.nats.server import Durability
from tests.bench import accounting
from tests.bench.figures import Book, quantile
from tests.bench.measures.recovering import STEPS, STEPS_BEFORE_KILL, TASKS
from tests.bench.measures.stepping import CHAIN, LOADS, UNTIL_WARM, load_length
from tests.bench.peers.postgres import Postgres, postgres
from tests.bench.peers.worker_process import ORDER_TIMEOUT_S, Worker, WorkerFailed

MEASURES = frozenset(
    {
        "step_p50_ms",
        "step_p99_ms",
        "task3_p50_ms",
        "steps_per_s",
        "cpu_per_step_ms",
        "pss_total_mb",
        "recovery_s",
        "rerun_recorded_steps",
        *(f"{name}_{load}" for name in ("steps_per_s", "cpu_per_step_ms") for load in LOADS),
    }
)


async def _start(database: Postgres, folder: Path, number: int) -> Worker:
    environ = {"BENCH_URL": database.url, "BENCH_EXECUTOR": f"executor-{number}"}
    return await Worker.start("dbos_worker.py", folder / f"dbos-{number}.log", number, **environ)


@asynccontextmanager
async def peer(folder: Path, durability: Durability) -> AsyncIterator["Peer"]:
    """Server and both processes; nothing is left of them. Raises NoPostgres, StartFailed, WorkerFailed."""
    folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres(fsync=durability == "power"))
        found = Peer(database, folder, [])
        stack.push_async_callback(found.stop)
        for number in range(2):
            # One after the other: the first makes the tables.
            found.workers.append(await _start(database, folder, number))
            await found.workers[-1].answer()
        yield found


@dataclass(slots=True)
class Peer:
    """The running peer."""

    database: Postgres
    folder: Path
    workers: list[Worker]

    async def stop(self) -> None:
        """Kill the processes."""
        for worker in self.workers:
            await worker.stop()

    def pids(self) -> list[int]:
        """Both processes, and the server with all of its own."""
        return [*(worker.process.pid for worker in self.workers), *self.database.pids()]

    async def load(self, in_flight: int, length: int) -> float:
        """So many workflows, half in each process; seconds from the first to the last."""
        share = in_flight // len(self.workers)
        done = await asyncio.gather(*(one.order(do="load", count=share, length=length) for one in self.workers))
        began, ended = min(row["began"] for row in done), max(row["ended"] for row in done)
        return float(ended - began)


async def measure(book: Book, folder: Path, durability: Durability, scale: int) -> None:
    """All of the peer's figures."""
    book.scope("dbos", durability)
    async with peer(folder / "dbos", durability) as dbos:
        first = dbos.workers[0]
        await asyncio.gather(*(one.order(do="latency", chains=UNTIL_WARM, length=CHAIN) for one in dbos.workers))
        gaps = (await first.order(do="latency", chains=2 * scale, length=CHAIN))["gaps_ms"]
        book.add("step_p50_ms", quantile(gaps, 0.5))
        book.add("step_p99_ms", quantile(gaps, 0.99))
        times = (await first.order(do="tasks", count=10 * scale, length=3))["times_ms"]
        book.add("task3_p50_ms", quantile(times, 0.5))
        await dbos.load(LOADS[0], 3)  # Opens the pools' connections.
        rates, cpu_ms, length = [], 0.0, load_length(scale)
        for in_flight in LOADS:
            before, done = accounting.cpu_s(dbos.pids()), in_flight * length
            rates.append(done / await dbos.load(in_flight, length))
            cpu_ms = (accounting.cpu_s(dbos.pids()) - before) / done * 1000
            book.add(f"steps_per_s_{in_flight}", rates[-1])
            book.add(f"cpu_per_step_ms_{in_flight}", cpu_ms)
        book.add("steps_per_s", max(rates))
        book.add("cpu_per_step_ms", cpu_ms)
        book.add("pss_total_mb", accounting.pss_mb(dbos.pids()))
        await _recovery(dbos, book)


async def _recovery(dbos: Peer, book: Book) -> None:
    """kill -9 of the process that holds 100 workflows in flight, started again at once: DBOS recovers them itself."""
    killed, other = dbos.workers
    await killed.order(do="begin", name="killed", count=TASKS, length=STEPS)
    while len(killed.ran) < STEPS_BEFORE_KILL:
        await killed.row()
    began = time.monotonic()
    killed.process.kill()
    before = await _rest(killed)
    again = dbos.workers[0] = await _start(dbos.database, dbos.folder, 0)
    recorded = {(name, step) for name, step in (await other.order(do="recorded", name="killed"))["recorded"]}
    left = {f"killed-{number}" for number in range(TASKS)} - {name for name, step in recorded if step == STEPS - 1}
    assert len(left) == TASKS, f"only {len(left)} of {TASKS} workflows were in flight at the kill ({before} steps)"
    ran = await _until_ended((again, other), set(left))
    by_workflow: dict[str, list[float]] = defaultdict(list)
    for name, _, when in sorted(ran, key=lambda row: row[2]):
        by_workflow[name].append(when)
    stood = [max(b - a for a, b in itertools.pairwise([began, *by_workflow[name]])) for name in left]
    book.add("recovery_s", max(stood))
    book.add("rerun_recorded_steps", sum((name, step) in recorded for name, step, _ in ran))


async def _until_ended(workers: tuple[Worker, ...], waiting: set[str]) -> list[tuple[str, int, float]]:
    """What ran until the last step of each has. DBOS puts them back onto a queue, from which any process takes them."""

    async def follow(worker: Worker) -> None:
        while waiting:
            await worker.row()
            if worker.ran and worker.ran[-1][1] == STEPS - 1:
                waiting.discard(worker.ran[-1][0])
        done.set()

    done = asyncio.Event()
    following = [asyncio.create_task(follow(worker)) for worker in workers]
    try:
        async with asyncio.timeout(ORDER_TIMEOUT_S):
            ended = asyncio.create_task(done.wait())
            await asyncio.wait({ended, *following}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (ended, *following):
            task.cancel()
        said = await asyncio.gather(*following, return_exceptions=True)
    failed = [one for one in said if isinstance(one, WorkerFailed)]
    if waiting and failed:
        raise failed[0]
    return [row for worker in workers for row in worker.ran]


async def _rest(killed: Worker) -> int:
    """What it had still said; the number of steps that it ran."""
    try:
        while True:
            await killed.row()
    except WorkerFailed:
        await killed.process.wait()
    return len(killed.ran)
