"""Reservations that the ledger may hold although nobody was told so: an answer of Redis or of the journal was lost.

In: attempts that ended by an error. Out: the ledger without those that have no fact in the journal once their asker has
given up. The asker may end before it settles such a reservation, so nobody else would ever release it.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from bulkhead.bus.port import Bus, BusError
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.telemetry.log import Log
from bulkhead_contracts.budget import Reserved
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.fact_lookup import find_fact
from bulkhead_services.budget.ledger.rebuild import LedgerKeeper
from bulkhead_services.budget.ledger.store import Fenced, LedgerStore, RedisFailure

log = Log("budget")

DOUBT_S = 30.0
"""Twice as long as a doer asks for one reservation (its patience and its requests' timeouts, 12 s at most): the fact of
every reservation that a doer was told of is in the journal by then."""
MAX_KEYS = 50_000
"""Reservations that are remembered; one that is forgotten counts as spent when its lease ends, and never as free."""


class UncertainAttempt(NamedTuple):
    """One try to hold a reservation. failed_s: by the loop's clock. failed_unix_ms: by the service's."""

    failed_s: float
    failed_unix_ms: int
    message: ReceivedMessage
    reservation_id: str


class UncertainHolds:
    """Attempts of this replica whose outcome is unknown, by ledger key."""

    def __init__(self, bus: Bus, store: LedgerStore, keeper: LedgerKeeper, clock: Callable[[], int]) -> None:
        self._bus, self._store, self._keeper, self._clock = bus, store, keeper, clock
        self.attempts: dict[str, list[UncertainAttempt]] = {}

    def add_attempt(self, key: str, message: ReceivedMessage, reservation_id: str) -> None:
        """Remember an attempt that has just failed and may hold the reservation."""
        attempt = UncertainAttempt(asyncio.get_running_loop().time(), self._clock(), message, reservation_id)
        self.attempts.setdefault(key, []).append(attempt)
        if len(self.attempts) > MAX_KEYS:
            del self.attempts[next(iter(self.attempts))]

    async def release_due(self) -> None:
        """Release what may be held and has no fact although its time is over. A failure leaves it for the next time."""
        for key, attempts in list(self.attempts.items()):
            # By the loop's clock: the other one may be set, and the asker may have no fact yet.
            if asyncio.get_running_loop().time() - attempts[-1].failed_s < DOUBT_S or not self._keeper.epoch:
                continue
            try:
                await self._release_unrecorded(key, attempts)
            except (BusError, Fenced, *RedisFailure) as error:
                log.debug("doubt_stays", key=key, reason=str(error))
                continue
            if self.attempts.get(key) is attempts:
                del self.attempts[key]

    async def _release_unrecorded(self, key: str, attempts: list[UncertainAttempt]) -> None:
        """Raises BusError, Fenced, RedisFailure."""
        if await self._find_stored_fact(attempts) is not None:
            return
        # Each attempt may hold it: as many let go.
        for _ in attempts:
            await self._store.release(key)
        # An admission that took long, here or in another replica, may have its fact just now.
        if (fact := await self._find_stored_fact(attempts)) is not None:
            scopes = model.scopes_from((*fact.scopes, *fact.more_scopes))
            await self._store.restore(key, model.sum_of(fact.amount), scopes, fact.reserved_unix_ms)

    async def _find_stored_fact(self, attempts: list[UncertainAttempt]) -> Reserved | None:
        first, message = attempts[0], attempts[0].message
        return await find_fact(
            self._bus, message.tenant, message.task, message.sender, first.reservation_id, first.failed_unix_ms
        )
