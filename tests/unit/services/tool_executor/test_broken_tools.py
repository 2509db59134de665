"""Tools with mistakes: they raise, return anything, block. The asker is told, a write counts as maybe done, no call is
handed out again and again, and what is told names no secret."""

import asyncio
import logging
import sys
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from bulkhead.tools.packs import Arguments, Call, Done, Failed
from bulkhead_services.tool_executor import registry
from bulkhead_services.tool_executor.watchdog import ToolBlocked

SECRET = "token=hunter2"


def mistaken(desk, run, tool: str = "counter_increment", timeout_ms: int = 0) -> None:
    """One tool of the desk is carried out by this function from now on. timeout_ms: of the tool, not of the call, which
    a busy machine may begin late."""
    found = desk.doer._registry.tools
    row = found[tool].row
    if timeout_ms:
        row = replace(row, spec=row.spec.model_copy(update={"timeout_ms": timeout_ms}))
    found[tool] = replace(found[tool], run=run, row=row)


async def raises(arguments: Arguments, call: Call) -> Done:
    raise KeyError(SECRET)


@pytest.mark.parametrize(
    ("tool", "arguments", "outcome", "tries"),
    [
        ("calculate", {"expression": "1"}, "failed", 3),
        ("counter_increment", {"name": "n"}, "uncertain", 3),
        ("counter_increment_unkeyed", {"name": "n"}, "uncertain", 1),
    ],
)
async def test_a_tool_that_raises_is_a_failed_call_and_a_write_may_have_been_done(
    counting, caplog, tool: str, arguments: dict, outcome: str, tries: int
) -> None:
    mistaken(counting, raises, tool)
    with caplog.at_level(logging.ERROR, "bulkhead"):
        reply = await counting.call(tool, arguments)
    assert (reply.outcome, reply.failure.code, reply.usage.tool_calls) == (outcome, "tool_bug", tries)
    assert f"{tool} raised KeyError (test_broken_tools.py, line " in reply.failure.message and reply.failure.hint
    assert SECRET not in reply.encode().decode(), "what a tool raises may name secrets; agents do not read it"
    assert all(held.settled is not None for held in counting.reservations), "the money of each try is settled"
    said = [one for one in caplog.records if one.getMessage() == "tool_raised"]
    assert len(said) == tries and SECRET in said[0].values["error"] and said[0].exc_info[2] is not None


async def test_a_tool_that_calls_exit_ends_no_process(counting) -> None:
    async def leaves(arguments: Arguments, call: Call) -> Done:
        sys.exit(SECRET)

    mistaken(counting, leaves)
    reply = await counting.call("counter_increment", {"name": "n"})
    assert (reply.outcome, reply.failure.code) == ("uncertain", "tool_bug")
    assert "(test_broken_tools.py, line " in reply.failure.message and SECRET not in reply.encode().decode()


async def test_a_tool_that_takes_no_cancel_does_not_keep_its_call(counting, caplog, monkeypatch) -> None:
    go_on = asyncio.Event()

    async def stays(arguments: Arguments, call: Call) -> Done:
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await go_on.wait()
        return Done("late")

    monkeypatch.setattr("bulkhead_services.tool_executor.effects.BLOCKED_S", 0.05)
    mistaken(counting, stays, timeout_ms=50)
    with caplog.at_level(logging.ERROR, "bulkhead"):
        reply = await asyncio.wait_for(counting.call("counter_increment", {"name": "n"}), 30)
    assert (reply.outcome, reply.failure.code) == ("uncertain", "timeout")
    assert [one.values["tool"] for one in caplog.records if one.getMessage() == "tool_goes_on"]
    go_on.set()


async def test_a_tool_that_returns_no_outcome_is_told_once(counting) -> None:
    async def text(arguments: Arguments, call: Call) -> str:
        return "paid"

    mistaken(counting, text)
    reply = await counting.call("counter_increment", {"name": "n"})
    assert (reply.outcome, reply.failure.code, reply.usage.tool_calls) == ("uncertain", "tool_bug", 1)
    assert "returned a str where Done or Failed is due" in reply.failure.message


async def test_a_tool_that_blocks_the_process_is_named_in_the_log(counting, caplog, monkeypatch) -> None:
    async def blocks(arguments: Arguments, call: Call) -> Done:
        time.sleep(0.2)
        return Done("late")

    monkeypatch.setattr("bulkhead_services.tool_executor.effects.BLOCKED_S", 0.05)
    mistaken(counting, blocks, timeout_ms=50)
    with caplog.at_level(logging.ERROR, "bulkhead"):
        reply = await counting.call("counter_increment", {"name": "n"})
    assert reply.outcome == "succeeded", "it was done, late as it is"
    (said,) = [one for one in caplog.records if one.getMessage() == "tool_blocks"]
    assert said.values["tool"] == "counter_increment" and "plain `def run`" in said.values["todo"]


@pytest.mark.parametrize(
    ("tool", "arguments", "outcome", "tries"),
    [
        ("counter_increment", {"name": "n"}, "succeeded", 2),
        ("counter_increment_unkeyed", {"name": "n"}, "uncertain", 1),
        ("calculate", {"expression": "1"}, "failed", 1),
    ],
)
async def test_a_write_that_was_interrupted_is_repeated_where_it_has_a_key(
    counting, tool: str, arguments: dict, outcome: str, tries: int
) -> None:
    keys: list[str] = []

    async def blocks_once(arguments: Arguments, call: Call) -> Done:
        keys.append(call.key)
        if len(keys) == 1:
            raise ToolBlocked(tool)
        return Done("1")

    mistaken(counting, blocks_once, tool)
    reply = await counting.call(tool, arguments)
    assert (reply.outcome, reply.usage.tool_calls, len(set(keys))) == (outcome, tries, 1), reply.failure


def _hidden(arguments: Arguments, call: Call) -> Done:
    return Done("")


_hidden.__wrapped__ = raises  # type: ignore[attr-defined]  # As functools.wraps leaves it.


@pytest.mark.parametrize(
    ("run", "what"), [(Done("1"), "its run is a Done"), (_hidden, "a plain function around an `async def`")]
)
def test_a_tool_that_is_no_function_fails_at_start(monkeypatch, run, what: str) -> None:
    monkeypatch.setattr("bulkhead_services.tool_executor.tools.calculate.run", run)
    with pytest.raises(ValueError, match=f"calculate.*has no `async def run.*{what}"):
        registry.load_registry()


@pytest.mark.parametrize("said", [Done(5), Failed("x" * 300, "m", "h"), Failed("bad", None, "h")])
async def test_an_outcome_that_cannot_be_told_is_a_mistake_of_the_tool(counting, said) -> None:
    async def wrong(arguments: Arguments, call: Call) -> Done | Failed:
        return said

    mistaken(counting, wrong)
    reply = await counting.call("counter_increment", {"name": "n"})
    assert (reply.outcome, reply.failure.code) == ("uncertain", "tool_bug"), "a write, which may have been done"
