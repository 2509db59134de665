"""Calls of the mesh's own tools go to the gateway itself, over connections that are kept."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bulkhead_services.doors.http.gateway_pool import GatewayPool
from bulkhead_services.doors.mcp import mesh_tools

REQUEST = mesh_tools.MeshToolRequest("k")


class Gateway(ThreadingHTTPServer):
    """Answers every request with the credential that came along. connections: how many there were."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.url, self.connections = f"http://127.0.0.1:{self.server_address[1]}", 0

    def process_request(self, request: object, client_address: object) -> None:
        """One connection."""
        self.connections += 1
        super().process_request(request, client_address)  # type: ignore[arg-type]


class Asked(BaseHTTPRequestHandler):
    """One of its connections, which stays open."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        """Who asks."""
        said = b'{"as": "%s"}' % self.headers["Authorization"].encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    found = Gateway()
    threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


async def test_callers_share_connections_each_under_its_own_key_and_no_proxy_is_asked(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    pool, spend = GatewayPool(gateway.url), mesh_tools.TOOLS["bulkhead_spend"]
    for key in ("bk_first", "bk_other", "bk_first"):
        found = await mesh_tools.call_mesh_tool(pool, key, spend, {}, REQUEST)
        assert found.structured_content == {"as": f"Bearer {key}"}
    assert gateway.connections == 1
    await pool.close_connections()
    refused = await mesh_tools.call_mesh_tool(pool, "bk_first", spend, {}, REQUEST)
    assert refused.is_error and "this replica closes" in refused.content[0].text


async def test_an_argument_that_a_tool_does_not_have_is_refused() -> None:
    submit = mesh_tools.TOOLS["bulkhead_submit"]
    arguments = {"objective": "x", "limit_usdd": 0.01}
    refused = await mesh_tools.call_mesh_tool(GatewayPool("http://127.0.0.1:1"), "bk_first", submit, arguments, REQUEST)
    assert refused.is_error and "no argument 'limit_usdd'" in refused.content[0].text
