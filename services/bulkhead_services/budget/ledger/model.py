"""The ledger, pure: what is held and what is spent per scope, and whether one more call may be made.

In: asks (reservations), settlements, releases and journal facts, in any order and any number of times.
Out: answers as values. `ledger.lua` does the same inside Redis; a property test holds the two together.

    none --reserve--> open --settle--> settled
      |                 |--release---> released --reserve--> open
      |                 '--lease ends-> lapsed --settle--> settled      (lapsed counts as spent in full; what was held
      |                                                                  ahead and never used is released)
      |--over the ceiling--> refused
      '--settle--> early --restore--> settled                           (settled before its Reserved was seen)

A settled id admits nothing: its money is spent, and a call made on it would be free.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from bulkhead_contracts.bounds import MAX_COST_USD_MICROS, MAX_TOKENS, UNLIMITED
from bulkhead_contracts.budget import Amount, ScopeLimit, id_before
from bulkhead_contracts.result import Usage

Unit = Literal["cost_usd_micros", "tokens", "model_calls", "tool_calls", "wall_ms"]
ReservationState = Literal["open", "lapsed", "settled", "released", "refused", "early"]
SettlementKind = Literal["settled", "repeated", "unknown", "ignored"]
"""The outcome of a settlement; see SettlementResult."""


class UnitSums(NamedTuple):
    """All limited units together. Nobody asks for wall_ms: a call's timeout bounds it, and it is charged after."""

    tokens: int = 0
    cost_usd_micros: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    wall_ms: int = 0

    def plus(self, other: "UnitSums") -> "UnitSums":
        """Every unit added."""
        # Unit by unit: a rebuild adds some ten times for every fact.
        return UnitSums(
            self[0] + other[0], self[1] + other[1], self[2] + other[2], self[3] + other[3], self[4] + other[4]
        )

    def minus(self, other: "UnitSums") -> "UnitSums":
        """Every unit subtracted."""
        return UnitSums(
            self[0] - other[0], self[1] - other[1], self[2] - other[2], self[3] - other[3], self[4] - other[4]
        )

    def exceeds_ask(self, ask: "UnitSums") -> bool:
        """More than `ask` in any unit that is asked for."""
        return any(mine > theirs for mine, theirs in zip(self[:ASKED_UNITS], ask[:ASKED_UNITS], strict=True))


ASKED_UNITS = 4
NOTHING = UnitSums()
NO_LIMIT = UnitSums(UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED)


class Scope(NamedTuple):
    """One account and its ceiling: `task:acme:t1`, `day:acme:2026-11-21`. until_unix_ms: see ScopeLimit."""

    name: str
    limit: UnitSums
    until_unix_ms: int = 0


class Balance(NamedTuple):
    """Amounts that one scope holds back for open calls and has spent, and its number of settlements.

    stopped: the task was ended early; what settles from now on is told to whoever shows what it cost.
    """

    reserved: UnitSums = UnitSums()
    spent: UnitSums = UnitSums()
    settled: int = 0
    stopped: bool = False


NO_BALANCE = Balance()


class MetCeiling(NamedTuple):
    """The limit that stands in the way, with the amounts as they were found."""

    scope: str
    unit: Unit
    spent: int
    reserved: int
    asked: int
    limit: int


class CeilingLevel(NamedTuple):
    """The amount an account has spent under a ceiling."""

    scope: str
    unit: Unit
    spent: int
    limit: int
    until_unix_ms: int = 0


@dataclass(frozen=True, slots=True)
class ReservationEntry:
    """One reservation. The terms (ask, scopes, at_unix_ms) are those of its first attempt and never change.

    holders: attempts that hold it; only when each of them has released it is it released.
    """

    state: ReservationState
    ask: UnitSums = UnitSums()
    scopes: tuple[Scope, ...] = ()
    at_unix_ms: int = 0
    holders: int = 0
    charged: UnitSums = UnitSums()
    usage: UnitSums = UnitSums()
    estimated: bool = False
    ceiling: MetCeiling | None = None


@dataclass(frozen=True, slots=True)
class ReservationHeld:
    """The money is held, on these terms."""

    scopes: tuple[Scope, ...]
    at_unix_ms: int


@dataclass(frozen=True, slots=True)
class ReservationDenied:
    """Spending leaves no room: final, the task halts."""

    ceiling: MetCeiling


@dataclass(frozen=True, slots=True)
class ReservationWaiting:
    """Held amounts leave no room now; open calls may give some back."""

    ceiling: MetCeiling


@dataclass(frozen=True, slots=True)
class ReservationStopped:
    """The task was ended: it is given no money for another call."""

    scope: str


