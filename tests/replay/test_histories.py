"""Recorded histories: today's logic must say, byte for byte, what was said when they were recorded."""

import json
import re
from dataclasses import replace as change
from pathlib import Path

import pytest

from bulkhead.runtime.decider.history import dump, load
from bulkhead.runtime.decider.replay import CannotReplay, replay
from bulkhead_cli.replay.replay import logics, replay_history
from bulkhead_contracts import catalog
from bulkhead_contracts.catalog import DECIDERS
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.lease import LeaseGranted, LeaseQueued
from bulkhead_contracts.peer import AnswerGiven
from bulkhead_contracts.plan import PlanRejected
from bulkhead_contracts.task import StepEnded, TaskEnded, facts
from bulkhead_contracts.tool import ToolCallReplied
from bulkhead_services.planner.core import Planner
from bulkhead_services.planner.logic2 import PlannerV2
from bulkhead_services.planner.logic3 import PlannerV3
from bulkhead_services.planner.logic4 import PlannerV4
from bulkhead_services.planner.logic5 import PlannerV5
from tests.replay.scenes import SCENES, SMALL_CONTEXT, UNDER_LOGIC_2, UNDER_LOGIC_3, UNDER_LOGIC_4, UNDER_LOGIC_5

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
    "fork_logic2": ("succeeded", ""),
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
    "replanned_logic2": ("succeeded", ""),
    "replanned_logic3": ("succeeded", ""),
    "steps_time_up_logic3": ("failed", "step_failed"),
    "replanned_logic4": ("succeeded", ""),
    "leased_logic4": ("succeeded", ""),
    "asked_logic4": ("succeeded", ""),
    "topped_up_logic5": ("succeeded", ""),
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
    return [
        catalog.decode(one.headers["ce-type"], one.body)
        for one in load(HISTORIES[name]).messages
        if one.headers["ce-type"] == kind.ce_type()
    ]


@pytest.mark.parametrize("name", HISTORIES)
async def test_a_recorded_history_replays(name):
    history = load(HISTORIES[name])
    report = await replay_history(history)
    assert report.divergences == [] and report.outstanding == 0
    assert report.ended and report.compared >= 1 and report.messages == len(history.messages)


@pytest.mark.parametrize("name", HISTORIES)
async def test_a_falsified_history_does_not(name):
    """What any decider said, changed by a blank or left out, is a divergence.

    Not so an answer about a lease: it is decided in the fold of the resource, whose messages another record holds.
    """
    history = load(HISTORIES[name])
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
    history = load(HISTORIES[name])
    [end] = said(name, TaskEnded)
    assert (end.status, end.failure.code if end.failure else "") == SHAPES[name]
    raw = dump(history).decode()
    for token in re.findall(r"eyJ[\w-]+\.eyJ[\w-]+\.([\w-]*)", raw):
        assert token == "", "a grant's signature"
    assert not re.search(r"bk_\w|nats-msg-id|BEGIN|\bS[UA][A-Z2-7]{40,}", raw)
    assert dump(load(HISTORIES[name])) == dump(history)


def test_every_scene_has_a_history_and_they_are_small():
    assert (
        set(SHAPES)
        == set(HISTORIES)
        >= {*SCENES, *UNDER_LOGIC_2, *UNDER_LOGIC_3, *UNDER_LOGIC_4, *UNDER_LOGIC_5, *SMALL_CONTEXT}
    )
    assert len(HISTORIES) >= 15
    assert sum(path.stat().st_size for path in HISTORIES.values()) < MAX_FOLDER_BYTES


def test_the_shapes_hold_what_their_names_say():
    assert len(said("put_off", CallDeferred)) == 1
    assert {one.outcome for one in said("retried_with_reasons", StepEnded)} == {"rejected", "accepted"}
    assert said("replanned", TaskEnded)[0].plan_versions == said("replanned_logic2", TaskEnded)[0].plan_versions == 2
    assert said("failed_dependency", TaskEnded)[0].steps_done == 0
    assert said("degraded_input", TaskEnded)[0].result.standing == "degraded"
    omitted = said("pruned_context", TaskEnded)[0].result.completeness.omissions
    assert any("which the model did not see" in one.what for one in omitted)
    assert len(said("draft_rejected", PlanRejected)) == 2
    assert [one.outcome for one in said("uncertain_write", ToolCallReplied)] == ["uncertain"]
    assert any(one.headers["ce-type"] == "mesh.task.requested.v1" for one in load(HISTORIES["request_v1"]).messages)
    for name in ("poison_message", "poison_opening"):
        assert any("message_rejected" in one.headers["ce-type"] for one in load(HISTORIES[name]).messages)
    assert [one.attempt for one in said("fork_logic2", StepEnded)] == [0, 0, 1]
    first, second = said("leased_logic4", LeaseGranted)
    assert first.step_id != second.step_id and first.fencing_token < second.fencing_token
    assert len(said("leased_logic4", LeaseQueued)) == 1
    assert {one.outcome for one in said("asked_logic4", AnswerGiven)} == {"answered", "refused"}
    assert any(one.text for one in said("asked_logic4", AnswerGiven))


