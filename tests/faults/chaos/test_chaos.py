"""One seed of the driver, and its own pieces: what it would not see would not be there."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.chaos.oracle import Setting, compare_log, judge_requests, judge_writes
from tests.faults.chaos.requests import Attempt, ClientRequest, WriteStanding
from tests.faults.chaos.run import ChaosPlan, run_chaos
from tests.faults.chaos.schedule import DECK, Blow, draw_schedule

FIRST = int(os.environ.get("CHAOS_SEED", "1"))
QUIET = Setting((), patience=1.0)
SERVED = Attempt(30.0, 31.0, "served")


@pytest.fixture
def silent() -> Iterator[None]:
    """Without the words of clients that lose their connections, which is what they are there for."""
    logger = logging.getLogger("bulkhead")
    logger.setLevel(logging.ERROR)
    yield


def request(*attempts: Attempt, kind: str = "chat", is_late: bool = False) -> ClientRequest:
    """A request of a client of the doors."""
    return ClientRequest(kind, "c1", fronts=("doors",), attempts=list(attempts), is_late=is_late)


def test_a_seed_deals_the_same_blows_and_every_one_before_one_comes_again():
    blows = draw_schedule(7, 300, 1.5)
    assert blows == draw_schedule(7, 300, 1.5) != draw_schedule(8, 300, 1.5)
    first = [(blow.victim, blow.deed) for blow in blows[: len(DECK)]]
    assert sorted(first) == sorted(DECK) and blows[-1].at_s < 300


@pytest.mark.parametrize(
    ("attempt", "breach"),
    [
        (Attempt(1.0, 2.0, "refused", "unavailable", "the broker is away"), "nothing was amiss"),
        (Attempt(1.0, 2.0, "refused", "", "Internal Server Error"), "without code"),
        (Attempt(1.0, 2.0, "refused", "approval_wanted", "a person is asked"), ""),
        (Attempt(1.0, 2.0, "lost", "", "ReadError"), "a connection is lost"),
        (Attempt(1.0, 90.0, "silent", "", "no answer within 70 s"), "silent"),
    ],
)
def test_what_a_client_is_told_on_a_quiet_mesh_is_judged(attempt: Attempt, breach: str) -> None:
    breaches = judge_requests([request(attempt, SERVED)], QUIET)
    assert [line for line in breaches if breach in line] if breach else not breaches


@pytest.mark.parametrize(
    ("victim", "attempt", "is_late", "breach"),
    [
        ("doors", Attempt(9.0, 11.0, "lost", "", "ReadError"), False, ""),
        ("rag", Attempt(9.0, 11.0, "lost", "", "ReadError"), False, "a connection is lost"),
        ("rag", Attempt(9.0, 11.0, "refused", "unavailable", "rag is away"), False, ""),
        ("rag", Attempt(9.0, 11.0, "refused", "loop_stopped", "it failed 4 times"), False, "blamed"),
        ("rag", Attempt(19.0, 20.0, "refused", "unavailable", "rag is away"), True, ""),
        ("rag", Attempt(59.0, 60.0, "refused", "no_place", "a place is waited for"), True, "all was well again"),
    ],
)
def test_what_a_client_is_told_is_judged_by_the_blows(
    victim: str, attempt: Attempt, is_late: bool, breach: str
) -> None:
    setting = Setting((Blow(10.0, victim, "kill"),), patience=1.0)
    breaches = judge_requests([request(attempt, SERVED, is_late=is_late)], setting)
    assert [line for line in breaches if breach in line] if breach else not breaches


def test_who_is_never_served_is_told_with_the_last_words() -> None:
    [line] = judge_requests([request(Attempt(1.0, 2.0, "refused", "approval_wanted", "a person is asked"))], QUIET)
    assert "was never served; told last: refused approval_wanted a person is asked" in line


@pytest.mark.parametrize(
    ("standing", "count", "is_well"),
    [
        ("acknowledged", 1, True),
        ("acknowledged", 0, False),
        ("acknowledged", 2, False),
        ("uncertain", 0, True),
        ("uncertain", 1, True),
        ("open", 2, False),
        ("forbidden", 0, True),
        ("forbidden", 1, False),
    ],
)
def test_writes_are_counted_outside(standing: WriteStanding, count: int, is_well: bool) -> None:
    writer = request(SERVED, kind="mcp")
    writer.writes["w1"] = standing
    assert (judge_writes({"w1": count}, [writer]) == []) == is_well


def test_the_ledger_is_held_against_the_providers_log() -> None:
    log = [{"usage": {"prompt_tokens": 10, "completion_tokens": 5}}, {"usage": None}]
    assert compare_log(Counter({(10, 5): 1}), [], log) == []
    assert compare_log(Counter(), [20], log) == [], "nothing was heard of it, and the worst case is charged"
    assert "charged nowhere" in compare_log(Counter(), [], log)[0]
    assert "never told" in compare_log(Counter({(10, 5): 1, (9, 9): 1}), [], log)[0]
    assert "charged by 12" in compare_log(Counter(), [12], log)[0], "less than the provider counts"


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("silent")
async def test_every_client_is_served_or_told_the_truth(tmp_path: Path) -> None:
    """The driver's own command with this seed repeats it: `python -m tests.faults.chaos --help`."""
    report = await run_chaos(ChaosPlan(FIRST, seconds=10, grace_s=45, gap_s=1.0), tmp_path, print)
    print(report.as_text())
    assert report.breaches == [] and report.requests


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("silent")
async def test_every_client_is_served_or_told_the_truth_for_minutes(tmp_path: Path) -> None:
    """A seed that no night had before. A starved machine is a job of its own: it would starve the tests beside it."""
    plan = ChaosPlan(int(os.environ.get("GITHUB_RUN_NUMBER", "2")), seconds=180, grace_s=90, gap_s=2, at_once=2)
    report = await run_chaos(plan, tmp_path, print)
    print(report.as_text())
    assert report.breaches == [] and report.requests
