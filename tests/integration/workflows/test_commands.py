"""`bulkhead workflows` over a whole mesh: from a task that went well to a published workflow that runs."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from bulkhead.client import Mesh
from bulkhead.workflows.ledger import WorkflowLedger
from bulkhead_cli.main import app
from bulkhead_services.gateway.schedules import ScheduleRunner
from tests.replay.stage import APPROVER, EDITOR, OPERATOR, Stage, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

ANN = "bk_ann_of_demo"
DAY_MS = 24 * 3_600_000


async def run(on: Stage, *words: str, code: int = 0, key: str = EDITOR) -> str:
    """Output of a command, beside the mesh that it asks."""
    result = await asyncio.to_thread(
        CliRunner().invoke, app, ["workflows", *words, "--url", on.url, "--api-key", key], catch_exceptions=False
    )
    assert result.exit_code == code, result.output
    return result.stdout if not code else result.output


@pytest.mark.slow
async def test_a_task_that_went_well_becomes_a_workflow_that_runs_without_a_planner(tmp_path):
    async with stage(tmp_path) as on:
        step = {"id": "sum", "tools": ["calculate"], "instruction": "Add 1 + 1 for ACME."}
        on.model.will(plan(step), sum=[use(call("calculate", expression="1 + 1")), says("It is 2.")])
        task = (await on.run("Add it up for ACME."))["task_id"]

        refused = await run(on, "save", task, "--name", "sums", "--parameter", "x=nowhere", code=4, key=OPERATOR)
        assert "the parameter x stands nowhere" in refused
        saved = await run(on, "save", task, "--name", "sums", "--parameter", "customer=ACME", key=OPERATOR)
        assert "sums.1 is draft" in saved
        assert "Add 1 + 1 for {{customer}}." in await run(on, "show", "sums")

        file = tmp_path / "sums.yaml"
        file.write_text((await run(on, "show", "sums")).replace("  default: ACME\n", ""))
        assert "1 steps, 1 parameters" in await run(on, "check", str(file))
        assert "sums.2 is draft" in await run(on, "draft", str(file), "--note", "every run says for whom")
        assert "- parameters.customer.default: ACME" in await run(on, "diff", "sums")
        assert "has this very content" in await run(on, "draft", str(file), "--note", "again", code=4)

        assert "sums.2 is in review" in await run(on, "submit-for-review", "sums")
        assert "prompt_editor may not approve" in await run(on, "approve", "sums", "--reason", "fine", code=4)
        refused = await run(on, "run", "sums", "-p", "customer=Bee", key=ANN, code=4)
        assert "in review, and only a published version runs" in refused
        assert "sums.2 is approved" in await run(on, "approve", "sums", "--reason", "fine", key=APPROVER)
        assert "sums.2 is published" in await run(on, "publish", "sums")
        assert "customer is missing" in await run(on, "run", "sums", key=ANN, code=4)

        on.model.will(sum=[use(call("calculate", expression="1 + 1")), says("It is 2.")])
        ran = json.loads(await run(on, "run", "sums", "-p", "customer=Bee", "--json", key=ANN))["task_id"]
        async with Mesh(on.url, ANN) as ann, Mesh(on.url, OPERATOR) as olga:
            ended = await ann.task(ran).wait_until_ended()
            assert (ended["status"], ended["objective"]) == ("succeeded", "Add it up for Bee.")
            assert on.model.count("plan") == 0 and ended["workflow"] == "sums.2"
            spend = await olga.spend("workflow")
            assert "sums.2" in [row.name for row in spend.rows]
            again = await ann.run_workflow("sums", {"customer": "Bee"}, idempotency_key="k")
            assert (await ann.run_workflow("sums", {"customer": "Bee"}, idempotency_key="k")).id == again.id
        assert "sums.2 is retired" in await run(on, "retire", "sums", "--reason", "over")
        assert "only a published version runs" in await run(on, "run", "sums", "-p", "customer=Bee", key=ANN, code=4)


@pytest.mark.slow
async def test_who_drafted_it_approves_nothing_and_a_nested_version_has_to_be_published(tmp_path):
    async with stage(tmp_path) as on:
        inner, outer = tmp_path / "inner.yaml", tmp_path / "outer.yaml"
        inner.write_text(
            "objective: Look\nparameters: [{name: topic}]\n"
            "steps: [{id: look, instruction: 'Look for {{topic}}.', acceptance: found}]\n"
        )
        outer.write_text(
            "objective: All of it\nsteps:\n- {id: scan, workflow: inner.1, parameters: {topic: tea}}\n"
            "- {id: tell, instruction: Tell it., acceptance: told, inputs: [scan]}\n"
        )
        assert "inner.1, which is not there" in await run(on, "draft", str(outer), "--note", "first", code=4)
        await run(on, "draft", str(inner), "--note", "first", key=OPERATOR)
        await run(on, "draft", str(outer), "--note", "first")
        await run(on, "submit-for-review", "inner", key=OPERATOR)
        assert "another person has to approve it" in await run(
            on, "approve", "inner", "--reason", "x", code=4, key=OPERATOR
        )
        await run(on, "submit-for-review", "outer")
        await run(on, "approve", "outer", "--reason", "fine", key=OPERATOR)
        assert "nests inner.1, which is in review" in await run(on, "publish", "outer", code=4)
        await run(on, "approve", "inner", "--reason", "fine", key=APPROVER)
        await run(on, "publish", "inner")
        await run(on, "publish", "outer")
        on.model.will(scan=[says("Tea is here.")], tell=[says("Tea.")])
        ran = json.loads(await run(on, "run", "outer", "--json", key=ANN))["task_id"]
        async with Mesh(on.url, ANN) as ann:
            ended = await ann.task(ran).wait_until_ended()
        assert ended["status"] == "succeeded", ended["failure"]
        assert [row["step_id"] for row in ended["steps"]] == ["scan", "tell"]


@pytest.mark.slow
async def test_a_schedule_begins_each_run_once(tmp_path):
    async with stage(tmp_path) as on:
        file = tmp_path / "daily.yaml"
        file.write_text(
            "objective: Look\nparameters: [{name: topic}]\n"
            "steps: [{id: look, instruction: 'Look for {{topic}}.', acceptance: found}]\n"
        )
        await run(on, "draft", str(file), "--note", "first")
        await run(on, "submit-for-review", "daily")
        times = ("schedule", "daily", "--cron", "0 7 * * *", "--zone", "Europe/Berlin", "-p", "topic=tea")
        await run(on, "approve", "daily", "--reason", "fine", key=APPROVER)
        await run(on, "publish", "daily")
        assert "more often" in await run(on, *times[:3], "* * * * *", code=4, key=OPERATOR)
        assert "other is no parameter" in await run(on, *times, "-p", "other=x", code=4, key=OPERATOR)
        assert "prompt_editor may not schedule" in await run(on, *times, code=4)
        await run(on, *times, "--missed", "run_once", key=OPERATOR)
        assert "at 0 7 * * * Europe/Berlin" in await run(on, "list")

        on.model.will(look=[says("Tea.")])
        gateway = on.mesh.running["gateway", "0"].service.component
        context, intake, now = gateway._context, gateway._intake, gateway._context.clock()
        keys_of = gateway._auth.keys_of
        replicas = [ScheduleRunner(context, intake, WorkflowLedger(context.bus), keys_of) for _ in range(2)]
        for runner in (gateway.schedules, *replicas):
            await runner.begin_due_runs(now)
            await runner.begin_due_runs(now + 2 * DAY_MS)
        async with Mesh(on.url, OPERATOR) as olga:
            rows = [row for row in await olga.tasks() if row["person"] == "olga"]
            assert [row["objective"] for row in rows] == ["Look"]
            ended = await olga.task(rows[0]["task_id"]).wait_until_ended()
            assert (ended["status"], ended["workflow"]) == ("succeeded", "daily.1")
            assert "no run begins by itself" not in await run(on, "show", "daily")
            keys = tmp_path / "keys.json"
            known = keys.read_text()
            others = [row for row in json.loads(known)["keys"] if row["person"] != "olga"]
            keys.write_text(json.dumps({"keys": others}))
            await ScheduleRunner(context, intake, WorkflowLedger(context.bus), keys_of).begin_due_runs(now + 3 * DAY_MS)
            assert "no run begins by itself: olga, who set the schedule" in await run(on, "show", "daily")
            keys.write_text(known)
            assert len([row for row in await olga.tasks() if row["person"] == "olga"]) == 1
            await run(on, "unschedule", "daily", key=OPERATOR)
            await ScheduleRunner(context, intake, WorkflowLedger(context.bus), keys_of).begin_due_runs(now + 3 * DAY_MS)
            assert len([row for row in await olga.tasks() if row["person"] == "olga"]) == 1
