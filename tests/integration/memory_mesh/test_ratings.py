"""Ratings from code: a person's, a judge's over a share of what ended, and what becomes of them."""

import asyncio
import json
import time
from functools import partial
from pathlib import Path

import pytest

from bulkhead.blobs import reference
from bulkhead.client import Refused, SyncMesh
from bulkhead.evaluation.judges.certificates import SeatedJudge
from bulkhead.evaluation.judges.jury import build_vote_plan
from bulkhead.evaluation.judges.panels import Judge, Juror
from bulkhead.evaluation.on_mesh import MeshRunner
from bulkhead.evaluation.online import (
    AnsweredTask,
    DayBudget,
    JudgedTask,
    OnlineJudging,
    OnlineVerdict,
    SeatedOnlineJudge,
    is_sampled,
)
from bulkhead.gateway_api.ratings import OF_ONLINE_JUDGES, QualityQuery
from bulkhead_cli.evaluation.sets import write_labels
from bulkhead_cli.target import GatewayTarget
from bulkhead_contracts import bounds
from tests.replay.stage import EVALUATOR, OPERATOR, Stage, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import Exchange, says

ANN = "bk_ann_of_demo"
FARES = "The fare to Graz is EUR 12."
ADVISER = SeatedJudge(judge=Judge(name="grounded"), advice="it has no certificate")
GROUNDED = SeatedOnlineJudge(lambda: ADVISER)
OTHER_JUROR = {"model": "m1", "free_models": ("m1",), "routes": {"small": {"model": "offline-rules-1"}}}
"""A juror of the answers' own family would not count."""
MARKER = reference("rag", FARES.encode()).marker


async def answer_task(on: Stage, answer: str, *, check: bool = True, feature: str = "fares") -> str:
    verdict = says(json.dumps({"verdict": "accept", "score": 1.0, "reasons": [], "answered": "yes"}))
    search = use(call("search_documents", query="What is the fare to Graz?"))
    step = {"id": "a", "tools": ["search_documents"]}
    on.model.will(plan(step), a=[search, says(answer)], judges={"a": [verdict]})
    return (await on.run("What is the fare to Graz?", feature=feature, check=check))["task_id"]


class DearJudge:
    """Each verdict costs a dollar."""

    limit_usd_micros = 1_000_000

    def __init__(self, name: str = "dear@1") -> None:
        self.name = name

    async def judge(self, answered: AnsweredTask) -> OnlineVerdict:
        return OnlineVerdict(True, answered.answer, {answered.task: self.limit_usd_micros}, True)


async def judged_by(judging: OnlineJudging, now_unix_ms: int = 0) -> list[JudgedTask]:
    return [judged async for judged in judging.judge_ended(now_unix_ms)]


