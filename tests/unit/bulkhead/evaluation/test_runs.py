"""Runs through the port: turns of the routes, the ceiling, and a comparison of what came of them."""

import asyncio
from dataclasses import replace

import pytest

from bulkhead.evaluation.answers import CaseAnswer
from bulkhead.evaluation.cases import Check, EvaluationCase
from bulkhead.evaluation.comparison import compare_runs
from bulkhead.evaluation.runs import CaseRun, CaseRunOutcome, CaseRuns, Submission, run_all
from bulkhead_contracts import bounds

CASES = tuple(EvaluationCase(name=f"c{n}", objective="x", checks=(Check(contains="yes"),)) for n in range(4))
WHOLE = bounds.DEFAULT_TASK_COST_USD_MICROS


class Scripted:
    """A runner whose routes answer as told; it keeps to its ceiling, as a mesh does."""

    def __init__(self, cost: int = 1_000, **answers: str) -> None:
        self.cost, self.answers = cost, answers
        self.asked: list[tuple[str, str]] = []
        self.under_way = self.given = self.most_given = 0

    async def run(self, case: EvaluationCase, route: str, submission: Submission) -> CaseRunOutcome:
        limit_usd_micros = submission.limit_usd_micros
        self.asked.append((case.name, route))
        self.given += limit_usd_micros
        self.most_given = max(self.most_given, self.given)
        await asyncio.sleep(0)
        self.given -= limit_usd_micros
        text = self.answers[route]
        if text == "raises":
            raise LookupError(route)
        cost = min(self.cost, limit_usd_micros)
        outcome = CaseRunOutcome("t", "succeeded", CaseAnswer(text), 100 * len(text), 10, cost, 5, models=("p/m",))
        if self.cost > limit_usd_micros:
            return replace(outcome, status="halted", answer=None, code="budget_exceeded", at_ceiling=True)
        return outcome if text else replace(outcome, status="failed", answer=None, code="provider_error")


async def runs_of(runner: Scripted, *, repeat: int = 1, limit: int = 10**9, at_once: int = 1) -> CaseRuns:
    how = {"repeat": repeat, "limit_usd_micros": limit, "at_once": at_once}
    return await run_all(runner, CASES, tuple(runner.answers), **how)


async def test_every_case_is_run_on_every_route_which_take_turns_in_being_first() -> None:
    runner = Scripted(a="yes", b="no")
    runs = await runs_of(runner, repeat=2)
    assert runs.is_complete and len(runs.runs) == 16 and runs.spent_usd_micros == 16_000
    assert [route for _, route in runner.asked[:8:2]] == ["a", "b", "a", "b"]
    assert {run.repetition for run in runs.runs} == {0, 1}


@pytest.mark.parametrize("at_once", [1, 3])
async def test_no_more_is_ever_given_out_than_the_ceiling(at_once: int) -> None:
    runner = Scripted(cost=300_000, a="yes", b="yes")
    runs = await runs_of(runner, limit=1_000_000, at_once=at_once)
    assert runner.most_given <= 1_000_000 and runs.spent_usd_micros <= 1_000_000
    assert not runs.is_complete and 2 <= len(runs.runs) <= 3


async def test_a_run_that_was_cut_off_for_it_was_given_too_little_counts_for_nothing() -> None:
    runs = await runs_of(Scripted(cost=WHOLE - 1, a="yes", b="yes"), limit=WHOLE // 2)
    assert not runs.runs and not runs.is_complete and runs.spent_usd_micros == WHOLE // 2
    dear = await runs_of(Scripted(cost=WHOLE + 1, a="yes"), limit=10**9)
    assert dear.is_complete and {run.outcome.code for run in dear.runs} == {"budget_exceeded"}, "its own fault"


async def test_an_error_of_the_runner_ends_all_of_them() -> None:
    runner = Scripted(a="yes", b="raises")
    with pytest.raises(LookupError):
        await runs_of(runner, at_once=2)
    assert len(runner.asked) < 8


async def test_a_route_that_is_worse_beyond_doubt_is_told_so_and_its_failures_by_name() -> None:
    many = tuple(CASES[0].model_copy(update={"name": f"m{n}"}) for n in range(20))
    how = {"repeat": 1, "limit_usd_micros": 10**9, "at_once": 1}
    runs = await run_all(Scripted(a="yes", b="no", c="", d="yes, yes"), many, ("a", "b", "c", "d"), **how)
    found = compare_runs(runs, ("a", "b", "c", "d"))
    assert [row.passed.value for row in found.routes] == [1, 0, 0, 1]
    assert [one.verdict for one in found.differences] == ["worse", "worse", "no difference shown"]
    a, b, c, _ = found.routes
    assert (a.always, a.never, b.never, c.failures) == (20, 0, 20, {"provider_error": 20})
    assert a.cost_per_pass_usd_micros == 1_000 and b.cost_per_pass_usd_micros is None
    assert b.failed_checks["m0: contains: yes (it does not stand in the answer)"] == 1
    assert found.differences[2].latency_ms.value == 500  # type: ignore[union-attr]
    told = found.as_json()
    assert told["routes"][0]["passed"]["low"] < 1 and told["differences"][0]["verdict"] == "worse"


def test_a_case_that_passes_sometimes_is_told_as_such() -> None:
    outcome = CaseRunOutcome("t", "succeeded", CaseAnswer("x"), 1, None, 1, 1)
    made = [CaseRun("c", "a", n, outcome, ("why",) * (n % 2)) for n in range(4)]
    (row,) = compare_runs(CaseRuns(tuple(made), 4, 4), ("a", "unmade")).routes
    assert (row.always, row.sometimes, row.never, row.passed.value, row.first_token_ms) == (0, 1, 0, 0.5, None)
