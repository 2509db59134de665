"""`bulkhead why`: reasons from recorded histories, and from histories that were cut off while something was open."""

from dataclasses import replace

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.journal.history import build_entries
from bulkhead.journal.why.reasons import explain_task
from bulkhead.runtime.decider.history_file import load_history
from bulkhead_contracts import catalog
from bulkhead_contracts.agent import WaitRefused
from bulkhead_contracts.budget import Alerted, Amount, Overran, TaskHalted, Tripped
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.envelope import Envelope, derive_id
from bulkhead_contracts.lease import LeaseGranted, LeaseQueued
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.result import Completeness, Failure, Omission, Result
from bulkhead_contracts.task import TaskEnded, TaskQueued, TaskReleased
from tests.paths import HISTORIES

KINDS = {"ended", "uncertain", "doubtful", "waited", "rejected", "halted", "tripped", "alerted", "waits", "stalled"}


def messages(name: str) -> tuple[StoredMessage, ...]:
    return load_history(next(iter(sorted(HISTORIES.glob(f"{name}*"))))).messages


def reasons(found, after_ms: int = 5_000):
    return explain_task(build_entries(found), "t1", found[-1].time_unix_ms + after_ms)


def test_every_recorded_task_is_explained_by_its_end() -> None:
    for path in sorted(HISTORIES.glob("*.jsonl*")):
        found = load_history(path)
        told = reasons(found.messages)
        assert told and {one.kind for one in told} <= KINDS, path.name
        if found.ended:
            assert told[0].kind == "ended" and not any(one.kind in ("waits", "stalled") for one in told), path.name


def test_a_cut_off_task_waits_for_what_is_open() -> None:
    whole = messages("several_tools_in_one_turn")
    at = next(n for n, one in enumerate(whole) if one.ce_type == ModelCallReplied.ce_type())
    (reason,) = reasons(whole[:at], after_ms=65_000)
    assert reason.kind == "waits" and "waits for model_gateway (the model) for 1 min" in reason.what
    assert reason.evidence and "bulkhead doctor" in reason.todo


def test_a_paused_call_tells_who_holds_it_back_and_how_it_goes_on() -> None:
    whole, at, held = held_back(reason="tool x is halted by operator:ada: look first")
    (reason,) = reasons([*whole[:at], held])
    assert reason.kind == "waits" and "halted by operator:ada: look first" in reason.what
    assert "bulkhead resume" in reason.todo and "bulkhead breakers" in reason.todo


def said(body, sender: str, to: str, like: StoredMessage) -> StoredMessage:
    """A message more, after another one."""
    head = Envelope(derive_id(sender, body.ce_type(), 0), body.ce_type(), sender, like.time_unix_ms)
    subject = ".".join(("mesh", sender, to, *like.subject.split(".")[3:]))
    return StoredMessage(subject, head.to_headers(), body.encode(), like.sequence, like.time_unix_ms)


def held_back(**deferral: str) -> tuple[list[StoredMessage], int, StoredMessage]:
    """A task's messages, the place of a model's first reply, and what puts its call off."""
    whole = list(messages("several_tools_in_one_turn"))
    at = next(n for n, one in enumerate(whole) if one.ce_type == ModelCallReplied.ce_type())
    call = ModelCallReplied.model_validate_json(whole[at].body).call_id
    held = CallDeferred(call_id=call, after_ms=500, paused=True, **deferral)
    return whole, at, said(held, "model_gateway", "worker", whole[at])


def test_a_task_that_was_held_back_to_its_end_says_so_after_it() -> None:
    whole, at, held = held_back(reason="tool x is halted by operator:ada: look first")
    end = TaskEnded(status="failed", failure=Failure(code="deadline_exceeded", message="too long"))
    told = reasons([*whole[:at], held, said(end, "planner", "gateway", whole[at])])
    assert [one.kind for one in told] == ["ended", "halted"] and "halted by operator:ada: look first" in told[1].what
    answered = reasons([*whole[:at], held, *whole[at:]])
    assert "halted" not in [one.kind for one in answered], "it went on, so that is not why it ended"


