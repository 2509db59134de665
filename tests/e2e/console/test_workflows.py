"""A workflow in a real browser, on a phone: scheduled in one's own zone, run, drawn, and a failed step skipped."""

import pytest
from playwright.async_api import Browser

from bulkhead.client import Mesh
from tests.e2e.console.browser import visitor
from tests.e2e.console.test_chat import SMALL
from tests.e2e.console.test_rooms import SIDEWAYS, key
from tests.e2e.fixtures.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

TENANT = "t8"
CONTENT = {
    "objective": "Work out {{what}}",
    "parameters": [{"name": "what"}],
    "tools": ["calculate"],
    "steps": [
        {"id": "sum", "title": "Sum", "instruction": "What is 17 * 23?", "tools": ["calculate"], "acceptance": "found"},
        {
            "id": "long",
            "title": "It is long",
            "instruction": "The sum is too short.",
            "inputs": ["sum"],
            "gate": {"of": "sum", "checks": [{"test": "min_words", "text": "900"}]},
            "skippable": True,
        },
        {"id": "end", "title": "End", "instruction": "What is 12 * 12?", "inputs": ["long"], "acceptance": "found"},
    ],
}


async def test_a_workflow_is_scheduled_run_and_its_failed_step_skipped_on_a_phone(
    world: World, browser: Browser
) -> None:
    operator, url = key(world, TENANT), world.mesh.url
    async with Mesh(url, key(world, TENANT, "prompt_editor")) as pia, Mesh(url, key(world, TENANT, "approver")) as bob:
        sha256 = (await pia.draft_workflow("sums", CONTENT, "first"))["sha256"]
        await pia.move_workflow("sums", 1, "submit", sha256, "go")
        await bob.move_workflow("sums", 1, "approve", sha256, "fine")
        await pia.move_workflow("sums", 1, "publish", sha256, "fine")
    async with visitor(browser, url, operator, viewport=SMALL, timezone_id="Europe/Vienna", locale="de-AT") as looked:
        page = looked.page
        await looked.go("/workflows/sums")
        await page.locator("summary", has_text="Schedule").click()
        assert await page.get_by_label("Time zone").input_value() == "Europe/Vienna"
        assert not await looked.axe()
        await page.get_by_label("Time zone").fill("UTC")
        await page.get_by_label("Cron").fill("0 12 * * *")
        await page.locator("#s-value-what").fill("the sum")
        await page.get_by_role("button", name="Set it").click()
        await page.locator("#flash", has_text="sums.1 is scheduled.").wait_for()
        shown = await page.locator("time.local").first.inner_text()
        assert "13:00" in shown or "14:00" in shown, "noon in UTC, as Vienna's clocks have it"
        assert await page.evaluate(SIDEWAYS) <= 0 and not await looked.axe()

        await page.locator("#value-what").fill("the sum")
        await page.get_by_role("button", name="Run", exact=True).click()
        await page.locator(".standing summary", has_text="Skip").wait_for()
        await page.get_by_role("link", name="Graph").click()
        await page.locator(".graph a.rejected", has_text="It is long").wait_for()
        assert await page.evaluate(SIDEWAYS) <= 0 and not await looked.axe()
        await page.locator(".standing summary", has_text="Skip").click()
        await page.locator(".standing form [name=reason]").fill("short is fine")
        await page.get_by_role("button", name="Skip the step").first.click()
        await page.locator(".standing .state.succeeded").wait_for()
        await page.locator(".graph a.skipped", has_text="It is long").wait_for()
        await page.get_by_role("link", name="Times").click()
        await page.locator(".run-sums", has_text="waited for a person").wait_for()
        assert await page.evaluate(SIDEWAYS) <= 0 and not await looked.axe()
