"""Online judging: a share of the tasks that ended lately is judged, and each verdict is put as the task's rating.

In: a mesh, under the key of an evaluator; a judge; a share; money for a day. Out: ratings of the kind `judge`. Nothing
is kept here: the sample is drawn by digest, and a task whose own rating by this judge stands is judged no more; so it
goes on after a crash where it was.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from bulkhead.client import Mesh
from bulkhead.client.request_checks import check_query
from bulkhead.client.result import TaskResult
from bulkhead.evaluation.answers import MARKER
from bulkhead.evaluation.judges.grounded import judge_grounding
from bulkhead.evaluation.judges.panels import GROUNDED, Judge
from bulkhead.gateway_api.ratings import OF_EVALUATIONS
from bulkhead.gateway_api.tasks import TaskListQuery
from bulkhead_contracts import bounds

DAY_MS = 86_400_000
PAGE = 100
MAX_TASKS = 5_000
"""Tasks of one look, the newest."""
SPAN = "24h"
"""Time in which a task must have begun."""


class OnlineVerdict(NamedTuple):
    """A judge's word on an answer. passed: None where it abstains."""

    passed: bool | None
    reason: str
    cost_usd_micros: int = 0


class OnlineJudge(Protocol):
    """A judge. name: `name@digest`. certified: its certificate holds now. limit_usd_micros: the most that one verdict
    costs."""

    name: str
    certified: bool
    limit_usd_micros: int

    async def judge(self, question: str, answer: str, documents: Mapping[str, str]) -> OnlineVerdict:
        """The verdict on an answer. documents: texts that it may rest on, by name."""
        ...


@dataclass(slots=True)
class DayBudget:
    """Money of a day (UTC)."""

    limit_usd_micros: int
    day: int = 0
    spent_usd_micros: int = 0

    def has_room(self, cost_usd_micros: int, now_unix_ms: int) -> bool:
        """Check whether so much more may be spent today."""
        if now_unix_ms // DAY_MS != self.day:
            self.day, self.spent_usd_micros = now_unix_ms // DAY_MS, 0
        return self.spent_usd_micros + cost_usd_micros <= self.limit_usd_micros


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
        listed = await self._list_sample()
        self._done &= set(listed)
        for task in reversed(listed):
            if task in self._done or await self._is_judged(task):
                self._done.add(task)
                continue
            if not self._budget.has_room(self._judge.limit_usd_micros, now_unix_ms):
                yield JudgedTask(task, None)
                return
            verdict = await self._judge_task(task)
            self._done.add(task)
            yield JudgedTask(task, verdict)

    async def _list_sample(self) -> list[str]:
        """Ids of answered tasks of the sample, the newest first."""
        sample: list[str] = []
        cursor, looked = "", 0
        while looked < MAX_TASKS:
            filters = {"since": SPAN, "status": "succeeded", "kind": "planned", "limit": PAGE, "cursor": cursor}
            page = await self._mesh.read_json(check_query(TaskListQuery, filters))
            looked += len(page["tasks"])
            sample += [row["task_id"] for row in page["tasks"] if self._is_wanted(row)]
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

    async def _judge_task(self, task: str) -> OnlineVerdict:
        """Judge one task, and put the rating unless the judge abstains."""
        result = await self._mesh.task(task).result()
        answer = MARKER.sub("", result.answer or "")
        verdict = await self._judge.judge(result.objective, answer, cited_texts(result))
        self._budget.spent_usd_micros += verdict.cost_usd_micros
        if verdict.passed is not None:
            await self._mesh.task(task).rate(
                "good" if verdict.passed else "bad",
                verdict.reason[: bounds.MAX_REASON_CHARS],
                kind="judge",
                judge=self._judge.name,
                certified=self._judge.certified,
            )
        return verdict


def cited_texts(result: TaskResult) -> dict[str, str]:
    """Texts that an answer cites, by the name of their document, tool or step."""
    texts: dict[str, list[str]] = {}
    for citation in result.citations:
        if citation.text:
            texts.setdefault(citation.source, []).append(citation.text)
    return {name: "\n\n".join(passages) for name, passages in texts.items()}


class GroundingJudge:
    """The shipped judge on what an answer cites. It asks no model, and has no certificate."""

    certified = False
    limit_usd_micros = 0

    def __init__(self) -> None:
        self.name = f"{GROUNDED}@{Judge(name=GROUNDED).digest[:12]}"

    async def judge(self, question: str, answer: str, documents: Mapping[str, str]) -> OnlineVerdict:
        """The verdict; an abstention without documents."""
        vote = await asyncio.to_thread(judge_grounding, question, documents, answer)
        return OnlineVerdict(vote.passed, vote.reason)