# Logic versions


async def planner_alone(name, table):
    history = load(HISTORIES[name])

    async def fetch(ref):
        return history.text(ref)

    return await replay(history.messages, {"planner": table}, fetch)


def test_every_version_is_there():
    assert all(set(table) == {1, 2, 3, 4, 5} for table in logics().values())


async def test_each_version_replays_only_its_own_histories():
    """The versions differ where they should: a task on which the other's rule is tried diverges."""
    assert (await planner_alone("replanned", {1: Planner(), 2: PlannerV2()})).divergences == []
    assert (await planner_alone("replanned", {1: PlannerV2()})).divergences
    assert (await planner_alone("replanned_logic2", {1: Planner(), 2: PlannerV2()})).divergences == []
    assert (await planner_alone("replanned_logic2", {2: Planner()})).divergences
    assert (await planner_alone("replanned_logic2", {2: PlannerV3()})).divergences
    for name in UNDER_LOGIC_3:
        assert (await planner_alone(name, {3: PlannerV3()})).divergences == []
        assert (await planner_alone(name, {3: PlannerV2()})).divergences
    for name in UNDER_LOGIC_4:
        assert (await planner_alone(name, {4: PlannerV4()})).divergences == []
        assert (await planner_alone(name, {4: PlannerV3()})).divergences
    for name in UNDER_LOGIC_5:
        assert (await planner_alone(name, {5: PlannerV5()})).divergences == []
        assert (await planner_alone(name, {5: PlannerV4()})).divergences


LATER = ("replanned", *UNDER_LOGIC_2, *UNDER_LOGIC_3, *UNDER_LOGIC_4, *UNDER_LOGIC_5)


@pytest.mark.parametrize("name", [name for name in SHAPES if name not in LATER])
async def test_nothing_else_changes_between_the_first_two_versions(name):
    assert (await planner_alone(name, {1: PlannerV2()})).divergences == []


async def test_a_program_without_the_version_says_so():
    with pytest.raises(CannotReplay, match="logic 2; this program has planner logic 1") as told:
        await planner_alone("fork_logic2", {1: Planner()})
    assert "two newest" in told.value.hint and not told.value.expired


def test_the_ways_of_the_versions():
    """Logic 1 made both results again; logic 2 made only the one that had not been accepted; logic 3 tells the same in
    fewer messages."""
    assert [
        (one.step_id, one.attempt)
        for one in said("replanned", StepEnded)
        if one.plan_version == 2 and one.step_id == "a"
    ] == [("a", 1)]
    [taken] = [one for one in said("replanned_logic2", StepEnded) if one.plan_version == 2 and one.step_id == "a"]
    assert taken.attempt == 0 and taken.reasons == ("taken over from plan 1",)
    spent = {
        name: json.loads(
            next(one.body for one in load(HISTORIES[name]).messages if one.headers["ce-type"] == TaskEnded.ce_type())
        )["usage"]["model_calls"]
        for name in ("replanned", "replanned_logic2")
    }
    assert spent["replanned_logic2"] == spent["replanned"] - 2, "one step less: its turn and its judge"
    two, three = (told(name) for name in ("replanned_logic2", "replanned_logic3"))
    assert sorted(type(fact).__name__ for body in two for fact in facts(body)) == sorted(
        type(fact).__name__ for body in three for fact in facts(body)
    )
    assert len(three) <= len(two) - 4


def told(name):
    """What the planner told the gateway in a history."""
    return [
        catalog.decode(one.headers["ce-type"], one.body)
        for one in load(HISTORIES[name]).messages
        if one.subject.startswith("mesh.planner.gateway.")
    ]
