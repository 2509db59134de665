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

from bulkhead_contracts.prompt import CanaryWatch
from bulkhead_contracts.result import Result, Usage
from bulkhead_contracts.task import TaskEnded
from bulkhead_services.registry.watch.canary import CanaryFold, ComparedTask
from tests.proof.__main__ import Figure

SHARE = 0.1
NULL_CANARIES, NULL_TASKS = 200, 400
WORSE_CANARIES, WORSE_TASKS = 50, 4_000
EVERY_MS = 20


class Canary(NamedTuple):
    """What tasks are like on one side: shares of bad answers and of failures, averages of tokens and time."""

    unanswered: float = 0.1
    failed: float = 0.01
    tokens: float = 4_000
    took_ms: float = 3_000
    spread: float = 0.5
    fails_after_ms: float = 0


REST = Canary()
STEADY = Canary(took_ms=60_000, spread=0.02)
SLOWER = STEADY._replace(took_ms=65_000)
FAILING = Canary(unanswered=0, failed=0.1, fails_after_ms=60_000)
WORSE = {
    "answers not given, 40 % instead of 10 %": (REST._replace(unanswered=0.4), "quality"),
    "half as many tokens again": (REST._replace(tokens=6_000), "tokens"),
    "half as much time again": (REST._replace(took_ms=4_500), "latency"),
    "failures, 15 % instead of 1 %": (REST._replace(failed=0.15), "errors"),
}


def run_canary(seed: int, canary: Canary, tasks: int, *, rest: Canary = REST, share: float = SHARE) -> CanaryWatch:
    """How a canary stands after so many tasks, or when it is rolled back."""
    draw, fold = random.Random(seed), CanaryFold("production", 1, "task", propose_after=10**9)
    for add_message in _in_order(draw, (canary, rest), fold, tasks, share):
        add_message()
        if fold.has_regressed:
            break
    return fold.report_watch()


def _in_order(
    draw: random.Random, sides: tuple[Canary, Canary], fold: CanaryFold, tasks: int, share: float
) -> Iterator[Callable[[], None]]:
    """What the fold is told, in the order in which the gateway's inbox has it."""
    waiting: list[tuple[int, int, ComparedTask, TaskEnded]] = []
    for number in range(tasks):
        began_ms = 1 + number * EVERY_MS
        while waiting and waiting[0][0] <= began_ms:
            yield from _end_first(fold, waiting)
        in_canary = draw.random() < share
        ended = _end_task(draw, sides[0 if in_canary else 1], began_ms)
        compared = ComparedTask(f"t{number}", "", in_canary, share)
        yield partial(fold.add_begin, compared, began_ms)
        heapq.heappush(waiting, (ended.ended_unix_ms, number, compared, ended))
    while waiting:
        yield from _end_first(fold, waiting)


def _end_first(
    fold: CanaryFold, waiting: list[tuple[int, int, ComparedTask, TaskEnded]]
) -> Iterator[Callable[[], None]]:
    ended_ms, _, compared, ended = heapq.heappop(waiting)
    yield partial(fold.add_end, compared, ended, ended_ms)


def _end_task(draw: random.Random, side: Canary, began_ms: int) -> TaskEnded:
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
    return [
        *measure_false_alarms(NULL_CANARIES),
        *measure_failing_sooner(NULL_CANARIES),
        *measure_regressions(WORSE_CANARIES),
    ]


def measure_false_alarms(count: int) -> list[Figure]:
    """Rollbacks without a change, and of a canary that is slower by less than the margin: first all tasks that are
    known are the rest's."""
    figures = []
    for name, canary, rest in (("without a change", REST, REST), ("slower by 8 %", SLOWER, STEADY)):
        alarms = sum(
            run_canary(seed, canary, NULL_TASKS, rest=rest, share=share).verdict == "regressed"
            for seed, share in enumerate((SHARE, 0.5) * (count // 2))
        )
        figures.append(Figure(f"rolled back, {name}", f"{alarms} of {count}", "at most 2 of 200", alarms <= 2))
    return figures


def measure_failing_sooner(count: int) -> list[Figure]:
    """Rollbacks of a canary that fails as often as the rest, and sooner: first its failures alone are known."""
    alarms = 0
    for seed in range(count):
        canary = FAILING._replace(fails_after_ms=(4_000, 30_000, 45_000)[seed % 3])
        alarms += run_canary(seed, canary, 3 * NULL_TASKS, rest=FAILING).verdict == "regressed"
    return [Figure("rolled back, fails as often and sooner", f"{alarms} of {count}", "at most 2 of 200", alarms <= 2)]


def measure_regressions(count: int) -> list[Figure]:
    """Tasks of the canary until it is rolled back, by kind of regression."""
    figures = []
    for name, (canary, metric) in WORSE.items():
        watches = [run_canary(1_000 + seed, canary, WORSE_TASKS) for seed in range(count)]
        took = sorted(watch.tasks for watch in watches if watch.verdict == "regressed")
        median, most = int(statistics.median(took)), took[int(0.9 * (len(took) - 1))]
        named = sum(watch.metric == metric for watch in watches)
        value = f"{len(took)} of {count} caught, after {median} canary tasks (nine of ten: {most}), {named} by {metric}"
        figures.append(
            Figure(name, value, "all, nine of ten within 200 canary tasks", len(took) == count and most <= 200)
        )
    return figures
