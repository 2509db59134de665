"""`bulkhead doors`: who is connected, with which runs, and what they spend, also while they go on."""

import json
import time

import httpx

from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.bus.memory.streams import DurableConfig
from bulkhead_cli.target import GatewayTarget
from bulkhead_cli.tasks import doors
from bulkhead_cli.tasks.answer import render_footer
from bulkhead_cli.tasks.doors import show_doors
from bulkhead_contracts import subjects
from bulkhead_services.gateway.settings import SubscriberSettings
from tests.eventually import until
from tests.integration.doors import test_delegated_steps as delegated
from tests.integration.doors.test_whole_mesh import hangs
from tests.integration.doors.whole_mesh import KEY, OPERATOR_KEY, PERSON, TENANT, whole_mesh
from tests.unit.services.model_gateway.scripted_provider import says


async def test_the_runs_of_agents_outside_and_what_they_spend(tmp_path, capsys):
    async with whole_mesh(tmp_path, says("one")) as here:
        target = GatewayTarget(here.gateway_url, OPERATOR_KEY)
        await show_doors(target, 20, as_json=False)
        assert "no agent has come yet" in capsys.readouterr().out
        client = here.client()
        raw = await client.chat.completions.with_raw_response.create(
            model="default", messages=[{"role": "user", "content": "[red]hello"}]
        )
        task = raw.headers["x-bulkhead-task"]
        await show_doors(target, 20, as_json=True)
        [run] = json.loads(capsys.readouterr().out)["runs"]
        assert (run["task_id"], run["person"], run["status"]) == (task, PERSON, "running")
        spent = run["spent"]
        assert (spent["model_calls"], spent["input_tokens"], spent["output_tokens"]) == (1, 100, 20)
        await show_doors(target, 20, as_json=False)
        shown = capsys.readouterr().out
        assert task in shown and "[red]hello" in shown and " 120 " in shown
        assert f"connected: {PERSON} 1 open run" in shown
        await show_doors(GatewayTarget(here.gateway_url, KEY), 20, as_json=False)
        shown = capsys.readouterr().out
        assert task in shown and "shown to operators" in shown


async def test_more_runs_than_one_answer_about_spending_holds_are_all_shown_with_theirs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doors, "MAX_PAGE", 2)
    async with whole_mesh(tmp_path, says("one")) as here:
        client, asked = here.client(), {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
        for number in range(5):
            await client.chat.completions.create(**asked, extra_headers={"X-Bulkhead-Run": f"run-{number}"})
        await show_doors(GatewayTarget(here.gateway_url, OPERATOR_KEY), 5, as_json=True)
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["spent"] and run["spent"]["input_tokens"] for run in runs] == [100] * 5


async def test_a_run_that_goes_on_is_shown_with_what_is_spent_and_reserved(tmp_path):
    async with whole_mesh(tmp_path, says("one"), hangs("Once "), says("three")) as here:
        client, asked = here.client(), {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
        raw = await client.chat.completions.with_raw_response.create(**asked)
        stream = await client.chat.completions.create(**asked, stream=True, max_tokens=50)
        await anext(aiter(stream))
        url = f"{here.gateway_url}/v1/tasks/{raw.headers['x-bulkhead-task']}"
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as http:
            document = (await http.get(url)).json()
            now = document["spending"]
            assert (now["model_calls"], now["tokens"]) == (1, 120) and now["held_tokens"] > 50
            assert now["cost_usd_micros"] > 0 and " reserved · 120 tokens, " in render_footer(document)
            await stream.close()
            task = raw.headers["x-bulkhead-task"]
            await client.delete(f"http://127.0.0.1:{here.doors.port}/v1/runs/{task}", cast_to=object)

            async def ended():
                return (await http.get(url)).json()["status"] == "succeeded"

            await until(ended)
            assert (await http.get(url)).json()["spending"] is None


async def test_subscribers_of_the_own_tenant_are_shown_with_what_waits_for_them(tmp_path, capsys):
    rows = {
        "sub_crm": SubscriberSettings(tenant=TENANT, events=("task.ended",)),
        "sub_new": SubscriberSettings(tenant=TENANT, events=("task.ended",)),
        "sub_acme": SubscriberSettings(tenant="acme", events=("task.ended",)),
    }
    async with whole_mesh(tmp_path, says("one"), subscribers=rows) as here:
        for name in ("sub_crm", "sub_acme"):
            here.mesh.broker.add_durable(DurableConfig(subjects.EVENTS_STREAM, name, ack_wait_ms=60_000))
        for number in range(3):
            here.mesh.broker.store(subjects.event_subject(TENANT, "task.ended", f"t{number}"), {}, b"{}")
        target, bus = GatewayTarget(here.gateway_url, OPERATOR_KEY), MemoryBus(here.mesh.broker, "sub_crm")
        consumer = await bus.open_consumer(subjects.EVENTS_STREAM, "sub_crm")
        first, _ = await consumer.fetch(2, 1.0)
        await first.ack()
        await show_doors(target, 20, as_json=True)
        crm, new = json.loads(capsys.readouterr().out)["subscribers"]
        assert (crm["name"], crm["tenant"], crm["events"]) == ("sub_crm", TENANT, ["task.ended"])
        assert (crm["pending"], crm["in_work"], new["name"], new["pending"]) == (1, 1, "sub_new", None)
        assert abs(crm["active_unix_ms"] - time.time() * 1000) < 60_000 and new["active_unix_ms"] == 0
        await show_doors(target, 20, as_json=False)
        shown = capsys.readouterr().out
        assert "sub_crm" in shown and "run the provisioner" in shown and "sub_acme" not in shown
        await show_doors(GatewayTarget(here.gateway_url, KEY), 20, as_json=False)
        assert "subscribers are shown to operators" in capsys.readouterr().out


async def test_who_has_a_delegated_step_is_told_to_its_tenant_and_to_no_step(tmp_path, capsys):
    async with delegated.mesh(tmp_path, says("60.00")) as (here, mine):
        await delegated.submit(here, "refunds")
        step, url = await mine.take(holder="[b]host-7"), f"http://127.0.0.1:{here.doors.port}"
        target = GatewayTarget(here.gateway_url, KEY)
        await show_doors(target, 20, url, as_json=False)
        shown = capsys.readouterr().out
        assert step["task"] in shown and "[b]host-7" in shown and "refunds" in shown
        await show_doors(target, 20, url, as_json=True)
        held = json.loads(capsys.readouterr().out)["steps"]
        assert held["more"] == 0 and [one["holder"] for one in held["steps"]] == ["[b]host-7"]
        assert step["key"] not in json.dumps(held)
        async with httpx.AsyncClient() as http:
            for key, status in ((step["key"], 403), (delegated.MINE, 401), ("", 401)):
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                assert (await http.get(f"{url}/v1/steps/open", headers=headers)).status_code == status
        await show_doors(target, 20, "http://127.0.0.1:1", as_json=False)
        assert "who has delegated steps is not known: the doors at http://127.0.0.1:1" in capsys.readouterr().out
