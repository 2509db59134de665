"""Effects of tools: HTTP, names, time. Enters: a tool with arguments. Leaves: Done, Failed or an answer.

No proxy, no redirects, no cookies, no kept connections: what one call did, no other call inherits.
"""

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from bulkhead.bus.jetstream.dns_cache import HostLookup
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.telemetry.log import Log
from bulkhead.tools.api import Arguments, Call, Done, Effect, Failed, ReportProgress, Response, Run, Unanswered
from bulkhead.tools.decorator import was_made
from bulkhead.tools.results import SecretGuard, judge_result
from bulkhead_contracts.provenance import Isolation
from bulkhead_contracts.result import Failure
from bulkhead_services.tool_executor import process_pool
from bulkhead_services.tool_executor.addresses import resolve_addresses
from bulkhead_services.tool_executor.credentials.store import CredentialStore
from bulkhead_services.tool_executor.process_pool import ToolProcessPool
from bulkhead_services.tool_executor.registry import HaltEvent, RegisteredTool, StartRefusal
from bulkhead_services.tool_executor.sandbox import levels
from bulkhead_services.tool_executor.sandbox.probe import Sandbox
from bulkhead_services.tool_executor.settings import Settings
from bulkhead_services.tool_executor.watchdog import ToolBlocked, Watchdog, mark_code_of

log = Log("tools")

BLOCKED_S = 2.0
"""A call that ends this much later than its timeout was blocked by its tool."""
MEND_HINT = "await what takes time, or write a plain `def run`, which gets a process of its own"
CONNECT_TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024
ExchangeCall = Callable[[process_pool.ToolProcess], Coroutine[Any, Any, dict[str, Any]]]
_UNREACHED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_NOT_SENT = (*_UNREACHED, httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL)


@dataclass(slots=True)
class AnswerProgress:
    """Bytes that came of the answer that a call reads just now; None where it reads none."""

    received_bytes: int | None = None

    def name_slow_answer(self, failure: Failed) -> Failed:
        """A timeout in the middle of an answer, which a slow server gave byte by byte, by its own name."""
        if failure.code != "timeout" or self.received_bytes is None:
            return failure
        message = f"{failure.message}: after {self.received_bytes} bytes the server had not sent the whole answer"
        return replace(failure, code="slow_answer", message=message)


