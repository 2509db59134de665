"""Connections to the gateway: one pool for the clients of all callers, each with its caller's own credential.

A credential goes to the gateway's address alone: proxies that the environment names are not asked.
"""

import httpx

from bulkhead.client import Mesh
from bulkhead.client.errors import Closed

TIMEOUT_S = 30.0
MAX_IDLE = 100


class GatewayPool(httpx.AsyncBaseTransport):
    """The pool. A client that closes leaves it open."""

    def __init__(self, url: str) -> None:
        self.url = url
        # A stream holds its connection for as long as it lasts; the places bound how many there are.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=MAX_IDLE)
        self._pool: httpx.AsyncHTTPTransport | None = httpx.AsyncHTTPTransport(limits=limits)

    def client_for(self, credential: str) -> Mesh:
        """A client with this credential."""
        return Mesh(self.url, credential, timeout_s=TIMEOUT_S, transport=self)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One request. Raises Closed."""
        if self._pool is None:
            raise Closed("this replica closes", "ask again: another one answers")
        return await self._pool.handle_async_request(request)

    async def close_connections(self) -> None:
        """Close the connections, after the last request."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()
