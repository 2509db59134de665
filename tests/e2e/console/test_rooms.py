"""The console in a real browser, over real processes: login, the list of tasks, and who sees what."""

import asyncio
import json
import time

import pytest
from playwright.async_api import Browser

from tests.e2e.console.browser import PHONE, Looked, visitor
from tests.e2e.fixtures.world import World
from tests.unit.services.rag.test_extract import make_pdf
from tests.unit.services.rag.test_reads import LONG, break_page

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = "<img src=x onerror=alert(1)> <script>alert(2)</script> \u202edetrever {{ 7 * 7 }}"
PAINT_MAX_MS = 300.0
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
PAINTED = (
    "new Promise(done => new PerformanceObserver(list => done(list.getEntries()[0].startTime))"
    ".observe({type: 'paint', buffered: true}))"
)


def key(world: World, tenant: str, role: str = "operator") -> str:
    return world.mesh.add_api_key(tenant, f"{tenant}-{role}-console", role)


async def test_a_person_signs_in_and_out_and_the_key_is_nowhere(world: World, browser: Browser) -> None:
    mine = key(world, "t1")
    async with visitor(browser, world.mesh.url, mine) as looked:
        await looked.go("/tasks")
        await looked.sees("There is no task yet")
        (cookie,) = [one for one in await looked.page.context.cookies() if one["name"] == "bulkhead_session"]
        assert cookie["httpOnly"] and cookie["sameSite"] == "Lax" and mine not in cookie["value"]
        kept = await looked.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert mine not in kept + await looked.page.content() and cookie["value"] not in kept
        assert not await looked.axe()
        await looked.page.get_by_role("button", name="Sign out").click()
        await looked.page.wait_for_url("**/login")
        assert not await looked.axe()
        await looked.go("/tasks")
        assert "/login?next=/tasks" in looked.page.url


async def test_a_login_link_signs_in_after_a_question_and_stays_in_no_address(world: World, browser: Browser) -> None:
    mine = key(world, "t1")
    where = ("--url", world.mesh.url, "--api-key", mine)
    code, said, error = await world.command("open", "--json", *where)
    assert code == 0, error
    link = json.loads(said)["url"]
    async with visitor(browser, world.mesh.url) as looked:
        sent: list[str] = []
        looked.page.on("request", lambda request: sent.append(f"{request.url} {request.headers}"))
        await looked.page.goto(link)
        await looked.sees("Sign in as t1-operator-console?")
        assert not await looked.axe()
        await looked.page.get_by_role("button", name="Sign in", exact=True).click()
        await looked.page.wait_for_url(f"{world.mesh.url}/")
        assert "bl_" in link and len(sent) > 3 and "bl_" not in "".join(sent), "no proxy and no log sees it"
    async with visitor(browser, world.mesh.url) as thief:
        await thief.page.goto(link)
        await thief.sees("Sign in as t1-operator-console?")
        await thief.page.get_by_role("button", name="Sign in", exact=True).click()
        await thief.sees("this login link was used already")


async def test_a_task_appears_and_ends_while_one_looks(world: World, browser: Browser) -> None:
    async with visitor(browser, world.mesh.url, key(world, "t2")) as looked:
        await looked.go("/tasks")
        await looked.sees("live")
        task = await world.submit("t2", "What is 17 * 23?")
        row = looked.page.locator(f"#to-{task.id}")
        await row.wait_for()
        await world.finish(task)
        ended = time.monotonic()
        await looked.page.get_by_role("row").filter(has=row).get_by_text("succeeded").wait_for()
        assert time.monotonic() - ended < 5
        assert not await looked.axe()


async def test_what_others_wrote_is_text_and_another_tenants_is_not_there(world: World, browser: Browser) -> None:
    task = await world.submit("t3", HOSTILE)
    async with visitor(browser, world.mesh.url, key(world, "t3"), viewport=PHONE) as looked:
        await looked.go("/tasks")
        await looked.sees("<img src=x onerror=alert(1)> <script>alert(2)</script> detrever {{ 7 * 7 }}")
        assert await looked.page.evaluate(SIDEWAYS) <= 0, "a phone scrolls down, not sideways"
        await world.finish(task)
    async with visitor(browser, world.mesh.url, key(world, "t4")) as other:
        await other.go("/tasks")
        await other.sees("There is no task yet")


async def test_the_list_comes_back_after_its_gateway_was_killed(world: World, browser: Browser) -> None:
    async with visitor(browser, world.mesh.url, key(world, "t5")) as looked:
        await looked.go("/tasks")
        await looked.sees("live")
        await world.mesh.kill_replica("gateway")
        task = await _submitted(world, "t5")
        await looked.page.locator(f"#to-{task}").wait_for()


async def _submitted(world: World, tenant: str) -> str:
    """A task, as soon as the gateway takes one again."""
    async with asyncio.timeout(30):
        while True:
            try:
                return (await world.submit(tenant, "What is 2 + 3?")).id
            except Exception:
                await asyncio.sleep(0.1)