@dataclass(frozen=True, slots=True)
class CallWorld:
    """The World of one call."""

    runner: "ToolRunner"
    progress: AnswerProgress

    async def get(self, url: str, address: str, max_bytes: int) -> Response | Unanswered:
        """See World."""
        return await self.runner.get(url, address, max_bytes, self.progress)

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """See World."""
        return await self.runner.resolve(host, port)

    async def post_json(self, url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Response | Unanswered:
        """See World."""
        return await self.runner.post_json(url, body, headers, self.progress)


class ToolRunner:
    """Runs tools, and touches the world for them."""

    def __init__(
        self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None, watchdog: Watchdog | None = None
    ) -> None:
        self._settings, self._watchdog = settings, watchdog
        self.sandbox = Sandbox(settings)
        self._processes = ToolProcessPool(settings.tool_processes, self.sandbox)
        # A running tool is never taken away, and some take a minute: a quarter stays free for other tenants.
        self.process_slots = FairSemaphore(settings.tool_processes, kept=settings.tool_processes // 4)
        self._lookup = HostLookup()
        self.loop_slots = FairSemaphore(settings.tool_places, kept=settings.tool_places // 4)
        self._http = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(30.0, connect=CONNECT_TIMEOUT_S),
            # Fair semaphores bound them, and notices go beside: a pool of fewer would be one line for all tenants.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            headers={"user-agent": "bulkhead-tool-executor", "accept-encoding": "identity"},
            transport=transport,
        )
        self._credentials = CredentialStore(settings.tool_credentials, settings.vault, self._http)

    def slots_of(self, tool: RegisteredTool) -> FairSemaphore:
        """Slots for calls of its kind: in a process of their own, or in the executor's loop."""
        return self.process_slots if tool.runs_in_own_process else self.loop_slots

    async def close(self) -> None:
        """Close connections, end processes."""
        await self._processes.close()
        await self._http.aclose()

    def isolation_of(self, tool: RegisteredTool) -> Isolation:
        """Isolation of a call of this tool here."""
        if not tool.runs_in_own_process:
            return "none"
        if tool.is_wasm:
            return "wasm" if not self.sandbox.find_isolation().wasm else "none"
        return "container" if self.sandbox.runs_in_container(tool.row) else self.sandbox.find_isolation().process_level

    def isolation_refusal(self, tool: RegisteredTool) -> Failed | None:
        """Why a tool is not run here: it is isolated less than it accepts. None when it may run."""
        if tool.spec.isolation == "none":
            return None
        return levels.isolation_refusal(
            tool.spec.name, tool.spec.isolation, self.sandbox.find_isolation(), self.isolation_of(tool)
        )

    def describe_isolation(self) -> dict[str, Any]:
        """Report of what was found of sandboxes here, in words."""
        return self.sandbox.find_isolation().report()

    async def back_off(self, attempt: int) -> None:
        """Back off before the attempt after this one."""
        await asyncio.sleep(self._settings.retry_backoff_s * 2**attempt)

    async def run(
        self,
        tool: RegisteredTool,
        arguments: Arguments,
        key: str,
        timeout_s: float,
        halt_event: HaltEvent,
        start_refusal: StartRefusal = lambda: None,
        user: str = "",
        check: bool = False,
        report_progress: ReportProgress | None = None,
        approval: str = "",
    ) -> Done | Failed:
        """One attempt within its time; the caller holds a slot. halt_event: ends it at once (None: let it finish).
        start_refusal: called when its process is ready, returns why it must not begin. user: who asked, for their
        credentials. check: no attempt, but the tool's word on whether the call was made.
        report_progress: None where nobody wants to hear of it. approval: see Call."""
        tenant, began = key.partition(".")[0], asyncio.get_running_loop().time()
        credentials = await self._credentials.read_credentials(tool.row.credentials, tenant, user)
        if isinstance(credentials, Failed):
            return credentials
        guard, progress = SecretGuard(credentials), AnswerProgress()
        tool_settings = self._settings.tool_settings
        call = Call(
            key=key,
            world=CallWorld(self, progress),
            http_allow_hosts=self._settings.http_allow_hosts,
            http_allow_private_hosts=self._settings.http_allow_private_hosts,
            counter_url=self._settings.counter_url,
            max_output_bytes=tool.row.max_output_bytes,
            settings={name: tool_settings[name] for name in tool.row.requires if name in tool_settings},
            credentials=credentials,
            report_progress=partial(_report_redacted, guard, report_progress) if report_progress is not None else None,
            approval=approval,
        )
        if credentials:
            timeout_s -= asyncio.get_running_loop().time() - began
        if tool.runs_in_own_process:
            work = partial(process_pool.call_process, arguments=arguments, call=call, check=check)
            outcome = await self._run_in_process(tool, work, call, timeout_s, halt_event, start_refusal, guard)
        else:
            run = tool.check if check and tool.check is not None else tool.run
            outcome = await self._run_in_loop(tool, run, arguments, call, timeout_s, halt_event, guard)
        if isinstance(outcome, Failed):
            if outcome.code == "unauthorized":
                self._credentials.forget_cached(tool.row.credentials, tenant, user)
            outcome = progress.name_slow_answer(outcome)
        call_was_made = check and outcome == was_made(
            tool.spec.name
        )  # A sentence, and not what its output schema is of.
        return guard.redact_outcome(outcome if call_was_made else judge_result(tool.row, outcome))

    async def _run_in_loop(
        self,
        tool: RegisteredTool,
        run: Run,
        arguments: Arguments,
        call: Call,
        timeout_s: float,
        halt_event: HaltEvent,
        guard: SecretGuard,
    ) -> Done | Failed:
        with self._watchdog.watch_call() if self._watchdog is not None else nullcontext():
            name = tool.spec.name
            work = asyncio.get_running_loop().create_task(
                _contain_exit(name, run, arguments, call), name=f"tool {name}"
            )
            failure = await _wait_for_work(tool, work, timeout_s, halt_event)
        if not isinstance(failure, Failed):
            return _outcome_of_work(tool, work, self._settings.tool_blocks_s, guard)
        if tool.stop_call is None:
            return failure
        tool.stop_call(call.key, failure.code != "halted")
        return replace(failure, transient=False)  # What was stopped is not begun again in the same breath.

    async def _run_in_process(
        self,
        tool: RegisteredTool,
        exchange_call: ExchangeCall,
        call: Call,
        timeout_s: float,
        halt_event: HaltEvent,
        start_refusal: StartRefusal,
        guard: SecretGuard,
    ) -> Done | Failed:
        """A plain tool, in a process of its own. Its time begins when that is ready; when it is over, the process is
        killed: no work goes on after its answer."""
        child = await self._processes.acquire_process(tool, call.key.partition(".")[0])
        if isinstance(child, Failed):
            return child
        if (refusal := start_refusal()) is not None:
            self._processes.release_process(child, reuse=True)
            return refusal
        work = asyncio.ensure_future(exchange_call(child))
        reusable = False
        try:
            failure = await _wait_for_work(tool, work, timeout_s, halt_event)
            if isinstance(failure, Failed):
                return failure
            answer = work.result()
            reusable = (
                bool({"done", "failed"} & answer.keys()) and not tool.needs_fresh_process
            )  # One that raised may have left anything.
            return _validated_outcome(tool, process_pool.outcome_of_answer(tool, guard.redact_frame(answer)))
        finally:
            self._processes.release_process(child, reuse=reusable)

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """IP addresses of a host; none when there is no such host."""
        return await resolve_addresses(self._lookup, host, port)

    async def get(
        self, url: str, address: str, max_bytes: int, progress: AnswerProgress | None = None
    ) -> Response | Unanswered:
        """GET from this very address: the name is not resolved again, TLS still checks the host's certificate."""
        headers = {"accept": "text/*, application/json, application/xml"}
        return await self._send_to_address("GET", url, address, headers, None, max_bytes, progress)

    async def post_to(
        self, url: str, address: str, body: bytes, headers: Mapping[str, str], max_bytes: int
    ) -> Response | Unanswered:
        """POST to this very address, as `get` gets from it."""
        return await self._send_to_address("POST", url, address, headers, body, max_bytes, None)

    async def _send_to_address(
        self,
        method: str,
        url: str,
        address: str,
        headers: Mapping[str, str],
        body: bytes | None,
        max_bytes: int,
        progress: AnswerProgress | None,
    ) -> Response | Unanswered:
        parts = urlsplit(url)
        try:
            target = httpx.URL(url).copy_with(host=address)
        except httpx.InvalidURL as error:
            return Unanswered(str(error), sent=False)
        headers, extensions = {**headers, "host": parts.netloc}, {"sni_hostname": parts.hostname}
        request = self._http.build_request(method, target, content=body, headers=headers, extensions=extensions)
        return await self._send_request(request, max_bytes, progress)

    async def post_json(
        self, url: str, body: Mapping[str, Any], headers: Mapping[str, str], progress: AnswerProgress | None = None
    ) -> Response | Unanswered:
        """POST to an address that the operator configured."""
        try:
            request = self._http.build_request(
                "POST", url, content=json.dumps(body), headers={"content-type": "application/json", **headers}
            )
        except httpx.InvalidURL as error:
            return Unanswered(str(error), sent=False)
        return await self._send_request(request, MAX_ANSWER_BYTES, progress)

    async def _send_request(
        self, request: httpx.Request, max_bytes: int, progress: AnswerProgress | None
    ) -> Response | Unanswered:
        progress = progress or AnswerProgress()
        progress.received_bytes = None
        try:
            response = await self._http.send(request, stream=True)
            try:
                return await _read_bounded(response, max_bytes, progress)
            finally:
                await response.aclose()
        except _NOT_SENT as error:
            return Unanswered(f"{type(error).__name__}: {error}"[:200], sent=False)
        except httpx.HTTPError as error:
            answer_begun = progress.received_bytes is not None
            prefix = f"the answer broke off after {progress.received_bytes} bytes: " if answer_begun else ""
            progress.received_bytes = None
            return Unanswered(f"{prefix}{type(error).__name__}: {error}"[:200], sent=True, partial=answer_begun)


async def _report_redacted(
    guard: SecretGuard, report_progress: ReportProgress, progress: float, total: float | None, message: str
) -> None:
    await report_progress(progress, total, guard.redact_text(message))


async def _wait_for_work(
    tool: RegisteredTool, work: "asyncio.Future[Any]", timeout_s: float, halt_event: HaltEvent
) -> Failed | None:
    """Wait for the work; None when it is done, else why it was ended."""
    halt_wait = asyncio.ensure_future(halt_event.wait()) if halt_event is not None else None
    waiting: set[asyncio.Future[Any]] = {work} if halt_wait is None else {work, halt_wait}
    began = asyncio.get_running_loop().time()
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        took_s = asyncio.get_running_loop().time() - began
        if took_s > timeout_s + BLOCKED_S and not (work.done() and isinstance(work.exception(), ToolBlocked)):
            # Nothing interrupted it: its owner has to know.
            meaning = "every other call of this process stood still, its timeout could not end it"
            times: dict[str, Any] = {"took_ms": int(took_s * 1000), "may_take_ms": int(timeout_s * 1000)}
            log.error("tool_blocks", tool=tool.spec.name, **times, meaning=meaning, todo=MEND_HINT)
        if work.done():
            return None
    finally:
        await _cancel_work(tool, waiting)
    if halt_event is not None and halt_event.is_set():
        message = "the task was halted while the tool ran"
        return Failed("halted", message, "an operator must lift the halt", effect="unknown")
    # The row's bound cut it, or the rest of the step's time: only in the first case a higher bound helps.
    limited_by_row = timeout_s * 1000 >= tool.spec.timeout_ms
    hint = "try again later or ask for less" + (
        "; its owner may raise timeout_ms in tools.yaml" if limited_by_row else ""
    )
    message = f"{tool.spec.name} took longer than {timeout_s * 1000:.0f} ms"
    return Failed("timeout", message, hint, transient=True, effect="unknown")


async def _cancel_work(tool: RegisteredTool, waiting: set[asyncio.Future[Any]]) -> None:
    """Cancel the work. A tool that ignores it goes on beside, without its call; its owner has to know."""
    for future in waiting:
        future.cancel()
    done, running = await asyncio.wait(waiting, timeout=BLOCKED_S)
    for future in done:
        _ = future.cancelled() or future.exception()  # Retrieved, so that asyncio does not warn.
    if running:
        meaning = "its time is over and it was cancelled, and it runs on beside the calls that follow"
        log.error("tool_goes_on", tool=tool.spec.name, meaning=meaning, todo="let CancelledError through")


async def _contain_exit(name: str, run: Run, arguments: Arguments, call: Call) -> Done | Failed:
    """A tool that calls exit() ends itself, and not the process: every other call would end with it, again at each
    delivery of this one."""
    try:
        with mark_code_of(name):
            return await cast("Awaitable[Done | Failed]", run(arguments, call))
    except SystemExit as error:
        raise RuntimeError(f"the tool called exit({error.code!r})").with_traceback(error.__traceback__) from None


def _outcome_of_work(
    tool: RegisteredTool, work: "asyncio.Future[Done | Failed]", blocks_s: float, guard: SecretGuard
) -> Done | Failed:
    """The outcome of an async tool. One that raises, or returns something else, has a bug: its traceback is logged.

    It may have changed the world before that: the outcome of a write is unknown. Its exception may name secrets, so
    the agent reads the kind and the line of `run`.
    """
    name = tool.spec.name
    error = asyncio.CancelledError() if work.cancelled() else work.exception()
    if error is None:
        return _validated_outcome(tool, work.result())
    where = _line_of_error(error)
    trace: dict[str, Any] = {"exc_info": error}
    if guard.has_any:
        trace = {"traceback": guard.redact_text("".join(traceback.format_exception(error)))}
    if isinstance(error, ToolBlocked):
        meaning = "every other call of this process stood still; it was interrupted"
        details: dict[str, Any] = {"where": where, "blocked_s": blocks_s, "todo": MEND_HINT, "meaning": meaning}
        log.error("tool_blocks", tool=name, **trace, **details)
        message = f"{name} held up its whole process for {blocks_s:g} s and was interrupted"
        message += f" ({where})" if where else ""
        hint = f"whoever wrote the tool must mend it: {MEND_HINT}"
        # A write is repeated under its key, and else uncertain; a read would only hold up the process again.
        return Failed("tool_blocks", message, hint, transient=tool.spec.effect == "write", effect="unknown")
    message = guard.redact_text(f"{type(error).__name__}: {error}")[:500]
    log.error("tool_raised", tool=name, error=message, where=where, **trace)
    return process_pool.raised_failure(tool, type(error).__name__, where)


def _validated_outcome(tool: RegisteredTool, returned: object) -> Done | Failed:
    """The returned outcome; a failure when it is none."""
    problem = f"a {type(returned).__name__} where Done or Failed is due"
    if isinstance(returned, Done):
        if isinstance(returned.text, str):
            return returned
        problem = f"Done of a {type(returned.text).__name__} where a text is due"
    elif isinstance(returned, Failed):
        try:
            Failure.from_text(returned.code, returned.message, returned.hint)
            if returned.effect in get_args(Effect):
                return returned
            problem = "Failed whose effect is neither `none` nor `unknown`"
        except (ValidationError, TypeError):
            problem = "Failed whose code is no short name, or whose message or hint is no text"
    return process_pool.invalid_outcome_failure(tool, problem)


def _line_of_error(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    return f"{Path(frames[0].filename).name}, line {frames[0].lineno}" if frames else ""


async def _read_bounded(response: httpx.Response, max_bytes: int, progress: AnswerProgress) -> Response:
    # Raw bytes: a compressed body could unfold into anything, and none was asked for.
    encoding = response.headers.get("content-encoding", "identity")
    media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = b""
    progress.received_bytes = 0
    async for piece in response.aiter_raw():
        body += piece
        progress.received_bytes = len(body)
        if len(body) > max_bytes:
            break
    progress.received_bytes = None
    return Response(
        status=response.status_code,
        media_type=media if encoding == "identity" else f"{encoding}-encoded",
        body=body[:max_bytes],
        truncated=len(body) > max_bytes,
        location=response.headers.get("location", ""),
        charset=response.charset_encoding or "",
    )
