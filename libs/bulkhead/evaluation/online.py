"""Online judging: a share of the tasks that ended lately is judged, and each verdict is put as the task's rating.

In: a mesh, under the key of an evaluator; a judge; a share; money for a day. Out: ratings of the kind `judge`. Nothing
is kept here: the sample is drawn by digest, and a task whose own rating by this judge stands is judged no more; so it
goes on after a crash where it was.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from bulkhead.client import Mesh, Refused
from bulkhead.client.request_checks import check_query
from bulkhead.client.result import TaskResult
from bulkhead.evaluation.answers import MARKER, CaseAnswer
from bulkhead.evaluation.cases import Check, EvaluationCase
from bulkhead.evaluation.judges.certificates import DAY_MS, SeatedJudge
from bulkhead.evaluation.judges.jury import Jury
from bulkhead.evaluation.runs import CaseRunOutcome, EvaluationBudget, Runner, RunRecord, RunSlot, Submission
from bulkhead.gateway_api.ratings import OF_EVALUATIONS, OF_ONLINE_JUDGES
from bulkhead.gateway_api.tasks import TaskListQuery
from bulkhead_contracts import bounds

PAGE = 100
MAX_TASKS = 5_000
"""Tasks of one look, the newest."""
ATTEMPTS = 2
"""At one vote: a task may be cancelled, or fail, and would be collected without an answer for ever."""
OF_ONE_TASK = (404, 409, 422)
"""Refusals that the other tasks have nothing to do with: it was purged, has as many ratings as it may, or changed."""
SPAN = "24h"
"""Time in which a task must have begun."""


class OnlineVerdict(NamedTuple):
    """A judge's word on an answer. passed: None where it abstains. costs: of the tasks of its votes, USD micros.
    certified: a certificate stands for it."""

    passed: bool | None
    reason: str
    costs: Mapping[str, int] = {}
    certified: bool = False

    @property
    def cost_usd_micros(self) -> int:
        """Cost of all votes."""
        return sum(self.costs.values())


class AnsweredTask(NamedTuple):
    """A task that has an answer, as a judge is shown it. documents: texts that it cites, by name. models: that it rests
    on."""

    task: str
    question: str
    answer: str
    documents: Mapping[str, str]
    models: tuple[str, ...] = ()


class OnlineJudge(Protocol):
    """A judge. name: `name@digest`. limit_usd_micros: the most that one verdict costs."""

    name: str
    limit_usd_micros: int

    async def judge(self, answered: AnsweredTask) -> OnlineVerdict:
        """The verdict on an answer."""
        ...


@dataclass(slots=True)
class DayBudget:
    """Money of a day (UTC). votes: what is counted of each task."""

    limit_usd_micros: int
    day: int = 0
    spent_usd_micros: int = 0
    votes: dict[str, int] = field(default_factory=dict)

    def has_room(self, cost_usd_micros: int, now_unix_ms: int) -> bool:
        """Check whether so much more may be spent today."""
        if now_unix_ms // DAY_MS != self.day:
            self.day, self.spent_usd_micros, self.votes = now_unix_ms // DAY_MS, 0, {}
        return self.spent_usd_micros + cost_usd_micros <= self.limit_usd_micros

    def count_vote(self, task: str, cost_usd_micros: int) -> None:
        """Count the cost of a vote once, though it is read and collected."""
        self.spent_usd_micros += cost_usd_micros - self.votes.get(task, 0)
        self.votes[task] = cost_usd_micros


class JudgedTask(NamedTuple):
    """A task of the sample, and the verdict; None where the money of the day does not suffice."""

    task: str
    verdict: OnlineVerdict | None


def is_sampled(task: str, share: float) -> bool:
    """Check whether the digest of a task's id falls into the share."""
    number = int.from_bytes(hashlib.sha256(f"online/{task}".encode()).digest()[:8], "big")
    return number < share * 2**64


