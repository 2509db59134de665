"""One call from request to reply: checks in order, results, time, output, writes counted once."""

import asyncio
from dataclasses import replace

import pytest

from bulkhead.grants import Verifier, public_of
from bulkhead.runtime.errors import Deferred, JobRefused
from bulkhead.runtime.halts.live import OpenBreaker
from bulkhead_contracts.control import Breaker, Halt
from bulkhead_contracts.result import Usage
from bulkhead_services.tool_executor.registry import ToolRegistry
from tests.counter_server import CounterServer


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("calculate", {"expression": "709.47 * 60% - 40"}, "709.47 * 60% - 40 = 385.682"),
        ("date_difference", {"start": "2025-09-20", "end": "2025-10-04"}, "2025-09-20 to 2025-10-04 = 14 days"),
        ("date_difference", {"start": "2024-03-01", "end": "2024-02-29"}, "2024-03-01 to 2024-02-29 = -1 day"),
        ("date_add", {"date": "2024-02-28", "days": 2}, "2024-02-28 + 2 days = 2024-03-01"),
        ("date_add", {"date": "2024-03-01", "days": -1}, "2024-03-01 - 1 day = 2024-02-29"),
    ],
)
async def test_reads_answer_with_signed_content(desk, tool: str, arguments: dict, text: str) -> None:
    reply = await desk.call(tool, arguments)
    assert (reply.outcome, reply.standing, reply.effect) == ("succeeded", "ok", "read")
    assert desk.text(reply) == text == reply.content.summary
    assert reply.usage.tool_calls == 1 and reply.completeness.complete
    (label,) = reply.provenance
    assert (label.kind, label.source, label.trust, label.sha256) == (
        "tool_result",
        tool,
        "untrusted",
        reply.content.sha256,
    )
    assert Verifier({"tool_executor": public_of(desk.seed)}).verify_label(label, "acme", "t1") and label.step_id == "s1"
    (held,) = desk.reservations
    assert held.settled.usage.tool_calls == 1


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("calculate", {"expression": "1/0"}, "division_by_zero"),
        ("date_add", {"date": "2023-02-29", "days": 1}, "bad_date"),
        ("date_add", {"date": "9999-12-31", "days": 1}, "out_of_range"),
        ("date_difference", {"start": "٢٠٢٤-٠١-٠١", "end": "2024-01-01"}, "bad_date"),
    ],
)
async def test_what_a_tool_cannot_do_is_a_failure(desk, tool: str, arguments: dict, code: str) -> None:
    reply = await desk.call(tool, arguments)
    assert (reply.outcome, reply.failure.code, reply.standing) == ("failed", code, "failed")
    assert reply.failure.hint and reply.usage.tool_calls == 1
    assert [held.settled.failed for held in desk.reservations] == [code]


GOOD = {"expression": "1+1"}


@pytest.mark.parametrize(
    ("tool", "arguments", "job", "code"),
    [
        ("rm_rf", {}, {}, "unknown_tool"),
        ("search_documents", {"query": "x"}, {}, "unknown_tool"),
        ("counter_increment", {"name": "a"}, {}, "not_configured"),
        ("calculate", GOOD, {"step": None}, "not_granted"),
        ("calculate", GOOD, {"granted": ("date_add",)}, "not_granted"),
        ("calculate", GOOD, {"task_tools": ("date_add",)}, "not_granted"),
        ("calculate", GOOD, {"step": "s2"}, "wrong_step"),
        ("calculate", GOOD, {"attempt": 2}, "wrong_step"),
        ("calculate", GOOD, {"deadline_ms": 0}, "deadline_exceeded"),
        ("calculate", {"expr": "1"}, {}, "bad_arguments"),
        ("calculate", {"expr": "1"}, {"granted": ()}, "not_granted"),
    ],
)
async def test_refusals_cost_nothing(desk, tool: str, arguments: dict, job: dict, code: str) -> None:
    reply = await desk.call(tool, arguments, **job)
    assert (reply.outcome, reply.failure.code) == ("refused", code)
    assert reply.failure.message and reply.failure.hint
    assert desk.reservations == [] and reply.usage.tool_calls == 0


