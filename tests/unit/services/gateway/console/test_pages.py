"""Pages of the console: what a browser may run, and that everything from outside is text."""

import asyncio
import re

import httpx
import pytest
from pydantic import ValidationError

from bulkhead.bus.port import StoredMessage
from bulkhead_contracts import subjects
from bulkhead_contracts.control import Breaker
from bulkhead_contracts.result import Result
from bulkhead_contracts.task import TaskEnded, TaskRequested
from bulkhead_services.gateway.console import pages, visits
from bulkhead_services.gateway.settings import Settings
from tests.paths import ROOT
from tests.unit.services.gateway.harness import FOREIGN, OPERATOR, make_mesh, running, until

HERE = "http://gateway"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202etxt\x1b[31m"
TEMPLATES = sorted((pages.HERE / "templates").rglob("*.html"))


@pytest.fixture
async def client(mesh):
    transport = httpx.ASGITransport(app=mesh.gateways[0].app)
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as found:
        await found.post("/login", data={"api_key": OPERATOR}, headers={"Origin": HERE})
        yield found


@pytest.mark.parametrize("path", ["/tasks", "/login", "/tasks/t1/nothing", "/static/0/console.css", "/static/0/no.css"])
async def test_every_answer_says_what_may_run(client, path):
    headers = (await client.get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"


async def test_files_are_kept_for_good_and_pages_never(client):
    shown = (await client.get("/tasks")).text
    for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', shown):
        answer = await client.get(path)
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]


async def test_a_title_is_text(mesh, client):
    await mesh.say("pub_shop", TaskRequested(objective=HOSTILE), "pub_shop-t1")
    shown = (await client.get("/tasks")).text
    assert "&lt;script&gt;alert(1)" in shown and "<script>alert" not in shown and "<img src=x" not in shown
    assert "\u202e" not in shown and "\x1b" not in shown
    filtered = (await client.get("/tasks", params={"text": HOSTILE})).text
    assert "<script>alert" not in filtered and "\u202e" not in filtered


async def test_the_list_fits_the_query_and_the_tenant(mesh, client):
    for name, objective, feature in (("a", "Refund the order", "shop"), ("b", "Cancel the order", "")):
        await mesh.say("pub_shop", TaskRequested(objective=objective, feature=feature), f"pub_shop-{name}")
    await mesh.say("planner", TaskEnded(status="succeeded", ended_unix_ms=1), "pub_shop-b")
    for query, wanted in (
        ("text=ORDER+refund", "a"),
        ("status=succeeded", "b"),
        ("feature=shop", "a"),
        ("person=shop", "ba"),
        ("text=pub_shop-b", "b"),
        ("person=nobody", ""),
    ):
        shown = (await client.get(f"/tasks?{query}")).text
        assert re.findall(r'href="/tasks/pub_shop-(\w)"', shown) == list(wanted), query
    assert (await client.get("/tasks?status=nonsense")).status_code == 422
    await client.post("/login", data={"api_key": FOREIGN}, headers={"Origin": HERE})
    assert "There is no task yet" in (await client.get("/tasks")).text


async def test_a_task_that_answers_nothing_says_so_beside_its_state_and_is_found_by_it(mesh, client):
    for name, answered in (("a", "no"), ("b", "yes")):
        await mesh.say("pub_shop", TaskRequested(objective=f"Question {name}"), f"pub_shop-{name}")
        result = Result(answered=answered, answered_reason="nothing was found" if answered == "no" else "")
        await mesh.say("planner", TaskEnded(status="succeeded", result=result, ended_unix_ms=1), f"pub_shop-{name}")
    assert (await client.get("/tasks")).text.count("not answered") == 1
    filtered = (await client.get("/tasks", params={"answered": "no"})).text
    assert "Question a" in filtered and "Question b" not in filtered
    shown = (await client.get("/tasks/pub_shop-a")).text
    assert "not answered" in shown and "nothing was found" in shown
    assert "answered" not in (await client.get("/tasks/pub_shop-b")).text


async def test_a_page_is_told_when_to_look_again_and_no_longer_than_it_is_open(tmp_path, monkeypatch):
    monkeypatch.setattr(visits, "GAPS_S", {"totals": 0.5})
    mesh = make_mesh(tmp_path)
    async with running(mesh) as gateway, httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as client:
        await client.post("/login", data={"api_key": OPERATOR}, headers={"Origin": str(client.base_url).rstrip("/")})
        async with client.stream("GET", "/live", headers={"Accept": "text/event-stream"}) as stream:
            told = (line async for line in stream.aiter_lines() if line.startswith("event: ") or "pub_shop" in line)
            assert [await anext(told) for _ in range(3)] == ["event: live", "event: changed", "event: totals"]
            await mesh.say("pub_shop", TaskRequested(objective="x"), "pub_shop-t1", tenant="other")
            await mesh.say("pub_shop", TaskRequested(objective="x"), "pub_shop-t2")
            assert [await anext(told), await anext(told)] == ["event: changed", "data: pub_shop-t2"]
            async with asyncio.timeout(20):
                while await anext(told) != "event: totals":  # The last news is told, if late.
                    pass
            assert gateway.http.stream_pool().demand == 1
        await until(
            lambda: gateway.http.stream_pool().demand == 0 and not gateway.changes.watcher_count, "the stream is closed"
        )


def test_a_time_beyond_all_years_is_told_as_the_last_one():
    assert pages.format_moment(2**53) == "9999-12-31 23:59:59" and pages.format_moment(0) == "–"
    assert pages._format_iso(2**53).startswith("9999-12-31T23:59:59")


async def test_the_search_offers_the_acts_on_the_task_that_is_open(mesh, client):
    await mesh.say("pub_shop", TaskRequested(objective="x"), "pub_shop-t1")
    opened = {"HX-Current-URL": f"{HERE}/tasks/pub_shop-t1?at=plan.1"}
    running_task = (await client.get("/search?q=task", headers=opened)).text
    assert 'href="/tasks/pub_shop-t1#act-halt"' in running_task and "Fork this task" not in running_task
    await mesh.say("planner", TaskEnded(status="succeeded", ended_unix_ms=1), "pub_shop-t1")
    ended_task = (await client.get("/search?q=task", headers=opened)).text
    assert 'action="/tasks/pub_shop-t1/retry"' in ended_task and "Halt this task" not in ended_task
    assert "this task" not in (await client.get("/search?q=task")).text
    dark = (await client.get("/search?q=dark", headers=opened)).text
    assert 'action="/theme"' in dark and 'name="next" value="/tasks/pub_shop-t1"' in dark


def test_reasons_that_several_steps_gave_are_told_once():
    folded = pages._fold_repeats("not checked; no source; not checked")
    assert folded == "not checked (2 times); no source"


async def test_an_unknown_path_is_the_apis(client):
    assert (await client.get("/nowhere")).json()["code"] == "no_such_path"


def test_a_runbook_is_a_link_to_the_operators_page_or_to_the_consoles_own():
    words = pages.ENVIRONMENT.get_template("words.html").module
    linked = str(words.runbook("BulkheadBreakerOpen", "https://wiki.example/bulkhead"))
    assert 'href="https://wiki.example/bulkhead#bulkheadbreakeropen"' in linked
    assert 'href="/runbooks#bulkheadbreakeropen"' in str(words.runbook("BulkheadBreakerOpen", ""))


async def test_the_runbooks_have_a_section_for_each_link(client):
    page = (await client.get("/runbooks")).text
    assert 'id="bulkheadbreakeropen"' in page and "bulkhead doctor" in page and ".md" not in page


async def test_an_open_breaker_leads_to_coordination_and_to_its_runbook(tmp_path):
    mesh = make_mesh(tmp_path)
    gateway = mesh.gateway(runbooks="https://wiki.example/bulkhead")
    await gateway.attach_inbox()
    opened = Breaker(scope="tool", tenant="acme", name="crm", phase="open", reason="8 of 9 failed")
    key, body = subjects.breaker_key("tool", "acme", "crm"), opened.model_dump_json().encode()
    mesh.bus.stored.append(("KV_CONTROL", StoredMessage(key, {}, body, 1, 1)))
    transport = httpx.ASGITransport(app=gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as found:
        await found.post("/login", data={"api_key": OPERATOR}, headers={"Origin": HERE})
        shown = (await found.get("/")).text
    assert "8 of 9 failed" in shown and 'href="/coordination#breakers"' in shown
    assert 'href="https://wiki.example/bulkhead#bulkheadbreakeropen"' in shown
    await gateway.stop()


@pytest.mark.parametrize("address", ["javascript:alert(1)", "docs/x.md", 'https://x"y', "https://x#y"])
def test_an_address_of_runbooks_is_one_of_a_page(address):
    with pytest.raises(ValidationError):
        Settings(runbooks=address)


def test_each_runbook_that_a_page_names_is_a_section():
    sections = set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "how-to" / "runbooks.md").read_text(), re.M))
    named = {name for path in TEMPLATES for name in re.findall(r'words\.runbook\("(\w+)"', path.read_text())}
    assert {"BulkheadBreakerOpen", "BulkheadDeadlockBroken"} <= named <= sections


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_lets_markup_or_scripts_through(path):
    text = path.read_text()
    assert not re.search(r"\|\s*safe|autoescape|Markup|\bstyle=|\son\w+=|hx-on|javascript:|hx-vals='js|<style", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


async def test_a_stream_without_a_session_sends_its_page_to_the_login(client):
    client.cookies.clear()
    told = await client.get("/live", headers={"Accept": "text/event-stream"})
    assert told.status_code == 200 and "event: login" in told.text and "event: live" not in told.text
