"""Durable writes for a caller who waits over HTTP: bounded in time, and remembered while the broker stores nothing.

In: writes of HTTP requests. Out: the broker's answer, or BusUnavailable within a few seconds; why the gateway is not
ready. A broker whose disk is full answers reads and leaves every publish unanswered, and the runtime's publisher is
patient, because most messages have nobody waiting for them.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from bulkhead.bus.port import BusError, BusUnavailable, PublishRefused
from bulkhead.runtime.context import Context
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects

log = Log("gateway.durable_writes")
WRITE_TIMEOUT_S = 4.0
FAILING_TIMEOUT_S = 1.0
"""The same while writes are known to fail: a client tries again several times, and a person waits for all of them."""
CHECK_S = 2.0
CHECK_TENANT = "places"
T = TypeVar("T")

assert CHECK_TENANT in subjects.RESERVED_TENANTS


class DurableWrites:
    """The writes of one replica, and whether they fail."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._failing = asyncio.Event()
        self._reason = ""

    def failure_reason(self) -> str:
        """The reason why nothing can be stored now; "" while writes succeed."""
        return f"the message broker stores nothing: {self._reason}" if self._failing.is_set() else ""

    async def write_within(self, write: Awaitable[T], timeout_s: float = WRITE_TIMEOUT_S) -> T:
        """The result of a write. Raises what it raises, and BusUnavailable when it takes too long: the outcome is
        unknown then, and a repeat with the same ids is harmless."""
        timeout_s = min(timeout_s, FAILING_TIMEOUT_S) if self._failing.is_set() else timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                result = await write
        except TimeoutError as error:
            raise self._record_failure(BusUnavailable(f"a write was not confirmed within {timeout_s:g} s")) from error
        except (BusUnavailable, PublishRefused) as error:
            raise self._record_failure(error) from None
        self._failing.clear()
        return result

    def _record_failure(self, error: BusError) -> BusError:
        self._reason = str(error)
        if not self._failing.is_set():
            log.warning("writes_fail", reason=self._reason)
        self._failing.set()
        return error

    async def run(self) -> None:
        """While writes fail, try one now and then, until cancelled: an unready gateway may get no other to try."""
        while True:
            await self._failing.wait()
            await asyncio.sleep(CHECK_S)
            content = f"write check {self._context.instance} {self._context.clock()}"
            while self._failing.is_set():
                try:
                    # The same content again: an outage leaves one small blob, however long it lasts.
                    await self.write_within(self._context.blobs.put(CHECK_TENANT, content, summary=""))
                    log.info("writes_succeed_again")
                except BusError:
                    await asyncio.sleep(CHECK_S)
