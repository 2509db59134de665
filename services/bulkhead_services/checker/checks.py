"""The plain checks: what can be decided without a model. Pure functions of the text and of what it was made from.

In: the proposed text and its sources by marker. Out: notes; a blocking one refuses the result.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal, DivisionByZero, InvalidOperation

from bulkhead_contracts import bounds
from bulkhead_contracts.verdict import CheckNote

CITATION = re.compile(r"\[#([0-9a-f]{12})\]")
NUMBER = re.compile(r"(?<![\w.#])-?\d[\d,]*(?:\.\d+)?(?![\w]*\])")
WORD = re.compile(r"[^\W\d_]{3,}")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(\[])|\n+")
_VALUE = r"\d[\d,]*(?:\.\d+)?"
# Possessive: a run is taken whole or not at all, so that a long one without an end is read once, not once a number.
RUN = re.compile(rf"(?<![\w.,(]){_VALUE}(?:\s*[-+*/×x·÷−]\s*{_VALUE})++")
CLAIMED = re.compile(rf"\s*=\s*(-?{_VALUE})")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
CSV_ROW = re.compile(r"^[^,\n]*(?:,(?! )[^,\n]*){2,}$", re.M)
OPERATORS = "-+*/×x·÷−(="
MIN_SUPPORT = 0.3
"""Share of a cited sentence's words that its sources must hold."""
SMALL_NUMBERS = frozenset(str(n) for n in range(0, 11))
"""Counting words of a text ("two documents", "1."), never worth a refusal."""
FORBIDDEN = (
    (re.compile(r"\[\[/?part\b"), "prompt_leak", "the text repeats the prompt's own markup; write plain sentences"),
    (re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{20,}"), "secret", "the text holds what looks like a secret key"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"), "secret", "the text holds a private key"),
)
_COMMON = """
    the and for with that this from are was were has have not but its into than then they will would can may all
    any each per our your their which when where while been being also only such does did"""
STOP = frozenset(_COMMON.split())


@dataclass(frozen=True, slots=True)
class Sources:
    """What a text may rest on. by_marker: text of each thing that may be cited. given: what everybody was told."""

    by_marker: Mapping[str, str]
    retrieved: frozenset[str]
    """Markers of passages that were found for this step."""
    given: str = ""


def run(text: str, sources: Sources) -> tuple[CheckNote, ...]:
    """Every check, blocking ones first."""
    found = (*shape(text), *forbidden(text), *citations(text, sources), *numbers(text, sources), *equations(text))
    return tuple(sorted(found, key=lambda note: not note.blocking))[:32]


def shape(text: str) -> list[CheckNote]:
    """Something is there, and not too much."""
    if not text.strip():
        return [_note("empty", "the result is empty; answer the step's instruction")]
    if len(text) > bounds.MAX_ANSWER_CHARS:
        return [_note("too_long", f"{len(text)} characters; at most {bounds.MAX_ANSWER_CHARS}: be brief")]
    return []


def forbidden(text: str) -> list[CheckNote]:
    """Content that must never leave."""
    return [_note(code, message) for pattern, code, message in FORBIDDEN if pattern.search(text)]


def citations(text: str, sources: Sources) -> list[CheckNote]:
    """Markers resolve, and each cited sentence is supported by what it cites."""
    notes: list[CheckNote] = []
    cited = set(CITATION.findall(text))
    unknown = sorted(cited - set(sources.by_marker))
    if unknown:
        listed = ", ".join(unknown[:8])
        what = f"no source has the marker(s) {listed}; cite only passages and results that you were given"
        notes.append(_note("unknown_citation", what))
    if sources.retrieved and not cited:
        todo = "end each factual sentence with [#marker] of the passage it rests on"
        notes.append(_note("no_citation", f"passages were retrieved but nothing is cited; {todo}"))
    known = {one: stems(sources.by_marker[one]) for one in cited - set(unknown)}
    given = stems(sources.given)
    for sentence in sentences(text):
        markers = [one for one in CITATION.findall(sentence) if one in sources.by_marker]
        if not markers:
            continue
        # Thousands of sentences may cite one long source: its words are looked up, not read again for each.
        share = support(sentence, [given, *(known[one] for one in markers)])
        if share < MIN_SUPPORT:
            said = CITATION.sub("", sentence)[:300].strip()
            notes.append(_note("unsupported", f"what it cites does not say this ({share:.0%} of its words): {said}"))
    return notes[:12]


