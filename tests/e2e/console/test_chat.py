"""The room Chat in a real browser, on a phone: calls, answer, source, stop, rating, edit and fork."""

import pytest
from playwright.async_api import Browser

from tests.e2e.console.browser import visitor
from tests.e2e.console.test_rooms import SIDEWAYS, key
from tests.e2e.fixtures.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

SMALL = {"width": 360, "height": 740}
TENANT = "t7"
COMPOSER_IS_SEEN = """(() => { const box = document.querySelector(".composer").getBoundingClientRect();
    return box.top > 0 && box.bottom <= innerHeight + 1; })()"""
LEAVE = "Leave is 31 days after five years of work. It is 25 days before."


async def test_a_conversation_on_a_phone(world: World, browser: Browser) -> None:
    await world.client(TENANT).add_document(LEAVE.encode(), "leave.md", "text/markdown")
    async with visitor(browser, world.mesh.url, key(world, TENANT, "submitter"), viewport=SMALL) as looked:
        page = looked.page
        await looked.go("/chat")
        assert not await looked.axe()
        ask = page.get_by_label("Ask", exact=True)
        await ask.fill("How many days is leave")
        await ask.press("Shift+Enter")
        await ask.press_sequentially("after five years of work?")
        await ask.press("Enter")
        await page.locator(".doings li", has_text="leave.md").first.wait_for()
        await page.locator(".answer", has_text="31 days").wait_for()
        assert await page.locator(".doings li").count() >= 2, "what was told stays when the answer is there"
        assert not await looked.axe()
        await page.locator(".mark").first.click()
        await page.locator(".cited", has_text="25 days before").wait_for()
        assert await page.evaluate(SIDEWAYS) <= 0, "a phone scrolls down, not sideways"
        assert not await looked.axe()

        assert not await page.get_by_label("Comment", exact=True).count()
        await page.get_by_role("button", name="Good").click()
        await page.locator("#flash", has_text="Your rating is stored: good.").wait_for()
        assert await page.get_by_role("button", name="Good").get_attribute("aria-pressed") == "true"
        await page.get_by_label("Comment", exact=True).fill("as the rules say")
        await page.get_by_role("button", name="Save").click()
        await page.locator("#flash", has_text="Your rating is stored: good.").wait_for()
        await page.get_by_text("Steps, searches and calls").click()
        await page.locator(".doings li", has_text="leave.md").first.wait_for()

        await world.arm("stall", pattern="17", times=1, delay_ms=60_000)
        try:
            await ask.fill("What is 17 * 23?")
            await ask.press("Enter")
            await page.get_by_role("button", name="Stop").wait_for()
            await ask.fill("Is anybody there?")
            await ask.press("Enter")
            await page.locator("#effect", has_text="goes on").wait_for()
            assert await ask.input_value() == "Is anybody there?"
            assert await page.evaluate(COMPOSER_IS_SEEN), "what became of it stands where the person looks"
            await page.get_by_role("button", name="Stop").click()
            await page.locator(".turn").nth(1).locator(".standing", has_text="cancelled").wait_for()
        finally:
            await world.disarm()
        assert not await looked.axe()
        await page.get_by_role("button", name="Retry").click()
        second = page.locator(".turn").nth(1)
        await second.locator(".answer", has_text="391").wait_for()
        await second.locator(".doings li", has_text="calculate").first.wait_for()
        assert await page.locator(".turn").count() == 2, "a retried turn takes the place of the one before"
        assert await page.evaluate(SIDEWAYS) <= 0 and not await looked.axe()

        # A fork is another conversation; an edited turn takes those after it out of this one.
        here = page.url
        await page.get_by_role("button", name="Fork: a new").first.click()
        await page.locator("#flash", has_text="begins with the turns of another").wait_for()
        assert page.url != here and await page.locator(".turn").count() == 1
        await page.goto(here)
        await page.locator(".act > [aria-label=Edit]").first.click()
        question = page.get_by_label("Your question").first
        await question.fill("What is 3 * 7?")
        await question.press("Enter")
        await page.locator(".answer", has_text="21").wait_for()
        assert await page.locator(".turn").count() == 1
        await page.get_by_text("3 turns replaced").click()
        await page.locator(".replaced", has_text="How many days is leave").wait_for()
        for product in ("4 * 7", "5 * 7", "6 * 7"):
            await ask.fill(f"What is {product}?")
            await ask.press("Enter")
            await page.locator(".turn:last-child .answer", has_text=str(int(product[0]) * 7)).wait_for()
        assert await page.evaluate(COMPOSER_IS_SEEN) and not await looked.axe()
        assert await page.evaluate("document.querySelector('.turns').scrollHeight") < 1_200, "four turns on a phone"
        await looked.go("/chat")
        assert await page.locator(".results li").count() == 2
