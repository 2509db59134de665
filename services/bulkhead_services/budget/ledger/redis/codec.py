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

BALANCE_FORM = struct.Struct("<12d")
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


def format_sum(units: UnitSums) -> str:
    """A sum: its units in order."""
    return f"{units[0]},{units[1]},{units[2]},{units[3]},{units[4]}"


def parse_sum(text: str) -> UnitSums:
    """Back."""
    return UnitSums(*(int(part) for part in text.split(",") if part))


def parse_ceiling(text: str) -> MetCeiling:
    """Which limit stands in the way."""
    # A person's name may hold anything.
    scope, unit, spent, reserved, requested, limit = text.rsplit("|", 5)
    return MetCeiling(scope, unit, int(spent), int(reserved), int(requested), int(limit))  # type: ignore[arg-type]


def parse_level(text: str) -> CeilingLevel:
    """Level of an account."""
    scope, unit, spent, limit, until = text.rsplit("|", 4)
    return CeilingLevel(scope, unit, int(spent), int(limit), int(until))  # type: ignore[arg-type]


def parse_settlement(reply: list[Any]) -> SettlementResult:
    """The answer to a settlement, or to what was restored."""
    kind: Any = reply[0]
    if len(reply) == 1:
        return SettlementResult(kind)
    ceiling = parse_ceiling(reply[4]) if reply[4] else None
    stopped = parse_balance(reply[5]) if reply[5] else None
    return SettlementResult(
        kind,
        parse_sum(reply[1]),
        parse_sum(reply[2]),
        reply[3] == "1",
        ceiling,
        stopped,
        tuple(parse_level(level_text) for level_text in reply[6]),
    )


def hash_fields(entry: ReservationEntry) -> list[str]:
    """A reservation as the names and values of a hash, by turns."""
    return [
        "state",
        entry.state,
        "ask",
        format_sum(entry.ask),
        "at",
        str(entry.at_unix_ms),
        "scopes",
        _scopes_json(entry.scopes),
        "holders",
        str(entry.holders),
        "charged",
        format_sum(entry.charged),
        "usage",
        format_sum(entry.usage),
        "estimated",
        str(int(entry.estimated)),
        "ceiling",
        "|".join(str(part) for part in entry.ceiling) if entry.ceiling else "",
    ]


_scopes_json = lru_cache(maxsize=4_096)(scopes_json)
"""Calls of one step have the same accounts."""


def parse_entry(row: dict[str, str]) -> ReservationEntry:
    """Back."""
    return ReservationEntry(
        state=row["state"],  # type: ignore[arg-type]
        ask=parse_sum(row.get("ask", "")),
        scopes=scopes_from_json(row.get("scopes") or "[]"),
        at_unix_ms=int(row.get("at") or 0),
        holders=int(row.get("holders") or 0),
        charged=parse_sum(row.get("charged", "")),
        usage=parse_sum(row.get("usage", "")),
        estimated=row.get("estimated") == "1",
        ceiling=parse_ceiling(row["ceiling"]) if row.get("ceiling") else None,
    )


def pack_balance(balance: Balance) -> bytes:
    """A balance as a row."""
    return BALANCE_FORM.pack(*balance.reserved, *balance.spent, balance.settled, balance.stopped)


def unpack_balance(row: bytes) -> Balance:
    """Back."""
    return _balance_of_numbers(BALANCE_FORM.unpack(row))


def parse_balance(text: str) -> Balance:
    """A balance in an answer: the same numbers as text."""
    return _balance_of_numbers(text.split(","))


def _balance_of_numbers(numbers: Sequence[Any]) -> Balance:
    values = [int(number) for number in numbers]
    return Balance(UnitSums(*values[:5]), UnitSums(*values[5:10]), values[10], values[11] == 1)
