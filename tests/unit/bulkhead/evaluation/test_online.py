"""A panel that judges online: votes under keys that a restart finds again, and what they cost."""

from bulkhead.evaluation.answers import CaseAnswer
from bulkhead.evaluation.cases import EvaluationCase
from bulkhead.evaluation.judges.certificates import SeatedJudge
from bulkhead.evaluation.judges.panels import Judge, Juror
from bulkhead.evaluation.online import AnsweredTask, DayBudget, SeatedOnlineJudge
from bulkhead.evaluation.runs import CaseRunOutcome, Submission
from tests.unit.bulkhead.evaluation.judges.test_calibration import certificate

DAY_MS = 86_400_000
PANEL = Judge(name="panel", jury=(Juror(route="small"), Juror(route="large"), Juror()), limit_usd=0.03)
ADVISER = SeatedJudge(judge=PANEL, advice="it has no certificate")
ANSWERED = AnsweredTask("t1", "What is the fare?", "EUR 12.", {"fares.md": "It is EUR 12."}, ("m1",))


class ScriptedRunner:
    """Votes that are told, each for a tenth of a cent."""

    def __init__(self, *passed: bool | None) -> None:
        self._passed = list(passed)
        self.submissions: list[Submission] = []

    async def run(self, case: EvaluationCase, route: str, submission: Submission) -> CaseRunOutcome:
        self.submissions.append(submission)
        task, passed = f"v{submission.key}", self._passed.pop(0)
        if passed is None:
            return CaseRunOutcome(task, "cancelled", None, 1, None, 500, 10, code="cancelled")
        vote = f'{{"pass": {str(passed).lower()}, "reason": "says {route or "default"}"}}'
        return CaseRunOutcome(task, "succeeded", CaseAnswer(vote), 1, None, 1_000, 10, models=("openai/juror",))


async def test_a_panel_votes_under_keys_that_follow_from_the_task() -> None:
    first, again = ScriptedRunner(True, False, False), ScriptedRunner(True, True, False)
    judge = SeatedOnlineJudge(lambda: ADVISER, first)
    verdict = await judge.judge(ANSWERED)
    assert (verdict.passed, verdict.cost_usd_micros) == (False, 3_000) and "large: says large" in verdict.reason
    assert judge.limit_usd_micros == 60_000 and not verdict.certified and judge.name.startswith("panel@")
    assert (await SeatedOnlineJudge(lambda: ADVISER, again).judge(ANSWERED)).passed is True
    keys = [submission.key for submission in first.submissions]
    assert keys == [submission.key for submission in again.submissions] and len(set(keys)) == 3
    other = ScriptedRunner(True, True, True)
    await SeatedOnlineJudge(lambda: ADVISER, other).judge(ANSWERED._replace(task="t2"))
    assert not {submission.key for submission in other.submissions} & set(keys)


async def test_a_verdict_is_certified_while_a_certificate_stands_for_the_models_that_voted():
    row = certificate(judge_sha256=PANEL.digest, models=("openai/juror",))
    seats = [SeatedJudge(judge=PANEL, certificate=row)]
    judge = SeatedOnlineJudge(lambda: seats[-1], ScriptedRunner(*[True] * 9))
    assert (await judge.judge(ANSWERED)).certified
    seats.append(SeatedJudge(judge=PANEL, certificate=row.model_copy(update={"models": ("openai/other",)})))
    assert not (await judge.judge(ANSWERED)).certified, "others voted"
    seats.append(SeatedJudge(judge=PANEL, certificate=row, advice="its certificate is past its date"))
    assert not (await judge.judge(ANSWERED)).certified, "it has run out meanwhile"


async def test_a_vote_that_ended_without_an_answer_is_made_again_under_another_key_and_both_are_paid():
    votes = ScriptedRunner(None, True, True, None, None)
    verdict = await SeatedOnlineJudge(lambda: ADVISER, votes).judge(ANSWERED)
    assert (verdict.passed, verdict.cost_usd_micros) == (True, 500 + 1_000 + 1_000 + 2 * 500)
    assert len({submission.key for submission in votes.submissions}) == 5
    assert len({submission.limit_usd_micros for submission in votes.submissions}) == 1, "a key has one ceiling"


def test_a_vote_that_is_read_and_collected_is_counted_once():
    budget = DayBudget(100)
    budget.has_room(0, DAY_MS)
    for cost in (10, 30, 30):
        budget.count_vote("v1", cost)
    assert budget.spent_usd_micros == 30 and budget.has_room(70, DAY_MS) and budget.has_room(100, 2 * DAY_MS)


def test_the_money_of_a_day_is_whole_again_on_the_next() -> None:
    budget = DayBudget(100)
    assert budget.has_room(100, 5 * DAY_MS) and not budget.has_room(101, 5 * DAY_MS)
    budget.spent_usd_micros += 60
    assert not budget.has_room(41, 6 * DAY_MS - 1) and budget.has_room(40, 6 * DAY_MS - 1)
    assert budget.has_room(100, 6 * DAY_MS)