async def test_the_first_paint_is_quick(world: World, browser: Browser) -> None:
    task = await world.submit("t2", "What is 17 * 23?")
    await world.finish(task)
    async with visitor(browser, world.mesh.url, key(world, "t2")) as looked:
        for path in ("/", "/tasks", f"/tasks/{task.id}"):
            painted = []
            for _ in range(3):
                await looked.go(path)
                painted.append(await looked.page.evaluate(PAINTED))
            assert min(painted) < PAINT_MAX_MS, (path, painted)


async def test_the_overview_says_what_needs_a_person_and_what_the_day_costs(world: World, browser: Browser) -> None:
    async with visitor(browser, world.mesh.url, key(world, "t8")) as looked:
        await looked.sees("The mesh is empty")
        assert not await looked.axe()
        await looked.page.locator("#spending", has_text="Ceiling of the day").wait_for()
        task = await world.submit("t8", "What is 17 * 23?")
        await looked.page.locator("#tasks a", has_text="What is 17 * 23?").first.wait_for()
        await world.finish(task)
        await world.client("t8", "operator").halt("tenant", "t8", "look at this <b>first</b>")
        await looked.go("/")
        await looked.sees("look at this <b>first</b>")
        assert "$500.00" in await looked.page.locator("#spending", has_text="$500.00").inner_text()
        assert not await looked.axe()
        await world.client("t8", "operator").resume("tenant", "t8", "seen")


async def test_the_palette_does_what_it_names(world: World, browser: Browser) -> None:
    async with visitor(browser, world.mesh.url, key(world, "t2")) as looked:
        await looked.page.locator("#spending", has_text="In the last hour").wait_for()
        assert await looked.page.title() == "Overview · Bulkhead", "not that of a part that was read later"
        loaded = "document.fonts.ready.then(() => [...document.fonts].some(face => face.status === 'loaded'))"
        assert await looked.page.evaluate(loaded), "the console's own letters"
        await looked.page.keyboard.press("Control+k")
        await looked.page.keyboard.type("dark")
        await looked.page.get_by_role("button", name="Dark colours").wait_for()
        assert not await looked.axe()
        await looked.page.keyboard.press("Enter")
        await looked.page.locator("html[data-theme=dark]").wait_for()
        await looked.page.keyboard.press("Control+k")
        await looked.page.keyboard.type("halt something")
        await looked.page.get_by_role("dialog").get_by_role("link", name="Halt something stop").click()
        await looked.page.locator("details.act[open]", has_text="Halt it").wait_for()
        await looked.go("/docs")
        await (
            looked.page.get_by_role("link", name="API reference").and_(looked.page.locator("[aria-current]")).wait_for()
        )


async def test_colours_follow_the_browser_or_the_switch(world: World, browser: Browser) -> None:
    async with visitor(browser, world.mesh.url, key(world, "t8"), color_scheme="dark") as looked:
        ground = "getComputedStyle(document.body).backgroundColor"
        assert await looked.page.evaluate(ground) == "rgb(15, 19, 23)"
        assert not await looked.axe()
        for wanted in ("dark", "light"):
            await looked.page.get_by_role("button", name="Colours").click()
            await looked.page.locator(f"html[data-theme={wanted}]").wait_for()
        assert await looked.page.evaluate(ground) == "rgb(246, 247, 249)"
        await looked.page.keyboard.press("Tab")
        assert await looked.page.evaluate("document.activeElement.className") == "skip", (
            "the keyboard finds the content"
        )


async def test_a_document_is_read_searched_and_deleted_on_a_phone_too(world: World, browser: Browser) -> None:
    async with visitor(browser, world.mesh.url, key(world, "t9"), viewport=PHONE, color_scheme="dark") as looked:
        await looked.go("/documents")
        torn = break_page(make_pdf(LONG, LONG, "RECEIVED"), 1)
        await looked.page.locator("summary", has_text="Add a document").click()
        await looked.page.get_by_label("File").set_input_files(
            {"name": "fares.pdf", "mimeType": "application/pdf", "buffer": torn}
        )
        await looked.page.get_by_role("button", name="Add", exact=True).click()
        await looked.page.get_by_role("link", name="fares.pdf").click()
        await looked.sees("Pages lost")
        await looked.sees("NoSuchDecode")
        await looked.sees("Flexible fares are refunded")
        assert not await looked.axe() and await _fits(looked)
        await looked.go("/documents")
        await looked.page.get_by_label("Test retrieval").fill("when are fares refunded?")
        await looked.page.get_by_role("button", name="Test", exact=True).click()
        await looked.sees("1. fares.pdf")
        assert not await looked.axe() and await _fits(looked)
        await looked.page.get_by_role("link", name="1. fares.pdf").click()
        await looked.page.locator("summary", has_text="Delete").click()
        await looked.page.get_by_label("Reason").fill("an old list")
        await looked.page.get_by_role("button", name="Delete it").click()
        await looked.page.get_by_role("link", name="fares.pdf").wait_for(state="detached")


