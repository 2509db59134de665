"""What people read of a call that waited for one of them: in the timeline, while they watch, and in its explanation."""

import io
from pathlib import Path

from rich.console import Console

from bulkhead.client import Mesh, Task
from bulkhead.journal import history, timeline
from bulkhead.journal.why.reasons import explain_task
from bulkhead_cli.tasks import answer, follow
from tests.integration.memory_mesh.test_approvals import waiting, writing
from tests.replay.scenes import paused
from tests.replay.stage import TENANT, Stage


async def entries(on: Stage, task: Task) -> list[history.JournalEntry]:
    return history.build_entries(await on.mesh.messages("JOURNAL", f"mesh.*.*.*.{TENANT}.{task.id}.*"))


def shown(task: Task, found: list[history.JournalEntry]) -> str:
    console = Console(file=io.StringIO(), width=400)
    console.print(timeline.build_tree(task.id, found))
    return str(console.file.getvalue())


async def watched(mesh: Mesh, task: Task) -> list[str]:
    progress = follow.TaskProgress()
    return [line.plain async for event in mesh.task(task.id).events() for line in progress.render_event(event)]


async def test_a_denied_call_is_told_as_a_question_and_its_answer(tmp_path: Path) -> None:
    async with writing(tmp_path) as (on, ann, bob, task):
        await paused(task)
        row = await waiting(bob)
        short = row.approval_id[:12]
        before = shown(task, await entries(on, task))
        assert "running (waiting for a person)" in before and f"`bulkhead approvals show {short}`" in before
        await bob.deny(row, "not this vendor")
        document = await task.wait_until_ended(30)
        found = await entries(on, task)
        lines = shown(task, found).splitlines()
        asked, call = (line for line in lines if "is asked: counter_i" in line or "requested counter_i" in line)
        assert "a person is asked: counter_increment (high risk): writes are asked about" in asked
        assert "denied by bob (approver) after" in asked and asked.endswith(f"not this vendor ({short})")
        assert "tool.call_requested counter_increment {" in call and "⇒ refused approval_denied" in call
        assert ", not written: approval_denied" in call
        assert not any(word in shown(task, found) for word in ("step.paused", "step.extended", "call_resumed", "timer"))
        [told] = [one["approval"] for one in timeline.as_json(found) if one["approval"] is not None]
        assert told.pop("waited_ms") > 0
        assert told == {"state": "denied", "person": "bob", "role": "approver", "reason": "not this vendor"}
        seen = "\n".join(await watched(ann, task))
        assert f"waiting for a person: counter_increment, bulkhead approvals show {short} (high risk: writes" in seen
        assert "bob (approver) denied counter_increment after" in seen and "held back" not in seen
        for reader in (seen, "\n".join(answer.answer_warnings(document)), shown(task, found)):
            assert "failed" not in reader
        why = "\n".join(f"{reason.what} {reason.todo}" for reason in explain_task(found, task.id, 2**50))
        assert "step a continued without counter_increment: bob denied counter_increment: not this vendor" in why
        assert "`bulkhead approvals --state all" in why and "continued: denied by bob: not this vendor" in why


async def test_a_question_that_nobody_answers_ends_with_its_time_or_with_its_task(tmp_path: Path) -> None:
    for name in ("expired", "cancelled"):
        (tmp_path / name).mkdir()
    async with writing(tmp_path / "expired", approval_ttl_s=1) as (on, ann, _, task):
        await task.wait_until_ended(30)
        assert "⇒ expired after " in shown(task, await entries(on, task))
        seen = "\n".join(await watched(ann, task))
        assert "nobody decided about counter_increment in time: it is not made" in seen
    async with writing(tmp_path / "cancelled") as (on, _, _, task):
        await paused(task)
        await task.cancel("not wanted")
        await task.wait_until_ended(30)
        assert "the task ended before anybody decided" in shown(task, await entries(on, task))