def test_what_waits_for_a_newer_version_says_so_before_what_else_holds_it_back() -> None:
    whole, at, held = held_back(reason="The budget of task t1 is used up", code="budget_exceeded")
    newer = [replace(one, headers={**one.headers, "ce-logicversion": "9"}) for one in (*whole[:at], held)]
    first, second = explain_task(build_entries(newer), "t1", newer[-1].time_unix_ms, 5)
    assert "decision logic 9" in first.what and "none above 5" in first.what and "newer version" in first.todo
    assert "halted at a ceiling" in second.what
    (only,) = explain_task(build_entries(newer), "t1", newer[-1].time_unix_ms, 9)
    assert only.what == second.what, "this program has that logic"
    unknown = replace(whole[at], headers={**whole[at].headers, "ce-type": "mesh.model.call_replied.v9"})
    first, *_ = reasons([*whole[:at], unknown])
    assert "planner received mesh.model.call_replied.v9, which this version cannot read" in first.what
    assert "newer version" in first.todo
    known = [*whole[:at], unknown, *whole[at + 1 :]]
    assert not any("cannot read" in one.what for one in reasons(known)), "it was read by somebody: the planner went on"


def test_a_task_without_a_place_waits_for_one() -> None:
    first = messages("several_tools_in_one_turn")[0]
    queued = TaskQueued(request=1, person="ann", ahead=12, full="tenant", running=64, limit=64, until_unix_ms=10**12)
    (reason,) = reasons([first, said(queued, "gateway", "gateway", first)], after_ms=60_000)
    assert reason.kind == "waits" and "64 of 64 tasks of its tenant are running, and 12 wait before it" in reason.what
    released = said(TaskReleased(request=1), "gateway", "gateway", first)
    (reason,) = reasons([first, said(queued, "gateway", "gateway", first), released], after_ms=60_000)
    assert "place to run" not in reason.what


def test_limits_that_came_near_are_told_once_and_calls_beyond_their_reservation_with_what_follows() -> None:
    first = messages("several_tools_in_one_turn")[0]
    alert = Alerted(
        alert="a1",
        kind="share",
        scope="task:demo:t1",
        unit="tokens",
        percent=80,
        spent=8,
        limit=10,
        what="task t1 has spent 8 tokens of 10 tokens (80 %)",
        hint="give it more",
        alerted_unix_ms=5,
    )
    over = Overran(
        reservation_id="r",
        call_id="c",
        service="model_gateway",
        resource="big",
        reserved=Amount(tokens=1),
        used=Amount(tokens=2),
        what="it used 2 tokens where 1 tokens was reserved",
        overran_unix_ms=6,
    )
    told = reasons(
        [
            first,
            *(
                said(body, "budget", to, first)
                for body, to in ((alert, "journal"), (alert, "gateway"), (over, "journal"))
            ),
        ]
    )
    assert [(one.kind, one.level, one.at_unix_ms) for one in told[:2]] == [
        ("alerted", "warn", 5),
        ("alerted", "warn", 6),
    ]
    assert {one.kind for one in told[2:]} == {"waits"}
    assert told[0].what == alert.what and told[0].todo == "give it more"
    assert "big" in told[1].what and over.what in told[1].what and "bulkhead breakers" in told[1].todo
    assert all(catalog.is_allowed(alert.ce_type(), "budget", to) for to in ("journal", "gateway"))
    end = said(TaskEnded(status="succeeded"), "planner", "gateway", first)
    for scope, todo in (("task:demo:t1", ""), ("step:demo:t1/s1", ""), ("day:demo:2026-11-21", "give it more")):
        near = said(alert.model_copy(update={"scope": scope}), "budget", "journal", first)
        assert [one.todo for one in reasons([first, near, end]) if one.kind == "alerted"] == [todo]


