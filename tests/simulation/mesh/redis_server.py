"""A Redis that can fail, forget, fail over, and do late what nobody waits for any more.

In: ledger calls of every replica of budget. Out: answers and misbehaviour as the chaos says.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout

from bulkhead_services.budget.ledger import memory_store, model
from bulkhead_services.budget.ledger.memory_store import LimitReads
from bulkhead_services.budget.ledger.model import (
    Balance,
    LedgerState,
    ReservationEntry,
    ReserveAnswer,
    Scope,
    SettlementResult,
    UnitSums,
)
from bulkhead_services.budget.ledger.store import Fenced, LimitsRevision
from tests.simulation.mesh.chaos import Chaos

T = TypeVar("T")

TIMEOUT_S = 1.0
"""So long budget waits for Redis."""


class SimulatedRedis:
    """One Redis for all replicas of budget. It can fail, forget all, and fail over to an older copy of itself."""

    def __init__(self, chaos: Chaos, lease_ms: int) -> None:
        self.chaos, self.lease_ms = chaos, lease_ms
        self.server = 1
        self.clear()

    def clear(self) -> None:
        """An empty server under a new run id."""
        self.server += 1
        self.ledger = LedgerState(self.lease_ms)
        self.stands = ""
        self.lock = ""
        self.lock_until_s = 0.0
        self.written: dict[str, LedgerState] = {}
        self.leaders: dict[str, tuple[str, float]] = {}
        self.kept: dict[str, bytes] = {}
        self.looks: LimitReads = {}
        self.reply_positions: dict[str, int] = {}

    def view(self) -> "RedisView":
        """One process's connection."""
        return RedisView(self)


