"""Tasks and approvals as metrics tell them: what stands still, who waits for a person, how tasks ended."""

from bulkhead.bus.port import StoredMessage
from bulkhead_contracts.approval import ApprovalEnded, ApprovalRequested
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Completeness, Omission, Result
from bulkhead_contracts.task import TaskEnded, TaskRejected, TaskRequested, TaskSubmitted
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from bulkhead_contracts.types import Body
from bulkhead_services.budget.watch.mesh_counts import open_letters
from bulkhead_services.budget.watch.standing import QUIET_MS, TaskEnd, TaskStandings

MINUTE = 60_000
ENDED = TaskEnded(status="succeeded")


class World:
    def __init__(self) -> None:
        self.standing, self.number = TaskStandings(), 0

    def says(self, at_ms: int, body: Body | type[Body], task: str = "t1", receiver: str = "gateway") -> None:
        self.number += 1
        raw = body.model_dump_json().encode() if isinstance(body, Body) else b"{}"
        subject = f"mesh.planner.{receiver}.3.demo.{task}.-"
        self.standing.fold_message(body.TYPE, StoredMessage(subject, {}, raw, self.number, at_ms))


def approval(asked_ms: int) -> ApprovalRequested:
    return ApprovalRequested(
        approval_id="a1",
        call_id="c1",
        step_id="s1",
        tool="open_ticket",
        arguments_json="{}",
        arguments_sha256="0" * 64,
        risk="low",
        rule="ask",
        policy_sha256="0" * 64,
        asked_for="bob",
        requested_unix_ms=asked_ms,
        expires_unix_ms=asked_ms + 60 * MINUTE,
    )


def test_a_task_without_a_message_stands_still_unless_it_waits_for_a_person() -> None:
    world = World()
    world.says(0, TaskSubmitted, receiver="planner")
    assert (world.standing.living_count(), world.standing.quiet_count(QUIET_MS)) == (1, 0)
    assert world.standing.quiet_count(QUIET_MS + 1) == 1
    world.says(QUIET_MS, ToolCallRequested, receiver="tool_executor")
    world.says(QUIET_MS, CallDeferred, receiver="worker")
    assert world.standing.quiet_count(QUIET_MS + 1) == 1, "a call that is put off again and again moves nothing"
    world.says(1, ToolCallReplied, receiver="worker")
    assert (world.standing.quiet_count(QUIET_MS + 1), world.standing.quiet_count(QUIET_MS + 2)) == (0, 1)
    world.says(MINUTE, approval(MINUTE))
    assert world.standing.quiet_count(QUIET_MS + 2 * MINUTE) == 0
    assert world.standing.approval_backlog(3 * MINUTE) == (1, 120)
    world.says(4 * MINUTE, ApprovalEnded(approval_id="a1", outcome="denied", ended_unix_ms=4 * MINUTE))
    assert world.standing.approval_backlog(9 * MINUTE) == (0, 0)
    assert world.standing.quiet_count(QUIET_MS + 5 * MINUTE) == 1


def test_what_waits_for_a_place_stands_not_still() -> None:
    world = World()
    world.says(0, TaskRequested)
    assert (world.standing.living_count(), world.standing.quiet_count(10 * QUIET_MS)) == (0, 0)


def test_an_end_is_told_once_with_its_time_and_the_worth_of_its_answer() -> None:
    world = World()
    world.says(500, TaskRequested)
    world.says(1_000, TaskSubmitted, receiver="planner")
    world.says(2_000, approval(2_000))
    half = Result(completeness=Completeness.with_omissions(Omission(reason="truncated", what="half of it")))
    world.says(5_500, TaskEnded(status="succeeded", result=half))
    assert list(world.standing.drain_ends()) == [TaskEnd("succeeded", "incomplete", 5.0)] and not list(
        world.standing.drain_ends()
    )
    assert (world.standing.living_count(), world.standing.approval_backlog(9_000)) == (0, (0, 0)), (
        "its approval goes with it"
    )
    world.says(6_000, ENDED)
    world.says(6_000, TaskSubmitted, receiver="planner")
    assert not list(world.standing.drain_ends()) and not world.standing.living_count(), (
        "read in another order it is over, too"
    )


def test_a_rejected_task_leaves_nothing() -> None:
    world = World()
    world.says(0, TaskRequested)
    world.says(1, TaskRejected)
    assert not world.standing.living_count() and not list(world.standing.drain_ends())


def test_what_cannot_be_read_tells_nothing() -> None:
    world = World()
    world.standing.fold_message(TaskEnded.TYPE, StoredMessage("mesh.planner.gateway.3.demo.t1.-", {}, b"\xff", 1, 0))
    assert not list(world.standing.drain_ends())


def test_dead_letters_are_open_until_somebody_did_something_about_them() -> None:
    found = open_letters({"dead.worker.demo.t1": 3, "dead.operator.demo.t1": 2, "dead.rag.demo.t2": 1})
    assert found == {"worker": 1, "rag": 1}
    assert open_letters({"dead.worker.demo.t1": 1, "dead.operator.demo.t1": 2}) == {"worker": 0}
    assert open_letters({}) == {}
