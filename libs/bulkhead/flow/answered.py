"""The rule for whether a result gives what was asked for: facts come before words. Pure.

In: what is known of a step, or of the steps of a task. Out: yes, partly or no, with a reason; nothing where nothing is
known.

| known                                                                    | answered       |
| ------------------------------------------------------------------------ | -------------- |
| no write of the step was done, and one was refused or failed             | no             |
| some of its writes were done, and one was refused or failed              | partly         |
| the judge has said it                                                    | as it said     |
| no judge has, and the text says alone that the sources hold no answer    | no             |
| no judge has, and the text says so beside other statements               | partly         |
| no judge has, and the search found nothing, and nothing else was seen    | no             |
| the checker did not accept it, and it stands for want of a better one    | partly at most |
| of a task: each step that may write is answered `no`                     | no             |
| of a task: a step before the last is answered `partly` or `no`           | partly at most |
"""

from collections.abc import Sequence
from typing import NamedTuple

from bulkhead_contracts import bounds
from bulkhead_contracts.result import Answered, Result

RANK: dict[Answered, int] = {"yes": 0, "partly": 1, "no": 2}


class AnswerFinding(NamedTuple):
    """Word of a fact on an answer, and why."""

    answered: Answered
    reason: str = ""


class DoneStep(NamedTuple):
    """A done step of a task. may_write: it was given a tool that writes."""

    step_id: str
    result: Result
    may_write: bool


def judge_writes(done: int, lost: Sequence[str]) -> AnswerFinding | None:
    """Finding by the writes of a step. lost: why each that was not done was not."""
    if not lost:
        return None
    return AnswerFinding("partly" if done else "no", "; ".join(dict.fromkeys(lost)))


def judge_text(statements: int, absences: Sequence[str]) -> AnswerFinding | None:
    """Finding by an answer's sentences. absences: those that say that the sources hold no answer. statements: the
    others."""
    if not absences:
        return None
    return AnswerFinding("partly" if statements else "no", absences[0])


def judge_search(retrievals: int, seen: int) -> AnswerFinding | None:
    """Finding by what a step has looked up. seen: pieces of evidence and inputs that it had."""
    return AnswerFinding("no", "the search found nothing") if retrievals and not seen else None


def lower_answer(result: Result, finding: AnswerFinding | None) -> Result:
    """The result, answered as the finding says unless it is answered worse already."""
    if finding is None or (result.answered is not None and RANK[result.answered] >= RANK[finding.answered]):
        return result
    reason = "" if finding.answered == "yes" else finding.reason[: bounds.MAX_REASON_CHARS]
    return result.model_copy(update={"answered": finding.answered, "answered_reason": reason})


def settle_task_answer(final: DoneStep, earlier: Sequence[DoneStep]) -> Result:
    """The result of a task: of its final step, as the steps before it let it be answered."""
    result, writing = final.result, [step for step in (*earlier, final) if step.may_write]
    if writing and all(step.result.answered == "no" for step in writing):
        result = lower_answer(result, AnswerFinding("no", writing[0].result.answered_reason))
    for step in earlier:
        if step.result.answered in ("partly", "no"):
            reason = f"step {step.step_id}: {step.result.answered_reason}"
            result = lower_answer(result, AnswerFinding("partly", reason))
    return result
