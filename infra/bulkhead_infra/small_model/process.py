"""The small model as a process of its own beside a mesh. Leaves: the settings that name it as provider."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from bulkhead.http_server.tcp_ports import free_port
from bulkhead_infra.small_model.__main__ import CONTEXT_TOKENS, MODEL_NAME, model_file

READY_S = 120.0
END_S = 10.0


def provider_settings(port: int) -> dict[str, str]:
    """Settings that make a mesh ask the small model on this port: a provider like any other, and free."""
    return {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
        "OPENAI_API_KEY": "local",
        "BULKHEAD_MODEL": MODEL_NAME,
        "BULKHEAD_FREE_MODELS": f'["{MODEL_NAME}"]',
        "BULKHEAD_CONTEXT_TOKENS": str(CONTEXT_TOKENS),
        "BULKHEAD_PROMPTS": "short",
    }


@asynccontextmanager
async def run_small_model(log: Path) -> AsyncIterator[Mapping[str, str]]:
    """Serve it until the block ends. log: the file that llama.cpp's own output goes to. Raises RuntimeError."""
    model_file()
    log.parent.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "bulkhead_infra.small_model", "--port", str(port)]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    try:
        await _wait_until_ready(process, port, log)
        yield provider_settings(port)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), END_S)
            except TimeoutError:
                process.kill()


async def _wait_until_ready(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(READY_S):
        while process.returncode is None:
            try:
                if (await client.get(f"http://127.0.0.1:{port}/health")).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise RuntimeError(f"the small model ended with {process.returncode}; {log} says why")
