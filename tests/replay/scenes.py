"""Shapes of tasks, each played on a stage (stage.py): what is recorded under which name.

In: a stage. Out: the id of a task that has this shape. `python -m tests.replay.record` keeps their histories.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.client import Task
from bulkhead_contracts import subjects
from bulkhead_contracts.catalog import DECIDERS, decode_body
from bulkhead_contracts.control import CallDeferred, MessageRejected
from bulkhead_contracts.envelope import Envelope, derive_id
from bulkhead_contracts.lease import LeaseQueued
from bulkhead_contracts.peer import AnswerRequested
from bulkhead_contracts.task import StepStarted, TaskEnded, TaskSubmitted, list_facts
from bulkhead_contracts.task.v1 import TaskRequestedV1
from bulkhead_contracts.types import Body
from bulkhead_infra.demo.corpus import generate_demo
from tests.replay import next_logic
from tests.replay.stage import OPERATOR, TENANT, Stage, accept, call, plan, reject, silent, use
from tests.unit.services.model_gateway.scripted_provider import Exchange, Script, fails, says

Scene = Callable[[Stage], Awaitable[str]]
PASSAGE = re.compile(r"\[\[part kind=passage id=(\w+)[^\n]*\n([^.\n]+\.[\d]*[^.]*\.)")
PUT_OFF_S = 20
BOTH: tuple[dict[str, Any], ...] = ({"id": "a"}, {"id": "b"}, {"id": "c", "inputs": ["a", "b"]})


async def single_step(on: Stage) -> str:
    """One step, judged, accepted."""
    on.model.will(plan({"id": "a"}), a=[says("It is so.")])
    return (await on.run())["task_id"]


async def fan_out_join(on: Stage) -> str:
    """Five steps at once, one that joins them; three of them compute."""
    wide = [{"id": f"w{n}", "tools": ["calculate"]} for n in range(5)]
    turns: dict[str, Any] = {"join": [says("All five are known.")]}
    for n in range(3):
        turns[f"w{n}"] = [use(call("calculate", expression=f"{n} * 7")), says("It was worked out.")]
    turns |= {f"w{n}": [says("There is nothing to compute.")] for n in (3, 4)}
    on.model.will(plan(*wide, {"id": "join", "inputs": [one["id"] for one in wide]}), **turns)
    return (await on.run())["task_id"]


async def replanned(on: Stage) -> str:
    """A step that fails three times; a second plan, in which it does not. What was accepted before is taken over."""
    no = fails(400, "no such thing")
    on.model.will(
        plan(*BOTH), plan(*BOTH), a=[says("A holds.")], b=[no, no, no, says("B holds.")], c=[says("Both hold.")]
    )
    return (await on.run())["task_id"]


async def retried_with_reasons(on: Stage) -> str:
    """A step that is rejected once; the judge's reasons come back to it."""
    on.model.will(
        plan({"id": "a"}),
        a=[says("Perhaps."), says("It is so, for it was measured.")],
        judges={"a": [reject("Say how it is known."), accept()]},
    )
    return (await on.run())["task_id"]


async def failed_dependency(on: Stage) -> str:
    """A step fails in both plans; the one that needs it never runs."""
    steps = ({"id": "a"}, {"id": "b", "inputs": ["a"]})
    on.model.will(plan(*steps), plan(*steps), a=[fails(400, "no such thing")])
    return (await on.run())["task_id"]


async def degraded_input(on: Stage) -> str:
    """A judge that cannot be understood: the result is degraded, and so is what is built on it."""
    on.model.will(
        plan({"id": "a"}, {"id": "b", "inputs": ["a"]}),
        a=[says("A holds.")],
        b=[says("So does B.")],
        judges={"a": [says("Well, well.")], "b": [accept()]},
    )
    return (await on.run())["task_id"]


async def deadline(on: Stage) -> str:
    """A provider that answers a draft too late for the task's time: the timer ends it."""

    async def late(x: Exchange) -> None:
        await asyncio.sleep(0.5)
        await plan({"id": "a"})(x)

    on.model.will(late)
    return (await on.run(deadline_s=0.4))["task_id"]


