"""One replica of an MCP server: a session that is kept open, looked at, and opened again.

Enters: calls. Leaves: outcomes, or ReplicaLost. A task of its own holds the session; calls of other tasks go
through it. It is usable while its session is open, its server answers, its breaker allows, and it is not
draining.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from bulkhead.runtime.background import cancel_tasks
from bulkhead.telemetry.log import Log
from bulkhead.tools.api import Call, Done, Failed
from bulkhead.tools.mcp_file import McpServer, McpTool, McpToolPin
from bulkhead.tools.mcp_pins import UnfitTool, clean_line, digest_of
from bulkhead_services.tool_executor.mcp.answers import ReplicaLost, failure_of, outcome_of
from bulkhead_services.tool_executor.mcp.breaker import CallBreaker
from bulkhead_services.tool_executor.mcp.session import McpSession, open_session

log = Log("mcp")

OPEN_TIMEOUT_S = 30.0
"""A first start may install what it needs."""
CHECK_INTERVAL_S, CHECK_TIMEOUT_S = 10.0, 5.0
MAX_MISSED_CHECKS = 2
"""So many in a row, and calls that may be repeated move on to another replica."""
RETURN_S = 8.0
"""So long after a loss a call waits for its replica: a restart, and a new session."""
MIN_REOPEN_S, MAX_REOPEN_S = 0.5, 30.0
DRAIN_S = 300.0


class ServerReplica:
    """where: its URL, or `process 2`. changed: called when its tools, or whether it is usable, may have changed."""

    def __init__(self, server: McpServer, url: str, label: str, on_change: Callable[[], None]) -> None:
        self._server, self._url, self.label, self._on_change = server, url, label, on_change
        self.in_flight = self.served = 0
        self.draining = False
        self.was_tried = False
        self.problem = "it is being connected to"
        self.digests: dict[str, str] = {}
        self.is_lost = asyncio.Event()
        self._lost_s = float("-inf")
        self._breaker = CallBreaker()
        self._session: McpSession | None = None
        self._check_now = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stderr_lines: deque[str] = deque(maxlen=3)
        self._task = asyncio.create_task(self._reopen_sessions(), name=f"mcp {label}")

    def is_usable(self) -> bool:
        """True when a call may go here."""
        allowed = self._breaker.allows_call(asyncio.get_running_loop().time())
        return self._session is not None and not self.draining and not self.is_lost.is_set() and allowed

    def may_return(self) -> bool:
        """True for so long after its loss as a restart takes."""
        return not self.draining and asyncio.get_running_loop().time() - self._lost_s < RETURN_S

    def offers_pinned(self, pin: McpToolPin) -> bool:
        """True when its tool is the pinned one."""
        return self.digests.get(pin.tool) == pin.digest

    async def drain(self) -> None:
        """Take no more calls, let those under way end, close."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), DRAIN_S)
        except TimeoutError:
            pass
        await self.close()

    async def close(self) -> None:
        """Close the session now."""
        self.draining = True
        await cancel_tasks(self._task)

    def begin_call(self) -> None:
        """A call was given to it."""
        self.in_flight, self.served = self.in_flight + 1, self.served + 1
        self._idle.clear()
        self._breaker.on_call_begun()

    def end_call(self) -> None:
        """That call is over, however it ended."""
        self.in_flight -= 1
        self._breaker.on_call_ended()
        if not self.in_flight:
            self._idle.set()

    async def call_tool(self, tool: McpTool, arguments: Mapping[str, Any], call: Call) -> Done | Failed | ReplicaLost:
        """One call. Cancelled by its caller when its time is over."""
        session, loop = self._session, asyncio.get_running_loop()
        if session is None:
            return ReplicaLost(self.problem, sent=False)
        outcome: Done | Failed | ReplicaLost
        try:
            outcome = outcome_of(tool, await session.call_tool(tool.pin.tool, arguments, call))
        except (MCPError, ValidationError, RuntimeError) as error:
            outcome = failure_of(tool.row.spec.name, error)
        if isinstance(outcome, ReplicaLost):
            self._breaker.on_failure(loop.time())
            self._mark_lost()  # Until it is looked at, at once.
            self._check_now.set()
        else:
            self._breaker.on_success()
        return outcome

    def _mark_lost(self) -> None:
        if not self.is_lost.is_set():
            self._lost_s = asyncio.get_running_loop().time()
        self.is_lost.set()

    def on_timeout(self) -> None:
        """A call gave no answer within its time."""
        self._breaker.on_failure(asyncio.get_running_loop().time())
        self._check_now.set()

    async def _reopen_sessions(self) -> None:
        retry_s = MIN_REOPEN_S
        while True:
            task = asyncio.create_task(self._run_session(), name=f"mcp session {self.label}")
            try:
                await asyncio.wait({task})
            finally:
                await cancel_tasks(task)
                opened, self._session = self._session is not None, None
                if opened:
                    self._mark_lost()
            self.was_tried, self.problem = True, session_end_reason(task, self._stderr_lines)
            log.warning("mcp_replica_lost", where=self.label, opened=opened, why=self.problem, again_s=retry_s)
            self._on_change()
            retry_s = MIN_REOPEN_S if opened else min(retry_s * 2, MAX_REOPEN_S)
            await asyncio.sleep(retry_s)

    async def _run_session(self) -> None:
        """Open the session and look after it, until it is lost. Raises what the SDK and the system do."""
        self._stderr_lines.clear()
        async with asyncio.timeout(OPEN_TIMEOUT_S) as opening:
            async with open_session(self._server, self._url, self._stderr_lines, self._check_now.set) as session:
                await self._read_tool_digests(session)
                opening.reschedule(None)
                self._session, self.was_tried, self.problem = session, True, ""
                self.is_lost.clear()
                self._breaker.on_success()
                log.info("mcp_replica_ready", where=self.label, server=clean_line(session.server_label, 100))
                self._on_change()
                await self._watch_session(session)

    async def _watch_session(self, session: McpSession) -> None:
        missed_checks = 0
        while True:
            self._check_now.clear()
            try:
                await asyncio.wait_for(self._check_now.wait(), CHECK_INTERVAL_S)
            except TimeoutError:
                pass
            try:
                await asyncio.wait_for(self._read_tool_digests(session), CHECK_TIMEOUT_S)
                missed_checks = 0
                self.is_lost.clear()
            except (TimeoutError, MCPError) as error:
                missed_checks += 1
                self.problem = str(error) or f"it did not answer within {CHECK_TIMEOUT_S:.0f} s"
                if missed_checks >= MAX_MISSED_CHECKS:
                    self._mark_lost()
                    # A server may be busy with a long call: its session is left to it until that ends.
                    await asyncio.wait_for(self._idle.wait(), DRAIN_S)
                    raise
                self._check_now.set()

    async def _read_tool_digests(self, session: McpSession) -> None:
        """Read the tools anew; one that differs from its pin is not called here. Raises MCPError."""
        digests: dict[str, str] = {}
        for tool in await session.list_tools():
            try:
                digests[tool.name] = digest_of(tool)
            except UnfitTool:
                digests[tool.name] = "unfit"
        if digests != self.digests:
            self.digests = digests
            self._on_change()


def session_end_reason(task: "asyncio.Task[Any]", stderr_lines: deque[str]) -> str:
    """Why a session ended, of the first error that is no group, with what the process wrote last."""
    error = None if task.cancelled() else task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        reason = "it did not answer in time"
    else:
        reason = f"{type(error).__name__}: {error}" if error is not None else "its session ended"
    stderr_note = f"; it wrote: {' / '.join(stderr_lines)}" if stderr_lines else ""
    return clean_line(reason + stderr_note, 400)
