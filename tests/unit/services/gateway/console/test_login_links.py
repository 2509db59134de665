"""Login links: one sign-in each, for their maker alone, in time, with no trace where others could read one."""

import asyncio
import json
import logging

import httpx
import pytest

from bulkhead_services.gateway import sessions
from tests.unit.services.gateway.harness import AGENT, FOREIGN, OPERATOR, make_mesh

HERE = "http://gateway"
OWN = {"Origin": HERE}


def browser(gateway, **options):
    """A client with cookies, as a browser has them."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway.app), base_url=HERE, **options)


@pytest.fixture
async def mesh(tmp_path):
    found = make_mesh(tmp_path)
    for _ in range(2):
        await found.gateway().attach_inbox()
    yield found
    for gateway in found.gateways:
        await gateway.stop()


async def make_link(gateway, key=OPERATOR, **body):
    async with browser(gateway) as client:
        return await client.post("/v1/console-links", json=body, headers={"X-API-Key": key})


async def token_of(gateway, key=OPERATOR):
    return (await make_link(gateway, key)).json()["path"].partition("#")[2]


async def follow(client, token, **fields):
    """As the script of the login's page does, and the person on the page that it gets."""
    return await client.post("/login", data={"api_key": token, **fields}, headers=OWN)


async def test_a_link_names_its_owner_first_and_signs_in_once(mesh):
    answer = await make_link(mesh.gateways[0], path="/tasks/t1?tab=plan")
    assert answer.status_code == 201 and answer.headers["cache-control"] == "no-store"
    path, _, token = answer.json()["path"].partition("#")
    assert path == "/login?next=/tasks/t1%3Ftab%3Dplan" and token.startswith("bl_") and OPERATOR not in token
    async with browser(mesh.gateways[1]) as client:
        page = await client.get(path)
        assert page.status_code == 200 and token not in page.text and "login.js" in page.text
        asked = await follow(client, token, next="/tasks/t1?tab=plan")
        assert asked.status_code == 200 and "set-cookie" not in asked.headers
        assert "<strong>ada</strong>, operator of the tenant <strong>acme</strong>" in asked.text
        assert "no-store" in asked.headers["cache-control"]
        done = await follow(client, token, next="/tasks/t1?tab=plan", confirmed="yes")
        assert (done.status_code, done.headers["location"]) == (303, "/tasks/t1?tab=plan")
        assert "HttpOnly" in done.headers["set-cookie"] and token not in done.headers["set-cookie"]
        assert (await client.get("/tasks")).status_code == 200
    for gateway in mesh.gateways:
        async with browser(gateway) as thief:
            again = await follow(thief, token, confirmed="yes")
            assert again.status_code == 401 and "used already" in again.text and "set-cookie" not in again.headers


async def test_of_two_at_the_same_moment_one_is_signed_in(mesh):
    token = await token_of(mesh.gateways[0])
    async with browser(mesh.gateways[0]) as first, browser(mesh.gateways[1]) as second:
        answers = await asyncio.gather(*(follow(client, token, confirmed="yes") for client in (first, second)))
    assert sorted(answer.status_code for answer in answers) == [303, 401]


async def test_who_is_signed_in_already_goes_on_and_a_strangers_link_asks(mesh):
    async with browser(mesh.gateways[0]) as client:
        await client.post("/login", data={"api_key": OPERATOR}, headers=OWN)
        cookie = client.cookies["bulkhead_session"]
        own = await follow(client, await token_of(mesh.gateways[0]), next="/spend")
        assert (own.status_code, own.headers["location"]) == (303, "/spend")
        cookie = client.cookies["bulkhead_session"]
        foreign = await follow(client, await token_of(mesh.gateways[0], FOREIGN))
        assert foreign.status_code == 200 and "You are signed in as ada of acme" in foreign.text
        assert client.cookies["bulkhead_session"] == cookie, "nobody becomes somebody else by a click on a link"


