"""The list of tasks and the command palette in a real browser: by keys alone, with choices that outlive news."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.e2e.console.browser import PHONE, Looked, visitor
from tests.integration.console.test_live import held
from tests.replay.stage import OPERATOR, Stage, plan, stage
from tests.unit.services.model_gateway.scripted_provider import says

pytestmark = pytest.mark.asyncio(loop_scope="session")

WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def on(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with stage(tmp_path_factory.mktemp("palette")) as found:
        for number in range(3):
            found.model.will(plan({"id": "a"}), a=[says("Here is a.")])
            await found.run(f"Find fare {number}.", feature="refunds")
        yield found


async def test_the_palette_finds_and_opens_by_keys_alone(on: Stage, browser: Browser) -> None:
    async with visitor(browser, on.url, OPERATOR) as looked:
        keys = looked.page.keyboard
        await looked.go("/spend")
        await keys.press("Control+k")
        await looked.page.locator("#palette-results a", has_text="Coordination").wait_for()
        await keys.type("fare")
        await looked.page.locator("#palette-results a", has_text="Find fare 1").wait_for()
        assert not await looked.axe()
        await keys.press("ArrowDown")
        await keys.press("ArrowDown")
        await keys.press("Enter")
        await looked.page.wait_for_url("**/tasks/t*")
        assert await looked.page.locator("h1").inner_text() == "Find fare 1."
        await keys.press("/")
        await looked.page.locator("#palette[open]").wait_for()
        await keys.press("Escape")
        await looked.page.locator("#palette[open]").wait_for(state="detached")
        await keys.press("Control+k")
        await keys.type("spend")
        await looked.page.locator("#palette-results h2").first.wait_for()
        await looked.page.locator("#palette-results a", has_text="Coordination").wait_for(state="detached")
        await keys.press("Enter")
        await looked.page.wait_for_url("**/spend")


async def test_chosen_tasks_stay_chosen_through_news_and_are_acted_upon(on: Stage, browser: Browser) -> None:
    async with visitor(browser, on.url, OPERATOR) as looked:
        await looked.go("/tasks?feature=refunds")
        await looked.page.locator("#connection", has_text="live").wait_for()
        assert await looked.page.locator("#bulk").is_hidden()
        await looked.page.get_by_label("Choose Find fare 0.").check()
        async with held(on, "Find another."):
            await looked.page.get_by_label("Order").select_option("cost")
            await looked.page.wait_for_url("**/tasks?sort=cost&feature=refunds")
            assert await looked.page.get_by_label("Choose Find fare 0.").is_checked()
        assert await looked.page.locator("#picked").inner_text() == "1 task"
        on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
        await looked.page.get_by_placeholder("Reason").fill("once more")
        await looked.page.get_by_role("button", name="Retry").click()
        await looked.sees("Retry: 1 of 1 task done")
        assert await looked.page.locator("#bulk").is_hidden()
        await looked.page.get_by_role("link", name="The new task").click()
        assert await looked.page.locator("h1").inner_text() == "Find fare 0."


async def test_the_list_and_the_search_are_for_everybody(on: Stage, browser: Browser) -> None:
    for options in ({}, {"color_scheme": "dark"}, {"viewport": PHONE, "has_touch": True}):
        async with visitor(browser, on.url, OPERATOR, **options) as looked:
            for path in ("/tasks?person=ann", "/search?q=fare"):
                await looked.go(path)
                assert not await looked.axe()
                assert await looked.page.evaluate(WIDER) <= 0
    async with visitor(browser, on.url, OPERATOR) as looked:
        context = await browser.new_context(
            java_script_enabled=False, storage_state=await looked.page.context.storage_state()
        )
        plain = Looked(await context.new_page(), on.url)
        await plain.go("/tasks")
        await plain.page.get_by_role("link", name="Search").click()
        await plain.page.get_by_label("Words or an ID").fill("fare 2")
        await plain.page.get_by_role("button", name="Search").click()
        assert await plain.page.locator("#results a", has_text="Find fare 2").count() == 1
        await context.close()
