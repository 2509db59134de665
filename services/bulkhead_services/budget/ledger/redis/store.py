"""The Redis side of the ledger: Lua calls, fenced by an epoch, on a server that proves who it is.

In: keys, sums, scopes. Out: the answers of `core`, `Fenced` when the ledger there is not the one that was built,
or a RedisError. Nothing here decides.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError

from bulkhead_services.budget.ledger.account_cache import CachedScopes
from bulkhead_services.budget.ledger.model import (
    Balance,
    LedgerState,
    ReservationConflict,
    ReservationDenied,
    ReservationEntry,
    ReservationHeld,
    ReservationStopped,
    ReservationWaiting,
    ReserveAnswer,
    Scope,
    SettlementResult,
    StaleLimits,
    UnitSums,
    scopes_from_json,
    scopes_json,
)
from bulkhead_services.budget.ledger.redis.codec import (
    format_sum,
    hash_fields,
    info_value,
    pack_balance,
    parse_balance,
    parse_ceiling,
    parse_entry,
    parse_settlement,
    parse_sum,
    unpack_balance,
)
from bulkhead_services.budget.ledger.redis.pipeline import AT_ONCE, OperationBatcher, OperationWords
from bulkhead_services.budget.ledger.redis.scripts import FENCE, KEEP_LOCK, LEAD, LEDGER, SWITCH, UNLOCK, WRITE
from bulkhead_services.budget.ledger.redis.sentinel import is_sentinel_url, master_address, server_url
from bulkhead_services.budget.ledger.store import LIMITS_READ_MS, Fenced, LimitsRevision, RedisFailure, UnsafeRedis

LAYOUT = "layout-3"
"""Version of the rows in ledger.lua. Rows of another version have other names, so neither version reads the other's."""
WRITE_BATCH = 500
UNKNOWN_MASTER = ("127.0.0.1", 1)
"""Until sentinels have named a master."""
MONTH_KEEP_MS = 40 * 24 * 3600 * 1000
"""As in ledger.lua: a month counts to its end, also when nobody spends for weeks."""


