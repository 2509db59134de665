"""The words of a worker's answer. Enters: findings and tool results. Leaves: cited lines.

Every line is one sentence and ends with its citation markers; a quoted sentence stands word for word.
"""

import re
from collections.abc import Sequence

from infra.offline_model.claims import Choice, Topic, claims_of, collect, relevant
from infra.offline_model.extracting import differing, look_each
from infra.offline_model.findings import Findings, disputes, exceptions_in
from infra.offline_model.parts import Part, ToolUse
from infra.offline_model.pool import Sentence, marks, quote, quoted_line
from infra.offline_model.rates import Calculation
from infra.offline_model.rulings import Ruling
from infra.offline_model.text import MARKER, overlap, stems

LINES_MAX = 14
AMOUNT_LINE = "The amount comes to"
NOTHING = "The documents hold no answer to this"
UNREAD = "Nothing was looked up for this"
NEAREST = "the nearest passage says"
NEAREST_CHARS, QUESTION_CHARS = 300, 200
DIFFER = "Two passages differ"
BROAD = re.compile(
    r"\b(percent\w*|rules|limits?|maximum|minimum|exceptions?|waive\w*|fees|contradict\w*|conflict\w*)\b", re.I
)
"""A task that wants every value which bears on it, not one."""


def nothing_line(task: str, sentences: Sequence[Sentence] = (), near: Sequence[Sentence] = (), looked: bool = True) -> str:
    """Says plainly that nothing was found, and which passage comes nearest or which were looked at."""
    question = _question(task)
    if not (looked or sentences):
        return f"{UNREAD}: {question}."
    if near:
        inner = near[0].text[:NEAREST_CHARS].rstrip(" .").replace("“", "'").replace("”", "'")
        return f"{NOTHING}: {question}; {NEAREST} “{inner}” {marks(near[0].markers)}."
    read = list(dict.fromkeys(marker for sentence in sentences if not sentence.own for marker in sentence.markers))
    if not read:
        return f"{NOTHING}: {question}; the search found no passage."
    return f"{NOTHING}: {question} {marks(read[:3])}."


def _question(task: str) -> str:
    inner = " ".join(task.split())[:QUESTION_CHARS].rstrip(" .?").replace("“", "'").replace("”", "'")
    return f"“{inner}”"


def dispute_line(choice: Choice) -> str:
    """Which of two differing statements holds and why, both cited."""
    holds = choice.claim.sentence
    lines = []
    for rival in choice.rivals[:2]:
        lines.append(dispute_of(holds, rival.sentence))
    return "\n".join(lines)


def dispute_of(holds: Sentence, other: Sentence) -> str:
    """One line on two sentences that differ, the one that holds first."""
    if holds.since and other.since:
        why = f"the later effective date, {holds.since.raw}, prevails, so the first holds"
    elif holds.since:
        why = "only the first says from when it holds, so the first is taken"
    else:
        why = "neither says from when it holds, so this is uncertain and the first is taken"
    return f"{DIFFER}: {quote(holds)} and {quote(other)}; {why} {marks((*holds.cited, *other.cited))}."


def ruling_lines(ruling: Ruling) -> list[str]:
    """What the exceptions come to, with the sentences that say so."""
    body = " and ".join(quote(sentence) for sentence in ruling.sentences)
    ids = [part_id for sentence in ruling.sentences for part_id in sentence.cited]
    return [f"{ruling.text}: {body} {marks(ids)}."]


def amount_lines(findings: Findings, use: ToolUse, own: Sequence[Sentence]) -> list[str]:
    """The amount, its calculation and everything that it rests on."""
    value = use.result.rsplit("=", 1)[-1].strip()
    cents = (
        f"{value}.00" if re.fullmatch(r"-?\d+", value) else f"{value}0" if re.fullmatch(r"-?\d+\.\d", value) else value
    )
    currency = findings.base.currency if findings.base else ""
    ids = [use.id, *(part_id for choice in findings.choices for part_id in choice.claim.sentence.markers)]
    lines = [f"{AMOUNT_LINE} {currency} {cents}: {' '.join(use.result.split())} {marks(ids)}."]
    for choice in findings.choices:
        lines.append(dispute_line(choice) if choice.rivals else quoted_line(choice.claim.sentence))
    if findings.ruling:
        lines.extend(ruling_lines(findings.ruling))
    lines.extend(f"{s.text} {marks(s.markers)}." for s in own if re.search(r" is -?\d+ days?$", s.text))
    return lines


def rate_lines(made: Calculation, use: ToolUse, task: str) -> list[str]:
    """A plain calculation and the sentences that give its numbers."""
    value = use.result.rsplit("=", 1)[-1].strip()
    if made.currency and re.fullmatch(r"-?\d+(?:\.\d)?", value):
        value = f"{value}.00" if "." not in value else f"{value}0"
    ids = [use.id, *(marker for sentence in made.sentences for marker in sentence.markers)]
    # Without a currency the question's own words stand before it: a checker looks for words that it knows.
    head = f"{AMOUNT_LINE} {made.currency} {value}" if made.currency else f"Worked out for {_question(task)}"
    lines = [f"{head}: {' '.join(use.result.split())} {marks(ids)}."]
    return [*lines, *dict.fromkeys(quoted_line(sentence) for sentence in made.sentences[:LINES_MAX])]


