"""Gates, branches, waits and reviewed plans over the whole mesh, the model scripted."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bulkhead.client import Refused
from bulkhead.journal import history, timeline
from bulkhead.journal.story.fold import fold_story
from bulkhead_contracts.plan import Plan, PlanStep
from tests.eventually import until
from tests.integration.memory_mesh.test_plan_calls import waiting
from tests.integration.memory_mesh.test_tool_policies import policies
from tests.replay.scenes import paused
from tests.replay.stage import APPROVER, TENANT, plan, stage
from tests.unit.services.model_gateway.scripted_provider import says


def agent(name: str, *inputs: str) -> dict[str, Any]:
    row = {"id": name, "title": name, "instruction": f"Do {name}.", "acceptance": "It is done."}
    return {**row, "inputs": list(inputs)}


def plain(name: str, *inputs: str, **action: Any) -> dict[str, Any]:
    return {"id": name, "title": name, "instruction": "", "kind": "noop", "inputs": list(inputs), **action}


FLOW = {
    "steps": [
        agent("sort"),
        plain(
            "fits",
            "sort",
            gate={
                "of": "sort",
                "json_schema": '{"type": "object", "required": ["kind"]}',
                "checks": [{"test": "matches", "text": "refund|fee"}],
                "on_fail": "retry",
            },
        ),
        plain(
            "which",
            "fits",
            branch={
                "of": "fits",
                "field": "/kind",
                "cases": [{"test": "is", "text": "refund", "steps": ["refund"]}],
                "otherwise": ["fee"],
            },
        ),
        agent("refund", "which"),
        agent("fee", "which"),
        plain("pause", "which", wait={"duration_ms": 300}),
        agent("end", "refund", "fee", "pause"),
    ]
}


@pytest.mark.slow
async def test_a_plan_with_gate_branch_and_wait_runs_as_it_is_written(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, on.client() as ann:
        on.model.will(
            sort=[says("It is about a refund."), says('{"kind": "refund"}')],
            refund=[says("Refunded.")],
            end=[says("All is refunded.")],
        )
        task = await ann.submit("See to the ticket.", plan=FLOW)
        document = await task.wait_until_ended(30)
        steps = {step["step_id"]: (step["status"], step["attempts"]) for step in document["steps"]}
        assert document["status"] == "succeeded" and document["answer"].startswith("All is refunded")
        assert steps["sort"] == ("accepted", 2) and steps["fits"] == ("accepted", 2)
        assert steps["fee"] == ("skipped", 0) and steps["pause"] == ("accepted", 1)
        assert (document["steps_done"], document["steps_total"], on.model.count("work", "fee")) == (6, 6, 0)
        [again] = [body for role, step, body in on.model.asked if (role, step) == ("work", "sort")][1:]
        assert "no JSON" in str(again["messages"]), "the gate's reasons are told"
        entries = history.build_entries(await on.mesh.messages("JOURNAL", f"mesh.*.*.*.{TENANT}.{task.id}.*"))
        console = Console(file=io.StringIO(), width=300)
        console.print(timeline.build_tree(task.id, entries))
        assert "skips fee" in str(console.file.getvalue())  # type: ignore[attr-defined]
        story = fold_story(entries, task.id, 0, {})
        told = {step.step_id: step for step in story.steps}
        assert told["fee"].outcome == "skipped" and "no JSON" in told["fits"].refused[0]
        assert [wait.kind for wait in told["pause"].waits][-1:] == ["time"]


@pytest.mark.slow
async def test_a_gate_asks_a_person_who_lets_the_result_pass(tmp_path: Path) -> None:
    note = {"id": "note", "title": "Note", "instruction": "It costs 12 EUR.", "kind": "noop"}
    cites = plain("cites", "note", gate={"of": "note", "checks": [{"test": "cites"}], "on_fail": "person"})
    async with stage(tmp_path, rule=None, executor=policies(tmp_path)) as on, on.client() as ann:
        task = await ann.submit("Note it.", plan={"steps": [note, cites]}, check=False)
        async with on.client(APPROVER) as bob:
            row = await waiting(bob)
            assert "The result of note does not pass: it cites no source" in row.request.preview
            await bob.grant(row, "it is in the contract")
        document = await task.wait_until_ended(30)
    assert (document["status"], document["result"]["summary"]) == ("succeeded", "It costs 12 EUR.")


async def test_a_plan_that_does_not_fit_is_refused_at_once_with_its_place(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, on.client() as ann:
        broken = {"steps": [*FLOW["steps"][:3], agent("refund", "sort"), agent("fee", "which")]}
        with pytest.raises(Refused) as refused:
            await ann.submit("See to the ticket.", plan=broken)
        assert refused.value.code == "plan_rejected"
        assert "step which, branch: refund does not wait for the branch" in str(refused.value)
        assert "refund would build on sort before it has passed" in str(refused.value)
        assert await ann.tasks() == []


@pytest.mark.slow
async def test_a_drafted_plan_waits_for_a_person_over_restarts(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, on.client() as ann, on.client(APPROVER) as bob:
        on.model.will(plan({"id": "a"}), plan({"id": "b"}), c=[says("Done otherwise.")])
        task = await ann.submit("Do it.", approve_plan=True)
        await paused(task)
        first = await ann.task(task.id).plan()
        assert first.state == "in_review" and first.plan is not None and first.plan.steps[0].id == "a"
        with pytest.raises(Refused) as forbidden:
            await ann.task(task.id).decide_plan("approve", first.sha256)
        assert forbidden.value.code == "forbidden"
        await bob.task(task.id).decide_plan("reject", first.sha256, "say b", redraft=True)

        async def second_waits() -> bool:
            document = await bob.task(task.id).plan()
            return document.state == "in_review" and document.sha256 != first.sha256

        await until(second_waits)
        assert "say b" in str(on.model.asked[-1][2]["messages"])
        await on.restart("planner", "gateway")
        async with on.client(APPROVER) as bob_again:
            second = await bob_again.task(task.id).plan()
            with pytest.raises(Refused) as late:
                await bob_again.task(task.id).decide_plan("approve", first.sha256)
            assert late.value.code == "not_in_review"
            edited = Plan(steps=(PlanStep(id="c", title="C", instruction="Do c.", acceptance="It is done."),))
            await bob_again.task(task.id).decide_plan("approve", second.sha256, plan=edited)
            document = await bob_again.task(task.id).wait_until_ended(30)
            assert (document["status"], document["answer"]) == ("succeeded", "Done otherwise.")
            adopted = await bob_again.task(task.id).plan()
            assert adopted.state == "adopted" and adopted.plan is not None and adopted.plan.approval == "approved"
