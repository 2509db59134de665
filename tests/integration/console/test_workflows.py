"""The room of workflows: a draft is reviewed, published and run from its page."""

import re
from pathlib import Path

import pytest
from httpx import AsyncClient

from bulkhead.client import Mesh
from tests.integration.console.browsing import browsing, form
from tests.replay.stage import APPROVER, EDITOR, OPERATOR, stage
from tests.unit.services.model_gateway.scripted_provider import says

STEP = {"id": "look", "title": "<b>Look</b>", "instruction": "Look for {{topic}}.", "acceptance": "found"}
CONTENT = {"objective": "Look for {{topic}}", "parameters": [{"name": "topic"}], "steps": [STEP]}


async def schedule_at_its_page(olga: AsyncClient, pia: AsyncClient) -> None:
    """Set, pause, resume and delete the schedule of looks.2."""

    async def act(button: str, name: str, **fields: str) -> str:
        page = (await olga.get("/workflows/looks?version=2")).text
        done = await olga.post(f"/workflows/looks/{name}", data=form(page, f">{button}<") | fields)
        return done.text

    fields = {"cron": "0 7 * * 1-5", "zone": "Europe/Berlin", "missed": "run_once", "value-topic": "<tea>"}
    assert "no time zone is called" in await act("Set it", "schedule", **fields | {"zone": "Berlin"})
    shown = await act("Set it", "schedule", **fields)
    assert "looks.2 is scheduled." in shown and "topic &lt;tea&gt;" in shown and "in the name of olga" in shown
    assert len(re.findall(r'<time class="local" datetime="[\d-]+T07:00:00\+0[12]:00">', shown)) == 5
    looked = (await pia.get("/workflows/looks?version=2")).text
    assert "0 7 * * 1-5" in looked and "Set it" not in looked and "Delete the schedule" not in looked
    paused = await act("Begin no more runs", "pause", reason="a holiday")
    assert "looks.2 is paused." in paused and 'class="local"' not in paused and "a holiday" in paused
    assert ">paused<" in (await olga.get("/workflows")).text
    assert "looks.2 is scheduled." in await act("Let runs begin again", "pause")
    assert "looks.2 is scheduled no more." in await act("Delete the schedule", "unschedule", reason="enough")
    assert "It runs when somebody asks for it." in (await olga.get("/workflows/looks?version=2")).text


@pytest.mark.slow
async def test_a_version_is_reviewed_published_and_run_from_its_page(tmp_path: Path) -> None:
    async with (
        stage(tmp_path) as on,
        browsing(on, EDITOR) as pia,
        browsing(on, APPROVER) as bob,
        browsing(on, OPERATOR) as olga,
        Mesh(on.url, EDITOR) as mesh,
    ):
        assert "There is none yet" in (await pia.get("/workflows")).text
        await mesh.draft_workflow("looks", CONTENT, "first")
        await mesh.draft_workflow("looks", CONTENT | {"description": "to look"}, "said what it is")
        page = (await pia.get("/workflows/looks?version=2&against=1")).text
        assert "&lt;b&gt;Look" in page and "<b>Look" not in page
        assert "added <code>description</code>" in page and "Look for {{topic}}." in page
        reviewed = await pia.post("/workflows/looks/submit", data=form(page, "Submit for review") | {"reason": "go"})
        assert "looks.2 is in review." in reviewed.text and "Approve" not in reviewed.text
        page = (await bob.get("/workflows/looks?version=2")).text
        approved = await bob.post("/workflows/looks/approve", data=form(page, ">Approve<") | {"reason": "fine"})
        assert "looks.2 is approved." in approved.text
        page = (await pia.get("/workflows/looks?version=2")).text
        await pia.post("/workflows/looks/publish", data=form(page, ">Publish<") | {"reason": "fine"})

        page = (await olga.get("/workflows/looks")).text
        on.model.will(look=[says("It is there.")])
        refused = await olga.post("/workflows/looks/run", data=form(page, ">Run<") | {"value-other": "x"})
        assert refused.status_code == 422 and "other is no parameter" in refused.text
        task = await olga.post("/workflows/looks/run", data=form(page, ">Run<") | {"value-topic": "tea"})
        assert task.url.path.startswith("/tasks/") and "Look for tea" in task.text
        assert "looks.2" in (await olga.get("/workflows")).text
        await schedule_at_its_page(olga, pia)
        assert task.url.path in (await olga.get("/workflows/looks?version=2")).text
        assert task.url.path not in (await olga.get("/workflows/looks?version=1")).text
        assert task.url.path in (await olga.get("/tasks?workflow=looks.2")).text
        assert task.url.path not in (await olga.get("/tasks?workflow=looks.1")).text
