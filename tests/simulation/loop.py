"""An event loop whose time is virtual: when nothing is ready it jumps to what is due next. No sockets, no threads.

In: coroutines. Out: the same run for the same coroutines, however fast or loaded the machine is.
"""

import asyncio
import heapq
import selectors
from collections.abc import Callable, Mapping
from typing import Any

from bulkhead.bus.clock import Cancel


class Stuck(RuntimeError):
    """Everybody waits and nothing is due: the run can never go on."""


class _Idle(selectors.BaseSelector):
    """Watches no file; waiting is a jump in time."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("every coroutine waits and no timer is set")
        if timeout > 0:
            self._jump(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class SimulationLoop(asyncio.SelectorEventLoop):
    """Virtual seconds from 0; work for threads is done in place."""

    def __init__(self) -> None:
        self._virtual_s = 0.0
        super().__init__(_Idle(self._jump))

    def _jump(self, by_s: float) -> None:
        self._virtual_s += by_s

    # The three below are asyncio's, less what only real time, files, threads and debugging need: a tenth of a run.

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        """See asyncio."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """See asyncio."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, handle)  # type: ignore[has-type]
        handle._scheduled = True  # type: ignore[attr-defined]
        return handle

    def _run_once(self) -> None:
        self._forget_cancelled()
        scheduled, ready = self._scheduled, self._ready  # type: ignore[attr-defined, has-type]
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            if not scheduled:
                raise Stuck("every coroutine waits and no timer is set")
            self._virtual_s += max(0, scheduled[0]._when - self._virtual_s)
        until = self._virtual_s + self._clock_resolution  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._when < until:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _forget_cancelled(self) -> None:
        """At the head; everywhere when they are the most."""
        scheduled = self._scheduled  # type: ignore[has-type]
        if len(scheduled) > 100 and self._timer_cancelled_count / len(scheduled) > 0.5:  # type: ignore[has-type]
            for handle in scheduled:
                handle._scheduled = not handle._cancelled
            self._scheduled = [handle for handle in scheduled if not handle._cancelled]
            heapq.heapify(self._scheduled)
            self._timer_cancelled_count = 0
            return
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._virtual_s

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":  # type: ignore[override]
        """In place: a thread would bring the machine's time in."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class LoopClock:
    """The clock of the broker and the services (bus.clock.Clock): the loop's time, from a start in unix ms."""

    def __init__(self, loop: SimulationLoop, start_ms: int) -> None:
        self._loop, self._start_ms = loop, start_ms

    def now_ms(self) -> int:
        """See Clock."""
        return self._start_ms + int(self._loop.time() * 1000)

    def call_at(self, when_ms: int, callback: Callable[[], None]) -> Cancel:
        """See Clock."""
        return self._loop.call_later(max(0, when_ms - self.now_ms()) / 1000, callback).cancel
