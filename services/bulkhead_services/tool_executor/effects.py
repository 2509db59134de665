"""How tools touch the world: HTTP, names, time. Enters: a tool with arguments. Leaves: Done, Failed or an answer.

No proxy, no redirects, no cookies, no kept connections: what one call did, no other call inherits.
"""

import asyncio
import json
import socket
import traceback
from collections.abc import Awaitable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.telemetry.log import Log
from bulkhead.tools.api import Arguments, Call, Done, Effect, Failed, Response, Unanswered
from bulkhead_contracts.result import Failure
from bulkhead_services.tool_executor import process_pool
from bulkhead_services.tool_executor.process_pool import Processes
from bulkhead_services.tool_executor.registry import Cut, Tool, TooLate
from bulkhead_services.tool_executor.settings import Settings
from bulkhead_services.tool_executor.watchdog import Blocked, Watchdog, code_of

log = Log("tools")

BLOCKED_S = 2.0
"""A call that ends this much later than its timeout was blocked by its tool."""
MEND = "await what takes time, or write a plain `def run`, which gets a process of its own"
CONNECT_TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024
_UNREACHED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_NOT_SENT = (*_UNREACHED, httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL)


class Workbench:
    """Runs tools, and is the World that they see."""

    def __init__(
        self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None, watchdog: Watchdog | None = None
    ) -> None:
        self._settings, self._watchdog = settings, watchdog
        self._processes = Processes(settings.tool_processes)
        # A running tool is never taken away, and some take a minute: a quarter stays free for other tenants.
        self.plain = FairSemaphore(settings.tool_processes, kept=settings.tool_processes // 4)
        self.awaited = FairSemaphore(settings.tool_places, kept=settings.tool_places // 4)
        self._http = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(30.0, connect=CONNECT_TIMEOUT_S),
            # Fair semaphores bound them, and notices go beside: a pool of fewer would be one line for all tenants.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            headers={"user-agent": "bulkhead-tool-executor", "accept-encoding": "identity"},
            transport=transport,
        )

    async def close(self) -> None:
        """Close connections, end processes."""
        await self._processes.close()
        await self._http.aclose()

    async def pause(self, attempt: int) -> None:
        """Back off before the attempt after this one."""
        await asyncio.sleep(self._settings.retry_backoff_s * 2**attempt)

    async def run(
        self, tool: Tool, arguments: Arguments, key: str, timeout_s: float, cut: Cut, too_late: TooLate = lambda: None
    ) -> Done | Failed:
        """One attempt within its time; the caller holds a place. cut: ends it at once (None: let it finish). too_late:
        called when its process is ready, returns why it must not begin."""
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
        if tool.plain:
            return await self._apart(tool, arguments, call, timeout_s, cut, too_late)
        with self._watchdog.over() if self._watchdog is not None else nullcontext():
            name = tool.spec.name
            work = asyncio.get_running_loop().create_task(_kept_in(name, tool, arguments, call), name=f"tool {name}")
            found = await _within(tool, work, timeout_s, cut)
        return found if isinstance(found, Failed) else _outcome(tool, work, self._settings.tool_blocks_s)

    async def _apart(
        self, tool: Tool, arguments: Arguments, call: Call, timeout_s: float, cut: Cut, too_late: TooLate
    ) -> Done | Failed:
        """A plain tool, in a process of its own. Its time begins when that is ready; when it is over, the process is
        killed: no work goes on after its answer."""
        child = await self._processes.take(tool, call.key.partition(".")[0])
        if isinstance(child, Failed):
            return child
        if (never := too_late()) is not None:
            self._processes.give(child, kept=True)
            return never
        work = asyncio.ensure_future(process_pool.call(child, arguments, call))
        kept = False
        try:
            found = await _within(tool, work, timeout_s, cut)
            if isinstance(found, Failed):
                return found
            said = work.result()
            kept = "ended" not in said
            return _checked(tool, process_pool.outcome(tool, said))
        finally:
            self._processes.give(child, kept=kept)

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
        headers = {"host": parts.netloc, "accept": "text/*, application/json, application/xml"}
        request = self._http.build_request("GET", target, headers=headers, extensions={"sni_hostname": parts.hostname})
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
        extensions = {"sni_hostname": parts.hostname}
        request = self._http.build_request(
            "POST", target, content=body, headers={**headers, "host": parts.netloc}, extensions=extensions
        )
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


async def _within(tool: Tool, work: "asyncio.Future[Any]", timeout_s: float, cut: Cut) -> Failed | None:
    """Wait for the work; None when it is done, else why it was ended."""
    cutting = asyncio.ensure_future(cut.wait()) if cut is not None else None
    waiting: set[asyncio.Future[Any]] = {work} if cutting is None else {work, cutting}
    began = asyncio.get_running_loop().time()
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        took_s = asyncio.get_running_loop().time() - began
        if took_s > timeout_s + BLOCKED_S and not (work.done() and isinstance(work.exception(), Blocked)):
            # Nothing interrupted it: its owner has to know.
            meaning = "every other call of this process stood still, its timeout could not end it"
            times: dict[str, Any] = {"took_ms": int(took_s * 1000), "may_take_ms": int(timeout_s * 1000)}
            log.error("tool_blocks", tool=tool.spec.name, **times, meaning=meaning, todo=MEND)
        if work.done():
            return None
    finally:
        await _end(tool, waiting)
    if cut is not None and cut.is_set():
        what = "the task was halted while the tool ran"
        return Failed("halted", what, "an operator must lift the halt", effect="unknown")
    # The row's bound cut it, or the rest of the step's time: only in the first case a higher bound helps.
    knob = timeout_s * 1000 >= tool.spec.timeout_ms
    hint = "try again later or ask for less" + ("; its owner may raise timeout_ms in tools.yaml" if knob else "")
    what = f"{tool.spec.name} took longer than {timeout_s * 1000:.0f} ms"
    return Failed("timeout", what, hint, transient=True, effect="unknown")


async def _end(tool: Tool, waiting: set[asyncio.Future[Any]]) -> None:
    """Cancel the work. A tool that ignores it goes on beside, without its call; its owner has to know."""
    for future in waiting:
        future.cancel()
    done, left = await asyncio.wait(waiting, timeout=BLOCKED_S)
    for future in done:
        _ = future.cancelled() or future.exception()  # Retrieved, so that asyncio does not warn.
    if left:
        meaning = "its time is over and it was cancelled, and it runs on beside the calls that follow"
        log.error("tool_goes_on", tool=tool.spec.name, meaning=meaning, todo="let CancelledError through")


async def _kept_in(name: str, tool: Tool, arguments: Arguments, call: Call) -> Done | Failed:
    """A tool that calls exit() ends itself, and not the process: every other call would end with it, again at each
    delivery of this one."""
    try:
        with code_of(name):
            return await cast("Awaitable[Done | Failed]", tool.run(arguments, call))
    except SystemExit as error:
        raise RuntimeError(f"the tool called exit({error.code!r})").with_traceback(error.__traceback__) from None


def _outcome(tool: Tool, work: "asyncio.Future[Done | Failed]", blocks_s: float) -> Done | Failed:
    """The outcome of an async tool. One that raises, or returns something else, has a bug: its traceback is logged.

    It may have changed the world before that: the outcome of a write is unknown. Its exception may name secrets, so
    the agent reads the kind and the line of `run`.
    """
    name = tool.spec.name
    error = asyncio.CancelledError() if work.cancelled() else work.exception()
    if error is None:
        return _checked(tool, work.result())
    where = _place(error)
    if isinstance(error, Blocked):
        meaning = "every other call of this process stood still; it was interrupted"
        told = {"where": where, "blocked_s": blocks_s, "todo": MEND, "meaning": meaning}
        log.error("tool_blocks", exc_info=error, tool=name, **told)
        what = f"{name} held up its whole process for {blocks_s:g} s and was interrupted"
        what += f" ({where})" if where else ""
        return Failed("tool_blocks", what, f"whoever wrote the tool must mend it: {MEND}", effect="unknown")
    log.error("tool_raised", exc_info=error, tool=name, error=f"{type(error).__name__}: {error}"[:500], where=where)
    return process_pool.raised(tool, type(error).__name__, where)


def _checked(tool: Tool, said: object) -> Done | Failed:
    """The returned outcome; a failure when it is none."""
    wrong = f"a {type(said).__name__} where Done or Failed is due"
    if isinstance(said, Done):
        if isinstance(said.text, str):
            return said
        wrong = f"Done of a {type(said.text).__name__} where a text is due"
    elif isinstance(said, Failed):
        try:
            Failure.of(said.code, said.message, said.hint)
            if said.effect in get_args(Effect):
                return said
            wrong = "Failed whose effect is neither `none` nor `unknown`"
        except (ValidationError, TypeError):
            wrong = "Failed whose code is no short name, or whose message or hint is no text"
    return process_pool.no_outcome(tool, wrong)


def _place(error: BaseException) -> str:
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename != __file__]
    return f"{Path(frames[0].filename).name}, line {frames[0].lineno}" if frames else ""


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
