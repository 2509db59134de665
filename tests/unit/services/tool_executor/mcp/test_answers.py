"""Calls of MCP tools: what they answer, fail with, see and may not exceed; over stdio and streamable HTTP."""

import json

import psutil
import pytest

from bulkhead.tools.api import Done, Failed
from bulkhead_contracts import bounds
from tests.eventually import until
from tests.unit.services.tool_executor.conftest import Desk
from tests.unit.services.tool_executor.mcp.conftest import TOOLS, http


@pytest.fixture(params=["stdio", "http", "http-json"])
async def open_house(request, house, stdio, replicas):
    declared = stdio
    if request.param != "stdio":
        declared = http(*await replicas("a", more=("--json",) if request.param == "http-json" else ()))
    await house.pin(desk=declared)
    await house.open()
    return house


@pytest.mark.slow
async def test_answers_are_text_structured_content_and_named_omissions(open_house) -> None:
    assert await open_house.call("desk_where") == Done("a")
    assert json.loads((await open_house.call("desk_add", {"a": 2, "b": 3})).text) == {"sum": 5}
    assert await open_house.call("desk_picture") == Done("a picture:", omitted=("content of type image (image/gif)",))
    failed = await open_house.call("desk_fail")
    assert isinstance(failed, Failed) and (failed.code, failed.effect) == ("tool_error", "unknown")
    assert "there is no such desk" in failed.message
    most = await open_house.call("desk_big", {"size": bounds.MAX_MCP_ANSWER_BYTES + 1})
    assert isinstance(most, Failed) and most.code in ("output_too_large", "unavailable")
    await until(lambda: open_house.usable() == 1, "it can be used again", 30)
    assert await open_house.call("desk_where") == Done("a")


@pytest.mark.slow
async def test_the_reply_names_what_was_left_out_and_quotes_the_bound(house, stdio) -> None:
    await house.pin(desk=stdio | {"max_output_bytes": 100})
    await house.open()
    desk = Desk(house.doer())
    reply = await desk.call("desk_picture")
    (omission,) = reply.completeness.omissions
    assert desk.text(reply) == "a picture:" and omission.reason == "pruned" and "image/gif" in omission.detail
    cut = await desk.call("desk_big", {"size": 1_000})
    assert len(desk.text(cut)) == 100 and "cut at 100 bytes" in cut.completeness.omissions[0].detail


@pytest.mark.slow
async def test_a_process_sees_nothing_of_the_executors_environment(house, stdio, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("BULKHEAD_TOOL_SETTINGS", '{"password": "hunter2"}')
    (tmp_path / "key").write_text("s3cret\n")
    given = {"env": {"TZ": "UTC", "DESK_KEY": {"file": str(tmp_path / "key")}}}
    await house.pin(desk=stdio | given)
    await house.open()
    seen = dict(one.split("=", 1) for one in (await house.call("desk_environment")).text.split(" "))
    assert set(seen) <= {"PATH", "HOME", "TMPDIR", "LANG", "LC_CTYPE", "TZ", "DESK_KEY"}
    assert (seen["TZ"], seen["DESK_KEY"]) == ("UTC", "s3cret") and seen["HOME"].startswith("/tmp/bulkhead-mcp-")


@pytest.mark.slow
async def test_an_undeclared_tool_is_a_write_that_fails_into_uncertainty(house, stdio) -> None:
    declared = stdio | {"tools": TOOLS | {"append": {"on_error": "undone"}}}
    await house.pin(desk=declared)
    await house.open()
    desk = Desk(house.doer())
    specs = {name: tool.spec for name, tool in house.registry.tools.items()}
    assert (specs["desk_fail"].effect, specs["desk_fail"].idempotent, specs["desk_where"].effect) == (
        "write",
        False,
        "read",
    )
    assert (await desk.call("desk_fail")).outcome == "uncertain"
    house.write(desk=declared | {"tools": TOOLS | {"fail": {"on_error": "undone"}}})


@pytest.mark.slow
async def test_a_tenant_that_may_not_use_the_server_is_refused(house, stdio) -> None:
    await house.pin(desk=stdio | {"tenants": ["acme"]})
    await house.open()
    assert await house.call("desk_where") == Done("a")
    refused = await house.call("desk_where", key="other.t1.c1")
    assert isinstance(refused, Failed) and (refused.code, refused.effect) == ("not_granted", "none")


@pytest.mark.slow
async def test_a_process_that_does_not_end_by_itself_is_killed_with_what_it_started(house, stdio, tmp_path) -> None:
    told = tmp_path / "pids"
    stubborn = f"trap '' TERM; sleep 600 & echo $! $$ > {told}; \"$@\"; sleep 600"
    await house.pin(desk=stdio | {"command": ["sh", "-c", stubborn, "sh", *stdio["command"]]})
    await house.open()
    assert await house.call("desk_where") == Done("a")
    pids = [int(one) for one in told.read_text().split()]
    await house.tools.stop()
    gone = lambda: not [one for one in pids if psutil.pid_exists(one) and psutil.Process(one).status() != "zombie"]
    await until(gone, timeout_s=10)
