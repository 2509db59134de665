"""A task at its ceiling waits where it stands and goes on when it is topped up: the whole mesh, the model scripted."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bulkhead.client import Refused
from bulkhead.runtime.decider.history import TaskHistory
from bulkhead_contracts import catalog
from bulkhead_contracts.budget import Alerted, LimitsChanged, Reserved, Settled
from bulkhead_contracts.control import CallResumed, Switched
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.step import StepAssigned, StepPaused
from bulkhead_contracts.task import TaskPaused
from bulkhead_contracts.tool import ToolCallReplied
from tests.replay.scenes import paused, topped_up
from tests.replay.stage import OPERATOR, TENANT, plan, stage
from tests.unit.services.model_gateway.scripted_provider import says


def told(history: TaskHistory, kind: type) -> list[Any]:
    return [catalog.decode_body(one.ce_type, one.body) for one in history.messages if one.ce_type == kind.ce_type()]


async def test_it_goes_on_where_it_stood_and_nothing_is_repeated(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        task = await topped_up(on)
        history = await on.history(task)
        asked = [one[:2] for one in on.model.asked]
        assert asked == [("plan", ""), ("work", "a"), ("work", "a"), ("judge", "a"), ("work", "b"), ("judge", "b")]
        assert on.counter.counts()["counts"] == {"kept": 1}, "the effect came once"
        assert [one.attempt for one in told(history, StepAssigned)] == [1, 1]
        for kind in (ModelCallReplied, ToolCallReplied):
            calls = [one.call_id for one in told(history, kind)]
            assert len(calls) == len(set(calls)), "each call was answered once"
        assert [one.active for one in told(history, TaskPaused)] == [True, False] * 3
        assert [one.step_id for one in told(history, TaskPaused) if one.active] == ["", "a", "b"]
        assert {one.code for one in told(history, TaskPaused) if one.active} == {"budget_exceeded"}
        assert len(told(history, CallResumed)) == 3, "each was woken; nobody had to ask by himself"
        assert [one.active for one in told(history, StepPaused)] == [True, False] * 2
        assert [one.halt.active for one in told(history, Switched)] == [True, False] * 3
        async with on.client(OPERATOR) as client:
            document = await client.task(task).show()
            limits = await client.get("/v1/limits")
        settled = [one.usage for one in told(history, Settled)]
        assert document["usage"]["model_calls"] == sum(one.model_calls for one in settled) == len(asked)
        assert document["usage"]["input_tokens"] == sum(one.input_tokens for one in settled), "the cost told is exact"
        assert {one["task"]: one["add"]["model_calls"] for one in limits["top_ups"]} == {task: 13}
        assert max(one.scopes[0].model_calls for one in told(history, Reserved)) == 13
        changes = [
            catalog.decode_body(one.ce_type, one.body)
            for one in await on.mesh.messages("JOURNAL")
            if one.ce_type == LimitsChanged.ce_type()
        ]
        made = [(one.by, one.reason, one.new.model_calls) for one in changes if one.topped_up]
        assert made == [("olga", "it is worth it", number) for number in (3, 4, 13)]
        assert {one.percent for one in told(history, Alerted)} <= {50, 80, 95}


async def test_whom_nobody_tops_up_ends_at_its_deadline_halted_and_says_why(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.model.will(plan({"id": "a"}), a=[says("A holds.")])
        async with on.client(OPERATOR) as client, on.client() as submitter:
            await client.change_limit("task", {"model_calls": 1})
            task = await client.submit("Find it out.", deadline_s=2)
            document = await paused(task)
            assert f"bulkhead topup {task.id} --model-calls 1" in document["pause"]["reason"], document["pause"]
            with pytest.raises(Refused) as refused:
                await submitter.task(task.id).top_up({"model_calls": 1}, "please")
            assert refused.value.code == "forbidden", "nobody releases himself"
            with pytest.raises(Refused) as refused:
                await client.resume("task", task.id, "just go on")
            assert refused.value.code == "at_its_ceiling" and "topup" in refused.value.hint
            with pytest.raises(Refused) as refused:
                await task.top_up({"model_calls": 0}, "nothing")
            assert refused.value.code == "adds_nothing"
            document = await task.result(30)
            assert (document["status"], document["failure"]["code"]) == ("halted", "budget_exceeded"), document
            assert "nobody gave it more" in document["failure"]["message"] and document["pause"] is None
            with pytest.raises(Refused) as refused:
                await task.top_up({"model_calls": 1}, "too late")
            assert refused.value.code == "already_ended" and "fork" in refused.value.hint
        assert [one[:2] for one in on.model.asked] == [("plan", "")]


async def test_a_limit_that_is_raised_lets_go_whoever_waits_under_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.model.will(*[plan({"id": "a"})] * 2, a=[says("A holds.")])
        async with on.client(OPERATOR) as client:
            await client.change_limit("user", {"model_calls": 2})
            tasks = [await client.submit(f"Find {one} out.") for one in ("this", "that")]
            await asyncio.gather(*map(paused, tasks))
            await client.change_limit("user", {"model_calls": 100})
            ends = await asyncio.gather(*(one.result(30) for one in tasks))
        assert [one["status"] for one in ends] == ["succeeded"] * 2
        assert {step["attempts"] for one in ends for step in one["steps"]} == {1}
        assert TENANT == "demo"
