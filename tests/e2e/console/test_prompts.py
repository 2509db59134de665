"""The rooms of prompts in a real browser: written, refused, mended, tried on a tenth, given to all, taken back."""

import pytest
from playwright.async_api import Browser

from tests.e2e.console.browser import PHONE, Looked, visitor
from tests.e2e.console.test_rooms import SIDEWAYS, key
from tests.e2e.fixtures.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

INSTRUCTION = "You carry out one step of a plan. Answer in a {{tone}} tone, and cite each source by its marker."


async def is_clean(looked: Looked) -> bool:
    """Nothing that axe calls serious, and nothing beside the page."""
    violations, sideways = await looked.axe(), await looked.page.evaluate(SIDEWAYS)
    assert not violations and sideways <= 0, (looked.page.url, violations, sideways)
    return True


async def test_a_prompt_is_edited_tried_promoted_and_taken_back(world: World, browser: Browser) -> None:
    async with visitor(browser, world.mesh.url, key(world, "t7", "prompt_editor"), viewport=PHONE) as looked:
        page = looked.page
        await looked.go("/prompts")
        await looked.sees("every task has the shipped prompts")
        assert await is_clean(looked)
        await page.get_by_role("link", name="worker.step", exact=True).click()
        await looked.sees("Every task has the shipped text.")
        assert await is_clean(looked)

        await page.get_by_role("link", name="Edit").click()
        check = page.locator("#check")
        await page.get_by_label("Text", exact=True).fill(INSTRUCTION)
        await check.get_by_text("{{tone}} stands in the text and is not declared").wait_for()
        assert await is_clean(looked)
        await page.get_by_label("Note").fill("answers sound as we do")
        await page.get_by_role("button", name="Publish").click()
        await page.get_by_role("alert").get_by_text("declare each {{name}} of the text once").wait_for()
        await check.get_by_role("button", name="Declare tone").click()
        await page.get_by_label("By default").first.fill("plain")
        await check.get_by_text("Text and variables fit.").wait_for()
        await page.get_by_role("button", name="Add a variable").click()
        await page.get_by_label("Variable", exact=True).nth(1).fill("Company")
        await check.get_by_text("variables.1.name").wait_for()
        await page.get_by_label("Variable", exact=True).nth(1).fill("")
        await check.get_by_text("Text and variables fit.").wait_for()
        await page.get_by_role("button", name="Publish").click()
        await page.wait_for_url("**/prompts/worker.step?version=r1")
        await looked.sees("answers sound as we do")
        await page.get_by_role("link", name="with shipped").click()
        await page.locator("#difference ins").first.wait_for()
        assert await is_clean(looked)

        await page.get_by_role("link", name="Promote r1").click()
        await page.get_by_label("A share first (a canary)").check()
        await page.get_by_label("tone").fill("formal")
        await page.get_by_label("Reason").fill("try it on a tenth")
        assert await is_clean(looked)
        await page.get_by_role("button", name="Promote").click()
        await page.wait_for_url("**/prompts/by-label/production")
        await page.locator("#canary", has_text="10 % of tasks get worker.step@r1 (tone = formal) instead").wait_for()
        assert await is_clean(looked)
        await page.locator("#canary").get_by_text("Give it to everybody").click()
        await page.locator("#canary").get_by_label("Reason").first.fill("it does better")
        await page.get_by_role("button", name="Promote it").click()
        await looked.sees("None: every task gets the same versions.")
        task = await world.submit("t7", "What is 17 * 23?")
        await world.finish(task)

        release = page.get_by_role("row").filter(has_text="try it on a tenth")
        await release.get_by_text("Roll back", exact=True).click()
        await release.get_by_label("Reason").fill("it was worse")
        await page.get_by_role("button", name="Roll back to 1").click()
        await page.get_by_role("heading", name="production 3").wait_for()
        assert await is_clean(looked)
    async with visitor(browser, world.mesh.url, key(world, "t7")) as operator:
        await operator.go(f"/tasks/{task.id}")
        work = operator.page.get_by_role("treeitem").filter(has_text="worker.step").first
        await work.wait_for()
        await work.click()
        await operator.page.locator("#pane", has_text="Answer in a formal tone").wait_for()
        await operator.sees("worker.step@r1")
        assert not await operator.axe()
