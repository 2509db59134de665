"""How a task of the mesh looks to A2A: its state, what is said about it, its answer."""

from typing import get_args

import pytest
from a2a.types import Message, Part, TaskState
from google.protobuf.json_format import MessageToDict

from bulkhead.a2a import states
from bulkhead.text.plain_text import CONTROLS
from bulkhead_services.doors.a2a import messages, tasks
from bulkhead_services.gateway.read_model.task_view import ENDED, Status

APPROVAL = {"approval_id": "a" * 32, "request": {"arguments_sha256": "b" * 64, "tool": "pay"}}


def document(status: str, **more: object) -> dict[str, object]:
    return {"task_id": "t1", "status": status, "objective": "Do it.", "updated_unix_ms": 1_700_000_000_123, **more}


@pytest.mark.parametrize("status", sorted(set(get_args(Status)) - {"unknown"}))
def test_every_status_has_a_state_which_is_final_when_the_task_has_ended(status):
    assert status in states.STATES
    assert (tasks.task_state(document(status)) in tasks.TERMINAL) == (status in ENDED)


def test_a_status_of_a_newer_gateway_is_work_that_goes_on():
    assert tasks.task_state(document("dreaming")) == TaskState.TASK_STATE_WORKING


def test_a_pause_asks_for_input_only_while_a_call_waits_for_a_person():
    paused = document("paused", pause={"reason": "the tenant is halted"})
    assert tasks.task_state(paused) == TaskState.TASK_STATE_WORKING
    found = tasks.render_status(paused, [APPROVAL])
    assert found.state == TaskState.TASK_STATE_INPUT_REQUIRED
    text, data = found.message.parts
    assert text.text == "the tenant is halted"
    assert MessageToDict(data.data)["answer_with"] == {
        "approval_id": "a" * 32,
        "arguments_sha256": "b" * 64,
        "decision": "granted or denied",
        "reason": "why",
    }


def test_a_failure_says_what_why_and_what_next():
    failure = {"code": "budget_exceeded", "message": "the ceiling is reached", "hint": "top it up"}
    told = tasks.render_status(document("halted", failure=failure)).message.parts[0].text
    assert told == "budget_exceeded: the ceiling is reached (top it up)"


def test_an_answer_is_one_artifact_with_its_standing_and_citations():
    done = document("succeeded", answer="It is 5.", standing="degraded", complete=True, conversation="c1")
    [artifact] = tasks.render_task(done, cited={"citations": [{"marker": "abc"}]}).artifacts
    text, data = artifact.parts
    assert text.text == "It is 5."
    told = {"standing": "degraded", "complete": True, "citations": [{"marker": "abc"}]}
    assert MessageToDict(data.data) == told
    assert [one.context_id for one in tasks.final_events(done)] == ["c1", "c1"]
    unanswered = done | {"answered": "no", "answered_reason": "the documents do not say it"}
    [artifact] = tasks.render_artifacts(unanswered)
    told = MessageToDict(artifact.parts[1].data)
    assert (told["answered"], told["answered_reason"]) == ("no", "the documents do not say it")


def test_events_that_a_client_cannot_use_are_left_out_and_draft_text_is_no_artifact():
    running = document("running")
    assert tasks.status_update(running, "budget.alerted", {}) is None
    piece = {"step_id": "s1", "attempt": 1, "offset": 3, "replace": False, "text": "5"}
    found = tasks.status_update(running, "text", piece)
    assert (found.status.state, found.context_id) == (TaskState.TASK_STATE_WORKING, "t1")
    assert found.status.message.parts[0].text == "5" and found.metadata["bulkhead"]["offset"] == 3


HIDDEN = "pay\u202e 5\U000e0041\u200b"


def test_what_commands_a_screen_or_hides_is_written_out_in_all_that_is_given():
    shown = document("succeeded", objective=HIDDEN, answer=HIDDEN, failure={"code": "c", "message": HIDDEN})
    cited = {"citations": [{"marker": "1", "quotes": [HIDDEN]}]}
    paused = document("paused", pause={"reason": HIDDEN})
    approval = APPROVAL | {"request": APPROVAL["request"] | {"arguments": {HIDDEN: HIDDEN}}}
    told = [tasks.render_task(shown, cited=cited), tasks.render_task(paused, [approval])]
    told += [
        tasks.status_update(
            paused, "text", {"step_id": "s", "attempt": 1, "offset": 0, "replace": False, "text": HIDDEN}
        )
    ]
    for one in told:
        written = str(MessageToDict(one))
        assert "pay\\\\u202e 5\\\\ue0041\\\\u200b" in written and not CONTROLS.search(written)


def test_what_hides_in_a_message_is_written_out_before_it_is_a_task():
    message = Message(message_id="m", parts=[Part(text=f"a\r\nb {HIDDEN}")])
    assert messages.read_objective(message) == "a\nb pay\\u202e 5\\ue0041\\u200b"
