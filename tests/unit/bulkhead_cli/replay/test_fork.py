"""What a fork would do, from recorded histories: which steps run again, which writes they made, which edits fit."""

import io
import json
import sys

import pytest

from bulkhead.runtime.decider.history_file import load_history
from bulkhead_cli.output import CommandError, Exit
from bulkhead_cli.replay.fork import ForkEdit, plan_fork, read_edit, read_recorded_task, refuse_repeats
from bulkhead_contracts.plan import ApprovalQuestion
from tests.paths import HISTORIES


def past(name):
    [path] = HISTORIES.glob(f"{name}.jsonl*")
    return read_recorded_task(load_history(path).messages)


def fork(name, step, **edit):
    return plan_fork("told", past(name), step, ForkEdit(**edit))


def test_a_step_and_what_depends_on_it_runs_again():
    found = fork("fan_out_join", "w1", instruction="Do it otherwise.")
    assert found.taken == ("w0", "w2", "w3", "w4") and found.again == ("w1", "join")
    assert found.body["fork"] == {"task": "told", "steps": ["w0", "w2", "w3", "w4"]}
    steps = {one["id"]: one for one in found.body["plan"]["steps"]}
    assert steps["w1"]["instruction"] == "Do it otherwise." and steps["w0"]["instruction"] == "Do w0."
    assert found.body["objective"] == "Find it out." and found.body["limit_usd"] == 0.5
    assert fork("fan_out_join", "2").again == ("w1", "join"), "a step by its number"
    assert fork("fan_out_join", "join").again == ("join",)


def test_what_was_not_accepted_runs_too():
    found = fork("uncertain_write", "a", tools=[])
    assert found.taken == () and found.again == ("a",)
    *_, last = past("failed_dependency").plan.steps
    found = fork("failed_dependency", last.id)
    assert found.taken == () and set(last.inputs) < set(found.again), "what it is built on was never accepted"


def test_what_asks_a_person_runs_again_and_what_builds_on_it():
    told = past("fan_out_join")
    question = ApprovalQuestion(text="Shall it go on?")
    steps = [
        step.model_copy(update={"kind": "noop", "question": question}) if step.id == "w0" else step
        for step in told.plan.steps
    ]
    told.plan = told.plan.model_copy(update={"steps": tuple(steps)})
    assert plan_fork("told", told, "w1", ForkEdit()).again == ("w0", "w1", "join")


def test_an_edited_objective_and_limits():
    found = fork("fan_out_join", "join", objective="Find out more.", limits={"cost_usd_micros": 7, "tokens": 8})
    assert found.body["objective"] == "Find out more."
    assert (found.body["limit_usd"], found.body["limit_tokens"]) == (0.000007, 8)
    assert found.body["deadline_s"] == fork("fan_out_join", "join").body["deadline_s"] == 120, "as it was"


def test_what_the_edit_leaves_out_is_as_it_was():
    """Also what the task's spending is counted under: a fork is no way around a limit of a feature."""
    old = past("fan_out_join")
    assert old.request is not None
    old.request = old.request.model_copy(
        update={"feature": "search", "workflow": "nightly", "route": "b", "check": False, "tools": ("calculate",)}
        | {"delivery": "held", "replan": "none", "conversation": "c1"}
    )
    body = plan_fork("told", old, "join", ForkEdit(title="Once more")).body
    assert body | old.request.pick_options() | {"objective": "Find it out."} == body


def test_a_plan_that_ends_in_several_steps_says_so():
    assert fork("fan_out_join", "join").ends == ("join",)
    assert fork("fan_out_join", "join", inputs=["w0"]).ends == ("w1", "w2", "w3", "w4", "join")


def test_writes_that_would_be_repeated_are_told():
    [write] = fork("keyed_write", "a").writes
    assert (write.step, write.tool, write.outcome, write.safe) == ("a", "counter_increment", "succeeded", True)
    assert json.loads(write.arguments) == {"name": "keyed"}
    assert fork("keyed_write", "b").writes == (), "b did not write"
    assert fork("keyed_write", "a", tools=[]).writes == (), "and a may not any more"
    refused = past("keyed_write")
    refused.calls = {key: (call, "refused") for key, (call, _) in refused.calls.items()}
    assert plan_fork("told", refused, "a", ForkEdit()).writes == (), "what was refused was never done"
    [write] = fork("uncertain_write", "a").writes
    assert (write.outcome, write.safe) == ("uncertain", False)


def test_what_has_no_idempotency_is_refused_before_anything_is_sent():
    with pytest.raises(CommandError, match="counter_increment_unkeyed in step a") as told:
        refuse_repeats(fork("uncertain_write", "a"))
    assert (told.value.code, told.value.name) == (Exit.REFUSED, "fork_repeats_effect") and told.value.hint
    for safe in (fork("uncertain_write", "a", tools=[]), fork("keyed_write", "a")):
        refuse_repeats(safe)


@pytest.mark.parametrize(
    ("name", "step", "edit", "code", "said"),
    [
        ("fan_out_join", "w9", {}, Exit.USAGE, "no step 'w9'"),
        ("fan_out_join", "7", {}, Exit.USAGE, "no step '7'"),
        ("fan_out_join", "w1", {"inputs": ["nobody"]}, Exit.USAGE, "nobody: no such step"),
        ("fan_out_join", "w1", {"inputs": ["join"]}, Exit.USAGE, "itself waits for w1"),
        ("fan_out_join", "w1", {"inputs": ["w1"]}, Exit.USAGE, "itself waits for w1"),
        ("fan_out_join", "w1", {"role": "No Role"}, Exit.USAGE, "role"),
        ("fan_out_join", "w1", {"instruction": "x" * 9_000}, Exit.USAGE, "instruction"),
        ("deadline", "a", {}, Exit.REFUSED, "never had a plan"),
    ],
)
def test_what_cannot_be_forked(name, step, edit, code, said):
    with pytest.raises(CommandError, match=said) as told:
        fork(name, step, **edit)
    assert told.value.code == code and told.value.hint


def test_a_task_that_has_not_ended_cannot_be_forked():
    found = past("fan_out_join")
    found.ended = False
    with pytest.raises(CommandError, match="has not ended yet"):
        plan_fork("told", found, "w1", ForkEdit())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON object"),
        ("[]", "no JSON object"),
        ('{"instructions": "x"}', "instructions"),
        ('{"instruction": ""}', "instruction"),
        ('{"objective": ""}', "objective"),
        ('{"tools": "calculate"}', "tools"),
        ('{"limits": {"usd": 1}}', "limits.usd"),
        ('{"limits": {"tokens": -1}}', "limits.tokens"),
        ('{"instruction": "' + "x" * 300_000 + '"}', "exceeds"),
    ],
)
def test_an_edit_that_does_not_fit(tmp_path, text, said):
    path = tmp_path / "edit.json"
    path.write_text(text)
    with pytest.raises(CommandError, match=said) as told:
        read_edit(str(path))
    assert told.value.code == Exit.USAGE and told.value.hint


def test_an_edit_from_standard_input_and_from_nowhere(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"inputs": ["a"], "tools": []}')))
    assert read_edit("-") == ForkEdit(inputs=("a",), tools=())
    with pytest.raises(CommandError, match="cannot be read"):
        read_edit("/nowhere/edit.json")
