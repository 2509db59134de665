"""Probes: what they are told, and that a service which ends in the middle of one says nothing about it."""

import asyncio
import json

import pytest

from bulkhead.runtime.process.health_endpoints import Health


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

    health = Health(status)
    port = await health.start(0, tmp_path / "health" / "worker-0.json")
    assert json.loads((tmp_path / "health" / "worker-0.json").read_text()) == {"port": port}
    assert (await ask(port, "/livez"))[0] == 200
    assert await ask(port, "/readyz") == (503, {"ready": False, "why": "the broker does not answer"})
    assert (await ask(port, "/startupz"))[0] == 503
    assert (await ask(port, "/nowhere"))[0] == 404
    await health.stop()


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

        health = Health(status)
        port = await health.start(0, None)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode() if path else b"GET")
        if path:
            await asyncio.wait_for(begun.wait(), 5)
        else:
            while not health._asked:  # Accepted, and its head not whole.
                await asyncio.sleep(0)
        asked = True
        await asyncio.wait_for(health.stop(), 2)
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()

    asyncio.run(main())
    assert asked and not said