class OnlineJudging:
    """Judges what has ended since the last look. share: of the tasks, from 0 to 1."""

    def __init__(self, mesh: Mesh, judge: OnlineJudge, share: float, budget: DayBudget) -> None:
        self._mesh, self._judge, self._share, self._budget = mesh, judge, share, budget
        self._done: set[str] = set()

    async def judge_ended(self, now_unix_ms: int) -> AsyncIterator[JudgedTask]:
        """Judge tasks of the sample that are not judged yet, the oldest first. Raises MeshError."""
        sample = await self._list_sample()
        self._done &= set(sample)
        for task in reversed(sample):
            if task in self._done:
                continue
            try:
                if not await self._is_judged(task):
                    if not self._budget.has_room(self._judge.limit_usd_micros, now_unix_ms):
                        yield JudgedTask(task, None)
                        return
                    yield JudgedTask(task, await self._judge_task(task, sample[task]))
            except Refused as error:
                if error.status not in OF_ONE_TASK:
                    raise
                yield JudgedTask(task, OnlineVerdict(None, f"it is not judged: {error}"))
            self._done.add(task)

    async def read_spent(self, now_unix_ms: int) -> None:
        """Count the cost of today's votes that were paid before this began. Raises MeshError."""
        today = datetime.fromtimestamp(now_unix_ms / 1000, UTC).strftime("%Y-%m-%d")
        filters: dict[str, object] = {"feature": OF_ONLINE_JUDGES, "since": today, "limit": PAGE}
        cursor: str | None = ""
        self._budget.has_room(0, now_unix_ms)
        while cursor is not None:
            page = await self._mesh.read_json(check_query(TaskListQuery, filters | {"cursor": cursor}))
            for row in page["tasks"]:
                self._budget.count_vote(row["task_id"], row["cost_usd_micros"])
            cursor = page.get("next")

    async def _list_sample(self) -> dict[str, tuple[str, ...]]:
        """Answered tasks of the sample, the newest first, each with the models that it rests on."""
        sample: dict[str, tuple[str, ...]] = {}
        cursor, looked = "", 0
        while looked < MAX_TASKS:
            filters = {"since": SPAN, "status": "succeeded", "kind": "planned", "limit": PAGE, "cursor": cursor}
            page = await self._mesh.read_json(check_query(TaskListQuery, filters))
            looked += len(page["tasks"])
            sample |= {row["task_id"]: tuple(row["models"]) for row in page["tasks"] if self._is_wanted(row)}
            cursor = page.get("next") or ""
            if not cursor:
                break
        return sample

    def _is_wanted(self, row: Mapping[str, Any]) -> bool:
        is_evaluation = row.get("feature") in OF_EVALUATIONS
        return row["standing"] is not None and not is_evaluation and is_sampled(row["task_id"], self._share)

    async def _is_judged(self, task: str) -> bool:
        ratings = (await self._mesh.task(task).show())["ratings"]["own"]
        return any(rating["kind"] == "judge" and rating["judge"] == self._judge.name for rating in ratings)

    async def _judge_task(self, task: str, models: tuple[str, ...]) -> OnlineVerdict:
        """Judge one task, and put the rating unless the judge abstains."""
        result = await self._mesh.task(task).result()
        answer = MARKER.sub("", result.answer or "")
        answered = AnsweredTask(task, result.objective, answer, cited_texts(result), models)
        verdict = await self._judge.judge(answered)
        for vote, cost_usd_micros in verdict.costs.items():
            self._budget.count_vote(vote, cost_usd_micros)
        if verdict.passed is not None:
            await self._mesh.task(task).rate(
                "good" if verdict.passed else "bad",
                verdict.reason[: bounds.MAX_REASON_CHARS],
                kind="judge",
                judge=self._judge.name,
                certified=verdict.certified,
            )
        return verdict


def cited_texts(result: TaskResult) -> dict[str, str]:
    """Texts that an answer cites, by the name of their document, tool or step."""
    texts: dict[str, list[str]] = {}
    for citation in result.citations:
        if citation.text:
            texts.setdefault(citation.source, []).append(citation.text)
    return {name: "\n\n".join(passages) for name, passages in texts.items()}


class SeatedOnlineJudge:
    """A judge of `bulkhead.evaluation.judges`: the shipped one by plain rules, or a panel whose votes are tasks of the
    mesh. read_seat: the judge with its standing now, asked before each verdict, for a certificate runs out. runner:
    makes the votes; None for a judge that asks no model."""

    def __init__(self, read_seat: Callable[[], SeatedJudge], runner: Runner | None = None) -> None:
        self._read_seat, self._runner = read_seat, runner
        judge = read_seat().judge
        self.name = f"{judge.name}@{judge.digest[:12]}"
        self.limit_usd_micros = ATTEMPTS * judge.limit_usd_micros * len(judge.jury)

    async def judge(self, answered: AnsweredTask) -> OnlineVerdict:
        """The verdict of all votes."""
        seat = await asyncio.to_thread(self._read_seat)
        name = seat.judge.name
        case = EvaluationCase(name=answered.task, objective=answered.question, checks=(Check(judge=name),))
        answer = CaseAnswer(answered.answer)
        outcome = CaseRunOutcome(answered.task, "succeeded", answer, 0, None, 0, 0, models=answered.models)
        budget = EvaluationBudget(max(1, self.limit_usd_micros))
        voting = _RepeatedVotes(self._runner) if self._runner is not None else None
        jury = Jury({name: seat}, voting, lambda _: answered.documents)
        slot = (answered.task, "online", 0)
        verdicts = await jury.judge_answer(case, slot, outcome, budget, _VoteKeys())
        costs = voting.costs if voting is not None else {}
        if not verdicts:
            return OnlineVerdict(None, "the money of the verdict does not suffice", costs)
        [verdict] = verdicts
        is_certified = seat.certificate is not None and not verdict.advice
        return OnlineVerdict(verdict.passed, verdict.reason, costs, is_certified)


class _RepeatedVotes:
    """A `Runner` that asks again, under the next key, where a vote ended without an answer. costs: by task."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.costs: dict[str, int] = {}

    async def run(self, case: EvaluationCase, route: str, submission: Submission) -> CaseRunOutcome:
        """The first attempt with an answer, or the last one; it costs what all did. Raises what the runner raises."""
        cost_usd_micros = 0
        for attempt in range(ATTEMPTS):
            outcome = await self._runner.run(case, route, replace(submission, key=f"{submission.key}/{attempt}"))
            self.costs[outcome.task] = outcome.cost_usd_micros
            cost_usd_micros += outcome.cost_usd_micros
            if outcome.answer is not None:
                break
        return replace(outcome, cost_usd_micros=cost_usd_micros)


class _VoteKeys(RunRecord):
    """Votes under keys that follow from task, judge and juror: one that began before a crash is collected, and not paid
    again."""

    def begin_run(self, slot: RunSlot, limit_usd_micros: int) -> Submission:
        return Submission("/".join(map(str, slot)), limit_usd_micros)
