"""Each sentence of a text and the sources that say it: by its own markers, by its words, by its values, by arithmetic.

| status      | the sentence                                                                        |
| ----------- | ----------------------------------------------------------------------------------- |
| cited       | its own markers hold                                                                |
| found       | a source says it that it did not name, or not the one that it named                 |
| computed    | its number follows from numbers that have sources                                   |
| plain       | claims nothing: talk, a heading, a question, or words of the question alone         |
| absent      | says that the sources do not say                                                    |
| unverified  | no source says it, or a value in it is another thing's; `flaws` say which           |
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bulkhead.grounding import checked_values, claims
from bulkhead.grounding.arithmetic import find_equations
from bulkhead.grounding.checked_values import MAX_VALUES, Flaw, SentenceTerms, Support, find_factors, identifiers_in
from bulkhead.grounding.language import find_terms, normalise_text, word_stems
from bulkhead.grounding.sentences import MARK, TextSentence, split_sentences
from bulkhead.grounding.sources import GroundingSources, naming_terms
from bulkhead.grounding.values import TextValue, ValueIndex, find_values, identifier_names

Status = Literal["cited", "found", "computed", "plain", "absent", "unverified"]
SUPPORTED = frozenset({"cited", "found", "computed", "absent"})
MIN_CITED = 0.3
"""Share of a cited sentence's words that its sources and the question hold."""
MIN_FOUND = 0.5
"""The same for a source that the sentence did not name: of the words that the question does not hold."""
EXACT_CHARS = 20
MAX_MARKERS = 4
MAX_SENTENCES = 1_500
MAX_KNOWN = 12
"""Values of the sentences before that a later one may compute with."""


@dataclass(frozen=True, slots=True)
class GroundedSentence:
    """One sentence with what it rests on."""

    sentence: TextSentence
    status: Status
    markers: tuple[str, ...] = ()
    flaws: tuple[Flaw, ...] = ()
    derivation: str = ""
    """Of a computed number: the operation."""
    has_wrong_markers: bool = False
    """Its own markers were not those that say it."""
    unit_indexes: tuple[int, ...] = ()
    """Places in `GroundingSources.units` of what says it."""


def ground_text(text: str, sources: GroundingSources) -> tuple[GroundedSentence, ...]:
    """Every sentence of the text. Without anything to cite a sentence needs no source; its numbers still do."""
    grounded: list[GroundedSentence] = []
    recent_values: list[TextValue] = []
    stated_values = ValueIndex()
    split = split_sentences(text)
    for sentence in split[:MAX_SENTENCES]:
        row = _ground_sentence(sentence, sources, recent_values, stated_values)
        if row.status in ("cited", "found", "computed"):
            fresh = [
                value for value in find_values(sentence.bare_text) if value.is_claim and value not in stated_values
            ]
            for value in fresh:
                stated_values.add(value)
            recent_values = [*recent_values, *fresh][-MAX_KNOWN:]
        grounded.append(row)
    if unchecked := split[MAX_SENTENCES:]:
        # One thread checks the texts of all tasks: what nobody reads to its end must not hold up the others.
        remainder = TextSentence(text[unchecked[0].start : unchecked[-1].end], unchecked[0].start, unchecked[-1].end)
        message = f"at most {MAX_SENTENCES} sentences are checked, and these are {len(unchecked)} more"
        grounded.append(GroundedSentence(remainder, "unverified", (), (Flaw("unsupported", message),)))
    has_support = any(row.status in SUPPORTED for row in grounded)
    return tuple(_relieve_bare_yes(row) if has_support else row for row in grounded)


def _relieve_bare_yes(row: GroundedSentence) -> GroundedSentence:
    """A yes or no alone rests on what the sentences around it rest on."""
    if (
        row.status == "unverified"
        and claims.says_yes_or_no(row.sentence.bare_text)
        and len(word_stems(row.sentence.bare_text)) <= 1
    ):
        return replace(row, status="plain", flaws=(), markers=())
    return row


