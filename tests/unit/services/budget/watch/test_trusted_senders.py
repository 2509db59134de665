"""Whom the watcher believes: who may say it, as its receiver does. An outside publisher may store any words in the
gateway's inbox, under any task of its tenant and any type; with them it hides nothing, forges nothing, and stops no
watch.
"""

import asyncio
import json
from collections.abc import Iterator

import pytest

from bulkhead.bus.memory.clock import StandingClock
from bulkhead.bus.port import StoredMessage
from bulkhead.health.findings import finding_of
from bulkhead.health.sources.journal import JournalReader
from bulkhead.health.thresholds import DEFAULT
from bulkhead.runtime.context import Context
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.agent import WaitRefused
from bulkhead_contracts.budget import Tripped
from bulkhead_contracts.control import Breaker, BreakerReset, Halt, Switched
from bulkhead_contracts.lease import LeaseGranted, LeaseRequested
from bulkhead_contracts.peer import AnswerGiven
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import TaskEnded
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from bulkhead_services.budget.app import Budget, build
from bulkhead_services.budget.settings import Settings
from bulkhead_services.budget.watch import deadlock_refusal
from bulkhead_services.budget.watch.fold import WatchFold
from tests.eventually import until

OUTSIDE = "pub_demo.gateway"
WORKER, TOOLS = "worker.tool_executor", "tool_executor.worker"


class Said:
    """A journal: each message with its sequence."""

    def __init__(self) -> None:
        self.fold, self.count = WatchFold(DEFAULT), 0

    def say(self, way: str, kind: str, body: bytes, task: str = "t1") -> None:
        self.count += 1
        headers = {"ce-type": kind, "ce-id": f"m{self.count}"}
        self.fold.fold_message(
            StoredMessage(f"mesh.{way}.7.demo.{task}.-", headers, body, self.count, 1_000 + self.count)
        )

    def loop(self, *ways: str, task: str = "t1") -> None:
        for kind, body, way in looping(task, ways or (WORKER, TOOLS)):
            self.say(way, kind, body, task)

    @property
    def levels(self) -> list[str]:
        return [one.level for one in self.fold.due.values()]


def looping(task: str, ways: tuple[str, ...]) -> Iterator[tuple[str, bytes, str]]:
    ref = ContentRef(author="tool_executor", sha256="0" * 64, size_bytes=1)
    for number in range(5):
        asked = ToolCallRequested(
            call_id=f"c{number}", step_id="s1", attempt=1, tool="look", arguments_json="{}", deadline_unix_ms=1
        )
        said = ToolCallReplied(call_id=f"c{number}", step_id="s1", outcome="succeeded", content=ref)
        yield asked.ce_type(), asked.encode(), ways[0]
        yield said.ce_type(), said.encode(), ways[-1]


def test_a_publisher_ends_no_task_for_the_watch() -> None:
    said, ended = Said(), TaskEnded(status="succeeded")
    said.say(OUTSIDE, ended.ce_type(), ended.encode())
    said.loop()
    assert said.levels == ["warn", "stop"]
    said.say("planner.gateway", ended.ce_type(), ended.encode())
    assert said.fold.watch.has_ended("demo/t1"), "the planner does"


def test_a_publisher_does_not_say_that_a_trip_was_told() -> None:
    said = Said()
    said.loop()
    for name in list(said.fold.due):
        fact = Tripped(trip=name, detector="loop.repeat", level="stop", what="x", tripped_unix_ms=1)
        said.say(OUTSIDE, fact.ce_type(), fact.encode())
    assert said.levels == ["warn", "stop"]
    said.say("budget.journal", fact.ce_type(), fact.encode())
    assert said.levels == ["warn"], "budget does"


@pytest.mark.parametrize("task", ["t1", "bad$task"])
def test_a_publisher_forges_no_loop(task: str) -> None:
    said = Said()
    said.loop(OUTSIDE, task=task)
    assert said.levels == []


