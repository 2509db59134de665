"""What the agent door refuses, and in which form: A2A's own errors, by JSON-RPC and by HTTP+JSON."""

import httpx
import pytest

from bulkhead_infra.stages import KeyFile
from tests.integration.doors.agent_door import agent_door, before

SEND = {"message": {"role": "ROLE_USER", "messageId": "m1", "parts": [{"text": "What is 2 + 3?"}]}}
RPC = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": SEND}


async def test_who_may_not_come_in_is_told_so_by_http_and_in_the_bindings_form(tmp_path):
    async with agent_door(tmp_path) as door:
        async with httpx.AsyncClient(base_url=door.stage.doors_url) as nobody:
            rpc, rest = await nobody.post("/a2a", json=RPC), await nobody.get("/a2a/tasks")
            assert (rpc.status_code, rest.status_code) == (401, 401) and rpc.headers["www-authenticate"] == "Bearer"
            assert "send `Authorization: Bearer" in rpc.json()["error"]["message"]
            assert rest.json()["error"]["status"] == "UNAUTHENTICATED"
            card = await nobody.get("/.well-known/agent-card.json", headers={"Host": "a b"})
            assert card.status_code == 400 and "Host" in card.json()["error"]["message"]
        async with door.http(door.key("auditor")) as auditor:
            assert (await auditor.get("/a2a/tasks")).status_code == 200
            refused = await auditor.post("/a2a/message:send", json=SEND)
            assert refused.status_code == 403 and "submitter or operator" in refused.text
            rpc = await auditor.post("/a2a", json=RPC)
            assert (rpc.status_code, rpc.json()["error"]["code"], rpc.json()["id"]) == (403, -32004, 7)


async def test_bodies_are_bounded_and_are_json(tmp_path, caplog):
    async with agent_door(tmp_path) as door, door.http(door.key()) as http:
        large = await http.post("/a2a", content=b" " * (256 * 1024 + 1), headers={"Content-Type": "application/json"})
        assert large.status_code == 413 and large.json()["error"]["code"] == -32600
        plain = await http.post("/a2a", content=b"{}", headers={"Content-Type": "text/plain"})
        assert plain.status_code == 415 and plain.json()["error"]["code"] == -32005
        for body, code in ((b"{", -32700), (b"[]", -32600), (b'{"a":' * 5_000, -32600)):
            answer = await http.post("/a2a", content=body, headers={"Content-Type": "application/json"})
            assert answer.json()["error"]["code"] in (code, -32603), (body[:9], answer.text)
        body = RPC | {"params": SEND | {"configuration": {"historyLength": "SECRET"}}}
        assert (await http.post("/a2a", json=body)).json()["error"]["code"] == -32602
        assert "SECRET" not in caplog.text
        no_such = await http.post("/a2a", json=RPC | {"method": "tasks/dance"})
        assert no_such.json()["error"]["code"] == -32601
        assert (await http.get("/a2a/tasks?pageSize=101")).json()["error"]["code"] == 400
        assert (await http.get("/a2a/tasks?pageToken=../x")).json()["error"]["code"] == 400
        for path in ("/a2a/tasks/nobody", "/a2a/tasks/..%2f..", "/a2a/tasks/a%20b"):
            assert (await http.get(path)).status_code in (400, 404), path


async def refused(folder, params):
    """The error of a message that never reaches a gateway."""
    keys = KeyFile(folder / "keys.json")
    headers = {"Authorization": f"Bearer {keys.add('demo', 'ann', 'submitter')}", "A2A-Version": "1.0"}
    async with before("http://127.0.0.1:1", folder / "keys.json") as url, httpx.AsyncClient(headers=headers) as http:
        return (await http.post(f"{url}/a2a", json=RPC | {"params": params})).json()["error"]


@pytest.mark.parametrize(
    ("changed", "code", "told"),
    [
        ({"parts": [{"text": "a"}, {"raw": "YQ==", "mediaType": "image/png"}]}, -32005, r"parts[1] holds a file"),
        ({"parts": [{"url": "http://example.org/a"}]}, -32005, "parts[0] holds a file by its URL"),
        ({"parts": [{"data": {"a": 1}}]}, -32005, "parts[0] holds data"),
        ({"parts": []}, -32602, "parts has 0 entries"),
        ({"parts": [{"text": "a"}] * 65}, -32602, "parts has 65 entries"),
        ({"parts": [{"text": " "}]}, -32602, "hold no text"),
        ({"parts": [{"text": "a" * 20_000}]}, -32602, "of 16,384 allowed"),
        ({"messageId": ""}, -32602, "messageId"),
        ({"messageId": "m" * 257}, -32602, "messageId"),
        ({"contextId": "a b"}, -32602, "contextId"),
        ({"role": "ROLE_AGENT"}, -32602, "ROLE_AGENT"),
    ],
)
async def test_a_message_that_does_not_fit_is_refused_by_name(tmp_path, changed, code, told):
    error = await refused(tmp_path, {"message": SEND["message"] | changed})
    assert error["code"] == code and told in error["message"], error


@pytest.mark.parametrize(
    ("configuration", "code"),
    [({"taskPushNotificationConfig": {"url": "http://10.0.0.1/"}}, -32003), ({"acceptedOutputModes": ["a/b"]}, -32005)],
)
async def test_a_wish_that_cannot_be_met_is_refused(tmp_path, configuration, code):
    error = await refused(tmp_path, SEND | {"configuration": configuration})
    assert error["code"] == code
