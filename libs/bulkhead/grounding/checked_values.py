"""The values of a sentence: each one's source, or how it follows from others that have one. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice

from bulkhead.grounding import claims
from bulkhead.grounding.arithmetic import MAX_OPERANDS, derived
from bulkhead.grounding.language import FACTORS, fold
from bulkhead.grounding.sources import Sources, Unit
from bulkhead.grounding.values import Value, ValueIndex

MAX_VALUES = 48
"""Values of one sentence that are checked."""
_CONVERSIONS = frozenset({"2", "3", "4", "7", "12", "24", "30", "52", "60", "100", "365", "1000", "1,000"})
_PERIODS = (("year", "month", 12), ("year", "quarter", 4), ("year", "week", 52))
_PERIOD_WORDS = {
    "year": re.compile(r"\b(?:year|yearly|annual|annually|jahr\w*|jahrlich|an|annuel\w*|annee|ano|anual)\b"),
    "month": re.compile(r"\b(?:month\w*|monat\w*|mois|mensuel\w*|mes|mensual)\b"),
    "quarter": re.compile(r"\b(?:quarter\w*|quartal\w*|vierteljahr\w*|trimestr\w*)\b"),
    "week": re.compile(r"\b(?:week\w*|woche\w*|semaine\w*|semana\w*)\b"),
}


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a sentence: a code for programs, and words for people and for the next attempt."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A sentence as it is compared. novel: its words that the question does not hold."""

    words: frozenset[str]
    novel: frozenset[str]
    values: tuple[Value, ...]
    names: tuple[Value, ...]
    called: frozenset[str] = frozenset()
    """Words, names and numbers of the sentence."""
    factors: tuple[Value, ...] = ()
    equation: bool = False
    """It writes an equation out, and that is right."""
    """Of `half` and the like: they are no claims, and others may be worked out with them."""


@dataclass(slots=True)
class Support:
    """Sources that say a sentence, as far as they are found."""

    at: list[int] = field(default_factory=list)
    units: dict[int, int] = field(default_factory=dict)
    """The unit of each source that says most of it."""


@dataclass(frozen=True, slots=True)
class ValueCheck:
    """What came of a sentence's values. how: the operation that makes a computed one; more: sources besides."""

    flaws: tuple[Flaw, ...] = ()
    how: str = ""
    more: tuple[int, ...] = ()


def names_in(found: Sequence[Value]) -> tuple[Value, ...]:
    """The names of things among values."""
    return tuple(row for row in found if row.kind == "identifier")


def factors(bare: str, given: str = "") -> tuple[Value, ...]:
    """Numbers that words stand for: `half`; months of a year, where both are spoken of."""
    folded = fold(bare)
    words = [FACTORS[word] for word in re.findall(r"[^\W\d_]+", folded) if word in FACTORS]
    whole = f"{folded} {fold(given[:4_000])}"
    words += [str(n) for a, b, n in _PERIODS if _PERIOD_WORDS[a].search(whole) and _PERIOD_WORDS[b].search(whole)]
    return tuple(Value("number", frozenset({Decimal(word)}), word, 0, 0) for word in dict.fromkeys(words))


def check(seen: Seen, support: Support, sources: Sources, known: Sequence[Value], said: ValueIndex) -> ValueCheck:
    """Find each value's source. known, said: values of the sentences before, which have one."""
    flaws: list[Flaw] = []
    more: list[int] = []
    loose: list[Value] = []
    fresh = [row for row in seen.values if not sources.is_given(row) and not _conversion(row, seen)]
    if len(fresh) > MAX_VALUES:
        flaws.append(Flaw("unfounded_number", f"{len(fresh)} values in one sentence; at most {MAX_VALUES} are checked"))
    for value in fresh[:MAX_VALUES]:
        holding = sources.holding(value)
        near = [index for index in holding if _speaks_of(index, seen, support, sources)]
        if not value.strong:
            if _has_rival(value, support, sources, holding):
                loose.append(value)
        elif not near:
            if holding or value not in said:
                loose.append(value)
        elif flaw := _another_things(value, seen, near, sources):
            # It may as well be what the sentence works out.
            if not derived(value, [row for row in seen.values if row.start < value.start][-MAX_OPERANDS:]):
                flaws.append(flaw)
        elif not any(sources.units[index].source in support.at for index in near):
            closest = max(near, key=lambda index: len(sources.units[index].words & seen.words))
            more.append(sources.units[closest].source)
    how, left = _worked_out(loose, seen, support, sources, known)
    for value in left:
        other = sources.holding(value) and value.strong
        what = f"{value.raw} is said of something else" if other else f"no source holds {value.raw}"
        code = "value_of_another" if other else "unfounded_number"
        flaws.append(Flaw(code, f"{what}, and nothing in the sources makes it"))
    return ValueCheck(tuple(flaws[:4]), how, tuple(more))


