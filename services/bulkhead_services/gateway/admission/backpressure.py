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


class OpenRequests:
    """Open requests of this replica, by tenant and task, with the time at which each stops counting."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._open: dict[str, OrderedDict[str, float]] = {}
        self._changed = asyncio.Event()

    async def wait_for_room(self, tenant: str) -> None:
        """Wait until the tenant has few enough open requests, or PATIENCE_S have passed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_S
        while self._count_open(tenant, loop.time()) >= self._most and loop.time() < until:
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), until - loop.time())
            except TimeoutError:
                return

    def add_request(self, tenant: str, task: str) -> None:
        """Count a request that is being stored."""
        self._open.setdefault(tenant, OrderedDict())[task] = asyncio.get_running_loop().time() + PATIENCE_S

    def discard_request(self, tenant: str, task: str) -> None:
        """A message of the task was handled: its request no longer counts."""
        tenant_requests = self._open.get(tenant)
        if tenant_requests is None or tenant_requests.pop(task, None) is None:
            return
        if not tenant_requests:
            del self._open[tenant]
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _count_open(self, tenant: str, now: float) -> int:
        tenant_requests = self._open.get(tenant, OrderedDict())
        while tenant_requests and next(iter(tenant_requests.values())) <= now:
            tenant_requests.popitem(last=False)
        if not tenant_requests:
            self._open.pop(tenant, None)
        return len(tenant_requests)
