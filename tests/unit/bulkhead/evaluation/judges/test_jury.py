"""Votes of models as runs on the record: paid once whatever is killed, under the evaluation's ceiling."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bulkhead.evaluation.answers import CaseAnswer
from bulkhead.evaluation.cases import CaseError, Check, EvaluationCase
from bulkhead.evaluation.judges.certificates import SeatedJudge
from bulkhead.evaluation.judges.jury import Jury, build_vote_plan
from bulkhead.evaluation.judges.panels import GROUNDED, Judge, Juror
from bulkhead.evaluation.run_folder import RunFolder, RunManifest
from bulkhead.evaluation.runs import CaseRunOutcome, CaseRuns, RunRecord, Submission, run_all

PANEL = Judge(name="panel", jury=(Juror(route="small"), Juror(route="large")), limit_usd=0.0002)
SEATS = {"panel": SeatedJudge(judge=PANEL)}
CASES = tuple(EvaluationCase(name=f"c{n}", objective="x", checks=(Check(judge="panel"),)) for n in range(3))
MANIFEST = RunManifest(
    run="r1", case_file="c", began_unix_ms=1, repetitions=1, deadline_s=60, cases=CASES, digests={"c0": "0"}
)
ANSWER_COST, VOTE_COST = 50, 7


class PaidModels:
    """Runs and votes that are kept under their keys, as a mesh keeps them; it crashes at the calls that are named."""

    def __init__(
        self, crashes: Sequence[int] = (), vote: str = '{"pass": false, "reason": "no"}', kin: str = ""
    ) -> None:
        self.paid: dict[str, int] = {}
        self._crashes, self._vote, self._kin, self._calls = crashes, vote, kin, 0

    async def run(self, case: EvaluationCase, route: str, submission: Submission) -> CaseRunOutcome:
        self._calls += 1
        self.paid[submission.key] = VOTE_COST if route else ANSWER_COST
        await asyncio.sleep(0)
        if self._calls in self._crashes:
            raise ConnectionError("killed")
        cost = self.paid[submission.key]
        answer = CaseAnswer(self._vote if route else "yes")
        if route:
            assert json.loads(case.objective)["answer"] == "yes"
        model = self._kin or f"p/{route}" if route else "p/writer-1"
        return CaseRunOutcome(submission.key, "succeeded", answer, 1, None, cost, 1, models=(model,))


async def evaluate(models: PaidModels, record: RunRecord, limit: int = 10**6, seats: dict | None = None) -> CaseRuns:
    how = {"repeat": 1, "limit_usd_micros": limit, "at_once": 2}
    return await run_all(models, CASES, ("",), record=record, judges=Jury(seats or SEATS, models), **how)


async def test_votes_of_killed_runs_are_paid_once_and_counted_in_the_spending(tmp_path: Path) -> None:
    models = PaidModels(crashes=(2, 3, 6, 9, 12))
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    while not folder.runs.is_complete:
        try:
            runs = await evaluate(models, folder)
        except ConnectionError:
            folder.close()
            folder = RunFolder.open(tmp_path / "run", may_write=True)
    assert sorted(models.paid.values()) == [VOTE_COST] * 6 + [ANSWER_COST] * 3
    assert runs.spent_usd_micros == folder.runs.spent_usd_micros == sum(models.paid.values())
    verdict = folder.finished["c0", "", 0].verdicts[0]
    assert [vote.juror for vote in verdict.votes] == ["small", "large"] and verdict.passed is False
    assert folder.finished["c0", "", 0].failed == ("judge: panel (small: no; large: no)",)


async def test_an_answer_whose_votes_cannot_be_paid_waits_for_more_money(tmp_path: Path) -> None:
    models, folder = PaidModels(), RunFolder.create(tmp_path / "run", MANIFEST)
    spent = 3 * ANSWER_COST + 3 * VOTE_COST
    short = await evaluate(models, folder, spent)
    assert not short.is_complete and short.spent_usd_micros <= spent
    made = len(models.paid)
    folder.close()
    folder = RunFolder.open(tmp_path / "run", may_write=True)
    whole = await evaluate(models, folder)
    assert whole.is_complete and len(models.paid) == 9 > made and whole.spent_usd_micros == sum(models.paid.values())


async def test_another_definition_votes_anew_on_the_recorded_answers(tmp_path: Path) -> None:
    models, folder = PaidModels(), RunFolder.create(tmp_path / "run", MANIFEST)
    await evaluate(models, folder)
    folder.change_manifest(MANIFEST.model_copy(update={"digests": dict.fromkeys(("c0", "c1", "c2"), "1")}))
    seats = {"panel": SeatedJudge(judge=PANEL.model_copy(update={"rule": "all"}), advice="new")}
    runs = await evaluate(models, folder, seats=seats)
    assert sorted(models.paid.values()) == [VOTE_COST] * 12 + [ANSWER_COST] * 3
    assert runs.spent_usd_micros == sum(models.paid.values()) and all(run.has_passed for run in runs.runs)


async def test_jurors_of_the_answers_family_are_heard_and_not_counted() -> None:
    runs = await evaluate(PaidModels(kin="other/writer-9"), RunRecord())
    verdict = runs.runs[0].verdicts[0]
    assert verdict.passed is None and all("family, writer" in vote.excluded for vote in verdict.votes)
    assert verdict.advice and runs.runs[0].has_passed


async def test_no_vote_at_all_fails_where_the_judge_may_fail_a_case() -> None:
    runs = await evaluate(PaidModels(vote="I would say so."), RunRecord())
    assert "no vote counts" in runs.runs[0].failed[0] and not runs.runs[0].verdicts[0].advice


async def test_more_than_a_juror_reads_is_an_abstention_and_costs_nothing() -> None:
    models = PaidModels()
    jury = Jury(SEATS, models, lambda case: {"big.md": "x" * 20_000})
    how = {"repeat": 1, "limit_usd_micros": 10**6, "at_once": 1}
    runs = await run_all(models, CASES, ("",), judges=jury, **how)
    assert {*models.paid.values()} == {ANSWER_COST} and "a juror reads" in runs.runs[0].failed[0]


async def test_the_shipped_judge_reads_documents_beside_the_set(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("The ferry says yes to dogs and no to cats.")
    case = EvaluationCase(name="c", objective="Dogs?", documents=(f"{tmp_path}/a.md",), checks=(Check(judge=GROUNDED),))
    jury, how = (
        Jury({GROUNDED: SeatedJudge(judge=Judge(name=GROUNDED))}),
        {"repeat": 1, "limit_usd_micros": 99, "at_once": 1},
    )
    runs = await run_all(PaidModels(), (case,), ("",), judges=jury, **how)
    assert runs.runs[0].verdicts[0].judge == GROUNDED
    (tmp_path / "a.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CaseError, match="judges cannot read"):
        await run_all(PaidModels(), (case,), ("",), judges=jury, **how)


async def test_a_command_without_judges_refuses_cases_that_want_one() -> None:
    with pytest.raises(CaseError, match="does not ask"):
        await run_all(PaidModels(), CASES, ("",), repeat=1, limit_usd_micros=99, at_once=1)


def test_a_vote_is_one_step_without_tools_that_holds_the_question() -> None:
    seats = {"panel": SeatedJudge(judge=replace_question("Is it kind?"))}
    (step,) = build_vote_plan(seats, CASES[0])["steps"]
    assert "Is it kind?" in step["instruction"] and '{"pass"' in step["instruction"] and "tools" not in step


def replace_question(question: str) -> Judge:
    return PANEL.model_copy(update={"question": question})
