"""Plain sums: a price times what the question counts, two prices together or apart. Enters: question, sentences.

Leaves: an expression for the calculator with the sentences that give its numbers, or None when nothing plain is asked.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from bulkhead_infra.offline_model.language.claims import CAP_WORD, Topic
from bulkhead_infra.offline_model.language.extracting import best_sentences
from bulkhead_infra.offline_model.language.pool import Sentence
from bulkhead_infra.offline_model.language.quantities import NUMBER, find_dates, find_money, plain
from bulkhead_infra.offline_model.language.questions import LIGHT
from bulkhead_infra.offline_model.language.text import STOP, stem, stems

COUNT_WORDS = {
    word: number
    for number, word in enumerate("a two three four five six seven eight nine ten eleven twelve".split(), 1)  # noqa: SIM905
} | {"an": 1, "one": 1}
COUNT = re.compile(rf"\b(\d{{1,6}}|{'|'.join(COUNT_WORDS)})[ -]((?:[a-z][a-z-]*[ ]?){{1,3}})", re.I)
OFTEN = re.compile(
    rf"(?i)\b(?:(once)|(twice)|(\d{{1,3}}|{'|'.join(COUNT_WORDS)}) \w+) (?:a|an|per|each|every) "
    r"(day|week|month|year)\b"
)
PER = re.compile(r"\b(?:per|each|every|an?) ([a-z]+)", re.I)
BY_ADVERB = {
    "hourly": "hour",
    "daily": "day",
    "nightly": "night",
    "weekly": "week",
    "monthly": "month",
    "yearly": "year",
    "annual": "year",
}
PARTS_OF = {("year", "month"): 12, ("week", "day"): 7, ("day", "hour"): 24, ("hour", "minute"): 60}
NO_NOUNS = stems("cost mean say pay")  # after `room 7`, which counts nothing
TOGETHER = re.compile(r"\b(?:together|altogether|in total|in all|sum of|combined)\b", re.I)
APART = re.compile(r"\b(?:more|less|cheaper|dearer|costlier)\b.*? than\b|\bdifference between\b", re.I)
SHARE_OF = re.compile(
    r"(?i)\b(\d+(?:\.\d+)?) ?(?:%|percent|per cent) of (?:(?:the|its|their|his|her|our|my|your|all|these|those) )*"
    r"([a-z]+)\b"
)
COUNTED = re.compile(rf"(?<![\w.,])({NUMBER}) ((?:[a-z]+ ?){{1,2}})", re.I)


@dataclass(frozen=True)
class Plain:
    """A calculation, what it counts in (empty for no currency) and the sentences that it rests on."""

    expression: str
    currency: str
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True)
class Value:
    """An amount of a sentence; `unit` is the stem of the thing that it is per, empty for none."""

    amount: str
    currency: str
    unit: str
    clause: str = ""


def _share_of(sentences: Sequence[Sentence], topic: Topic) -> Plain | None:
    """A percentage of things that the facts, or else the documents, count."""
    asked = SHARE_OF.search(topic.task)
    if not asked:
        return None
    share, things = asked.group(1), stem(asked.group(2).lower())
    best = best_sentences(sentences, Topic(f"How many {asked.group(2)}?", ""))
    for text, used in ((topic.facts, ()), *((sentence.text, (sentence,)) for sentence in best)):
        for match in COUNTED.finditer(text):
            if things in {stem(word) for word in match.group(2).lower().split()}:
                return Plain(f"{share} / 100 * {match.group(1).replace(',', '')}", "", used)
    return None


def plain_sum(sentences: Sequence[Sentence], topic: Topic) -> Plain | None:
    """The plain calculation that the question asks for."""
    if share := _share_of(sentences, topic):
        return share
    for sign, pattern in ((" - ", APART), (" + ", TOGETHER)):
        if pattern.search(topic.task):
            return _of_two(sentences, topic, sign)
    return _product(best_sentences(sentences, topic)[:3], f"{topic.task} {topic.facts}")


def _of_two(sentences: Sequence[Sentence], topic: Topic, sign: str) -> Plain | None:
    """The values of two things of one question, each looked up and counted by itself."""
    halves = re.split(r"\bthan\b" if " than " in topic.task else r"\band\b|\bplus\b", topic.task)
    if len(halves) != 2:
        return None
    left, right = (_priced(sentences, half) for half in halves)
    if left is None or right is None or left.currency != right.currency or left == right:
        return None
    return Plain(f"{left.expression}{sign}{right.expression}", left.currency, (*left.sentences, *right.sentences))


def _priced(sentences: Sequence[Sentence], asked: str) -> Plain | None:
    best = best_sentences(sentences, Topic(asked, ""))[:3]
    single = (Plain(v.amount, v.currency, (s,)) for s in best for v in [value_for(s.text, asked)] if v)
    return _product(best, asked) or next(single, None)


def _product(best: Sequence[Sentence], asked: str) -> Plain | None:
    """The value for one of the counted things, times their count; None when several values fit alike."""
    counts, wanted = counts_of(asked), stems(asked) - LIGHT
    made: list[tuple[int, Plain]] = []
    for sentence in best:
        stated, value = counts_of(sentence.text), value_for(sentence.text, asked)
        factors = _factors(value, sentence, [count for count in counts if count not in stated]) if value else []
        if value and factors:
            product = " * ".join([*map(str, factors), value.amount])
            cap = _cap(sentence.text, value)
            expression = f"min({cap}, {product})" if cap else product
            about = len((sentence.stems | stems(sentence.context)) & wanted)
            made.append((about, Plain(expression, value.currency, (sentence,))))
    most = [plain for about, plain in made if about == max(about for about, _ in made)]
    return most[0] if len({plain.expression for plain in most}) == 1 else None


def _factors(value: Value, sentence: Sentence, counts: Sequence[tuple[int, tuple[str, ...]]]) -> list[int]:
    """Factors of the value; empty when the question counts nothing of the sentence's subject."""
    about = {stem(word) for word in re.findall(r"[a-z]+", f"{sentence.text} {sentence.context}".lower())}
    factors: list[int] = []
    unit_met = not value.unit
    for number, nouns in counts:
        ends = (nouns[0], value.unit)
        parts = next((size for (whole, part), size in PARTS_OF.items() if ends == (stem(whole), stem(part))), 0)
        if value.unit and value.unit in nouns:
            unit_met = True
            factors.append(number)
        elif parts:
            unit_met = True
            factors += [number, parts]
        elif (nouns[0] == "time" and not value.unit) or (number > 1 and value.currency and set(nouns) <= about):
            factors.append(number)
    return [number for number in factors if number > 1] if unit_met else []


