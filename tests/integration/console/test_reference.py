"""The HTTP reference in a browser: it needs no session, and nothing but the console's own files."""

import gzip
import re
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser

from bulkhead_services.gateway.console import pages
from tests.e2e.console.browser import visitor
from tests.unit.services.gateway.harness import make_mesh, running


async def test_its_page_and_files_are_kept_and_compressed(tmp_path: Path) -> None:
    gateway = make_mesh(tmp_path).gateway()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway.app), base_url="http://gateway") as http:
        page = await http.get("/docs")
        policy = page.headers["content-security-policy"]
        assert page.status_code == 200 and policy.replace(" data:", "") == pages.CSP and "unsafe" not in policy
        files = re.findall(r'"(/static/[^"]+)"', page.text)
        assert {"reference.js", "swagger-ui-bundle.js", "swagger-ui.css"} <= {path.rpartition("/")[2] for path in files}
        for path in files:
            name = path.rpartition("/")[2].partition("#")[0]
            async with http.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
                sent = b"".join([piece async for piece in answer.aiter_raw()])
            assert answer.headers["cache-control"].endswith("immutable") and gzip.decompress(sent) == pages.FILES[name]
            plain = await http.get(path, headers={"Accept-Encoding": "identity"})
            assert "content-encoding" not in plain.headers and plain.content == pages.FILES[name]


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_it_shows_fields_examples_and_problems_of_an_operation(tmp_path: Path, browser: Browser) -> None:
    async with running(make_mesh(tmp_path)) as gateway, visitor(browser, f"http://127.0.0.1:{gateway.port}") as looked:
        await looked.go("/docs#/tasks/submitTask")
        await looked.sees("Submit an objective; it is stored durably before the answer")
        await looked.sees("What is the fare to Graz? Count the question.")
        await looked.page.get_by_text("idempotency_reused").first.wait_for(state="attached")
        await looked.page.get_by_role("tab", name="Schema").first.click()
        await looked.sees("TaskSubmission")
        await looked.keep()
