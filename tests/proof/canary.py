"""Canaries over simulated tasks: how often one without a change is rolled back, and how soon a worse one is.

The fold is the registry's own; tasks, their sides and what becomes of them are drawn from a seed. Tasks overlap: fifty
begin a second and take three seconds and more, so that they are told in another order than they begin in.
"""

import heapq
import math
import random
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from bulkhead_contracts.prompt import CanaryWatch, StickyBy
from bulkhead_contracts.result import Result, Usage
from bulkhead_contracts.task import TaskEnded
from bulkhead_services.registry.watch.canary import FALSE_ALARM, CanaryFold, ComparedTask
from tests.proof.__main__ import Figure

SHARE = 0.1
NULL_CANARIES, NULL_TASKS = 200, 400
WORSE_CANARIES, WORSE_TASKS = 50, 4_000
EVERY_MS = 20
PEOPLE = 200
RARELY = 0.01


class Side(NamedTuple):
    """What tasks are like on one side: shares of bad answers and of failures, averages of tokens and time."""

    unanswered: float = 0.1
    failed: float = 0.01
    tokens: float = 4_000
    took_ms: float = 3_000
    spread: float = 0.5
    fails_after_ms: float = 0


REST = Side()
STEADY = Side(took_ms=60_000, spread=0.02)
SLOWER = STEADY._replace(took_ms=65_000)
FAILING = Side(unanswered=0, failed=0.1, fails_after_ms=60_000)
LATE = REST._replace(spread=1.5)


class Comparison(NamedTuple):
    """Both sides. shares: of the canary, for the first half of the tasks and for the
    second."""

    canary: Side = REST
    rest: Side = REST
    sticky_by: StickyBy = "task"
    shares: tuple[float, float] = (SHARE, SHARE)


NULLS = {
    "without a change": Comparison(),
    "without a change, half in the canary": Comparison(shares=(0.5, 0.5)),
    "without a change, people shared out": Comparison(sticky_by="person"),
    "without a change, share from 50 to 10 % of people": Comparison(sticky_by="person", shares=(0.5, 0.1)),
    "without a change, share from 10 to 50 %": Comparison(shares=(0.1, 0.5)),
    "without a change, many late": Comparison(LATE, LATE),
    "slower by 8 %": Comparison(SLOWER, STEADY),
    "fails as often, in half the time": Comparison(FAILING._replace(fails_after_ms=30_000), FAILING),
}
WORSE = {
    "answers not given, 40 % instead of 10 %": (REST._replace(unanswered=0.4), "quality"),
    "half as many tokens again": (REST._replace(tokens=6_000), "tokens"),
    "half as much time again": (REST._replace(took_ms=4_500), "latency"),
    "failures, 15 % instead of 1 %": (REST._replace(failed=0.15), "errors"),
}


def run_canary(seed: int, comparison: Comparison, tasks: int) -> CanaryWatch:
    """How a canary stands after so many tasks, or when it is rolled back."""
    draw, fold = random.Random(seed), CanaryFold("production", 1, comparison.sticky_by, propose_after=10**9)
    for add_message in _in_order(draw, comparison, fold, tasks):
        add_message()
        if fold.has_regressed:
            break
    return fold.report_watch()


def _in_order(
    draw: random.Random, comparison: Comparison, fold: CanaryFold, tasks: int
) -> Iterator[Callable[[], None]]:
    """What the fold is told, in the order in which the gateway's inbox has it."""
    waiting: list[tuple[int, int, ComparedTask, TaskEnded]] = []
    places = [draw.random() for _ in range(PEOPLE)]
    for number in range(tasks):
        began_ms = 1 + number * EVERY_MS
        while waiting and waiting[0][0] <= began_ms:
            yield from _end_first(fold, waiting)
        share, person = comparison.shares[2 * number // tasks], draw.randrange(PEOPLE)
        in_canary = (places[person] if comparison.sticky_by == "person" else draw.random()) < share
        ended = _end_task(draw, comparison.canary if in_canary else comparison.rest, began_ms)
        compared = ComparedTask(f"t{number}", f"p{person}", in_canary, share)
        yield partial(fold.add_begin, compared, began_ms)
        heapq.heappush(waiting, (ended.ended_unix_ms, number, compared, ended))
    while waiting:
        yield from _end_first(fold, waiting)


def _end_first(
    fold: CanaryFold, waiting: list[tuple[int, int, ComparedTask, TaskEnded]]
) -> Iterator[Callable[[], None]]:
    ended_ms, _, compared, ended = heapq.heappop(waiting)
    yield partial(fold.add_end, compared, ended, ended_ms)


def _end_task(draw: random.Random, side: Side, began_ms: int) -> TaskEnded:
    tokens = int(side.tokens * math.exp(draw.gauss(0, 0.5)))
    has_failed, is_unanswered = draw.random() < side.failed, draw.random() < side.unanswered
    took_ms = side.fails_after_ms if has_failed and side.fails_after_ms else side.took_ms
    return TaskEnded(
        status="failed" if has_failed else "succeeded",
        result=Result(answered="no" if is_unanswered else "yes"),
        usage=Usage(input_tokens=tokens, cost_usd_micros=tokens // 4),
        began_unix_ms=began_ms,
        ended_unix_ms=began_ms + int(took_ms * math.exp(draw.gauss(0, side.spread))),
    )


def measure() -> list[Figure]:
    """Figures for docs/explanation/proof.md."""
    return [*measure_false_alarms(NULL_CANARIES), *measure_regressions(WORSE_CANARIES)]


def measure_false_alarms(count: int) -> list[Figure]:
    """Rollbacks of canaries that make no difference, or less than the margin."""
    most, figures = find_most_alarms(count), []
    for name, comparison in NULLS.items():
        alarms = sum(run_canary(seed, comparison, NULL_TASKS).verdict == "regressed" for seed in range(count))
        figures.append(Figure(f"rolled back, {name}", f"{alarms} of {count}", f"at most {most}", alarms <= most))
    return figures


def find_most_alarms(count: int) -> int:
    """The least number that canaries with the stated chance of a false alarm exceed rarely."""
    at_most, most = (1 - FALSE_ALARM) ** count, 0
    while 1 - at_most > RARELY:
        most += 1
        at_most += math.comb(count, most) * FALSE_ALARM**most * (1 - FALSE_ALARM) ** (count - most)
    return most


def measure_regressions(count: int) -> list[Figure]:
    """Tasks of the canary until it is rolled back, by kind of regression."""
    figures = []
    for name, (canary, metric) in WORSE.items():
        watches = [run_canary(1_000 + seed, Comparison(canary), WORSE_TASKS) for seed in range(count)]
        took = sorted(watch.tasks for watch in watches if watch.verdict == "regressed")
        claim = "all, nine of ten within 200 canary tasks"
        if not took:
            figures.append(Figure(name, f"0 of {count} caught", claim, False))
            continue
        median, most = int(statistics.median(took)), took[int(0.9 * (len(took) - 1))]
        named = sum(watch.metric == metric for watch in watches)
        value = f"{len(took)} of {count} caught, after {median} canary tasks (nine of ten: {most}), {named} by {metric}"
        figures.append(Figure(name, value, claim, len(took) == count and most <= 200))
    return figures
