"""Recorded histories: today's logic must say, byte for byte, what was said when they were recorded."""

import re
from dataclasses import replace as change
from pathlib import Path

import pytest

from bulkhead.runtime.decider.history_file import dump_history, load_history
from bulkhead.runtime.decider.replay import CannotReplay, replay_deciders
from bulkhead_cli.replay.replay import decider_logics, replay_history
from bulkhead_contracts import catalog
from bulkhead_contracts.catalog import DECIDERS
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.lease import LeaseGranted, LeaseQueued
from bulkhead_contracts.peer import AnswerGiven
from bulkhead_contracts.plan import PlanRejected
from bulkhead_contracts.task import Progressed, StepEnded, TaskEnded, list_facts
from bulkhead_contracts.tool import ToolCallReplied
from bulkhead_services.planner.core import Planner
from tests.replay import next_logic
from tests.replay.scenes import OFFLINE, SCENES, SMALL_CONTEXT

FOLDER = Path(__file__).parent / "histories"
HISTORIES = {path.name.partition(".")[0]: path for path in sorted(FOLDER.iterdir())}
TAMPERED = 6
"""So many messages of each history are falsified, one at a time, spread over its length."""
MAX_FOLDER_BYTES = 1_500_000

SHAPES = {
    "answered": ("succeeded", ""),
    "cancelled": ("cancelled", "cancelled"),
    "deadline": ("failed", "deadline_exceeded"),
    "degraded_input": ("succeeded", ""),
    "draft_rejected": ("succeeded", ""),
    "failed_dependency": ("failed", "step_failed"),
    "fan_out_join": ("succeeded", ""),
    "fork": ("succeeded", ""),
    "given_plan": ("succeeded", ""),
    "given_plan_unchecked": ("succeeded", ""),
    "halted_by_budget": ("halted", "budget_exceeded"),
    "invented_tool": ("succeeded", ""),
    "keyed_write": ("succeeded", ""),
    "no_answer_in_documents": ("succeeded", ""),
    "poison_message": ("succeeded", ""),
    "poison_opening": ("failed", "malformed_body"),
    "provider_errors": ("succeeded", ""),
    "put_off": ("succeeded", ""),
    "pruned_context": ("succeeded", ""),
    "replanned": ("succeeded", ""),
    "leased": ("succeeded", ""),
    "asked": ("succeeded", ""),
    "topped_up": ("succeeded", ""),
    "request_v1": ("succeeded", ""),
    "retried_with_reasons": ("succeeded", ""),
    "runaway": ("failed", "step_failed"),
    "several_tools_in_one_turn": ("succeeded", ""),
    "single_step": ("succeeded", ""),
    "steps_time_up": ("failed", "step_failed"),
    "uncertain_write": ("failed", "uncertain_effect"),
}
"""How each task ended."""


def said(name, kind):
    """The bodies of one type in a history, in order."""
    bodies = [
        catalog.decode_body(one.headers["ce-type"], one.body)
        for one in load_history(HISTORIES[name]).messages
        if one.headers["ce-type"] in (kind.ce_type(), Progressed.ce_type(), TaskEnded.ce_type())
    ]
    return [fact for body in bodies for fact in list_facts(body) if isinstance(fact, kind)]


