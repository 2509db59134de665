"""Probes: what they are told, and that a service which ends in the middle of one says nothing about it."""

import asyncio
import json

import httpx
import pytest

from bulkhead.runtime.component import Pool
from bulkhead.runtime.process.health_endpoints import HealthServer, pool_gauges


async def ask(port: int, path: str) -> tuple[int, dict]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    raw = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    return (int(head.split()[1]), json.loads(body)) if raw else (0, {})


async def test_probes_are_answered(tmp_path):
    async def status() -> dict[str, object]:
        return {"ready": False, "why": "the broker does not answer"}

    health = HealthServer(status)
    port = await health.start(0, tmp_path / "health" / "worker-0.json")
    assert json.loads((tmp_path / "health" / "worker-0.json").read_text()) == {"port": port}
    assert (await ask(port, "/livez"))[0] == 200
    assert await ask(port, "/readyz") == (503, {"ready": False, "why": "the broker does not answer"})
    assert (await ask(port, "/startupz"))[0] == 503
    assert (await ask(port, "/nowhere"))[0] == 404
    await health.stop()


async def test_a_probe_that_comes_with_the_end_ends_nothing_else():
    async def status() -> dict[str, object]:
        return {"ready": True}

    health = HealthServer(status)
    reader, writer = await asyncio.open_connection("127.0.0.1", await health.start(0, None))
    health._on_connection(reader, writer)
    await health.stop()


async def test_metrics_tell_the_places_and_the_share_of_the_fullest_kind():
    async def status() -> dict[str, object]:
        return {"ready": True}

    health = HealthServer(status, lambda: {"plain": Pool(8, 10), 'of "a"': Pool(96, 24)})
    port = await health.start(0, None)
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"http://127.0.0.1:{port}/metrics")
    await health.stop()
    assert answer.headers["content-type"].startswith("text/plain")
    rows = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert rows[:7] == [
        "bulkhead_ready 1",
        "bulkhead_degraded 0",
        "bulkhead_load 1.25",
        'bulkhead_pool_places{kind="plain"} 8',
        'bulkhead_pool_places{kind="of \\"a\\""} 96',
        'bulkhead_pool_wanted{kind="plain"} 10',
        'bulkhead_pool_wanted{kind="of \\"a\\""} 24',
    ]
    assert pool_gauges({})[0].values == {"": 0}, "a replica without bounded places has no load"


async def test_prometheus_is_told_of_a_replica_until_that_stops_by_itself(tmp_path):
    async def status() -> dict[str, object]:
        return {"ready": True}

    health = HealthServer(status)
    port = await health.start(0, tmp_path / "worker-0.json", labels={"service": "worker"})
    told = json.loads((tmp_path / "worker-0.target.json").read_text())
    assert told == [{"targets": [f"127.0.0.1:{port}"], "labels": {"service": "worker"}}]
    await health.stop()
    assert [path.name for path in tmp_path.iterdir()] == ["worker-0.json"]


@pytest.mark.parametrize("path", ["/readyz", ""])
def test_the_end_in_the_middle_of_a_probe_is_no_error(path):
    said: list[dict] = []
    asked = False

    async def main() -> None:
        nonlocal asked
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        begun = asyncio.Event()

        async def status() -> dict[str, object]:
            begun.set()
            await asyncio.Event().wait()
            return {}

        health = HealthServer(status)
        port = await health.start(0, None)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode() if path else b"GET")
        if path:
            await asyncio.wait_for(begun.wait(), 5)
        else:
            while not health._probe_tasks:  # Accepted, and its head not whole.
                await asyncio.sleep(0)
        asked = True
        await asyncio.wait_for(health.stop(), 2)
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()

    asyncio.run(main())
    assert asked and not said
