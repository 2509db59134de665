"""The comparison of a canary with the rest, as a fold over tasks that ended and over what was said of them, pure.

In: beginnings and ends of tasks that began while the canary stood; ratings of them. Out: both sides in figures, and a
verdict: the canary has regressed, or after enough tasks does better, or shows no difference. It is the same for the
same messages, so that all replicas come to the same one.

Tasks count in the order in which they began: of a canary that is quicker than the rest more would be known first, its
bad ones too, and it would look worse for that alone. For the same reason a task that takes much longer than most counts
when patience with it ends, on both sides alike, as bad by each metric; its end is shown and not bet on.
"""

import statistics
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

from bulkhead.bounded_dict import BoundedDict
from bulkhead_contracts.prompt import CanaryArm, CanaryEvidence, CanaryMetric, CanaryWatch, StickyBy
from bulkhead_contracts.task import TaskEnded
from bulkhead_services.registry.watch.sequential import RunningQuantile, SequentialTest

METRICS: tuple[CanaryMetric, ...] = get_args(CanaryMetric)
DECIDING: tuple[CanaryMetric, ...] = tuple(metric for metric in METRICS if metric != "ratings")
"""Metrics that decide. Ratings of people are shown and warn: a few submitters could take any canary back by them."""
FALSE_ALARM = 0.005
"""Chance at most that a canary without a difference is ever taken for a regressed one, over all metrics together."""
BOUND = len(METRICS) / FALSE_ALARM
MEASURED: tuple[CanaryMetric, ...] = ("tokens", "cost", "latency")
BAD: dict[CanaryMetric, str] = {
    "quality": "tasks without a full answer",
    "errors": "tasks that failed",
    "tokens": "tasks that used many tokens",
    "cost": "tasks that cost much",
    "latency": "tasks that took long",
    "judges": "answers that judges found bad",
}
GUARD = 10.0
"""Stake of one metric, for "worse", at which a canary is not proposed."""
LEAST_PEOPLE = 20
"""People of each side, where people are shared out, before a canary is proposed."""
MAX_TASKS = 20_000
"""Tasks that are remembered: a rating of an older one is not counted."""
MAX_PEOPLE = 20_000
MEDIAN_OF = 1_000
PATIENCE_FIRST_MS, PATIENCE_LEAST_MS, PATIENCE_MEDIANS = 600_000, 5_000, 4
"""A task that runs holds back the count of those that began after it for so many medians of time; while none has ended,
for the first."""
MARGIN = 1.1
"""By so much tokens, cost and time may differ before it counts."""


def is_good(ended: TaskEnded) -> bool:
    """Check whether a task gave in full what was asked for."""
    result = ended.result
    if ended.status != "succeeded" or result is None:
        return False
    return result.standing == "ok" and result.answered in (None, "yes")


class ComparedTask(NamedTuple):
    """A task of the comparison. person: whoever asked for it, "" where that is not known. share: of the canary, from 0
    to 1, when it began."""

    task: str
    person: str
    in_canary: bool
    share: float


class _Outcome(NamedTuple):
    is_good: bool
    is_error: bool
    values: tuple[int, int, int]
    """Of `MEASURED`, in that order."""


@dataclass(slots=True)
class _ArmSums:
    tasks: int = 0
    good: int = 0
    errors: int = 0
    tokens: int = 0
    cost_usd_micros: int = 0
    latencies: deque[int] = field(default_factory=lambda: deque(maxlen=MEDIAN_OF))

    def as_arm(self, rated: int, rated_bad: int) -> CanaryArm:
        return CanaryArm(
            tasks=self.tasks,
            good=self.good,
            errors=self.errors,
            tokens=self.tokens // max(1, self.tasks),
            cost_usd_micros=self.cost_usd_micros // max(1, self.tasks),
            latency_ms=int(statistics.median(self.latencies)) if self.latencies else 0,
            rated=rated,
            rated_bad=rated_bad,
        )


