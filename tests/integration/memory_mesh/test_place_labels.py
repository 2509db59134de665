"""What an agent was shown goes with what it wrote, into later tasks: the whole mesh."""

from pathlib import Path

from bulkhead_services.tool_executor.app import SERVICE
from tests.integration.memory_mesh.test_approvals import replies
from tests.replay.stage import call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

RULES = """
@id("all") permit (principal, action, resource);
@id("stays")
forbid (principal, action == Action::"counter_increment_unkeyed", resource)
when { context.shown.contains("tool:calculate") };
"""


async def test_a_later_task_that_names_what_was_written_is_held_to_what_its_writer_was_shown(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "default.cedar").write_text(RULES)
    tools = ["calculate", "counter_increment", "counter_increment_unkeyed"]
    async with stage(tmp_path, rule=None, executor={"policy_dir": tmp_path / "rules"}) as on, on.client() as ann:
        writes = [use(call("calculate", expression="2+2")), use(call("counter_increment", name="staff"))]
        on.model.will(plan({"id": "a", "tools": tools}), a=[*writes, says("Here is a.")])
        assert (await (await ann.submit("Count staff.")).wait_until_ended(30))["status"] == "succeeded"
        await on.restart(SERVICE)
        for name, outcome in (("other", "succeeded"), ("STAFF", "refused")):
            tell = use(call("counter_increment_unkeyed", name=name))
            on.model.will(plan({"id": "a", "tools": tools}), a=[tell, says("Here is a.")])
            task = await ann.submit(f"Tell {name}.")
            await task.wait_until_ended(30)
            [reply] = await replies(on, task)
            assert reply.outcome == outcome
            if reply.failure is not None:
                assert "stays" in reply.failure.message
        again = [use(call("counter_increment", name="staff")), says("Here is a.")]
        on.model.will(plan({"id": "a", "tools": tools}), a=again)
        task = await ann.submit("Count staff.")
        await task.wait_until_ended(30)
        [reply] = await replies(on, task)
        assert [label.carries for label in reply.provenance] == [("tool:calculate",)], "a result carries it on"
