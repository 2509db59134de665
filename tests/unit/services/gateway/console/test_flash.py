"""What an act did is said once, on the page that follows, which stays as it was chosen."""

import httpx
import pytest

from tests.unit.services.gateway.harness import OPERATOR, Mesh

HERE = "http://gateway"
FORM = {"target": "day", "cost_usd_micros": "2", "key": "k", "revision": "0"}


@pytest.fixture
async def console(mesh: Mesh):
    transport = httpx.ASGITransport(app=mesh.gateways[0].app)
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as http:
        await http.post("/login", data={"api_key": OPERATOR}, headers={"Origin": HERE})
        yield http


async def test_a_limit_that_was_set_is_said_once_and_the_page_keeps_its_filter(console: httpx.AsyncClient) -> None:
    headers = {"Origin": HERE, "HX-Request": "true", "HX-Current-URL": f"{HERE}/spend?by=user&since=1h"}
    answer = await console.post("/spend/limits", data=FORM, headers=headers)
    assert answer.headers["hx-redirect"] == "/spend?by=user&since=1h"
    part = await console.get("/spend", headers={"HX-Request": "true"})
    assert 'id="flash"' not in part.text
    page = (await console.get("/spend?by=user&since=1h")).text
    assert '<p id="flash" class="done" role="status">The limit of day is set' in page
    assert 'id="flash"' not in (await console.get("/spend")).text


async def test_a_message_that_somebody_planted_is_text(console: httpx.AsyncClient) -> None:
    console.cookies.set("bulkhead_flash", "%3Cscript%3Ealert(1)%3C/script%3E")
    page = (await console.get("/tasks")).text
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