def counts_of(text: str) -> list[tuple[int, tuple[str, ...]]]:
    """Counted things of a text, as (number, stems of the words after it); `twice a week for 6 weeks` is 12 times."""
    for when in reversed(find_dates(text)):
        text = text[: when.start] + ", " + text[when.end :]
    counts: list[tuple[int, tuple[str, ...]]] = []
    often = OFTEN.search(text)
    for match in COUNT.finditer(OFTEN.sub(",", text)):
        number = _number(match.group(1))
        nouns = tuple(stem(word) for word in takewhile(lambda word: word.lower() not in STOP, match.group(2).split()))
        if not nouns or nouns[0] in NO_NOUNS:
            continue
        if often and nouns[0] == stem(often.group(4)):
            once, twice, times, _ = often.groups()
            number, nouns = number * (1 if once else 2 if twice else _number(times)), ("time",)
        if (number, nouns) not in counts:
            counts.append((number, nouns))
    return counts


def _number(text: str) -> int:
    return int(text) if text.isdigit() else COUNT_WORDS[text.lower()]


def value_for(text: str, asked: str) -> Value | None:
    """The value of a sentence whose clause is closest to the question; None when several are alike."""
    values, wanted = values_of(text), stems(asked) - LIGHT
    scores = [len(stems(value.clause) & wanted) for value in values]
    best = [value for value, score in zip(values, scores, strict=True) if score == max(scores)]
    return best[0] if len({value.amount for value in best}) == 1 else None


def values_of(text: str) -> list[Value]:
    """Amounts of money, and other numbers per something, without upper bounds of an amount."""
    adverb = next((stem(unit) for word, unit in BY_ADVERB.items() if re.search(rf"\b{word}\b", text, re.I)), "")
    values = []
    for piece in re.split(r"[;,](?!\d)|\b(?:and|but|or)\b", text):
        for money in find_money(piece):
            per = PER.match(piece[money.end :].lstrip()) or re.search(r"\bper ([a-z]+) $", piece[: money.start], re.I)
            if per or not CAP_WORD.search(piece[max(0, money.start - 30) : money.start]):
                values.append(Value(plain(money.amount), money.currency, stem(per.group(1)) if per else adverb, piece))
    if values:
        return values
    counted = re.finditer(rf"\b({NUMBER}) (?:[a-z]+ ){{1,3}}?(?:per|an?|each|every) ([a-z]+)", text, re.I)
    return [Value(match.group(1).replace(",", ""), "", stem(match.group(2)), text) for match in counted]


def _cap(text: str, value: Value) -> str:
    """The upper bound that the sentence sets on the whole; empty for none."""
    for money in find_money(text):
        bounded = CAP_WORD.search(text[max(0, money.start - 30) : money.start])
        if bounded and plain(money.amount) != value.amount:
            return plain(money.amount)
    return ""