def support(sentence: str, sources: Sequence[Set[str]]) -> float:
    """Share of the sentence's content words whose stems one of the sources holds; 1.0 for one without words."""
    words = stems(CITATION.sub("", sentence))
    return sum(any(word in held for held in sources) for word in words) / len(words) if words else 1.0


def stems(text: str) -> set[str]:
    """Content words cut to a crude stem, enough to match inflections."""
    return {word[:6] for word in (found.lower() for found in WORD.findall(text)) if word not in STOP}


def numbers(text: str, sources: Sources) -> list[CheckNote]:
    """Every number of the text stands in something it was made from."""
    known = set(_values(" ".join((*sources.by_marker.values(), sources.given))))
    strange = [
        raw
        for raw in NUMBER.findall(CITATION.sub("", text))
        if raw not in SMALL_NUMBERS and _value(raw) is not None and _value(raw) not in known
    ]
    if not strange:
        return []
    listed = ", ".join(dict.fromkeys(strange[:8]))
    todo = "take numbers from passages or have a tool compute them, and cite it"
    return [_note("unfounded_number", f"no source holds the number(s) {listed}; {todo}")]


def equations(text: str) -> list[CheckNote]:
    """`a x b + c = d` is computed again, whole; what is only the end of a longer expression is left alone."""
    notes = []
    plain = CITATION.sub("", text)
    for start, expression, result in _equations(plain):
        if DATE.search(expression) or _ends_in_operator(plain, start):
            continue
        true, claimed = _evaluate(expression), _signed(result)
        if true is not None and claimed is not None and abs(true - claimed) > Decimal("0.01"):
            notes.append(_note("wrong_arithmetic", f"{expression} is {true.normalize():f}, not {result}"))
    return notes[:8]


def _equations(text: str) -> Iterator[tuple[int, str, str]]:
    """Where each begins, what stands before its sign of equality and what behind."""
    at = 0
    while run := RUN.search(text, at):
        claimed = CLAIMED.match(text, run.end())
        if claimed:
            yield run.start(), run[0], claimed[1]
        at = (claimed or run).end()


def _ends_in_operator(text: str, end: int) -> bool:
    """Whether the last character before `end` that is no space is an operator: the expression began earlier."""
    while end and text[end - 1].isspace():
        end -= 1
    return end > 0 and text[end - 1] in OPERATORS


def sentences(text: str) -> Sequence[str]:
    """Sentences with the markers that follow them."""
    merged: list[str] = []
    for piece in SENTENCE_END.split(text):
        if merged and not CITATION.sub("", piece).strip(" .;,"):
            merged[-1] += " " + piece
        elif piece.strip():
            merged.append(piece)
    return merged


def _evaluate(expression: str) -> Decimal | None:
    """Value of numbers joined by + - * /, products first; None when it has none."""
    numbers = [_signed(raw) for raw in re.findall(_VALUE, expression)]
    signs = re.findall(r"[-+*/×x·÷−]", expression)
    if None in numbers or len(signs) != len(numbers) - 1:
        return None
    terms: list[Decimal] = [numbers[0]]  # type: ignore[list-item]
    try:
        for sign, number in zip(signs, numbers[1:], strict=True):
            assert number is not None
            match sign:
                case "+":
                    terms.append(number)
                case "-" | "−":
                    terms.append(-number)
                case "/" | "÷":
                    terms[-1] /= number
                case _:
                    terms[-1] *= number
    except (DivisionByZero, InvalidOperation):
        return None
    return sum(terms, Decimal(0))


def _signed(raw: str) -> Decimal | None:
    try:
        return Decimal(raw.replace(",", "").rstrip("."))
    except InvalidOperation:
        return None


def _values(text: str) -> list[Decimal]:
    # In a row of values apart by commas, `120,14400.00` is two numbers.
    found = [*NUMBER.findall(text), *(cell for row in CSV_ROW.findall(text) for cell in row.split(","))]
    return [value for raw in found if (value := _value(raw.strip())) is not None]


def _value(raw: str) -> Decimal | None:
    try:
        return abs(Decimal(raw.replace(",", "").rstrip("."))).normalize()
    except InvalidOperation:
        return None


def _note(code: str, message: str) -> CheckNote:
    return CheckNote(code=code, message=message[: bounds.MAX_REASON_CHARS])
