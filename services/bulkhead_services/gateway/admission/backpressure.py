"""Requests of a tenant that are stored and not taken up yet: while there are many, its next one waits at the door.

In: requests as they are stored, tasks of which a message was handled (by whichever replica). Out: a pause, never a
refusal. The inbox is one line for everybody: who writes faster than it is read makes all others stand behind him.
"""

import asyncio
from collections import OrderedDict

MOST = 8
PATIENCE_S = 1.0
"""So long a request waits, and so long one counts of which nothing was heard: another replica's word may be lost, and
what cannot be handled now (the signer is away) must not keep others out."""


class Backlog:
    """Of this replica's requests, by tenant and task, with the time at which they stop counting."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._open: dict[str, OrderedDict[str, float]] = {}
        self._changed = asyncio.Event()

    async def room(self, tenant: str) -> None:
        """Wait until few enough of the tenant's requests lie there, or long enough."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_S
        while self._count(tenant, loop.time()) >= self._most and loop.time() < until:
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), until - loop.time())
            except TimeoutError:
                return

    def stored(self, tenant: str, task: str) -> None:
        """One more."""
        self._open.setdefault(tenant, OrderedDict())[task] = asyncio.get_running_loop().time() + PATIENCE_S

    def taken_up(self, tenant: str, task: str) -> None:
        """A message of the task was handled."""
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
