"""`make bench`: what the mesh costs, beside bare JetStream, DBOS, LangGraph and Restate, in one run.

JSON lines on standard output, {"system", "durability", "measure", "value"}; progress and a table with ratios and
targets on standard error. What each measure is: docs/explanation/benchmarks.md. Exit codes: 0 measured, 1 something
could not be measured (standard error says what), 2 a wrong call, 130 interrupted; nothing is left running.
"""

import argparse
import asyncio
import fnmatch
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from bulkhead_infra.nats.server import Durability, find_nats_server
from bulkhead_infra.processes.child import StartFailed
from tests.bench.accounting import Unreadable
from tests.bench.against import measure_against
from tests.bench.figures import SYSTEMS, Book, changes, read, say, table
from tests.bench.measures import (
    admitting,
    calling,
    flooding,
    full_steps,
    gating,
    growing,
    planning,
    recovering,
    stepping,
    whole,
)
from tests.bench.peers import dbos_peer, floor
from tests.bench.peers.agent_peers import AGENT_PEERS
from tests.bench.peers.postgres import NoPostgres
from tests.bench.peers.worker_process import NoPeer, WorkerFailed
from tests.bench.rig import rig
from tests.paths import ROOT

QUIET_LOAD = 0.5
DRIFT = 1.25
Measure = Callable[[Any, Book, int], Awaitable[None]]
Start = Callable[[Path, Durability], AbstractAsyncContextManager[Any]]

LOADED = tuple(f"_{load}" for load in stepping.LOADS)
ON_RIG: dict[Measure, tuple[str, ...]] = {
    stepping.latency: ("step_p50_ms", "step_p99_ms"),
    stepping.tasks_of_three: ("task3_p50_ms",),
    stepping.saturation: (
        "steps_per_s",
        "cpu_per_step_ms",
        *(f"steps_per_s{load}" for load in LOADED),
        *(f"cpu_per_step_ms_{what}" for what in ("50", "200", "broker", "planner", "worker")),
    ),
    stepping.checks_on: tuple(f"steps_per_s{load}_check" for load in LOADED),
    stepping.writes: ("durable_writes_per_step", "durable_writes_per_task"),
    recovering.recovery: (
        "recovery_s",
        "rerun_recorded_steps",
        "redelivered_recorded_steps",
        "redelivered_unrecorded_steps",
    ),
}
OWN_RIG: dict[Callable[[Book, Path, Durability, int], Awaitable[None]], tuple[str, ...]] = {
    growing.growth: ("cost_growth", "step_p50_ms_at_1e3", "step_p50_ms_at_1e5", "step_p50_ms_at_1e6"),
    growing.fold: ("fold_cold_ms", "fold_warm_ms"),
    admitting.admissions: admitting.MEASURES,
    gating.boundary: gating.MEASURES,
    planning.planning: planning.MEASURES,
    flooding.flood: ("flood_latency_ratio", "flood_latency_alone_ms", "flood_tasks_per_s"),
}
FRESH: dict[Measure, tuple[str, ...]] = {
    stepping.memory: (
        "pss_total_mb",
        "pss_growth_kb_per_step",
        *(f"pss_mb_{what}" for what in ("broker", "planner", "worker")),
    )
}
TRACED: dict[Measure, tuple[str, ...]] = {
    stepping.traced: ("step_p50_ms_traced", "steps_per_s_200_traced", "cpu_per_step_ms_200_traced")
}
ON_WHOLE: dict[Measure, tuple[str, ...]] = {
    whole.one_agent: ("one_agent_task_p50_ms", "planned_judged_task_p50_ms"),
    whole.first_token: ("first_token_overhead_p50_ms",),
    whole.admission: ("admission_p50_ms",),
    whole.judged: ("step_p50_ms_judged", *(f"steps_per_s{load}_judged" for load in LOADED)),
    calling.model_door: calling.MEASURES,
}
GROUPS = (ON_RIG, FRESH, TRACED, OWN_RIG, ON_WHOLE)
NAMES = sorted({*full_steps.MEASURES, *(name for group in GROUPS for names in group.values() for name in names)})


