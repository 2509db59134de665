"""The room of coordination over the whole mesh in one process: halts and resumes by form; what others may see."""

from pathlib import Path

import pytest

from bulkhead_contracts import subjects
from bulkhead_contracts.control import Breaker
from bulkhead_services.gateway.console import coordination
from bulkhead_services.gateway.console.coordination import draw_deadlock, draw_waits, list_evidence
from bulkhead_services.gateway.console.drawing import GAP_X, MARGIN, NODE_WIDTH, DrawnStep, draw_layers
from bulkhead_services.gateway.console.pages import render_template
from bulkhead_services.gateway.console.task.parties import PartyNames
from tests.integration.console.browsing import browsing, form
from tests.replay.stage import APPROVER, OPERATOR, OTHER_OPERATOR, TENANT, stage

HOSTILE = "<script>alert(1)</script>"


async def test_an_operator_halts_and_resumes_with_a_reason(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        page = (await client.get("/coordination")).text
        assert "the watch is switched off" in page and "Nothing is halted" in page and "No breaker has opened" in page
        assert (
            '<option value="search_documents">tool</option>' in page and '<option value="demo">tenant</option>' in page
        )
        given = form(page, 'action="/coordination/halt"') | {"scope": "tool", "name": "calculate", "reason": HOSTILE}
        done = await client.post("/coordination/halt", data=given)
        assert done.status_code == 200 and "tool calculate" in done.text and "&lt;script&gt;" in done.text
        assert HOSTILE not in done.text and "by demo/olga" in done.text
        async with browsing(on, OTHER_OPERATOR) as other:
            seen = (await other.get("/coordination")).text
            assert "Nothing is halted" in seen and "calculate" not in seen
        again = form(done.text, 'action="/coordination/resume"') | {"reason": "repaired"}
        assert "Nothing is halted" in (await client.post("/coordination/resume", data=again)).text
        refused = await client.post("/coordination/reset", data={"scope": "tool", "name": "x", "reason": "y"})
        assert refused.status_code == 409 and "no breaker tool:x of yours is open" in refused.text
        assert (await client.post("/coordination/purge", data=given)).status_code == 404


async def test_a_breaker_with_its_evidence_is_shown(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        breaker = Breaker(
            scope="tool", tenant=TENANT, name="calculate", phase="open", reason="6 of 10 calls failed", evidence=("m1",)
        )
        subject = subjects.breaker_key("tool", TENANT, "calculate")
        await on.mesh.context("budget").bus.publish(subject, breaker.model_dump_json().encode(), {}, "breaker")
        page = await client.get("/coordination")
        assert page.status_code == 200 and "6 of 10 calls failed" in page.text and "m1" in page.text


async def test_a_page_that_fails_says_so_in_the_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        monkeypatch.setattr(coordination, "draw_minutes", lambda minutes: 1 / 0)
        page = await client.get("/coordination")
        assert page.status_code == 500 and "This page has a fault" in page.text and "bulkhead" in page.text.lower()


async def test_who_is_no_operator_sees_halts_and_no_button(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, APPROVER) as bob:
        page = await bob.get("/coordination")
        assert page.status_code == 200 and "may not see how tasks hang together" in page.text
        assert "Nothing is halted" in page.text and "<summary" not in page.text
        given = {"scope": "tool", "name": "calculate", "reason": "x"}
        assert (await bob.post("/coordination/halt", data=given)).status_code == 403


def test_waits_are_drawn_behind_whom_they_wait_for_and_a_circle_ends() -> None:
    row = {"kind": "want", "mode": "all", "until_unix_ms": 0}
    graph = draw_waits(
        [
            row | {"waiter": "t1/s", "targets": ["crm"], "stuck": True},
            row | {"waiter": "crm", "targets": ["t2/s"], "stuck": True},
            row | {"waiter": "t2/s", "targets": ["t1/s", "t1/s"], "stuck": True},
            row | {"waiter": "t3/s", "targets": ["t4/s"], "stuck": False},
        ]
    )
    told = {node.step.id: node.step.status for node in graph.nodes}
    assert told == {"t1/s": "failed", "crm": "failed", "t2/s": "failed", "t3/s": "waiting", "t4/s": "running"}
    assert len(graph.edges) == 4
    assert graph.width == draw_layers([DrawnStep("a", "a")]).width + 2 * (NODE_WIDTH + GAP_X), (
        "three parties take three columns"
    )


def test_a_broken_circle_is_drawn_with_its_victim_named_and_its_evidence_linked() -> None:
    trip = {
        "detector": "deadlock", "level": "stop", "halted": False, "tripped_unix_ms": 1, "what": "round and round",
        "hint": "", "agents": [], "evidence": ["e1", "e2"], "tasks": ["t1", ""], "victim": f"t1/{HOSTILE}",
        "cycle": [f"t1/{HOSTILE}", "crm:a/b", "t2/s"],
    }  # fmt: skip
    found = draw_deadlock(trip)
    assert found is not None and [arrow.said for arrow in found.arrows] == ["waits for", "is held by", "waits for"]
    assert all(node.x >= 0 and node.x + 190 <= found.width and node.y + 46 <= found.height for node in found.nodes)
    names = PartyNames({"t2": {"task_id": "t2", "objective": f"Move {HOSTILE}", "steps": [
        {"step_id": "s", "title": "Move the seats", "plan_version": 1}]}})  # fmt: skip
    shown = render_template("coordination/circle.html", trip=trip, circle=found, names=names)
    assert shown.count('class="victim"') == 1 and shown.count("gave way, t1") == 1 and HOSTILE not in shown
    assert ">Move the seats</text>" in shown and ">t2/s<" not in shown
    assert "resource<" in shown and shown.count('class="edge"') == 3
    assert list_evidence({"trip": trip, "task": "t1"}) == [("e1", "t1"), ("e2", "")]
    assert list_evidence({"trip": trip | {"tasks": []}, "task": "t1"}) == [("e1", ""), ("e2", "")]
    loop = {"detector": "loop.repeat", "evidence": ["e1"]}
    assert draw_deadlock(loop) is None and list_evidence({"trip": loop, "task": "t1"}) == [("e1", "t1")]
    assert list_evidence({"trip": loop | {"detector": "breaker.tool"}, "task": "t1"}) == [("e1", "")]
    for many in (1, 13):
        assert draw_deadlock(trip | {"cycle": ["x"] * many}) is None
    assert len({arrow.path for arrow in draw_deadlock(trip | {"cycle": ["t1/s", "t2/s"]}).arrows}) == 2  # type: ignore[union-attr]


def test_many_parties_of_a_circle_stand_one_behind_the_other() -> None:
    names = [f"t{number}/s" for number in range(40)]
    row = {"kind": "ask", "mode": "all", "until_unix_ms": 0, "stuck": True}
    waits = [row | {"waiter": name, "targets": [names[number - 1]]} for number, name in enumerate(names)]
    graph = draw_waits(waits)
    assert sorted(node.x for node in graph.nodes) == [MARGIN + column * (NODE_WIDTH + GAP_X) for column in range(40)]
    assert len(graph.edges) == 40


def test_a_sentence_names_tasks_and_steps_and_times_instead_of_ids_and_milliseconds() -> None:
    step = {"step_id": "s1", "title": "Move <b>them</b>", "plan_version": 2}
    names = PartyNames({"t1": {"task_id": "t1", "objective": "Move the passengers", "steps": [step]}})
    linked = names.link_sentence(
        "t1/s1 waits for flight:t1/s1, <held> by t2/s1 until unix ms 1795704154302; task t1 is over"
    )
    assert linked == (
        '<a href="/tasks/t1?at=step.2.s1">Move &lt;b&gt;them&lt;/b&gt; of “Move the passengers”</a> waits for '
        "flight:t1/s1, &lt;held&gt; by t2/s1 until 2026-11-26 14:42:34 UTC; "
        'task <a href="/tasks/t1">Move the passengers</a> is over'
    )
    assert names.link_party(f"t9/{HOSTILE}") == (
        '<a href="/tasks/t9">&lt;script&gt;alert(1)&lt;/script&gt; of “t9”</a>'
    )
