"""The room Chat in a real browser, on a phone: what is looked at, the answer, its source, stop and rating."""

import pytest
from playwright.async_api import Browser

from tests.e2e.console.browser import visitor
from tests.e2e.console.test_rooms import SIDEWAYS, key
from tests.e2e.fixtures.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

SMALL = {"width": 360, "height": 740}
TENANT = "t7"
LEAVE = "Leave is 31 days after five years of work. It is 25 days before."


async def test_a_conversation_on_a_phone(world: World, browser: Browser) -> None:
    await world.client(TENANT).add_document(LEAVE.encode(), "leave.md", "text/markdown")
    async with visitor(browser, world.mesh.url, key(world, TENANT, "submitter"), viewport=SMALL) as looked:
        page = looked.page
        await looked.go("/chat")
        assert not await looked.axe()
        await page.get_by_label("Ask", exact=True).fill("How many days is leave after five years of work?")
        await page.get_by_role("button", name="Send").click()
        await page.locator(".doings li", has_text="leave.md").first.wait_for()
        await page.locator(".answer", has_text="31 days").wait_for()
        assert await page.locator(".doings li").count() >= 2, "what was told stays when the answer is there"
        assert not await looked.axe()
        await page.locator(".mark").first.click()
        await page.locator(".cited", has_text="25 days before").wait_for()
        assert await page.evaluate(SIDEWAYS) <= 0, "a phone scrolls down, not sideways"
        assert not await looked.axe()

        await page.get_by_label("Comment").fill("as the rules say")
        await page.get_by_role("button", name="Good").click()
        await page.locator("#flash", has_text="Your rating is stored: good.").wait_for()
        assert await page.get_by_role("button", name="Good").get_attribute("aria-pressed") == "true"
        await page.get_by_text("Steps, searches and calls").click()
        await page.locator(".doings li", has_text="leave.md").first.wait_for()

        await world.arm("stall", pattern="17", times=1, delay_ms=60_000)
        try:
            await page.locator("summary", has_text="Edit").click()
            await page.get_by_label("Your question").fill("What is 17 * 23?")
            await page.get_by_role("button", name="Ask", exact=True).click()
            await page.get_by_role("button", name="Stop").wait_for()
            await page.get_by_label("Ask", exact=True).fill("Is anybody there?")
            await page.get_by_role("button", name="Send").click()
            await page.locator("#effect", has_text="goes on").wait_for()
            assert await page.get_by_label("Ask", exact=True).input_value() == "Is anybody there?"
            await page.get_by_role("button", name="Stop").click()
            await page.locator(".turn").nth(1).locator(".standing", has_text="cancelled").wait_for()
        finally:
            await world.disarm()
        assert not await looked.axe()
        await page.get_by_role("button", name="Retry").click()
        third = page.locator(".turn").nth(2)
        await third.locator(".answer", has_text="391").wait_for()
        await third.locator(".doings li", has_text="calculate").first.wait_for()
        assert await page.evaluate(SIDEWAYS) <= 0 and not await looked.axe()