class RedisView:
    """bulkhead_services.budget.ledger.store.LedgerStore over a SimulatedRedis: every call may fail before or after
    it took
    effect."""

    def __init__(self, redis: SimulatedRedis) -> None:
        self._redis = redis
        self._server = 0
        self.epoch = ""
        self._on_change: Callable[[], None] = lambda: None

    def adopt_epoch(self, epoch: str) -> None:
        self.epoch = epoch

    def on_server_change(self, call: Callable[[], None]) -> None:
        self._on_change = call

    async def _call(self, name: str, act: Callable[[], T]) -> T:
        redis = self._redis
        if redis.chaos.strikes("redis_forgets", f"redis:{name}") is not None:
            redis.clear()
        if redis.chaos.strikes("redis_fails_over", f"redis:{name}") is not None:
            # A replica takes over with what it has; its run id is another, so nothing of it may be believed.
            redis.server += 1
        await asyncio.sleep(0.001)
        if redis.chaos.pauses("pause", f"redis:{name}"):
            await asyncio.sleep(0)
        if (late := redis.chaos.strikes("redis_late", f"redis:{name}")) is not None:
            await self._too_late(name, act, late * 6)
        how = redis.chaos.strikes("redis_fails", f"redis:{name}")
        if how is not None and how < 0.5:
            raise RedisConnectionError("connection reset by peer")
        if self._server != redis.server and name != "connect":
            self._on_change()
            raise RedisConnectionError("another server answers")
        value = act()
        await asyncio.sleep(0.001)
        if redis.chaos.pauses("pause", f"redis:{name} done"):
            await asyncio.sleep(0)
        if how is not None:
            raise RedisConnectionError("connection reset by peer")
        return value

    async def _too_late(self, name: str, act: Callable[[], object], by_s: float) -> None:
        """It stands still: who asks gives up, and what lies there is done all the same when it goes on."""
        redis, server, epoch = self._redis, self._server, self.epoch

        def at_last() -> None:
            mine, self.epoch = self.epoch, epoch
            try:
                if server == redis.server and name != "lock":  # Its second half is not sent any more.
                    act()
            except Fenced:
                pass
            finally:
                self.epoch = mine

        asyncio.get_running_loop().call_later(by_s, at_last)
        await asyncio.sleep(min(by_s, TIMEOUT_S) + 0.001)
        raise RedisTimeout("Timeout reading from socket")

    def _standing(self) -> LedgerState:
        if not self.epoch or self.epoch != self._redis.stands:
            raise Fenced("no ledger has been built, or it was built anew")
        return self._redis.ledger

    async def reserve(
        self,
        key: str,
        ask: UnitSums,
        scopes: Sequence[Scope],
        now_unix_ms: int,
        revision: LimitsRevision | None = None,
        margin: int = 0,
    ) -> ReserveAnswer:
        def act() -> ReserveAnswer:
            ledger = self._standing()
            old = memory_store.stale_limits(self._redis.looks, revision, now_unix_ms)
            return old if old is not None else model.reserve(ledger, key, ask, tuple(scopes), now_unix_ms, margin)

        return await self._call("reserve", act)

    async def is_held_or_settled(self, key: str) -> bool:
        return await self._call("holds", lambda: model.is_held_or_settled(self._standing(), key))

    async def read_balance(self, scope: str) -> Balance:
        return await self._call("balance", lambda: self._standing().balances.get(scope, Balance()))

    async def stop_scope(self, scope: str) -> Balance:
        return await self._call("stop", lambda: model.stop_scope(self._standing(), scope))

    async def record_limits_read(self, revision: LimitsRevision, now_unix_ms: int) -> bool:
        def act() -> bool:
            self._standing()
            return memory_store.record_read(self._redis.looks, revision, now_unix_ms)

        return await self._call("look", act)

    async def release(self, key: str) -> None:
        await self._call("release", lambda: model.release(self._standing(), key))

    async def settle(self, key: str, usage: UnitSums, estimated: bool) -> SettlementResult:
        return await self._call("settle", lambda: model.settle(self._standing(), key, usage, estimated))

    async def restore(self, key: str, ask: UnitSums, scopes: Sequence[Scope], at_unix_ms: int) -> SettlementResult:
        return await self._call("restore", lambda: model.restore(self._standing(), key, ask, tuple(scopes), at_unix_ms))

    async def reply_positions(self) -> Mapping[str, int]:
        return await self._call("positions", lambda: dict(self._redis.reply_positions))

    async def move_reply_position(self, edge: str, sequence: int) -> None:
        def act() -> None:
            self._standing()
            if sequence > self._redis.reply_positions.get(edge, 0):
                self._redis.reply_positions[edge] = sequence

        await self._call("position", act)

    async def mark_replies_read(self, at_unix_ms: int) -> None:
        def act() -> None:
            self._standing().read_unix_ms = max(self._standing().read_unix_ms, at_unix_ms)

        await self._call("read", act)

    async def still(self, epoch: str) -> bool:
        return await self._call("still", lambda: self._redis.stands == epoch)

    async def connect(self) -> str:
        self.epoch = ""
        self._server = await self._call("connect", lambda: self._redis.server)
        return f"server-{self._server}"

    async def current_epoch(self, server: str) -> str:
        stands = await self._call("current", lambda: self._redis.stands)
        return stands if stands.endswith(f" {server}") else ""

    async def lock_rebuild(self, token: str, lock_ms: int) -> bool:
        return await self._call("lock", lambda: self._lock(token, lock_ms))

    def _lock(self, token: str, lock_ms: int) -> bool:
        now = asyncio.get_running_loop().time()
        if self._redis.lock not in ("", token) and now < self._redis.lock_until_s:
            return False
        self._redis.lock, self._redis.stands = token, ""
        self._redis.lock_until_s = now + lock_ms / 1000
        return True

    async def keep_rebuild_lock(self, token: str, lock_ms: int) -> bool:
        return await self._call("keep_lock", lambda: self._redis.lock == token and self._lock(token, lock_ms))

    async def unlock_rebuild(self, token: str) -> None:
        def act() -> None:
            if self._redis.lock == token:
                self._redis.lock = ""

        await self._call("unlock", act)

    async def write_ledger(
        self, token: str, ledger: LedgerState, since_unix_ms: int, on_batch: Callable[[], Awaitable[None]]
    ) -> None:
        def act() -> None:
            self._redis.written[token] = ledger

        await self._call("write", act)
        await on_batch()

    async def activate_ledger(self, token: str, server: str, reply_positions: Mapping[str, int]) -> bool:
        def act() -> bool:
            if self._redis.lock != token or token not in self._redis.written:
                return False
            self._redis.ledger, self._redis.lock = self._redis.written.pop(token), ""
            self._redis.stands = f"{token} {server}"
            self._redis.reply_positions = dict(reply_positions)
            return True

        done = await self._call("switch", act)
        if done:
            self.epoch = f"{token} {server}"
        return done

    async def delete_dead_ledgers(self) -> None:
        """Nothing is left over."""

    async def take_lead(self, role: str, holder: str, lease_ms: int) -> bool:
        def act() -> bool:
            now = asyncio.get_running_loop().time()
            other, until_s = self._redis.leaders.get(role, ("", 0.0))
            if other not in ("", holder) and now < until_s:
                return False
            self._redis.leaders[role] = (holder, now + lease_ms / 1000)
            return True

        return await self._call("lead", act)

    async def resign_lead(self, role: str, holder: str) -> None:
        def act() -> None:
            if self._redis.leaders.get(role, ("", 0.0))[0] == holder:
                del self._redis.leaders[role]

        await self._call("resign", act)

    async def put_value(self, name: str, value: bytes) -> None:
        await self._call("keep", lambda: self._redis.kept.update({name: value}))

    async def get_value(self, name: str) -> bytes:
        return await self._call("kept", lambda: self._redis.kept.get(name, b""))

    async def dump_ledger(self) -> tuple[dict[str, ReservationEntry], dict[str, Balance]]:
        return dict(self._standing().entries), dict(self._standing().balances)

    async def close(self) -> None:
        """Nothing is open."""
