"""The sentences that answer a question best. Enters: sentences, topic. Leaves: those, best first, or none.

A sentence is judged in its frame: the headings above it and the sentence before it in its paragraph. Together they
answer when they hold at least about half of the question's words, where rare words count more.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bulkhead_infra.offline_model.language.claims import NUMBERS, Topic, claims_of, one_number_differs
from bulkhead_infra.offline_model.language.pool import Sentence
from bulkhead_infra.offline_model.language.questions import LIGHT, Question, bag_of, codes_of, gives, read_question
from bulkhead_infra.offline_model.language.text import overlap

SENTENCES_GIVEN_MAX = 4
SUMMARY_SENTENCES_MAX = 12
COVERAGE_MIN, COVERAGE_NEAR, COVERAGE_WIDE, LONG_TASK_WORDS = 0.5, 0.4, 0.3, 7
SORT_LEFT_OUT_FROM = 0.66
NEAR_BEST, ABSENT_COUNT = 0.7, 0.5
LIGHT_SHARE, CONTEXT_SHARE, BEFORE_SHARE, KIND_SHARE, NEAR_SHARE = 0.3, 0.8, 0.4, 0.5, 0.15
HANGS_ON = re.compile(
    r"^(however|but|except|unless|this|these|that|it|they|otherwise|instead|in that case|then|after that)\b", re.I
)


@dataclass(frozen=True)
class Framed:
    """A sentence with the words around it."""

    sentence: Sentence
    own: frozenset[str]
    context: frozenset[str]
    before: frozenset[str]

    def share_of(self, word: str) -> float:
        """Weight of a word by where it stands: in the sentence, its headings, or the sentence before it."""
        if word in self.own:
            return 1.0
        return CONTEXT_SHARE if word in self.context else BEFORE_SHARE if word in self.before else 0.0


def framed(sentences: Sequence[Sentence]) -> list[Framed]:
    """Sentences of documents in their frames."""
    frames: list[Framed] = []
    for sentence in sentences:
        before = frames[-1].own if sentence.follows and frames else frozenset()
        frames.append(Framed(sentence, bag_of(sentence.text), bag_of(sentence.context), before))
    return frames


def weights_of(frames: Sequence[Framed], question: Question) -> dict[str, float]:
    """Weight of each wanted word: the rarer in the sentences, the heavier; an absent word is a little heavier still."""
    weights: dict[str, float] = {}
    for word in sorted(question.wanted):
        count = sum(word in frame.own or word in frame.context for frame in frames) or ABSENT_COUNT
        weights[word] = math.log((len(frames) + 2) / (count + 0.5)) * (LIGHT_SHARE if word in question.light else 1)
    return weights


def best_sentences(sentences: Sequence[Sentence], topic: Topic, least: float = COVERAGE_MIN) -> list[Sentence]:
    """The sentences that answer, best first; empty when none covers at least `least` of the question."""
    frames = framed([s for s in sentences if not s.own])
    question = read_question(topic)
    if not frames:
        return []
    if question.summary or not question.wanted:
        return _summary(frames, question)
    headed = [frame.sentence for frame in frames if question.telling and question.telling <= frame.context]
    if question.listing and headed and not question.sort:
        return headed[:SUMMARY_SENTENCES_MAX]
    weights = weights_of(frames, question)
    scored = [(_score(frame, question, weights), -index) for index, frame in enumerate(frames)]
    best = max(scored)[0]
    kept = [-place for score, place in sorted(scored, reverse=True)[:SENTENCES_GIVEN_MAX] if score >= NEAR_BEST * best]
    if best <= 0 or not _answers([frames[index] for index in kept], question, weights, least):
        return []
    return [frames[index].sentence for index in _with_neighbours(frames, kept)]


def _score(frame: Framed, question: Question, weights: dict[str, float]) -> float:
    hit = sum(weight * frame.share_of(word) for word, weight in weights.items())
    if hit <= 0 or (not frame.own & question.wanted and not frame.before & question.wanted):
        return 0.0
    if question.codes and not question.codes & codes_of(frame.sentence.text):
        hit *= 0.3
    hit += KIND_SHARE * max(weights.values()) * sum(gives(kind, frame.sentence.text) for kind in question.kinds)
    return (hit + NEAR_SHARE * len(frame.own & question.near)) / (1 + math.log(1 + len(frame.own)) / 8)


def _answers(kept: Sequence[Framed], question: Question, weights: dict[str, float], least: float) -> bool:
    """Whether the best sentences are on the subject of the question, not on a neighbouring one."""
    if question.codes - {code for frame in kept for code in codes_of(frame.sentence.text + frame.sentence.context)}:
        return False
    if {"money", "number"} & set(question.kinds) and not any(NUMBERS.search(frame.sentence.text) for frame in kept):
        return False
    # A sentence answers `Which plant needs water weekly?` without the word plant only when it holds the rest.
    rest = question.wanted - question.sort
    said = any(len(frame.own & rest) >= SORT_LEFT_OUT_FROM * len(rest) for frame in kept)
    light = question.light if said else question.light - question.sort
    telling = {word: weight for word, weight in weights.items() if word not in light}
    total = sum(telling.values())
    held = max(sum(weight for word, weight in telling.items() if frame.share_of(word)) for frame in kept)
    long = len(telling) >= LONG_TASK_WORDS or question.compound
    return held >= (COVERAGE_WIDE if long else least) * total


def _with_neighbours(frames: Sequence[Framed], kept: Sequence[int]) -> list[int]:
    """Each sentence, followed by the next of its paragraph where that one continues it."""
    indexes: list[int] = []
    for index in kept:
        indexes.append(index)
        after = frames[index + 1] if index + 1 < len(frames) else None
        if after and after.sentence.follows:
            goes_on = (after.own & frames[index].own) - LIGHT
            if HANGS_ON.match(after.sentence.text) or (goes_on and index == kept[0]):
                indexes.append(index + 1)
    return list(dict.fromkeys(indexes))


def _summary(frames: Sequence[Framed], question: Question) -> list[Sentence]:
    """Sentences of the named document: the first under each heading, then those that give values."""
    by_source: dict[str, list[Framed]] = {}
    for frame in frames:
        by_source.setdefault(frame.sentence.source, []).append(frame)

    def named(source: str) -> int:
        headed = bag_of(re.sub(r"\.\w+$|[_-]", " ", source)).union(*(frame.context for frame in by_source[source]))
        said = frozenset().union(*(frame.own for frame in by_source[source]))
        return 3 * len(question.telling & headed) + len(question.telling & said)

    meant = max(by_source, key=named)
    if question.telling and not named(meant):
        return []
    own = [frame.sentence for frame in by_source[meant]]
    first = [i for i, s in enumerate(own) if i == 0 or s.context != own[i - 1].context]
    valued = [i for i, s in enumerate(own) if NUMBERS.search(s.text)]
    picked = list(dict.fromkeys([*first, *valued, *range(len(own))]))[:SUMMARY_SENTENCES_MAX]
    return [own[index] for index in sorted(picked)]


def differing(sentences: Sequence[Sentence], with_claims: bool) -> list[tuple[Sentence, Sentence]]:
    """Pairs of one statement with different numbers in two dated documents: (the later, the earlier)."""
    pairs = []
    for index, left in enumerate(sentences):
        for right in sentences[index + 1 :]:
            if left.source == right.source or not (left.since and right.since) or (claims_of(left) and not with_claims):
                continue
            alike = min(overlap(left.stems, right.stems), overlap(right.stems, left.stems))
            valued = NUMBERS.search(left.text) and NUMBERS.search(right.text)
            other = valued and one_number_differs(left.text, right.text)
            if alike >= 0.5 and other and left.since.day != right.since.day:
                pairs.append((left, right) if left.since.day > right.since.day else (right, left))
    return pairs
