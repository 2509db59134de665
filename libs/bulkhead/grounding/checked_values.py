"""The values of a sentence: each one's source, or how it follows from others that have one. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice

from bulkhead.grounding import claims
from bulkhead.grounding.arithmetic import MAX_OPERANDS, find_derivation
from bulkhead.grounding.language import FACTORS, fold_text
from bulkhead.grounding.sources import GroundingSources, SourceUnit
from bulkhead.grounding.values import TextValue, ValueIndex

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
    """Something that is wrong with a sentence: a code for programs, and words for people and for the next attempt."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class SentenceTerms:
    """A sentence as it is compared. novel: its words that the question does not hold."""

    words: frozenset[str]
    novel: frozenset[str]
    values: tuple[TextValue, ...]
    names: tuple[TextValue, ...]
    called: frozenset[str] = frozenset()
    """Words, names and numbers of the sentence."""
    factors: tuple[TextValue, ...] = ()
    equation: bool = False
    """It writes an equation out, and that is right."""
    """Of `half` and the like: they are no claims, and others may be worked out with them."""


@dataclass(slots=True)
class Support:
    """Sources that say a sentence, as far as they are found."""

    source_indexes: list[int] = field(default_factory=list)
    unit_of_source: dict[int, int] = field(default_factory=dict)
    """The unit of each source that says most of it."""


@dataclass(frozen=True, slots=True)
class ValueCheck:
    """Outcome of checking a sentence's values. derivation: the operation that makes a computed one."""

    flaws: tuple[Flaw, ...] = ()
    derivation: str = ""
    further_sources: tuple[int, ...] = ()


def identifiers_in(found: Sequence[TextValue]) -> tuple[TextValue, ...]:
    """The names of things among values."""
    return tuple(row for row in found if row.kind == "identifier")


def find_factors(bare: str, given: str = "") -> tuple[TextValue, ...]:
    """Numbers that words stand for: `half`; months of a year, where both are spoken of."""
    folded = fold_text(bare)
    words = [FACTORS[token] for token in re.findall(r"[^\W\d_]+", folded) if token in FACTORS]
    spoken_text = f"{folded} {fold_text(given[:4_000])}"
    words += [
        str(n) for a, b, n in _PERIODS if _PERIOD_WORDS[a].search(spoken_text) and _PERIOD_WORDS[b].search(spoken_text)
    ]
    return tuple(TextValue("number", frozenset({Decimal(number)}), number, 0, 0) for number in dict.fromkeys(words))


def check_values(
    seen: SentenceTerms,
    support: Support,
    sources: GroundingSources,
    recent_values: Sequence[TextValue],
    stated_values: ValueIndex,
) -> ValueCheck:
    """Find each value's source. recent_values, stated_values: of the sentences before, which have one."""
    flaws: list[Flaw] = []
    further_sources: list[int] = []
    loose: list[TextValue] = []
    fresh = [row for row in seen.values if not sources.is_given(row) and not _is_conversion(row, seen)]
    if len(fresh) > MAX_VALUES:
        flaws.append(Flaw("unfounded_number", f"{len(fresh)} values in one sentence; at most {MAX_VALUES} are checked"))
    for value in fresh[:MAX_VALUES]:
        holding = sources.units_holding(value)
        near = [index for index in holding if _speaks_of(index, seen, support, sources)]
        if not value.is_claim:
            if _has_rival(value, support, sources, holding):
                loose.append(value)
        elif not near:
            if holding or value not in stated_values:
                loose.append(value)
        elif flaw := _flaw_of_another(value, seen, near, sources):
            # It may as well be what the sentence works out.
            if not find_derivation(value, [row for row in seen.values if row.start < value.start][-MAX_OPERANDS:]):
                flaws.append(flaw)
        elif not any(sources.units[index].source in support.source_indexes for index in near):
            closest = max(near, key=lambda index: len(sources.units[index].words & seen.words))
            further_sources.append(sources.units[closest].source)
    how, underived = _derive_values(loose, seen, support, sources, recent_values)
    for value in underived:
        is_held_elsewhere = sources.units_holding(value) and value.is_claim
        message = f"{value.raw} is said of something else" if is_held_elsewhere else f"no source holds {value.raw}"
        code = "value_of_another" if is_held_elsewhere else "unfounded_number"
        flaws.append(Flaw(code, f"{message}, and nothing in the sources makes it"))
    return ValueCheck(tuple(flaws[:4]), how, tuple(further_sources))


def _is_conversion(value: TextValue, seen: SentenceTerms) -> bool:
    """True for a number that everybody multiplies with, in an equation that is written out."""
    return seen.equation and value.raw in _CONVERSIONS


