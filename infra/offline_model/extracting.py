"""The sentences that answer a question best. Enters: sentences, topic. Leaves: those which overlap it, or none."""

import math
import re
from collections.abc import Sequence

from infra.offline_model.claims import Topic, claims_of
from infra.offline_model.pool import Sentence
from infra.offline_model.text import overlap, stems

SENTENCES_GIVEN_MAX = 6
COVERAGE_MIN = 0.3
HANGS_ON = re.compile(
    r"^(however|but|except|unless|this|these|that|it|they|otherwise|instead|in that case|then)\b", re.I
)
NUMBERS = re.compile(r"\d[\d.,]*")
CHORE = stems(
    "documents passages sources citation citing rules policy page manual guide according info information "
    "details everything relevant answer final amount sum summarise overview write"
)


def asked(topic: Topic) -> set[str]:
    """Stems that an answer should speak of: the task's, or where it has none the facts'."""
    return (topic.stems - CHORE) or (stems(topic.facts) - CHORE)


def weights_of(sentences: Sequence[Sentence], wanted: set[str]) -> dict[str, float]:
    """How telling each wanted stem is: the rarer in the sentences, the more; absent ones most."""
    bags = [sentence.stems for sentence in sentences]
    return {word: math.log((len(bags) + 2) / (sum(word in bag for bag in bags) + 0.5)) for word in sorted(wanted)}


def best_sentences(sentences: Sequence[Sentence], topic: Topic, wide: bool = False) -> list[Sentence]:
    """Up to `SENTENCES_GIVEN_MAX` sentences in order of the documents; empty when nothing overlaps enough."""
    documents = [s for s in sentences if not s.own]
    wanted = asked(topic)
    if not (topic.stems - CHORE) and not topic.facts.strip():
        return documents[:SENTENCES_GIVEN_MAX]
    weights = weights_of(documents, wanted)
    total = sum(weights.values())
    if not documents or not total:
        return []
    near = stems(topic.facts) - wanted
    scored: list[tuple[float, int]] = []
    reached = 0.0
    for index, sentence in enumerate(documents):
        own = sentence.stems
        framed = own | (stems(sentence.context) if own & wanted else set())
        hit = sum(weights[word] for word in sorted(framed & wanted))
        reached = max(reached, hit / total, len(framed & wanted) / len(wanted))
        length = 1 + math.log(1 + len(own)) / 8
        scored.append(((hit + 0.15 * len(own & near) * bool(own & wanted)) / length, index))
    if reached < (COVERAGE_MIN * 0.6 if wide else COVERAGE_MIN):
        return []
    best = max(scored)[0]
    chosen = sorted(scored, key=lambda pair: (-pair[0], pair[1]))
    kept = {index for score, index in chosen[:SENTENCES_GIVEN_MAX] if score >= 0.55 * best}
    for index in sorted(kept):
        following = index + 1
        if (
            following < len(documents)
            and HANGS_ON.match(documents[following].text)
            and documents[following].markers == documents[index].markers
        ):
            kept.add(following)
    return [documents[index] for index in sorted(kept)]


def differing(sentences: Sequence[Sentence]) -> list[tuple[Sentence, Sentence]]:
    """Pairs that say one thing with different numbers in two dated documents: (the later, the earlier)."""
    found = []
    for index, left in enumerate(sentences):
        for right in sentences[index + 1 :]:
            if left.source == right.source or not (left.since and right.since) or claims_of(left):
                continue
            alike = min(overlap(left.stems, right.stems), overlap(right.stems, left.stems))
            one, two = set(NUMBERS.findall(left.text)), set(NUMBERS.findall(right.text))
            if alike >= 0.5 and one and two and one != two and left.since.day != right.since.day:
                later_first = (left, right) if left.since.day > right.since.day else (right, left)
                found.append(later_first)
    return found