class CanaryFold:
    """One canary. name: its label, or `workflow:weekly-report`. began: number of the release that began it;
    propose_after: least tasks of the canary before it is proposed to promote it. shares: of the canary, from 0 to 1, by
    the number of the release."""

    def __init__(self, name: str, began: int, sticky_by: StickyBy, propose_after: int) -> None:
        self._name, self.began, self._sticky_by, self._propose_after = name, began, sticky_by, propose_after
        self.shares: dict[int, float] = {}
        self._tests: dict[CanaryMetric, SequentialTest] = {metric: SequentialTest() for metric in DECIDING}
        self._quantiles = {metric: RunningQuantile() for metric in MEASURED}
        self._arms = _ArmSums(), _ArmSums()
        self._tasks = BoundedDict[str, ComparedTask](2 * MAX_TASKS)
        self._running: dict[str, tuple[ComparedTask, int]] = {}
        self._late = BoundedDict[str, None](MAX_TASKS)
        self._times = RunningQuantile()
        self._outcomes: dict[str, _Outcome] = {}
        self._judged = BoundedDict[str, None](MAX_TASKS)
        self._verdicts: dict[str, bool] = {}
        self._words = BoundedDict[str, dict[str, bool]](MAX_TASKS)
        self._ratings: SequentialTest | None = SequentialTest()
        self._bet_on = BoundedDict[tuple[str, str], None](MAX_PEOPLE * 2 * len(METRICS))
        self._people: tuple[set[str], set[str]] = set(), set()
        self._regressed: CanaryWatch | None = None

    def add_begin(self, compared: ComparedTask, now_unix_ms: int) -> None:
        """Expect the end of a task that began. now_unix_ms: of the message that tells it."""
        self._count_known(now_unix_ms)
        task = compared.task
        if len(self._running) < MAX_TASKS and task not in self._tasks and task not in self._late:
            self._running.setdefault(task, (compared, now_unix_ms))

    def add_end(self, compared: ComparedTask, ended: TaskEnded, now_unix_ms: int) -> None:
        """Count a task that ended, when those that began before it are known; what a person cancelled says nothing, and
        what comes again is not counted."""
        # First, so that what ends too late is late, whether or not anything came in between.
        self._count_known(now_unix_ms)
        task = compared.task
        if task in self._tasks:
            return
        self._tasks[task] = compared
        if ended.status == "cancelled":
            self._running.pop(task, None)
        else:
            usage, took_ms = ended.usage, max(0, ended.ended_unix_ms - ended.began_unix_ms)
            values = usage.input_tokens + usage.output_tokens, usage.cost_usd_micros, took_ms
            outcome = _Outcome(is_good(ended), ended.status != "succeeded", values)
            self._times.add_value(took_ms)
            if task in self._running:
                self._outcomes[task] = outcome
            elif task in self._late:
                self._show_task(compared, outcome)
            else:
                self._count_task(compared, outcome)
        self._count_known(now_unix_ms)

    def _count_known(self, now_unix_ms: int) -> None:
        """Count in order, up to a task that may still end in time."""
        if not self._running:
            return
        median_ms = self._times.find_median()
        patience_ms = PATIENCE_FIRST_MS if median_ms is None else max(PATIENCE_LEAST_MS, PATIENCE_MEDIANS * median_ms)
        while self._running:
            task, (compared, began_unix_ms) = next(iter(self._running.items()))
            outcome = self._outcomes.pop(task, None)
            if outcome is None:
                if now_unix_ms - began_unix_ms < patience_ms:
                    return
                self._late[task] = None
            del self._running[task]
            self._count_task(compared, outcome)

    def _count_task(self, compared: ComparedTask, outcome: _Outcome | None) -> None:
        """Bet on its side. outcome: None of a task that is late."""
        if self.has_regressed:
            return
        if outcome is not None:
            self._show_task(compared, outcome)
        people = self._people[0 if compared.in_canary else 1]
        if compared.person and len(people) < LEAST_PEOPLE:
            people.add(compared.person)
        self._add_fact("quality", compared, outcome is None or not outcome.is_good)
        self._add_fact("errors", compared, outcome is None or outcome.is_error)
        for place, metric in enumerate(MEASURED):
            self._add_value(metric, compared, outcome.values[place] if outcome is not None else None)
        if (is_bad := self._verdicts.pop(compared.task, None)) is not None:
            self._add_fact("judges", compared, is_bad)
        self._end_regressed()

    def _show_task(self, compared: ComparedTask, outcome: _Outcome) -> None:
        if self.has_regressed:
            return
        arm = self._arms[0 if compared.in_canary else 1]
        tokens, cost_usd_micros, took_ms = outcome.values
        arm.tasks += 1
        arm.good += outcome.is_good
        arm.errors += outcome.is_error
        arm.tokens += tokens
        arm.cost_usd_micros += cost_usd_micros
        arm.latencies.append(took_ms)

    def add_verdict(self, task: str, is_bad: bool) -> None:
        """Count the first verdict of a certified judge on a task."""
        compared = self._tasks.get(task)
        if compared is None or task in self._judged or self.has_regressed:
            return
        self._judged[task] = None
        if task in self._running:
            # Verdicts on the quicker side would come first.
            self._verdicts[task] = is_bad
            return
        self._add_fact("judges", compared, is_bad)
        self._end_regressed()

    def add_rating(self, task: str, person: str, is_bad: bool) -> None:
        """Keep a person's word on a task: it replaces the one before, and decides nothing."""
        if task not in self._tasks or self.has_regressed:
            return
        if (words := self._words.get(task)) is None:
            self._words[task] = words = {}
        words[person] = is_bad
        self._ratings = None

    def _compare_ratings(self) -> SequentialTest:
        """The words that stand, each person bet on once: when an answer is first bad by theirs."""
        if self._ratings is not None:
            return self._ratings
        test, bet_on = SequentialTest(), set[str]()
        for task, words in self._words.items():
            compared, critics = self._tasks.get(task), {person for person, is_bad in words.items() if is_bad}
            if compared is None:
                continue  # So many tasks have ended since that it is forgotten.
            if critics - bet_on:
                test.bet_worse(True, compared.in_canary, compared.share)
                test.bet_better(True, compared.in_canary, compared.share)
                bet_on |= critics
            test.count_task(bool(critics), compared.in_canary)
        self._ratings = test
        return test

    @property
    def has_regressed(self) -> bool:
        """True once the canary is to be rolled back; nothing is counted any more."""
        return self._regressed is not None

    def report_watch(self) -> CanaryWatch:
        """Both sides, the evidence and the verdict, now."""
        return self._regressed or self._build_watch(*self._judge())

    def _add_value(self, metric: CanaryMetric, compared: ComparedTask, value: int | None) -> None:
        threshold = self._quantiles[metric].threshold_for(compared.share)
        if value is None:
            if threshold is not None:
                self._add_fact(metric, compared, is_bad=True)
            return
        self._quantiles[metric].add_value(value)
        if threshold is not None:
            # The canary counts as worse where it is so by more than the margin alone, and as better likewise.
            in_favour, against = (value / MARGIN, value * MARGIN) if compared.in_canary else (value, value)
            self._add_fact(metric, compared, in_favour > threshold, against > threshold)

    def _add_fact(
        self, metric: CanaryMetric, compared: ComparedTask, is_bad: bool, is_bad_against: bool | None = None
    ) -> None:
        """Bet on a task's side, and count it. is_bad_against: for the bet that the canary is better, where it is
        another fact."""
        test, side, share = self._tests[metric], compared.in_canary, compared.share
        against = is_bad if is_bad_against is None else is_bad_against
        if self._may_bet(metric, compared, is_bad):
            test.bet_worse(is_bad, side, share)
        if self._may_bet(f"{metric} against", compared, against):
            test.bet_better(against, side, share)
        test.count_task(is_bad, side)

    def _may_bet(self, name: str, compared: ComparedTask, is_bad: bool) -> bool:
        """Check whether a task's side is not known yet. A person's second task is on the side of the first one: each
        is bet on once, when a task of theirs is bad for the first time, which does not depend on the side where the
        canary makes no difference."""
        if self._sticky_by == "task":
            return True
        if not is_bad or not compared.person or (compared.person, name) in self._bet_on:
            return False
        self._bet_on[compared.person, name] = None
        return True

    def _end_regressed(self) -> None:
        verdict, metric = self._judge()
        if verdict == "regressed":
            self._regressed = self._build_watch(verdict, metric)

    def _judge(self) -> tuple[str, CanaryMetric | None]:
        """Verdict now, and the metric that decides. A canary is proposed only while it looks worse by no metric, also
        where it is better by another."""
        worst, best = self._find_worst(), max(DECIDING, key=lambda metric: self._tests[metric].better_stake)
        if self._tests[worst].worse_stake >= BOUND:
            return "regressed", worst
        enough_people = self._sticky_by == "task" or min(map(len, self._people)) >= LEAST_PEOPLE
        enough_tasks = self._tests["quality"].tasks[0] >= self._propose_after
        if self._tests[worst].worse_stake >= GUARD or not (enough_people and enough_tasks):
            return "running", None
        return ("better", best) if self._tests[best].better_stake >= BOUND else ("no_worse", None)

    def _find_worst(self) -> CanaryMetric:
        tested = [metric for metric in DECIDING if sum(self._tests[metric].tasks)]
        return max(tested, default=DECIDING[0], key=lambda metric: self._tests[metric].worse_stake)

    def _build_watch(self, verdict: str, metric: CanaryMetric | None) -> CanaryWatch:
        ratings = self._compare_ratings()
        canary, rest = (self._arms[side].as_arm(ratings.tasks[side], ratings.bad[side]) for side in (0, 1))
        kind, _, workflow = self._name.partition(":")
        return CanaryWatch(
            label=kind,
            workflow=workflow,
            began=self.began,
            canary=canary,
            rest=rest,
            evidence=tuple(self._list_evidence()),
            bound=BOUND,
            verdict=verdict,  # type: ignore[arg-type]
            metric=metric or "",
            tasks=self._arms[0].tasks,
            reason=self._explain_verdict(verdict, metric),
        )

    def _list_evidence(self) -> Iterator[CanaryEvidence]:
        for metric in METRICS:
            test = self._compare_ratings() if metric == "ratings" else self._tests[metric]
            if sum(test.tasks):
                yield CanaryEvidence(
                    metric=metric,
                    worse=float(f"{test.worse_stake:.4g}"),
                    better=float(f"{test.better_stake:.4g}"),
                    canary_bad=test.bad[0],
                    canary_tasks=test.tasks[0],
                    rest_bad=test.bad[1],
                    rest_tasks=test.tasks[1],
                )

    def _explain_verdict(self, verdict: str, metric: CanaryMetric | None) -> str:
        if verdict == "running":
            return ""
        worst = self._find_worst()
        nearest = f"nearest to worse are {BAD[worst]}, at {self._tests[worst].worse_stake:.1f} of {round(BOUND):,}"
        if metric is None:
            return f"no difference shown in {self._tests['quality'].tasks[0]} tasks of the canary; {nearest}"
        test = self._tests[metric]
        comparison = "more" if verdict == "regressed" else "fewer"
        return (
            f"{comparison} {BAD[metric]}: {test.bad[0]} of {test.tasks[0]} in the canary, "
            f"{test.bad[1]} of {test.tasks[1]} beside it; "
            f"without a difference so much is seen in one of {round(BOUND):,} canaries at most"
            f"{f'; {len(self._late)} tasks of both sides were late, and count as bad' if self._late else ''}"
            f"{f'; {nearest}' if verdict == 'better' else ''}"
        )