@dataclass(frozen=True, slots=True)
class ReservationConflict:
    """The first answer under this id does not cover this ask: it held less, or it is settled already."""

    held: UnitSums
    settled: bool = False


@dataclass(frozen=True, slots=True)
class SettlementResult:
    """`settled` now; `repeated` (nothing changed); `unknown` (kept until its reservation shows up); `ignored`.

    over: the call used more than its reservation. ceiling: a scope that has now spent more than its limit. stopped:
    what the task has cost by now, when it was ended early. levels: of every ceiling that its accounts have.
    """

    kind: SettlementKind
    charged: UnitSums = UnitSums()
    held: UnitSums = UnitSums()
    over: bool = False
    ceiling: MetCeiling | None = None
    stopped: Balance | None = None
    levels: tuple[CeilingLevel, ...] = ()


@dataclass(frozen=True, slots=True)
class StaleLimits:
    """The tenant's limits have changed, or nobody has looked for a while: read them again and ask again.

    revision: at least this one.
    """

    revision: int


ReserveAnswer = (
    ReservationHeld | ReservationDenied | ReservationWaiting | ReservationStopped | ReservationConflict | StaleLimits
)


@dataclass(slots=True)
class LedgerState:
    """All entries and balances. The functions below change it in place and touch nothing else.

    expiry_by_scope: of the accounts whose names do not say how long they count. fenced_epochs: ledgers that were fenced
    off before a mark that has been folded; epoch_mark: the one that this mark began. settled_earlier: settled before
    the checkpoint that it begins with, by when they were reserved: what comes of them again changes nothing.
    folded_unix_ms: when the last message of the journal that was folded was stored, by the broker's clock: what is
    over is judged by that, and by nobody's own. reply_positions: by edge, how far replies have been folded into it.
    read_unix_ms: all replies of before are in it.
    """

    lease_ms: int
    entries: dict[str, ReservationEntry] = field(default_factory=dict)
    balances: dict[str, Balance] = field(default_factory=dict)
    expiry_by_scope: dict[str, int] = field(default_factory=dict)
    fenced_epochs: set[str] = field(default_factory=set)
    settled_earlier: dict[str, int] = field(default_factory=dict)
    epoch_mark: str = ""
    reply_positions: dict[str, int] = field(default_factory=dict)
    folded_unix_ms: int = field(default=0, compare=False)
    read_unix_ms: int = field(default=0, compare=False)


# Terms


def entry_key(service: str, tenant: str, task: str, reservation_id: str) -> str:
    """A reservation belongs to the service and task that the broker vouches for: nobody settles another's."""
    return f"{service}/{tenant}/{task}/{reservation_id}"


def key_before(key: str) -> str:
    """Key of the reservation that is used before this one, which is held ahead; "" of any other."""
    place, _, reservation_id = key.rpartition("/")
    before = id_before(reservation_id)
    return f"{place}/{before}" if before and place else before


def sum_of(amount: Amount) -> UnitSums:
    """The limited units of an amount."""
    return UnitSums(amount.tokens, amount.cost_usd_micros, amount.model_calls, amount.tool_calls)


def amount_of(total: UnitSums) -> Amount:
    """Back; time is no part of an amount. Never below nothing: a lapsed call that settles late is taken back."""
    tokens, cost, model_calls, tool_calls, _ = (max(0, value) for value in total)
    return Amount(
        tokens=min(tokens, MAX_TOKENS),
        cost_usd_micros=min(cost, MAX_COST_USD_MICROS),
        model_calls=model_calls,
        tool_calls=tool_calls,
    )


def sum_of_usage(usage: Usage, wall_ms: int = 0) -> UnitSums:
    """The limited units of a usage report."""
    tokens = usage.input_tokens + usage.output_tokens
    return UnitSums(tokens, usage.cost_usd_micros, usage.model_calls, usage.tool_calls, wall_ms)


def scope_limits(scopes: Sequence[Scope]) -> tuple[ScopeLimit, ...]:
    """Rows as the journal has them."""
    return tuple(
        ScopeLimit(
            scope=name,
            cost_usd_micros=min(limit.cost_usd_micros, MAX_COST_USD_MICROS),
            tokens=min(limit.tokens, MAX_TOKENS),
            model_calls=limit.model_calls,
            tool_calls=limit.tool_calls,
            wall_ms=limit.wall_ms,
            until_unix_ms=until,
        )
        for name, limit, until in scopes
    )


