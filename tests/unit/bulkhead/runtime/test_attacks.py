"""What an attacker of the runtime tried and got through with once: each failed before it was mended."""

import asyncio
import hashlib
import json
import time
from dataclasses import replace

import pytest

from bulkhead.runtime.decider import fold as folds
from bulkhead.runtime.decider.fold import TaskFold, fold_message
from bulkhead.runtime.halts.live import Halts, HaltTarget
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import bounds, catalog, envelope, subjects
from bulkhead_contracts.control import Halt, TimerFired
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.result import Citation, ContentRef, Failure, Label, Result
from bulkhead_contracts.step import Evidence, StepAssigned, StepFinished, StepProposed
from bulkhead_contracts.task import TaskCancelRequested, TaskLimits, TaskSubmitted, list_facts
from bulkhead_contracts.tool import ToolCallReplied
from bulkhead_services.planner import app as planner
from tests.eventually import until
from tests.unit.bulkhead.runtime.consume import test_loop as shells
from tests.unit.bulkhead.runtime.doer import test_handler as doers

pytestmark = pytest.mark.virtual_time

REF = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)


def submitted(deadline_ms: int = 1_000, **changes) -> TaskSubmitted:
    return TaskSubmitted(
        objective=REF, limits=TaskLimits(deadline_ms=deadline_ms), submitted_unix_ms=int(time.time() * 1000), **changes
    )


def plan_of(count: int) -> Plan:
    return Plan(steps=tuple(PlanStep(id=f"s{n}", title="", instruction="do", acceptance="ok") for n in range(count)))


async def said(mesh: MemoryMesh, task: str, what: str) -> list[str]:
    subject = subjects.task_filter("gateway", "demo", task)

    async def kinds() -> list[str]:
        bodies = [catalog.decode_body(one.ce_type, one.body) for one in await mesh.messages("INBOX_GATEWAY", subject)]
        found = [fact.ce_type() for body in bodies for fact in list_facts(body)]
        return found if any(what in kind for kind in found) else []

    found: list[str] = await until(kinds, f"{what} of {task}")
    return found


async def test_the_rejection_of_a_task_that_was_never_opened_ends_there(monkeypatch):
    monkeypatch.setattr(folds, "OPENING_MAX_AGE_MS", 50)
    async with MemoryMesh({"planner": lambda c: planner.LOGICS}) as mesh:
        await mesh.context("gateway").publisher.send(
            "planner", TaskCancelRequested(reason="x"), tenant="demo", task="never", cause="c"
        )
        await shells.until_dead(mesh, "not_opened")
        shell = mesh.running[("planner", "0")].service.shell
        await until(lambda: shell.handled == 1, "the rejection itself is taken")
        assert len(await mesh.messages(subjects.DEAD_LETTERS_STREAM)) == 1


async def test_a_wide_plan_of_a_user_runs_and_a_full_one_is_refused():
    async with MemoryMesh({"planner": lambda c: planner.LOGICS}) as mesh:
        for count, task in ((40, "wide"), (bounds.MAX_PLAN_STEPS, "full")):
            await mesh.context("gateway").publisher.send(
                "planner", submitted(plan=plan_of(count)), tenant="demo", task=task, cause=task, grant="g"
            )
        assert "mesh.plan.adopted.v1" in await said(mesh, "wide", "plan.adopted")
        assert "mesh.task.ended.v1" in await said(mesh, "wide", "task.ended")
        assert "mesh.plan.rejected.v1" in await said(mesh, "full", "task.ended")


async def test_nobody_takes_the_place_of_the_planners_timer():
    async with MemoryMesh({"planner": lambda c: planner.LOGICS}) as mesh:
        await mesh.context("gateway").publisher.send(
            "planner", submitted(plan=plan_of(1)), tenant="demo", task="tt", cause="c", grant="g"
        )
        await mesh.wait_for_fact(subjects.mesh_subject("planner", "worker", "demo", "tt"), StepAssigned)
        opening = (await mesh.messages("INBOX_PLANNER", subjects.task_filter("planner", "demo", "tt")))[0]
        publisher = mesh.context("worker").publisher
        for index in range(12):
            body = StepFinished(step_id="none", attempt=9, plan_version=9, result=Result())
            chosen = envelope.derive_id("planner", opening.ce_id, index)
            head = replace(publisher.make_envelope(body, cause="x", index=index), id=chosen)
            await publisher.post("planner", body, head, tenant="demo", task="tt")
        assert "mesh.task.ended.v1" in await said(mesh, "tt", "task.ended")


async def test_a_missing_content_does_not_hold_the_deadline(monkeypatch):
    monkeypatch.setattr(folds, "CONTENT_MAX_AGE_MS", 300)
    async with MemoryMesh({"planner": lambda c: planner.LOGICS}) as mesh:
        await mesh.context("gateway").publisher.send(
            "planner", submitted(), tenant="demo", task="mb", cause="c", grant="g"
        )
        await mesh.wait_for_fact(subjects.mesh_subject("planner", "model_gateway", "demo", "mb"), ModelCallRequested)
        gone = ContentRef(author="model_gateway", sha256="ab" * 32, size_bytes=10)
        body = ModelCallReplied(call_id="plan-1-1", outcome="answered", content=gone, prompt_id="planner.draft")
        await mesh.context("model_gateway").publisher.send("planner", body, tenant="demo", task="mb", cause="r")
        await shells.until_dead(mesh, "content_missing")
        assert "mesh.task.ended.v1" in await said(mesh, "mb", "task.ended")


