"""An event loop whose time is virtual: when nothing is ready it jumps to what is due next. No sockets, no threads.

In: coroutines. Out: the same run for the same coroutines, however fast or loaded the machine is.
"""

import asyncio
import selectors
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar, copy_context
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Any

from bulkhead.bus.memory.clock import Cancel


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


WHO: ContextVar[str] = ContextVar("who")
"""The replica in whose process this runs."""


class Soon:
    """Something to be called; asyncio.Handle without its debugging. The loop makes it, without a call."""

    __slots__ = ("args", "callback", "context", "over")
    callback: Callable[..., object]
    args: tuple[Any, ...]
    context: Context
    over: bool

    def cancel(self) -> None:
        """It is not called."""
        self.over, self.callback, self.args = True, _nothing, ()

    def cancelled(self) -> bool:
        """Whether it is not called."""
        return self.over


class Later(Soon):
    """Something to be called at a time. Which of two at one time comes first is the heap's choice, as in asyncio."""

    __slots__ = ("_loop", "_when", "waits")
    _loop: "SimulationLoop"
    _when: float
    waits: bool

    def __lt__(self, other: object) -> bool:
        return False

    def cancel(self) -> None:
        """It is not called."""
        if not self.over:
            if self.waits:
                self._loop._timer_cancelled_count += 1
            self.over, self.callback, self.args = True, _nothing, ()

    def when(self) -> float:
        """See asyncio.TimerHandle."""
        return self._when


def _nothing() -> None: ...


_new = object.__new__


class SimulationLoop(asyncio.SelectorEventLoop):
    """Virtual seconds from 0; work for threads is done in place. Who stands still: see `stand_still`."""

    _timer_cancelled_count: int
    _ready: deque[Soon]
    _scheduled: list[tuple[float, Later]]
    _clock_resolution: float
    _stopping: bool

    def __init__(self) -> None:
        self._virtual_s = 0.0
        self._patience_s = float("inf")
        self._give_up = _nothing
        self._standing: dict[str, list[Soon]] = {}
        super().__init__(_Idle(self._jump))
        self.create_future = partial(asyncio.Future, loop=self)  # type: ignore[method-assign]

    def _jump(self, by_s: float) -> None:
        self._virtual_s += by_s

    def have_patience(self, until_s: float, give_up: Callable[[], None]) -> None:
        """What is called when it is later than that. No timer: which of two at one time comes first stays as it was."""
        self._patience_s, self._give_up = until_s, give_up

    def stand_still(self, who: str) -> None:
        """Nothing in the contexts of this one is called until it goes on: as a process that is stopped, or a machine
        that is. What comes for it meanwhile lies there, and its timers are late."""
        self._standing.setdefault(who, [])

    def go_on(self, who: str) -> None:
        """It is called in its order, what was to be called meanwhile."""
        self._ready.extend(self._standing.pop(who, ()))

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> "asyncio.Task[Any]":
        """See asyncio. A context of its own is in the same process all the same."""
        if context is not None and WHO not in context and (who := WHO.get("")):
            context.run(WHO.set, who)
        return asyncio.Task(coro, loop=self, name=name, context=context)

    # The rest is asyncio's, less what only real time, files, threads and debugging need: a quarter of a run.

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> "Soon":  # type: ignore[override]
        """See asyncio."""
        handle = _new(Soon)
        handle.callback, handle.args, handle.over = callback, args, False
        handle.context = copy_context() if context is None else context
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> "Soon":  # type: ignore[override]
        """See asyncio, which calls it for an async generator that is let go before its end. There is one thread."""
        return self.call_soon(callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> "Later":  # type: ignore[override]
        """See asyncio."""
        handle = _new(Later)
        handle.callback, handle.args, handle.over = callback, args, False
        handle.context = copy_context() if context is None else context
        handle._when, handle._loop, handle.waits = when, self, True
        heappush(self._scheduled, (when, handle))
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> "Later":  # type: ignore[override]
        """See asyncio."""
        when, handle = self._virtual_s + delay, _new(Later)
        handle.callback, handle.args, handle.over = callback, args, False
        handle.context = copy_context() if context is None else context
        handle._when, handle._loop, handle.waits = when, self, True
        heappush(self._scheduled, (when, handle))
        return handle

    def _run_once(self) -> None:
        """Until it is stopped: asyncio would look in between whether it is."""
        ready, resolution_s = self._ready, self._clock_resolution
        popleft, standing = ready.popleft, self._standing
        while True:
            scheduled = self._scheduled
            if scheduled and (scheduled[0][1].over or self._timer_cancelled_count * 2 > len(scheduled) > 100):
                self._forget_cancelled()
                scheduled = self._scheduled
            if not ready:
                if not scheduled:
                    raise Stuck("every coroutine waits and no timer is set")
                if scheduled[0][0] > self._virtual_s:
                    self._virtual_s += scheduled[0][0] - self._virtual_s
                    if self._virtual_s > self._patience_s:
                        self._patience_s = float("inf")
                        self._give_up()
            until = self._virtual_s + resolution_s
            while scheduled and scheduled[0][0] < until:
                when_s, timer = heappop(scheduled)
                if when_s > self._virtual_s:
                    self._virtual_s = when_s  # Or who waits for the rest of a nanosecond waits for ever.
                timer.waits = False
                ready.append(timer)
            for _ in range(len(ready)):
                handle = popleft()
                if not handle.over:
                    if standing and (still := standing.get(handle.context.get(WHO, ""))) is not None:
                        still.append(handle)
                        continue
                    try:
                        if args := handle.args:
                            handle.context.run(handle.callback, *args)
                        else:
                            handle.context.run(handle.callback)
                    except (SystemExit, KeyboardInterrupt):
                        raise
                    except BaseException as error:
                        self.call_exception_handler({"message": f"in {handle.callback!r}", "exception": error})
            if self._stopping:
                return

    def _forget_cancelled(self) -> None:
        """At the head; everywhere when they are the most."""
        scheduled = self._scheduled
        if len(scheduled) > 100 and self._timer_cancelled_count / len(scheduled) > 0.5:
            self._scheduled = [one for one in scheduled if not one[1].over]
            heapify(self._scheduled)
            self._timer_cancelled_count = 0
            return
        while scheduled and scheduled[0][1].over:
            self._timer_cancelled_count -= 1
            heappop(scheduled)[1].waits = False

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
    """The clock of the broker and the services (bulkhead.bus.memory.clock.Clock): the loop's, from a start on."""

    def __init__(self, loop: SimulationLoop, start_ms: int) -> None:
        self._loop, self._start_ms = loop, start_ms

    def now_ms(self) -> int:
        """See Clock."""
        return self._start_ms + int(self._loop._virtual_s * 1000)

    def call_at(self, when_ms: int, callback: Callable[[], None]) -> Cancel:
        """See Clock."""
        loop = self._loop
        now_s = loop._virtual_s
        return loop.call_later(max(0, when_ms - self._start_ms - int(now_s * 1000)) / 1000, callback).cancel