async def test_a_call_whose_time_is_over_is_not_ruled_on(desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk.doer._gate, "_rule", lambda proposal: pytest.fail("it was ruled on"))
    assert (await desk.call("calculate", GOOD, deadline_ms=0)).failure.code == "deadline_exceeded"


async def test_a_halt_refuses_before_arguments_are_looked_at(desk) -> None:
    desk.halt = Halt(scope="tool", name="calculate", code="switch", reason="off", by="operator")
    assert (await desk.call("calculate", {"expr": 1})).failure.code == "halted"


async def test_a_call_that_is_not_admitted_is_not_made(counting, counter) -> None:
    counting.admissions = 0
    for tool in ("counter_increment", "counter_increment_unkeyed"):
        with pytest.raises(Deferred, match="budget asks to wait"):
            await counting.call(tool, {"name": "a"})
    assert counter.counts()["increments"] == 0


async def test_a_deadline_that_passes_while_budget_is_asked_makes_no_call(counting, counter) -> None:
    counting.admission_takes_ms = 20_000
    reply = await counting.call("counter_increment_unkeyed", {"name": "a"})
    assert (reply.outcome, reply.failure.code) == ("failed", "deadline_exceeded")
    assert counter.counts()["increments"] == 0
    assert [held.settled.usage.tool_calls for held in counting.reservations] == [0]


