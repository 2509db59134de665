"""The ledger, pure: what is held and what is spent per scope, and whether one more call may be made.

In: asks (reservations), settlements, releases and journal facts, in any order and any number of times.
Out: answers as values. `ledger.lua` does the same inside Redis; a property test holds the two together.

    none --reserve--> open --settle--> settled
      |                 |--release---> released --reserve--> open
      |                 '--lease ends-> lapsed --settle--> settled      (lapsed counts as spent in full)
      |--over the ceiling--> refused
      '--settle--> early --restore--> settled                           (settled before its Reserved was seen)

A settled id admits nothing: its money is spent, and a call made on it would be free.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from bulkhead_contracts.budget import Amount, ScopeLimit
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.limits import MAX_COST_USD_MICROS, MAX_TOKENS
from bulkhead_contracts.result import Usage

Unit = Literal["cost_usd_micros", "tokens"]
State = Literal["open", "lapsed", "settled", "released", "refused", "early"]


class Sum(NamedTuple):
    """Tokens and micro US dollars together; both are limited."""

    tokens: int = 0
    cost_usd_micros: int = 0

    def plus(self, other: "Sum") -> "Sum":
        """Both units added."""
        return Sum(self.tokens + other.tokens, self.cost_usd_micros + other.cost_usd_micros)

    def minus(self, other: "Sum") -> "Sum":
        """Both units subtracted."""
        return Sum(self.tokens - other.tokens, self.cost_usd_micros - other.cost_usd_micros)

    def beyond(self, other: "Sum") -> bool:
        """More than `other` in any unit."""
        return self.tokens > other.tokens or self.cost_usd_micros > other.cost_usd_micros


class Scope(NamedTuple):
    """One account and its ceiling: `task:acme:t1`, `day:acme:2026-11-21`."""

    name: str
    limit: Sum


class Balance(NamedTuple):
    """What one scope holds back for open calls, and what it has spent."""

    reserved: Sum = Sum()
    spent: Sum = Sum()


class Ceiling(NamedTuple):
    """The limit that stands in the way, with the amounts as they were found."""

    scope: str
    unit: Unit
    spent: int
    reserved: int
    asked: int
    limit: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One reservation. The terms (ask, scopes, at_unix_ms) are those of its first attempt and never change.

    holders: attempts that hold it; only when each of them has released it is it released.
    """

    state: State
    ask: Sum = Sum()
    scopes: tuple[Scope, ...] = ()
    at_unix_ms: int = 0
    holders: int = 0
    charged: Sum = Sum()
    usage: Sum = Sum()
    estimated: bool = False
    ceiling: Ceiling | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The money is held, on these terms."""

    scopes: tuple[Scope, ...]
    at_unix_ms: int


@dataclass(frozen=True, slots=True)
class Denied:
    """What is spent leaves no room: final, the task halts."""

    ceiling: Ceiling


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is held leaves no room now; open calls may give some back."""

    ceiling: Ceiling


@dataclass(frozen=True, slots=True)
class Conflict:
    """The first answer under this id does not cover this ask: it held less, or it is settled already."""

    held: Sum
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """`settled` now; `repeated` (nothing changed); `unknown` (kept until its reservation shows up); `ignored`.

    over: the call used more than its reservation. ceiling: a scope that has now spent more than its limit.
    """

    kind: Literal["settled", "repeated", "unknown", "ignored"]
    charged: Sum = Sum()
    held: Sum = Sum()
    over: bool = False
    ceiling: Ceiling | None = None


Answer = Held | Denied | Waiting | Conflict


@dataclass(slots=True)
class Ledger:
    """All entries and balances. The functions below change it in place and touch nothing else."""

    lease_ms: int
    entries: dict[str, Entry] = field(default_factory=dict)
    balances: dict[str, Balance] = field(default_factory=dict)


# Terms


def entry_key(service: str, tenant: str, task: str, reservation_id: str) -> str:
    """A reservation belongs to the service and task that the broker vouches for: nobody settles another's."""
    return f"{service}/{tenant}/{task}/{reservation_id}"


