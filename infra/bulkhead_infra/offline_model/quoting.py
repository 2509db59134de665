"""Sentences of documents, and the ones that answer a question. Enters: passages, a question. Leaves: cited lines.

A line of an answer is `“sentence” (in force from DATE) [#id] [#id].`, and is read back from results of earlier steps.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from bulkhead_infra.offline_model.parts import Part
from bulkhead_infra.offline_model.text import DATE, MARKER, find_dates, split_sentences, stems

SENTENCES_MAX = 4_000
QUOTES_MAX, NEAR_BEST, COVERAGE_MIN = 4, 0.7, 0.5
HEADING_SHARE, BEFORE_SHARE = 0.8, 0.4  # of a word's weight where it stands above or before the sentence
IN_FORCE = re.compile(r"(?i)\b(?:effective|in force|takes effect|valid|applies)\b")
QUOTED_LINE = re.compile(r"^“([^”]*)”(?: \(in force from ([^)]*)\))?((?:\s*\[#[0-9a-f]{12}\])+)\.?$")
NOTHING = "The documents hold no answer to this"


@dataclass(frozen=True)
class Sentence:
    """One sentence. since: the date from which its document holds, as spelled there. cited: ids that support both."""

    text: str
    cited: tuple[str, ...]
    heading: str = ""
    before: str = ""
    since: str = ""

    @property
    def day(self) -> date:
        return next(iter(find_dates(self.since)), date.min)

    @property
    def quote(self) -> str:
        inner = self.text.rstrip(" .").replace("“", "'").replace("”", "'")
        return f"“{inner}”" + (f" (in force from {self.since})" if self.since else "")

    @property
    def line(self) -> str:
        return f"{self.quote} {mark_ids(self.cited)}."


def mark_ids(ids: Iterable[str]) -> str:
    """Citation markers of ids, each once."""
    return " ".join(f"[#{part_id}]" for part_id in dict.fromkeys(ids))


def sentences_of_passages(passages: Iterable[Part]) -> list[Sentence]:
    """Sentences of passages, each with the heading above it and the date from which its document holds."""
    by_id = {part.id: part for part in passages}
    since: dict[str, tuple[str, str]] = {}
    for part in by_id.values():
        for text in split_sentences(part.text):
            sign = IN_FORCE.search(text)
            if sign and (when := DATE.search(text, sign.end())):
                since.setdefault(part.source, (when.group(), part.id))
    sentences: list[Sentence] = []
    for part in by_id.values():
        title = part.attributes.get("title", "")
        heading, before = title, ""
        day, dated_by = since.get(part.source, ("", part.id))
        for text in split_sentences(re.sub(r"[*_`|]+", " ", part.text)):
            if text[-1] not in ".!?;:" and len(text.split()) <= 8 and not re.search(r"\d", text):
                heading, before = f"{title} {text}".strip(), ""
                continue
            sentences.append(Sentence(text, tuple(dict.fromkeys((part.id, dated_by))), heading, before, day))
            before = text
    return sentences[:SENTENCES_MAX]


def sentences_of_results(inputs: Iterable[Part]) -> list[Sentence]:
    """Sentences that earlier steps quoted."""
    matches = (QUOTED_LINE.match(line.strip()) for part in inputs for line in part.text.splitlines())
    return [Sentence(m.group(1), tuple(MARKER.findall(m.group(3))), since=m.group(2) or "") for m in matches if m]


def best_sentences(sentences: Sequence[Sentence], question: str) -> list[Sentence]:
    """The sentences that share most with a question, best first; none when they hold less than half of it.

    A word weighs more the rarer it is in the sentences, and less where only the heading or the sentence before has it.
    """
    bags = [(stems(s.text), stems(s.heading), stems(s.before)) for s in sentences]
    weights = {}
    for word in sorted(stems(question)):
        count = sum(word in own or word in heading for own, heading, _ in bags) or 0.5
        weights[word] = math.log((len(bags) + 2) / (count + 0.5))
    scored = []
    for index, (own, heading, before) in enumerate(bags):
        shares = {
            w: 1.0 if w in own else HEADING_SHARE if w in heading else BEFORE_SHARE * (w in before) for w in weights
        }
        covered = sum(weight for word, weight in weights.items() if shares[word])
        if own & weights.keys() and covered >= COVERAGE_MIN * sum(weights.values()):
            held = sum(weight * shares[word] for word, weight in weights.items())
            scored.append((held / (1 + math.log(1 + len(own)) / 8), -index))
    best = max(scored, default=(0.0, 0))[0]
    near = [-place for score, place in sorted(scored, reverse=True) if score >= NEAR_BEST * best]
    return [sentences[index] for index in near[:QUOTES_MAX]]


def nothing_line(question: str, sentences: Sequence[Sentence]) -> str:
    """States that nothing was found, and cites the passages that were read."""
    subject = " ".join(question.split())[:200].rstrip(" .?").replace("“", "'").replace("”", "'")
    read = mark_ids([s.cited[0] for s in sentences][:3])
    return f"{NOTHING}: “{subject}” {read}." if read else f"{NOTHING}: “{subject}”."
