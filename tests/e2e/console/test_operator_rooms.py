"""The rooms of those who run a mesh, in a real browser over real processes: each act with its effect, by keyboard."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from bulkhead_contracts import subjects
from bulkhead_contracts.control import Breaker
from tests.e2e.console.browser import Looked, visitor
from tests.e2e.console.conftest import ASKING
from tests.e2e.fixtures.outsider import headers, raw
from tests.e2e.fixtures.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = "<img src=x onerror=alert(1)> <script>alert(2)</script> \u202edetrever {{ 7 * 7 }}"
SAID = "<img src=x onerror=alert(1)> <script>alert(2)</script> \\u202edetrever {{ 7 * 7 }}"
NARROW = {"width": 375, "height": 700}
STEP = {
    "id": "s1",
    "title": f"Count {HOSTILE}",
    "instruction": "Use counter_increment with name=roomy amount=1.",
    "tools": ["counter_increment"],
    "inputs": [],
    "acceptance": "It is counted.",
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def olga(world: World, browser: Browser) -> AsyncIterator[Looked]:
    """An operator with a narrow window."""
    key = world.mesh.add_api_key(ASKING, "olga", "operator")
    async with visitor(browser, world.mesh.url, key, viewport=NARROW) as looked:
        yield looked


async def fits(looked: Looked) -> None:
    """Nothing that axe calls serious, and no scrolling sideways."""
    assert not await looked.axe()
    wide = await looked.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, "a phone scrolls down, not sideways"


async def does(looked: Looked, act: str, reason: str) -> None:
    """An act by keyboard alone: open its form, give the reason, send it."""
    await looked.page.locator("summary", has_text=act).first.focus()
    await looked.page.keyboard.press("Enter")
    await looked.page.locator("details[open] input[name=reason]").first.focus()
    await looked.page.keyboard.type(reason)
    await looked.page.keyboard.press("Enter")


async def test_a_call_appears_while_one_looks_and_is_made_when_it_is_granted(world: World, olga: Looked) -> None:
    await olga.go("/approvals")
    await olga.sees("Nothing waits for a decision")
    await olga.sees("live")
    task = await world.submit(ASKING, HOSTILE, plan={"steps": [STEP]}, check=False)
    row = olga.page.get_by_role("link", name="counter_increment")
    await row.wait_for(timeout=30_000)
    await fits(olga)
    await row.click()
    await olga.sees(f"Count {SAID}")
    await fits(olga)
    assert world.counter.count("roomy") == 0
    await does(olga, "Grant", HOSTILE)
    await olga.sees("by olga (operator)")
    await olga.sees(SAID)
    await world.finish(task)
    assert world.counter.count("roomy") == 1


async def test_a_call_is_denied_with_a_reason_that_the_agent_hears(world: World, olga: Looked) -> None:
    task = await world.submit(ASKING, "Count it.", plan={"steps": [STEP]}, check=False)

    async def waits() -> Any:
        return (await world.client(ASKING, "approver").approvals("waiting", task.id))["approvals"]

    [row] = await until(waits, "the call waits", timeout_s=60)
    await olga.go(f"/approvals/{row['approval_id']}")
    await does(olga, "Deny", "not today")
    await olga.sees("denied")
    document = await world.finish(task)
    assert "not today" in document["result"]["standing_reason"]


async def test_a_limit_is_set_where_the_spending_is_seen(world: World, olga: Looked) -> None:
    await olga.go("/spend?by=feature&since=1h")
    task = await world.submit(ASKING, "What is 17 * 23?", feature="rooms")
    await world.finish(task)
    await olga.page.get_by_role("cell", name="rooms").wait_for()
    await fits(olga)
    await olga.page.locator("summary", has_text="Set a limit").press("Enter")
    await olga.page.get_by_label("For", exact=True).fill("feature/rooms")
    await olga.page.get_by_label("tokens", exact=True).fill("1")
    await olga.page.keyboard.press("Enter")
    await olga.page.get_by_role("cell", name="1 tokens").first.wait_for()
    await fits(olga)
    late = await world.submit(ASKING, "What is 17 * 23?", feature="rooms")

    async def held() -> Any:
        return (await late.show())["status"] != "running" or (await late.show())["pause"]

    await until(held, "the next task is at its feature's ceiling", timeout_s=60)
    await world.client(ASKING, "operator").task(late.id).cancel("seen")


async def test_waits_a_halt_and_a_breaker_are_seen_live_and_ended_by_a_person(world: World, olga: Looked) -> None:
    await olga.go("/coordination")
    await olga.sees("No breaker has opened")
    await olga.sees("live")
    last = {"id": "s2", "title": "Tell", "instruction": "What is 2 + 3?", "inputs": ["s1"], "acceptance": "It is told."}
    task = await world.submit(ASKING, "Count it.", plan={"steps": [STEP, last | {"tools": []}]}, check=False)
    await olga.page.get_by_role("row", name=f"{task.id}/s2").wait_for(timeout=60_000)
    await fits(olga)
    await olga.go(f"/tasks/{task.id}")
    await olga.page.locator("#waits summary").press("Enter")
    await olga.page.locator("#waits").get_by_role("row", name=f"{task.id}/s2").wait_for()
    await fits(olga)
    await _open_breaker(world)
    await olga.go("/coordination")
    await olga.sees(SAID)
    await does(olga, "Reset", "repaired")
    await olga.sees(f"reset by {ASKING}/olga")
    [breaker] = (await world.client(ASKING).get("/v1/breakers"))["breakers"]
    assert (breaker["phase"], breaker["by"]) == ("closed", f"{ASKING}/olga")
    await olga.page.locator("summary", has_text="Halt something").press("Enter")
    await olga.page.get_by_label("What").select_option("agent")
    await olga.page.get_by_label("Name").fill("worker.nobody")
    await olga.page.get_by_label("Reason").last.fill(HOSTILE)
    await olga.page.keyboard.press("Enter")
    await olga.sees("agent worker.nobody")
    await fits(olga)
    await does(olga, "Resume", "over")
    await olga.sees("Nothing is halted")
    [row] = (await world.client(ASKING, "approver").approvals("waiting", task.id))["approvals"]
    await olga.go(f"/approvals/{row['approval_id']}")
    await olga.page.locator("summary", has_text="Deny").wait_for()
    await world.client(ASKING).task(task.id).cancel("seen")
    await olga.sees("abandoned")
    assert not await olga.page.locator("summary", has_text="Deny").count(), "nothing is left to decide"
    await world.finish(task)


async def test_models_are_shown_with_their_health_and_their_cost(world: World, olga: Looked) -> None:
    task = await world.submit(ASKING, "What is 17 * 23?")
    await world.finish(task)
    await olga.go("/models")
    await olga.page.get_by_role("row", name="offline-rules-1").get_by_text("no trouble").wait_for()
    await olga.sees("No agent has come by the doors yet")
    await fits(olga)


async def test_a_dead_letter_is_read_as_text_and_dismissed_with_a_reason(world: World, browser: Browser) -> None:
    task, body = "pub_demo-room", f'{{"objective": 7, "said": "{HOSTILE}"}}'.encode()
    key = world.mesh.add_api_key("demo", "olga", "operator")
    async with visitor(browser, world.mesh.url, key, viewport=NARROW) as looked:
        await looked.go("/dead-letters")
        await looked.sees("No dead letter is open")
        await raw(world, task, headers(task), body)

        async def listed() -> Any:
            return (await world.client("demo", "operator").get("/v1/dead-letters"))["letters"]

        [row] = await until(listed, "it lies with the dead letters", timeout_s=60)
        await looked.go("/dead-letters")
        await fits(looked)
        await looked.page.get_by_role("link", name="mesh.task.requested.v2").click()
        await looked.sees(SAID)
        await looked.sees("malformed body")
        await looked.sees(f"bulkhead dead-letters redrive {row['id'][:12]}")
        await fits(looked)
        await does(looked, "Dismiss", HOSTILE)
        await looked.sees("dismissed by demo/olga")
        await looked.sees(SAID)
        assert await looked.page.locator("summary", has_text="Dismiss").count() == 0
        await looked.go("/dead-letters")
        await looked.sees("No dead letter is open")
    assert [one["standing"] for one in await world.letters() if one["id"] == row["id"]] == []
    async with visitor(browser, world.mesh.url, world.mesh.add_api_key(ASKING, "olga", "operator")) as other:
        await other.go(f"/dead-letters/{row['id']}")
        await other.sees("no dead letter of this tenant begins with")


async def test_the_mesh_is_seen_with_its_rates_and_a_service_that_is_gone(world: World, olga: Looked) -> None:
    await olga.page.set_viewport_size({"width": 1_200, "height": 900})
    await world.finish(await world.submit(ASKING, "What is 17 * 23?"))
    await olga.go("/")
    row = olga.page.locator("#mesh tr").filter(has=olga.page.get_by_role("rowheader", name="worker", exact=True))
    await row.get_by_text("checker").wait_for()
    await row.get_by_text("1 or more replicas").or_(row.get_by_text("1 replica", exact=True)).wait_for()
    await olga.page.locator("#mesh svg .rate").first.wait_for()
    assert not await olga.axe()
    await olga.page.set_viewport_size(NARROW)
    await fits(olga)
    await world.mesh.kill_replica("worker", hold=True)
    late = await world.submit(ASKING, "What is 17 * 23?")

    async def gone() -> Any:
        loads = (await world.client(ASKING, "operator").get("/v1/mesh"))["services"]
        return [one for one in loads if one["service"] == "worker" and "no_replica" in one["troubles"]]

    [load] = await until(gone, "the worker's lag is counted")
    assert load["replicas"] == 0 and load["pending"] > 0
    await olga.go("/")
    await olga.sees("of worker asks for work")
    await row.get_by_text("no replica").wait_for()
    assert not await olga.axe()
    await world.mesh.restart_replica("worker")
    await world.finish(late)
    key = world.mesh.add_api_key(ASKING, "olga-at-a-terminal", "auditor")
    code, said, _ = await world.command("mesh", "--url", world.mesh.url, "--api-key", key)
    assert code == 0 and "planner -> worker" in said


async def _open_breaker(world: World) -> None:
    """As the watch writes one down, of a tool that no other test uses."""
    entry = Breaker(
        scope="tool", tenant=ASKING, name="date_add", called="date_add", phase="open", reason=HOSTILE, openings=1,
        since_unix_ms=1, until_unix_ms=2**50, evidence=("m1", HOSTILE), actors=("ann",),
    )  # fmt: skip
    async with world.bus() as bus:
        key = subjects.breaker_key(entry.scope, entry.tenant, entry.called)
        await bus.publish(key, entry.model_dump_json().encode(), {"content-type": "application/json"}, "breaker-rooms")
