"""Where a client of MCP logs in: told where tokens are taken."""

import httpx
import pytest

from bulkhead_services.doors.http.gateway_pool import GatewayPool
from bulkhead_services.doors.http.routes import DoorsHttp
from bulkhead_services.doors.mcp.http import McpHttp
from bulkhead_services.doors.mcp.server import McpMethods
from bulkhead_services.doors.mcp.sessions import SessionIds
from bulkhead_services.doors.settings import Settings
from tests.integration.doors.desk import KEY, Keys, ScriptedDesk

ISSUER = "https://id.example"


def client(issuer: str) -> httpx.AsyncClient:
    settings = Settings(http_port=0, nats_url="nats://127.0.0.1:1", allowed_hosts=("mesh.example",))

    async def ready() -> str:
        return ""

    http = DoorsHttp(settings, Keys(), ScriptedDesk(), ready)
    places = http.identify_model_caller, http.bodies, http.places, http.hosts
    methods = McpMethods(None, GatewayPool(""))  # type: ignore[arg-type]
    http.more = McpHttp(methods, *places, issuer, SessionIds(b"k" * 32)).build_routes()
    return httpx.AsyncClient(transport=httpx.ASGITransport(http.build_app()), base_url="https://mesh.example")


@pytest.mark.parametrize("path", ["", "/mcp"])
async def test_the_issuer_of_tokens_is_told_and_named_by_a_401(path: str) -> None:
    async with client(ISSUER) as http:
        refused = await http.post("/mcp", json={})
        where = "https://mesh.example/.well-known/oauth-protected-resource"
        assert refused.status_code == 401 and f'resource_metadata="{where}/mcp"' in refused.headers["www-authenticate"]
        told = (await http.get(f"{where}{path}")).json()
        assert (told["resource"], told["authorization_servers"]) == ("https://mesh.example/mcp", [ISSUER])


async def test_where_keys_alone_are_taken_nobody_is_sent_to_log_in() -> None:
    async with client("") as http:
        refused = await http.post("/mcp", json={})
        assert "resource_metadata" not in refused.headers["www-authenticate"]


async def test_a_body_that_programs_may_read_differently_is_refused() -> None:
    call = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"account": "a", "account": "b"}}'
    async with client("") as http:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        refused = await http.post("/mcp", content=call, headers=headers)
    assert refused.status_code == 400 and "holds the key 'account' twice" in refused.text
