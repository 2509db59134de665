"""Calls of a task, told live on its stream: what is looked at, who may read it, and what the command line shows."""

from pathlib import Path

from bulkhead.client import TaskEvent
from bulkhead_cli.tasks.follow import TaskProgress
from tests.replay.stage import AUDITOR, OPERATOR, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

NOTICE = "The notice period is thirty days. It runs from the day of receipt. Ask ann@example.org."


async def test_calls_are_told_as_they_begin_and_end_and_texts_to_those_who_may_read_them(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        async with on.client(OPERATOR) as client:
            await client.add_document(NOTICE.encode(), "notice.md")
        on.model.will(
            plan({"id": "a", "tools": ["search_documents", "calculate"]}),
            a=[
                use(call("search_documents", query="notice period of ann@example.org")),
                use(call("calculate", expression="30 + 1")),
                use(call("calculate", 2, expression="1 / 0")),
                says("Thirty-one."),
            ],
        )
        async with on.client() as client, on.client(AUDITOR) as auditor:
            task = await client.submit("How many days?", check=False)
            live = [event async for event in task.events()]
            late = [event async for event in auditor.task(task.id).events()]
    names = [event.name for event in live if event.name != "text"]
    calls = ["retrieval.started", "retrieval.ended", *["tool.started", "tool.ended"] * 2]
    assert names == ["task.accepted", "plan.adopted", "step.started", *calls, "step.ended", "task.ended"]
    found = [event.data for event in live if event.name in calls]
    assert found[0]["looks_at"] == "notice period of [masked]" and found[0]["step_id"] == "a"
    assert (found[1]["outcome"], found[1]["passages"]) == ("found", 1)
    assert found[1]["sources"][0]["document"] == "notice.md"
    assert "thirty days" in found[1]["sources"][0]["excerpt"] and "[masked]" in found[1]["sources"][0]["excerpt"]
    assert (found[2]["tool"], found[2]["looks_at"]) == ("calculate", '{"expression": "30 + 1"}')
    assert (found[3]["outcome"], found[3]["excerpt"], found[3]["call_id"]) == (
        "succeeded",
        "30 + 1 = 31",
        found[2]["call_id"],
    )
    assert found[5]["outcome"] == "failed" and found[5]["code"] and "outcome" not in found[4]

    # Who comes late is told the same, each in its place; who may not read texts sees names, outcomes and sources.
    assert [event.name for event in late if event.name != "text"] == names
    shown = [event.data for event in late if event.name in calls]
    assert not any(data["looks_at"] or data.get("excerpt") for data in shown)
    assert [source["document"] for source in shown[1]["sources"]] == ["notice.md"]
    assert not any(source["excerpt"] for source in shown[1]["sources"])

    lines = _lines(live)
    assert any("searches: notice period of [masked]" in line for line in lines)
    assert any("1 passage in notice.md" in line for line in lines)
    assert any('calculate: {"expression": "30 + 1"}' in line for line in lines)
    assert any("calculate failed" in line for line in lines)
    assert not any("30 + 1" in line for line in _lines(late))


def _lines(events: list[TaskEvent]) -> list[str]:
    progress = TaskProgress()
    return [line.plain for event in events for line in progress.render_event(event)]
