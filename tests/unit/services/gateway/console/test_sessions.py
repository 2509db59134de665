"""Sessions of the console: who is signed in, for how long, at which replica, and which requests are its own."""

import hashlib
import json

import httpx
import pytest

from bulkhead_contracts.task import TaskAccepted, TaskCancelRequested, TaskRequested
from bulkhead_services.gateway.sessions import PREFIX, Sessions
from tests.unit.services.gateway.harness import OPERATOR, make_mesh, until

HERE = "http://gateway"
OWN = {"Origin": HERE}
DIGEST = hashlib.sha256(OPERATOR.encode()).hexdigest()


def browser(gateway, base_url=HERE):
    """A client with cookies, as a browser has them."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway.app), base_url=base_url)


@pytest.fixture
async def mesh(tmp_path):
    found = make_mesh(tmp_path)
    for _ in range(2):
        await found.gateway().attach_inbox()
    yield found
    for gateway in found.gateways:
        await gateway.stop()


async def signed_in(client, key=OPERATOR, **fields):
    return await client.post("/login", data={"api_key": key, **fields}, headers=OWN)


async def test_a_key_becomes_a_cookie_that_no_page_can_read(mesh):
    async with browser(mesh.gateways[0]) as client:
        assert (await client.get("/tasks?text=x")).headers["location"] == "/login?next=/tasks%3Ftext%3Dx"
        answer = await signed_in(client, next="/tasks?text=x")
        assert (answer.status_code, answer.headers["location"]) == (303, "/tasks?text=x")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Max-Age=28800" in cookie
        assert OPERATOR not in cookie and DIGEST not in cookie
        shown = await client.get("/tasks")
        assert (
            shown.status_code == 200
            and "ada<br>" in shown.text
            and "operator · acme" in shown.text
            and OPERATOR not in shown.text
        )


async def test_a_session_is_one_of_every_replica_and_of_the_api(mesh):
    async with browser(mesh.gateways[0]) as one, browser(mesh.gateways[1]) as other:
        await signed_in(one)
        token = one.cookies["bulkhead_session"]
        other.cookies.set("bulkhead_session", token)
        assert (await other.get("/tasks")).status_code == 200
        # The API takes it as a credential of its own, and no cookie: a page of others can send cookies.
        assert (await other.get("/v1/tasks")).status_code == 401
        assert (await other.get("/v1/tasks", headers={"Authorization": f"Bearer {token}"})).status_code == 200


async def test_a_session_ends_with_its_key(mesh):
    async with browser(mesh.gateways[0]) as client:
        await signed_in(client)
        (mesh.folder / "keys.json").write_text(json.dumps({"keys": []}))
        answer = await client.get("/tasks")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/tasks")


def test_a_token_is_good_for_its_time_and_under_its_key_alone():
    sessions = Sessions(b"k" * 32, lasts_s=60)
    token = sessions.seal_token(DIGEST, now_unix_ms=1_000)
    assert sessions.open_token(token, 60_999).digest == DIGEST
    assert sessions.open_token(token, 61_000) is None
    assert Sessions(b"o" * 32, lasts_s=60).open_token(token, 2_000) is None
    assert token != sessions.seal_token(DIGEST, now_unix_ms=1_000)
    changed = token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]
    for broken in (changed, token[:20], PREFIX, PREFIX + "é", ""):
        assert sessions.open_token(broken, 2_000) is None


async def test_by_tls_the_cookie_stays_with_tls_and_this_host(mesh):
    async with browser(mesh.gateways[0], "https://gateway") as client:
        answer = await client.post("/login", data={"api_key": OPERATOR}, headers={"Origin": "https://gateway"})
        assert answer.headers["set-cookie"].startswith("__Host-bulkhead_session=")
        assert "Secure" in answer.headers["set-cookie"]
        assert (await client.get("/tasks")).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"X-Forwarded-Proto": "https"}], ids=["tls", "tls-at-a-proxy"])
async def test_by_tls_a_cookie_that_another_host_of_the_domain_could_set_signs_nobody_in(mesh, headers):
    async with browser(mesh.gateways[0]) as plain:
        await signed_in(plain)
        token = plain.cookies["bulkhead_session"]
    async with browser(mesh.gateways[0], "http://gateway" if headers else "https://gateway") as client:
        client.cookies.set("bulkhead_session", token)
        answer = await client.get("/tasks", headers=headers)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/tasks")


@pytest.mark.parametrize("path", ["/login", "/logout", "/theme"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": HERE, "Sec-Fetch-Site": "cross-site"}],
    ids=["none", "foreign", "null", "cross-site"],
)
async def test_a_form_of_another_page_is_refused(mesh, path, headers):
    async with browser(mesh.gateways[0]) as client:
        await signed_in(client)
        answer = await client.post(path, data={"api_key": OPERATOR, "theme": "dark"}, headers=headers)
        assert answer.status_code == 403 and "not sent by a page of this console" in answer.text
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://evil.example"}, {"Origin": HERE, "Sec-Fetch-Site": "same-site"}]
)
async def test_a_form_of_another_page_cancels_nothing(mesh, headers):
    await mesh.say("pub_shop", TaskRequested(objective="x"), "pub_shop-t1")
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=5_000_000), "pub_shop-t1")
    async with browser(mesh.gateways[0]) as client:
        await signed_in(client)
        stored = len(mesh.bus.stored)
        forged = await client.post("/tasks/pub_shop-t1/cancel", data={"reason": "forged"}, headers=headers)
        assert forged.status_code == 403 and "not sent by a page of this console" in forged.text
        assert len(mesh.bus.stored) == stored, "nothing is written"
        own = await client.post("/tasks/pub_shop-t1/cancel", data={"reason": "mine"}, headers=OWN)
        assert own.status_code == 200 and len(mesh.bus.stored) > stored
        await mesh.pump()
        (cancel,) = [one for one in mesh.sent("planner") if one.ce_type == TaskCancelRequested.ce_type()]
        assert json.loads(cancel.body) == {"reason": "mine"}


@pytest.mark.parametrize("where", ["//evil.example", "/\\evil.example", "https://evil.example", "/x\r\ny: z"])
async def test_the_login_leads_nowhere_else(mesh, where):
    async with browser(mesh.gateways[0]) as client:
        assert (await signed_in(client, next=where)).headers["location"] == "/"


@pytest.mark.parametrize("key", ["", "bk_unknown", "a.b.c", "bs_AAAA"])
async def test_who_has_no_key_hears_why(mesh, key):
    async with browser(mesh.gateways[0]) as client:
        answer = await signed_in(client, key)
        assert answer.status_code == 401 and 'role="alert"' in answer.text and "set-cookie" not in answer.headers


async def test_a_session_makes_no_other_session(mesh):
    async with browser(mesh.gateways[0]) as client:
        await signed_in(client)
        assert (await signed_in(client, client.cookies["bulkhead_session"])).status_code == 401


async def test_who_signs_out_is_out(mesh):
    async with browser(mesh.gateways[0]) as client:
        await signed_in(client)
        answer = await client.post("/logout", headers=OWN)
        assert answer.headers["location"] == "/login" and "Clear-Site-Data" in answer.headers
        assert (await client.get("/tasks")).status_code == 303


async def test_a_session_that_was_ended_is_over_at_every_replica_however_it_is_spelled(mesh):
    async with browser(mesh.gateways[0]) as one, browser(mesh.gateways[1]) as other:
        await signed_in(one)
        token = one.cookies["bulkhead_session"]
        spelled = [token, token + "=", *(token[:-1] + last for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")]
        auth = {"Authorization": f"Bearer {token}"}
        assert (await other.get("/v1/tasks", headers=auth)).status_code == 200
        await one.post("/logout", headers=OWN)
        for spelling in spelled:
            answer = await other.get("/v1/tasks", headers={"Authorization": f"Bearer {spelling}"})
            assert answer.status_code == 401
        other.cookies.set("bulkhead_session", token)
        assert (await other.get("/tasks")).headers["location"] == "/login?next=/tasks"
        await signed_in(one)
        assert (await one.get("/tasks")).status_code == 200, "another session of the same key goes on"


async def test_open_streams_end_with_their_session(mesh):
    gateway, ended = mesh.gateways[1], []
    async with browser(mesh.gateways[0]) as client:
        await signed_in(client)
        token = client.cookies["bulkhead_session"]
        gateway._auth.watch_session(token, lambda: ended.append(token))
        gateway._auth.watch_session(token, lambda: ended.append("forgotten"))()
        await client.post("/logout", headers=OWN)
        await mesh.pump(0)
        await until(lambda: ended == [token], "told by the other replica")


async def test_a_session_that_cannot_be_ended_says_so_and_a_page_waits(mesh):
    async with browser(mesh.gateways[0]) as client:
        await signed_in(client)
        token = client.cookies["bulkhead_session"]
        mesh.bus.down = True
        answer = await client.post("/logout", headers=OWN)
        assert answer.status_code == 503 and "bulkhead_session" not in client.cookies
        client.cookies.set("bulkhead_session", token)
        assert (await client.get("/tasks")).status_code == 503


async def test_an_endless_form_is_cut(mesh):
    async with browser(mesh.gateways[0]) as client:
        answer = await client.post("/login", data={"api_key": "x" * 200_000}, headers=OWN)
        assert answer.status_code == 413


@pytest.mark.parametrize("headers", [{"Origin": "http://["}, {"HX-Current-URL": "http://["}])
async def test_an_address_that_is_none_is_no_failure_of_the_console(mesh, headers):
    async with browser(mesh.gateways[0]) as found:
        assert (await found.post("/login", data={"api_key": "x"}, headers=headers)).status_code < 500
        assert (await found.get("/tasks", headers=headers)).status_code < 500
