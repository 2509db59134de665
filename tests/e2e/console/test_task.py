"""The page of a task in a real browser: it fills as the task runs, each button has its effect in the mesh."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser

from bulkhead.client import Task
from tests.e2e.console.browser import PHONE, Looked, visitor
from tests.e2e.fixtures.reasons import calculation
from tests.e2e.fixtures.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "t6"
HELD_MS = 120_000
LATE_MAX_MS = 250.0
HOSTILE = "Leave <img src=x onerror=alert(1)><script>alert(2)</script> is 31 days after \u202efive\u202c years of work."


def key(world: World, role: str = "operator", tenant: str = TENANT) -> str:
    return world.mesh.add_api_key(tenant, f"{tenant}-{role}-console", role)


@asynccontextmanager
async def held(world: World, word: str) -> AsyncIterator[Task]:
    """A task whose model has begun to answer and stopped."""
    await world.arm("stall", word, times=1, delay_ms=HELD_MS)
    question = f"What is 17 * 23? Work it out {word}."
    try:
        yield await world.submit(TENANT, question, plan=calculation(question), check=False)
    finally:
        await world.disarm()


async def act(looked: Looked, name: str, button: str, effect: str, **fields: str) -> None:
    """Open an act's form, fill it in, send it, and wait for what the page says of it."""
    opened = looked.page.locator("details.act", has=looked.page.locator("summary", has_text=name)).first
    if await opened.get_attribute("open") is None:
        await opened.locator("summary").click()
    for field, value in fields.items():
        await opened.locator(f"[name={field}]").fill(value)
    await opened.get_by_role("button", name=button).click()
    await looked.page.locator("#effect", has_text=effect).wait_for()


async def test_a_task_fills_its_page_and_each_claim_opens_its_source(world: World, browser: Browser) -> None:
    await world.client(TENANT).add_document(HOSTILE.encode(), "<b>leave</b>.md", "text/markdown")
    task = await world.submit(TENANT, "How many days is leave after five years of work? What is 17 * 23?")
    async with visitor(browser, world.mesh.url, key(world)) as looked:
        await looked.go(f"/tasks/{task.id}")
        await looked.page.locator("#tree .state.running, #tree .state.accepted").first.wait_for()
        assert (await world.finish(task))["status"] == "succeeded"
        await looked.page.locator("#head").get_by_text("succeeded").wait_for()
        assert "391" in await looked.page.locator(".answer").inner_text()
        await looked.page.get_by_role("link", name="Fork", exact=True).wait_for()
        await looked.page.locator(".mark").first.click()
        passage = looked.page.locator("#passage pre")
        await passage.wait_for()
        shown = await passage.inner_text()
        assert "<script>alert(2)</script>" in shown and "\\u202efive" in shown
        assert not await looked.axe()
        await looked.page.get_by_label("Filter steps and calls").fill("calculate 391")
        await looked.page.locator("#tree a", has_text="calculate").first.click()
        await looked.page.locator("#pane", has_text="17 * 23").wait_for()
        assert not await looked.axe()
        await looked.page.get_by_text("More", exact=True).click()
        async with looked.page.expect_download() as download:
            await looked.page.get_by_role("link", name="Export").click()
        path = await (await download.value).path()
        assert json.loads(path.read_text().splitlines()[0])
        await looked.go(f"/tasks/{task.id}/messages")
        await looked.sees("planner → worker")
        assert not await looked.axe()


async def test_a_tree_is_read_by_keyboard_and_a_row_has_an_address(world: World, browser: Browser) -> None:
    question = "What is 17 * 23?"
    task = await world.submit(TENANT, question, plan=calculation(question), check=False)
    await world.finish(task)
    async with visitor(browser, world.mesh.url, key(world)) as looked:
        await looked.page.set_viewport_size(PHONE)
        await looked.go(f"/tasks/{task.id}")
        row = looked.page.locator("#tree a[tabindex='0']")
        await row.focus()
        await looked.page.keyboard.press("ArrowLeft")
        assert await looked.page.locator("#tree a").count() == 1, "what stands below is shut"
        await looked.page.keyboard.press("ArrowRight")
        await looked.page.locator("#tree a").nth(1).wait_for()
        for pressed in ("ArrowDown", "ArrowRight", "ArrowRight", "Enter"):
            await looked.page.keyboard.press(pressed)
            await looked.page.wait_for_timeout(300)
        chosen = looked.page.locator("#tree a[aria-selected='true']")
        assert "?at=" in looked.page.url and await chosen.count() == 1
        title = await looked.page.locator("#pane h2").inner_text()
        assert not await looked.axe()
        assert await looked.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is outside"
        await looked.page.reload()
        assert await looked.page.locator("#pane h2").inner_text() == title


