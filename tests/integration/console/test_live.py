"""Live regions of the console in a real browser, over the whole mesh in one process: no news is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route

from bulkhead.client import Task
from tests.e2e.console.browser import Looked, visitor
from tests.replay.stage import OPERATOR, Stage, plan, stage
from tests.unit.services.model_gateway.scripted_provider import Exchange, says

pytestmark = pytest.mark.asyncio(loop_scope="session")

FORGING = "A\u2028event: task.ended\u2028data: {\u2029\u0085"
NOT_LATE_MS, SOON_S = 10_000, 0.5
TOLD = "() => new Promise((done) => document.addEventListener('htmx:sseMessage', () => done(), { once: true }))"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def on(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with stage(tmp_path_factory.mktemp("live")) as found:
        yield found


@dataclass
class Slow:
    """The first refresh of a path and query takes until `goes_on`, though its answer is made at once. status: of it."""

    looked: Looked
    path: str
    status: int = 200
    made: asyncio.Event = field(default_factory=asyncio.Event)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    seen: int = 0

    async def __aenter__(self) -> "Slow":
        await self.looked.page.route(self._is_met, self._answered)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.goes_on.set()

    def _is_met(self, url: str) -> bool:
        """True for this path; without a query in it with any."""
        path = url.removeprefix(self.looked.url)
        return self.path in (path, path.partition("?")[0])

    async def _answered(self, route: Route) -> None:
        self.seen += "hx-request" in route.request.headers
        if "hx-request" not in route.request.headers or self.seen > 1:
            await route.continue_()
            return
        answer = await route.fetch()
        self.made.set()
        await self.goes_on.wait()
        await route.fulfill(response=answer, status=self.status)


@asynccontextmanager
async def held(on: Stage, objective: str = "Find it out.") -> AsyncIterator[tuple[Task, asyncio.Event]]:
    """A task of one step, whose model answers when it may."""
    goes_on = asyncio.Event()

    async def slow(x: Exchange) -> None:
        await goes_on.wait()
        await says("Here is a.")(x)

    on.model.will(plan({"id": "a", "title": FORGING}), a=[slow])
    async with on.client() as ann:
        task = await ann.submit(objective, check=False)
        try:
            yield task, goes_on
        finally:
            goes_on.set()
            await task.wait_until_ended(30)


async def test_what_happens_during_a_refresh_is_shown_after_it(on: Stage, browser: Browser) -> None:
    async with held(on) as (task, goes_on), visitor(browser, on.url, OPERATOR) as looked:
        async with Slow(looked, f"/tasks/{task.id}/head") as refresh:
            await looked.go(f"/tasks/{task.id}")
            await asyncio.wait_for(refresh.made.wait(), 20)
            await looked.page.locator("#head .state.running").wait_for()
            goes_on.set()
            # A step ends, then the task; the stream is over before the answer has come.
            await looked.page.locator("#connection", has_text="live").wait_for(state="detached")
        await looked.page.locator("#head .state.succeeded").wait_for(timeout=NOT_LATE_MS)


async def test_news_wait_for_what_is_open_and_the_focus_stays(on: Stage, browser: Browser) -> None:
    async with held(on, "Find it out. " * 30) as (task, goes_on), visitor(browser, on.url, OPERATOR) as looked:
        summary = looked.page.locator("#head .whole summary")
        async with Slow(looked, f"/tasks/{task.id}/head") as refresh:
            await looked.go(f"/tasks/{task.id}")
            await asyncio.wait_for(refresh.made.wait(), 20)
            await looked.page.locator("#head .state.running").wait_for()
            await summary.press("Enter")  # While an answer is on its way.
        await looked.page.locator("#notice", has_text="There is news").wait_for()
        assert await looked.page.locator("#head details[open]").count() == 1
        goes_on.set()
        await looked.page.locator("#connection", has_text="live").wait_for(state="detached")
        assert await looked.page.locator("#head .state.running").count() == 1, "what is read stays"
        await looked.page.keyboard.press("Enter")
        await looked.page.locator("#head .state.succeeded").wait_for(timeout=NOT_LATE_MS)
        assert await summary.evaluate("one => one === document.activeElement")
        assert await looked.page.locator("#notice").inner_text() == ""


async def test_a_look_that_is_refused_is_told_and_made_again(on: Stage, browser: Browser) -> None:
    async with (
        held(on) as (task, goes_on),
        visitor(browser, on.url, OPERATOR) as looked,
        Slow(looked, f"/tasks/{task.id}/tree", status=429) as refresh,
    ):
        await looked.go(f"/tasks/{task.id}")
        goes_on.set()
        await asyncio.wait_for(refresh.made.wait(), 20)
        # Both are looked for at once, and from before: after a second it is read again.
        told = [looked.page.locator("#tree.stale"), looked.page.locator("#notice", has_text="is old")]
        waits = asyncio.gather(*(place.wait_for() for place in told))
        await asyncio.sleep(0)
        refresh.goes_on.set()
        await waits
        await looked.page.locator("#tree [data-key='plan.1']").wait_for(timeout=NOT_LATE_MS)
        await looked.page.locator("#tree.stale").wait_for(state="detached")
        assert await looked.page.locator("#notice").inner_text() == ""


async def test_a_filter_is_not_undone_by_a_refresh_and_lives_on(on: Stage, browser: Browser) -> None:
    async with visitor(browser, on.url, OPERATOR) as looked:
        async with Slow(looked, "/tasks") as refresh:
            await looked.go("/tasks")
            await asyncio.wait_for(refresh.made.wait(), 20)
            await looked.page.get_by_label("Text").fill("needle")
            await looked.sees("No task fits")
        await looked.page.wait_for_load_state("networkidle")
        assert await looked.page.get_by_text("No task fits").count() == 1
        async with held(on, "Find the needle.") as (task, _):
            await looked.page.locator(f"#to-{task.id}").wait_for(timeout=NOT_LATE_MS)
            assert await looked.page.locator("#rows tbody tr").count() == 1
        await looked.go("/tasks?text=needle")
        nothing = "/tasks?text=nothing"
        async with Slow(looked, nothing) as filtered:
            await looked.page.get_by_label("Text").fill("nothing")
            await asyncio.wait_for(filtered.made.wait(), 20)
            told = asyncio.create_task(looked.page.evaluate(TOLD))
            async with held(on, "Find the needle again."):
                await asyncio.wait_for(told, 20)
            await asyncio.sleep(SOON_S)  # A look that is made now, as it should not be, has its answer.
        await looked.sees("No task fits")
