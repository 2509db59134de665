"""Chromium for tests of the console: sign in, look at pages, and tell what a page should never do.

In: the address of a gateway and a key. Out: pages; `Looked.troubles` has dialogs, script errors and what the
Content-Security-Policy refused; a picture of each page that was tried for its accessibility, and of the last one before
a failure, in the folder `pictures`.
"""

import contextlib
import itertools
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Error, Page, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
AXE = Path(__file__).with_name("vendor") / "axe.min.js"
TIMEOUT_MS = 30_000
PHONE = {"width": 390, "height": 800}
PICTURES = "BULKHEAD_SCREENSHOTS"
"""A folder that keeps them beyond the run; without it they lie in pytest's."""
NUMBERS = itertools.count(1)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser without a window."""
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield found
        finally:
            await found.close()


@dataclass
class Looked:
    """A page of one person. path: of the console."""

    page: Page
    url: str
    pictures: Path | None = None
    troubles: list[str] = field(default_factory=list)

    async def go(self, path: str) -> None:
        """Open a page of the console."""
        await self.page.goto(self.url + path)

    async def sees(self, text: str) -> None:
        """Wait until the page shows this text."""
        await self.page.get_by_text(text).first.wait_for()

    async def axe(self) -> list[str]:
        """What axe finds that is serious or critical."""
        await self.keep()
        found: dict[str, Any] = await self.page.evaluate(
            f"async () => {{ {AXE.read_text()}; return await axe.run(); }}"
        )
        bad = [row for row in found["violations"] if row["impact"] in ("serious", "critical")]
        return [f"{row['id']}: {node['html'][:200]}" for row in bad for node in row["nodes"]]

    async def keep(self, why: str = "") -> None:
        """Leave a picture of the whole page, named by its path."""
        if self.pictures is not None:
            path = re.sub(r"[^a-z]+|t[a-z2-7]{25}", "-", self.page.url.removeprefix(self.url).partition("?")[0]).strip(
                "-"
            )
            name = "-".join(filter(None, (f"{next(NUMBERS):03}", path or "overview", why)))
            await self.page.screenshot(path=self.pictures / f"{name}.png", full_page=True)


class Pictures:
    """Where visitors of this run leave pictures; None for nowhere."""

    folder: Path | None = None


@asynccontextmanager
async def visitor(browser: Browser, url: str, key: str = "", **context: Any) -> AsyncIterator[Looked]:
    """A person with a browser of their own, signed in where there is a key. Fails when a page did what none should."""
    opened = await browser.new_context(**context)
    opened.set_default_timeout(TIMEOUT_MS)
    page = await opened.new_page()
    looked = Looked(page, url, Pictures.folder)

    async def dialog(found: Any) -> None:
        looked.troubles.append(f"dialog: {found.message}")
        await found.dismiss()

    page.on("dialog", dialog)
    page.on("pageerror", lambda error: looked.troubles.append(f"error: {error}"))
    page.on("console", lambda said: _refused(looked, said.text))
    try:
        if key:
            await looked.go("/login")
            await page.get_by_label("API key").fill(key)
            await page.get_by_role("button", name="Sign in").click()
            await page.locator("form[action='/logout']").wait_for(state="attached")  # A phone has it in its menu.
        yield looked
        assert not looked.troubles, looked.troubles
    except BaseException:
        with contextlib.suppress(Error):  # The browser may be gone, and the failure counts.
            await looked.keep("failed")
        raise
    finally:
        await opened.close()


def _refused(looked: Looked, text: str) -> None:
    if "Content Security Policy" in text or "Refused to" in text:
        looked.troubles.append(text)
