"""What a task of a mesh counts for in an evaluation."""

import pytest

from bulkhead.evaluation.on_mesh import _EventTimes, _task_outcome


@pytest.mark.parametrize(
    ("release", "code"), [("trial.7", ""), ("trial.8", "other_release"), ("staging", ""), ("", "")]
)
def test_an_answer_under_another_release_is_none(release, code):
    usage = {"input_tokens": 1, "output_tokens": 1, "cost_usd_micros": 1}
    document = {"task_id": "t", "status": "succeeded", "answer": "42", "release": "trial.7", "usage": usage}
    outcome = _task_outcome(document, _EventTimes(), (), release)
    assert (outcome.code, outcome.answer is None) == (code, bool(code))