async def steps_time_up(on: Stage) -> str:
    """A provider that says nothing to a step: it is stopped and tried again, until its attempts are used up."""
    on.model.will(plan({"id": "a"}), a=[silent])
    return (await on.run(deadline_s=1.5))["task_id"]


async def invented_tool(on: Stage) -> str:
    """A tool that there is not, arguments that are none; then an answer without."""
    broken = {"id": "call_x", "name": "calculate", "arguments": '{"expression": '}
    on.model.will(
        plan({"id": "a", "tools": ["calculate"]}),
        a=[use(call("summon_oracle", question="what now?")), use(broken), says("Nobody knows.")],
    )
    return (await on.run())["task_id"]


async def runaway(on: Stage) -> str:
    """A model that calls the same tool for ever: every cap holds, the task fails."""
    on.model.will(plan({"id": "a", "tools": ["calculate"]}), a=[use(call("calculate", expression="1 + 1"))])
    return (await on.run())["task_id"]


async def several_tools_in_one_turn(on: Stage) -> str:
    """A search, two calculations and one of them twice, in one turn."""
    async with on.client() as client:
        await client.add_document(b"The fee is 12 EUR. It applies from 1 May 2025.", name="fee.md")
    turn = use(
        call("search_documents", query="fee"),
        call("calculate", 1, expression="12 * 2"),
        call("calculate", 2, expression="12 * 3"),
        call("calculate", 3, expression="12 * 3"),
    )
    on.model.will(plan({"id": "a", "tools": ["search_documents", "calculate"]}), a=[turn, quoting])
    return (await on.run())["task_id"]


async def pruned_context(on: Stage) -> str:
    """More passages than the model's context takes: what was left out stands in the answer's completeness."""
    async with on.client() as client:
        for number in range(8):
            text = " ".join(f"Rule {number}.{line} of the fare says that seat {line} is kept." for line in range(60))
            await client.add_document(text.encode(), name=f"rules-{number}.md")
    on.model.will(
        plan({"id": "a", "tools": ["search_documents"]}),
        a=[use(call("search_documents", query="fare seat kept rule", k=20)), quoting],
    )
    return (await on.run())["task_id"]


async def request_v1(on: Stage) -> str:
    """An outside publisher that still speaks version 1 of the request."""
    on.model.will(plan({"id": "a"}), a=[says("It is so.")])
    body = TaskRequestedV1(objective="Find it out.", limit_usd=0.25, deadline_s=30)
    await outside(on, "pub_demo", "gateway", "pub_demo-v1", body.ce_type(), body.encode())
    await ended(on, "pub_demo-v1")
    return "pub_demo-v1"


async def provider_errors(on: Stage) -> str:
    """Errors that the model gateway mends by asking again, and one that it cannot: the step is tried again."""
    on.model.will(
        plan({"id": "a"}), a=[fails(500), fails(503), fails(400, "odd"), fails(429, retry_after="0"), says("It is so.")]
    )
    return (await on.run())["task_id"]


async def poison_message(on: Stage) -> str:
    """A message that nobody can read, in the middle of a task: rejected, and the task goes on."""

    async def poisoned(x: Exchange) -> None:
        task = await newest_started(on)
        await outside(on, "model_gateway", "worker", task, "mesh.model.call_replied.v1", b'{"call_id": 7}')
        await until_rejected(on, "worker", task)
        await says("It is so.")(x)

    on.model.will(plan({"id": "a"}), a=[poisoned])
    return (await on.run())["task_id"]


async def poison_opening(on: Stage) -> str:
    """The message that opens the task is the one that cannot be read: the task ends at once, with a reason."""
    await outside(on, "gateway", "planner", "t-poison", TaskSubmitted.ce_type(), b'{"objective": 7}')
    await ended(on, "t-poison")
    return "t-poison"


