"""`make simulate`: run many schedules on all cores, or tell the story of one.

Exit codes: 0 every law held, 1 a schedule failed (its seed, its story and the shortest form are printed), 2 usage,
130 stopped by Ctrl-C.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.simulation import forks, world
from tests.simulation.mesh import once

from .forks import CHUNK, Rows
from .schedule import Schedule, Verdict, judge, shrink

KNOWN_SEEDS = range(1, 5_001)
"""Seeds that are run by hand and by CI; a night has others."""


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Run the whole mesh in one process under a seeded scheduler with virtual time: replicas crash, "
        "messages are lost, late and doubled, reads are stale, Redis forgets, the provider misbehaves. After every "
        "run an oracle checks what must always hold. The same seed is the same run.",
        epilog="make simulate SEEDS=1000-3000; make simulate SEED=17 TRACE=1; a failing schedule is shrunk and "
        "written to --found: put it into tests/simulation/found/ and it is a test.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--seeds", default="", metavar="A-B", help="run these seeds (default 1-5000); 1-60,150,165 are these"
    )
    which.add_argument("--seed", type=int, help="run one seed")
    which.add_argument("--schedule", type=Path, metavar="FILE", help="run a schedule that was found earlier")
    parser.add_argument(
        "--tasks",
        type=_count,
        help="this many tasks in each run instead of the seed's own number; what situations bring comes beside them",
    )
    parser.add_argument("--minutes", type=_minutes, help="stop starting new runs after so long")
    parser.add_argument("--trace", action="store_true", help="tell the story of one run, event by event")
    parser.add_argument("--json", action="store_true", help="results as JSON lines on stdout")
    parser.add_argument("--no-shrink", action="store_true", help="do not look for a shorter failing schedule")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failure")
    parser.add_argument("--found", type=Path, default=Path(".simulation"), help="where failing schedules are written")
    parser.add_argument("--jobs", type=_count, default=os.cpu_count() or 1, help="processes (default: one per core)")
    asked = parser.parse_args()
    if asked.trace and asked.seed is None and asked.schedule is None:
        parser.error("--trace tells the story of one run: name it by --seed or --schedule")
    if asked.tasks and asked.schedule is not None:
        parser.error("--tasks: a schedule has its own number of them")
    world.quiet_logs()
    try:
        return _run(parser, asked)
    except forks.ForkDied as error:
        print(f"simulation: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped: the schedules that were done held, or were told above", file=sys.stderr)
        return 130


def _run(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> int:
    if asked.schedule is not None:
        try:
            found = Schedule.load(asked.schedule)
        except (OSError, ValueError, KeyError, TypeError) as error:
            parser.error(f"--schedule {asked.schedule}: {error}; name a file that a failing run wrote")
        return tell_one(found, asked)
    if asked.seed is not None:
        return tell_one(Schedule(asked.seed, tasks=asked.tasks), asked)
    try:
        seeds = [seed for part in asked.seeds.split(",") for seed in _range(part)] if asked.seeds else KNOWN_SEEDS
    except ValueError:
        parser.error(f"--seeds {asked.seeds!r}: write A-B, for example 1000-3000, or several: 1-60,150")
    return run_many(seeds, asked)


def _range(text: str) -> range:
    """The seeds of A-B, or of A alone. Raises ValueError."""
    first, _, last = text.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    if not seeds:
        raise ValueError(text)
    return seeds


def _count(text: str) -> int:
    """Argparse's type of what there must be one of at least."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _minutes(text: str) -> float:
    """Argparse's type of a time."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes; write 5 or 0.5")
    return found


def tell_one(schedule: Schedule, asked: argparse.Namespace) -> int:
    """One run, with its story when asked for."""
    with world.Folder() as folder:
        verdict = judge(schedule, folder)
        if asked.json:
            print(json.dumps(_row(verdict)))
            return 1 if verdict.complaints else 0
        if asked.trace:
            print("\n".join(_story(verdict)))
        if not verdict.complaints:
            print(
                f"seed {schedule.seed}: every law held ({len(verdict.record.chaos.fired)} faults, "
                f"{verdict.record.crashes} crashes, {verdict.record.ended_at_s:.0f} virtual seconds)"
            )
            return 0
        report(verdict, folder, asked)
    return 1


def run_many(seeds: Sequence[int], asked: argparse.Namespace) -> int:
    """All of them, on every core; stops at the first failure unless told otherwise."""
    began, done, faults, crashes, failed = time.monotonic(), 0, 0, 0, []
    for rows in _alone(seeds, asked, began) if asked.jobs == 1 else _pooled(seeds, asked, began):
        for row in rows:
            done, faults, crashes = done + 1, faults + int(str(row["faults"])), crashes + int(str(row["crashes"]))
            if row["complaints"]:
                failed.append(row)
                # At once: whoever stops it later is to know by then.
                print(f"seed {row['seed']} breaks: {row['complaints'][0]}", file=sys.stderr)
            if asked.json:
                print(json.dumps(row), flush=True)
        if done % CHUNK == 0 or done == len(seeds):
            _progress(done, len(seeds), len(failed), began)
    spent = time.monotonic() - began
    if done < len(seeds) and not failed:
        print(f"\nthe time was up: {len(seeds) - done} of the {len(seeds)} schedules were not run", file=sys.stderr)
    print(
        f"\n{done} schedules, {faults} faults, {crashes} crashes, {len(failed)} failed, {spent:.0f} s "
        f"({done / max(spent, 0.001):.1f}/s)",
        file=sys.stderr,
    )
    if failed:
        with world.Folder() as folder:
            for row in failed[: 5 if asked.keep_going else 1]:
                report(judge(Schedule(int(str(row["seed"])), tasks=asked.tasks), folder), folder, asked)
    return 1 if failed else 0


def _alone(seeds: Sequence[int], asked: argparse.Namespace, began: float) -> Iterator[Rows]:
    """In this process, one after the other: nothing is run beyond the first that fails."""
    with world.Folder() as folder:
        for number, seed in enumerate(seeds, 1):
            if asked.minutes and time.monotonic() > began + asked.minutes * 60:
                return
            row = _row(judge(Schedule(seed, tasks=asked.tasks), folder))
            once.tidy(number)
            yield [row]
            if row["complaints"] and not asked.keep_going:
                return


def _pooled(seeds: Sequence[int], asked: argparse.Namespace, began: float) -> Iterator[Rows]:
    """In chunks, each in a fork of this process."""
    until, failed = began + asked.minutes * 60 if asked.minutes else float("inf"), list[bool]()
    with world.Folder() as folder:

        def rows_of(chunk: Sequence[int]) -> Rows:
            return [_row(judge(Schedule(seed, tasks=asked.tasks), folder)) for seed in chunk]

        def may_begin() -> bool:
            return time.monotonic() < until and (asked.keep_going or not any(failed))

        rows_of(seeds[:1])  # What files say is remembered from here on.
        gc.collect()
        gc.freeze()
        for rows in forks.in_forks(seeds, asked.jobs, rows_of, may_begin):
            failed += [bool(row["complaints"]) for row in rows]
            yield rows


def _row(verdict: Verdict) -> dict[str, object]:
    record = verdict.record
    return {
        "seed": verdict.schedule.seed,
        "tasks": len(record.tasks),
        "faults": len(record.chaos.fired),
        "crashes": record.crashes,
        "virtual_s": round(record.ended_at_s, 1),
        "complaints": list(verdict.complaints),
        "digest": record.digest(),
    }


def report(verdict: Verdict, folder: Path, asked: argparse.Namespace) -> None:
    """What failed, the shortest form of it, and how to see it again."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(f"\nseed {verdict.schedule.seed} at commit {commit or 'unknown'} breaks:")
    for one in verdict.complaints:
        print(f"  {one}")
    if asked.no_shrink:
        return
    short = shrink(verdict, folder, lambda line: print(f"  shrinking: {line}", file=sys.stderr))
    file = asked.found / f"seed-{short.schedule.seed}.json"
    try:
        asked.found.mkdir(parents=True, exist_ok=True)
        file.write_text(short.schedule.dump() + "\n")
    except OSError as error:
        print(f"{file} cannot be written: {error.strerror}; this would stand in it:\n{short.schedule.dump()}")
    print(
        f"the shortest schedule that was found ({len(short.record.tasks)} tasks, {len(short.record.chaos.fired)} "
        "faults) breaks:"
    )
    for one in short.complaints:
        print(f"  {one}")
    for fault in short.record.chaos.fired:
        print(f"    fault: {fault}")
    print(f"see it: make simulate SCHEDULE={file} TRACE=1; make it a test: move it to tests/simulation/found/")


def _story(verdict: Verdict) -> Iterator[str]:
    scenario = verdict.record.scenario
    for wish in scenario.wishes:
        steps = wish.plan.steps if wish.plan else ()
        plan = ", ".join(f"{one.id}({'+'.join(one.inputs)})" for one in steps) or "by the model"
        ask = f"{wish.cost_usd_micros} micro USD, {wish.deadline_ms} ms"
        how = f"by {wish.via}" + (f", fork of {wish.fork.of} ({wish.fork.keep})" if wish.fork else "")
        yield (
            f"{wish.name}: tenant {wish.tenant}, plan {plan}, {ask}, check {wish.check}, {how}, "
            f"cancel {wish.cancel_after_s}"
        )
    yield f"replicas: {scenario.replicas}, shards {scenario.shards}"
    yield from verdict.record.story
    yield f"outside: {verdict.record.counter.counts}"


def _progress(done: int, total: int, failed: int, began: float) -> None:
    if sys.stderr.isatty() or done % 500 < CHUNK:
        end = "\r" if sys.stderr.isatty() else "\n"
        print(f"{done}/{total} schedules, {failed} failed, {time.monotonic() - began:.0f} s", end=end, file=sys.stderr)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of strings have another order in every process otherwise: a seed would not be one run.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
