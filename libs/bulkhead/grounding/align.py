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
from bulkhead.grounding.arithmetic import equations
from bulkhead.grounding.checked_values import MAX_VALUES, Flaw, Seen, Support, factors, names_in
from bulkhead.grounding.language import normalised, stems, terms
from bulkhead.grounding.sentences import MARK, Sentence, sentences
from bulkhead.grounding.sources import Sources, called
from bulkhead.grounding.values import Value, ValueIndex, names, values

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
class Grounded:
    """One sentence with what it rests on."""

    sentence: Sentence
    status: Status
    markers: tuple[str, ...] = ()
    flaws: tuple[Flaw, ...] = ()
    how: str = ""
    """Of a computed number: the operation."""
    misled: bool = False
    """Its own markers were not those that say it."""
    units: tuple[int, ...] = ()
    """Places in `Sources.units` of what says it."""


def ground(text: str, sources: Sources) -> tuple[Grounded, ...]:
    """Every sentence of the text. Without anything to cite a sentence needs no source; its numbers still do."""
    kept: list[Grounded] = []
    known: list[Value] = []
    said = ValueIndex()
    split = sentences(text)
    for sentence in split[:MAX_SENTENCES]:
        row = _ground(sentence, sources, known, said)
        if row.status in ("cited", "found", "computed"):
            fresh = [value for value in values(sentence.bare) if value.strong and value not in said]
            for value in fresh:
                said.add(value)
            known = [*known, *fresh][-MAX_KNOWN:]
        kept.append(row)
    if rest := split[MAX_SENTENCES:]:
        # One thread checks the texts of all tasks: what nobody reads to its end must not hold up the others.
        whole = Sentence(text[rest[0].start : rest[-1].end], rest[0].start, rest[-1].end)
        what = f"at most {MAX_SENTENCES} sentences are checked, and these are {len(rest)} more"
        kept.append(Grounded(whole, "unverified", (), (Flaw("unsupported", what),)))
    stands = any(row.status in SUPPORTED for row in kept)
    return tuple(_bare_yes(row) if stands else row for row in kept)


def _bare_yes(row: Grounded) -> Grounded:
    """A yes or no alone rests on what the sentences around it rest on."""
    if row.status == "unverified" and claims.says_yes_or_no(row.sentence.bare) and len(stems(row.sentence.bare)) <= 1:
        return replace(row, status="plain", flaws=(), markers=())
    return row


def _ground(sentence: Sentence, sources: Sources, known: Sequence[Value], said: ValueIndex) -> Grounded:
    bare = sentence.bare
    found = tuple({(row.readings, row.unit): row for row in values(bare)}.values())[: 4 * MAX_VALUES]
    words = terms(bare, names(found))
    novel = words - sources.given_words
    seen = Seen(
        words,
        novel,
        tuple(row for row in found if row.kind != "identifier"),
        names_in(found),
        called(bare, found),
        factors(bare, sources.given),
        any(row.right for row in equations(bare)),
    )
    claimed = [row for row in seen.values if row.strong and not sources.is_given(row)]
    own = tuple(marker for marker in sentence.markers if marker in sources.by_marker)
    if not own and not claimed:
        if claims.is_absence(bare, sources.given_words):
            return Grounded(sentence, "absent")
        if claims.is_talk(bare) or claims.is_heading(sentence.text):
            return Grounded(sentence, "plain")
    wrong = tuple(
        Flaw("wrong_arithmetic", f"{row.expression} is {row.true:f}, not {row.result}")
        for row in equations(bare)
        if not row.right
    )
    if wrong:
        return Grounded(sentence, "unverified", own, wrong)
    support = _support(seen, own, bare, sources)
    checked = checked_values.check(seen, support, sources, known, said)
    flaws, how, more = checked.flaws, checked.how, checked.more
    if not flaws and (role := checked_values.other_role(found, bare, sources)):
        flaws = (role,)
    at = list(dict.fromkeys((*support.at, *more)))
    if flaws:
        return Grounded(sentence, "unverified", own, flaws)
    if not at:
        if how:
            return Grounded(sentence, "computed", how=how)
        return _unsupported(sentence, seen, claimed, bare, own, sources)
    markers, units = _markers(at, support, sources), tuple(support.units[row] for row in at if row in support.units)
    held = tuple(marker for marker in own if sources.by_marker[marker] in at)
    if doubt := _doubts(support, sources):
        return Grounded(sentence, "unverified", held or markers, doubt)
    if held:
        kept = tuple(dict.fromkeys((*held, *_markers(more, support, sources))))
        return Grounded(sentence, "cited", kept[:MAX_MARKERS], how=how, units=units)
    status: Status = "computed" if how else "found"
    return Grounded(sentence, status, markers[:MAX_MARKERS], how=how, misled=bool(own), units=units)


