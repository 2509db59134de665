"""The broker's clock: deadlines, grants and days are judged alike on every machine.

In: a way to ask the broker its time. Out: unix milliseconds that go on by this machine's monotonic clock between two
questions, so that a clock that is wrong, or is set while the service runs, changes nothing but what is reported of it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from bulkhead.bus.port import BusError
from bulkhead.runtime.context import unix_ms
from bulkhead.telemetry.log import Log

log = Log("clock")

ASK_EVERY_S = 30.0
SAMPLES = 3
ROUND_TRIP_MAX_MS = 1_000
"""An answer that took longer tells the time too roughly to be believed."""
DIFFERENCE_MAX_MS = 2_000
"""From here on this machine's clock is called wrong."""
HINT = "set the clocks of all machines by NTP"


class BrokerClock:
    """`measure` once before it is used, then `follow_broker`. Until the broker has answered, this machine's
    clock counts.
    """

    def __init__(
        self,
        ask_broker: Callable[[], Awaitable[int]],
        *,
        wall: Callable[[], int] = unix_ms,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """ask_broker: the broker's time in unix milliseconds; raises BusError."""
        self._ask_broker, self._wall, self._monotonic_ns = ask_broker, wall, monotonic_ns
        self._began_ns, self._base_ms = monotonic_ns(), wall()
        self._last_problem = ""
        self.measured = False

    def now_ms(self) -> int:
        """The broker's time now."""
        return self._base_ms + (self._monotonic_ns() - self._began_ns) // 1_000_000

    @property
    def ahead_ms(self) -> int:
        """Lead of this machine's clock over the broker's; negative: it is behind."""
        return self._wall() - self.now_ms()

    def describe_problem(self) -> str:
        """Complaint about this machine's clock; "" when it is right, or cannot be judged."""
        ahead_s = self.ahead_ms / 1000
        if not self.measured or abs(ahead_s) * 1000 <= DIFFERENCE_MAX_MS:
            return ""
        way = "ahead of" if ahead_s > 0 else "behind"
        return f"the clock of this machine is {abs(ahead_s):.0f} s {way} the broker's, whose time is used; {HINT}"

    async def measure(self) -> None:
        """Ask the broker a few times; the quickest answer is the most exact. Without an answer all stays as it was."""
        best: tuple[int, int, int] | None = None
        for _ in range(SAMPLES):
            asked_ns = self._monotonic_ns()
            try:
                broker_unix_ms = await self._ask_broker()
            except BusError as error:
                log.debug("time_not_told", reason=str(error))
                break
            answered_ns = self._monotonic_ns()
            took_ns = answered_ns - asked_ns
            if best is None or took_ns < best[0]:
                best = (took_ns, answered_ns, broker_unix_ms + took_ns // 2_000_000)
        if best is not None and best[0] <= ROUND_TRIP_MAX_MS * 1_000_000:
            _, self._began_ns, self._base_ms = best
            self.measured = True
        self._log_change()

    async def follow_broker(self) -> None:
        """Measure for ever."""
        while True:
            await asyncio.sleep(ASK_EVERY_S)
            await self.measure()

    def _log_change(self) -> None:
        problem = self.describe_problem()
        if problem and not self._last_problem:
            log.warning("clock_differs", reason=problem)
        elif self._last_problem and not problem:
            log.info("clock_agrees")
        self._last_problem = problem