def test_nobody_makes_a_loop_of_what_can_be_no_task() -> None:
    """What is found there could be told to nobody: the watch would end by it, each time that it is begun anew."""
    said = Said()
    said.loop(task="bad$task")
    assert said.levels == []


@pytest.mark.parametrize("kind", [LeaseRequested, LeaseGranted, AnswerGiven, ToolCallRequested, WaitRefused])
@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e400", "9" * 400])
def test_numbers_that_are_none_end_no_fold(kind: type, number: str) -> None:
    example = json.dumps(
        {
            "step_id": "s",
            "attempt": 7,
            "plan_version": 7,
            "call_id": "c",
            "lease_id": "l",
            "target": "t",
            "resource": "r",
            "tool": "x",
            "arguments_json": "{}",
            "wait_id": "w",
            "ask_id": "a",
        }
    )
    body, reader = example.replace("7", number).encode(), JournalReader()
    for sender, receiver in catalog.BY_TYPE[kind.TYPE].edges:
        reader.read(subjects.mesh_subject(sender, receiver, "demo", "t1"), {"ce-type": kind.ce_type()}, body, 1)


def test_a_wait_under_a_name_that_is_none_is_told_and_refused_to_nobody() -> None:
    for step, refused in (("s 1", False), ("s1", True)):
        facts = {
            "cycle": [f"demo/t1/{step}", "lease:demo:r"],
            "victim": f"demo/t1/{step}",
            "refuse": f"want/demo/t1/{step}/l1",
        }
        found = deadlock_refusal.build_refusal(
            finding_of("deadlock", "stop", "demo", "demo/t1", (), "x", (), 1, "c", facts)
        )
        assert (found is not None) is refused


async def test_a_trip_that_cannot_be_told_is_left_out_and_those_behind_it_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edges: list[Budget] = []
    send = Publisher.send

    def make(context: Context) -> Budget:
        edges.append(build(context, Settings(redis_url="memory://", watch="on", watch_interval_s=0.01)))
        return edges[-1]

    async def raises(self: Publisher, to: str, body: object, **more: object) -> object:
        if self.service == "budget" and more.get("task") == "t1" and to == "journal":
            raise ValueError("a bug")
        return await send(self, to, body, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Publisher, "send", raises)
    # Pauses tell patience from loops, also those of a busy machine: here there are none.
    async with MemoryMesh({"budget": make}, clock=StandingClock()) as mesh:
        for task in ("t1", "t2"):
            for kind, raw, way in looping(task, (WORKER, TOOLS)):
                sender, to = way.split(".")
                await mesh.context(sender).publisher.send(
                    to, catalog.decode_body(kind, raw), tenant="demo", task=task, index=f"{task}/{kind}/{raw.decode()}"
                )
        await asyncio.wait_for(mesh.wait_for_fact("mesh.budget.journal.*.demo.t2.*", Tripped), 30)
        watcher = edges[0].watcher
        assert watcher is not None
        await until(lambda: watcher.left_out.degraded.startswith("the watcher leaves out 2"))
        assert edges[0].is_ready()
    for edge in edges:
        await edge.stop()


@pytest.mark.parametrize(("sender", "believed"), [("operator", True), ("budget", True), ("pub_demo", False)])
def test_who_operates_the_mesh_is_believed_beside_its_services(sender: str, believed: bool) -> None:
    """Their command line halts and resets by a key of its own, and tenants' webhooks are told."""
    said = Said()
    halt = Halt(scope="tool", tenant="demo", name="look", code="x", reason="r", by="operator:ann", pauses=True)
    closed = Breaker(scope="tool", tenant="demo", name="look", phase="closed", by="operator:ann", since_unix_ms=1_000)
    for body in (Switched(halt=halt), BreakerReset(breaker=closed, was="7 of 10 calls failed")):
        said.say(f"{sender}.journal", body.ce_type(), body.encode(), "halts")
    kinds = [one.kind for one in said.fold.notices.due_notices(2_000)]
    assert kinds == (["halted", "breaker_reset"] if believed else [])
