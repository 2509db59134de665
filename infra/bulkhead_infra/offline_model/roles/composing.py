"""The words of a worker's answer. Enters: findings and tool results. Leaves: cited lines.

Every line is one sentence and ends with its citation markers; a quoted sentence stands word for word.
"""

import re
from collections.abc import Sequence

from bulkhead_infra.offline_model.language import extracting
from bulkhead_infra.offline_model.language.claims import Choice, Topic, claims_of, collect, relevant
from bulkhead_infra.offline_model.language.extracting import best_sentences, differing
from bulkhead_infra.offline_model.language.findings import Findings, disputes, exceptions_in
from bulkhead_infra.offline_model.language.pool import Sentence, marks, quote, quoted_line
from bulkhead_infra.offline_model.language.rates import Plain
from bulkhead_infra.offline_model.language.rulings import Ruling
from bulkhead_infra.offline_model.language.text import MARKER, overlap, stems
from bulkhead_infra.offline_model.parts import Part, ToolUse

LINES_MAX = 14
AMOUNT_LINE = "The amount comes to"
PLAIN_LINE = "That makes"
RULES = re.compile(r"\b(rules?|percent\w*|shares?|fees?|charges?|deduct\w*|caps?|limits?|minimum|maximum|waive\w*)\b")
RULES_MIN = 3  # a task with so many words for rules collects them for a calculation
NOTHING = "The documents hold no answer to this"
UNSEARCHED = "none was searched"
DIFFER = "Two passages differ"


def nothing_line(topic: Topic, sentences: Sequence[Sentence], searched: bool) -> str:
    """States that nothing was found, which passages were read, and the nearest sentence in them."""
    task = topic.task.split("\n", 1)[0]
    question = " ".join(task.split())[:200].rstrip(" .?").replace("“", "'").replace("”", "'")
    read = list(dict.fromkeys(marker for sentence in sentences if not sentence.own for marker in sentence.markers))
    if not read:
        return f"{NOTHING}: “{question}”." if searched else f"{NOTHING}: “{question}” ({UNSEARCHED})."
    near = best_sentences(sentences, topic, extracting.COVERAGE_NEAR)[:1]
    if near:
        return f"{NOTHING}: “{question}”; the nearest they come to it is {quote(near[0])} {marks(near[0].cited)}."
    return f"{NOTHING}: “{question}” {marks(read[:3])}."


def dispute_line(choice: Choice) -> str:
    """The statement that holds against up to two rivals, with the reason, all cited."""
    return "\n".join(dispute_of(choice.claim.sentence, rival.sentence) for rival in choice.rivals[:2])


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
    """Effect of the exceptions, with the sentences that state it."""
    body = " and ".join(quote(sentence) for sentence in ruling.sentences)
    ids = [part_id for sentence in ruling.sentences for part_id in sentence.cited]
    return [f"{ruling.text}: {body} {marks(ids)}."]


def with_cents(result: str) -> str:
    """The value of a calculator's result with two decimals where it has fewer."""
    value = result.rsplit("=", 1)[-1].strip()
    if re.fullmatch(r"-?\d+", value):
        return f"{value}.00"
    return f"{value}0" if re.fullmatch(r"-?\d+\.\d", value) else value


def amount_lines(findings: Findings, use: ToolUse, own: Sequence[Sentence]) -> list[str]:
    """The amount, its calculation and all the sentences that support it."""
    currency = findings.base.currency if findings.base else ""
    ids = [use.id, *(part_id for choice in findings.choices for part_id in choice.claim.sentence.markers)]
    lines = [f"{AMOUNT_LINE} {currency} {with_cents(use.result)}: {' '.join(use.result.split())} {marks(ids)}."]
    for choice in findings.choices:
        lines.append(dispute_line(choice) if choice.rivals else quoted_line(choice.claim.sentence))
    if findings.ruling:
        lines.extend(ruling_lines(findings.ruling))
    lines.extend(f"{s.text} {marks(s.markers)}." for s in own if re.search(r" is -?\d+ days?$", s.text))
    return lines


