"""Excerpts of texts that are too long: the sentences that match a question best, or head and tail. Pure.

Enters: a text, the room that it has, the words of the question. Leaves: a shorter text that says where something is
missing, in whole sentences where there are any.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_SENTENCE_CHARS = 400
MAX_SENTENCES = 2_000
"""Longer texts are cut into larger pieces, so that the work stays bounded."""
NEIGHBOUR = 0.3
"""Share of its neighbours' score that a sentence has: what stands beside an answer explains it."""
_END = re.compile(r"[.!?][\"'”»)\]]*\s+|[。！？]|\n+")
_WORD = re.compile(r"\w{3,}")


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Part of a text. kept_chars: of the text itself, without the lines that say what is missing."""

    text: str
    kept_chars: int


def words_of(text: str) -> frozenset[str]:
    """The words by which sentences are found."""
    return frozenset(token.casefold() for token in _WORD.findall(text))


def gap_line(chars: int) -> str:
    """The line that stands in place of what is missing."""
    return f"[... {chars} characters left out ...]"


def make_excerpt(text: str, room: float, weight_of: Callable[[str], float], question: frozenset[str]) -> Excerpt | None:
    """Excerpt that fits the room, in the text's order; None when not even one sentence fits."""
    pieces = _split_sentences(text)
    weights = [weight_of(text[start:end]) for start, end in pieces]
    gap_weight, last = weight_of(f"\n{gap_line(len(text))}\n"), len(pieces) - 1
    chosen, room_left = [False] * len(pieces), room - gap_weight
    for index in _ranked_indexes(text, pieces, question):
        adds_gap = 0 < index < last and not chosen[index - 1] and not chosen[index + 1]
        cost = weights[index] + (gap_weight if adds_gap else 0.0)
        if cost <= room_left:
            chosen[index], room_left = True, room_left - cost
    if not any(chosen):
        return None
    return _join_chosen(text, pieces, chosen)


def _split_sentences(text: str) -> list[tuple[int, int]]:
    """Sentences with the blanks behind them; a very long one in several pieces, at blanks where there are any."""
    longest = max(MAX_SENTENCE_CHARS, -(-len(text) // MAX_SENTENCES))
    ends = [match.end() for match in _END.finditer(text)]
    pieces, start = [], 0
    for end in (*ends, len(text)):
        if end - start < longest // 8 and end < len(text) and len(ends) > MAX_SENTENCES // 2:
            continue
        while end - start > longest:
            blank = text.rfind(" ", start + longest // 2, start + longest) + 1
            pieces.append((start, blank or start + longest))
            start = pieces[-1][1]
        if end > start:
            pieces.append((start, end))
            start = end
    return pieces


def _ranked_indexes(text: str, pieces: Sequence[tuple[int, int]], question: frozenset[str]) -> list[int]:
    """Indexes, the best first: by the question's words, rare ones more; then from both ends, the head twice as fast."""
    matches = [question & words_of(text[start:end]) for start, end in pieces] if question else []
    counts = Counter(token for words in matches for token in words)
    own_scores = [sum(math.log(1 + len(pieces) / counts[token]) for token in sorted(words)) for words in matches]
    own_scores = own_scores or [0.0] * len(pieces)
    last = len(pieces) - 1
    score = [
        value
        + NEIGHBOUR * ((own_scores[index - 1] if index else 0.0) + (own_scores[index + 1] if index < last else 0.0))
        for index, value in enumerate(own_scores)
    ]
    from_ends = [min(index / 2, last - index + 0.25) for index in range(len(pieces))]
    order = sorted(range(len(pieces)), key=lambda index: (-round(score[index], 6), from_ends[index]))
    # The first sentence is a title more often than not: without it the others hang in the air.
    return [0, *(index for index in order if index)] if pieces else []


def _join_chosen(text: str, pieces: Sequence[tuple[int, int]], chosen: Sequence[bool]) -> Excerpt:
    parts: list[str] = []
    kept_chars = missing = 0
    for (start, end), is_chosen in zip(pieces, chosen, strict=True):
        if not is_chosen:
            missing += end - start
            continue
        if missing:
            parts.append(f"{_line_break_after(parts)}{gap_line(missing)}\n")
            missing = 0
        parts.append(text[start:end])
        kept_chars += end - start
    if missing:
        parts.append(f"{_line_break_after(parts)}{gap_line(missing)}")
    return Excerpt("".join(parts), kept_chars)


def _line_break_after(parts: Sequence[str]) -> str:
    return "\n" if parts and not parts[-1].endswith("\n") else ""
