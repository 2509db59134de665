"""A canary in a real browser: a person watches a bad version being taken back, and finds it among what needs one."""

import asyncio

import httpx
import pytest
from playwright.async_api import Browser

from tests.e2e.console.browser import visitor
from tests.e2e.console.test_prompts import is_clean
from tests.e2e.console.test_rooms import key
from tests.e2e.fixtures.world import World
from tests.integration.prompts.test_canary import bad_text

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
TENANT = "t26"


async def test_a_bad_canary_is_taken_back_before_a_persons_eyes(world: World, browser: Browser) -> None:
    async with httpx.AsyncClient(
        base_url=world.mesh.url, headers={"X-API-Key": key(world, TENANT, "prompt_editor")}, timeout=60
    ) as pia:
        body = {"content": {"text": bad_text()}, "note": "one more question", "owner": "support"}
        assert (await pia.post("/v1/prompts/worker.step", json=body)).status_code == 201
        change = {"prompt": "worker.step", "number": 1}
        move = {"after": 0, "reason": "try it on half", "changes": [change], "percent": 50}
        assert (await pia.post("/v1/releases/production", json=move)).status_code == 201
    async with visitor(browser, world.mesh.url, key(world, TENANT)) as looked:
        await looked.go("/prompts/by-label/production")
        await looked.sees("A canary that does worse is rolled back by itself.")
        assert await is_clean(looked)
        canary = looked.page.locator("#canary")
        for wave in range(15):
            tasks = [await world.submit(TENANT, f"What is {6 * wave + number} * 23?") for number in range(6)]
            await asyncio.gather(*(world.finish(task) for task in tasks))
            if await canary.get_by_text("rolled back", exact=True).count():
                break
        await canary.get_by_text("rolled back", exact=True).wait_for()
        await looked.sees("the canary of worker.step@r1 does worse: more tasks without a full answer")
        await looked.page.get_by_role("heading", name="production 2").wait_for()
        assert await is_clean(looked)
        await looked.go("/")
        await looked.page.locator(".needs", has_text="does worse: more tasks without a full answer").wait_for()
        assert await is_clean(looked)
