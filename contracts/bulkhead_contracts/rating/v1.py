"""Ratings of tasks: what people, and judges, say of an answer.

A rating lies in the gateway's inbox beside its task's messages, and goes with them.
"""

from typing import Literal

from ..types import Body, Name, Reason, Summary, Token, UnixMs

Score = Literal["good", "bad"]
RatingKind = Literal["rating", "label", "judge"]
"""A word of who uses the answer; a label, given without seeing what others say; the verdict of a judge model."""


class TaskRated(Body, type="mesh.rating.task_rated"):
    """A person, or a judge, says whether a task's answer is good.

    rating_id: the same for one person, task, kind and judge: a later rating under it replaces the one before. comment:
    why, in the person's words, without keys and personal data. judge: `name@digest` of the judge's certificate, for
    the kind `judge` alone. certified: the judge's certificate holds at that time.
    """

    rating_id: Token
    score: Score
    comment: Reason = ""
    kind: RatingKind = "rating"
    person: Name
    role: Name
    judge: Summary = ""
    certified: bool = False
    rated_unix_ms: UnixMs