def arguments() -> argparse.Namespace:
    """What was asked for; ends the program when that makes no sense."""
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=...",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"measures: {', '.join(NAMES)}\n\nmake bench ARGS='--quick --durability power'\n"
        "make bench ARGS='--only step_p50_ms steps_per_s --systems bulkhead floor --compare before.jsonl'",
    )
    parser.add_argument(
        "--durability",
        choices=("power", "process", "both"),
        default="both",
        help="power: fsync before every ack; process: survives kills only (default both)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a tenth of the work and of the stored messages: a first look, in three minutes; says so",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="MEASURE", help="only these (* and ? allowed)")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="default: all of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON lines to a file, too")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="JSON lines of an earlier run: shows what changed")
    parser.add_argument(
        "--against",
        metavar="COMMIT",
        help="only the mesh, in turns with that commit and its own bench; shows the medians and what changed",
    )
    asked = parser.parse_args()
    unknown = [one for one in asked.only if not fnmatch.filter(NAMES, one)]
    if unknown:
        parser.error(f"no such measure: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    try:
        asked.before = read(asked.compare) if asked.compare else []
        asked.copy = asked.json.open("w") if asked.json else None
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return asked


class Run:
    """One run, as it was asked for."""

    def __init__(self, asked: argparse.Namespace, book: Book) -> None:
        self._asked = asked
        self._book = book
        self._scale = 1 if asked.quick else 10
        self.failed = False

    def wants(self, names: Sequence[str]) -> bool:
        """Whether any of these measures was asked for."""
        only = self._asked.only
        return not only or any(fnmatch.filter(names, one) for one in only)

    async def durability(self, durability: Durability) -> None:
        """All systems, one after the other; the floor before and after, to see whether the machine stood still."""
        with tempfile.TemporaryDirectory(prefix="bulkhead-bench-") as name:
            folder = Path(name)
            if "floor" in self._asked.systems:
                await self._told("floor", durability, floor.measure(self._book, folder / "1", durability, self._scale))
            if "bulkhead" in self._asked.systems:
                await self._bulkhead(folder, durability)
            if "dbos" in self._asked.systems and self.wants(sorted(dbos_peer.MEASURES)):
                with self._peer_rows("dbos"):
                    measuring = dbos_peer.measure(self._book, folder, durability, self._scale)
                    await self._told("dbos", durability, measuring)
            if self.wants(full_steps.MEASURES):
                await self._told("full steps", durability, self._full_steps(folder / "full", durability))
            if "floor" in self._asked.systems:
                await self._drift(folder, durability)

    async def _bulkhead(self, folder: Path, durability: Durability) -> None:
        book, scale = self._book, self._scale
        tracing = partial(rig, environ={"BULKHEAD_TRACE": "true"})
        groups: list[tuple[dict[Measure, tuple[str, ...]], Start]] = [
            (ON_RIG, rig),
            (FRESH, rig),
            (TRACED, tracing),
            (ON_WHOLE, whole.whole),
        ]
        for number, (places, start) in enumerate(groups):
            wanted = [measure for measure, names in places.items() if self.wants(names)]
            async with AsyncExitStack() as stack:
                mesh = await stack.enter_async_context(start(folder / f"m{number}", durability)) if wanted else None
                for measure in wanted:
                    book.scope("bulkhead", durability)
                    await self._told(measure.__name__, durability, measure(mesh, book, scale))
        for measure_alone, names in OWN_RIG.items():
            if self.wants(names):
                book.scope("bulkhead", durability)
                await self._told(measure_alone.__name__, durability, measure_alone(book, folder, durability, scale))

    async def _full_steps(self, folder: Path, durability: Durability) -> None:
        """The mesh and the peers of the full step, all of them running, in turns."""
        async with AsyncExitStack() as stack:
            running: dict[str, full_steps.StepRunner] = {}
            if "bulkhead" in self._asked.systems:
                running["bulkhead"] = await stack.enter_async_context(whole.whole(folder / "mesh", durability))
            peers = {name: start for name, start in AGENT_PEERS.items() if name in self._asked.systems}
            url = await stack.enter_async_context(whole.instant_provider(folder)) if peers else ""
            for name, start in peers.items():
                (folder / name).mkdir()
                with self._peer_rows(name):
                    running[name] = await stack.enter_async_context(start(folder / name, durability, url))
            with self._peer_rows("full steps"):
                await full_steps.measure_in_turns(running, self._book, durability, self._scale)

    @contextmanager
    def _peer_rows(self, name: str) -> Iterator[None]:
        """Go on without a peer that is not there or fails."""
        try:
            yield
        except (NoPeer, NoPostgres) as error:
            say(f"\nThe rows of {name} are left out: {error}")
        except (WorkerFailed, StartFailed, Unreadable) as error:
            say(f"\nThe rows of {name} are not whole: {error}")
            self.failed = True

    async def _drift(self, folder: Path, durability: Durability) -> None:
        before = self._book.value("floor", durability, "step_p50_ms")
        async with floor.floor(folder / "2", durability) as bare:
            now = (await bare.measure(single=100 * self._scale))["step_p50_ms"]
        if before and not 1 / DRIFT < now / before < DRIFT:
            say(
                f"\nNOT QUIET: the floor's step_p50_ms was {before:.2f} ms at the beginning and {now:.2f} at the end: "
                "something else used the machine. Ratios suffer less than absolute figures; better measure again."
            )

    @staticmethod
    async def _told(what: str, durability: str, work: Awaitable[None]) -> None:
        say(f"{what} ({durability}) ...")
        began = time.monotonic()
        await work
        say(f"  ({time.monotonic() - began:.0f} s)")


def machine() -> str:
    """Without these the figures mean nothing."""

    def output(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=10).stdout.strip()
        except OSError:
            return "unknown"

    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    changed = " with changes" if output("git", "status", "--porcelain") else ""
    load = os.getloadavg()[0]
    busy = f"\nNOT QUIET: the load is {load:.1f} before the bench begins; others use the cores" * (load > QUIET_LOAD)
    return (
        f"{time.strftime('%Y-%m-%d %H:%M')}, commit {output('git', 'rev-parse', '--short', 'HEAD')}{changed}, "
        f"{len(os.sched_getaffinity(0))} x {model}, Linux {platform.release()}, Python {platform.python_version()}, "
        f"{output(str(find_nats_server()), '--version')}{busy}"
    )


async def run(asked: argparse.Namespace) -> int:
    """Measure, print; the exit code."""
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    say(machine())
    both: tuple[Durability, ...] = ("power", "process")
    with asked.copy or nullcontext() as copy:
        book = Book(copy, tuple(asked.only))
        running = Run(asked, book)
        for durability in both if asked.durability == "both" else (asked.durability,):
            await running.durability(durability)
    say(f"\n{table(book)}")
    if asked.quick:
        say("\n--quick: a tenth of the work; do not quote these figures.")
    if asked.before:
        say(f"\nchanges against {asked.compare}\n{changes(book, asked.before)}")
    return int(running.failed)


def main() -> int:
    """See the module."""
    import uvloop

    asked = arguments()
    try:
        if asked.against:
            return measure_against(asked.against, asked.only, quick=asked.quick)
        return uvloop.run(run(asked))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted; everything that was started is stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