def scopes_of(grant: TaskGrant, now_unix_ms: int) -> tuple[Scope, ...]:
    """The accounts that a call of this task is charged to: the task and its tenant's day (UTC)."""
    day = datetime.fromtimestamp(now_unix_ms / 1000, UTC).date().isoformat()
    return (
        Scope(f"task:{grant.tenant}:{grant.task}", Sum(grant.limits.tokens, grant.limits.cost_usd_micros)),
        Scope(
            f"day:{grant.tenant}:{day}",
            Sum(min(grant.day_tokens, MAX_TOKENS), min(grant.day_cost_usd_micros, MAX_COST_USD_MICROS)),
        ),
    )


def sum_of(amount: Amount) -> Sum:
    """The limited units of an amount."""
    return Sum(amount.tokens, amount.cost_usd_micros)


def used(usage: Usage) -> Sum:
    """The limited units of a usage report."""
    return Sum(usage.input_tokens + usage.output_tokens, usage.cost_usd_micros)


def scope_limits(scopes: Sequence[Scope]) -> tuple[ScopeLimit, ...]:
    """As the journal has them."""
    return tuple(
        ScopeLimit(scope=name, cost_usd_micros=limit.cost_usd_micros, tokens=limit.tokens) for name, limit in scopes
    )


def scopes_from(limits: Sequence[ScopeLimit]) -> tuple[Scope, ...]:
    """Back from the journal."""
    return tuple(Scope(one.scope, Sum(one.tokens, one.cost_usd_micros)) for one in limits)


def scopes_json(scopes: Sequence[Scope]) -> str:
    """As the Redis ledger has them."""
    return json.dumps([[name, limit.tokens, limit.cost_usd_micros] for name, limit in scopes], separators=(",", ":"))


def scopes_from_json(text: str | bytes) -> tuple[Scope, ...]:
    """Back from the Redis ledger."""
    return tuple(Scope(name, Sum(tokens, cost)) for name, tokens, cost in json.loads(text))


# Admission


def reserve(ledger: Ledger, key: str, ask: Sum, scopes: tuple[Scope, ...], now_unix_ms: int) -> Answer:
    """Hold `ask` in every scope, or in none. A known key gets its first answer again, until it is settled."""
    known = ledger.entries.get(key)
    if known is not None and known.state in ("settled", "early"):
        return Conflict(known.ask, settled=True)
    if known is not None and known.state in ("open", "lapsed", "released") and ask.beyond(known.ask):
        return Conflict(known.ask)
    if known is not None and known.state in ("open", "lapsed"):
        ledger.entries[key] = replace(known, holders=known.holders + 1)
        return Held(known.scopes, known.at_unix_ms)
    if known is not None and known.state == "refused":
        assert known.ceiling is not None
        return Denied(known.ceiling)
    sweep(ledger, now_unix_ms)
    fresh = Entry("open", ask, scopes, now_unix_ms)
    if known is not None and known.state == "released":
        # The first attempt may have left its fact in the journal: the terms must stay the ones it names.
        fresh = replace(known, state="open")
    if (ceiling := _first(ledger, fresh, with_reserved=False)) is not None:
        ledger.entries[key] = replace(fresh, state="refused", ceiling=ceiling)
        return Denied(ceiling)
    if (ceiling := _first(ledger, fresh, with_reserved=True)) is not None:
        return Waiting(ceiling)
    _open(ledger, key, replace(fresh, holders=1), known)
    return Held(fresh.scopes, fresh.at_unix_ms)


def release(ledger: Ledger, key: str) -> None:
    """One attempt lets go: its fact did not reach the journal, so nobody was told that it holds."""
    entry = ledger.entries.get(key)
    if entry is None or entry.state not in ("open", "lapsed"):
        return
    holders = max(0, entry.holders - 1)
    if holders:
        ledger.entries[key] = replace(entry, holders=holders)
        return
    if entry.state == "open":
        _move(ledger, entry, reserved=Sum().minus(entry.ask))
    else:
        _move(ledger, entry, spent=Sum().minus(entry.ask))
    ledger.entries[key] = replace(entry, state="released", holders=0)