@pytest.mark.parametrize("name", HISTORIES)
async def test_a_recorded_history_replays(name):
    history = load_history(HISTORIES[name])
    report = await replay_history(history)
    assert report.divergences == [] and report.outstanding == 0
    assert report.ended and report.compared >= 1 and report.messages == len(history.messages)


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.slow
async def test_a_falsified_history_does_not(name):
    """What any decider said, changed by a blank or left out, is a divergence.

    Not so an answer about a lease: it is decided in the fold of the resource, whose messages another record holds.
    """
    history = load_history(HISTORIES[name])
    mine = [
        at
        for at, one in enumerate(history.messages)
        if one.subject.split(".")[1] in DECIDERS
        and not any(kind in one.headers["ce-type"] for kind in ("timer_fired", "message_rejected", "mesh.lease."))
    ]
    for at in mine[:: max(1, len(mine) // TAMPERED)]:
        longer = list(history.messages)
        longer[at] = change(longer[at], body=longer[at].body + b" ")
        assert (await replay_history(change(history, messages=tuple(longer)))).divergences
        for more in ({"bulkhead-grant": "e30.e30."}, {"CE-ApprovalId": "one"}, {"ce-somebody": "x"}):
            odd = change(history.messages[at], headers={**more, **history.messages[at].headers})
            if odd != history.messages[at]:
                longer[at] = odd
                assert (await replay_history(change(history, messages=tuple(longer)))).divergences, more
    if len(mine) == 1:
        return  # Without its end, a task may still be in the works.
    left_out = tuple(one for at, one in enumerate(history.messages) if at != mine[len(mine) // 2])
    try:
        assert (await replay_history(change(history, messages=left_out))).divergences
    except CannotReplay as error:
        assert "lost its beginning" in str(error)


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_is_what_it_is_called_and_nothing_secret(name):
    history = load_history(HISTORIES[name])
    [end] = said(name, TaskEnded)
    assert (end.status, end.failure.code if end.failure else "") == SHAPES[name]
    raw = dump_history(history).decode()
    for token in re.findall(r"eyJ[\w-]+\.eyJ[\w-]+\.([\w-]*)", raw):
        assert token == "", "a grant's signature"
    assert not re.search(r"bk_\w|nats-msg-id|BEGIN|\bS[UA][A-Z2-7]{40,}", raw)
    assert dump_history(load_history(HISTORIES[name])) == dump_history(history)


def test_every_scene_has_a_history_and_they_are_small():
    assert set(SHAPES) == set(HISTORIES) == {*SCENES, *SMALL_CONTEXT, *OFFLINE}
    assert len(HISTORIES) >= 15
    assert sum(path.stat().st_size for path in HISTORIES.values()) < MAX_FOLDER_BYTES


def test_the_shapes_hold_what_their_names_say():
    assert len(said("put_off", CallDeferred)) == 1
    assert {one.outcome for one in said("retried_with_reasons", StepEnded)} == {"rejected", "accepted"}
    assert said("replanned", TaskEnded)[0].plan_versions == 2
    assert said("failed_dependency", TaskEnded)[0].steps_done == 0
    assert said("degraded_input", TaskEnded)[0].result.standing == "degraded"
    omitted = said("pruned_context", TaskEnded)[0].result.completeness.omissions
    assert any("which the model did not see" in one.what for one in omitted)
    assert len(said("draft_rejected", PlanRejected)) == 1
    assert [one.outcome for one in said("uncertain_write", ToolCallReplied)] == ["uncertain"]
    assert any(
        one.headers["ce-type"] == "mesh.task.requested.v1" for one in load_history(HISTORIES["request_v1"]).messages
    )
    for name in ("poison_message", "poison_opening"):
        assert any("message_rejected" in one.headers["ce-type"] for one in load_history(HISTORIES[name]).messages)
    # What c says anew has no source among what it builds on: it is made once more, and stands marked.
    assert [one.attempt for one in said("fork", StepEnded)] == [0, 0, 1, 2]
    first, second = said("leased", LeaseGranted)
    assert first.step_id != second.step_id and first.fencing_token < second.fencing_token
    assert len(said("leased", LeaseQueued)) == 1
    assert {one.outcome for one in said("asked", AnswerGiven)} == {"answered", "refused"}
    assert any(one.text for one in said("asked", AnswerGiven))


# Logic versions


async def planner_alone(name, table):
    history = load_history(HISTORIES[name])

    async def fetch(ref):
        return history.text_of(ref)

    return await replay_deciders(history.messages, {"planner": table}, fetch)


def test_every_version_is_there():
    assert all(set(table) == {1} for table in decider_logics().values())


async def test_another_versions_rule_diverges():
    assert (await planner_alone("replanned", {1: Planner()})).divergences == []
    assert (await planner_alone("replanned", {1: next_logic.NextPlanner()})).divergences


async def test_a_program_without_the_version_says_so():
    with pytest.raises(CannotReplay, match="logic 1; this program has planner logic 2") as told:
        await planner_alone("fork", {2: Planner()})
    assert "two newest" in told.value.hint and not told.value.expired


def test_a_step_that_was_accepted_under_the_plan_before_is_not_made_again():
    [taken] = [one for one in said("replanned", StepEnded) if one.plan_version == 2 and one.step_id == "a"]
    assert taken.attempt == 0 and taken.reasons == ("taken over from plan 1",)
    assert [one.attempt for one in said("replanned", StepEnded) if one.step_id == "a"] == [1, 0]
