"""The port of an evaluation: whatever can run a case on a route; and the runs, judged by the case's checks.

In: cases, routes, a ceiling of the money, a record of earlier runs. Out: runs, in the order in which they end. Routes
take turns in being the first of a case, so that a busy hour is nobody's advantage.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bulkhead.evaluation.answers import CaseAnswer
from bulkhead.evaluation.cases import CaseError, EvaluationCase
from bulkhead.evaluation.checks import escape_surrogates, failed_checks
from bulkhead.evaluation.judges.panels import PanelVerdict
from bulkhead_contracts import bounds


@dataclass(frozen=True, slots=True)
class CaseRunOutcome:
    """Outcome of one run. status: of its task. code: of its failure. first_token_ms: of the answer, where it was
    streamed. models: those that wrote the answer, as `provider/model`. at_ceiling: the money that it was given is
    spent.
    """

    task: str
    status: str
    answer: CaseAnswer | None
    latency_ms: int
    first_token_ms: int | None
    cost_usd_micros: int
    tokens: int
    code: str = ""
    standing: str = "ok"
    models: tuple[str, ...] = ()
    at_ceiling: bool = False


@dataclass(frozen=True, slots=True)
class Submission:
    """One run as it is submitted: again with the same key and ceiling it is the same task. repeated: it may have been
    submitted before."""

    key: str
    limit_usd_micros: int
    repeated: bool = False


class Runner(Protocol):
    """Runs one case; raises what ends the whole evaluation."""

    async def run(self, case: EvaluationCase, route: str, submission: Submission) -> CaseRunOutcome:
        """The outcome of one run that may cost so much."""
        ...


@dataclass(frozen=True, slots=True)
class CaseRun:
    """One run, judged. failed: the checks that it did not pass, with reasons; of a run without an answer all of them.

    repetition: from 0. verdicts: of judges, with those that are advice.
    """

    case: str
    route: str
    repetition: int
    outcome: CaseRunOutcome
    failed: tuple[str, ...] = ()
    verdicts: tuple[PanelVerdict, ...] = ()

    @property
    def has_passed(self) -> bool:
        """True when the answer passes every check."""
        return self.outcome.answer is not None and not self.failed


RunSlot = tuple[str, str, int]
"""A case, a route and a repetition."""


class RunRecord:
    """Record of an evaluation's runs. This one keeps nothing: every run is a new one."""

    @property
    def finished(self) -> Mapping[RunSlot, CaseRun]:
        """Runs that were made before."""
        return {}

    @property
    def lost_usd_micros(self) -> int:
        """Cost of runs that were cut off, and count for nothing."""
        return 0

    def find_submission(self, slot: RunSlot) -> Submission | None:
        """The submission of a run that began before, and of which no end is on record."""
        return None

    def begin_run(self, slot: RunSlot, limit_usd_micros: int) -> Submission:
        """Keep that a run is about to be submitted."""
        return Submission(str(uuid.uuid4()), limit_usd_micros)

    def find_outcome(self, slot: RunSlot) -> CaseRunOutcome | None:
        """The outcome of a run that has ended, and is not judged yet."""
        return None

    def keep_outcome(self, slot: RunSlot, outcome: CaseRunOutcome) -> None:
        """Keep the outcome of a run before it is judged: what is paid is not lost to a check that breaks."""

    def finish_run(self, run: CaseRun) -> None:
        """Keep a run that is judged; one that was judged before is judged anew."""

    def drop_run(self, slot: RunSlot, cost_usd_micros: int) -> None:
        """Keep what a run has cost that was cut off; the next one of the slot is a new one."""


@dataclass(frozen=True, slots=True)
class CaseRuns:
    """All runs that were made, and what was spent, also on what was cut off. expected_count: of runs; fewer were made
    where the ceiling was reached."""

    runs: tuple[CaseRun, ...]
    expected_count: int
    spent_usd_micros: int

    @property
    def is_complete(self) -> bool:
        """True when every run was made."""
        return len(self.runs) == self.expected_count


class EvaluationBudget:
    """The money of an evaluation: what is spent, and what runs that are under way may still spend."""

    def __init__(self, limit_usd_micros: int, spent_usd_micros: int = 0) -> None:
        self.spent = spent_usd_micros
        self.over = False
        self._limit, self._held, self._dearest = limit_usd_micros, 0, 1
        self._returned = asyncio.Condition()

    def hold_again(self, limit_usd_micros: int) -> int:
        """Hold the ceiling of a run that began before: its task may have been paid already."""
        self._held += limit_usd_micros
        return limit_usd_micros

    async def reserve_run(self, most_usd_micros: int) -> int:
        """The ceiling of one more run, which may cost so much at most; 0 when there is not enough for one as dear as
        the dearest so far."""
        async with self._returned:
            while not self.over:
                free = self._limit - self.spent - self._held
                if free >= min(self._dearest, most_usd_micros):
                    reservation = min(most_usd_micros, free)
                    self._held += reservation
                    return reservation
                if not self._held:
                    self.over = True
                    break
                await self._returned.wait()
        return 0

    async def settle_run(self, given: int, outcome: CaseRunOutcome | None, most_usd_micros: int) -> bool:
        """Settle a run with its cost. False: it was cut off for it had been given too little, and says nothing."""
        cost = outcome.cost_usd_micros if outcome is not None else 0
        short = outcome is not None and outcome.at_ceiling and given < most_usd_micros
        async with self._returned:
            self._held -= given
            self.spent += cost
            self._dearest, self.over = max(self._dearest, cost), self.over or short
            self._returned.notify_all()
        return not short


