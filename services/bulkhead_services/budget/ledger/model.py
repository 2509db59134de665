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

from bulkhead_contracts.bounds import MAX_COST_USD_MICROS, MAX_TOKENS, UNLIMITED
from bulkhead_contracts.budget import Amount, ScopeLimit
from bulkhead_contracts.result import Usage
from bulkhead_services.budget.ledger.types import (
    ASKED_UNITS,
    EMPTY,
    NO_LIMIT,
    NOTHING,
    Answer,
    Balance,
    Ceiling,
    Conflict,
    Denied,
    Entry,
    Held,
    Kind,
    Level,
    Scope,
    Settlement,
    Stale,
    State,
    Stopped,
    Sum,
    Unit,
    Waiting,
)

__all__ = [
    "ASKED_UNITS",
    "EMPTY",
    "NOTHING",
    "NO_LIMIT",
    "Answer",
    "Balance",
    "Ceiling",
    "Conflict",
    "Denied",
    "Entry",
    "Held",
    "Kind",
    "Level",
    "Scope",
    "Settlement",
    "Stale",
    "State",
    "Stopped",
    "Sum",
    "Unit",
    "Waiting",
]
"""Values that are used together with the functions here."""


@dataclass(slots=True)
class Ledger:
    """All entries and balances. The functions below change it in place and touch nothing else.

    until: of the accounts whose names do not say how long they count. over: ledgers that were fenced off before a mark
    that has been folded; mark: the one that this mark began. done: settled before the checkpoint that it begins with,
    by when they were reserved: what comes of them again changes nothing. folded_unix_ms: when the last message of
    the journal that was folded was stored, by the broker's clock: what is over is judged by that, and by nobody's own.
    """

    lease_ms: int
    entries: dict[str, Entry] = field(default_factory=dict)
    balances: dict[str, Balance] = field(default_factory=dict)
    until: dict[str, int] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    done: dict[str, int] = field(default_factory=dict)
    mark: str = ""
    folded_unix_ms: int = field(default=0, compare=False)


# Terms


def entry_key(service: str, tenant: str, task: str, reservation_id: str) -> str:
    """A reservation belongs to the service and task that the broker vouches for: nobody settles another's."""
    return f"{service}/{tenant}/{task}/{reservation_id}"


def sum_of(amount: Amount) -> Sum:
    """The limited units of an amount."""
    return Sum(amount.tokens, amount.cost_usd_micros, amount.model_calls, amount.tool_calls)


def amount_of(total: Sum) -> Amount:
    """Back; time is no part of an amount. Never below nothing: a lapsed call that settles late is taken back."""
    tokens, cost, model_calls, tool_calls, _ = (max(0, one) for one in total)
    return Amount(
        tokens=min(tokens, MAX_TOKENS),
        cost_usd_micros=min(cost, MAX_COST_USD_MICROS),
        model_calls=model_calls,
        tool_calls=tool_calls,
    )


def used(usage: Usage, wall_ms: int = 0) -> Sum:
    """The limited units of a usage report."""
    tokens = usage.input_tokens + usage.output_tokens
    return Sum(tokens, usage.cost_usd_micros, usage.model_calls, usage.tool_calls, wall_ms)


