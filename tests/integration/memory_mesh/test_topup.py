"""A task at its ceiling waits where it stands and goes on when it is topped up: the whole mesh, the model scripted."""

from pathlib import Path
from typing import Any

from bulkhead.runtime.decider.history import TaskHistory
from bulkhead_contracts import catalog
from bulkhead_contracts.budget import Alerted, LimitsChanged, Reserved, settlements_of
from bulkhead_contracts.control import CallResumed, Switched
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.step import StepAssigned, StepPaused
from bulkhead_contracts.task import TaskPaused
from bulkhead_contracts.tool import ToolCallReplied
from tests.replay.scenes import topped_up
from tests.replay.stage import OPERATOR, stage


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
        bodies = [catalog.decode_body(one.ce_type, one.body) for one in history.messages]
        settled = [one.usage for body in bodies for one in settlements_of(body)]
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