async def test_output_is_bounded_and_says_so(desk) -> None:
    tool = desk.doer._registry.tools["calculate"]
    from bulkhead.tools.api import Done

    async def long(arguments, call):
        return Done("€" * 10_000)

    desk.doer._registry = ToolRegistry({"calculate": replace(tool, run=long)}, {}, {})
    reply = await desk.call("calculate", GOOD)
    assert desk.text(reply) == "€" * (4096 // 3)
    assert reply.completeness.omissions[0].reason == "truncated"
    assert "output_truncated" in reply.completeness.omissions[0].detail


def stuck(desk, name: str):
    begun = asyncio.Event()
    calls: list[str] = []

    async def run(arguments, call):
        calls.append(call.key)
        begun.set()
        await asyncio.Event().wait()

    tools = desk.doer._registry.tools
    desk.doer._registry = ToolRegistry({name: replace(tools[name], run=run)}, {}, {})
    return begun, calls


async def test_a_tool_that_hangs_is_cut_by_its_deadline(desk) -> None:
    _, calls = stuck(desk, "calculate")
    reply = await desk.call("calculate", GOOD, deadline_ms=30)
    assert (reply.outcome, reply.failure.code) == ("failed", "deadline_too_short")
    assert len(calls) == reply.usage.tool_calls == 3
    assert len(desk.reservations) == 3 and all(held.settled for held in desk.reservations)
    assert "timeout_ms" not in reply.failure.hint, "its own bound was not what cut it"


async def test_a_read_ends_with_what_a_limit_of_wall_time_leaves_and_a_write_does_not(counting) -> None:
    counting.wall_ms, registry = 30, counting.doer._registry
    for tool, arguments, said in (
        ("calculate", GOOD, "longer than 30 ms"),
        ("counter_increment_unkeyed", {"name": "a"}, "longer than 300 ms"),
    ):
        counting.doer._registry = registry
        stuck(counting, tool)
        assert said in (await counting.call(tool, arguments, deadline_ms=300)).failure.message


async def test_a_tool_that_hangs_is_cut_by_its_row_which_its_owner_may_raise(desk) -> None:
    stuck(desk, "calculate")
    tools = desk.doer._registry.tools
    tool = tools["calculate"]
    row = replace(tool.row, spec=tool.spec.model_copy(update={"timeout_ms": 20}))
    desk.doer._registry = ToolRegistry({**tools, "calculate": replace(tool, row=row)}, {}, {})
    reply = await desk.call("calculate", GOOD)
    assert reply.failure.message == "calculate took longer than 20 ms (tried 3 times)"
    assert "its owner may raise timeout_ms in tools.yaml" in reply.failure.hint


@pytest.mark.parametrize("pauses", [False, True])
@pytest.mark.parametrize("tool", ["counter_increment", "counter_increment_unkeyed"])
async def test_a_halt_that_comes_while_budget_is_asked_keeps_it_from_beginning_and_costs_nothing(
    counting, counter, tool: str, pauses: bool
) -> None:
    hands = counting.hands()
    admit = hands._reserve

    async def slow(*asked):
        counting.halt = Halt(scope="tool", name=tool, code="switch", reason="off", by="operator", pauses=pauses)
        return await admit(*asked)

    hands._reserve = slow
    says = f"goes on after `bulkhead resume --tool {tool}`" if pauses else "is halted: off"
    with pytest.raises(Deferred if pauses else JobRefused, match=says):
        asked = counting.job(tool, {"name": "a"})
        async with counting.doer.hold_turn(asked, hands) as turn:
            await counting.doer.act(asked, hands, turn)
    assert counter.counts()["increments"] == 0 and hands.reservations[0].settled.usage == Usage()


async def test_a_halt_that_comes_while_a_write_waits_for_its_turn_keeps_it_from_beginning(counting, counter) -> None:
    bench = counting.doer._runner
    run = bench.run

    async def waits(tool, arguments, key, timeout_s, cut, too_late, user, report_progress, approval):
        counting.halt = Halt(scope="tool", name=tool.spec.name, code="switch", reason="off", by="operator")
        return too_late() or await run(tool, arguments, key, timeout_s, cut)

    bench.run = waits
    reply = await counting.call("counter_increment_unkeyed", {"name": "a"})
    assert (reply.outcome, reply.failure.code) == ("failed", "halted"), "and not uncertain: it had not begun"
    assert "is halted: off" in reply.failure.message, "who reads it is told why"
    assert counter.counts()["increments"] == 0


async def test_a_halt_cuts_a_read_in_flight(desk) -> None:
    begun, calls = stuck(desk, "calculate")
    running = asyncio.create_task(desk.call("calculate", GOOD))
    await begun.wait()
    desk.halt = Halt(scope="task", tenant="demo", name="t1", code="ceiling", reason="enough", by="budget")
    desk.cut.set()
    reply = await asyncio.wait_for(running, 5)
    assert (reply.outcome, reply.failure.code, len(calls)) == ("failed", "halted", 1)
    assert "task t1 is halted: enough" in reply.failure.message, "who reads it is told why"


async def test_a_read_that_a_pause_cuts_is_put_off_and_settled(desk) -> None:
    begun, calls = stuck(desk, "calculate")
    running = asyncio.create_task(desk.call("calculate", GOOD))
    await begun.wait()
    desk.halt = Halt(
        scope="tool", name="calculate", code="halted", reason="look at it first", by="operator:ada", pauses=True
    )
    desk.cut.set()
    with pytest.raises(Deferred) as put_off:
        await asyncio.wait_for(running, 5)
    assert put_off.value.paused and "look at it first" in put_off.value.reason and len(calls) == 1
    with pytest.raises(Deferred):
        await desk.call("calculate", GOOD)
    assert len(calls) == 1, "a call that was not started is not begun under a pause"


async def test_an_open_breaker_refuses_a_tools_call_and_pauses_that_of_its_agent(desk) -> None:
    broken = Breaker(scope="tool", tenant="acme", name="calculate", phase="open", reason="10 of 10 calls failed")
    desk.held = OpenBreaker(broken, 7_000)
    reply = await desk.call("calculate", GOOD)
    assert (reply.outcome, reply.failure.code) == ("refused", "breaker_open")
    assert "10 of 10 calls failed" in reply.failure.message and "7 s" in reply.failure.hint
    assert desk.reservations == [], "nothing was reserved, and nothing was called"
    desk.held = OpenBreaker(broken.model_copy(update={"scope": "agent", "name": "worker-step"}), 7_000)
    with pytest.raises(Deferred) as put_off:
        await desk.call("calculate", GOOD)
    assert put_off.value.paused and put_off.value.after_ms == 7_000
    desk.held = None
    assert (await desk.call("calculate", GOOD)).outcome == "succeeded"


# Writes


async def test_a_write_is_counted_once_however_often_it_is_sent(counting, counter) -> None:
    first = await counting.call("counter_increment", {"name": "a", "amount": 2})
    again = await counting.call("counter_increment", {"name": "a", "amount": 2}, deliveries=2)
    assert (first.outcome, first.effect) == ("succeeded", "write")
    assert counting.text(first) == counting.text(again) == "counter a = 2"
    assert counter.counts() == {"counts": {"a": 2}, "increments": 1, "repeats": 1}


async def test_keys_of_other_tasks_and_tenants_are_other_keys(counting, counter) -> None:
    await counting.call("counter_increment", {"name": "a"}, task="t1")
    await counting.call("counter_increment", {"name": "a"}, task="t2")
    await counting.call("counter_increment", {"name": "a"}, tenant="bolt")
    assert counter.counts()["counts"] == {"a": 3}


@pytest.mark.parametrize("mode", ["drop_before", "drop_after", "error_before", "error_after"])
async def test_a_keyed_write_is_retried_and_counted_once(counting, counter, mode: str) -> None:
    counter.misbehave(mode, 2)
    reply = await counting.call("counter_increment", {"name": "a"})
    assert (reply.outcome, reply.usage.tool_calls) == ("succeeded", 3)
    assert counter.counts()["counts"] == {"a": 1}
    assert len(counting.reservations) == 3


@pytest.mark.parametrize("mode", ["drop_before", "drop_after", "error_after"])
async def test_an_unkeyed_write_whose_answer_is_lost_is_uncertain_and_never_repeated(counting, counter, mode) -> None:
    counter.misbehave(mode)
    reply = await counting.call("counter_increment_unkeyed", {"name": "a"})
    assert (reply.outcome, reply.usage.tool_calls) == ("uncertain", 1)
    assert "person" in reply.failure.hint
    assert counter.counts()["increments"] == (0 if mode == "drop_before" else 1)


async def test_a_keyed_write_that_never_gets_an_answer_is_uncertain(counting, counter) -> None:
    counter.misbehave("drop_after", 3)
    reply = await counting.call("counter_increment", {"name": "a"})
    assert (reply.outcome, reply.usage.tool_calls) == ("uncertain", 3)
    assert counter.counts()["counts"] == {"a": 1}
    assert [held.settled.failed for held in counting.reservations] == [reply.failure.code] * 3


async def test_a_write_that_certainly_did_not_happen_has_failed(make_desk) -> None:
    with CounterServer() as gone:
        url = gone.url
    desk = make_desk(counter_url=url)
    for tool in ("counter_increment", "counter_increment_unkeyed"):
        reply = await desk.call(tool, {"name": "a"})
        assert (reply.outcome, reply.failure.code, reply.usage.tool_calls) == ("failed", "unreachable", 3)


async def test_only_unkeyed_writes_are_claimed(counting) -> None:
    claimed = {
        name: counting.doer.needs_claim(counting.job(name)) for name in (*counting.doer._registry.tools, "rm_rf")
    }
    assert [name for name, yes in claimed.items() if yes] == ["counter_increment_unkeyed"]
    reply = counting.doer.uncertain_reply(counting.job("counter_increment_unkeyed").request)
    assert (reply.outcome, reply.effect) == ("uncertain", "write") and "person" in reply.failure.hint
