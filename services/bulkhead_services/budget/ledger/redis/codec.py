"""The ledger's values as they look in Redis and in the answers of ledger.lua. Pure.

In: sums, entries, balances, and the texts and rows that stand for them. Out: the other of the two.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from bulkhead_services.budget.ledger.model import (
    Balance,
    CeilingLevel,
    MetCeiling,
    ReservationEntry,
    SettlementResult,
    UnitSums,
    scopes_from_json,
    scopes_json,
)

FORM = struct.Struct("<12d")
"""A balance, as ledger.lua packs it; doubles are exact up to 2^53, as the numbers of Lua are."""


def info_value(reply: Any, name: str) -> str:
    """One line of what INFO tells; "" when it is not there."""
    if isinstance(reply, dict):
        return str(reply.get(name, ""))
    text = reply.decode() if isinstance(reply, bytes) else str(reply)
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return ""


def sum_text(of: UnitSums) -> str:
    """A sum: its units in order."""
    return f"{of[0]},{of[1]},{of[2]},{of[3]},{of[4]}"


def sum_in(text: str) -> UnitSums:
    """Back."""
    return UnitSums(*(int(part) for part in text.split(",") if part))


def ceiling_in(text: str) -> MetCeiling:
    """Which limit stands in the way."""
    # A person's name may hold anything.
    scope, unit, spent, reserved, requested, limit = text.rsplit("|", 5)
    return MetCeiling(scope, unit, int(spent), int(reserved), int(requested), int(limit))  # type: ignore[arg-type]


def level_in(text: str) -> CeilingLevel:
    """Level of an account."""
    scope, unit, spent, limit, until = text.rsplit("|", 4)
    return CeilingLevel(scope, unit, int(spent), int(limit), int(until))  # type: ignore[arg-type]


def settlement_in(told: list[Any]) -> SettlementResult:
    """The answer to a settlement, or to what was restored."""
    kind: Any = told[0]
    if len(told) == 1:
        return SettlementResult(kind)
    ceiling = ceiling_in(told[4]) if told[4] else None
    stopped = balance_in(told[5]) if told[5] else None
    return SettlementResult(
        kind,
        sum_in(told[1]),
        sum_in(told[2]),
        told[3] == "1",
        ceiling,
        stopped,
        tuple(level_in(level_text) for level_text in told[6]),
    )


def fields_of(entry: ReservationEntry) -> list[str]:
    """A reservation as the names and values of a hash, by turns."""
    return [
        "state",
        entry.state,
        "ask",
        sum_text(entry.ask),
        "at",
        str(entry.at_unix_ms),
        "scopes",
        _scopes_json(entry.scopes),
        "holders",
        str(entry.holders),
        "charged",
        sum_text(entry.charged),
        "usage",
        sum_text(entry.usage),
        "estimated",
        str(int(entry.estimated)),
        "ceiling",
        "|".join(str(part) for part in entry.ceiling) if entry.ceiling else "",
    ]


_scopes_json = lru_cache(maxsize=4_096)(scopes_json)
"""Calls of one step have the same accounts."""


def entry_in(row: dict[str, str]) -> ReservationEntry:
    """Back."""
    return ReservationEntry(
        state=row["state"],  # type: ignore[arg-type]
        ask=sum_in(row.get("ask", "")),
        scopes=scopes_from_json(row.get("scopes") or "[]"),
        at_unix_ms=int(row.get("at") or 0),
        holders=int(row.get("holders") or 0),
        charged=sum_in(row.get("charged", "")),
        usage=sum_in(row.get("usage", "")),
        estimated=row.get("estimated") == "1",
        ceiling=ceiling_in(row["ceiling"]) if row.get("ceiling") else None,
    )


def pack_balance(balance: Balance) -> bytes:
    """A balance as a row."""
    return FORM.pack(*balance.reserved, *balance.spent, balance.settled, balance.stopped)


def balance_of(row: bytes) -> Balance:
    """Back."""
    return _balance_of_numbers(FORM.unpack(row))


def balance_in(text: str) -> Balance:
    """A balance in an answer: the same numbers as text."""
    return _balance_of_numbers(text.split(","))


def _balance_of_numbers(numbers: Sequence[Any]) -> Balance:
    values = [int(number) for number in numbers]
    return Balance(UnitSums(*values[:5]), UnitSums(*values[5:10]), values[10], values[11] == 1)
