"""Ranking of passages. Enters: candidates with their evidence. Leaves: an order, a choice, the cuts.

Pure. words = 0.55 bm25 + 0.35 share of the query's terms in the passage + 0.10 share in its title, each 0..1;
score = 0.85 words + 0.15 of the best passage of the same document: what belongs together comes up together.
With vectors, both orders are merged by reciprocal rank fusion (Cormack et al., SIGIR 2009).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

BM25_WEIGHT, COVERAGE_WEIGHT, TITLE_WEIGHT = 0.55, 0.35, 0.10
DOCUMENT_WEIGHT = 0.15
RRF_K = 60
STRONG_SHARE = 0.6
"""A passage below this share of the best score only brushes the query: leaving it out is no loss."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk of a current document that came up. bm25: higher is better, 0 if found by vector alone."""

    row: int
    chunk_id: str
    document: str
    document_sha256: str
    start: int
    end: int
    title: str
    text: str
    bm25: float = 0.0
    terms_in_text: int = 0
    terms_in_title: int = 0


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """A candidate with its score; strong: it matches about as well as the best."""

    candidate: Candidate
    score: float
    strong: bool


@dataclass(frozen=True, slots=True)
class PassageChoice:
    """Passages to return, best first, and how many strong matches each limit left out."""

    passages: tuple[RankedCandidate, ...]
    omitted_by_k: int
    omitted_by_chars: int
    shortened: bool = False


def rank_by_words(candidates: Sequence[Candidate], term_count: int) -> list[RankedCandidate]:
    """Re-ranked by words."""
    best = max((c.bm25 for c in candidates), default=0.0) or 1.0
    word_scores = {
        c.row: BM25_WEIGHT * max(0.0, c.bm25) / best
        + COVERAGE_WEIGHT * c.terms_in_text / max(1, term_count)
        + TITLE_WEIGHT * c.terms_in_title / max(1, term_count)
        for c in candidates
    }
    leading: dict[str, float] = {}
    for c in candidates:
        leading[c.document_sha256] = max(word_scores[c.row], leading.get(c.document_sha256, 0.0))
    scored = [
        ((1 - DOCUMENT_WEIGHT) * word_scores[c.row] + DOCUMENT_WEIGHT * leading[c.document_sha256], c)
        for c in candidates
    ]
    scored.sort(key=lambda pair: (-pair[0], pair[1].document, pair[1].start))
    top = scored[0][0] if scored else 0.0
    return [RankedCandidate(c, round(score, 6), score >= STRONG_SHARE * top) for score, c in scored]


def fuse_orders(
    words: Sequence[RankedCandidate], nearest: Sequence[int], rows: Mapping[int, Candidate], k: int
) -> list[RankedCandidate]:
    """Merge the lexical order with rows in order of vector nearness; score 1.0 means first in both."""
    scores: dict[int, float] = {}
    strong: set[int] = set()
    for rank, ranked in enumerate(words, 1):
        scores[ranked.candidate.row] = 1 / (RRF_K + rank)
        if ranked.strong:
            strong.add(ranked.candidate.row)
    for rank, row in enumerate(nearest, 1):
        scores[row] = scores.get(row, 0.0) + 1 / (RRF_K + rank)
    candidates = {r.candidate.row: r.candidate for r in words} | dict(rows)
    ceiling = 2 / (RRF_K + 1)
    # By vectors alone everything is near something: only the first k of that order count as strong.
    strong.update(nearest[:k])
    order = sorted(scores, key=lambda row: (-scores[row], candidates[row].document, candidates[row].start))
    return [RankedCandidate(candidates[row], round(scores[row] / ceiling, 6), row in strong) for row in order]


def choose_passages(ranked: Sequence[RankedCandidate], k: int, max_chars: int, per_document: int) -> PassageChoice:
    """At most k passages within max_chars; no document takes all the room while another one matches.

    Documents that contradict each other must both surface, so each gets at most `per_document` (and at most
    half of k) in a first round; what room is left goes by rank again. Equal text is returned once.
    """
    quota = min(per_document, max(1, k // 2))
    chosen: dict[int, RankedCandidate] = {}
    texts: set[str] = set()
    used: Counter[str] = Counter()
    chars = 0
    too_long: set[int] = set()
    for limit in (quota, k):
        for item in ranked:
            c = item.candidate
            if len(chosen) == k:
                break
            if c.row in chosen or c.text in texts or used[c.document] >= limit:
                continue
            if chars + len(c.text) > max_chars:
                too_long.add(c.row)
                continue
            chosen[c.row] = item
            texts.add(c.text)
            used[c.document] += 1
            chars += len(c.text)
    if ranked and not chosen:
        return PassageChoice(
            (_shorten_passage(ranked[0], max_chars),), 0, sum(r.strong for r in ranked[1:]), shortened=True
        )
    strong = [r for r in ranked if r.strong]
    missed = [r for r in strong if r.candidate.row not in chosen and r.candidate.text not in texts]
    by_chars = sum(r.candidate.row in too_long for r in missed)
    order = [r for r in ranked if r.candidate.row in chosen]
    return PassageChoice(tuple(order), len(missed) - by_chars, by_chars)


def _shorten_passage(ranked: RankedCandidate, max_chars: int) -> RankedCandidate:
    """Its beginning, to the last sentence or word that fits; offsets stay exact."""
    c = ranked.candidate
    head = c.text[:max_chars]
    stop = max(head.rfind(". ") + 1, head.rfind("\n"))
    if stop < max_chars // 2:
        stop = head.rfind(" ")
    text = head[: stop if stop > 0 else max_chars].rstrip()
    return replace(ranked, candidate=replace(c, text=text, end=c.start + len(text)))