def finding_lines(sentences: Sequence[Sentence], topic: Topic, findings: Findings, wide: bool) -> list[str]:
    """Lines of a step that looks something up: differing statements, then what answers, best first."""
    each = look_each(sentences, topic, wide)
    if not any(found.sure for _, found in each):
        return []
    lines: list[str] = []
    for piece, found in each:
        if found.sure:
            lines.extend(_lines_of(found.sentences, sentences, Topic(piece, topic.facts), findings))
        else:
            lines.append(nothing_line(piece, sentences, found.sentences))
    return list(dict.fromkeys(lines))[: max(LINES_MAX + 6, 4 * len(each))]


def _lines_of(
    chosen: Sequence[Sentence], sentences: Sequence[Sentence], topic: Topic, findings: Findings
) -> list[str]:
    lines: list[str] = []
    given: list[Sentence] = []
    by_role = collect(sentences)
    texts = {sentence.text for sentence in chosen}
    broad = bool(BROAD.search(topic.task))
    for role in ("share", "fee", "fee_share"):
        claims = [c for c in relevant(by_role[role], topic) if broad or c.sentence.text in texts]
        if not any(topic.stems & claim.sentence.stems for claim in claims):
            continue
        for choice in disputes(relevant(by_role[role], topic), topic):
            if broad or choice.claim.sentence.text in texts:
                lines.append(dispute_line(choice))
        given.extend(claim.sentence for claim in claims)
    if broad:
        given.extend(c.claim.sentence for c in (findings.cap, findings.floor) if c)
    for later, earlier in differing(chosen):
        lines.append(dispute_of(later, earlier))
    valued = bool(given) and broad
    for sentence in chosen:
        # A value that was not found relevant is about something else.
        if sentence.text not in {s.text for s in given} and not (valued and claims_of(sentence)):
            given.append(sentence)
    rank = {sentence.text: index for index, sentence in enumerate(chosen)}
    given.sort(key=lambda sentence: rank.get(sentence.text, len(rank)))
    return [*dict.fromkeys(lines), *dict.fromkeys(quoted_line(sentence) for sentence in given)]


def exception_lines(sentences: Sequence[Sentence], topic: Topic, ruling: Ruling | None) -> list[str]:
    """Lines of a step that asks for exceptions: the ruling, then the sentences that it was made from."""
    if not ruling:
        return []
    used = [*ruling.sentences, *(s for s in exceptions_in(sentences) if s not in ruling.sentences)]
    return [*ruling_lines(ruling), *dict.fromkeys(quoted_line(sentence) for sentence in used[:8])]


def composed_lines(inputs: Sequence[Part], task: str) -> list[str]:
    """The final answer from earlier results: the amount, then conclusions, then what was quoted."""
    texts = [[line.strip() for line in part.text.splitlines() if line.strip()] for part in inputs]
    amounted = any(line.startswith(AMOUNT_LINE) for lines in texts for line in lines)
    ranked: list[tuple[int, int, str]] = []
    wanted = stems(task)
    for place, lines in enumerate(texts):
        has_amount = any(line.startswith(AMOUNT_LINE) for line in lines)
        for line in lines:
            quoted = line.startswith("“")
            if amounted and not has_amount and (quoted or line.startswith((DIFFER, NOTHING))):
                continue
            rank = 0 if line.startswith(AMOUNT_LINE) else 1 if line.startswith(DIFFER) else 2
            ranked.append((rank if amounted else 0, place, line))
    kept: list[tuple[int, str]] = []
    for _, place, line in sorted(ranked, key=lambda entry: entry[:2]):
        bare = MARKER.sub("", line).strip(" .")
        inner = re.match(r"“([^”]*)”", bare)
        if any(bare in earlier for _, earlier in kept) or (
            inner and any(f"“{inner.group(1)}”" in earlier for _, earlier in kept)
        ):
            continue
        kept.append((place, line))
    return _within(kept, wanted, max(LINES_MAX, 2 * len(texts)))


def _within(kept: Sequence[tuple[int, str]], wanted: set[str], most: int) -> list[str]:
    """At most so many lines: the first of every result, then those closest to the task; says what is left out."""
    if len(kept) <= most:
        return [line for _, line in kept]
    firsts: dict[int, int] = {}
    for index, (place, _) in enumerate(kept):
        firsts.setdefault(place, index)
    order = sorted(
        range(len(kept)), key=lambda i: (i not in firsts.values(), -overlap(wanted, stems(kept[i][1])), i)
    )
    lines = [kept[i][1] for i in sorted(order[:most])]
    left = len(kept) - most
    return [*lines, f"Left out for want of room: {left} further line{'s' * (left > 1)} of the steps' results."]
