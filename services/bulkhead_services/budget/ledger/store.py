"""The port to the ledger's store: a Redis server, or this process's memory.

In: operations on reservations and accounts. Out: the answers of `core`; one property test holds every store to it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from redis.exceptions import RedisError, ResponseError

from bulkhead_services.budget.ledger.model import (
    Balance,
    LedgerState,
    ReservationEntry,
    ReserveAnswer,
    Scope,
    SettlementResult,
    UnitSums,
)

RedisFailure = (RedisError, OSError, asyncio.TimeoutError)
"""Errors of a call on an absent, restarted or stalled Redis."""
RedisRefuses = ResponseError
"""Those of a Redis that answers and refuses: its disk or its memory is full."""


class Fenced(Exception):
    """The ledger that stands is not the one this process was told of: rebuilt by another, or gone."""


class UnsafeRedis(Exception):
    """This Redis may drop keys by itself; a ledger there would forget what was spent."""


LIMITS_READ_MS = 5_000
"""Time for which the limits that a replica has read are good; a stored change takes effect within it."""


QUICK_ADMISSION_S = 0.1
"""An admission whose fact is stored so soon after it was asked for needs no second look: see REBUILD_REST_S."""
REBUILD_REST_S = 0.3
"""So long a rebuild rests between the fence and its mark: whoever was admitted before the fence, and quickly, has its
fact in front of the mark, and so in the ledger that is built. Longer by far: clocks do not run alike."""


class LimitsRevision(NamedTuple):
    """Which limits of a tenant the scopes of an ask were made of."""

    tenant: str
    number: int


class LedgerStore(Protocol):
    """One process's view of the ledger. Operations raise Fenced or RedisFailure; see core for what they mean."""

    @property
    def epoch(self) -> str:
        """`<id> <server>`: the ledger that every operation must find; "" while there is none."""
        ...

    def adopt_epoch(self, epoch: str) -> None:
        """Use the ledger that another replica built."""
        ...

    def on_server_change(self, callback: Callable[[], None]) -> None:
        """Have this called when another server answers."""
        ...

    async def reserve(
        self,
        key: str,
        ask: UnitSums,
        scopes: Sequence[Scope],
        now_unix_ms: int,
        revision: LimitsRevision | None = None,
        margin: int = 0,
    ) -> ReserveAnswer:
        """See model.reserve. StaleLimits, and nothing held, unless the tenant's limits were looked at and are this
        one.
        """
        ...

    async def release(self, key: str) -> None: ...
    async def settle(self, key: str, usage: UnitSums, estimated: bool) -> SettlementResult: ...
    async def restore(self, key: str, ask: UnitSums, scopes: Sequence[Scope], at_unix_ms: int) -> SettlementResult: ...

    async def stop_scope(self, scope: str) -> Balance: ...

    async def read_balance(self, scope: str) -> Balance:
        """The amounts that an account holds and has spent; nothing of one that is not known."""
        ...

    async def is_held_or_settled(self, key: str) -> bool:
        """True when a reservation is held, or was and is settled, in the ledger that stands now."""
        ...

    async def record_limits_read(self, revision: LimitsRevision, now_unix_ms: int) -> bool:
        """A tenant's limits were read and are this revision; False when a later one is known."""
        ...

    async def reply_positions(self) -> Mapping[str, int]:
        """Positions up to which replies were applied to the ledger that stands, or that stood last, by edge; {} where
        they are forgotten."""
        ...

    async def move_reply_position(self, edge: str, sequence: int) -> None:
        """All settlements up to there are applied to the ledger that stands."""
        ...

    async def mark_replies_read(self, at_unix_ms: int) -> None:
        """All settlements in replies of before are applied to the ledger that stands."""
        ...

    async def connect(self) -> str:
        """Drop what was open, forget the epoch, name the server that answers now. Raises RedisFailure, UnsafeRedis."""
        ...

    async def current_epoch(self, server: str) -> str:
        """The epoch that stands, when it was built in this very server; "" otherwise."""
        ...

    async def lock_rebuild(self, token: str, lock_ms: int) -> bool:
        """Become the one that rebuilds, and fence every writer of the ledger before. False: another one does."""
        ...

    async def keep_rebuild_lock(self, token: str, lock_ms: int) -> bool:
        """Say that the rebuild goes on; False when the lock was lost."""
        ...

    async def unlock_rebuild(self, token: str) -> None:
        """Let another one try."""
        ...

    async def write_ledger(
        self, token: str, ledger: LedgerState, since_unix_ms: int, on_batch: Callable[[], Awaitable[None]]
    ) -> None:
        """Lay a folded ledger down where nobody reads it before `activate_ledger`; leave out what ended before."""
        ...

    async def activate_ledger(self, token: str, server: str, reply_positions: Mapping[str, int]) -> bool:
        """Make it the one that stands, to which replies are applied from these positions on; False when the lock was
        lost meanwhile."""
        ...

    async def delete_dead_ledgers(self) -> None:
        """Remove ledgers that can never stand again."""
        ...

    async def take_lead(self, role: str, holder: str, lease_ms: int) -> bool:
        """Become or stay the one replica that acts in a role; False while another one does. Raises RedisFailure."""
        ...

    async def resign_lead(self, role: str, holder: str) -> None:
        """Let another replica act in a role at once; nothing where another one does. Raises RedisFailure."""
        ...

    async def put_value(self, name: str, value: bytes) -> None:
        """Remember something small beside the ledger; it may be lost. Raises RedisFailure."""
        ...

    async def get_value(self, name: str) -> bytes:
        """The remembered value, or b"". Raises RedisFailure."""
        ...

    async def dump_ledger(self) -> tuple[dict[str, ReservationEntry], dict[str, Balance]]:
        """Everything in the ledger that stands: for tests and for people who look into it."""
        ...

    async def close(self) -> None: ...