def scope_limits(scopes: Sequence[Scope]) -> tuple[ScopeLimit, ...]:
    """As the journal has them."""
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
            Sum(
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
    """As the Redis ledger has them."""
    return json.dumps([[name, *limit, until] for name, limit, until in scopes], separators=(",", ":"))


def scopes_from_json(text: str | bytes) -> tuple[Scope, ...]:
    """Back from the Redis ledger."""
    return tuple(Scope(name, Sum(*limit), until) for name, *limit, until in json.loads(text))


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
    if _stopped(ledger, fresh) is not None:
        return Stopped(fresh.scopes[0].name)
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
    if ledger.done.get(key) == at_unix_ms:
        return Settlement("repeated")
    # Admitted anew by a ledger that had forgotten it: no copy, for copies have the terms of the first.
    ledger.done.pop(key, None)
    known = ledger.entries.get(key)
    if known is not None and known.state in ("open", "lapsed", "settled"):
        return Settlement(
            "repeated",
            known.charged,
            known.ask,
            ceiling=_exceeded(ledger, known),
            stopped=_stopped(ledger, known),
            levels=_levels(ledger, known),
        )
    _open(ledger, key, Entry("open", ask, scopes, at_unix_ms, holders=1), known)
    if known is not None and known.state == "early":
        return _settlement(ledger, ledger.entries[key], known.usage, known.estimated)
    return Settlement("ignored", held=ask)


def settle(ledger: Ledger, key: str, usage: Sum, estimated: bool, said_unix_ms: int = 0) -> Settlement:
    """Charge a call, and tell how its accounts stand then. See charge."""
    if key in ledger.done:
        return Settlement("repeated")
    kind = charge(ledger, key, usage, estimated, said_unix_ms)
    if kind in ("unknown", "ignored"):
        return Settlement(kind)
    entry = ledger.entries[key]
    if kind == "repeated":
        return Settlement(
            "repeated",
            entry.charged,
            entry.ask,
            ceiling=_exceeded(ledger, entry),
            stopped=_stopped(ledger, entry),
            levels=_levels(ledger, entry),
        )
    return _settlement(ledger, entry, usage, estimated)


def charge(ledger: Ledger, key: str, usage: Sum, estimated: bool, said_unix_ms: int = 0) -> Kind:
    """Charge what was really used (the reservation itself when estimated), once per reservation. said_unix_ms: kept of
    what is settled before its reservation is seen."""
    if key in ledger.done:
        return "repeated"
    entry = ledger.entries.get(key)
    if entry is None or entry.state == "released":
        # Not charged: either its Reserved is still to be seen, or it never reserved at all.
        ledger.entries[key] = Entry("early", at_unix_ms=said_unix_ms, usage=usage, estimated=estimated)
        return "unknown"
    if entry.state == "early":
        return "unknown"
    if entry.state == "refused":
        return "ignored"
    if entry.state == "settled":
        return "repeated"
    _charge(ledger, key, entry, usage, estimated)
    return "settled"


def begin(ledger: Ledger, epoch: str) -> None:
    """A rebuild has begun: all that is written under the ledger before it comes too late."""
    if ledger.mark:
        ledger.over.add(ledger.mark)
    ledger.mark = epoch


def holds(ledger: Ledger, key: str) -> bool:
    """Whether a reservation is held, or was and is settled."""
    known = ledger.entries.get(key)
    return known is not None and known.state in ("open", "lapsed", "settled")


def stop(ledger: Ledger, scope: str) -> Balance:
    """The task of this scope was ended early. What it has cost by now."""
    ledger.balances[scope] = ledger.balances.get(scope, Balance())._replace(stopped=True)
    return ledger.balances[scope]


def sweep(ledger: Ledger, now_unix_ms: int) -> None:
    """What nobody settled within its lease counts as spent in full: a crash must not hold others up for ever,
    nor be free."""
    for key, entry in ledger.entries.items():
        if entry.state == "open" and entry.at_unix_ms + ledger.lease_ms <= now_unix_ms:
            _move(ledger, entry, reserved=Sum().minus(entry.ask), spent=entry.ask)
            ledger.entries[key] = replace(entry, state="lapsed")


def _open(ledger: Ledger, key: str, entry: Entry, known: Entry | None) -> None:
    ledger.entries[key] = entry
    ledger.until.update((scope.name, scope.until_unix_ms) for scope in entry.scopes if scope.until_unix_ms)
    _move(ledger, entry, reserved=entry.ask)
    if known is not None and known.state == "early":
        _charge(ledger, key, entry, known.usage, known.estimated)


def _charge(ledger: Ledger, key: str, entry: Entry, usage: Sum, estimated: bool) -> None:
    charged = entry.ask._replace(wall_ms=usage.wall_ms) if estimated else usage
    if entry.state == "open":
        _move(ledger, entry, reserved=NOTHING.minus(entry.ask), spent=charged, settled=1)
    else:
        _move(ledger, entry, spent=charged.minus(entry.ask), settled=1)
    ledger.entries[key] = Entry(
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


def _settlement(ledger: Ledger, entry: Entry, usage: Sum, estimated: bool) -> Settlement:
    over = not estimated and usage.beyond(entry.ask)
    return Settlement(
        "settled",
        entry.charged,
        entry.ask,
        over,
        _exceeded(ledger, entry),
        _stopped(ledger, entry),
        _levels(ledger, entry),
    )


def _move(ledger: Ledger, entry: Entry, reserved: Sum = NOTHING, spent: Sum = NOTHING, settled: int = 0) -> None:
    balances = ledger.balances
    for name, _, _ in entry.scopes:
        old = balances.get(name, EMPTY)
        balances[name] = Balance(
            old.reserved if reserved is NOTHING else old.reserved.plus(reserved),
            old.spent if spent is NOTHING else old.spent.plus(spent),
            old.settled + settled,
            old.stopped,
        )


def _stopped(ledger: Ledger, entry: Entry) -> Balance | None:
    """The first scope of a call is its task."""
    balance = ledger.balances.get(entry.scopes[0].name) if entry.scopes else None
    return balance if balance is not None and balance.stopped else None


def _first(ledger: Ledger, entry: Entry, *, with_reserved: bool) -> Ceiling | None:
    """The first limit that the ask does not fit under."""
    for name, limit, _ in entry.scopes:
        balance = ledger.balances.get(name, Balance())
        for unit in _UNITS:
            spent, held = getattr(balance.spent, unit), getattr(balance.reserved, unit)
            asked, most = getattr(entry.ask, unit), getattr(limit, unit)
            if spent + asked + (held if with_reserved else 0) > most:
                return Ceiling(name, unit, spent, held, asked, most)
    return None


def _exceeded(ledger: Ledger, entry: Entry) -> Ceiling | None:
    """The first scope that has spent more than its limit: only an under-estimate can get there."""
    for name, limit, _ in entry.scopes:
        balance = ledger.balances.get(name, Balance())
        for unit in _UNITS:
            spent, most = getattr(balance.spent, unit), getattr(limit, unit)
            if spent > most:
                return Ceiling(name, unit, spent, getattr(balance.reserved, unit), 0, most)
    return None


def _levels(ledger: Ledger, entry: Entry) -> tuple[Level, ...]:
    """Of every ceiling over the accounts of a call."""
    return tuple(
        Level(name, unit, getattr(ledger.balances.get(name, Balance()).spent, unit), most, until)
        for name, limit, until in entry.scopes
        for unit in _UNITS
        if (most := getattr(limit, unit)) < UNLIMITED
    )


_UNITS: tuple[Unit, ...] = ("cost_usd_micros", "tokens", "model_calls", "tool_calls", "wall_ms")
