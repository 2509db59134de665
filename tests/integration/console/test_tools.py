"""The room of tools and policies: the tenant's tools, the rules of each, and a call that nobody makes."""

from pathlib import Path

import pytest

from bulkhead_services.budget.queries import calls
from bulkhead_services.gateway.console.api import ApiRefused
from bulkhead_services.gateway.console.operate.tools import trial_body
from tests.integration.console.browsing import browsing, form
from tests.integration.memory_mesh.test_tool_policies import policies
from tests.replay.stage import APPROVER, AUDITOR, OPERATOR, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

TRIAL = {"arguments": '{"name": "questions"}', "document": "Count under questions.", "document_name": "<b>letter.md"}


async def test_a_person_tries_a_call_and_reads_the_rules(tmp_path: Path) -> None:
    async with (
        stage(tmp_path, rule=None, executor=policies(tmp_path)) as on,
        browsing(on, AUDITOR) as aud,
        browsing(on, APPROVER) as bob,
    ):
        listed = (await aud.get("/tools")).text
        assert 'href="/tools/counter_increment"' in listed and "http_get" not in listed
        page = (await aud.get("/tools/counter_increment")).text
        assert "demo:small_counts" in page and "isEmpty()" in page and "&#34;name&#34;" in page
        assert 'action="/tools/counter_increment/halt"' not in page, "an auditor changes nothing"
        whole = (await aud.post("/tools/counter_increment/trial", data=TRIAL)).text
        assert "A person would be asked" in whole and "&lt;b&gt;letter.md" in whole and "<b>letter" not in whole
        assert TRIAL["document"] in whole, "without scripts the form stays filled in"
        part = (await aud.post("/tools/counter_increment/trial", data=TRIAL, headers={"HX-Request": "true"})).text
        assert "A person would be asked" in part and "Declaration" not in part
        unfit = (await aud.post("/tools/counter_increment/trial", data=TRIAL | {"arguments": "{}"})).text
        assert "required property" in unfit and "<textarea" in unfit
        seen = (await bob.get("/tools/counter_increment")).text
        assert "Operators and auditors read the rules" in seen and "isEmpty()" not in seen
        refused = (await bob.post("/tools/counter_increment/trial", data=TRIAL)).text
        assert "may not try policies" in refused
        assert (await aud.get("/tools/http_get")).status_code == 404


async def test_a_tool_is_halted_and_lifted_on_its_page_and_shows_its_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path, rule=None, executor=policies(tmp_path)) as on, browsing(on, OPERATOR) as olga:
        on.model.will(
            plan({"id": "a", "tools": ["calculate"]}), a=[use(call("calculate", expression="2 + 3")), says("It is 5.")]
        )
        task = await on.run("How much is it?")
        page = (await olga.get("/tools/calculate")).text
        assert f'href="/tasks/{task["task_id"]}?at=call.' in page and "2 + 3" in page
        halted = await olga.post(
            "/tools/calculate/halt", data=form(page, "Halt it") | {"reason": "look at <i>this</i> first"}
        )
        assert halted.url.path == "/tools/calculate" and "look at &lt;i&gt;this&lt;/i&gt; first" in halted.text
        assert "halted" in (await olga.get("/tools")).text
        lifted = await olga.post("/tools/calculate/resume", data=form(halted.text, "Let it go on") | {"reason": "seen"})
        assert "It is not halted" in lifted.text

        monkeypatch.setattr(calls, "MAX_WAITING", 0)
        unsure = (await olga.get("/tools/counter_increment")).text
        assert "others ask for calls at the same time" in unsure and "All tasks that called it" in unsure
        assert "others ask for calls at the same time" in (await olga.get("/tasks?tool=counter_increment")).text


def test_a_form_becomes_the_request_of_a_trial() -> None:
    fields = {"arguments": '{"name": "x"}', "asker": "x", "answer": "y", "answer_name": "read_mail", "role": "operator"}
    assert trial_body("count", fields) == {
        "tool": "count",
        "arguments": {"name": "x"},
        "sources": [
            {"source": "user", "name": "", "content": "x"},
            {"source": "tool", "name": "read_mail", "content": "y"},
        ],
        "role": "operator",
    }
    for arguments in ("{", "[1]", "[" * 100_000):
        with pytest.raises(ApiRefused):
            trial_body("count", {"arguments": arguments})
