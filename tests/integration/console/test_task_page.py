"""The page of a task over the whole mesh in one process: who may do what there, what holds it, and where it leads."""

import re
from pathlib import Path

import pytest

from bulkhead.client import Refused
from tests.eventually import until
from tests.integration.console.browsing import browsing, form
from tests.integration.memory_mesh.test_approvals import waiting, writing
from tests.integration.memory_mesh.test_flow import agent, plain
from tests.replay.scenes import leased
from tests.replay.stage import APPROVER, OPERATOR, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

CANCEL = "Cancel the task"
ANN = "bk_ann_of_demo"


async def test_each_role_has_its_own_acts_and_ways(tmp_path: Path) -> None:
    async with (
        writing(tmp_path) as (on, _, bob, task),
        browsing(on, APPROVER) as decides,
        browsing(on, ANN) as ann,
        browsing(on, OPERATOR) as olga,
    ):
        row = await waiting(bob)
        here, approval = f"/tasks/{task.id}", f'href="/approvals/{row.approval_id}"'
        step = f"step.1.{row.request.step_id}"
        page = (await decides.get(here)).text
        assert f"{approval}>Decide" in page and CANCEL not in page
        page = (await ann.get(here)).text
        assert f"{approval}>Open the request" in page and CANCEL in page and "/fork" not in page
        page = (await olga.get(here)).text
        assert CANCEL in page and f'id="row-{step}"' in page and "waits for approval" in page
        assert "bulkhead approvals" not in page.partition("<dl")[0], "a button, and no command"
        assert "/fork?step=" not in (await olga.get(f"{here}/pane?at={step}")).text, "it has not ended"
        await bob.grant(row, "seen")
        assert (await task.wait_until_ended(30))["status"] == "succeeded"
        fork = f"{here}/fork?step={row.request.step_id}"
        assert f'href="{fork}"' in (await olga.get(f"{here}/pane?at={step}")).text
        assert f'href="{fork}"' not in (await decides.get(f"{here}/pane?at={step}")).text
        assert f'<option value="{row.request.step_id}" selected>' in (await olga.get(fork)).text
        redirected = await olga.get(f"{here}/calls/{row.request.call_id}")
        assert redirected.url.query.decode() == f"at=call.{row.request.call_id}"
        assert f'id="row-call.{row.request.call_id}"' in redirected.text and "granted by bob" in redirected.text
        async with browsing(on, "bk_eve_of_acme") as eve:
            for path in ("", "/head", "/tree", "/pane", "/replay"):
                assert (await eve.get(here + path)).status_code == 404