def scopes_from(limits: Sequence[ScopeLimit]) -> tuple[Scope, ...]:
    """Back from the journal."""
    return tuple(
        Scope(
            row.scope,
            UnitSums(
                row.tokens if row.tokens < MAX_TOKENS else UNLIMITED,
                row.cost_usd_micros if row.cost_usd_micros < MAX_COST_USD_MICROS else UNLIMITED,
                row.model_calls,
                row.tool_calls,
                row.wall_ms,
            ),
            row.until_unix_ms,
        )
        for row in limits
    )


def scopes_json(scopes: Sequence[Scope]) -> str:
    """Text as the Redis ledger has it."""
    return json.dumps([[name, *limit, until] for name, limit, until in scopes], separators=(",", ":"))


def scopes_from_json(text: str | bytes) -> tuple[Scope, ...]:
    """Back from the Redis ledger."""
    return tuple(Scope(name, UnitSums(*limit), until) for name, *limit, until in json.loads(text))


# Admission


def reserve(
    ledger: LedgerState, key: str, ask: UnitSums, scopes: tuple[Scope, ...], now_unix_ms: int, margin: int = 0
) -> ReserveAnswer:
    """Hold `ask` in every scope, or in none. A known key gets its first answer again, until it is settled. margin: hold
    it only where so many times what is held then fits into what is left unspent."""
    stored = ledger.entries.get(key)
    if stored is not None and stored.state in ("settled", "early"):
        return ReservationConflict(stored.ask, settled=True)
    if stored is not None and stored.state in ("open", "lapsed", "released") and ask.exceeds_ask(stored.ask):
        return ReservationConflict(stored.ask)
    if stored is not None and stored.state in ("open", "lapsed"):
        ledger.entries[key] = replace(stored, holders=stored.holders + 1)
        return ReservationHeld(stored.scopes, stored.at_unix_ms)
    if stored is not None and stored.state == "refused":
        assert stored.ceiling is not None
        return ReservationDenied(stored.ceiling)
    lapse_overdue(ledger, now_unix_ms)
    fresh = ReservationEntry("open", ask, scopes, now_unix_ms)
    if stored is not None and stored.state == "released":
        # The first attempt may have left its fact in the journal: the terms must stay the ones it names.
        fresh = replace(stored, state="open")
    if margin:
        if (ceiling := _find_near_ceiling(ledger, fresh, margin)) is not None:
            return ReservationWaiting(ceiling)
    elif (ceiling := _find_blocking_ceiling(ledger, fresh, with_reserved=False)) is not None:
        ledger.entries[key] = replace(fresh, state="refused", ceiling=ceiling)
        return ReservationDenied(ceiling)
    if _stopped_balance(ledger, fresh) is not None:
        return ReservationStopped(fresh.scopes[0].name)
    if (ceiling := _find_blocking_ceiling(ledger, fresh, with_reserved=True)) is not None:
        return ReservationWaiting(ceiling)
    _open_entry(ledger, key, replace(fresh, holders=1), stored)
    return ReservationHeld(fresh.scopes, fresh.at_unix_ms)


def release(ledger: LedgerState, key: str) -> None:
    """One attempt lets go: its fact did not reach the journal, so nobody was told that it holds."""
    entry = ledger.entries.get(key)
    if entry is None or entry.state not in ("open", "lapsed"):
        return
    holders = max(0, entry.holders - 1)
    if holders:
        ledger.entries[key] = replace(entry, holders=holders)
        return
    if entry.state == "open":
        _move_balances(ledger, entry, reserved=UnitSums().minus(entry.ask))
    else:
        _move_balances(ledger, entry, spent=UnitSums().minus(entry.ask))
    ledger.entries[key] = replace(entry, state="released", holders=0)


def restore(
    ledger: LedgerState, key: str, ask: UnitSums, scopes: tuple[Scope, ...], at_unix_ms: int
) -> SettlementResult:
    """Take a fact of the journal: it was admitted once, so it is held now, whatever the limits say."""
    if ledger.settled_earlier.get(key) == at_unix_ms:
        return SettlementResult("repeated")
    # Admitted anew by a ledger that had forgotten it: no copy, for copies have the terms of the first.
    ledger.settled_earlier.pop(key, None)
    stored = ledger.entries.get(key)
    if stored is not None and stored.state in ("open", "lapsed", "settled"):
        return SettlementResult(
            "repeated",
            stored.charged,
            stored.ask,
            ceiling=_find_exceeded_ceiling(ledger, stored),
            stopped=_stopped_balance(ledger, stored),
            levels=_ceiling_levels(ledger, stored),
        )
    _open_entry(ledger, key, ReservationEntry("open", ask, scopes, at_unix_ms, holders=1), stored)
    if stored is not None and stored.state == "early":
        return _settled_result(ledger, ledger.entries[key], stored.usage, stored.estimated)
    return SettlementResult("ignored", held=ask)


