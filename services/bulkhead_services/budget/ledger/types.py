"""The ledger's values: amounts, accounts, reservations and the answers to an ask or a settlement. Pure data."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from bulkhead_contracts.bounds import UNLIMITED

Unit = Literal["cost_usd_micros", "tokens", "model_calls", "tool_calls", "wall_ms"]
State = Literal["open", "lapsed", "settled", "released", "refused", "early"]
Kind = Literal["settled", "repeated", "unknown", "ignored"]
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


EMPTY = Balance()


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

    state: State
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

    kind: Kind
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


Answer = (
    ReservationHeld | ReservationDenied | ReservationWaiting | ReservationStopped | ReservationConflict | StaleLimits
)
