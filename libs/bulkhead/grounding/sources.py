"""Sources of a text, cut into units (sentences, table rows) and looked up by word. Built once per check."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bulkhead.grounding.claims import date_roles
from bulkhead.grounding.language import find_terms, normalise_text, word_stems
from bulkhead.grounding.sentences import MARK, MARKER, is_row, split_cells, split_sentences
from bulkhead.grounding.values import TextValue, ValueIndex, find_values, identifier_names

SourceKind = Literal["passage", "tool_result", "input", "objective"]
MAX_SOURCE_CHARS = 512 * 1024
"""Of all sources of a text, in their order: reading more would hold up the texts of other tasks."""
MAX_POSTINGS = 400
"""A word that stands in more units than this says little about where a sentence comes from."""
NEAR = 1
"""Units on either side that are read with one: a sentence's subject often stands in the one before."""
TO_AN_AGENT = re.compile(
    r"\b(?:ignore|disregard|forget|ignorier\w*|vergiss|ignorez|ignora)\b.{0,40}"
    r"\b(?:instructions?|rules?|prompts?|above|previous|earlier|anweisung\w*|regeln|consignes|instrucciones)\b"
    r"|\bsystem prompt\b"
    r"|\b(?:ai|assistant|agent|language model|chatbot|ki)s?\b.{0,30}\b(?:must|should|shall|has to|muss|soll)\b"
    r"|\b(?:note|instructions?|message|hinweis) (?:to|for|an|für) (?:the |any |all |den |die )?"
    r"(?:ai|assistants?|agents?|models?|ki)\b"
    r"|\b(?:new|changed|updated) (?:bank|payment) (?:account|details)\b",
    re.I,
)
"""A passage that speaks to an agent, or moves money elsewhere: what rests on it is told."""


@dataclass(frozen=True, slots=True)
class GroundingSource:
    """Something that may be cited. document: its name, "" of what has none. alias_markers: others that mean it.

    An objective may be cited by a text, and is never found for one: everybody was told it.
    """

    marker: str
    text: str
    kind: SourceKind = "passage"
    document: str = ""
    alias_markers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceUnit:
    """A sentence or a table row of a source. labels: the words and numbers of a row's cells that
    no other row has, by which people name it.

    markers: of an input's sentence, which has sources of its own. doubtful: an input's sentence that is marked.
    """

    source: int
    words: frozenset[str]
    values: tuple[TextValue, ...]
    labels: tuple[frozenset[str], ...] = ()
    markers: tuple[str, ...] = ()
    doubtful: bool = False
    roles: frozenset[str] = frozenset()
    suspect: bool = False