def plain_lines(made: Plain, use: ToolUse) -> list[str]:
    """A plain sum and the sentences that support it."""
    value = f"{made.currency} {with_cents(use.result)}" if made.currency else use.result.rsplit("=", 1)[-1].strip()
    ids = [use.id, *(part_id for sentence in made.sentences for part_id in sentence.markers)]
    first = f"{PLAIN_LINE} {value}: {' '.join(use.result.split())} {marks(ids)}."
    return [first, *dict.fromkeys(quoted_line(sentence) for sentence in made.sentences)]


def finding_lines(sentences: Sequence[Sentence], topic: Topic, findings: Findings, wide: bool) -> list[str]:
    """Lines of a step that looks something up: differing statements first, then the sentences, best first."""
    if len(set(RULES.findall(topic.task.lower()))) >= RULES_MIN:
        return _rule_lines(sentences, topic, findings, best_sentences(sentences, topic, extracting.COVERAGE_WIDE))
    chosen = best_sentences(sentences, topic, extracting.COVERAGE_WIDE if wide else extracting.COVERAGE_MIN)
    pairs = differing(chosen, with_claims=True)
    told = {sentence.text for pair in pairs for sentence in pair}
    lines = [dispute_of(later, earlier) for later, earlier in pairs]
    return [*lines, *dict.fromkeys(quoted_line(sentence) for sentence in chosen if sentence.text not in told)]


def _rule_lines(
    sentences: Sequence[Sentence], topic: Topic, findings: Findings, chosen: Sequence[Sentence]
) -> list[str]:
    """Lines of a step that collects rules: every value that may matter, not only the nearest sentences."""
    lines: list[str] = []
    given: list[Sentence] = []
    by_role = collect(sentences)
    for role in ("share", "fee", "fee_share"):
        claims = relevant(by_role[role], topic)
        if not any(topic.stems & claim.sentence.stems for claim in claims):
            continue
        lines.extend(dispute_line(choice) for choice in disputes(findings, claims))
        given.extend(claim.sentence for claim in claims)
    given.extend(c.claim.sentence for c in (findings.cap, findings.floor) if c)
    lines.extend(dispute_of(later, earlier) for later, earlier in differing(chosen, with_claims=False))
    valued = bool(given)
    for sentence in chosen:
        # A value that was not found relevant is about something else.
        if not any(sentence.text == s.text for s in given) and not (valued and claims_of(sentence)):
            given.append(sentence)
    lines.extend(dict.fromkeys(quoted_line(sentence) for sentence in given))
    return lines[: LINES_MAX + 6]


def exception_lines(sentences: Sequence[Sentence], topic: Topic, ruling: Ruling | None) -> list[str]:
    """Lines of a step that asks for exceptions: the ruling, then the sentences that it follows from."""
    if not ruling:
        return []
    used = [*ruling.sentences, *(s for s in exceptions_in(sentences) if s not in ruling.sentences)]
    return [*ruling_lines(ruling), *dict.fromkeys(quoted_line(sentence) for sentence in used[:8])]


def composed_lines(inputs: Sequence[Part], task: str) -> list[str]:
    """The final answer from earlier results: the amount, then conclusions, then quotations."""
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
            rank = 0 if line.startswith((AMOUNT_LINE, PLAIN_LINE)) else 1 if line.startswith(DIFFER) else 2
            ranked.append((rank if amounted else 0, place, line))
    kept: list[str] = []
    for _, _, line in sorted(ranked, key=lambda entry: entry[:2]):
        bare = MARKER.sub("", line).strip(" .")
        inner = re.match(r"“([^”]*)”", bare)
        if any(bare in earlier for earlier in kept) or (inner and any(f"“{inner.group(1)}”" in e for e in kept)):
            continue
        kept.append(line)
    if amounted and len(kept) > LINES_MAX:
        order = sorted(range(len(kept)), key=lambda i: (-overlap(wanted, stems(kept[i])) if i else -9.0, i))
        kept = [kept[i] for i in sorted(order[:LINES_MAX])]
    return kept
