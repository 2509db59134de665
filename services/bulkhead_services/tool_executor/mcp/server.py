"""One MCP server: a call goes to its least loaded usable replica, and on to another where its effect allows.

Enters: a pinned tool with arguments. Leaves: an outcome. What was certainly not sent moves on in any case; what may
have been sent moves on where it reads or is idempotent, and is else told as unknown.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from bulkhead.runtime.background import cancel
from bulkhead.tools.api import Done, Effect, Failed
from bulkhead.tools.mcp_file import McpServer, McpTool
from bulkhead_services.tool_executor.mcp.answers import Gone
from bulkhead_services.tool_executor.mcp.replica import Replica

FIRST_S = 10.0
"""So long a call waits for the first replica of a server that has just been started."""
Place = tuple[str, int]
"""A replica's URL with 0, or "" with the number of its process."""


class Server:
    """The replicas of one server, for as long as its connection is declared as it is."""

    def __init__(self, name: str, declared: McpServer) -> None:
        self.name, self.declared = name, declared
        self._changed = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self.replicas: dict[Place, Replica] = {}
        self.update(declared)

    def update(self, declared: McpServer) -> None:
        """Add new replicas, drain those that are gone; all of them where they are connected to in another way."""
        wanted: set[Place] = {(url, 0) for url in declared.urls} or {("", n) for n in range(declared.replicas)}
        again = _connection(declared) != _connection(self.declared)
        for place in [one for one in self.replicas if again or one not in wanted]:
            self._retire(self.replicas.pop(place))
        self.declared = declared
        for place in sorted(wanted - set(self.replicas)):
            where = f"{self.name} {place[0] or f'process {place[1] + 1}'}"
            self.replicas[place] = Replica(declared, place[0], where, self._changed.set)

    def _retire(self, replica: Replica) -> None:
        replica.draining = True
        task = asyncio.create_task(replica.drain(), name=f"mcp drain {replica.where}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def drain(self) -> None:
        """Let the calls under way end; take no others."""
        for replica in self.replicas.values():
            self._retire(replica)
        self.replicas = {}

    async def close(self) -> None:
        """Close all sessions now."""
        await cancel(*self._closing)
        await asyncio.gather(*(one.close() for one in self.replicas.values()))

    def quarantined(self, tool: McpTool) -> bool:
        """Whether every replica that is connected tells the tool otherwise than it is pinned."""
        connected = [one for one in self.replicas.values() if one.digests]
        return bool(connected) and not any(one.has(tool.pin) for one in connected)

    def problem(self) -> str:
        """Why none of its replicas can be used; "" when one can."""
        if any(one.usable() for one in self.replicas.values()):
            return ""
        reasons = "; ".join(f"{one.where}: {one.why or 'its breaker is open'}" for one in self.replicas.values())
        return f"no replica of the MCP server {self.name} can be used ({reasons})"[:1000]

    async def call(self, tool: McpTool, arguments: Mapping[str, Any], key: str) -> Done | Failed:
        """One attempt, over as many replicas as its effect allows."""
        spec, tried = tool.row.spec, list[Replica]()
        again = tool.repeatable
        why, maybe = "", False
        await self._first()
        while (replica := self._pick(tool, tried)) is not None:
            tried.append(replica)
            said = await self._at(replica, tool, arguments, key, again and self._pick(tool, tried) is not None)
            if not isinstance(said, Gone):
                return said
            why, maybe = f"{replica.where}: {said.reason}", maybe or said.sent
            if said.sent and not again:
                what = f"the connection to {replica.where} was lost while {spec.name} ran: {said.reason}"
                return Failed("connection_lost", what, "look whether it was done", transient=True, effect="unknown")
        if not tried and self.quarantined(tool):
            return quarantined(self.name, tool)
        what = why or self.problem() or f"no replica of the MCP server {self.name} offers {tool.pin.tool} as pinned"
        effect: Effect = "unknown" if maybe else "none"
        hint = "try again later; its operator sees more with `bulkhead doctor`"
        return Failed("unavailable", what[:1500], hint, transient=True, effect=effect)

    async def _at(
        self, replica: Replica, tool: McpTool, arguments: Mapping[str, Any], key: str, may_leave: bool
    ) -> Done | Failed | Gone:
        """The call at one replica; left behind when that is lost and another may do it."""
        loop = asyncio.get_running_loop()
        replica.enter()
        began, work = loop.time(), asyncio.create_task(replica.call(tool, arguments, key))
        waiting: set[asyncio.Task[Any]] = {work}
        if may_leave:
            waiting.add(asyncio.create_task(replica.lost.wait()))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else Gone("it does not answer any more", sent=True)
        except asyncio.CancelledError:
            if loop.time() - began >= 0.9 * tool.row.spec.timeout_ms / 1000:
                replica.timed_out()
            raise
        finally:
            await cancel(*waiting)
            replica.leave()

    def _pick(self, tool: McpTool, tried: list[Replica]) -> Replica | None:
        able = [one for one in self.replicas.values() if one not in tried and one.usable() and one.has(tool.pin)]
        return min(able, key=lambda one: (one.in_flight, one.served), default=None)

    async def _first(self) -> None:
        """Wait for a replica of a server that nobody has reached yet."""
        loop = asyncio.get_running_loop()
        until = loop.time() + FIRST_S
        while self.replicas and not any(one.tried for one in self.replicas.values()) and loop.time() < until:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, until - loop.time()))
            except TimeoutError:
                return


def quarantined(server: str, tool: McpTool) -> Failed:
    """The refusal of a tool that is not what was pinned."""
    what = f"{tool.row.spec.name} is quarantined: the server {server} describes it otherwise than when it was pinned"
    hint = f"an operator must look at it and approve it: bulkhead mcp pin {server}"
    return Failed("quarantined", what, hint)


def _connection(declared: McpServer) -> tuple[object, ...]:
    return (declared.command, declared.env, declared.cwd, declared.headers, bool(declared.urls))