def settle(
    ledger: LedgerState, key: str, usage: UnitSums, estimated: bool, settled_unix_ms: int = 0
) -> SettlementResult:
    """Charge a call, and tell how its accounts stand then. See charge_call."""
    if key in ledger.settled_earlier and key not in ledger.entries:
        return SettlementResult("repeated")
    kind = charge_call(ledger, key, usage, estimated, settled_unix_ms)
    if kind in ("unknown", "ignored"):
        return SettlementResult(kind)
    entry = ledger.entries[key]
    if kind == "repeated":
        return SettlementResult(
            "repeated",
            entry.charged,
            entry.ask,
            ceiling=_find_exceeded_ceiling(ledger, entry),
            stopped=_stopped_balance(ledger, entry),
            levels=_ceiling_levels(ledger, entry),
        )
    return _settled_result(ledger, entry, usage, estimated)


def charge_call(
    ledger: LedgerState, key: str, usage: UnitSums, estimated: bool, settled_unix_ms: int = 0
) -> SettlementKind:
    """Charge what was really used (the reservation itself when estimated), once per reservation. settled_unix_ms:
    kept of what is settled before its reservation is seen."""
    if key in ledger.settled_earlier:
        return "repeated"
    entry = ledger.entries.get(key)
    if entry is None or entry.state == "released":
        # Not charged: either its Reserved is still to be seen, or it never reserved at all.
        ledger.entries[key] = ReservationEntry("early", at_unix_ms=settled_unix_ms, usage=usage, estimated=estimated)
        return "unknown"
    if entry.state == "early":
        return "unknown"
    if entry.state == "refused":
        return "ignored"
    if entry.state == "settled":
        return "repeated"
    _charge_entry(ledger, key, entry, usage, estimated)
    return "settled"


def apply_rebuild_mark(ledger: LedgerState, epoch: str) -> None:
    """A rebuild has begun: all that is written under the ledger before it comes too late."""
    if ledger.epoch_mark:
        ledger.fenced_epochs.add(ledger.epoch_mark)
    ledger.epoch_mark = epoch


def is_held_or_settled(ledger: LedgerState, key: str) -> bool:
    """True when a reservation is held, or was and is settled."""
    stored = ledger.entries.get(key)
    return stored is not None and stored.state in ("open", "lapsed", "settled")


def stop_scope(ledger: LedgerState, scope: str) -> Balance:
    """The task of this scope was ended early. What it has cost by now."""
    ledger.balances[scope] = ledger.balances.get(scope, Balance())._replace(stopped=True)
    return ledger.balances[scope]


def least_left(scopes: Sequence[Scope], balances: Sequence[Balance], unit: Unit) -> int | None:
    """The least that the accounts of a call have left; None where no ceiling bounds the unit. balances: of the scopes,
    in their order.
    """
    rows = ((getattr(scope.limit, unit), balance) for scope, balance in zip(scopes, balances, strict=True))
    left = min((most - getattr(balance.spent, unit) for most, balance in rows if most < UNLIMITED), default=None)
    return None if left is None else max(0, left)


def lapse_overdue(ledger: LedgerState, now_unix_ms: int) -> None:
    """Lapse what nobody settled within its lease, so that it counts as spent in full: a crash must not hold others
    up for ever, nor be free. What was held ahead, and certainly not used, is released.
    """
    for key, entry in ledger.entries.items():
        if entry.state != "open" or entry.at_unix_ms + ledger.lease_ms > now_unix_ms:
            continue
        used_before = key_before(key)
        if used_before and ledger.read_unix_ms < entry.at_unix_ms + ledger.lease_ms // 2:
            continue
        predecessor = ledger.entries.get(used_before)
        if predecessor is None or predecessor.state in ("settled", "early"):
            _move_balances(ledger, entry, reserved=UnitSums().minus(entry.ask), spent=entry.ask)
            ledger.entries[key] = replace(entry, state="lapsed")
        else:
            # Its doer uses one when the one before is settled, within a quarter of the lease, and not again.
            _move_balances(ledger, entry, reserved=UnitSums().minus(entry.ask))
            ledger.entries[key] = replace(entry, state="released", holders=0)


