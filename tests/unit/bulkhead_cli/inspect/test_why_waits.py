"""`bulkhead why` of a step that waits for a lease or for other steps: recorded tasks, cut off while it waits."""

from bulkhead_contracts.agent import WaitRefused
from bulkhead_contracts.lease import LeaseGranted, LeaseQueued
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from tests.unit.bulkhead_cli.inspect.test_why import messages, reasons, said


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
