"""The rooms of a new task and of documents over the whole mesh in one process."""

from pathlib import Path

from tests.integration.console.browsing import browsing, form
from tests.replay.stage import APPROVER, OPERATOR, OTHER_OPERATOR, plan, stage
from tests.unit.services.model_gateway.scripted_provider import says

HOSTILE = "<script>alert(1)</script>"


async def test_a_task_is_submitted_once_with_what_the_form_says(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
        page = (await client.get("/new-task?feature=search")).text
        assert 'value="search"' in page and "no documents yet" in page
        fields = form(page, "objective") | {
            "objective": f"Find {HOSTILE}",
            "usd": "0.25",
            "minutes": "3",
            "feature": "x",
        }
        done = await client.post("/new-task", data=fields)
        again = await client.post("/new-task", data=fields)
        assert done.url.path.startswith("/tasks/") and done.url == again.url and HOSTILE not in done.text
        task = (await client.get(f"/v1{done.url.path}", headers={"Authorization": f"Bearer {OPERATOR}"})).json()
        assert (task["limits"]["cost_usd_micros"], task["limits"]["deadline_ms"], task["feature"]) == (
            250_000,
            180_000,
            "x",
        )
        wrong = await client.post("/new-task", data=fields | {"usd": HOSTILE})
        assert wrong.status_code == 422 and "the ceiling is" in wrong.text and HOSTILE not in wrong.text
        async with browsing(on, APPROVER) as bob:
            assert "Submitters and operators submit tasks" in (await bob.get("/new-task")).text
            assert (await bob.post("/new-task", data=fields)).status_code == 403


async def test_a_document_is_added_listed_and_deleted(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client, browsing(on, OTHER_OPERATOR) as other:
        assert "No document yet" in (await client.get("/documents")).text
        upload = {"file": ("lease.md", b"# Lease\n\nThe notice period is three months.", "text/markdown")}
        page = (await client.post("/documents?key=k1", files=upload)).text
        assert ">lease.md</a></td>" in page and "text/markdown" in page
        refused = await client.post("/documents?key=k2", files={"file": ("x.bin", b"\0\1\2" * 99, "image/png")})
        assert refused.status_code == 422 and "send text (.txt)" in refused.text
        assert "lease.md" not in (await other.get("/documents")).text
        fields = form(page, 'value="lease.md"') | {"reason": "the lease has ended"}
        assert (await other.post("/documents/delete", data=fields)).status_code == 404
        assert "No document yet" in (await client.post("/documents/delete", data=fields)).text


async def test_an_upload_that_another_page_sends_is_refused(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        upload = {"file": ("lease.md", b"# Lease", "text/markdown")}
        refused = await client.post("/documents?key=k1", files=upload, headers={"Origin": "https://evil.example"})
        assert refused.status_code == 403 and "No document yet" in (await client.get("/documents")).text
