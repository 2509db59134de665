"""Everyday arithmetic that a sentence plainly supports. Enters: sentences, question. Leaves: a calculation or None.

Three kinds: a rate times a count (`0.30 per day`, 12 days; `twice a week`, 6 weeks), the sum or difference of what
earlier steps found, the sum or average of a table's column.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from infra.offline_model.claims import CAP_WORD, Topic
from infra.offline_model.extracting import look
from infra.offline_model.pool import Sentence
from infra.offline_model.quantities import Money, find_money, plain
from infra.offline_model.questions import COUNT_WORDS, codes, count_of
from infra.offline_model.text import STOP, stem, stems, words

UNIT = r"(second|minute|hour|day|night|week|month|year|person|item|piece|page|mile|kilomet(?:er|re)|child|guest|copy)"
PER = re.compile(rf"^\s?(?:is (?:due|charged|payable) )?(?:per|a|an|each|every|for each|for every|/) ?{UNIT}s?\b", re.I)
ADVERBIAL = {"daily": "day", "weekly": "week", "monthly": "month", "yearly": "year", "annual": "year", "nightly": "night"}
TIMES = re.compile(rf"\b(once|twice|(?:{'|'.join(COUNT_WORDS)}|\d+) times) (?:a|per|every|each|an) {UNIT}\b", re.I)
COUNT = re.compile(rf"\b(\d{{1,6}}|{'|'.join(COUNT_WORDS)})[- ]{UNIT}s?\b", re.I)
PARTS_OF = {("year", "month"): 12, ("week", "day"): 7, ("day", "hour"): 24, ("hour", "minute"): 60}
RATIO = re.compile(
    r"\bhow many (?:times|(?:days|weeks|months|years)(?:'s?)?) (?:of |the |worth of )*(.{2,60}?) (?:is|are|does|makes?|equals?)"
    r" (?:the )?(.{2,60}?)(?: (?:cover|equal|correspond|make|come to).*)?\s*[?.]?$",
    re.I,
)
SUM = re.compile(r"\b(?:sum|total|add|together|altogether|combined?)\b", re.I)
DIFFERENCE = re.compile(r"\bdifference\b|\bsubtract\b|\bhow much (?:more|less|cheaper)\b", re.I)
MOST = re.compile(r"\b(?:highest|most|best|largest|maximum|biggest)\b", re.I)
LEAST = re.compile(r"\b(?:lowest|least|worst|smallest|minimum|fewest)\b", re.I)
AVERAGE = re.compile(r"\b(?:average|mean)\b", re.I)
ADDS_UP = re.compile(r"\bhow (?:many|much)\b|\b(?:total|sum|altogether|overall|calculate|compute)\b", re.I)
NUMERIC = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
TERMS_MAX = 40  # a calculator takes so long an expression


@dataclass(frozen=True)
class Calculation:
    """An expression, what it counts in and the sentences that give its numbers."""

    expression: str
    currency: str
    sentences: tuple[Sentence, ...]
    answers: tuple[Sentence, ...] = ()
    """When nothing has to be computed: the sentences that are the answer."""


def calculation(
    found: Sequence[Sentence], sentences: Sequence[Sentence], task: str, known: str
) -> Calculation | None:
    """From the sentences that answer (best first), or from all: a table's rows, two amounts to compare."""
    rows = [sentence for sentence in sentences if sentence.row]
    return of_rows(rows, task) or _ratio(sentences, task) or _rate(found, task, known)


def _ratio(sentences: Sequence[Sentence], task: str) -> Calculation | None:
    """`How many months of rent is the deposit?`: the one amount divided by the other."""
    asked = RATIO.search(task)
    if not asked:
        return None
    picked: list[tuple[Money, Sentence]] = []
    for subject in asked.groups():
        found = look(sentences, Topic(subject, ""))
        pair = next(((money, s) for s in found.sentences[:2] for money in find_money(s.text)), None)
        if not found.sure or pair is None:
            return None
        picked.append(pair)
    (unit, first), (whole, second) = picked
    if unit.currency != whole.currency or first == second or not unit.amount:
        return None
    return Calculation(f"{plain(whole.amount)} / {plain(unit.amount)}", "", (first, second))


def _rate(found: Sequence[Sentence], task: str, known: str) -> Calculation | None:
    if not re.search(r"\bhow (?:much|many)\b|\b(?:calculate|compute|total|sum|cost|costs|work out)\b", task, re.I):
        return None
    counts = [(count_of(m.group(1)), m.group(2).lower()) for m in COUNT.finditer(f"{task} {known}")]
    for sentence in found[:2]:
        for rate, currency, unit in _rates_of(sentence.text):
            for count, counted in counts:
                factor = 1 if counted == unit else PARTS_OF.get((counted, unit), 0)
                if count is None or not factor or (count == 1 and factor == 1):
                    continue
                product = f"{count} * {rate}" if factor == 1 else f"{count} * {factor} * {rate}"
                cap = _cap(found, sentence, currency)
                expression = f"min({plain(cap[0].amount)}, {product})" if cap else product
                return Calculation(expression, currency, (sentence, *((cap[1],) if cap and cap[1] != sentence else ())))
    return None