def test_a_flood_does_not_keep_the_deadline_from_being_noticed():
    fold = TaskFold(state=None)

    def hears(body, source: str, name: str, sequence: int):
        head = envelope.Envelope(id=name, type=body.ce_type(), source=source, time_unix_ms=1000)
        return fold_message(fold, folds.InboxMessage(head, body, "demo", "t", sequence), planner.LOGICS)

    hears(submitted().model_copy(update={"submitted_unix_ms": 0}), "gateway", "open", 1)
    junk = StepFinished(step_id="x", attempt=1, plan_version=1, result=Result())
    fold.seen.update(f"worker/{n}" for n in range(bounds.MAX_MESSAGES_PER_TASK))
    try:
        hears(junk, "worker", "one-more", 2)
    except folds.Unreadable as error:
        assert error.code == "too_many_messages"
    else:
        raise AssertionError("the bound does not hold")
    assert hears(TimerFired(key="task-deadline", due_unix_ms=1000), "planner", "timer", 9999)


async def test_a_lifted_halt_cuts_nothing_and_switches_are_not_forgotten():
    halts = Halts(None)  # type: ignore[arg-type]
    event = halts.halt_event(HaltTarget("demo", "t1"))

    def take(**changes) -> None:
        fields = {"scope": "tenant", "name": "demo", "code": "x", "reason": "r", "by": "op"} | changes
        halts._fold_entry("$KV.CONTROL.any", Halt(**fields).model_dump_json().encode())

    take()
    assert event.is_set()
    take(active=False)
    assert halts.find(HaltTarget("demo", "t1")) is None and not halts.halt_event(HaltTarget("demo", "t1")).is_set()
    halts._tasks.most = 10
    take(scope="tool", name="http_get")
    for number in range(50):
        take(scope="task", tenant="demo", name=f"t{number}")
    assert halts.find(HaltTarget("a", "b", tool="http_get")) is not None


class TooLarge(shells.Counting):
    """Says more than any message may hold."""

    def decide(self, state, message):
        labels = tuple(
            Label(
                sha256=hashlib.sha256(str(n).encode()).hexdigest(),
                kind="passage",
                source="x" * 200,
                observed_by="rag",
                signature="s" * 86,
            )
            for n in range(bounds.MAX_LABELS)
        )
        evidence = tuple(
            Evidence(
                content=ContentRef(author="rag", sha256=one.sha256, size_bytes=1, summary="x" * 200),
                label=one,
                citation=Citation(
                    marker=one.sha256[:12], document="d" * 60, document_sha256=one.sha256, chunk_id="1", start=1, end=2
                ),
            )
            for one in labels[: bounds.MAX_EVIDENCE]
        )
        inputs = tuple({"step_id": f"s{n}", "result": Result(provenance=labels)} for n in range(8))
        body = StepProposed(
            step=PlanStep(id="s", title="", instruction="i"),
            attempt=1,
            plan_version=1,
            objective=REF,
            result=Result(provenance=labels),
            evidence=evidence,
            inputs=inputs,
            deadline_unix_ms=1,
        )
        return shells.Transition(state, (shells.Send("checker", body),))


async def test_an_output_that_is_too_large_ends_as_a_dead_letter(monkeypatch):
    monkeypatch.setattr(shells.shells, "MAX_HANDLER_FAILURES", 2)
    async with MemoryMesh({"worker": lambda c: {1: TooLarge()}}) as mesh:
        await shells.say(mesh, shells.assigned())
        await shells.until_dead(mesh, "handler_failed")


class Slow(doers.Recording):
    """A doer that counts how many of its acts run at once."""

    def __init__(self) -> None:
        super().__init__()
        self.running = self.peak = self.acts = 0

    async def act(self, job, hands, turn):
        self.acts += 1
        failed = self.acts == 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        await asyncio.sleep(0.1)
        self.running -= 1
        failure = Failure(code="x", message="x") if failed else None
        return ToolCallReplied(
            call_id=job.request.call_id, step_id="s", outcome="failed" if failed else "succeeded", failure=failure
        )


async def test_one_key_is_acted_on_by_one_at_a_time():
    doer = Slow()
    async with MemoryMesh({"tool_executor": lambda c: doer}) as mesh:
        token = doers.grant(mesh)
        await doers.call(mesh, token, index=0)
        await until(lambda: doer.acts == 1)
        await doers.call(mesh, token, index=1)
        await until(lambda: doer.acts == 2)
        await doers.call(mesh, token, index=2)
        found = await doers.replies(mesh, 3)
        assert doer.peak == 1 and [json.loads(json.dumps(body))["outcome"] for _, body in found].count("succeeded") == 2


@pytest.mark.parametrize("writes", [False, True])
async def test_one_sender_cannot_write_down_the_answer_to_anothers_call(writes):
    """Two askers choose one id: neither's outcome nor claim is the other's."""
    doer = doers.Recording(writes=writes)
    async with MemoryMesh({"budget": lambda c: doers.Purse(), "tool_executor": lambda c: doer}) as mesh:
        token = doers.grant(mesh)
        for count, sender in enumerate(("doors", "worker"), 1):
            await doers.call(mesh, token, sender=sender)
            inbox, pattern = subjects.inbox_stream(sender), f"mesh.tool_executor.{sender}.>"
            [told] = await shells.mesh_messages(mesh, inbox, pattern)
            assert json.loads(told.body)["outcome"] == "succeeded" and doer.done == count