@pytest.mark.parametrize("where", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:x", ""])
async def test_a_link_leads_nowhere_else(mesh, where):
    assert (await make_link(mesh.gateways[0], path=where)).status_code == 422
    async with browser(mesh.gateways[0]) as client:
        done = await follow(client, await token_of(mesh.gateways[0]), next=where or "//evil.example", confirmed="yes")
        assert done.status_code == 303 and done.headers["location"] == "/"


async def test_a_link_ends_with_its_time_and_with_its_key(mesh, monkeypatch):
    tokens = [await token_of(mesh.gateways[0]) for _ in range(2)]
    async with browser(mesh.gateways[0]) as client:
        clock = mesh.gateways[0]._auth._clock
        monkeypatch.setattr(mesh.gateways[0]._auth, "_clock", lambda: clock() + sessions.LINK_S * 1_000)
        late = await follow(client, tokens[0], confirmed="yes")
        assert late.status_code == 401 and "has expired" in late.text and "bulkhead open" in late.text
    (mesh.folder / "keys.json").write_text(json.dumps({"keys": []}))
    async with browser(mesh.gateways[1]) as client:
        for fields in ({}, {"confirmed": "yes"}):
            assert (await follow(client, tokens[1], **fields)).status_code == 401


async def test_only_a_persons_key_makes_links_and_a_token_is_good_for_one_use(mesh):
    token = await token_of(mesh.gateways[0])
    async with browser(mesh.gateways[0]) as client:
        assert (await client.post("/v1/console-links")).status_code == 401
        await client.post("/login", data={"api_key": OPERATOR}, headers=OWN)
        session = client.cookies["bulkhead_session"]
        assert (await client.post("/v1/console-links")).status_code == 401, "a page of others can send cookies"
    for credential in (session, token):
        refused = await make_link(mesh.gateways[0], credential)
        assert refused.status_code == (403 if credential == session else 401), "no session outlives itself"
    assert (await make_link(mesh.gateways[0], AGENT)).status_code == 403
    for gateway in mesh.gateways:
        for header in ({"Authorization": f"Bearer {token}"}, {"X-API-Key": token}):
            async with browser(gateway, headers=header) as client:
                assert (await client.get("/v1/tasks")).status_code == 401
        async with browser(gateway) as client:
            client.cookies.set("bulkhead_session", token)
            assert (await client.get("/tasks")).status_code == 303, "a link is no session"
            assert (await follow(client, "bl_" + session.removeprefix("bs_"), confirmed="yes")).status_code == 401


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://evil.example"}, {**OWN, "Sec-Fetch-Site": "cross-site"}])
async def test_a_form_of_another_page_uses_no_link(mesh, headers):
    token = await token_of(mesh.gateways[0])
    async with browser(mesh.gateways[0]) as client:
        forged = await client.post("/login", data={"api_key": token, "confirmed": "yes"}, headers=headers)
        assert forged.status_code == 403 and "set-cookie" not in forged.headers
        assert (await follow(client, token, confirmed="yes")).status_code == 303, "it is unused"


async def test_no_log_and_no_stored_message_has_a_link(mesh, caplog):
    caplog.set_level(logging.INFO)
    token = await token_of(mesh.gateways[0])
    async with browser(mesh.gateways[0]) as client:
        await follow(client, token)
        await follow(client, token, confirmed="yes")
        await follow(client, token, confirmed="yes")
    logged = "".join(str(record.__dict__) for record in caplog.records)
    assert "login_link_made" in logged and "signed_in" in logged
    stored = "".join(f"{message.subject}{message.headers}{message.body!r}" for _, message in mesh.bus.stored)
    assert token.removeprefix("bl_") not in logged + stored


async def test_an_outage_of_the_broker_is_no_sign_in(mesh):
    token = await token_of(mesh.gateways[0])
    async with browser(mesh.gateways[0]) as client:
        mesh.bus.down = True
        answer = await follow(client, token, confirmed="yes")
        assert answer.status_code == 503 and "set-cookie" not in answer.headers
        mesh.bus.down = False
        assert (await follow(client, token, confirmed="yes")).status_code == 303
