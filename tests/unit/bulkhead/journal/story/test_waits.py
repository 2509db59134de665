"""Waits and attempts of recorded tasks: what steps and calls stood still for, and how long."""

import pytest

from bulkhead.journal.history import build_entries
from bulkhead.journal.story.fold import fold_story
from bulkhead.journal.story.model import Story
from bulkhead.runtime.decider.history_file import load_history
from tests.paths import HISTORIES


def story(name: str, until: int | None = None) -> Story:
    entries = build_entries(load_history(next(iter(HISTORIES.glob(f"{name}.*")))).messages)[:until]
    return fold_story(entries, entries[0].task, 0, {})


@pytest.mark.parametrize(
    ("name", "step_id", "kinds"),
    [("leased", "b", ["lease"]), ("topped_up", "b", ["step", "budget"]), ("asked", "a", ["step", "step"])],
)
def test_a_step_tells_what_it_waited_for(name, step_id, kinds):
    (step,) = [step for step in story(name).steps if step.step_id == step_id]
    assert [wait.kind for wait in step.waits] == kinds
    assert all(wait.took_ms is not None and 0 <= wait.took_ms <= story(name).took_ms for wait in step.waits)


def test_a_call_tells_how_long_it_was_put_off_and_which_attempts_brought_nothing():
    (put_off,) = [call for call in story("put_off").calls if call.waits]
    (wait,) = put_off.waits
    assert wait.kind == "queued" and 0 < wait.took_ms <= put_off.took_ms
    assert "retried" in {wait.kind for call in story("provider_errors").calls for wait in call.waits}


def test_attempts_have_their_ends_and_their_reasons():
    (step,) = [step for step in story("retried_with_reasons").steps if step.step_id == "a"]
    first, second = step.tried
    assert (first.outcome, second.outcome) == ("rejected", "accepted") and first.reasons
    assert second.began_unix_ms >= first.began_unix_ms + first.took_ms - 10


def test_a_step_under_way_runs_and_one_that_was_not_handed_out_waits():
    half = len(build_entries(load_history(next(iter(HISTORIES.glob("leased.*")))).messages)) // 2
    steps = {step.step_id: step.outcome for step in story("leased", half).steps}
    assert (steps["a"], steps["c"]) == ("running", "waiting")
    assert {step.outcome for step in story("cancelled").steps} <= {"stopped", "waiting", "accepted"}
