"""The HTTP client under the SDK's client: to checked addresses alone, with the agent's headers, answers bounded.

Enters: requests of the SDK. Leaves: their answers. A name is resolved once and its very address is connected to, so
that no second answer of a name server leads inside; nothing is followed, and no proxy is asked.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

import httpx

from bulkhead.bus.jetstream.dns_cache import HostLookup
from bulkhead.tools.agents_file import RemoteAgent
from bulkhead_contracts import bounds
from bulkhead_services.tool_executor.addresses import first_non_public, resolve_addresses

CONNECT_TIMEOUT_S = 5.0
MAX_ADDRESSES = 4
TOO_LONG = "the answer is longer than"
Resolve = Callable[[str, int], Awaitable[tuple[str, ...]]]


def checked_client(declared: RemoteAgent, resolve: Resolve | None = None) -> httpx.AsyncClient:
    """A client for one agent. resolve: addresses of a host; that of the system when left out."""
    # Its connections are not kept: an agent may close one under a request, which nobody may then send again.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    inner = httpx.AsyncHTTPTransport(limits=limits, trust_env=False)
    return httpx.AsyncClient(
        transport=_CheckedTransport(declared, resolve or partial(resolve_addresses, HostLookup()), inner),
        timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S, write=30.0),
        trust_env=False,
        follow_redirects=False,
        headers={"user-agent": "bulkhead-tool-executor", "accept-encoding": "identity"},
    )


class _CheckedTransport(httpx.AsyncBaseTransport):
    def __init__(self, declared: RemoteAgent, resolve: Resolve, inner: httpx.AsyncBaseTransport) -> None:
        self._declared, self._resolve, self._inner = declared, resolve, inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        if request.url.scheme != "https" and not self._declared.private:
            raise httpx.UnsupportedProtocol(f"{host} is called by plain http, which only `private: true` allows")
        addresses = await self._resolve(host, port)
        if not addresses:
            raise httpx.ConnectError(f"{host} has no address")
        if not self._declared.private and (non_public := first_non_public(addresses)):
            raise httpx.ConnectError(f"{host} resolves to {non_public}, which is not public; `private: true` allows it")
        try:
            for name, reference in self._declared.headers.items():
                request.headers[name] = reference.read_header()
        except ValueError as error:
            raise httpx.ConnectError(f"the file of the header {name} {error}") from error
        request.extensions = {**request.extensions, "sni_hostname": host}
        response = await self._send_to_first_reachable(request, addresses[:MAX_ADDRESSES])
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _BoundedAgentBody(response.stream)
        return response

    async def _send_to_first_reachable(self, request: httpx.Request, addresses: Sequence[str]) -> httpx.Response:
        """The answer from the first address that can be connected to."""
        url = request.url
        for address in addresses[:-1]:
            request.url = url.copy_with(host=address)
            try:
                return await self._inner.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        request.url = url.copy_with(host=addresses[-1])
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedAgentBody(httpx.AsyncByteStream):
    """A body of at most MAX_MCP_ANSWER_BYTES."""

    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._inner:
            size += len(piece)
            if size > bounds.MAX_MCP_ANSWER_BYTES:
                raise httpx.DecodingError(f"{TOO_LONG} {bounds.MAX_MCP_ANSWER_BYTES} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()
