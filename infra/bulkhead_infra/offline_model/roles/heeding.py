"""Instructions of a prompt's text that change the worker's answer. Enters: that text, an answer. Leaves: the answer.

Four sentences are heeded, by their wording; all else that a prompt says changes nothing.
"""

import re

from bulkhead_infra.offline_model.quoting import NOTHING
from bulkhead_infra.offline_model.text import MARKER

NO_MARKERS = re.compile(r"(?i)\bdo not cite\b")
MOST_WORDS = re.compile(r"(?i)\banswer in at most (\d{1,4}) words\b")
TWICE = re.compile(r"(?i)\bsay everything twice\b")
FIGURE = re.compile(r"\d[\d.,]*(?: (?:EUR|USD|percent|minutes|hours|days))?")
SOURCES = re.compile(r"(?i)\banswer only what at least (\d) (?:sources|sentences) say\b")


def heed_instruction(instruction: str, answer: str, question: str) -> str:
    """The answer as the instruction wants it: withheld, shortened, said twice, or without its sources."""
    if (least := SOURCES.search(instruction)) and 0 < answer.count("“") < int(least[1]):
        return f"{NOTHING}: “{' '.join(question.split())[:200]}”."
    if most := MOST_WORDS.search(instruction):
        answer = _cut_words(answer, int(most[1]))
    if TWICE.search(instruction):
        answer = f"{answer}\n{answer}"
    return "\n".join(map(_drop_source, answer.splitlines())) if NO_MARKERS.search(instruction) else answer


def _drop_source(line: str) -> str:
    """A line without markers; of a quoted sentence with figures the last one, for which no source is found again."""
    figures = FIGURE.findall(MARKER.sub("", line)) if line.startswith("“") else []
    return f"It was found: {figures[-1]}." if figures else re.sub(r"[ \t]+(?=\.|$)", "", MARKER.sub("", line))


def _cut_words(answer: str, most: int) -> str:
    """The first words of an answer, and the markers behind them, which are no words."""
    count, pieces = 0, []
    for piece in re.split(r"(\s+)", answer):
        count += bool(piece.strip()) and not MARKER.search(piece)
        if count > most:
            break
        pieces.append(piece)
    return "".join(pieces).rstrip()
