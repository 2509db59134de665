"""Ratings, labels and quality in the console, over the whole mesh in one process; labels by keyboard in a browser."""

import io
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser

from bulkhead.blobs import reference
from tests.e2e.console.browser import visitor
from tests.integration.console.browsing import browsing, form
from tests.replay.stage import APPROVER, AUDITOR, OPERATOR, Stage, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

ANN = "bk_ann_of_demo"
FARES = "The fare to Graz is EUR 12. <b>Children</b> pay half."
QUESTION = "What is the fare to Graz?"


@asynccontextmanager
async def answered(folder: Path, count: int) -> AsyncIterator[tuple[Stage, list[str]]]:
    """A mesh, and tasks of it that have ended with an answer that cites a document."""
    marker = reference("rag", FARES.encode()).marker
    async with stage(folder) as on, on.client() as ann:
        await ann.add_document(FARES.encode(), "fares.md")
        tasks = []
        for number in range(count):
            verdict = says(json.dumps({"verdict": "accept", "score": 1.0, "reasons": [], "answered": "yes"}))
            search = use(call("search_documents", query=QUESTION))
            answer = says(f"It is EUR 12 [#{marker}]. <i>No. {number}</i>")
            step = {"id": "a", "tools": ["search_documents"]}
            on.model.will(plan(step), a=[search, answer], judges={"a": [verdict]})
            tasks.append((await on.run(f"{QUESTION} No. {number}", feature="fares"))["task_id"])
        yield on, tasks


async def test_a_person_rates_an_answer_and_quality_counts_it(tmp_path: Path) -> None:
    async with answered(tmp_path, 1) as (on, [task]), browsing(on, ANN) as ann, browsing(on, AUDITOR) as aud:
        page = (await ann.get(f"/tasks/{task}")).text
        hidden = form(page, "Why? (optional)")
        done = await ann.post(f"/tasks/{task}/rating", data=hidden | {"score": "bad", "comment": "<b>old</b> fare"})
        assert "Your rating is stored: bad." in done.text and 'value="bad" aria-pressed="true"' in done.text
        assert "ann: bad" not in done.text
        seen = (await aud.get(f"/tasks/{task}")).text
        assert "ann: bad, &lt;b&gt;old&lt;/b&gt; fare" in seen
        assert f"/tasks/{task}" in (await aud.get("/tasks?rated=bad")).text
        quality = (await aud.get("/quality?by=feature&since=1h&show=rated")).text
        assert ">fares</a>" in quality and "100%" in quality and "0%" in quality and "1 rating" in quality
        unfit = await ann.post(f"/tasks/{task}/rating", data=hidden | {"score": "great"})
        assert unfit.status_code == 422 and "score" in unfit.text


async def test_labels_are_blind_and_leave_with_what_was_labelled(tmp_path: Path) -> None:
    async with answered(tmp_path, 2) as (on, tasks), browsing(on, ANN) as ann, browsing(on, OPERATOR) as olga:
        address = "/labels?double_every=1&since=24h"
        for number in range(2):
            page = (await ann.get(address)).text
            assert QUESTION in page and "It is EUR 12" in page and "fares.md" in page and "&lt;b&gt;Children" in page
            assert "succeeded" not in page and "scripted" not in page and f"{number} by you" in page
            [labelled] = [task for task in tasks if f'action="/labels/{task}"' in page]
            after = await ann.post(f"/labels/{labelled}", data=form(page, "optional") | {"score": "good"})
            assert after.url.path == "/labels" and after.url.params["double_every"] == "1"
        assert "You have nothing left to label here." in after.text
        first = (await olga.get(address)).text
        assert "0 by you; 0 of 2 done" in first and "0 of 2 have" in first and "good</td>" not in first
        for _ in tasks:
            page = (await olga.get(address)).text
            [labelled] = [task for task in tasks if f'action="/labels/{task}"' in page]
            await olga.post(f"/labels/{labelled}", data=form(page, "optional") | {"score": "good"})
        assert "ann, olga" in (await olga.get(address)).text
        export = await olga.get("/labels/export?since=24h")
        archive = zipfile.ZipFile(io.BytesIO(export.content))
        rows = [json.loads(line) for line in archive.read("labels.jsonl").decode().splitlines()]
        assert {row["id"] for row in rows} == {*tasks}
        assert all(row["labels"] == {"ann": "good", "olga": "good"} and row["model"] for row in rows)
        assert archive.read(rows[0]["documents"][0]).decode() == FARES
        assert (await ann.get("/labels/export")).status_code == 403


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_a_person_labels_with_two_keys(tmp_path: Path, browser: Browser) -> None:
    async with answered(tmp_path, 3) as (on, tasks), visitor(browser, on.url, APPROVER) as looked:
        await looked.go("/labels?double_every=0")
        await looked.sees("0 by you; 0 of 3 done")
        assert not await looked.axe()
        first = await looked.page.locator("#label").get_attribute("action")
        await looked.page.keyboard.press("n")
        await looked.page.wait_for_url("**skip=1")
        assert await looked.page.locator("#label").get_attribute("action") != first
        await looked.page.locator("#label [name=reason]").fill("bg")
        await looked.page.locator("h1").click()
        await looked.page.keyboard.press("b")
        await looked.sees("1 by you; 1 of 3 done")
        await looked.page.keyboard.press("g")
        await looked.sees("2 by you; 2 of 3 done")
        await looked.page.keyboard.press("g")
        await looked.sees("You have nothing left to label here.")
        assert not looked.troubles
        async with on.client(APPROVER) as bob:
            own = [rating for task in tasks for rating in (await bob.task(task).show())["ratings"]["own"]]
        assert sorted((rating["score"], rating["comment"]) for rating in own) == [
            ("bad", "bg"),
            ("good", ""),
            ("good", ""),
        ]
        await looked.go("/quality?since=1h")
        await looked.sees("Share that is good")
        assert not await looked.axe()