@pytest.mark.slow
async def test_a_share_of_what_ended_is_judged_once_within_the_money_of_the_day(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, on.client() as ann, on.client(EVALUATOR) as judge:
        await ann.add_document(FARES.encode(), "fares.md")
        good = await answer_task(on, f"The fare to Graz is EUR 12 [#{MARKER}].")
        bad = await answer_task(on, f"The fare to Graz is EUR 77 [#{MARKER}].", check=False)
        first = await judged_by(OnlineJudging(judge, GROUNDED, 1.0, DayBudget(0)))
        assert [(row.task, row.verdict and row.verdict.passed) for row in first] == [(good, True), (bad, False)]
        assert not await judged_by(OnlineJudging(judge, GROUNDED, 1.0, DayBudget(0))), "after a restart, too"
        seen = (await ann.task(bad).show())["ratings"]
        assert (seen["advice"], seen["judged_bad"], seen["bad"], seen["named"]) == (1, 0, 0, [])
        async with on.client(OPERATOR) as olga:
            [rating] = (await olga.task(bad).show())["ratings"]["named"]
        assert rating["judge"] == GROUNDED.name and "77" in rating["comment"] and not rating["certified"]

        judging = OnlineJudging(judge, DearJudge(), 1.0, DayBudget(1_500_000))
        assert [bool(row.verdict) for row in await judged_by(judging)] == [True, False], "the money of the day is spent"
        assert [bool(row.verdict) for row in await judged_by(judging, 86_400_000)] == [True], "the next day it goes on"
        none = OnlineJudging(judge, GROUNDED, 1e-9, DayBudget(0))
        assert not await judged_by(none)
        page = await ann.read(QualityQuery(since="1h"))
        assert page.total.judged is not None and (page.total.ratings.judged_good, page.total.ratings.advice) == (2, 2)
        with pytest.raises(Refused, match="gives no rating of the kind judge"):
            await ann.task(bad).rate("good", kind="judge", judge="mine@1")
        for change in range(1, bounds.MAX_RATING_CHANGES):
            await judge.task(good).rate("bad" if change % 2 else "good", kind="judge", judge="dear@0")
        rows = await judged_by(OnlineJudging(judge, DearJudge("dear@2"), 1.0, DayBudget(10**7)))
        words = [(row.task, row.verdict and row.verdict.passed) for row in rows]
        assert words == [(good, None), (bad, True)], "what is refused for one task holds up no other"


@pytest.mark.slow
async def test_a_panel_votes_and_rates_under_the_key_of_an_evaluator(tmp_path: Path) -> None:
    async with stage(tmp_path, **OTHER_JUROR) as on, on.client() as ann, on.client(EVALUATOR) as eva:
        await ann.add_document(FARES.encode(), "fares.md")
        task = await answer_task(on, f"The fare to Graz is EUR 77 [#{MARKER}].")
        on.model.will(vote=[says('{"pass": false, "reason": "It is EUR 12."}')])
        seat = SeatedJudge(judge=Judge(name="panel", jury=(Juror(route="small"),)), advice="it has no certificate")
        plan_of = partial(build_vote_plan, {"panel": seat})
        votes = MeshRunner(eva, feature=OF_ONLINE_JUDGES, deadline_s=20, plan_of=plan_of, check=False)
        judging = OnlineJudging(eva, SeatedOnlineJudge(lambda: seat, votes), 1.0, DayBudget(10**6))
        [judged] = await judged_by(judging)
        assert judged.task == task and judged.verdict is not None and judged.verdict.passed is False
        [own] = (await eva.task(task).show())["ratings"]["own"]
        assert (own["score"], own["judge"][:6], own["certified"]) == ("bad", "panel@", False)
        budget = DayBudget(10**6)
        judging = OnlineJudging(eva, SeatedOnlineJudge(lambda: seat, votes), 1.0, budget)
        await judging.read_spent(round(time.time() * 1000))
        assert budget.spent_usd_micros == judged.verdict.cost_usd_micros > 0
        assert not await judged_by(judging), "a vote is not judged itself"

        slow = asyncio.Event()

        async def wait_for_judge(x: Exchange) -> None:
            slow.set()
            await x.hung_up()

        second = await answer_task(on, f"The fare to Graz is EUR 12 [#{MARKER}].")
        on.model.will(vote=[wait_for_judge])
        stopped = asyncio.create_task(judged_by(judging))
        await slow.wait()
        on.model.will(vote=[says('{"pass": true, "reason": "It is."}')])
        await eva.task((await eva.tasks(1))[0]["task_id"]).cancel("stopped")
        [judged] = await stopped
        assert judged.task == second and judged.verdict is not None and judged.verdict.passed is True
        assert len(judged.verdict.costs) == 2, "a vote that was cancelled is made again, and both are counted"


def test_a_share_is_drawn_by_digest() -> None:
    assert 150 < sum(is_sampled(f"t{number}", 0.2) for number in range(1_000)) < 250


async def test_plain_programs_rate_and_labels_go_to_files(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, on.client() as ann:
        await ann.add_document(FARES.encode(), "fares.md")
        task = await answer_task(on, f"The fare to Graz is EUR 12 [#{MARKER}].")

        def rate_plainly() -> None:
            with SyncMesh(on.url, ANN) as mesh:
                assert mesh.task(task).rate("bad", "too dear")["bad"] == 1
                assert mesh.task(task).rate("good")["good"] == 1
                mesh.task(task).rate("bad", kind="label")

        await asyncio.to_thread(rate_plainly)
        path = tmp_path / "labels.jsonl"
        target = GatewayTarget(on.url, OPERATOR)
        assert await write_labels(target, {"since": "1h"}, path, as_json=True) == 0
        [row] = [json.loads(line) for line in path.read_text().splitlines()]
        assert row["id"] == task and row["labels"] == {"ann": "bad"} and row["model"]
        assert (tmp_path / row["documents"][0]).read_text() == FARES
