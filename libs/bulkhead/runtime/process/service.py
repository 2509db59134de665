"""The assembly of a service: a component (deciders, doer or edge) with its inbox, requests and health. No vendor.

The same assembly runs in an own process (runtime/process/main.py) and in the in-memory mesh (testing/mesh.py).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bulkhead.flow import Decider
from bulkhead.runtime.background import cancel_tasks
from bulkhead.runtime.component import Component, Pool
from bulkhead.runtime.consume.loop import ConsumeLoop, MessageHandler
from bulkhead.runtime.context import Context
from bulkhead.runtime.decider.fold import FoldHandler
from bulkhead.runtime.doer.handler import DoerHandler
from bulkhead.runtime.doer.protocol import Doer
from bulkhead.runtime.edge.handler import EdgeHandler, RpcServer
from bulkhead.runtime.edge.protocol import EdgeComponent
from bulkhead.runtime.halts.live import Halts
from bulkhead.telemetry import names
from bulkhead.telemetry.metrics import ReadGauge
from bulkhead_contracts import catalog


class Service:
    """One running service."""

    def __init__(
        self,
        context: Context,
        component: Component | Mapping[int, Decider[Any]],
        *,
        shards: int = 1,
        slots: int = 64,
        drain_timeout_s: float = 10.0,
    ) -> None:
        self.context, self.component = context, component
        self._hooks = component if isinstance(component, Component) else Component()
        self._halts: Halts | None = None
        self.handler = self._handler_of(component)
        self.shell: ConsumeLoop | None = None
        if context.service in catalog.INBOXES:
            self.shell = ConsumeLoop(context, self.handler, shards=shards, slots=slots, drain_timeout_s=drain_timeout_s)
        self._stop_rpc: list[Callable[[], Awaitable[None]]] = []
        self._background: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    def _handler_of(self, component: Component | Mapping[int, Decider[Any]]) -> MessageHandler:
        if isinstance(component, Doer):
            self._halts = Halts(self.context.bus)
            return DoerHandler(self.context, component, self._halts)
        if isinstance(component, EdgeComponent):
            return EdgeHandler(component)
        assert isinstance(component, Mapping), f"{type(component).__name__} is no Doer, no Edge and no deciders"
        return FoldHandler(self.context, component)

    async def run(self) -> None:
        """Start, serve until `drain`, stop in the reverse order. Raises BackgroundFailed."""
        if self._halts is not None:
            await self._halts.load()
            start = self.context.background.start
            self._background.append(start("halts", self._halts.run()))
            assert isinstance(self.handler, DoerHandler)
            self._background.append(start("deferred calls", self.handler.deferred_calls.run()))
            self._background.append(start("reservations ahead", self.handler.reserver.give_back_periodically()))
        await self._hooks.start()
        try:
            if self._hooks.rpc:
                server = RpcServer(self.context, self._hooks.rpc, self._hooks.rpc_long_polls)
                stop = await self.context.bus.serve(
                    f"rpc.*.{self.context.service}.>",
                    self.context.service,
                    server.answer_request,
                    is_long_poll=server.is_long_poll,
                )
                self._stop_rpc.append(stop)
            await self.context.background.run_beside(
                self.shell.run() if self.shell is not None else self._stopping.wait()
            )
        finally:
            for stop in self._stop_rpc:
                await stop()
            await self._hooks.stop()
            await cancel_tasks(*self._background)
            if isinstance(self.handler, DoerHandler):
                await self.handler.reserver.give_back_unused(everything=True)

    def drain(self) -> None:
        """Take nothing new; `run` returns when what runs has ended."""
        self._stopping.set()
        self._hooks.drain()
        if self.shell is not None:
            self.shell.drain()

    def gauges(self) -> dict[str, ReadGauge]:
        """Gauges for metrics, by name: of a doer, what waits and why; and what the component adds."""
        gauges: dict[str, ReadGauge] = {}
        if self._halts is not None and isinstance(self.handler, DoerHandler):
            gauges = {
                names.PARKED: self.handler.deferred_calls.count_waiting,
                names.HALTS: self._halts.count_standing,
                names.BREAKERS: self._halts.count_open_breakers,
            }
        return gauges | self._hooks.gauges()

    def pools(self) -> dict[str, Pool]:
        """Places that bound its work, by kind: messages in hand, and what the component adds."""
        pools = {"messages": self.shell.pool()} if self.shell is not None else {}
        return pools | self._hooks.pools()

    def is_ready(self) -> bool:
        """Attached to its inbox, and the component agrees."""
        attached = self.shell.attached if self.shell is not None else True
        return attached and self._hooks.is_ready()

    def describe_problem(self) -> str:
        """Why the component cannot do its work although it runs; "" when it can."""
        return self._hooks.describe_problem()

    def describe_degradation(self) -> str:
        """Parts of the component that do not work while the rest goes on: what; what to do. "" when all work."""
        return self._hooks.describe_degradation()

    def details(self) -> dict[str, object]:
        """Further fields of `/readyz` from the component."""
        return self._hooks.details()