def _conversion(value: Value, seen: Seen) -> bool:
    """Whether it is a number that everybody multiplies with, in an equation that is written out."""
    return seen.equation and value.raw in _CONVERSIONS


def _worked_out(
    loose: Sequence[Value], seen: Seen, support: Support, sources: Sources, known: Sequence[Value]
) -> tuple[str, list[Value]]:
    """How the first of the values follows from others, and those that do not. One may follow from another."""
    if not loose:
        return "", []
    beside = [*islice(_founded(seen, sources, loose), MAX_OPERANDS), *seen.factors]
    how, left = "", list(loose)
    for _ in range(3):
        before, left = left, []
        for value in before:
            operation = derived(value, _operands(beside, support, sources, known))
            if operation:
                how = how or operation
                # What was worked out last comes first: a sum is made of it.
                beside.insert(0, value)
            else:
                left.append(value)
        if not left or len(left) == len(before):
            break
    return how, left


def _founded(seen: Seen, sources: Sources, loose: Sequence[Value]) -> list[Value]:
    """The values of a sentence that have a source of their own, or stand in the question."""
    return [row for row in seen.values[:MAX_VALUES] if row not in loose]


def _operands(beside: Sequence[Value], support: Support, sources: Sources, known: Sequence[Value]) -> list[Value]:
    """Numbers and dates that one may be made of: of its sentence, the question, what was said before, its sources."""
    best = [support.units[at] for at in support.at or support.units if at in support.units][:3]
    near = [row for index in dict.fromkeys(best) for row in sources.units[index].values if row.kind != "identifier"]
    kept: list[Value] = []
    for row in (*beside, *sources.given_values[:MAX_VALUES], *reversed(known[-6:]), *near[:MAX_VALUES]):
        if row.kind != "identifier" and not any(row.same(other) and row.unit == other.unit for other in kept):
            kept.append(row)
    return kept


def _speaks_of(index: int, seen: Seen, support: Support, sources: Sources) -> bool:
    """Whether a unit that holds a value speaks of what the sentence, or else the question, speaks of. Of sources in
    another language no word tells."""
    unit: Unit = sources.units[index]
    if sources.sources[unit.source].kind == "tool_result" or not support.units:
        return True
    asked = seen.words | sources.given_words
    held = frozenset().union(*(sources.units[near].words for near in sources.near(index)))
    return bool(held & asked) or not sources.words[unit.source] & asked or unit.source in support.at


def _has_rival(value: Value, support: Support, sources: Sources, holding: Sequence[int]) -> bool:
    """A counting word is a claim where the source that says the sentence has another number of the same unit."""
    same = (row for at in holding for row in sources.units[at].values if value.same(row))
    if not value.unit or any(row.unit == value.unit for row in same):
        return False
    near = (spot for at in support.at if at in support.units for spot in sources.near(support.units[at]))
    return any(row.kind == "number" and row.unit == value.unit for spot in near for row in sources.units[spot].values)


def _another_things(value: Value, seen: Seen, holding: Sequence[int], sources: Sources) -> Flaw | None:
    """A value that stands only beside another article, or in another row of the table, than the sentence names."""
    names = seen.names or names_in(sources.given_values)
    where = [sources.units[index] for index in holding]
    named = [row for unit in where for row in names_in(unit.values)]
    if names and named and all(names_in(unit.values) for unit in where):
        known = any(any(name.same(row) for row in names_in(unit.values)) for name in names for unit in sources.units)
        if known and not any(name.same(row) for name in names for row in named):
            return Flaw("value_of_another", f"{value.raw} is that of {named[0].raw}, not of {names[0].raw}")
    if not all(unit.labels for unit in where):
        return None
    asked = seen.called | sources.given_called
    if any(_is_named(unit, asked) for unit in where):
        return None
    source = where[0].source
    begin, end = sources.spans[source]
    for unit in sources.units[begin:end]:
        if _is_named(unit, asked) and not any(value.same(row) for row in unit.values):
            theirs, ours = (" ".join(sorted(row.labels[0])) for row in (where[0], unit))
            return Flaw("value_of_another", f"{value.raw} stands in the row {theirs}, not in that of {ours}")
    return None


def _is_named(unit: Unit, asked: frozenset[str]) -> bool:
    """Whether a row is one that the sentence or the question names."""
    return any(label <= asked for label in unit.labels)


def other_role(found: Sequence[Value], bare: str, sources: Sources) -> Flaw | None:
    """A date that is in its source the date of something else: when it is due, not from when it holds."""
    roles = claims.roles(bare)
    for value in found:
        if value.kind != "date" or not roles:
            continue
        units = [sources.units[index] for index in sources.holding(value)]
        if units and all(unit.roles and not unit.roles & roles for unit in units):
            theirs, ours = ("/".join(sorted(row)) for row in (units[0].roles, roles))
            return Flaw(
                "value_of_another", f"{value.raw} is a date of another kind in its source ({theirs}, not {ours})"
            )
    return None
