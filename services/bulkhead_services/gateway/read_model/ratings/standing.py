"""Ratings of one task, pure: which stand, what they come to, and what a reader may see of them.

In: `TaskRated` facts of the task, in stream order. Out: the rating that stands for each person, judge and kind.
"""

import base64
import hmac
from collections.abc import Mapping
from typing import NamedTuple

from bulkhead.gateway_api.query import OVERSEERS
from bulkhead.gateway_api.ratings import RatedAs, RatingCounts, TaskRatings
from bulkhead_contracts.rating import RatingKind, Score, TaskRated
from bulkhead_contracts.task import RequesterClaim


class StandingRating(NamedTuple):
    """The latest rating under its id. changes: how often one was stored under it."""

    body: TaskRated
    changes: int = 1


Ratings = Mapping[str, StandingRating]
"""By rating id."""


def rating_id_of(key: bytes, task: str, person: str, kind: RatingKind, judge: str = "") -> str:
    """'r' and 25 base32 characters: the same for one person, task, kind and judge, of any digest. key: of the gateway,
    so that nobody finds out by trying whose a label is."""
    parts = ("rating", task, kind, person, *((judge.partition("@")[0],) if judge else ()))
    digest = hmac.digest(key, "\0".join(parts).encode(), "sha256")
    return "r" + base64.b32encode(digest).decode().lower()[:25]


def apply_rated(ratings: Ratings, body: TaskRated) -> Ratings:
    """The ratings after one more: it replaces the one before it under its id."""
    earlier = ratings.get(body.rating_id)
    return {**ratings, body.rating_id: StandingRating(body, earlier.changes + 1 if earlier else 1)}


def count_ratings(ratings: Ratings) -> RatingCounts:
    """Numbers of good and bad ones; labels and advice, a verdict that is not certified, are counted as such alone."""
    advice = [standing.body for standing in ratings.values() if _is_advice(standing.body)]
    bodies = [standing.body for standing in ratings.values() if not _is_advice(standing.body)]

    def count(kind: RatingKind, score: Score) -> int:
        return sum(body.kind == kind and body.score == score for body in bodies)

    return RatingCounts(
        good=count("rating", "good"),
        bad=count("rating", "bad"),
        judged_good=count("judge", "good"),
        judged_bad=count("judge", "bad"),
        advice=len(advice),
        labels=sum(body.kind == "label" for body in bodies),
    )


def _is_advice(body: TaskRated) -> bool:
    return body.kind == "judge" and not body.certified


def verdict_of(counts: RatingCounts) -> RatedAs:
    """The word of people: one that says bad outweighs those that say good."""
    return "bad" if counts.bad else "good" if counts.good else "none"


def labels_of(ratings: Ratings) -> dict[str, Score]:
    """Labels by person."""
    return {standing.body.person: standing.body.score for standing in ratings.values() if standing.body.kind == "label"}


def describe_ratings(ratings: Ratings, claim: RequesterClaim) -> TaskRatings:
    """The ratings as a reader sees them: counts, the own ones, and everybody's but labels where the role oversees."""
    bodies = sorted((standing.body for standing in ratings.values()), key=lambda body: body.rated_unix_ms)
    named = [body for body in bodies if body.kind != "label"] if claim.role in OVERSEERS.names else []
    own_ratings = tuple(body for body in bodies if body.person == claim.person)
    return TaskRatings(**count_ratings(ratings).model_dump(), own=own_ratings, named=tuple(named))