async def draft_rejected(on: Stage) -> str:
    """A draft that the plan checker refuses, another that runs."""
    on.model.will(plan({"id": "a", "inputs": ["nowhere"]}), plan({"id": "a"}), a=[says("It is so.")])
    return (await on.run())["task_id"]


async def uncertain_write(on: Stage) -> str:
    """A write without a key whose answer is lost: not repeated, the task ends and asks a person."""
    on.counter.misbehave("drop_after")
    on.model.will(
        plan({"id": "a", "tools": ["counter_increment_unkeyed"]}),
        a=[use(call("counter_increment_unkeyed", name="uncertain"))],
    )
    return (await on.run())["task_id"]


async def keyed_write(on: Stage) -> str:
    """A write under a key whose answer is lost: sent again, done once."""
    on.counter.misbehave("drop_after")
    on.model.will(
        plan({"id": "a", "tools": ["counter_increment"]}, {"id": "b", "inputs": ["a"]}),
        a=[use(call("counter_increment", name="keyed")), says("It is counted.")],
        b=[says("Done.")],
    )
    return (await on.run())["task_id"]


async def given_plan_unchecked(on: Stage) -> str:
    """A plan that the person brings, with checks off."""
    steps: list[dict[str, Any]] = [
        {"id": "first", "title": "", "instruction": "Do it.", "acceptance": "Done."},
        {"id": "second", "title": "", "instruction": "Do it again.", "acceptance": "Done.", "inputs": ["first"]},
    ]
    on.model.will(first=[says("Once.")], second=[says("Twice.")])
    return (await on.run(plan={"steps": steps}, check=False))["task_id"]


async def fork(on: Stage) -> str:
    """A task that takes over two results of another and runs the third step, edited."""
    on.model.will(plan(*BOTH), a=[says("A holds.")], b=[says("B holds.")], c=[says("Both hold."), says("Just B.")])
    earlier = await on.run()
    common = {"inputs": [], "acceptance": "It is done."}
    steps = [common | {"title": step["id"].upper(), "instruction": f"Do {step['id']}."} | step for step in BOTH]
    steps[2] |= {"instruction": "Say only what b found."}
    taken = {"task": earlier["task_id"], "steps": ["a", "b"]}
    return (await on.run(plan={"steps": steps}, fork=taken))["task_id"]


async def put_off(on: Stage) -> str:
    """Nobody admits a step's model call for a while: it is put off, asked again, and made."""

    async def alone(x: Exchange) -> None:
        on.mesh.kill_replica("budget")
        await plan({"id": "a"})(x)

    on.model.will(alone, a=[says("It is so.")])
    running = asyncio.create_task(on.run())
    async with asyncio.timeout(PUT_OFF_S):
        while not any(
            one.headers["ce-type"].startswith(CallDeferred.TYPE)
            for one in await on.mesh.messages("INBOX_WORKER", "mesh.model_gateway.worker.>")
        ):
            await asyncio.sleep(0.02)
    await on.mesh.start("budget")
    return (await running)["task_id"]


async def leased(on: Stage) -> str:
    """Two steps want one resource: the holder lets go, or ends, once the other waits for it."""

    def once_queued(turn: Script) -> Script:
        async def wait(x: Exchange) -> None:
            while not any(
                message.headers["ce-type"].startswith(LeaseQueued.TYPE)
                for message in await on.mesh.messages("INBOX_WORKER", "mesh.planner.worker.>")
            ):
                await asyncio.sleep(0.01)
            await turn(x)

        return wait

    get, back = call("acquire_lease", resource="crm:account:42"), call("release_lease", resource="crm:account:42")
    steps = [{"id": name, "tools": ["acquire_lease", "release_lease"]} for name in ("a", "b")]
    on.model.will(
        plan(*steps, {"id": "c", "inputs": ["a", "b"]}),
        a=[use(get), once_queued(use(back)), says("A is booked.")],
        b=[use(get), once_queued(says("B is booked."))],
        c=[says("Both are booked.")],
    )
    return (await on.run(tools=["acquire_lease", "release_lease"]))["task_id"]


