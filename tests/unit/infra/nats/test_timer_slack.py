"""The broker is started with a timer slack that its Go runtime cannot give itself; other children are not."""

import stat

import pytest

from bulkhead_infra.nats import server
from bulkhead_infra.nats.server import NatsServer, ServerPlan
from bulkhead_infra.processes.child import ChildProcess

SAY = "cat /proc/self/timerslack_ns"
pytestmark = pytest.mark.needs("linux")


async def test_the_broker_may_sleep_a_fifth_of_a_millisecond_longer(tmp_path, monkeypatch):
    program = tmp_path / "nats-server"
    program.write_text(f"#!/bin/sh\n{SAY}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(server, "find_nats_server", lambda: program)
    (tmp_path / "nats").mkdir()
    child = await NatsServer(ServerPlan(tmp_path / "nats", 1, 2), "", {"PATH": "/bin:/usr/bin"}).spawn()
    assert await child.wait() == 0, child.describe_end()
    assert list(child.last_lines) == ["200000"]


async def test_others_sleep_as_usual(tmp_path):
    environ = {"PATH": "/bin:/usr/bin"}
    child = await ChildProcess.start("it", ["sh", "-c", SAY], log=tmp_path / "log", environ=environ, cwd=tmp_path)
    assert await child.wait() == 0, child.describe_end()
    with open("/proc/self/timerslack_ns") as own:
        assert list(child.last_lines) == [own.read().strip()]