def restore(ledger: Ledger, key: str, ask: Sum, scopes: tuple[Scope, ...], at_unix_ms: int) -> Settlement:
    """Take a fact of the journal: it was admitted once, so it is held now, whatever the limits say."""
    known = ledger.entries.get(key)
    if known is not None and known.state in ("open", "lapsed", "settled"):
        return Settlement("repeated", known.charged, known.ask, ceiling=_exceeded(ledger, known))
    _open(ledger, key, Entry("open", ask, scopes, at_unix_ms, holders=1), known)
    if known is not None and known.state == "early":
        return _settlement(ledger, ledger.entries[key], known.usage, known.estimated)
    return Settlement("ignored", held=ask)


def settle(ledger: Ledger, key: str, usage: Sum, estimated: bool) -> Settlement:
    """Charge what was really used (the reservation itself when estimated), once per reservation."""
    entry = ledger.entries.get(key)
    if entry is None or entry.state == "released":
        # Not charged: either its Reserved is still to be seen, or it never reserved at all.
        ledger.entries[key] = Entry("early", usage=usage, estimated=estimated)
        return Settlement("unknown")
    if entry.state == "early":
        return Settlement("unknown")
    if entry.state == "refused":
        return Settlement("ignored")
    if entry.state == "settled":
        return Settlement("repeated", entry.charged, entry.ask, ceiling=_exceeded(ledger, entry))
    _charge(ledger, key, entry, usage, estimated)
    return _settlement(ledger, ledger.entries[key], usage, estimated)


def sweep(ledger: Ledger, now_unix_ms: int) -> None:
    """What nobody settled within its lease counts as spent in full: a crash must not hold others up for ever,
    nor be free."""
    for key, entry in ledger.entries.items():
        if entry.state == "open" and entry.at_unix_ms + ledger.lease_ms <= now_unix_ms:
            _move(ledger, entry, reserved=Sum().minus(entry.ask), spent=entry.ask)
            ledger.entries[key] = replace(entry, state="lapsed")


def _open(ledger: Ledger, key: str, entry: Entry, known: Entry | None) -> None:
    ledger.entries[key] = entry
    _move(ledger, entry, reserved=entry.ask)
    if known is not None and known.state == "early":
        _charge(ledger, key, entry, known.usage, known.estimated)


def _charge(ledger: Ledger, key: str, entry: Entry, usage: Sum, estimated: bool) -> None:
    charged = entry.ask if estimated else usage
    if entry.state == "open":
        _move(ledger, entry, reserved=Sum().minus(entry.ask), spent=charged)
    else:
        _move(ledger, entry, spent=charged.minus(entry.ask))
    ledger.entries[key] = replace(entry, state="settled", charged=charged)


def _settlement(ledger: Ledger, entry: Entry, usage: Sum, estimated: bool) -> Settlement:
    over = not estimated and usage.beyond(entry.ask)
    return Settlement("settled", entry.charged, entry.ask, over, _exceeded(ledger, entry))


def _move(ledger: Ledger, entry: Entry, reserved: Sum = Sum(), spent: Sum = Sum()) -> None:  # noqa: B008
    for scope in entry.scopes:
        old = ledger.balances.get(scope.name, Balance())
        ledger.balances[scope.name] = Balance(old.reserved.plus(reserved), old.spent.plus(spent))


def _first(ledger: Ledger, entry: Entry, *, with_reserved: bool) -> Ceiling | None:
    """The first limit that the ask does not fit under."""
    for name, limit in entry.scopes:
        balance = ledger.balances.get(name, Balance())
        for unit in _UNITS:
            spent, held = getattr(balance.spent, unit), getattr(balance.reserved, unit)
            asked, most = getattr(entry.ask, unit), getattr(limit, unit)
            if spent + asked + (held if with_reserved else 0) > most:
                return Ceiling(name, unit, spent, held, asked, most)
    return None


def _exceeded(ledger: Ledger, entry: Entry) -> Ceiling | None:
    """The first scope that has spent more than its limit: only an under-estimate can get there."""
    for name, limit in entry.scopes:
        balance = ledger.balances.get(name, Balance())
        for unit in _UNITS:
            spent, most = getattr(balance.spent, unit), getattr(limit, unit)
            if spent > most:
                return Ceiling(name, unit, spent, getattr(balance.reserved, unit), 0, most)
    return None


_UNITS: tuple[Unit, ...] = ("cost_usd_micros", "tokens")
