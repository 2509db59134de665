"""State of one task's proposed results in the checker: a `CheckCase` per plan version, step and attempt.

| phase   | message          | next                                                           |
| ------- | ---------------- | -------------------------------------------------------------- |
| -       | StepProposed     | over (plain checks refuse), or judging (the judge model asked) |
| judging | ModelCallReplied | over (verdict), or judging (unreadable, or more evidence)      |
| judging | CallDeferred     | judging (again by timer), or over                              |
| judging | CallResumed      | judging (again at once)                                        |
| judging | StepExtended     | judging, with more time                                        |
| over    | anything         | over                                                           |
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bulkhead.flow.answered import AnswerFinding
from bulkhead.flow.attempts import AttemptKey
from bulkhead_contracts.model import ModelCallRequested, Part
from bulkhead_contracts.output import DRAFT, OutputPolicy
from bulkhead_contracts.result import Result, Usage
from bulkhead_contracts.step import StepProposed
from bulkhead_contracts.verdict import CheckNote
from bulkhead_services.checker.checks import CheckedText

Phase = Literal["judging", "over"]


@dataclass(frozen=True, slots=True)
class CheckCase:
    """One proposed result."""

    key: AttemptKey
    phase: Phase = "judging"
    proposed: StepProposed | None = None
    grant: str = ""
    result: Result = Result()
    notes: tuple[CheckNote, ...] = ()
    checked: CheckedText = CheckedText("", ())
    """Its text as the plain checks see it."""
    judge_call: ModelCallRequested | None = None
    rounds: tuple[tuple[Part, ...], ...] = ()
    """Evidence that the judge has yet to see, the round that is asked now first."""
    seen: int = 0
    """Rounds that the judge has accepted."""
    tries: int = 0
    deferrals: int = 0
    usage: Usage = Usage()
    score: float | None = None
    """The judge's, from 0 to 1."""
    judged_answer: AnswerFinding | None = None
    """The judge's word on whether it answers, the first that was said."""
    is_asleep: bool = False
    """Put off, and not asked again yet."""
    is_held: bool = False
    """Held back by a halt or a breaker, as far as is known."""

    @property
    def policy(self) -> OutputPolicy:
        """The tenant's rules for its text."""
        return (self.proposed.output if self.proposed is not None else None) or DRAFT


@dataclass(frozen=True, slots=True)
class CheckerState:
    """The fold of one task's messages in the checker's inbox."""

    cases: Mapping[AttemptKey, CheckCase] = field(default_factory=dict)

    def judging_case(self, call_id: str) -> CheckCase | None:
        """The case that waits for this judge call."""
        judging = (case for case in self.cases.values() if case.phase == "judging" and case.judge_call is not None)
        return next((case for case in judging if case.judge_call and case.judge_call.call_id == call_id), None)

    def with_case(self, case: CheckCase) -> "CheckerState":
        """This state with one case replaced."""
        return CheckerState({**self.cases, case.key: case})
