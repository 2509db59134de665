"""Replicas of an MCP server: load, death in mid-call by effect, silence, a restart, draining."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from bulkhead.tools.api import Done, Failed
from tests.eventually import until
from tests.unit.services.tool_executor.mcp.conftest import http


async def _begun(log: Path, count: int = 1) -> list[str]:
    """Names of the replicas that calls have reached."""
    await until(lambda: log.exists() and len(log.read_text().splitlines()) >= count, timeout_s=30)
    return [line.split()[0] for line in log.read_text().splitlines()]


async def _ready(house, count: int) -> None:
    await until(lambda: house.usable() == count, f"{count} replicas are usable", 30)


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["events", "json"])
@pytest.mark.parametrize("tool", ["where", "append_once"])
@pytest.mark.slow
async def test_a_call_that_may_be_repeated_moves_on_when_its_replica_dies(house, replicas, log, tool, form) -> None:
    both = await replicas("a", "b", more=form)
    await house.pin(desk=http(*both))
    await house.open()
    await _ready(house, 2)
    given = {"wait_s": 2} | ({"text": "x"} if tool == "append_once" else {})
    call = asyncio.create_task(house.call(f"desk_{tool}", given))
    (first,) = await _begun(log)
    next(one for one in both if one.name == first).end()
    done = await call
    assert isinstance(done, Done), done
    if tool == "where":
        assert done.text == ({"a", "b"} - {first}).pop()
    else:
        assert len(log.read_text().splitlines()) == 1, "the second replica knew the key"
    await _ready(house, 1)


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["events", "json"])
@pytest.mark.slow
async def test_a_write_that_may_have_been_done_is_uncertain_and_done_by_no_other(house, replicas, log, form) -> None:
    both = await replicas("a", "b", more=form)
    await house.pin(desk=http(*both))
    await house.open()
    await _ready(house, 2)
    call = asyncio.create_task(house.call("desk_append", {"text": "x", "wait_s": 5}))
    (first,) = await _begun(log)
    next(one for one in both if one.name == first).end()
    failed = await call
    assert isinstance(failed, Failed) and (failed.code, failed.effect) == ("connection_lost", "unknown")
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.slow
async def test_a_write_that_was_certainly_not_sent_moves_on(house, replicas, log) -> None:
    a, b = await replicas("a", "b")
    await house.pin(desk=http(a, b))
    await house.open()
    await _ready(house, 2)
    server = house.tools._servers["desk"]
    server.replicas[(b.url, 0)].served = 1  # The next goes to a,
    a.end()  # of whose end nobody knows yet.
    assert await house.call("desk_append", {"text": "x"}) == Done("written")
    assert await _begun(log) == ["b"]


@pytest.mark.slow
async def test_calls_go_where_the_fewest_are_under_way(house, replicas, log) -> None:
    await house.pin(desk=http(*await replicas("a", "b", "c")))
    await house.open()
    await _ready(house, 3)
    await asyncio.gather(*(house.call("desk_where", {"wait_s": 1}) for _ in range(9)))
    assert sorted(await _begun(log, 9)) == ["a"] * 3 + ["b"] * 3 + ["c"] * 3


@pytest.mark.slow
async def test_a_read_leaves_a_replica_that_fell_silent(house, replicas, log) -> None:
    both = await replicas("a", "b")
    await house.pin(desk=http(*both))
    await house.open()
    await _ready(house, 2)
    call = asyncio.create_task(house.call("desk_where", {"wait_s": 1}))
    (first,) = await _begun(log)
    silent = next(one for one in both if one.name == first)
    os.kill(silent.process.pid, signal.SIGSTOP)
    done = await call
    assert done == Done(({"a", "b"} - {first}).pop())
    os.kill(silent.process.pid, signal.SIGCONT)
    await _ready(house, 2)


@pytest.mark.slow
async def test_a_replica_that_comes_back_is_used_again(house, replicas) -> None:
    (a,) = await replicas("a")
    await house.pin(desk=http(a))
    await house.open()
    assert await house.call("desk_where") == Done("a")
    a.end()
    failed = await house.call("desk_where")
    assert isinstance(failed, Failed) and (failed.code, failed.effect, failed.transient) == (
        "unavailable",
        "none",
        True,
    )
    await until(lambda: "no replica of the MCP server desk" in house.tools.describe_degradation(), timeout_s=10)
    await replicas("a2", port=a.port)
    await _ready(house, 1)
    assert await house.call("desk_where") == Done("a2")
    assert house.tools.describe_degradation() == ""


@pytest.mark.parametrize("tool", ["where", "append_once"])
@pytest.mark.slow
async def test_a_call_reaches_over_a_restart_of_its_only_replica(house, replicas, log, tool, monkeypatch) -> None:
    monkeypatch.setattr("bulkhead_services.tool_executor.mcp.replica.RETURN_S", 100.0)  # A busy machine starts it late.
    (only,) = await replicas("a")
    await house.pin(desk=http(only))
    await house.open()
    await _ready(house, 1)
    given = {"wait_s": 1} | ({"text": "x"} if tool == "append_once" else {})
    call = asyncio.create_task(house.call(f"desk_{tool}", given, timeout_s=110))
    await _begun(log)
    only.end()
    await asyncio.sleep(1.0)
    await replicas("b", port=only.port)
    assert isinstance(done := await call, Done), done


@pytest.mark.slow
async def test_a_session_that_its_server_forgot_between_calls_is_not_shown(house, replicas, monkeypatch) -> None:
    monkeypatch.setattr("bulkhead_services.tool_executor.mcp.replica.RETURN_S", 60.0)
    (only,) = await replicas("a")
    await house.pin(desk=http(only))
    await house.open()
    await _ready(house, 1)
    only.end()
    await replicas("b", port=only.port)
    done = await house.call("desk_append", {"text": "x"})
    assert isinstance(done, Done), "it was certainly not made, and is made under a new session"


@pytest.mark.slow
async def test_a_replica_that_was_taken_out_ends_what_it_began(house, replicas, log) -> None:
    a, b = await replicas("a", "b")
    await house.pin(desk=http(a))
    await house.open()
    call = asyncio.create_task(house.call("desk_append", {"text": "x", "wait_s": 2}))
    assert await _begun(log) == ["a"]
    house.write(desk=http(b))
    await until(lambda: list(house.tools._servers["desk"].replicas) == [(b.url, 0)], timeout_s=10)
    assert await house.call("desk_where") == Done("b")
    assert not call.done()
    assert await call == Done("written")


@pytest.mark.slow
async def test_a_process_that_dies_is_started_again(house, stdio) -> None:
    await house.pin(desk=stdio | {"replicas": 2})
    await house.open()
    await _ready(house, 2)
    failed = await house.call("desk_die")
    assert isinstance(failed, Failed) and failed.code == "unavailable", "it killed both, one after the other"
    assert house.usable() == 0
    await _ready(house, 2)
    assert await house.call("desk_where") == Done("a")
