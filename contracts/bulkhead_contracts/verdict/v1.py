"""Verdicts: the checker's findings on a proposed result."""

from typing import Annotated

from pydantic import Field

from ..result import Result, Usage
from ..types import Body, Contract, Count, Name, Reason, Token


class CheckNote(Contract):
    """One finding: which check, and in words what the worker should do better."""

    code: Name
    message: Reason
    blocking: bool = True


class VerdictReached(Body, type="mesh.verdict.reached"):
    """A proposed result is accepted or not; the reasons go back to the worker's next attempt.

    score: the judge's, how well the answer does; None when no judge gave one. stands: a result that was not accepted
    may end the step when no attempt is left, degraded, for what is wrong with it is marked in it or told.
    """

    step_id: Token
    attempt: Count
    plan_version: Count
    accepted: bool
    notes: Annotated[tuple[CheckNote, ...], Field(max_length=32)] = ()
    judged_by: Name | None = None
    score: Annotated[float, Field(ge=0, le=1)] | None = None
    stands: bool = False
    result: Result
    usage: Usage = Usage()