class GroundingSources:
    """All sources of one text. given: what everybody was told (the question, the instruction); it is no source."""

    def __init__(self, sources: Sequence[GroundingSource], given: str = "") -> None:
        self.sources = tuple(sources)
        self.given, self.given_values = given, find_values(given)
        self.given_words = find_terms(given, identifier_names(self.given_values))
        self.given_called = naming_terms(given, self.given_values)
        self._given, self._held = ValueIndex(), ValueIndex()
        for value in self.given_values:
            self._given.add(value)
        self.units: list[SourceUnit] = []
        self.spans: list[tuple[int, int]] = []
        """Of each source, its units' places in `units`."""
        self.words: list[frozenset[str]] = []
        self.normal: list[str] = []
        self.by_marker: dict[str, int] = {}
        for source_index, source in enumerate(self.sources):
            self.by_marker.setdefault(source.marker, source_index)
        for source_index, source in enumerate(self.sources):
            for marker in source.alias_markers:
                self.by_marker.setdefault(marker, source_index)
        self.citable = any(source.kind != "objective" for source in self.sources)
        room = MAX_SOURCE_CHARS
        self.cut = sum(len(source.text) for source in self.sources) > room
        """Not all of their text was read."""
        for source_index, full_source in enumerate(self.sources):
            source = replace(full_source, text=full_source.text[:room])
            room -= len(source.text)
            begin = len(self.units)
            self.units.extend(_cut_units(source_index, source))
            self.spans.append((begin, len(self.units)))
            plain = MARK.sub("", MARKER.sub("", source.text))
            units = self.units[begin:]
            self.words.append(word_stems(source.document).union(*(unit.words for unit in units)))
            self.normal.append(f" {normalise_text(plain)} " if source.kind != "objective" else "")
        self._postings: dict[str, list[int]] = defaultdict(list)
        for index, unit in enumerate(self.units):
            if self.sources[unit.source].kind == "objective":
                continue
            for term in unit.words:
                self._postings[term].append(index)
            for value in unit.values:
                self._held.add(value, index)

    def units_near(self, index: int) -> range:
        """The units that are read with one."""
        begin, end = self.spans[self.units[index].source]
        return range(max(begin, index - NEAR), min(end, index + NEAR + 1))

    def best_units(self, words: Iterable[str]) -> list[tuple[int, int]]:
        """Units that share most of the words, with how many: the best of each source, best first."""
        shared: Counter[int] = Counter()
        for term in words:
            postings = self._postings.get(term, ())
            if len(postings) <= MAX_POSTINGS:
                shared.update(postings)
        best: dict[int, tuple[int, int]] = {}
        for index, count in shared.items():
            source = self.units[index].source
            # Of equals the first unit: words come as a set, whose order differs between processes.
            if source not in best or (count, -index) > (best[source][1], -best[source][0]):
                best[source] = index, count
        return sorted(best.values(), key=lambda row: (-row[1], row[0]))

    def units_holding(self, value: TextValue) -> list[int]:
        """The units that hold a value."""
        return self._held.find(value)

    def is_given(self, value: TextValue) -> bool:
        """True when the question or the instruction holds a value."""
        return value in self._given


def naming_terms(text: str, found: Iterable[TextValue]) -> frozenset[str]:
    """The terms that name a thing in a text: its words, identifiers and numbers."""
    rows = tuple(found)
    numbers = (f"{number.normalize():f}" for row in rows for number in row.number_readings)
    return find_terms(text, (*identifier_names(rows), *numbers))


def _cut_units(at: int, source: GroundingSource) -> list[SourceUnit]:
    units: list[SourceUnit] = []
    header: frozenset[str] = frozenset()
    in_table = False
    suspects: list[int] = []
    for sentence in split_sentences(source.text):
        plain = MARK.sub("", MARKER.sub("", sentence.text))
        row = is_row(plain)
        begins = row and not in_table
        if begins:
            header = word_stems(plain)
        in_table = row
        if row and not plain.strip(" |:-\n"):
            continue
        spaced_text = plain.replace("|", " ; ").replace("\t", " ; ") if row else plain
        if row and ";" not in spaced_text:
            spaced_text = spaced_text.replace(",", " ; ")
        if TO_AN_AGENT.search(plain[:4_000]):
            suspects.append(len(units))
        unit_values = find_values(spaced_text)
        words = find_terms(plain, identifier_names(unit_values)) | (header if row else frozenset())
        labelled = (
            [cell for cell in split_cells(plain) if any(char.isalpha() for char in cell)] if row and not begins else []
        )
        labels = tuple(label for cell in labelled[:4] if (label := naming_terms(cell, find_values(cell))))
        doubtful = MARK.search(sentence.text) is not None
        units.append(SourceUnit(at, words, unit_values, labels, sentence.markers, doubtful, date_roles(plain)))
    often = Counter(label for unit in units for label in set(unit.labels))
    for index, unit in enumerate(units):
        if unit.labels:
            units[index] = replace(unit, labels=tuple(label for label in unit.labels if often[label] == 1))
    for index in {near for hit in suspects for near in (hit, hit + 1) if near < len(units)}:
        unit = units[index]
        units[index] = replace(unit, suspect=True)
    return units
