"""The room of coordination over the whole mesh in one process: halts and resumes by form; what others may see."""

from pathlib import Path

from bulkhead_services.gateway.console.coordination import waiting
from tests.integration.console.browsing import browsing, form
from tests.replay.stage import APPROVER, OPERATOR, stage

HOSTILE = "<script>alert(1)</script>"


async def test_an_operator_halts_and_resumes_with_a_reason(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        page = (await client.get("/coordination")).text
        assert "the watch is switched off" in page and "Nothing is halted" in page and "No breaker has opened" in page
        given = form(page, 'action="/coordination/halt"') | {"scope": "tool", "name": "calculate", "reason": HOSTILE}
        done = await client.post("/coordination/halt", data=given)
        assert done.status_code == 200 and "tool calculate" in done.text and "&lt;script&gt;" in done.text
        assert HOSTILE not in done.text and "by demo/olga" in done.text
        again = form(done.text, 'action="/coordination/resume"') | {"reason": "repaired"}
        assert "Nothing is halted" in (await client.post("/coordination/resume", data=again)).text
        refused = await client.post("/coordination/reset", data={"scope": "tool", "name": "x", "reason": "y"})
        assert refused.status_code == 409 and "no breaker tool:x of yours is open" in refused.text
        assert (await client.post("/coordination/purge", data=given)).status_code == 404


async def test_who_is_no_operator_sees_halts_and_no_button(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, APPROVER) as bob:
        page = await bob.get("/coordination")
        assert page.status_code == 200 and "may not see how tasks hang together" in page.text
        assert "Nothing is halted" in page.text and "<summary" not in page.text
        given = {"scope": "tool", "name": "calculate", "reason": "x"}
        assert (await bob.post("/coordination/halt", data=given)).status_code == 403


def test_waits_are_drawn_behind_whom_they_wait_for_and_a_circle_ends() -> None:
    row = {"kind": "want", "mode": "all", "until_unix_ms": 0}
    graph = waiting(
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