async def test_the_halt_that_holds_a_task_is_lifted_where_it_is_seen_whatever_its_scope(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as olga, on.client(OPERATOR) as mesh:
        on.model.will(
            plan({"id": "a", "tools": ["counter_increment"]}),
            a=[use(call("counter_increment", name="kept", amount=2)), says("Here is a.")],
        )
        await mesh.halt("tool", "counter_increment", "the counter is being moved")
        task = await mesh.submit("Count it.", check=False)
        here = f"/tasks/{task.id}"

        async def held() -> str:
            page = (await olga.get(f"{here}/head")).text
            return page if "Lift the halt" in page else ""

        page = await until(held, "the task is held", 20)
        assert "tool counter_increment is halted by" in page and "bulkhead resume" not in page
        lifted = form(page, "/resume")
        assert (lifted["scope"], lifted["name"]) == ("tool", "counter_increment")
        assert page.count("Lift the halt</") == 1 and "<button>Let it go on</button>" in page
        assert 'Reason <span class="quiet">required</span>' in page
        done = await olga.post(f"{here}/resume", data=lifted | {"reason": "it has been moved"})
        assert done.status_code == 200 and "is lifted" in done.text
        assert (await task.wait_until_ended(30))["status"] == "succeeded"


async def test_a_tree_is_searched_opened_and_read_raw_without_a_script(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as olga:
        on.model.will(
            plan({"id": "a", "tools": ["counter_increment"]}, {"id": "b", "inputs": ["a"]}),
            a=[use(call("counter_increment", name="kept", amount=2)), says("Here is a.")],
            b=[says("Here is b.")],
        )
        here = f"/tasks/{(await on.run('Count it.'))['task_id']}"
        page = (await olga.get(f"{here}?find=counter_increment+succeeded")).text
        [row] = re.findall(rf'href="({here}\?at=call\.[^"]+)"', page)
        chosen = (await olga.get(row)).text
        assert 'aria-selected="true"' in chosen and "<h3>Input</h3>" in chosen and "kept" in chosen
        raw = re.sub("<[^>]+>", "", (await olga.get(f"{row}&as=json")).text)
        assert "&#34;outcome&#34;: &#34;succeeded&#34;" in raw
        step = (await olga.get(f"{here}/pane?at=step.1.b")).text
        assert "Builds on" in step and "?at=step.1.a" in step and "<h3>Output</h3>" in step
        below = (await olga.get(f"{here}/tree?under=step.1.a")).text
        assert "<html" not in below and below.count('role="treeitem"') >= 3
        again = await olga.post(f"{here}/retry", data=form(page, "/retry"))
        assert again.status_code == 200 and again.url.path not in (here, f"{here}/retry")


async def test_a_tool_that_a_task_uses_is_counted_and_halted_beside_its_name(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as olga, browsing(on, ANN) as ann:
        on.model.will(
            plan({"id": "a", "tools": ["search_documents", "counter_increment"]}),
            a=[use(call("search_documents", query="fares")), use(call("counter_increment", name="n")), says("It is.")],
        )
        here = f"/tasks/{(await on.run('Count it.'))['task_id']}"
        page = (await olga.get(f"{here}?at=plan.1")).text
        assert re.findall(r"<li>(\w+) <span class=\"quiet\">(\d+ call)", page) == [
            ("search_documents", "1 call"),
            ("counter_increment", "1 call"),
        ]
        assert "<b>search_documents</b>" in page, "a row bears the tool's own name"
        halt = form(page, 'value="search_documents"') | {"reason": "a page is wrong"}
        assert "The tool search_documents is halted" in (await olga.post(f"{here}/halt", data=halt)).text
        assert "tool search_documents" in (await olga.get("/coordination")).text
        assert "Halt it for all tasks" not in (await ann.get(f"{here}?at=plan.1")).text


async def test_a_wait_that_has_ended_says_what_it_was_for_and_who_held_that(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as olga:
        task = await leased(on)
        shown = {step: (await olga.get(f"/tasks/{task}/pane?at=step.1.{step}")).text for step in "ab"}
        [(waiter, holder)] = [(step, "ba"[step == "b"]) for step, pane in shown.items() if "<h3>Waits</h3>" in pane]
        link = f'held by <a href="/tasks/{task}?at=step.1.{holder}">'
        assert f"waited for crm:account:42, {link}" in shown[waiter]


async def test_a_step_that_failed_is_skipped_at_its_page_where_its_plan_permits_it(tmp_path: Path) -> None:
    gate = {"of": "sort", "checks": [{"test": "contains", "text": "fee"}], "on_fail": "fail"}
    steps = [agent("sort"), plain("fits", "sort", gate=gate, skippable=True), agent("end", "fits")]
    async with stage(tmp_path) as on, on.client(ANN) as mesh, browsing(on, ANN) as ann, browsing(on, APPROVER) as bob:
        on.model.will(sort=[says("A refund.")], end=[says("It is a refund.")])
        task = await mesh.submit("See to the ticket.", plan={"steps": steps}, check=False)
        here = f"/tasks/{task.id}"

        async def held() -> str:
            page = (await bob.get(here)).text
            return page if "Skip the step" in page else ""

        page = await until(held, "the step waits for a person", 20)
        assert "failed 1 times" in page and "waits for approval: a person may skip it" in page
        assert "Skip the step" not in (await ann.get(here)).text and "view=graph" in page
        graph = (await bob.get(f"{here}?view=graph")).text
        assert 'class="accepted"' in graph and "after fits" not in graph and "?at=step.1.end&amp;view=graph" in graph
        skip = form((await bob.get(f"{here}/head")).text, "Skip the step")
        with pytest.raises(Refused) as refused:
            await mesh.task(task.id).decide_plan("approve", skip["sha256"], skip="fits")
        assert refused.value.code == "forbidden"
        lie = await bob.post(f"{here}/plan", data=skip | {"skip": "end", "reason": "late"})
        assert lie.status_code == 409 and "does not let anybody skip step end" in lie.text
        done = await bob.post(f"{here}/plan", data=skip | {"reason": "it is late"})
        assert "The skip is stored" in done.text
        document = await task.wait_until_ended(30)
        assert (document["status"], document["answer"]) == ("succeeded", "It is a refund.")
        assert "bob skipped step fits: it is late" in document["result"]["standing_reason"]
        assert {step["step_id"]: step["status"] for step in document["steps"]}["fits"] == "skipped"
        again = await bob.post(f"{here}/plan", data=skip | {"reason": "it is late"})
        assert again.status_code == 409 and "has ended" in again.text
        ended = (await bob.get(f"{here}?at=step.1.fits")).text
        assert "Skip the step" not in ended and ">skipped<" in ended and "waited for a person" in ended


async def test_a_task_that_ended_at_its_ceiling_is_run_again_with_more(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, ANN) as ann, on.client(ANN) as mesh:
        on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
        limits = {"limit_tokens": 30, "limit_usd": 0.4, "deadline_s": 3.0}
        halted = await on.run("Work it out.", feature="fares", **limits)
        assert (halted["status"], halted["failure"]["code"]) == ("halted", "budget_exceeded")
        here = f"/tasks/{halted['task_id']}"
        page = (await ann.get(here)).text
        assert "Retry with more" in page and "Its limit was 30 tokens: 0 tokens were spent" in page
        usd, tokens = (re.findall(rf'name="{name}"[^>]* value="([^"]*)"', page)[0] for name in ("usd", "tokens"))
        assert usd == "0.4" and int(tokens) > 30
        again = form(page, "Run it again under these limits") | {"usd": usd, "tokens": str(int(tokens) * 10)}
        response = await ann.post(f"{here}/retry", data=again | {"tokens": "many"})
        assert response.status_code == 422 and "Not a number" in response.text
        response = await ann.post(f"{here}/retry", data=again)
        document = await mesh.task(response.url.path.rpartition("/")[2]).show()
        assert document["limits"]["tokens"] == int(tokens) * 10 and document["feature"] == "fares"
