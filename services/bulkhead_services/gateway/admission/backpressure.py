"""Backpressure per tenant: while many of its stored requests wait to be handled, its next one is delayed.

In: requests as they are stored, tasks of which a message was handled (by whichever replica). Out: a pause, never a
refusal. All tenants share one inbox: a tenant that writes faster than it is read would delay all others.
"""

import asyncio
from collections import OrderedDict

MOST = 8
PATIENCE_S = 1.0
"""The longest wait of a request, and the time for which a stored one counts without news of it: another replica's
notice may be lost, and a request that cannot be handled now (the signer is away) must not keep others out."""


class Backlog:
    """Open requests of this replica, by tenant and task, with the time at which each stops counting."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._open: dict[str, OrderedDict[str, float]] = {}
        self._changed = asyncio.Event()

    async def room(self, tenant: str) -> None:
        """Wait until the tenant has few enough open requests, or PATIENCE_S have passed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_S
        while self._count(tenant, loop.time()) >= self._most and loop.time() < until:
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), until - loop.time())
            except TimeoutError:
                return

    def stored(self, tenant: str, task: str) -> None:
        """Count a request that is being stored."""
        self._open.setdefault(tenant, OrderedDict())[task] = asyncio.get_running_loop().time() + PATIENCE_S

    def taken_up(self, tenant: str, task: str) -> None:
        """A message of the task was handled: its request no longer counts."""
        lying = self._open.get(tenant)
        if lying is None or lying.pop(task, None) is None:
            return
        if not lying:
            del self._open[tenant]
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _count(self, tenant: str, now: float) -> int:
        lying = self._open.get(tenant, OrderedDict())
        while lying and next(iter(lying.values())) <= now:
            lying.popitem(last=False)
        if not lying:
            self._open.pop(tenant, None)
        return len(lying)