def _open_entry(ledger: LedgerState, key: str, entry: ReservationEntry, previous: ReservationEntry | None) -> None:
    ledger.entries[key] = entry
    ledger.expiry_by_scope.update((scope.name, scope.until_unix_ms) for scope in entry.scopes if scope.until_unix_ms)
    _move_balances(ledger, entry, reserved=entry.ask)
    if previous is not None and previous.state == "early":
        _charge_entry(ledger, key, entry, previous.usage, previous.estimated)


def _charge_entry(ledger: LedgerState, key: str, entry: ReservationEntry, usage: UnitSums, estimated: bool) -> None:
    charged = entry.ask._replace(wall_ms=usage.wall_ms) if estimated else usage
    if entry.state == "open":
        _move_balances(ledger, entry, reserved=NOTHING.minus(entry.ask), spent=charged, settled=1)
    else:
        _move_balances(ledger, entry, spent=charged.minus(entry.ask), settled=1)
    ledger.entries[key] = ReservationEntry(
        "settled",
        entry.ask,
        entry.scopes,
        entry.at_unix_ms,
        entry.holders,
        charged,
        entry.usage,
        entry.estimated,
        entry.ceiling,
    )


def _settled_result(ledger: LedgerState, entry: ReservationEntry, usage: UnitSums, estimated: bool) -> SettlementResult:
    over = not estimated and usage.exceeds_ask(entry.ask)
    return SettlementResult(
        "settled",
        entry.charged,
        entry.ask,
        over,
        _find_exceeded_ceiling(ledger, entry),
        _stopped_balance(ledger, entry),
        _ceiling_levels(ledger, entry),
    )


def _move_balances(
    ledger: LedgerState,
    entry: ReservationEntry,
    reserved: UnitSums = NOTHING,
    spent: UnitSums = NOTHING,
    settled: int = 0,
) -> None:
    balances = ledger.balances
    for name, _, _ in entry.scopes:
        old = balances.get(name, NO_BALANCE)
        balances[name] = Balance(
            old.reserved if reserved is NOTHING else old.reserved.plus(reserved),
            old.spent if spent is NOTHING else old.spent.plus(spent),
            old.settled + settled,
            old.stopped,
        )


def _stopped_balance(ledger: LedgerState, entry: ReservationEntry) -> Balance | None:
    """The first scope of a call is its task."""
    balance = ledger.balances.get(entry.scopes[0].name) if entry.scopes else None
    return balance if balance is not None and balance.stopped else None


def _find_blocking_ceiling(ledger: LedgerState, entry: ReservationEntry, *, with_reserved: bool) -> MetCeiling | None:
    """The first limit that the ask does not fit under."""
    for name, limit, _ in entry.scopes:
        balance = ledger.balances.get(name, Balance())
        for unit in _UNITS:
            spent, reserved = getattr(balance.spent, unit), getattr(balance.reserved, unit)
            requested, most = getattr(entry.ask, unit), getattr(limit, unit)
            if spent + requested + (reserved if with_reserved else 0) > most:
                return MetCeiling(name, unit, spent, reserved, requested, most)
    return None


def _find_near_ceiling(ledger: LedgerState, entry: ReservationEntry, margin: int) -> MetCeiling | None:
    """The first limit that is not far from what is held with the ask."""
    for name, limit, _ in entry.scopes:
        balance = ledger.balances.get(name, Balance())
        for unit in _UNITS:
            spent, reserved = getattr(balance.spent, unit), getattr(balance.reserved, unit)
            requested, most = getattr(entry.ask, unit), getattr(limit, unit)
            if requested and most < UNLIMITED and margin * (reserved + requested) > most - spent:
                return MetCeiling(name, unit, spent, reserved, requested, most)
    return None


def _find_exceeded_ceiling(ledger: LedgerState, entry: ReservationEntry) -> MetCeiling | None:
    """The first scope that has spent more than its limit: only an under-estimate can get there."""
    for name, limit, _ in entry.scopes:
        balance = ledger.balances.get(name, Balance())
        for unit in _UNITS:
            spent, most = getattr(balance.spent, unit), getattr(limit, unit)
            if spent > most:
                return MetCeiling(name, unit, spent, getattr(balance.reserved, unit), 0, most)
    return None


def _ceiling_levels(ledger: LedgerState, entry: ReservationEntry) -> tuple[CeilingLevel, ...]:
    """Levels of all ceilings over a call's accounts."""
    return tuple(
        CeilingLevel(name, unit, getattr(ledger.balances.get(name, Balance()).spent, unit), most, until)
        for name, limit, until in entry.scopes
        for unit in _UNITS
        if (most := getattr(limit, unit)) < UNLIMITED
    )


_UNITS: tuple[Unit, ...] = ("cost_usd_micros", "tokens", "model_calls", "tool_calls", "wall_ms")