async def test_a_halt_holds_a_task_until_it_is_resumed(world: World, browser: Browser) -> None:
    async with held(world, "gently") as task, visitor(browser, world.mesh.url, key(world)) as looked:
        await looked.go(f"/tasks/{task.id}")
        await looked.page.locator("#tree .state.running").wait_for()
        await act(looked, "Halt", "Halt the task", "is halted", reason="I want to look")
        (halt,) = (await world.client(TENANT).get("/v1/halts"))["halts"]
        assert (halt["scope"], halt["reason"]) == ("task", "I want to look")
        await looked.page.locator("#head", has_text="I want to look").wait_for()
        await world.disarm()
        await act(looked, "Lift the halt", "Let it go on", "what it held goes on", reason="I have seen it")
        assert (await world.client(TENANT).get("/v1/halts"))["halts"] == []
        assert (await world.finish(task))["status"] == "succeeded"
        await looked.page.locator("#head").get_by_text("succeeded").wait_for()


async def test_a_cancel_ends_a_task_and_a_top_up_raises_its_limit(world: World, browser: Browser) -> None:
    async with held(world, "slowly") as task, visitor(browser, world.mesh.url, key(world)) as looked:
        await looked.go(f"/tasks/{task.id}")
        await looked.page.locator("#tree .state.running").wait_for()
        await act(looked, "Top up", "Let it spend more", "Not a number", usd="much", reason="it may")
        await act(looked, "Top up", "Let it spend more", "may spend more", usd="0.25", reason="it may")
        (added,) = (await world.client(TENANT).get("/v1/limits"))["top_ups"]
        assert (added["task"], added["add"]["cost_usd_micros"]) == (task.id, 250_000)
        await act(looked, "Cancel", "Cancel the task", "The cancel is stored", reason="enough")
        document = await world.finish(task)
        assert document["status"] == "cancelled" and "enough" in document["failure"]["message"]
        await looked.page.locator("#head").get_by_text("cancelled").first.wait_for()


async def test_a_fork_runs_a_step_again_with_another_instruction(world: World, browser: Browser) -> None:
    question = "What is 12 * 12?"
    task = await world.submit(TENANT, question, plan=calculation(question), check=False)
    await world.finish(task)
    async with visitor(browser, world.mesh.url, key(world)) as looked:
        await looked.go(f"/tasks/{task.id}/fork")
        await looked.sees("No step that runs again has written anything")
        assert not await looked.axe()
        await looked.page.get_by_label("Objective").fill("What is 12 * 13?")
        await looked.page.get_by_label("Instruction").fill("What is 12 * 13?")
        await looked.page.get_by_role("button", name="Fork").click()
        await looked.page.wait_for_url(lambda url: "/fork" not in url and task.id not in url)
        forked = world.client(TENANT).task(looked.page.url.rpartition("/")[2])
        assert "156" in (await world.finish(forked))["answer"]
        await looked.page.locator(".answer", has_text="156").wait_for()


async def test_text_is_seen_as_it_is_written_and_after_a_kill_of_the_gateway(world: World, browser: Browser) -> None:
    async with held(world, "carefully") as task, visitor(browser, world.mesh.url, key(world)) as looked:
        await looked.go(f"/tasks/{task.id}")
        await looked.page.locator("#tree .state.running").wait_for()
        await world.mesh.kill_replica("gateway")
        await looked.sees("reconnecting")
        await looked.page.locator("#connection", has_text="live").wait_for()
        assert await looked.page.locator("#texts section").count() <= 1, "nothing stands there twice"

        async def taken() -> bool:
            try:
                await world.client(TENANT).task(task.id).cancel()
            except Exception:
                return False
            return True

        await until(taken, "the gateway takes a cancel again")
        await looked.page.locator("#head").get_by_text("cancelled").first.wait_for()


async def test_an_update_is_on_the_screen_soon_after_its_fact(world: World, browser: Browser) -> None:
    async with visitor(browser, world.mesh.url, key(world)) as looked:
        took = []
        for number in range(3):
            async with held(world, f"fast{number}") as task:
                await looked.go(f"/tasks/{task.id}")
                await looked.page.locator("#tree .state.running").wait_for()
                await world.client(TENANT).task(task.id).cancel()
                # Both hear of the end from the same gateway.
                await world.event(task, "task.ended")
                heard = time.monotonic()
                await looked.page.locator("#head .state.cancelled").first.wait_for()
                took.append((time.monotonic() - heard) * 1000)
        assert min(took) < LATE_MAX_MS, took
