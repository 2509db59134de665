"""The Python client's typed results and its form without `await`, against the whole mesh in one process."""

import asyncio
import inspect
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from bulkhead.blobs import reference
from bulkhead.client import Mesh, Refused, SyncMesh, SyncTask, Task
from tests.integration.memory_mesh.test_approvals import writing
from tests.replay.stage import APPROVER, OPERATOR, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

FARES = "The fare to Graz is EUR 12."


async def test_a_result_has_the_answer_with_its_passages_its_cost_and_its_steps(tmp_path: Path) -> None:
    marker = reference("rag", FARES.encode()).marker
    async with stage(tmp_path) as on, on.client() as ann:
        await ann.add_document(FARES.encode(), "fares.md")
        answer = f"The fare is EUR 12 [#{marker}]."
        search = use(call("search_documents", query="What is the fare to Graz?"))
        verdict = says(json.dumps({"verdict": "accept", "score": 1.0, "reasons": [], "answered": "yes"}))
        step = {"id": "a", "tools": ["search_documents"]}
        on.model.will(plan(step), a=[search, says(answer)], judges={"a": [verdict]})
        task = await ann.submit("What is the fare to Graz?")
        result = await task.result(30)
        assert result.answer == answer and result.is_whole
        assert (result.status, result.answered, result.standing) == ("succeeded", "yes", "ok")
        assert result.cost_usd == Decimal(result.usage.cost_usd_micros) / 1_000_000 > 0
        assert [(step.step_id, step.status) for step in result.steps] == [("a", "accepted")]
        [citation] = result.citations
        assert (citation.marker, citation.kind, citation.source) == (marker, "document", "fares.md")
        assert (citation.place, citation.text) == (f"characters 0–{len(FARES)}", FARES)

        account = await task.why()
        assert account.content and account.text and account.story.status == "succeeded"
        assert {step.step_id for step in account.story.steps} == {step.step_id for step in result.steps}
        rows = [row async for row in task.timeline()]
        assert [row.number for row in rows] == [*range(1, len(rows) + 1)] and any(row.call for row in rows)
        async with on.client(OPERATOR) as olga:
            models = await olga.task(task.id).spend()
            assert models.by == "model" and models.total.spent.cost_usd_micros >= result.usage.cost_usd_micros
            assert task.id in {row.name for row in (await olga.spend("task")).rows}
        with pytest.raises(Refused, match="may not see what is spent"):
            await task.spend()


async def test_plain_programs_do_the_same_without_await(tmp_path: Path) -> None:
    def decide_in_order(url: str, task_id: str) -> None:
        with SyncMesh(url, APPROVER) as bob, SyncMesh(url, "bk_ann_of_demo") as ann, SyncMesh(url, OPERATOR) as olga:
            task = ann.task(task_id)
            names = []
            for event in task.events():
                names.append(event.name)
                if event.name == "task.paused":
                    [approval] = bob.approvals().approvals
                    assert approval.request.tool == "counter_increment"
                    assert bob.grant(approval, "seen on the invoice").state == "granted"
            assert names[-1] == "task.ended" and task.id == task_id
            result = task.result(timeout_s=30)
            assert result.answer == "Here is a." and result.steps[0].status == "accepted" and result.citations == ()
            assert [row.number for row in task.timeline()] and task.why().story.steps
            olga.halt("tool", "counter_increment", "the shop is closed")
            [halt] = ann.halts()
            assert (halt.known_as, halt.reason) == ("counter_increment", "the shop is closed")
            with pytest.raises(Refused, match="no task"):
                ann.task("t-none").result()
            first_event = next(iter(task.events()))  # Its stream is closed by whoever drops it.
            assert first_event.name == names[0]

    async with writing(tmp_path) as (on, _, _, task):
        await asyncio.to_thread(decide_in_order, on.url, task.id)


@pytest.mark.parametrize(("core", "plain"), [(Mesh, SyncMesh), (Task, SyncTask)])
def test_each_method_has_its_plain_form(core: type, plain: type) -> None:
    def public_methods(owner: type) -> dict[str, Callable[..., object]]:
        return {name: item for name, item in vars(owner).items() if name[0] != "_" and inspect.isfunction(item)}

    plain_methods = public_methods(plain)
    for name, method in public_methods(core).items():
        if name not in ("task", "close"):
            assert inspect.signature(method) == inspect.signature(plain_methods[name]), name
            assert plain_methods[name].__doc__ == method.__doc__, name
