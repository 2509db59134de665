"""A gate before a label, in a real browser: a change fails it with its cases, is mended, shipped to a tenth, and given
to everybody; the evaluations are run by a process with a key of its own."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from bulkhead.evaluation.statement import make_key
from tests.e2e.console.browser import visitor
from tests.e2e.console.test_prompts import is_clean
from tests.e2e.console.test_rooms import key
from tests.e2e.fixtures.world import World
from tests.paths import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETS = ROOT / "examples" / "evaluation"
EVALUATED_MS = 90_000


@asynccontextmanager
async def evaluator(world: World, tenant: str, private_key: Path, data: Path) -> AsyncIterator[None]:
    """`bulkhead eval serve` as a process, ended by SIGTERM."""
    where = ["--url", world.mesh.url, "--api-key", key(world, tenant, "evaluator"), "--data", str(data)]
    command = [sys.executable, "-m", "bulkhead_cli.main", "eval", "serve", "--sets", str(SETS)]
    process = await asyncio.create_subprocess_exec(
        *command, "--key", str(private_key), *where, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()


async def publish(page: Page, url: str, instruction: str, note: str) -> None:
    await page.goto(f"{url}/prompts/worker.step/edit")
    text = page.get_by_label("Text", exact=True)
    shipped = re.sub(r"\nDo not cite\.", "", await text.input_value()).rstrip()
    await text.fill(f"{shipped}\n{instruction}")
    await page.get_by_label("Note").fill(note)
    await page.get_by_role("button", name="Publish").click()
    await page.wait_for_url("**/prompts/worker.step?version=r*")


@pytest.mark.slow
async def test_a_change_fails_the_gate_is_mended_and_shipped(world: World, browser: Browser, tmp_path: Path) -> None:
    private_key, url = tmp_path / "evaluator.pem", world.mesh.url
    gate = {"sets": {"cases": None}, "keys": [make_key(private_key)], "four_eyes": False, "break_glass": ["operator"]}
    world.change_tenants(t9={"gates": {"production": gate}})
    editor = visitor(browser, url, key(world, "t9", "prompt_editor"))
    async with editor as looked, evaluator(world, "t9", private_key, tmp_path):
        page = looked.page
        await publish(page, url, "Do not cite.", "sources are too long")
        await looked.sees("A gate stands before production")
        await page.get_by_role("link", name="Promote r1").click()
        await page.get_by_label("Reason").fill("shorter answers")
        await page.get_by_role("button", name="Promote").click()
        await page.get_by_role("alert").get_by_text("no statement says that these prompts pass").wait_for()
        assert await is_clean(looked)

        await page.get_by_role("button", name="Evaluate first").click()
        await page.get_by_text("It does not pass the gate.").wait_for(timeout=EVALUATED_MS)
        failed = page.locator("#failed").get_by_role("row").filter(has_text="lost")
        await failed.get_by_text("cites: luggage.md (cited: nothing)").wait_for()
        assert await is_clean(looked)
        await page.goto(f"{url}/prompts/worker.step/promote?version=r1")
        await page.get_by_label("Reason").fill("shorter answers")
        await page.get_by_role("button", name="Promote").click()
        await page.get_by_role("alert").get_by_text("runs passed, less than 90%").wait_for()

        await publish(page, url, "Answer in at most 40 words.", "short, with sources")
        await page.get_by_role("button", name="Evaluate r2").click()
        await page.get_by_text("It passes the gate").wait_for(timeout=EVALUATED_MS)
        assert await is_clean(looked)
        await page.get_by_role("link", name="worker.step@r2").click()
        await page.get_by_role("link", name="Promote r2").click()
        await page.get_by_label("A share first (a canary)").check()
        await page.get_by_label("Reason").fill("try it on a tenth")
        await page.get_by_role("button", name="Promote").click()
        await page.wait_for_url("**/prompts/by-label/production")
        await page.locator("#canary").get_by_text("10 % of tasks get worker.step@r2").wait_for()
        assert await is_clean(looked)
        await page.locator("#canary").get_by_text("Give it to everybody").click()
        await page.locator("#canary").get_by_label("Reason").first.fill("it does better")
        await page.get_by_role("button", name="Promote it").click()
        await looked.sees("None: every task gets the same versions.")
        await page.get_by_role("heading", name="production 2").wait_for()
        assert await page.get_by_role("link", name="evaluation 2").count() == 2
        assert await is_clean(looked)
    async with visitor(browser, url, key(world, "t9")) as operator:
        page = operator.page
        await page.goto(f"{url}/prompts/worker.step/promote?version=r1")
        await page.get_by_label("Reason").fill("the sources name a person")
        await page.get_by_text("Break the glass", exact=True).click()
        await page.get_by_label("Move it without the statement").check()
        assert await is_clean(operator)
        await page.get_by_role("button", name="Promote").click()
        await page.get_by_text("glass broken").wait_for()
