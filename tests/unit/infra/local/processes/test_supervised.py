"""How long a supervised process that ends by itself stays down."""

from pathlib import Path

from bulkhead_infra.processes import supervised
from bulkhead_infra.processes.child import ChildProcess
from bulkhead_infra.processes.supervised import SupervisedUnit
from tests.eventually import until


async def test_a_restart_that_somebody_asked_for_begins_to_count_anew(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(supervised, "BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(supervised, "BACKOFF_MAX_S", 0.16)
    said: list[str] = []

    async def spawn() -> ChildProcess:
        return await ChildProcess.start(
            "it", ["false"], log=tmp_path / "log", environ={"PATH": "/bin:/usr/bin"}, cwd=tmp_path
        )

    async def probe() -> str:
        return "it never is"

    it = SupervisedUnit("it", spawn, probe, said.append, stop_timeout_s=1.0)

    async def heard(count: int) -> list[str]:
        await until(lambda: len(said) >= count)
        return [line.rpartition(" in ")[2] for line in said]

    it.start()
    try:
        assert (await heard(5))[:5] == ["0.01 s", "0.02 s", "0.04 s", "0.08 s", "0.16 s"]
        said.clear()
        await it.restart()
        assert (await heard(2))[-2:] == ["0.01 s", "0.02 s"]
    finally:
        await it.stop()