def _ground_sentence(
    sentence: TextSentence, sources: GroundingSources, recent_values: Sequence[TextValue], stated_values: ValueIndex
) -> GroundedSentence:
    bare = sentence.bare_text
    sentence_values = tuple({(row.readings, row.unit): row for row in find_values(bare)}.values())[: 4 * MAX_VALUES]
    words = find_terms(bare, identifier_names(sentence_values))
    novel = words - sources.given_words
    sentence_terms = SentenceTerms(
        words,
        novel,
        tuple(row for row in sentence_values if row.kind != "identifier"),
        identifiers_in(sentence_values),
        naming_terms(bare, sentence_values),
        find_factors(bare, sources.given),
        any(row.is_right for row in find_equations(bare)),
    )
    claimed = [row for row in sentence_terms.values if row.is_claim and not sources.is_given(row)]
    own_markers = tuple(marker for marker in sentence.markers if marker in sources.by_marker)
    if not own_markers and not claimed:
        if claims.is_absence(bare, sources.given_words):
            return GroundedSentence(sentence, "absent")
        if claims.is_talk(bare) or claims.is_heading(sentence.text):
            return GroundedSentence(sentence, "plain")
    wrong = tuple(
        Flaw("wrong_arithmetic", f"{row.expression} is {row.true_value:f}, not {row.result}")
        for row in find_equations(bare)
        if not row.is_right
    )
    if wrong:
        return GroundedSentence(sentence, "unverified", own_markers, wrong)
    support = _find_support(sentence_terms, own_markers, bare, sources)
    checked = checked_values.check_values(sentence_terms, support, sources, recent_values, stated_values)
    flaws, derivation, further_sources = checked.flaws, checked.derivation, checked.further_sources
    if not flaws and (role := checked_values.flaw_of_other_role(sentence_values, bare, sources)):
        flaws = (role,)
    supporting = list(dict.fromkeys((*support.source_indexes, *further_sources)))
    if flaws:
        return GroundedSentence(sentence, "unverified", own_markers, flaws)
    if not supporting:
        if derivation:
            return GroundedSentence(sentence, "computed", derivation=derivation)
        return _ground_unsupported(sentence, sentence_terms, claimed, bare, own_markers, sources)
    markers, units = (
        _source_markers(supporting, support, sources),
        tuple(support.unit_of_source[row] for row in supporting if row in support.unit_of_source),
    )
    held_markers = tuple(marker for marker in own_markers if sources.by_marker[marker] in supporting)
    if doubt := _source_flaws(support, sources):
        return GroundedSentence(sentence, "unverified", held_markers or markers, doubt)
    if held_markers:
        cited_markers = tuple(dict.fromkeys((*held_markers, *_source_markers(further_sources, support, sources))))
        return GroundedSentence(
            sentence, "cited", cited_markers[:MAX_MARKERS], derivation=derivation, unit_indexes=units
        )
    status: Status = "computed" if derivation else "found"
    return GroundedSentence(
        sentence,
        status,
        markers[:MAX_MARKERS],
        derivation=derivation,
        has_wrong_markers=bool(own_markers),
        unit_indexes=units,
    )


def _ground_unsupported(
    sentence: TextSentence,
    seen: SentenceTerms,
    claimed: Sequence[TextValue],
    bare: str,
    own: Sequence[str],
    sources: GroundingSources,
) -> GroundedSentence:
    if claims.is_absence(bare, sources.given_words):
        return GroundedSentence(sentence, "absent", tuple(own))
    if not own and not claimed and not seen.novel and not claims.says_yes_or_no(bare):
        return GroundedSentence(sentence, "plain")
    if not sources.citable and not own:
        return GroundedSentence(sentence, "plain")
    quote = " ".join(bare.split())[:200]
    message = f"what it cites does not say this: {quote}" if own else f"no source says this: {quote}"
    return GroundedSentence(sentence, "unverified", (), (Flaw("unsupported", message),))


# Sources that say it


def _find_support(seen: SentenceTerms, own: Sequence[str], bare: str, sources: GroundingSources) -> Support:
    support = Support()
    plain = f" {normalise_text(bare)} "
    strong = [row for row in (*seen.values, *seen.names) if row.is_claim]
    for marker in own:
        source_index = sources.by_marker[marker]
        held_words, share = sources.words[source_index], MIN_CITED * len(seen.words)
        is_said = bool(seen.words & held_words) and len(seen.words & (held_words | sources.given_words)) >= share
        if not seen.words or is_said or _holds_all(source_index, strong, sources):
            support.source_indexes.append(source_index)
    best = sources.best_units(seen.words)
    for index, _ in best:
        support.unit_of_source[sources.units[index].source] = index
    if support.source_indexes:
        return support
    exact = [
        source_index for source_index, text in enumerate(sources.normal) if len(plain) >= EXACT_CHARS and plain in text
    ]
    if exact:
        support.source_indexes = exact[:1]
        return support
    compared_words = seen.novel or seen.words
    for index, _ in best[:MAX_MARKERS]:
        source_index = sources.units[index].source
        held_words = frozenset().union(*(sources.units[near].words for near in sources.units_near(index)))
        share = len(compared_words & held_words) / len(compared_words) if compared_words else 0.0
        if share >= MIN_FOUND and len(seen.words & held_words) >= min(2, len(seen.words)):
            support.source_indexes = [source_index]
            return support
    support.source_indexes = _find_by_values(strong, sources)
    return support


