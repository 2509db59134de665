"""The ledger's values: amounts, accounts, reservations and the answers to an ask or a settlement. Pure data."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from bulkhead_contracts.bounds import UNLIMITED

Unit = Literal["cost_usd_micros", "tokens", "model_calls", "tool_calls", "wall_ms"]
State = Literal["open", "lapsed", "settled", "released", "refused", "early"]
Kind = Literal["settled", "repeated", "unknown", "ignored"]
"""The outcome of a settlement; see Settlement."""


class Sum(NamedTuple):
    """All limited units together. Nobody asks for wall_ms: a call's timeout bounds it, and it is charged after."""

    tokens: int = 0
    cost_usd_micros: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    wall_ms: int = 0

    def plus(self, other: "Sum") -> "Sum":
        """Every unit added."""
        # Unit by unit: a rebuild adds some ten times for every fact.
        return Sum(self[0] + other[0], self[1] + other[1], self[2] + other[2], self[3] + other[3], self[4] + other[4])

    def minus(self, other: "Sum") -> "Sum":
        """Every unit subtracted."""
        return Sum(self[0] - other[0], self[1] - other[1], self[2] - other[2], self[3] - other[3], self[4] - other[4])

    def beyond(self, other: "Sum") -> bool:
        """More than `other` in any unit that is asked for."""
        return any(mine > theirs for mine, theirs in zip(self[:ASKED_UNITS], other[:ASKED_UNITS], strict=True))


ASKED_UNITS = 4
NOTHING = Sum()
NO_LIMIT = Sum(UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED)


class Scope(NamedTuple):
    """One account and its ceiling: `task:acme:t1`, `day:acme:2026-11-21`. until_unix_ms: see ScopeLimit."""

    name: str
    limit: Sum
    until_unix_ms: int = 0


class Balance(NamedTuple):
    """What one scope holds back for open calls, what it has spent, and by how many settlements.

    stopped: the task was ended early; what settles from now on is told to whoever shows what it cost.
    """

    reserved: Sum = Sum()
    spent: Sum = Sum()
    settled: int = 0
    stopped: bool = False


EMPTY = Balance()


class Ceiling(NamedTuple):
    """The limit that stands in the way, with the amounts as they were found."""

    scope: str
    unit: Unit
    spent: int
    reserved: int
    asked: int
    limit: int


class Level(NamedTuple):
    """How far an account has come under one of its ceilings."""

    scope: str
    unit: Unit
    spent: int
    limit: int
    until_unix_ms: int = 0


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
class Stopped:
    """The task was ended: it is given no money for another call."""

    scope: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """The first answer under this id does not cover this ask: it held less, or it is settled already."""

    held: Sum
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """`settled` now; `repeated` (nothing changed); `unknown` (kept until its reservation shows up); `ignored`.

    over: the call used more than its reservation. ceiling: a scope that has now spent more than its limit. stopped:
    what the task has cost by now, when it was ended early. levels: of every ceiling that its accounts have.
    """

    kind: Kind
    charged: Sum = Sum()
    held: Sum = Sum()
    over: bool = False
    ceiling: Ceiling | None = None
    stopped: Balance | None = None
    levels: tuple[Level, ...] = ()


@dataclass(frozen=True, slots=True)
class Stale:
    """The tenant's limits have changed, or nobody has looked for a while: read them again and ask again.

    revision: at least this one.
    """

    revision: int


Answer = Held | Denied | Waiting | Stopped | Conflict | Stale