class AnswerJudges(Protocol):
    """Judges of answers, whose verdicts may cost money."""

    async def judge_answer(
        self, case: EvaluationCase, slot: RunSlot, outcome: CaseRunOutcome, budget: EvaluationBudget, record: RunRecord
    ) -> tuple[PanelVerdict, ...] | None:
        """The verdicts that the case's checks ask for; None where the money does not suffice for them."""
        ...


def judge_run(
    case: EvaluationCase, slot: RunSlot, outcome: CaseRunOutcome, verdicts: tuple[PanelVerdict, ...] = ()
) -> CaseRun:
    """The run of a slot, judged by the case's checks. Raises CaseError for a check that cannot be loaded."""
    answer = outcome.answer
    if answer is None:
        return CaseRun(*slot, outcome)
    failures = (escape_surrogates(verdict.failure) for verdict in verdicts if verdict.failure)
    return CaseRun(*slot, outcome, (*failed_checks(case.checks, answer, case.references), *failures), verdicts)


async def make_run(
    runner: Runner,
    case: EvaluationCase,
    route: str,
    slot: RunSlot,
    budget: EvaluationBudget,
    record: RunRecord,
    most_usd_micros: int = bounds.DEFAULT_TASK_COST_USD_MICROS,
) -> CaseRunOutcome | None:
    """The outcome of a slot: that on record, or of a run that is made, or gone on with, and kept. None where the money
    does not suffice. Raises what the runner raises."""
    outcome = record.find_outcome(slot)
    if outcome is not None:
        return outcome
    submission = record.find_submission(slot)
    ceiling = (
        await budget.reserve_run(most_usd_micros)
        if submission is None
        else budget.hold_again(submission.limit_usd_micros)
    )
    if not ceiling:
        return None
    submission = submission or record.begin_run(slot, ceiling)
    try:
        outcome = await runner.run(case, route, submission)
    finally:
        counts = await budget.settle_run(ceiling, outcome, most_usd_micros)
    if not counts:
        record.drop_run(slot, outcome.cost_usd_micros)
        return None
    record.keep_outcome(slot, outcome)
    return outcome


async def run_all(
    runner: Runner,
    cases: Sequence[EvaluationCase],
    routes: Sequence[str],
    *,
    repeat: int,
    limit_usd_micros: int,
    at_once: int,
    on_run: Callable[[CaseRun], None] = lambda run: None,
    record: RunRecord | None = None,
    judges: AnswerJudges | None = None,
) -> CaseRuns:
    """Run every case on every route `repeat` times, except what the record has. Raises what the runner raises, and
    CaseError for cases that want judges where there are none."""
    if judges is None and (case := next((case for case in cases if case.wants_judge), None)):
        problem = f"case {case.name} has a judge, which this command does not ask"
        raise CaseError(problem, "take the check out, or use `bulkhead eval run`")
    record = record or RunRecord()
    by_slot = dict(record.finished)
    runs = list(by_slot.values())
    spent = sum(run.outcome.cost_usd_micros for run in runs) + record.lost_usd_micros
    purse = EvaluationBudget(limit_usd_micros, spent)
    order = [slot for slot in _run_order(cases, routes, repeat) if (slot[0].name, *slot[1:]) not in by_slot]

    def is_new(slot: RunSlot) -> bool:
        return record.find_outcome(slot) is None and record.find_submission(slot) is None

    # Those that began before come first: their money is spent, or held by the mesh.
    pending = iter(sorted(order, key=lambda slot: is_new((slot[0].name, *slot[1:]))))

    judging = asyncio.Lock()  # Functions of a set may share what is theirs: one judges at a time.

    async def judge(case: EvaluationCase, slot: RunSlot, outcome: CaseRunOutcome) -> None:
        verdicts: tuple[PanelVerdict, ...] | None = ()
        if judges is not None and case.wants_judge and outcome.answer is not None:
            verdicts = await judges.judge_answer(case, slot, outcome, purse, record)
        if verdicts is None:  # The answer is kept: with more money it is judged.
            return
        # A check of the set's author may take its time: the others' tasks are followed meanwhile.
        async with judging:
            run = await asyncio.to_thread(judge_run, case, slot, outcome, verdicts)
        runs.append(run)
        record.finish_run(run)
        on_run(run)

    async def run_pending() -> None:
        for case, route, repetition in pending:
            slot = (case.name, route, repetition)
            outcome = await make_run(runner, case, route, slot, purse, record)
            if outcome is not None:
                await judge(case, slot, outcome)

    tasks = [asyncio.create_task(run_pending()) for _ in range(at_once)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return CaseRuns(tuple(runs), len(cases) * len(routes) * repeat, purse.spent)


def _run_order(
    cases: Sequence[EvaluationCase], routes: Sequence[str], repeat: int
) -> Iterator[tuple[EvaluationCase, str, int]]:
    for repetition in range(repeat):
        for number, case in enumerate(cases):
            first = (number + repetition) % len(routes)
            for route in (*routes[first:], *routes[:first]):
                yield case, route, repetition