async def test_the_spend_page_draws_the_day_up_to_its_ceiling(world: World, browser: Browser) -> None:
    await world.finish(await world.submit("t9", "What is 17 * 23?"))
    async with visitor(browser, world.mesh.url, key(world, "t9"), viewport=PHONE) as looked:
        await looked.page.locator("#spending .spark").nth(3).wait_for()
        assert not await looked.axe() and await _fits(looked)
        await looked.go("/spend")
        await looked.page.locator("#today", has_text="At the rate of the last hour").wait_for()
        assert "ceiling of the day" in await looked.page.locator("#today svg.chart").inner_html()
        assert not await looked.axe() and await _fits(looked)


async def _fits(looked: Looked) -> bool:
    """A phone scrolls down, not sideways."""
    wide = await looked.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return bool(wide <= 0)


async def test_a_call_is_tried_before_anybody_makes_it_and_its_tool_is_halted(world: World, browser: Browser) -> None:
    async with visitor(browser, world.mesh.url, key(world, "t8"), color_scheme="dark") as looked:
        await looked.go("/tools")
        assert not await looked.axe()
        await looked.page.get_by_role("link", name="counter_increment", exact=True).click()
        await looked.page.get_by_label("Arguments, as JSON").fill('{"name": "questions"}')
        await looked.page.locator("summary", has_text="Texts that its values may stand in").click()
        await looked.page.get_by_label("A document says").fill("Count under questions. <script>alert(1)</script>")
        await looked.page.get_by_role("button", name="Try", exact=True).click()
        await looked.page.locator("#ruling", has_text="A person would be asked").wait_for()
        assert not await looked.axe()
        await looked.page.get_by_label("Arguments, as JSON").fill("{}")
        await looked.page.get_by_role("button", name="Try", exact=True).click()
        await looked.page.locator("#ruling", has_text="required property").wait_for()
        await looked.page.get_by_role("group", name="Act").get_by_text("Halt", exact=True).click()
        await looked.page.get_by_label("Reason").first.fill("the counter is being moved")
        await looked.page.get_by_role("button", name="Halt it").click()
        await looked.page.locator("#how", has_text="the counter is being moved").wait_for()
        await looked.page.get_by_text("Lift", exact=True).click()
        await looked.page.locator("#how").get_by_label("Reason").fill("it is back")
        await looked.page.get_by_role("button", name="Let it go on").click()
        await looked.page.locator("#how", has_text="It is not halted").wait_for()
    async with visitor(browser, world.mesh.url, key(world, "t8", "submitter"), viewport=PHONE) as asker:
        for path in ("/tools", "/tools/counter_increment"):
            await asker.go(path)
            await asker.sees("counter_increment")
            assert await asker.page.evaluate(SIDEWAYS) <= 0 and not await asker.axe()
        await asker.sees("Operators and auditors read the rules")


async def test_who_may_act_is_told_to_overseers_and_found_by_search(world: World, browser: Browser) -> None:
    mine = key(world, "t8", "auditor")
    async with visitor(browser, world.mesh.url, mine, viewport=PHONE, color_scheme="dark") as looked:
        await looked.go("/identities")
        await looked.page.get_by_role("row").filter(has_text="t8-auditor-console").first.wait_for()
        assert mine not in await looked.page.content()
        assert await looked.page.evaluate(SIDEWAYS) <= 0 and not await looked.axe()
        await looked.go("/search?q=t8-auditor")
        await looked.page.get_by_role("link", name="t8-auditor-console").first.click()
        await looked.page.wait_for_url("**/identities#keys")
    async with visitor(browser, world.mesh.url, key(world, "t8", "submitter")) as asker:
        await asker.go("/identities")
        await asker.sees("may not see keys and identities")
        assert not await asker.axe()


async def test_a_bar_opens_the_waits_of_its_minute(world: World, browser: Browser) -> None:
    usual = {"tools": [], "acceptance": "It is done."}
    first = {"id": "s1", "title": "Count", "instruction": "What is 17 * 23? Work it out patiently.", "inputs": []}
    then = {"id": "s2", "title": "Tell", "instruction": "Tell it.", "inputs": ["s1"]}
    await world.arm("stall", "patiently", times=1, delay_ms=120_000)
    try:
        task = await world.submit("t9", "Count, then tell.", plan={"steps": [usual | first, usual | then]}, check=False)
        async with visitor(browser, world.mesh.url, key(world, "t9")) as looked:
            await looked.go("/coordination")
            await looked.page.locator("svg.strip a").last.click()
            await looked.page.wait_for_url("**/coordination?at=*")
            await looked.sees("Back to now")
            await looked.page.locator("#now td", has_text="needs its result").wait_for()
            assert not await looked.axe()
        await task.cancel()
    finally:
        await world.disarm()
