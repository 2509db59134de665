"""Use of prompts by version: what counts for which, and from when on a version is told as using more."""

import random

import pytest

from bulkhead.journal.prompt_usage import MIN_ACCEPTED, PromptFigures, TaskPrompts, find_hungry_versions, report_prompts
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.result import Result, Usage
from bulkhead_contracts.types import Body
from bulkhead_contracts.verdict import VerdictReached
from tests.samples import sample


def call(call_id: str, prompt: str, step: str, tokens: int, release: str = "production.1") -> ModelCallReplied:
    usage = Usage(input_tokens=tokens - 10, output_tokens=10, cost_usd_micros=tokens * 2)
    return ModelCallReplied(
        call_id=call_id, step_id=step, outcome="answered", prompt_id=prompt, release=release, usage=usage
    )


def verdict(step: str, attempt: int = 1, accepted: bool = True) -> VerdictReached:
    return sample(VerdictReached, step_id=step, attempt=attempt, accepted=accepted, plan_version=1, result=Result())


def test_a_call_counts_with_what_was_accepted_at_its_step_and_a_plan_with_all_of_it() -> None:
    bodies: list[Body] = [
        call("c0", "planner.draft@2", "plan", 100),
        call("c1", "worker.step@r1", "a", 200),
        call("c2", "worker.step@r1", "a", 300),
        call("c3", "worker.writer@1", "b", 50),
        verdict("a", accepted=False),
        verdict("a", attempt=2),
        verdict("b"),
    ]
    for seed in range(4):
        task, order = TaskPrompts(), bodies + bodies
        random.Random(seed).shuffle(order)
        for body in order:
            task.fold_body(body)
        report = report_prompts([task])
        rows = {row["prompt"]: (row["calls"], row["tokens"], row["accepted"]) for row in report["prompts"]}
        assert rows == {"planner.draft@2": (1, 100, 2), "worker.step@r1": (2, 500, 1), "worker.writer@1": (1, 50, 1)}
        [release] = report["releases"]
        assert (release["release"], release["tokens_per_accepted"]) == ("production.1", 325)
        assert release["per_accepted_usd_micros"] == 650


@pytest.mark.parametrize(
    ("tokens", "accepted", "told"),
    [(150, MIN_ACCEPTED, True), (149, MIN_ACCEPTED, False), (900, MIN_ACCEPTED - 1, False)],
)
def test_half_more_tokens_for_an_accepted_answer_are_told_once_there_are_enough(
    tokens: int, accepted: int, told: bool
) -> None:
    def figures(each: int, count: int) -> PromptFigures:
        return PromptFigures(count, Usage(input_tokens=each * count), count)

    versions = {
        "worker.step@r10": figures(tokens, accepted),
        "worker.step@r9": figures(100, MIN_ACCEPTED),
        "worker.step@2": figures(100, MIN_ACCEPTED),
        "worker.other@r10": figures(100, MIN_ACCEPTED),
    }
    findings = find_hungry_versions(versions)
    assert [(row.prompt, row.before) for row in findings] == [("worker.step@r10", "worker.step@r9")] * told
