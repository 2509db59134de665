"""The HTTP client under the SDK's streamable HTTP: what became of a request is said, and its answer is bounded.

Enters: requests of the SDK. Leaves: their answers; in place of a failure a JSON-RPC error that says whether the request
may have reached the server, so that a session outlives it and the calls beside it go on.
"""

from collections.abc import AsyncIterator, Mapping

import httpx2

from bulkhead.tools.mcp_file import FileReference
from bulkhead_contracts import bounds

NOT_SENT_CODE, LOST_CODE = -32090, -32091
"""JSON-RPC errors of our own: the request certainly did nothing; it may have."""
BROKEN, TOO_LONG = "the connection broke", "the answer is longer than"
CONNECT_TIMEOUT_S = 5.0
_UNREACHED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_CALL = b'"tools/call"'


def rpc_error_client(headers: Mapping[str, FileReference]) -> httpx2.AsyncClient:
    """A client for one replica: no proxy, no kept connections, which a server may close under a request."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx2.AsyncClient(
        transport=_RpcErrorTransport(headers, httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)),
        timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S, write=30.0),
        trust_env=False,
        headers={"user-agent": "bulkhead-tool-executor", "accept-encoding": "identity"},
    )


class _RpcErrorTransport(httpx2.AsyncBaseTransport):
    def __init__(self, headers: Mapping[str, FileReference], inner: httpx2.AsyncBaseTransport) -> None:
        self._headers, self._inner = headers, inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        is_post = request.method == "POST"
        try:
            for name, reference in self._headers.items():
                request.headers[name] = reference.read_header()
        except ValueError as error:
            return _rpc_error_response(request, NOT_SENT_CODE, f"the file of the header {name} {error}")
        try:
            response = await self._inner.handle_async_request(request)
        except _UNREACHED as error:
            if not is_post:
                raise
            return _rpc_error_response(request, NOT_SENT_CODE, _describe_error(error))
        except httpx2.TransportError as error:
            if not is_post:
                raise
            return _rpc_error_response(request, LOST_CODE, _describe_error(error))
        if is_post:
            response.stream = _BoundedMcpBody(response.stream)
        if response.status_code < 400 or not is_post or _CALL not in request.content:
            return response
        return await _map_http_error(request, response)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _map_http_error(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
    """A call that was answered with an HTTP error. 404: the server forgot the session, and did nothing."""
    status = response.status_code
    media = response.headers.get("content-type", "").lower()
    if media.startswith("application/json") and status != 404:
        return response  # The SDK tells the JSON-RPC error in it.
    await response.aclose()
    code = NOT_SENT_CODE if 400 <= status < 500 else LOST_CODE
    return _rpc_error_response(request, code, f"it answered HTTP {status}")


def _rpc_error_response(request: httpx2.Request, code: int, message: str) -> httpx2.Response:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message[:300]}}
    return httpx2.Response(503, json=error, request=request)


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


class _BoundedMcpBody(httpx2.AsyncByteStream):
    """A body of at most MAX_MCP_ANSWER_BYTES. Its failures are StreamErrors, which end one request and no session."""

    def __init__(self, inner: "httpx2.SyncByteStream | httpx2.AsyncByteStream") -> None:
        assert isinstance(inner, httpx2.AsyncByteStream)
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for piece in self._inner:
                size += len(piece)
                if size > bounds.MAX_MCP_ANSWER_BYTES:
                    raise httpx2.StreamError(f"{TOO_LONG} {bounds.MAX_MCP_ANSWER_BYTES} bytes")
                yield piece
        except httpx2.TransportError as error:
            raise httpx2.StreamError(f"{BROKEN}: {_describe_error(error)}") from error

    async def aclose(self) -> None:
        await self._inner.aclose()