def _unsupported(
    sentence: Sentence, seen: Seen, claimed: Sequence[Value], bare: str, own: Sequence[str], sources: Sources
) -> Grounded:
    if claims.is_absence(bare, sources.given_words):
        return Grounded(sentence, "absent", tuple(own))
    if not own and not claimed and not seen.novel and not claims.says_yes_or_no(bare):
        return Grounded(sentence, "plain")
    if not sources.citable and not own:
        return Grounded(sentence, "plain")
    said = " ".join(bare.split())[:200]
    what = f"what it cites does not say this: {said}" if own else f"no source says this: {said}"
    return Grounded(sentence, "unverified", (), (Flaw("unsupported", what),))


# Sources that say it


def _support(seen: Seen, own: Sequence[str], bare: str, sources: Sources) -> Support:
    support = Support()
    plain = f" {normalised(bare)} "
    strong = [row for row in (*seen.values, *seen.names) if row.strong]
    for marker in own:
        at = sources.by_marker[marker]
        held, share = sources.words[at], MIN_CITED * len(seen.words)
        said = bool(seen.words & held) and len(seen.words & (held | sources.given_words)) >= share
        if not seen.words or said or _holds_all(at, strong, sources):
            support.at.append(at)
    best = sources.best_units(seen.words)
    for index, _ in best:
        support.units[sources.units[index].source] = index
    if support.at:
        return support
    exact = [at for at, text in enumerate(sources.normal) if len(plain) >= EXACT_CHARS and plain in text]
    if exact:
        support.at = exact[:1]
        return support
    wanted = seen.novel or seen.words
    for index, _ in best[:MAX_MARKERS]:
        at = sources.units[index].source
        held = frozenset().union(*(sources.units[near].words for near in sources.near(index)))
        share = len(wanted & held) / len(wanted) if wanted else 0.0
        if share >= MIN_FOUND and len(seen.words & held) >= min(2, len(seen.words)):
            support.at = [at]
            return support
    support.at = _by_values(strong, sources)
    return support


def _holds_all(at: int, strong: Sequence[Value], sources: Sources) -> bool:
    begin, end = sources.spans[at]
    held = [value for unit in sources.units[begin:end] for value in unit.values]
    return bool(strong) and all(any(value.same(row) for row in held) for value in strong)


def _by_values(strong: Sequence[Value], sources: Sources) -> list[int]:
    """A source that holds every value of a sentence: two of a passage, in whatever language; one of a tool's result."""
    new = [row for row in strong if not sources.is_given(row)]
    for at, source in enumerate(sources.sources):
        if len(new) >= (1 if source.kind == "tool_result" else 2) and _holds_all(at, new, sources):
            return [at]
    return []


# Sources themselves, and the text with marks


def _doubts(support: Support, sources: Sources) -> tuple[Flaw, ...]:
    """What is wrong with the source itself: it speaks to agents, or is an unverified sentence of an earlier step."""
    units = [sources.units[support.units[at]] for at in support.at if at in support.units]
    if any(unit.suspect for unit in units):
        name = sources.sources[support.at[0]].document or "its source"
        return (
            Flaw("suspect_source", f"{name} holds text that speaks to an agent or moves payments; nobody confirmed it"),
        )
    if units and all(unit.doubtful for unit in units):
        return (Flaw("unsupported", "the earlier step's sentence that it rests on is itself unverified"),)
    return ()


def _markers(at: Sequence[int], support: Support, sources: Sources) -> tuple[str, ...]:
    """Markers of the sources; of an earlier step's sentence its own."""
    made: list[str] = []
    for index in at:
        unit = sources.units[support.units[index]] if index in support.units else None
        carried = unit.markers if unit is not None and sources.sources[index].kind == "input" else ()
        made.extend(carried or (sources.sources[index].marker,))
    return tuple(dict.fromkeys(made))


def with_marks(text: str, grounded: Sequence[Grounded], leaves: Callable[[Grounded], bool] = lambda row: True) -> str:
    """The text with each sentence's markers behind it, an unverified one marked. leaves: whether one may be shown."""
    made: list[str] = []
    at = 0
    for row in grounded:
        made.append(text[at : row.sentence.start])
        at = row.sentence.end
        if leaves(row):
            made.append(_marked(row))
    made.append(text[at:])
    whole = "".join(made)
    return whole if all(map(leaves, grounded)) else re.sub(r"\n{3,}", "\n\n", whole).strip()


def _marked(row: Grounded) -> str:
    """One sentence as it is shown; as it is where nothing changes."""
    text = row.sentence.text
    held = row.sentence.markers
    mark = f" [unverified: {_short(row.flaws[0].message)}]" if row.status == "unverified" and row.flaws else ""
    if held == row.markers and not mark and not MARK.search(text):
        return text
    core = MARK.sub("", re.sub(r"[ \t]*\[#[0-9a-f]{12}\]", "", text)).rstrip()
    tail = ""
    while core and core[-1] in "|`":
        core, tail = core[:-1].rstrip(), core[-1] + tail
    shown = "".join(f" [#{marker}]" for marker in row.markers) + mark
    if not shown:
        return core + (f" {tail}" if tail else "")
    stop = core[-1:] if core[-1:] in (".", "!") else ""
    return f"{core.removesuffix(stop)}{shown}{stop}{f' {tail}' if tail else ''}"


def _short(message: str) -> str:
    return " ".join(message.replace("[", "(").replace("]", ")").split())[:120]