def test_nothing_open_for_long_is_a_stall() -> None:
    whole = [one for one in messages("several_tools_in_one_turn") if one.ce_type != TaskEnded.ce_type()]
    (reason,) = reasons(whole, after_ms=60_000)
    assert reason.kind == "stalled" and "bulkhead cancel t1" in reason.todo
    (reason,) = reasons(whole, after_ms=100)
    assert reason.kind == "waits"


@pytest.mark.parametrize("level", ["warn", "stop"])
def test_trips_and_halts_are_told_with_their_evidence(level) -> None:
    whole = [one for one in messages("several_tools_in_one_turn") if one.ce_type != TaskEnded.ce_type()]
    trip = Tripped(
        trip="x",
        detector="loop.repeat",
        level=level,
        what="the same again",
        hint="stop it",
        evidence=("m1", "m2"),
        halted=level == "stop",
        tripped_unix_ms=1,
    )
    halt = TaskHalted(code="loop_stopped", reason="the same again. What to do: stop it.")
    for body, to in ((trip, "journal"), (halt, "planner")):
        whole.append(said(body, "budget", to, whole[-1]))
        assert catalog.is_allowed(body.ce_type(), "budget", to)
    told = reasons(whole)
    assert [one.kind for one in told[:2]] == ["halted", "tripped"] and "loop_stopped" in told[0].what
    assert told[1].evidence == ("m1", "m2") and told[1].todo == "stop it" and told[1].level == level


def test_a_success_with_a_doubtful_answer_says_why() -> None:
    like = messages("answered")[-1]
    missing = Completeness.with_omissions(Omission(reason="failed_part", what="tool crm_write", detail="HTTP 500"))
    result = Result(standing="degraded", standing_reason="tool crm_write failed", completeness=missing)
    plain, ended = (
        said(TaskEnded(status="succeeded", result=one), "planner", "gateway", like) for one in (Result(), result)
    )
    assert [one.kind for one in reasons([plain])] == ["ended"]
    first, standing, left_out = reasons([ended])
    assert (first.kind, standing.kind, standing.level) == ("ended", "doubtful", "warn")
    assert "degraded: tool crm_write failed" in standing.what and "bulkhead timeline t1" in standing.todo
    assert "tool crm_write failed (HTTP 500)" in left_out.what


def cut(name: str, kind: type, number: int = 0):
    """A history up to the number-th message of a type, that one included."""
    whole = messages(name)
    at = [place for place, one in enumerate(whole) if one.ce_type == kind.ce_type()][number]
    return list(whole[: at + 1])


def waits(found) -> list[str]:
    return [one.what for one in reasons(found) if one.kind == "waits"]


def test_a_step_that_waits_for_a_lease_says_who_holds_it() -> None:
    history = cut("leased", LeaseQueued)
    queued = LeaseQueued.model_validate_json(history[-1].body)
    [what] = [one for one in waits(history) if "crm:account:42" in one]
    assert what.startswith(
        f"step {queued.step_id} waits for crm:account:42, which step {queued.holder_step} of task "
        f"{queued.holder_task} held, for 5"
    )
    granted = cut("leased", LeaseGranted, 1)
    assert not [one for one in waits(granted) if "crm:account:42" in one]


def test_a_refused_wait_is_over() -> None:
    history = cut("leased", LeaseQueued)
    queued = LeaseQueued.model_validate_json(history[-1].body)
    refused = WaitRefused(trip="t", wait_id=queued.lease_id, step_id=queued.step_id, cycle=(), reason="a circle")
    assert not [one for one in waits([*history, said(refused, "budget", "worker", history[-1])]) if "crm" in one]


def test_a_step_that_asks_says_whom_and_for_what() -> None:
    history = cut("asked", AnswerRequested, 1)
    found = waits(history)
    assert any("step a waits for an answer of step b" in one for one in found)
    assert any("step a waits for the result of step d" in one for one in found)
    whole = messages("asked")
    given = [
        place for place, one in enumerate(whole) if one.ce_type == AnswerGiven.ce_type() and one.receiver == "worker"
    ]
    assert not [one for one in waits(whole[: given[-1] + 1]) if "waits for a" in one or "result of" in one]
