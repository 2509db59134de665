"""The judge's reply: all the evidence is shown to it, and what it says of itself reaches the verdict."""

import json

import pytest

from bulkhead.blobs import reference
from bulkhead.testing.playbook import Playbook
from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.result import Completeness, Label, Omission
from bulkhead_contracts.step import Evidence
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.checker.core import Checker
from tests.unit.services.checker.test_core import judge, propose

ACCEPT = {"verdict": "accept", "reasons": []}


@pytest.fixture
def play() -> Playbook:
    return Playbook(Checker())


def test_the_judge_sees_all_evidence_and_what_is_cited_first(play):
    spare = tuple(
        Evidence(content=row, label=Label(sha256=row.sha256, kind="tool_result", observed_by="tool_executor"))
        for row in (reference("tool_executor", str(number).encode()) for number in range(bounds.MAX_EVIDENCE - 1))
    )
    cited = propose(Playbook(Checker())).evidence
    propose(play, evidence=(*spare, *cited))
    shown = [part for part in play.said(ModelCallRequested).parts if part.kind in ("passage", "tool_result")]
    assert len(shown) == bounds.MAX_EVIDENCE and shown[0].content == cited[0].content


def test_a_judge_that_did_not_see_everything_leaves_the_result_incomplete(play):
    propose(play)
    cut = Completeness.missing(Omission(reason="pruned", what="3 passages, which the model did not see"))
    judge(play, json.dumps(ACCEPT), completeness=cut)
    result = play.said(VerdictReached).result
    [omission] = result.completeness.omissions
    assert not result.completeness.complete and omission.reason == "pruned"
    assert omission.what == "the judge: 3 passages, which the model did not see"


def test_a_result_that_a_fallback_has_judged_stands_as_degraded(play):
    propose(play)
    judge(play, json.dumps(ACCEPT), standing="degraded", standing_reason="a fallback answered")
    result = play.said(VerdictReached).result
    assert (result.standing, result.standing_reason) == ("degraded", "the judge: a fallback answered")
    play.replays()


@pytest.mark.parametrize(("said", "score"), [(0.25, 0.25), (1, 1.0), (7, None), ("high", None), (True, None)])
def test_the_score_that_the_judge_gives_stands_in_the_verdict(play, said, score):
    propose(play)
    judge(play, json.dumps({**ACCEPT, "score": said}))
    assert play.said(VerdictReached).score == score