def _holds_all(at: int, strong: Sequence[TextValue], sources: GroundingSources) -> bool:
    begin, end = sources.spans[at]
    source_values = [value for unit in sources.units[begin:end] for value in unit.values]
    return bool(strong) and all(any(value.is_same(row) for row in source_values) for value in strong)


def _find_by_values(strong: Sequence[TextValue], sources: GroundingSources) -> list[int]:
    """A source that holds every value of a sentence: two of a passage, in whatever language; one of a tool's result."""
    new = [row for row in strong if not sources.is_given(row)]
    for source_index, source in enumerate(sources.sources):
        if len(new) >= (1 if source.kind == "tool_result" else 2) and _holds_all(source_index, new, sources):
            return [source_index]
    return []


# Sources themselves, and the text with marks


def _source_flaws(support: Support, sources: GroundingSources) -> tuple[Flaw, ...]:
    """Flaws of the source itself: it speaks to agents, or is an unverified sentence of an earlier step."""
    units = [
        sources.units[support.unit_of_source[source_index]]
        for source_index in support.source_indexes
        if source_index in support.unit_of_source
    ]
    if any(unit.suspect for unit in units):
        name = sources.sources[support.source_indexes[0]].document or "its source"
        return (
            Flaw("suspect_source", f"{name} holds text that speaks to an agent or moves payments; nobody confirmed it"),
        )
    if units and all(unit.doubtful for unit in units):
        return (Flaw("unsupported", "the earlier step's sentence that it rests on is itself unverified"),)
    return ()


def _source_markers(at: Sequence[int], support: Support, sources: GroundingSources) -> tuple[str, ...]:
    """Markers of the sources; of an earlier step's sentence its own."""
    markers: list[str] = []
    for index in at:
        unit = sources.units[support.unit_of_source[index]] if index in support.unit_of_source else None
        carried = unit.markers if unit is not None and sources.sources[index].kind == "input" else ()
        markers.extend(carried or (sources.sources[index].marker,))
    return tuple(dict.fromkeys(markers))


def mark_sentences(
    text: str, grounded: Sequence[GroundedSentence], is_shown: Callable[[GroundedSentence], bool] = lambda row: True
) -> str:
    """The text with each sentence's markers behind it, an unverified one marked. is_shown: whether one may be shown."""
    pieces: list[str] = []
    position = 0
    for row in grounded:
        pieces.append(text[position : row.sentence.start])
        position = row.sentence.end
        if is_shown(row):
            pieces.append(_mark_sentence(row))
    pieces.append(text[position:])
    marked_text = "".join(pieces)
    return marked_text if all(map(is_shown, grounded)) else re.sub(r"\n{3,}", "\n\n", marked_text).strip()


def _mark_sentence(row: GroundedSentence) -> str:
    """One sentence as it is shown; as it is where nothing changes."""
    text = row.sentence.text
    own_markers = row.sentence.markers
    mark = (
        f" [unverified: {_shorten_message(row.flaws[0].message)}]" if row.status == "unverified" and row.flaws else ""
    )
    if own_markers == row.markers and not mark and not MARK.search(text):
        return text
    core = MARK.sub("", re.sub(r"[ \t]*\[#[0-9a-f]{12}\]", "", text)).rstrip()
    tail = ""
    while core and core[-1] in "|`":
        core, tail = core[:-1].rstrip(), core[-1] + tail
    suffix = "".join(f" [#{marker}]" for marker in row.markers) + mark
    if not suffix:
        return core + (f" {tail}" if tail else "")
    stop = core[-1:] if core[-1:] in (".", "!") else ""
    return f"{core.removesuffix(stop)}{suffix}{stop}{f' {tail}' if tail else ''}"


def _shorten_message(message: str) -> str:
    return " ".join(message.replace("[", "(").replace("]", ")").split())[:120]
