"""The sentences that answer a question best. Enters: sentences, topic. Leaves: those, best first, and whether they do.

A sentence is taken with its frame: the headings above it, the name of its document, the sentence before it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from infra.offline_model.claims import Topic, claims_of
from infra.offline_model.planning import split_objective
from infra.offline_model.pool import Sentence
from infra.offline_model.questions import DENIES, Question, codes, gives, meets, pieces_of, read_question
from infra.offline_model.text import overlap, stems

SENTENCES_GIVEN_MAX = 6
LISTED_MAX = 12
SURE_COVERAGE = 0.5
WIDE_COVERAGE = 0.3
NEAR_BEST = 0.6
FEW_WORDS, MOST_OF_BEST, HALF_OF_BEST = 4, 0.75, 0.5
CONTEXT_SHARE, BEFORE_SHARE, LIGHT_SHARE, KIND_SHARE = 0.8, 0.4, 0.3, 0.6
HEADED_SHARE, ALIKE_SHARE, DENIAL_SHARE = 0.3, 0.7, 0.5
HANGS_ON = re.compile(
    r"^(however|but|except|unless|this|these|that|it|they|otherwise|instead|in that case|then|use)\b", re.I
)
NUMBERS = re.compile(r"\d[\d.,]*")


@dataclass(frozen=True)
class Found:
    """Sentences, best first. sure: they answer the question; else they are only the nearest there is."""

    sentences: tuple[Sentence, ...] = ()
    sure: bool = False


@dataclass(frozen=True)
class Framed:
    """A sentence with the stems of what stands around it."""

    sentence: Sentence
    own: frozenset[str]
    context: frozenset[str]
    before: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        return self.own | self.context | self.before


def framed(sentences: Sequence[Sentence]) -> list[Framed]:
    """Sentences of documents in their frames."""
    found: list[Framed] = []
    last: Sentence | None = None
    for sentence in sentences:
        own = frozenset(sentence.stems | codes(sentence.text))
        name = re.sub(r"\.\w+$|[_-]", " ", sentence.source)
        around = f"{sentence.context} {name}"
        before: frozenset[str] = frozenset()
        if last is not None and not sentence.row and last.markers == sentence.markers and last.context == sentence.context:
            before = frozenset(last.stems)
        found.append(Framed(sentence, own, frozenset(stems(around) | codes(around)), before))
        last = sentence
    return found


def weights_of(frames: Sequence[Framed], question: Question) -> dict[str, float]:
    """How telling each wanted stem is: the rarer in the sentences, the more; absent ones most."""
    found: dict[str, float] = {}
    for word in sorted(question.wanted | question.codes):
        count = sum(meets(word, frame.own | frame.context) for frame in frames)
        weight = math.log((len(frames) + 2) / (count + 0.5))
        found[word] = weight * (LIGHT_SHARE if word in question.light else 1.5 if word in question.codes else 1)
    return found


def look(sentences: Sequence[Sentence], topic: Topic, wide: bool = False) -> Found:
    """What the sentences say on a topic."""
    frames = framed([s for s in sentences if not s.own])
    question = read_question(topic)
    if not frames:
        return Found()
    if question.summary or not question.wanted:
        return _summary(frames, question)
    weights = weights_of(frames, question)
    near = stems(topic.facts) - question.wanted
    numbers = set(NUMBERS.findall(topic.task))
    scored = [(_score(frame, question, weights, near, numbers), -index) for index, frame in enumerate(frames)]
    best, place = max(scored)
    if best <= 0:
        return Found()
    first = frames[-place]
    if not _sure(frames, [frames[-i] for score, i in scored if score >= NEAR_BEST * best], question, weights, wide):
        return Found((first.sentence,), False)
    return Found(tuple(_chosen(frames, scored, first, question, weights)), True)


def best_sentences(sentences: Sequence[Sentence], topic: Topic, wide: bool = False) -> list[Sentence]:
    """The sentences that answer, best first; empty when none does."""
    found = look(sentences, topic, wide)
    return list(found.sentences) if found.sure else []


def look_each(sentences: Sequence[Sentence], topic: Topic, wide: bool = False) -> list[tuple[str, Found]]:
    """Every question of a task with what the sentences say on it."""
    asked = pieces_of(topic.task, split_objective(topic.task)[1])
    return [(piece, look(sentences, Topic(piece, topic.facts), wide)) for piece in asked]


def _score(
    frame: Framed, question: Question, weights: dict[str, float], near: set[str], numbers: set[str]
) -> float:
    hit = 0.0
    for word, weight in weights.items():
        if word in frame.own:
            hit += weight * (1 + HEADED_SHARE * (word in frame.context))
        elif meets(word, frame.own):
            hit += ALIKE_SHARE * weight
        elif meets(word, frame.context):
            hit += CONTEXT_SHARE * weight
        elif meets(word, frame.before):
            hit += BEFORE_SHARE * weight
    if hit <= 0:
        return 0.0
    if question.codes and not question.codes & (frame.own | frame.context):
        hit *= 0.3
    top = max(weights.values())
    text = frame.sentence.text
    if gives(question, text):
        hit += KIND_SHARE * top
    if question.denies and DENIES.search(text):
        hit += DENIAL_SHARE * top
    hit += 0.15 * len(frame.own & near) + 0.2 * top * bool(numbers & set(NUMBERS.findall(text)))
    return hit / (1 + math.log(1 + len(frame.own)) / 8)


def _sure(
    frames: Sequence[Framed], good: Sequence[Framed], question: Question, weights: dict[str, float], wide: bool
) -> bool:
    """Whether the best sentences speak of what is asked, not of something near it."""
    held = frozenset().union(*(frame.all for frame in good))
    everything = frozenset().union(*(frame.all for frame in frames))
    if question.codes and not question.codes & held:
        return False
    if question.focus and not any(meets(word, held) for word in question.focus):
        return False
    if any(not meets(name, everything) for name in question.names):
        return False
    telling = [word for word in weights if word in question.telling or word in question.codes]
    total = sum(weights[word] for word in telling)
    if not total:
        return True
    share = 0.0
    for frame in good:
        reached = [word for word in telling if meets(word, frame.all)]
        share = max(share, sum(weights[word] for word in reached) / total, len(reached) / len(telling))
    return share >= (WIDE_COVERAGE if wide else SURE_COVERAGE)


def _chosen(
    frames: Sequence[Framed],
    scored: Sequence[tuple[float, int]],
    first: Framed,
    question: Question,
    weights: dict[str, float],
) -> list[Sentence]:
    """Those near the best, what hangs on them, and for a list everything under the heading that is meant."""
    best = max(scored)[0]
    ranked = sorted(scored, key=lambda pair: (-pair[0], -pair[1]))
    telling = [word for word in weights if word not in question.light]
    enough = (MOST_OF_BEST if len(telling) <= FEW_WORDS else HALF_OF_BEST) * _reached(first, telling)
    kept = [
        -place
        for score, place in ranked[:SENTENCES_GIVEN_MAX]
        if score >= NEAR_BEST * best and _reached(frames[-place], telling) >= enough
    ]
    if question.lists:
        under = sum(weights[word] for word in weights if meets(word, first.context))
        if under >= 0.4 * sum(weights.values()):
            kept = [index for index, frame in enumerate(frames) if _together(frame, first)][:LISTED_MAX]
    order: list[int] = []
    for index in kept:
        following = index + 1
        order.append(index)
        if (
            following < len(frames)
            and HANGS_ON.match(frames[following].sentence.text)
            and frames[following].sentence.markers == frames[index].sentence.markers
        ):
            order.append(following)
    return [frames[index].sentence for index in dict.fromkeys(order)]


def _reached(frame: Framed, telling: Sequence[str]) -> int:
    return sum(meets(word, frame.own | frame.context) for word in telling)


def _together(one: Framed, other: Framed) -> bool:
    return one.sentence.source == other.sentence.source and one.sentence.context == other.sentence.context


def _summary(frames: Sequence[Framed], question: Question) -> Found:
    """The document that is meant, told by its first sentences under each heading and those that give values."""
    wanted = question.telling
    by_source: dict[str, list[Framed]] = {}
    for frame in frames:
        by_source.setdefault(frame.sentence.source, []).append(frame)

    def weight(source: str) -> float:
        own = by_source[source]
        named = sum(any(meets(word, frame.context) for frame in own) for word in wanted)
        return 3 * named + sum(any(meets(word, frame.own) for frame in own) for word in wanted)

    best = max(by_source, key=weight)
    if wanted and not weight(best):
        return Found()
    own = by_source[best]
    contexts: set[str] = set()
    leading = [i for i, frame in enumerate(own) if not (frame.sentence.context in contexts
                                                        or contexts.add(frame.sentence.context))]  # type: ignore[func-returns-value]  # fmt: skip
    valued = [i for i, frame in enumerate(own) if NUMBERS.search(frame.sentence.text)]
    picked = list(dict.fromkeys([*leading, *valued, *range(len(own))]))[:LISTED_MAX]
    return Found(tuple(own[index].sentence for index in sorted(picked)), True)


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