class RedisStore:
    """See LedgerStore."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        lease_ms: int,
        keep_ms: int,
        timeout_s: float,
        connections: int,
        settled_keep_ms: int = 0,
    ) -> None:
        self._timeout_s = timeout_s
        # A call is repeated by whoever asked, under the same id; a hidden retry would only cost time.
        self._common: dict[str, Any] = {
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "redis_connect_func": self._check_server,
        }
        self._connections = connections
        self._configured_url = url
        # Nothing is opened yet; whom sentinels name is asked by `connect`.
        self._server_url = server_url(url, *UNKNOWN_MASTER) if is_sentinel_url(url) else url
        self._call_connections = [self._new_connection() for _ in range(AT_ONCE)]
        self._free_connections = list(self._call_connections)
        self._redis: Redis = Redis(connection_pool=self._new_pool())
        self._tag = "{" + prefix + "}"
        self._epoch_key, self._lock_key = f"{self._tag}:epoch", f"{self._tag}:rebuild"
        self._replies_key = f"{self._tag}:replies"
        self._lease, self._keep = str(lease_ms), str(keep_ms)
        self._settled_keep = str(min(keep_ms, settled_keep_ms or keep_ms))
        self._sha = ""
        self._calls = OperationBatcher(self._send_operations)
        self._server = ""
        self._dead: list[str] = []
        self.epoch = ""
        self._on_change: Callable[[], None] = lambda: None

    def adopt_epoch(self, epoch: str) -> None:
        """See LedgerStore."""
        self.epoch = epoch

    def on_server_change(self, callback: Callable[[], None]) -> None:
        """See LedgerStore."""
        self._on_change = callback

    # The server

    def _new_pool(self) -> BlockingConnectionPool:
        return BlockingConnectionPool.from_url(
            self._server_url,
            max_connections=self._connections,
            timeout=self._timeout_s,
            socket_timeout=self._timeout_s,
            **self._common,
        )

    def _new_connection(self) -> AbstractConnection:
        """A connection for operations, one call after the other: a pool, with a task and two timers for each write and
        read, costs more than the call."""
        pool: ConnectionPool = ConnectionPool.from_url(self._server_url, socket_timeout=None, **self._common)
        connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        return connection

    async def _check_server(self, connection: AbstractConnection) -> None:
        """Run on every new connection, before anything else is sent on it.

        A restarted or promoted server may have lost what was written: it must never be taken for the old one.
        """
        await connection.on_connect()
        server_ids = []
        for section, name in (("server", "run_id"), ("replication", "master_replid")):
            await connection.send_command("INFO", section)
            server_ids.append(info_value(await connection.read_response(), name))
        server = "/".join(server_ids)
        if not self._server:
            self._server = server
        elif server != self._server:
            self._on_change()
            raise RedisConnectionError(f"another Redis answers ({server[:12]}, was {self._server[:12]})")

    async def connect(self) -> str:
        """Drop every connection and find out which server is there now. Raises RedisFailure, UnsafeRedis."""
        self.epoch = ""
        if is_sentinel_url(self._configured_url):
            self._server_url = server_url(
                self._configured_url, *await master_address(self._configured_url, self._timeout_s)
            )
        await self._drop_connections()
        self._server = ""
        memory = await self._redis.execute_command("INFO", "memory")  # type: ignore[no-untyped-call]
        bound, policy = int(info_value(memory, "maxmemory")), info_value(memory, "maxmemory_policy")
        if bound and policy != "noeviction":
            raise UnsafeRedis(
                f"this Redis evicts keys when it is full (maxmemory-policy {policy}), so the ledger would forget "
                "what was spent; set maxmemory-policy noeviction"
            )
        self._sha = await self._redis.script_load(LEDGER)
        return self._server

    async def close(self) -> None:
        """Close every connection."""
        await self._drop_connections()

    async def _drop_connections(self) -> None:
        """Use none of the connections any more; those under way end with their call.

        Closed under somebody who writes to it, a connection raises an AttributeError, for which nobody is prepared.
        """
        free, self._call_connections = self._free_connections, [self._new_connection() for _ in range(AT_ONCE)]
        self._free_connections = list(self._call_connections)
        for connection in free:
            await connection.disconnect(nowait=True)
        old, self._redis = self._redis.connection_pool, Redis(connection_pool=self._new_pool())
        await old.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
        await old.disconnect(inuse_connections=False)

    # Operations

    async def reserve(
        self,
        key: str,
        ask: UnitSums,
        scopes: Sequence[Scope],
        now_unix_ms: int,
        revision: LimitsRevision | None = None,
        margin: int = 0,
    ) -> ReserveAnswer:
        """See model.reserve, LedgerStore.reserve."""
        limits_read = (revision.tenant, revision.number, LIMITS_READ_MS) if revision is not None else ()
        terms = scopes.redis_json if isinstance(scopes, CachedScopes) else scopes_json(scopes)
        answer = await self._run_operation("reserve", key, format_sum(ask), terms, now_unix_ms, margin, *limits_read)
        match answer[0]:
            case "stale":
                return StaleLimits(int(answer[1]))
            case "held":
                return ReservationHeld(scopes_from_json(answer[1]) if answer[1] else _as_tuple(scopes), int(answer[2]))
            case "denied":
                return ReservationDenied(parse_ceiling(answer[1]))
            case "waiting":
                return ReservationWaiting(parse_ceiling(answer[1]))
            case "stopped":
                return ReservationStopped(answer[1])
            case _:
                return ReservationConflict(parse_sum(answer[1]), answer[2] == "1")

    async def release(self, key: str) -> None:
        """See model.release."""
        await self._run_operation("release", key)

    async def settle(self, key: str, usage: UnitSums, estimated: bool) -> SettlementResult:
        """See model.settle."""
        return parse_settlement(await self._run_operation("settle", key, format_sum(usage), int(estimated)))

    async def restore(self, key: str, ask: UnitSums, scopes: Sequence[Scope], at_unix_ms: int) -> SettlementResult:
        """See model.restore."""
        return parse_settlement(
            await self._run_operation("restore", key, format_sum(ask), scopes_json(scopes), at_unix_ms)
        )

    async def is_held_or_settled(self, key: str) -> bool:
        """See LedgerStore."""
        return bool((await self._run_operation("holds", key))[0] == "1")

    async def stop_scope(self, scope: str) -> Balance:
        """See model.stop_scope."""
        return parse_balance((await self._run_operation("stop", scope))[1])

    async def read_balance(self, scope: str) -> Balance:
        """See LedgerStore."""
        return parse_balance((await self._run_operation("balance", scope))[1])

    async def record_limits_read(self, revision: LimitsRevision, now_unix_ms: int) -> bool:
        """See LedgerStore."""
        answer = await self._run_operation("look", revision.tenant, revision.number, now_unix_ms)
        return bool(answer[0] == "looked")

    async def reply_positions(self) -> Mapping[str, int]:
        """See LedgerStore."""
        stored = await self._redis.hgetall(self._replies_key)
        return {_raw_value(edge).decode(): int(sequence) for edge, sequence in stored.items()}

    async def move_reply_position(self, edge: str, sequence: int) -> None:
        """See LedgerStore."""
        await self._run_operation("position", edge, sequence)

    async def mark_replies_read(self, at_unix_ms: int) -> None:
        """See LedgerStore."""
        await self._run_operation("read", at_unix_ms)

    async def _run_operation(self, *words: object) -> list[Any]:
        if not self.epoch:
            raise Fenced("no ledger has been built")
        return await self._calls.run_operation(self.epoch, *words)  # type: ignore[no-any-return]

    async def _send_operations(self, epoch: str, operations: Sequence[OperationWords]) -> list[Any]:
        """See redis_calls.SendOperations."""
        if epoch != self.epoch:
            raise Fenced("the ledger was built anew meanwhile")
        arguments = [1, self._epoch_key, epoch, self._key_prefix(epoch), self._lease, self._keep, self._settled_keep]
        for words in operations:
            arguments += (len(words), *words)
        async with asyncio.timeout(self._timeout_s):
            try:
                reply_json = await self._execute_command("EVALSHA", self._sha, *arguments)
            except NoScriptError:
                reply_json = await self._execute_command("EVAL", LEDGER, *arguments)
        answers: list[Any] = json.loads(reply_json)
        if answers[0] == "fenced":
            raise Fenced("the ledger in Redis is gone or was built anew")
        return answers

    async def _execute_command(self, *command: object) -> Any:
        connection = self._free_connections.pop()
        try:
            await connection.send_command(*command, check_health=False)
            return await connection.read_response()
        finally:
            if connection in self._call_connections:
                self._free_connections.append(connection)
            else:
                await connection.disconnect(nowait=True)

    def _key_prefix(self, epoch: str) -> str:
        return f"{self._tag}:{epoch.partition(' ')[0]}:"

    # Epochs

    async def current_epoch(self, server: str) -> str:
        """The epoch that stands, when it was built in this very server and as this program lays it out; ""
        otherwise."""
        epoch = _raw_value(await self._redis.get(self._epoch_key)).decode()
        return epoch if epoch.partition(" ")[2] == f"{server} {LAYOUT}" else ""

    async def lock_rebuild(self, token: str, lock_ms: int) -> bool:
        """Become the one that rebuilds, and fence every writer of the ledger before. False: another one does."""
        if not await self._redis.set(self._lock_key, token, nx=True, px=lock_ms):
            return False
        old = (await self._redis.eval(FENCE, 2, self._epoch_key, self._lock_key, token)).decode()
        if old == "-":
            return False
        # Only ids that can never stand again: a prefix that another replica writes now must not be touched.
        self._dead += [old, token] if old else [token]
        return True

    async def keep_rebuild_lock(self, token: str, lock_ms: int) -> bool:
        """Say that the rebuild goes on; False when the lock was lost."""
        return bool(await self._redis.eval(KEEP_LOCK, 1, self._lock_key, token, lock_ms))

    async def unlock_rebuild(self, token: str) -> None:
        """Let another one try; best effort, the lock expires by itself."""
        with suppress(*RedisFailure):
            await self._redis.eval(UNLOCK, 1, self._lock_key, token)

    async def write_ledger(
        self, token: str, ledger: LedgerState, since_unix_ms: int, on_batch: Callable[[], Awaitable[None]]
    ) -> None:
        """Lay a folded ledger down under a new prefix; nobody reads it before `activate_ledger`.

        Left out: what ended before `since_unix_ms`, as `keep_ms` would have let it go.
        """
        rows = self._ledger_rows(ledger, since_unix_ms)
        # Batch by batch, so that the lock can be kept between two however large the ledger is.
        while batch := list(islice(rows, WRITE_BATCH)):
            await self._redis.eval(WRITE, 1, self._key_prefix(token), json.dumps(batch, separators=(",", ":")))
            await on_batch()

    def _ledger_rows(
        self, ledger: LedgerState, since_unix_ms: int
    ) -> Iterator[tuple[str, str, int, list[str] | list[int]]]:
        """Rows as the script WRITE takes them: kind, name, how long it is kept or when its lease ends, fields."""
        live: set[str] = set()
        keep, settled_keep = int(self._keep), int(self._settled_keep)
        for key, entry in ledger.entries.items():
            if entry.state == "early" or entry.at_unix_ms >= since_unix_ms:
                live.update(scope.name for scope in entry.scopes)
                yield "r", key, settled_keep if entry.state == "settled" else keep, hash_fields(entry)
            if entry.state == "open" and entry.at_unix_ms >= since_unix_ms:
                yield "open", key, entry.at_unix_ms + ledger.lease_ms, list[str]()
        for scope, balance in ledger.balances.items():
            if scope in live or scope in ledger.expiry_by_scope or not scope.startswith(("task:", "step:")):
                keep_for_ms = max(keep, MONTH_KEEP_MS) if scope.startswith("month:") else keep
                yield (
                    "s",
                    scope,
                    keep_for_ms,
                    [*balance.reserved, *balance.spent, balance.settled, int(balance.stopped)],
                )

    async def activate_ledger(self, token: str, server: str, reply_positions: Mapping[str, int]) -> bool:
        """Make the ledger under `token` the one that stands; False when the lock was lost meanwhile."""
        epoch = f"{token} {server} {LAYOUT}"
        keys = self._epoch_key, self._lock_key, self._replies_key
        positions = [part for position in reply_positions.items() for part in position]
        if not await self._redis.eval(SWITCH, len(keys), *keys, token, epoch, *positions):
            return False
        self._dead.remove(token)
        self.epoch = epoch
        return True

    async def delete_dead_ledgers(self) -> None:
        """Remove the keys of ledgers that this process fenced or gave up; what is left expires by itself."""
        while self._dead:
            dead_keys: list[bytes] = []
            async for key in self._redis.scan_iter(match=f"{self._key_prefix(self._dead[0])}*", count=500):
                dead_keys.append(key)
                if len(dead_keys) >= WRITE_BATCH:
                    await self._redis.unlink(*dead_keys)
                    dead_keys.clear()
            if dead_keys:
                await self._redis.unlink(*dead_keys)
            self._dead.pop(0)

    # Beside the ledger

    async def take_lead(self, role: str, holder: str, lease_ms: int) -> bool:
        """See LedgerStore."""
        return bool(await self._redis.eval(LEAD, 1, f"{self._tag}:{role}", holder, lease_ms))

    async def resign_lead(self, role: str, holder: str) -> None:
        """See LedgerStore."""
        await self._redis.eval(UNLOCK, 1, f"{self._tag}:{role}", holder)

    async def put_value(self, name: str, value: bytes) -> None:
        """See LedgerStore."""
        await self._redis.set(f"{self._tag}:{name}", value, px=int(self._keep))

    async def get_value(self, name: str) -> bytes:
        """See LedgerStore."""
        return _raw_value(await self._redis.get(f"{self._tag}:{name}"))

    async def dump_ledger(self) -> tuple[dict[str, ReservationEntry], dict[str, Balance]]:
        """Everything in the ledger that stands, as core has it: for tests and for people who look into it."""
        prefix = self._key_prefix(self.epoch)
        entries: dict[str, ReservationEntry] = {}
        balances: dict[str, Balance] = {}
        async for key in self._redis.scan_iter(match=f"{prefix}[rs]:*", count=500):
            name = key.decode().removeprefix(prefix)
            if name.startswith("r:"):
                row = {
                    _raw_value(k).decode(): _raw_value(v).decode() for k, v in (await self._redis.hgetall(key)).items()
                }
                entries[name[2:]] = parse_entry(row)
            else:
                balances[name[2:]] = unpack_balance(_raw_value(await self._redis.get(key)) or pack_balance(Balance()))
        return entries, balances


def _as_tuple(scopes: Sequence[Scope]) -> tuple[Scope, ...]:
    return scopes if isinstance(scopes, tuple) else tuple(scopes)


def _raw_value(reply: bytes | str | None) -> bytes:
    """A value as it is stored: connections decode nothing. b"" where there is none."""
    return reply if isinstance(reply, bytes) else b""