def _rates_of(text: str) -> list[tuple[str, str, str]]:
    """(value, currency, unit) of what a sentence gives per unit."""
    rates: list[tuple[str, str, str]] = []
    for money in find_money(text):
        if _bounds(text, money):
            continue
        per = PER.match(text[money.end :])
        adverb = next((unit for word, unit in ADVERBIAL.items() if re.search(rf"\b{word}\b", text, re.I)), "")
        if per or adverb:
            rates.append((plain(money.amount), money.currency, per.group(1).lower() if per else adverb))
    for times in TIMES.finditer(text):
        count = count_of(times.group(1).split()[0])
        if count:
            rates.append((str(count), "", times.group(2).lower()))
    return rates


def _bounds(text: str, money: Money) -> bool:
    return bool(CAP_WORD.search(text[max(0, money.start - 30) : money.start]))


def _cap(found: Sequence[Sentence], of: Sentence, currency: str) -> tuple[Money, Sentence] | None:
    for sentence in (of, *(s for s in found if s.source == of.source)):
        for money in find_money(sentence.text):
            if currency and money.currency == currency and _bounds(sentence.text, money):
                return money, sentence
    return None


def of_inputs(inputs: Sequence[Sequence[Sentence]], task: str) -> Calculation | None:
    """The sum or difference of the first amount of each earlier result."""
    sign = "+" if SUM.search(task) else "-" if DIFFERENCE.search(task) else ""
    if not sign or len(inputs) < 2:
        return None
    picked: list[tuple[Money, Sentence]] = []
    for sentences in inputs:
        pair = next(((money, s) for s in sentences for money in find_money(s.text)), None)
        if pair is None:
            return None
        picked.append(pair)
    if len({money.currency for money, _ in picked}) > 1 or (sign == "-" and len(picked) != 2):
        return None
    if sign == "-":
        picked.sort(key=lambda pair: -pair[0].amount)
    expression = f" {sign} ".join(plain(money.amount) for money, _ in picked)
    sources = tuple(dict.fromkeys(sentence for _, sentence in picked))
    return Calculation(f"({expression})" if len(picked) > 2 else expression, picked[0][0].currency, sources)


def of_rows(sentences: Sequence[Sentence], task: str) -> Calculation | None:
    """What a table's rows come to: those that the question picks, in the column that it asks for."""
    rows = [s for s in sentences if s.row and any(name for name, _ in s.row.cells)]
    asked, exact = {stem(w) for w in words(task) if w.lower() not in STOP}, codes(task)
    by_head: dict[tuple[str, ...], list[Sentence]] = {}
    for s in rows:
        assert s.row is not None
        by_head.setdefault((s.source, *(name for name, _ in s.row.cells)), []).append(s)
    best: tuple[int, str, list[Sentence]] | None = None
    for head, own in by_head.items():
        for name in head[1:]:
            hits = len(stems(name) & asked)
            if hits and all(NUMERIC.fullmatch(_cell(s, name)) for s in own) and (best is None or hits > best[0]):
                best = (hits, name, own)
    if best is None:
        return None
    _, column, own = best
    picked = [s for s in own if _picked(s, own, asked, exact)]
    if not picked or (exact and not any(exact & codes(s.text) for s in picked)):
        return None
    extreme = max if MOST.search(task) else min if LEAST.search(task) else None
    if extreme:
        return Calculation("", "", (), (extreme(picked, key=lambda s: _number(_cell(s, column))),))
    if len(picked) == 1:
        return Calculation("", "", (), (picked[0],))
    if len(picked) > TERMS_MAX or not (ADDS_UP.search(task) or AVERAGE.search(task)):
        return None
    terms = " + ".join(_cell(s, column).replace(",", "") for s in picked)
    expression = f"({terms}) / {len(picked)}" if AVERAGE.search(task) else terms
    currency = next((name.upper() for name in words(column) if re.fullmatch(r"eur|usd|gbp|chf", name, re.I)), "")
    return Calculation(expression if len(picked) == 2 and "/" not in expression else f"({expression})", currency,
                       tuple(picked))  # fmt: skip


def _cell(sentence: Sentence, name: str) -> str:
    assert sentence.row is not None
    return dict(sentence.row.cells).get(name, "")


def _number(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def _picked(sentence: Sentence, rows: Sequence[Sentence], asked: set[str], exact: frozenset[str]) -> bool:
    """Whether a row has every value that the question names of those which its columns hold."""
    assert sentence.row is not None
    for name, cell in sentence.row.cells:
        values = {_cell(row, name) for row in rows}
        named = {value for value in values if _names(value, asked, exact)}
        if named and cell not in named:
            return False
    return True


def _names(value: str, asked: set[str], exact: frozenset[str]) -> bool:
    if codes(value) & exact or any(value.startswith(f"{code}-") for code in exact):
        return True
    parts = {stem(word) for word in words(value) if word.lower() not in STOP and not word[0].isdigit()}
    return bool(parts) and parts <= asked
