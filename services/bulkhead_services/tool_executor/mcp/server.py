"""One MCP server: a call goes to its least loaded usable replica, and on to another where its effect allows.

Enters: a pinned tool with arguments. Leaves: an outcome. What was certainly not sent moves on in any case; what may
have been sent moves on where it reads or is idempotent, and is else told as unknown.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from bulkhead.runtime.background import cancel_tasks
from bulkhead.tools.api import Call, Done, Effect, Failed
from bulkhead.tools.mcp_file import McpServer, McpTool
from bulkhead.tools.results import RETRY_HINT
from bulkhead_services.tool_executor.mcp.answers import ReplicaLost
from bulkhead_services.tool_executor.mcp.replica import ServerReplica

FIRST_PATIENCE_S = 10.0
"""So long a call waits for the first replica of a server that has just been started."""
RETURN_LOOK_S = 0.05
ReplicaKey = tuple[str, int]
"""A replica's URL with 0, or "" with the number of its process."""


class McpReplicas:
    """The replicas of one server, for as long as its connection is declared as it is."""

    def __init__(self, name: str, declared: McpServer) -> None:
        self.name, self.declared = name, declared
        self._changed = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self.replicas: dict[ReplicaKey, ServerReplica] = {}
        self.update_replicas(declared)

    def update_replicas(self, declared: McpServer) -> None:
        """Add new replicas, drain those that are gone; all of them where they are connected to in another way."""
        keys: set[ReplicaKey] = {(url, 0) for url in declared.urls} or {("", n) for n in range(declared.replicas)}
        is_reconnected = _connection_identity(declared) != _connection_identity(self.declared)
        for key in [candidate for candidate in self.replicas if is_reconnected or candidate not in keys]:
            self._retire_replica(self.replicas.pop(key))
        self.declared = declared
        for key in sorted(keys - set(self.replicas)):
            label = f"{self.name} {key[0] or f'process {key[1] + 1}'}"
            self.replicas[key] = ServerReplica(declared, key[0], label, self._changed.set)

    def _retire_replica(self, replica: ServerReplica) -> None:
        replica.draining = True
        task = asyncio.create_task(replica.drain(), name=f"mcp drain {replica.label}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def drain(self) -> None:
        """Let the calls under way end; take no others."""
        for replica in self.replicas.values():
            self._retire_replica(replica)
        self.replicas = {}

    async def close(self) -> None:
        """Close all sessions now."""
        await cancel_tasks(*self._closing)
        await asyncio.gather(*(replica.close() for replica in self.replicas.values()))

    def is_quarantined(self, tool: McpTool) -> bool:
        """True when every replica that is connected tells the tool otherwise than it is pinned."""
        connected = [replica for replica in self.replicas.values() if replica.digests]
        return bool(connected) and not any(replica.offers_pinned(tool.pin) for replica in connected)

    def find_problem(self) -> str:
        """Why none of its replicas can be used; "" when one can."""
        if any(replica.is_usable() for replica in self.replicas.values()):
            return ""
        reasons = "; ".join(
            f"{replica.label}: {replica.problem or 'its breaker is open'}" for replica in self.replicas.values()
        )
        return f"no replica of the MCP server {self.name} can be used ({reasons})"[:1000]

    async def call_tool(self, tool: McpTool, arguments: Mapping[str, Any], call: Call) -> Done | Failed:
        """One attempt, over as many replicas as its effect allows."""
        spec, tried = tool.row.spec, list[ServerReplica]()
        repeatable = tool.is_repeatable
        reason, maybe_sent, returned = "", False, False
        await self._wait_for_first_replica()
        while True:
            replica = self._pick_replica(tool, tried)
            # Of two that were lost in it, the call itself may be the reason.
            if replica is None and not returned and len(tried) < 2 and await self._wait_for_return(tool):
                returned, tried = True, []
                continue
            if replica is None:
                break
            tried.append(replica)
            outcome = await self._call_replica(
                replica, tool, arguments, call, repeatable and self._pick_replica(tool, tried) is not None
            )
            if not isinstance(outcome, ReplicaLost):
                return outcome
            reason, maybe_sent = f"{replica.label}: {outcome.reason}", maybe_sent or outcome.sent
            if outcome.sent and not repeatable:
                message = f"the connection to {replica.label} was lost while {spec.name} ran: {outcome.reason}"
                return Failed("connection_lost", message, "look whether it was done", transient=True, effect="unknown")
        if not tried and self.is_quarantined(tool):
            return quarantine_refusal(self.name, tool)
        message = (
            reason
            or self.find_problem()
            or f"no replica of the MCP server {self.name} offers {tool.pin.tool} as pinned"
        )
        effect: Effect = "unknown" if maybe_sent else "none"
        return Failed("unavailable", message[:1500], RETRY_HINT, transient=True, effect=effect)

    async def _call_replica(
        self, replica: ServerReplica, tool: McpTool, arguments: Mapping[str, Any], call: Call, may_leave: bool
    ) -> Done | Failed | ReplicaLost:
        """The call at one replica; left behind when that is lost and another may do it."""
        loop = asyncio.get_running_loop()
        replica.begin_call()
        began, work = loop.time(), asyncio.create_task(replica.call_tool(tool, arguments, call))
        waiting: set[asyncio.Task[Any]] = {work}
        if may_leave:
            waiting.add(asyncio.create_task(replica.is_lost.wait()))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else ReplicaLost("it does not answer any more", sent=True)
        except asyncio.CancelledError:
            if loop.time() - began >= 0.9 * tool.row.spec.timeout_ms / 1000:
                replica.on_timeout()
            raise
        finally:
            await cancel_tasks(*waiting)
            replica.end_call()

    def _pick_replica(self, tool: McpTool, tried: list[ServerReplica]) -> ServerReplica | None:
        candidates = [
            replica
            for replica in self.replicas.values()
            if replica not in tried and replica.is_usable() and replica.offers_pinned(tool.pin)
        ]
        return min(candidates, key=lambda one: (one.in_flight, one.served), default=None)

    async def _wait_for_return(self, tool: McpTool) -> bool:
        """Wait for a replica that was lost a moment ago and may be back at once; True when one can be used."""
        while (replica := self._pick_replica(tool, [])) is None:
            if not any(lost.may_return() for lost in self.replicas.values()):
                return False
            await asyncio.sleep(RETURN_LOOK_S)
        return replica is not None

    async def _wait_for_first_replica(self) -> None:
        """Wait for a replica of a server that nobody has reached yet."""
        loop = asyncio.get_running_loop()
        until = loop.time() + FIRST_PATIENCE_S
        while (
            self.replicas and not any(replica.was_tried for replica in self.replicas.values()) and loop.time() < until
        ):
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, until - loop.time()))
            except TimeoutError:
                return


def quarantine_refusal(server: str, tool: McpTool) -> Failed:
    """The refusal of a tool that is not what was pinned."""
    message = f"{tool.row.spec.name} is quarantined: the server {server} describes it otherwise than when it was pinned"
    hint = f"an operator must look at it and approve it: bulkhead mcp pin {server}"
    return Failed("quarantined", message, hint)


def _connection_identity(declared: McpServer) -> tuple[object, ...]:
    return (declared.command, declared.env, declared.cwd, declared.headers, bool(declared.urls))
