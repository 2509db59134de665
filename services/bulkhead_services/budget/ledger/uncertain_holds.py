"""Reservations that the ledger may hold although nobody was told so: an answer of Redis or of the journal was lost.

In: attempts that ended by an error. Out: the ledger without those that have no fact in the journal once their asker has
given up. The asker may end before it settles such a reservation, so nobody else would ever release it.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

from bulkhead.bus.port import Bus, BusError
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.telemetry.log import Log
from bulkhead_contracts.budget import Reserved
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.fact_lookup import find_facts
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
        for keys in self._keys_by_task():
            # By the loop's clock: the other one may be set, and the asker may have no fact yet.
            due_s = asyncio.get_running_loop().time() - DOUBT_S
            due = {key: self.attempts[key] for key in keys if key in self.attempts}
            due = {key: attempts for key, attempts in due.items() if attempts[-1].failed_s <= due_s}
            if not due or not self._keeper.epoch:
                continue
            try:
                await self._release_unrecorded(due)
            except (BusError, Fenced, *RedisFailure) as error:
                log.debug("doubt_stays", keys=",".join(due), reason=str(error))
                continue
            for key, attempts in due.items():
                if self.attempts.get(key) is attempts:
                    del self.attempts[key]

    def _keys_by_task(self) -> list[list[str]]:
        """Keys of a task and a doer together: the journal is looked through once for all of them."""
        groups: dict[tuple[str, str, str], list[str]] = {}
        for key, attempts in self.attempts.items():
            message = attempts[0].message
            groups.setdefault((message.tenant, message.task, message.sender), []).append(key)
        return list(groups.values())

    async def _release_unrecorded(self, due: Mapping[str, list[UncertainAttempt]]) -> None:
        """Release those of one task and doer that have no fact. Raises BusError, Fenced, RedisFailure."""
        recorded = await self._find_stored_facts(due)
        unrecorded = {key: attempts for key, attempts in due.items() if attempts[0].reservation_id not in recorded}
        for key, attempts in unrecorded.items():
            # Each attempt may hold it: as many let go.
            for _ in attempts:
                await self._store.release(key)
        # An admission that took long, here or in another replica, may have its fact just now.
        late = await self._find_stored_facts(unrecorded) if unrecorded else {}
        for key, attempts in unrecorded.items():
            if (fact := late.get(attempts[0].reservation_id)) is not None:
                scopes = model.scopes_from((*fact.scopes, *fact.more_scopes))
                await self._store.restore(key, model.sum_of(fact.amount), scopes, fact.reserved_unix_ms)

    async def _find_stored_facts(self, due: Mapping[str, list[UncertainAttempt]]) -> dict[str, Reserved]:
        firsts = [attempts[0] for attempts in due.values()]
        message, since = firsts[0].message, min(first.failed_unix_ms for first in firsts)
        ids = {first.reservation_id for first in firsts}
        return await find_facts(self._bus, message.tenant, message.task, message.sender, ids, since)