async def asked(on: Stage) -> str:
    """A step asks another for its opinion and a third for its result; the question comes while that one works."""

    async def once_asked(x: Exchange) -> None:
        while not any(
            one.headers["ce-type"].startswith(AnswerRequested.TYPE)
            for one in await on.mesh.messages("INBOX_WORKER", "mesh.planner.worker.>")
        ):
            await asyncio.sleep(0.01)
        await use(call("ask_steps", steps=["nobody"]))(x)

    tools = ["ask_steps", "answer_step"]
    steps = [{"id": name, "tools": tools} for name in ("a", "b", "d")]
    on.model.will(
        plan(*steps, {"id": "c", "inputs": ["a", "b", "d"]}),
        c=[says("It is so.")],
        d=[says("D holds.")],
        a=[
            use(call("ask_steps", 1, steps=["b"], question="Is it so?"), call("ask_steps", 2, steps=["d"])),
            says("B says so, and D holds."),
        ],
        b=[once_asked, use(call("answer_step", step="a", answer="It is.")), says("B holds.")],
    )
    return (await on.run(tools=tools))["task_id"]


async def topped_up(on: Stage) -> str:
    """A task that reaches its ceiling in its draft, its checker and a step, and is given more each time."""
    on.model.will(
        plan({"id": "a", "tools": ["counter_increment"]}, {"id": "b", "inputs": ["a"]}),
        a=[use(call("counter_increment", name="kept")), says("Here is a.")],
        b=[says("Here are both.")],
    )
    async with on.client(OPERATOR) as client:
        await client.change_limit("task", {"model_calls": 0})
        task = await client.submit("Find it out.")
        for more in (3, 1, 9):  # The draft and both turns of a; its judge; the rest.
            await paused(task)
            receipt = await task.top_up({"model_calls": more}, "it is worth it")
            assert receipt["resumed"], receipt
        await task.wait_until_ended(PUT_OFF_S)
    return task.id


async def paused(task: Task) -> dict[str, Any]:
    """Wait until it is held back; what `show` says then."""
    async with asyncio.timeout(PUT_OFF_S):
        while (found := await task.show())["status"] != "paused":
            assert found["status"] in ("requested", "running"), found["failure"]
            await asyncio.sleep(0.02)
    return found


# With the offline model: its own words, and documents of a generated case


async def answered(on: Stage) -> str:
    """The demo's question over its documents, answered with citations."""
    return (await on.run(await documents(on), deadline_s=60))["task_id"]


async def no_answer_in_documents(on: Stage) -> str:
    """A question that the documents do not answer, which the answer says."""
    await documents(on)
    return (await on.run("Who won the chess championship of 1927?", deadline_s=60))["task_id"]


async def cancelled(on: Stage) -> str:
    """A person cancels the task as soon as its first step has started."""
    async with on.client() as client:
        task = await client.submit(await documents(on), deadline_s=60)
        async with asyncio.timeout(PUT_OFF_S):
            while not await said_of(on, task.id, StepStarted):
                await asyncio.sleep(0.001)
        await task.cancel("enough")
        await task.wait_until_ended(PUT_OFF_S)
    return task.id


async def halted_by_budget(on: Stage) -> str:
    """A task that reaches its ceiling and gets no more until its deadline."""
    return (await on.run(await documents(on), limit_usd=0.003, deadline_s=4))["task_id"]


async def given_plan(on: Stage) -> str:
    """A chain of three noops, brought along, with checks off."""
    names = ("s0", "s1", "s2")
    steps = [
        {"id": name, "title": "", "instruction": "x" * 64, "kind": "noop", "inputs": list(names[at - 1 : at])}
        for at, name in enumerate(names)
    ]
    return (await on.run(plan={"steps": steps}, check=False, tools=["calculate"]))["task_id"]


