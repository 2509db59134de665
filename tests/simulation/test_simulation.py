"""The laws hold in thousands of schedules, a seed is one run, and what was found once never comes back."""

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from bulkhead.runtime import crash_points
from bulkhead_contracts.envelope import parse
from tests.planted import bugs
from tests.simulation import situations, world
from tests.simulation.laws import reading
from tests.simulation.mesh.chaos import PAUSES, Chaos
from tests.simulation.mesh.loop import WHO
from tests.simulation.situations.wishes import events, maps, plan_calls
from tests.simulation.situations.wishes.flows import skipped_steps

from .schedule import Schedule, judge

QUICK_SEEDS, DAY_SEEDS = "1-10", "11-60"
FOUND = sorted(Path(__file__).with_name("found").glob("*.json"))


def holds(seeds: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seeds", seeds, "--found", str(folder)],
        capture_output=True,
        text=True,
        timeout=2700,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.timeout(900)
def test_every_law_holds_in_ten_schedules(tmp_path):
    holds(QUICK_SEEDS, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_law_holds_in_the_schedules_of_a_day(tmp_path):
    """Those that show a planted bug are among them: one like it is seen by day."""
    showing = {bug.seeds.partition("-")[0] for bug in bugs.load() if bug.seeds}
    holds(",".join([DAY_SEEDS, *sorted(showing, key=int)]), tmp_path)


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_seed_is_one_run():
    """In two processes, after other runs and after none: nothing of the machine, of memory or of chance gets in."""
    found = []
    for first in (20, 16):
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seeds", f"{first}-29", "--json", "--jobs", "1"],
            capture_output=True,
            text=True,
            timeout=300,
        )
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        found.append([row for row in rows if row["seed"] >= 20])
    assert len(found[0]) == 10 and found[0] == found[1]


@pytest.mark.slow
def test_schedules_differ_and_reach_what_they_should(folder):
    """A simulation in which nothing happens would pass as well: the faults and the ends must really occur."""
    verdicts = [judge(Schedule(seed), folder) for seed in range(20, 80)]
    kinds = {fault.kind for one in verdicts for fault in one.record.chaos.fired}
    assert len(kinds) > 18 and sum(one.record.crashes for one in verdicts) > 20
    ends = {
        json.loads(stored.body)["status"]
        for one in verdicts
        for stored in one.record.stored("INBOX_GATEWAY")
        # Outsiders say what they like of how tasks end.
        if stored.subject.startswith("mesh.planner.") and stored.headers["ce-type"].startswith("mesh.task.ended")
    }
    assert ends == {"succeeded", "failed", "cancelled", "halted"}
    assert len({one.record.digest() for one in verdicts}) == len(verdicts)


@pytest.mark.slow
def test_a_calm_run_succeeds_without_a_fault(folder):
    from .scenario import scenario

    record = world.run(scenario(6), Chaos(6), folder)
    assert record.idle and not record.chaos.fired and record.crashes == 0 and len(record.tasks) == 3


@pytest.mark.slow
def test_a_service_passes_the_crash_points_of_its_table_and_no_other(folder, monkeypatch):
    """One that is in no table is one at which nobody dies in tests/faults."""
    passed: dict[str, set[str]] = {}
    monkeypatch.setattr(
        crash_points, "pass_point", lambda point: passed.setdefault(WHO.get("").rpartition("-")[0], set()).add(point)
    )
    # Where queries have vectors rag reserves, and passes more: the table is of searches by words.
    with_vectors = set(brought("ahead", 20))
    for seed in (seed for seed in range(20, 34) if seed not in with_vectors):
        assert judge(Schedule(seed, frozenset()), folder).complaints == ()
    passed.pop("", None)  # People, who act as no service.
    assert passed == {name: set(points) for name, points in crash_points.POINTS.items() if points}


def brought(name: str, count: int) -> list[int]:
    """The first seeds that bring a situation."""
    found = (
        seed for seed in range(1, 5_000) if random.Random(f"{name}/{seed}").random() < situations.BY_NAME[name].share
    )
    return list(itertools.islice(found, count))


def said(record, stream, kind):
    return [
        json.loads(one.body)
        for one in record.stored(stream)
        if one.headers.get("ce-type", "").startswith(kind + ".v") and not reading.is_stray(one)
    ]


def clock_ms(headers):
    return parse(headers).time_unix_ms


REACHED = {
    "forks": lambda run: any(one["given"] for one in said(run, "INBOX_PLANNER", "mesh.task.submitted")),
    "purges": lambda run: bool(run.gone) and set(run.tasks.values()) - run.gone,
    "replans": lambda run: any(
        reason.startswith("taken over")
        for one in reading.of(run, "INBOX_GATEWAY", "mesh.task.step_ended")
        for reason in reading.body(one)["reasons"]
    ),
    "strays": lambda run: run.stored("DEAD_LETTERS"),
    "ceilings": lambda run: (
        {"halted", "succeeded"} <= {one["status"] for one in said(run, "INBOX_GATEWAY", "mesh.task.ended")}
    ),
    "cancels": lambda run: any(
        call.until_s and call.since_s + 1 < call.until_s < call.since_s + 43 for call in run.model.made
    ),
    "publishers": lambda run: any(wish.via != "http" and not wish.expects for wish, _ in reading.wishes(run)),
    "evidence": lambda run: any(one["passages"] for one in said(run, "INBOX_WORKER", "mesh.retrieval.replied")),
    "watched": lambda run: any(one["halted"] for one in said(run, "INBOX_JOURNAL", "mesh.budget.tripped")),
    "waits": lambda run: said(run, "INBOX_WORKER", "mesh.agent.wait_refused"),
    "logics": lambda run: (
        {"1", "2"}
        <= {
            one.headers.get("ce-logicversion")
            for one in run.stored("INBOX_GATEWAY")
            if one.subject.startswith("mesh.planner.")
        }
    ),
    "topups": lambda run: sum(one["active"] for one in said(run, "INBOX_GATEWAY", "mesh.task.paused")) > 1,
    "checkpoints": lambda run: (
        said(run, "INBOX_JOURNAL", "mesh.budget.ledger_part")
        and len(said(run, "INBOX_BUDGET", "mesh.budget.ledger_marked")) > 1
    ),
    "restarts": lambda run: (
        {line.split()[2].rpartition("-")[0] for line in run.story if " RESTART " in line} >= {"budget", "model_gateway"}
    ),
    "outages": lambda run: (
        any("/restart/" in one.what for one in run.scenario.acts)
        and run.tasks
        and len({one.task for one in run.stored("INBOX_GATEWAY")}) > 1
    ),
    "clocks": lambda run: any(
        abs(clock_ms(one.headers) - one.time_unix_ms) > 10_000 for one in run.stored("INBOX_WORKER")
    ),
    "hurry": lambda run: (
        [line.split()[1] for line in run.story if " halt tenant/demo" in line]
        and any(" topped up " in line for line in run.story)
        and said(run, "INBOX_GATEWAY", "mesh.task.paused")
    ),
    "floods": lambda run: said(run, "INBOX_GATEWAY", "mesh.task.released") and run.crashes,
    "approvals": lambda run: (
        {one["outcome"] for one in said(run, "INBOX_GATEWAY", "mesh.approval.ended")} >= {"granted", "denied"}
        and any(one.get("deadline_unix_ms") for one in said(run, "INBOX_GATEWAY", "mesh.task.paused"))
    ),
    "flows": lambda run: any(skipped_steps(run).values()),
    "plan_calls": lambda run: run.counter.counts.get(plan_calls.COUNTED),
    "maps": lambda run: sum(run.counter.counts.get(f"{maps.NAME}.c.{number}", 0) for number in range(9)) > 1,
    "ahead": lambda run: (
        any(one.get("asked_ahead") for one in said(run, "INBOX_WORKER", "mesh.retrieval.replied"))
        and any(one.get("saved_ms") for one in said(run, "INBOX_WORKER", "mesh.retrieval.replied"))
        and any("never" in steps for steps in skipped_steps(run).values())
    ),
    "events": lambda run: (
        run.counter.counts.get(events.COUNTED)
        and any(act.name.startswith("again") for act in run.scenario.acts if act.situation == "events")
    ),
    "halting": lambda run: any(
        one.get("paused")
        for inbox in ("INBOX_PLANNER", "INBOX_WORKER", "INBOX_CHECKER")
        for one in said(run, inbox, "mesh.control.call_deferred")
    ),
}
"""What a situation must bring about in some of its runs; one in which nothing happens would break no law either."""


def test_each_situation_says_what_it_must_bring_about():
    assert REACHED.keys() == situations.BY_NAME.keys()


@pytest.mark.parametrize("name", sorted(situations.BY_NAME))
@pytest.mark.slow
def test_a_situation_brings_about_what_it_is_for(name, folder):
    assert any(REACHED[name](judge(Schedule(seed), folder).record) for seed in brought(name, 8))


@pytest.mark.slow
def test_replicas_stand_still_and_what_was_to_act_outside_does_so_late(folder):
    """Longer than its messages wait for their acks, and longer than the lock of a rebuild is kept."""
    seeds = itertools.islice((seed for seed in range(1, 5_000) if PAUSES.keys() <= Chaos.of(seed).rates.keys()), 12)
    records = [judge(Schedule(seed), folder).record for seed in seeds]
    assert {fault.kind for record in records for fault in record.chaos.fired} >= PAUSES.keys()
    stood_s = [float(line.split()[-2]) for record in records for line in record.story if " STANDS STILL " in line]
    assert max(stood_s) > 5 and len({round(one, 1) for one in stood_s}) > 5


@pytest.mark.parametrize("file", FOUND, ids=[one.stem for one in FOUND])
@pytest.mark.slow
def test_what_was_found_once_holds_now(file, folder):
    assert judge(Schedule.load(file), folder).complaints == ()