def _derive_values(
    loose: Sequence[TextValue],
    seen: SentenceTerms,
    support: Support,
    sources: GroundingSources,
    known: Sequence[TextValue],
) -> tuple[str, list[TextValue]]:
    """Operation that makes the first of the values of others, and the values that none makes. One may make another."""
    if not loose:
        return "", []
    beside = [*islice(_sourced_values(seen, sources, loose), MAX_OPERANDS), *seen.factors]
    how, underived = "", list(loose)
    for _ in range(3):
        before, underived = underived, []
        for value in before:
            operation = find_derivation(value, _candidate_operands(beside, support, sources, known))
            if operation:
                how = how or operation
                # What was worked out last comes first: a sum is made of it.
                beside.insert(0, value)
            else:
                underived.append(value)
        if not underived or len(underived) == len(before):
            break
    return how, underived


def _sourced_values(seen: SentenceTerms, sources: GroundingSources, loose: Sequence[TextValue]) -> list[TextValue]:
    """The values of a sentence that have a source of their own, or stand in the question."""
    return [row for row in seen.values[:MAX_VALUES] if row not in loose]


def _candidate_operands(
    beside: Sequence[TextValue], support: Support, sources: GroundingSources, known: Sequence[TextValue]
) -> list[TextValue]:
    """Numbers and dates that one may be made of: of its sentence, the question, what was said before, its sources."""
    best = [
        support.unit_of_source[source_index]
        for source_index in support.source_indexes or support.unit_of_source
        if source_index in support.unit_of_source
    ][:3]
    near = [row for index in dict.fromkeys(best) for row in sources.units[index].values if row.kind != "identifier"]
    operands: list[TextValue] = []
    for row in (*beside, *sources.given_values[:MAX_VALUES], *reversed(known[-6:]), *near[:MAX_VALUES]):
        if row.kind != "identifier" and not any(
            row.is_same(operand) and row.unit == operand.unit for operand in operands
        ):
            operands.append(row)
    return operands


def _speaks_of(index: int, seen: SentenceTerms, support: Support, sources: GroundingSources) -> bool:
    """True when a unit that holds a value speaks of what the sentence, or else the question, speaks of. Of
    sources in another language no word tells.
    """
    unit: SourceUnit = sources.units[index]
    if sources.sources[unit.source].kind == "tool_result" or not support.unit_of_source:
        return True
    asked_words = seen.words | sources.given_words
    near_words = frozenset().union(*(sources.units[near].words for near in sources.units_near(index)))
    return (
        bool(near_words & asked_words)
        or not sources.words[unit.source] & asked_words
        or unit.source in support.source_indexes
    )


def _has_rival(value: TextValue, support: Support, sources: GroundingSources, holding: Sequence[int]) -> bool:
    """A counting word is a claim where the source that says the sentence has another number of the same unit."""
    same = (row for unit_index in holding for row in sources.units[unit_index].values if value.is_same(row))
    if not value.unit or any(row.unit == value.unit for row in same):
        return False
    near = (
        spot
        for source_index in support.source_indexes
        if source_index in support.unit_of_source
        for spot in sources.units_near(support.unit_of_source[source_index])
    )
    return any(row.kind == "number" and row.unit == value.unit for spot in near for row in sources.units[spot].values)


def _flaw_of_another(
    value: TextValue, seen: SentenceTerms, holding: Sequence[int], sources: GroundingSources
) -> Flaw | None:
    """A value that stands only beside another article, or in another row of the table, than the sentence names."""
    names = seen.names or identifiers_in(sources.given_values)
    where = [sources.units[index] for index in holding]
    named = [row for unit in where for row in identifiers_in(unit.values)]
    if names and named and all(identifiers_in(unit.values) for unit in where):
        is_known = any(
            any(name.is_same(row) for row in identifiers_in(unit.values)) for name in names for unit in sources.units
        )
        if is_known and not any(name.is_same(row) for name in names for row in named):
            return Flaw("value_of_another", f"{value.raw} is that of {named[0].raw}, not of {names[0].raw}")
    if not all(unit.labels for unit in where):
        return None
    asked_terms = seen.called | sources.given_called
    if any(_is_named(unit, asked_terms) for unit in where):
        return None
    source = where[0].source
    begin, end = sources.spans[source]
    for unit in sources.units[begin:end]:
        if _is_named(unit, asked_terms) and not any(value.is_same(row) for row in unit.values):
            theirs, ours = (" ".join(sorted(row.labels[0])) for row in (where[0], unit))
            return Flaw("value_of_another", f"{value.raw} stands in the row {theirs}, not in that of {ours}")
    return None


def _is_named(unit: SourceUnit, asked: frozenset[str]) -> bool:
    """True for a row that the sentence or the question names."""
    return any(label <= asked for label in unit.labels)


def flaw_of_other_role(found: Sequence[TextValue], bare: str, sources: GroundingSources) -> Flaw | None:
    """A date that is in its source the date of something else: when it is due, not from when it holds."""
    roles = claims.date_roles(bare)
    for value in found:
        if value.kind != "date" or not roles:
            continue
        units = [sources.units[index] for index in sources.units_holding(value)]
        if units and all(unit.roles and not unit.roles & roles for unit in units):
            theirs, ours = ("/".join(sorted(row)) for row in (units[0].roles, roles))
            return Flaw(
                "value_of_another", f"{value.raw} is a date of another kind in its source ({theirs}, not {ours})"
            )
    return None