async def upgraded(on: Stage) -> tuple[str, str]:
    """Two tasks: one that is under way while every decider and the gateway are rolled to the next version of the logic
    (next_logic.py), and one that begins after that."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def held(x: Exchange) -> None:
        reached.set()
        await go_on.wait()
        await says("A holds.")(x)

    on.model.will(plan({"id": "a"}, {"id": "b", "inputs": ["a"]}), a=[held], b=[says("B holds.")])
    async with on.client() as client:
        first = await client.submit("Under the old logic.")
        await reached.wait()
        on.logics.update(next_logic.LOGICS)
        on.starts["logic"] = next_logic.NEXT
        await on.restart(*DECIDERS, "gateway")
        go_on.set()
    async with on.client() as client:
        assert (await client.task(first.id).wait_until_ended())["status"] == "succeeded"
    on.model.will(plan({"id": "a"}), a=[says("A holds.")])
    second = await on.run("Under the new one.")
    assert second["status"] == "succeeded"
    return first.id, second["task_id"]


SCENES: dict[str, Scene] = {
    one.__name__: one
    for one in (
        single_step,
        fan_out_join,
        replanned,
        retried_with_reasons,
        failed_dependency,
        degraded_input,
        deadline,
        steps_time_up,
        invented_tool,
        runaway,
        several_tools_in_one_turn,
        request_v1,
        provider_errors,
        poison_message,
        poison_opening,
        draft_rejected,
        uncertain_write,
        keyed_write,
        given_plan,
        given_plan_unchecked,
        put_off,
        fork,
        leased,
        asked,
        topped_up,
    )
}
SMALL_CONTEXT: dict[str, Scene] = {"pruned_context": pruned_context}
OFFLINE: dict[str, Scene] = {
    one.__name__: one for one in (answered, no_answer_in_documents, cancelled, halted_by_budget)
}


# Words and facts


async def quoting(x: Exchange) -> None:
    """Say the first sentence of the first passage, cited."""
    found = PASSAGE.search(next(one["content"] for one in x.body["messages"] if one["role"] == "tool"))
    assert found, "no passage was shown"
    await says(f"{found.group(2)[:-1]} [#{found.group(1)}].")(x)


async def documents(on: Stage) -> str:
    """Add the documents of a generated case; its objective."""
    demo = generate_demo(7)
    async with on.client() as client:
        for row in demo.documents:
            await client.add_document(row.text.encode(), name=row.name)
    return demo.objective


async def said_of(on: Stage, task: str, kind: type[Body]) -> bool:
    """Whether the planner has told the gateway such a fact of the task."""
    messages = await on.mesh.messages("INBOX_GATEWAY", f"mesh.planner.gateway.*.{TENANT}.{task}.*")
    return any(
        isinstance(fact, kind) for row in messages for fact in list_facts(decode_body(row.headers["ce-type"], row.body))
    )


async def outside(on: Stage, sender: str, receiver: str, task: str, kind: str, body: bytes) -> None:
    """Store a message as somebody whom no component of the mesh is."""
    bus = MemoryBus(on.mesh.broker, sender)
    head = Envelope(
        id=derive_id(sender, task, "outside"), type=kind, source=sender, time_unix_ms=on.mesh.context("gateway").clock()
    )
    await bus.publish(
        subjects.mesh_subject(sender, receiver, TENANT, task), body, head.to_headers(), f"{sender}/{task}/outside"
    )


async def ended(on: Stage, task: str) -> None:
    """Wait for the task's end."""
    await on.mesh.wait_for_fact(subjects.mesh_subject("planner", "gateway", TENANT, task), TaskEnded)


async def newest_started(on: Stage) -> str:
    """The task whose step was started last."""
    found = await on.mesh.messages("INBOX_GATEWAY", f"mesh.planner.gateway.*.{TENANT}.*.*")
    return next(
        one.task
        for one in reversed(found)
        if any(isinstance(fact, StepStarted) for fact in list_facts(decode_body(one.headers["ce-type"], one.body)))
    )


async def until_rejected(on: Stage, service: str, task: str) -> None:
    """Wait until the service has rejected a message of the task."""
    await on.mesh.wait_for_fact(subjects.mesh_subject(service, service, TENANT, task), MessageRejected)
