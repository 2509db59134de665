"""A mesh that is told a second time to end, or whose stop is cut off: all of it ends at once, for good."""

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest

from bulkhead_cli.operate import up
from bulkhead_cli.output import CommandError, Exit
from bulkhead_infra.local import supervisor
from bulkhead_infra.local.supervisor import BROKER, LocalMesh
from bulkhead_infra.processes.child import ChildProcess
from bulkhead_infra.processes.supervised import SupervisedUnit
from tests.eventually import until

DEAF = "trap '' TERM; echo on; exec sleep 600"
"""It has said that it is on when it has closed its ears: then it drains for as long as it is given."""


class Cheap(LocalMesh):
    """The supervisor over three processes that do nothing, and that end for no SIGTERM."""

    made: "Cheap"
    url = doors_url = nats_url = "http://127.0.0.1:9"

    async def _start_everything(self) -> None:
        Cheap.made, self.said = self, []
        say = self._on_event or self.said.append
        self._on_event = lambda text: (self.said.append(text), say(text))
        for name in (BROKER, "worker-0", "gateway-0"):
            self._cheap(name).start()
        await self.wait_until_ready(30)
        self.up = True

    def _cheap(self, name: str) -> SupervisedUnit:
        async def spawn() -> ChildProcess:
            return await ChildProcess.start(
                name,
                ["sh", "-c", DEAF],
                log=self._run.log_file(name),
                cwd=self._run.path,
                environ={"PATH": "/bin:/usr/bin"},
                on_line=self._line_handler(name),
            )

        async def probe() -> str:
            child = self.units[name].child
            return "" if child is not None and "on" in child.last_lines else "it has said nothing yet"

        return self._add_unit(name, spawn, probe, 300.0)

    async def draining(self) -> list[int]:
        """Wait until the edge is being drained; returns the processes."""
        await until(lambda: self.units["gateway-0"].stopping)
        return [row.pid for row in self.rows() if row.pid is not None]

    def is_gone(self, pids: list[int]) -> None:
        """Nothing runs, nobody would start anything, and nobody was told of a start."""
        assert len(pids) == 3 and not [pid for pid in pids if psutil.pid_exists(pid)]
        assert all(unit._task is not None and unit._task.done() for unit in self.units.values())
        assert {row.state for row in self.rows()} == {"stopped"}
        assert not [text for text in self.said if "is started again" in text], self.said


@pytest.mark.parametrize("second", up.SIGNALS, ids=lambda one: one.name)
async def test_a_second_signal_ends_all_at_once_and_nothing_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], second: signal.Signals
) -> None:
    heard: dict = {}
    monkeypatch.setattr(supervisor, "LocalMesh", Cheap)
    monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", heard.__setitem__)
    running = asyncio.create_task(up.keep_running(tmp_path, [], "process", (0, 0), {}, []))
    await until(lambda: "the mesh runs" in capsys.readouterr().out)
    heard[signal.SIGINT]()
    pids = await Cheap.made.draining()
    assert all(os.getpgid(pid) == pid for pid in pids), "a terminal's Ctrl-C is for `up` alone"
    heard[second]()
    with pytest.raises(CommandError, match="at once, by a second signal; no process is left running") as ended:
        await asyncio.wait_for(running, 60)
    assert ended.value.code == Exit.FAILED and "continues at the next start" in ended.value.hint
    Cheap.made.is_gone(pids)
    said = " ".join(capsys.readouterr().out.split())
    assert "has 10 s to finish" in said and "delivered again at the next start" in said, said
    assert "nothing is lost" not in said, "what takes longer is cut, and comes again"


async def test_whoever_cuts_the_stop_off_leaves_nothing_behind(tmp_path: Path) -> None:
    async with asyncio.timeout(60):
        mesh = await Cheap(tmp_path).__aenter__()
        stop = asyncio.create_task(mesh.stop())
        pids = await mesh.draining()
        stop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stop
    mesh.is_gone(pids)


async def test_what_ends_by_itself_while_others_are_drained_stays_down_and_is_told(tmp_path: Path) -> None:
    async with asyncio.timeout(60):
        mesh = await Cheap(tmp_path).__aenter__()
        stop = asyncio.create_task(mesh.stop())
        pids = await mesh.draining()
        worker = mesh.units["worker-0"]
        try:
            os.kill(worker.pid or 0, signal.SIGKILL)
            while not (told := [text for text in mesh.said if "started again" in text]):
                await asyncio.sleep(0.005)
            assert "worker-0 is not started again: the mesh is being stopped" in told[0]
            assert worker.restarts == 0 and worker._task is not None and worker._task.done()
        finally:
            mesh.end_at_once()
            await stop
    mesh.is_gone(pids)


async def test_what_the_broker_says_while_it_is_stopped_is_in_its_log_and_not_on_the_screen(tmp_path: Path) -> None:
    shown: list[tuple[str, str]] = []
    mesh = Cheap(tmp_path, on_line=lambda name, line: shown.append((name, line)))
    for name in (BROKER, "worker-0"):
        unit = mesh._add_unit(name, None, None, 1.0)  # type: ignore[arg-type] - nor asked
        hear = mesh._line_handler(name)
        assert hear is not None
        hear("before")
        unit.stopping = True
        hear("[WRN] Healthcheck failed: \"JetStream stream 'MESH > BLOBS' could not be recovered\"")
    assert [name for name, line in shown if line == "before"] == [BROKER, "worker-0"]
    assert [name for name, line in shown if line != "before"] == ["worker-0"]


async def test_one_that_is_killed_already_gets_no_further_signal(tmp_path: Path, monkeypatch) -> None:
    """subprocess would look whether it lives, take its exit code, and leave asyncio to complain of a child unknown."""
    environ = {"PATH": "/bin:/usr/bin"}
    child = await ChildProcess.start("it", ["sleep", "600"], log=tmp_path / "log", cwd=tmp_path, environ=environ)
    sent: list[signal.Signals] = []
    monkeypatch.setattr(child, "send_signal", sent.append)
    child.kill_group()
    child.kill_group()
    assert await child.stop(60.0) and child.returncode == -signal.SIGKILL and sent == []
