"""How tools touch the world: HTTP, names, time. Enters: a tool with arguments. Leaves: Done, Failed or an answer.

No proxy, no redirects, no cookies, no kept connections: what one call did, no other call inherits.
"""

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from .registry import Tool
from .settings import Settings
from .tool import Arguments, Call, Done, Failed, Response, Unanswered

CONNECT_TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024
_NOT_SENT = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol,
    httpx.LocalProtocolError, httpx.InvalidURL,
)  # fmt: skip


class Workbench:
    """Runs tools, and is the World that they see."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._settings = settings
        self._http = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(30.0, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=0),
            headers={"user-agent": "bulkhead-tool-executor", "accept-encoding": "identity"},
            transport=transport,
        )

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()

    async def pause(self, attempt: int) -> None:
        """Back off before the attempt after this one."""
        await asyncio.sleep(self._settings.retry_backoff_s * 2**attempt)

    async def run(
        self, tool: Tool, arguments: Arguments, key: str, timeout_s: float, cut: asyncio.Event | None
    ) -> Done | Failed:
        """One attempt within its time; `cut` ends it at once (None: let it finish)."""
        given = self._settings.tool_settings
        call = Call(
            key=key,
            world=self,
            http_allow_hosts=self._settings.http_allow_hosts,
            http_allow_private_hosts=self._settings.http_allow_private_hosts,
            counter_url=self._settings.counter_url,
            max_output_bytes=tool.row.max_output_bytes,
            settings={name: given[name] for name in tool.row.requires if name in given},
        )
        work = asyncio.ensure_future(tool.run(arguments, call))
        cutting = asyncio.ensure_future(cut.wait()) if cut is not None else None
        waiting: set[asyncio.Future[Any]] = {work} if cutting is None else {work, cutting}
        try:
            await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
        finally:
            for future in waiting:
                future.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        if cutting is not None and cut is not None and cut.is_set():
            return Failed("halted", "the task was halted while the tool ran", "an operator must lift the halt",
                          effect="unknown")  # fmt: skip
        return Failed("timeout", f"{tool.spec.name} took longer than {timeout_s * 1000:.0f} ms",
                      "try again later or ask for less", transient=True, effect="unknown")  # fmt: skip

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """IP addresses of a host; none when there is no such host."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return ()
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def get(self, url: str, address: str, max_bytes: int) -> Response | Unanswered:
        """GET from this very address: the name is not resolved again, TLS still checks the host's certificate."""
        parts = urlsplit(url)
        try:
            target = httpx.URL(url).copy_with(host=address)
        except httpx.InvalidURL as error:
            return Unanswered(str(error), sent=False)
        request = self._http.build_request(
            "GET",
            target,
            headers={"host": parts.netloc, "accept": "text/*, application/json, application/xml"},
            extensions={"sni_hostname": parts.hostname},
        )
        return await self._send(request, max_bytes)

    async def post_json(self, url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Response | Unanswered:
        """POST to an address that the operator configured."""
        try:
            request = self._http.build_request(
                "POST", url, content=json.dumps(body), headers={"content-type": "application/json", **headers}
            )
        except httpx.InvalidURL as error:
            return Unanswered(str(error), sent=False)
        return await self._send(request, MAX_ANSWER_BYTES)

    async def post_to(
        self, url: str, address: str, body: bytes, headers: Mapping[str, str], max_bytes: int
    ) -> Response | Unanswered:
        """POST to this very address, as `get` gets from it."""
        parts = urlsplit(url)
        try:
            target = httpx.URL(url).copy_with(host=address)
        except httpx.InvalidURL as error:
            return Unanswered(str(error), sent=False)
        request = self._http.build_request("POST", target, content=body, headers={**headers, "host": parts.netloc},
                                           extensions={"sni_hostname": parts.hostname})  # fmt: skip
        return await self._send(request, max_bytes)

    async def _send(self, request: httpx.Request, max_bytes: int) -> Response | Unanswered:
        try:
            response = await self._http.send(request, stream=True)
            try:
                return await _bounded(response, max_bytes)
            finally:
                await response.aclose()
        except _NOT_SENT as error:
            return Unanswered(f"{type(error).__name__}: {error}"[:200], sent=False)
        except httpx.HTTPError as error:
            return Unanswered(f"{type(error).__name__}: {error}"[:200], sent=True)


async def _bounded(response: httpx.Response, max_bytes: int) -> Response:
    # Raw bytes: a compressed body could unfold into anything, and none was asked for.
    encoding = response.headers.get("content-encoding", "identity")
    media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = b""
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > max_bytes:
            break
    return Response(
        status=response.status_code,
        media_type=media if encoding == "identity" else f"{encoding}-encoded",
        body=body[:max_bytes],
        truncated=len(body) > max_bytes,
        location=response.headers.get("location", ""),
        charset=response.charset_encoding or "",
    )
