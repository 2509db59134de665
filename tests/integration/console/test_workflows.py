"""The room of workflows: a draft is reviewed, published and run from its page."""

from pathlib import Path

import pytest

from bulkhead.client import Mesh
from tests.integration.console.browsing import browsing, form
from tests.replay.stage import APPROVER, EDITOR, OPERATOR, stage
from tests.unit.services.model_gateway.scripted_provider import says

STEP = {"id": "look", "title": "<b>Look</b>", "instruction": "Look for {{topic}}.", "acceptance": "found"}
CONTENT = {"objective": "Look for {{topic}}", "parameters": [{"name": "topic"}], "steps": [STEP]}


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
        assert task.url.path in (await olga.get("/workflows/looks?version=2")).text
        assert task.url.path not in (await olga.get("/workflows/looks?version=1")).text
        assert task.url.path in (await olga.get("/tasks?workflow=looks.2")).text
        assert task.url.path not in (await olga.get("/tasks?workflow=looks.1")).text
