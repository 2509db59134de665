"""What the model door costs an outside agent, beside calls of the same client that go to the provider itself.

In: the whole mesh over a provider that answers at once. Out: time to the first token through the door and directly, in
turns; calls per second of CALLERS agents, each with a run of its own; CPU of a call by process. Each call is a
reservation, a durable request, a durable reply and a settlement.
"""

import asyncio
import json
import time
from typing import Any

import httpx

from bulkhead_infra.offline_model import MODEL_NAME
from tests.bench import accounting
from tests.bench.figures import Book, quantile
from tests.bench.measures.whole import TENANT, Whole

CALLERS = 16
TIMEOUT_S = 60
MEASURES = (
    "door_first_token_p50_ms",
    "direct_first_token_p50_ms",
    "door_first_token_overhead_p50_ms",
    "door_calls_per_s",
    "direct_calls_per_s",
    "door_cpu_per_call_ms",
)


class _Agent:
    """One caller with a run of its own. door: to the door, or to the provider itself."""

    def __init__(self, mesh: Whole, name: str, *, door: bool) -> None:
        key = mesh.mesh.add_api_key(TENANT, f"agent-{name}", "submitter") if door else "instant"
        self._url = f"{mesh.mesh.doors_url}/openai/v1" if door else mesh.provider_url
        headers = {"Authorization": f"Bearer {key}", "X-Bulkhead-Run": name}
        self._http = httpx.AsyncClient(headers=headers, timeout=TIMEOUT_S)
        self._calls = 0

    async def call(self) -> float:
        """One streamed call to its end; milliseconds to the first token."""
        self._calls += 1
        asked: dict[str, Any] = {"model": MODEL_NAME, "stream": True, "max_tokens": 400}
        asked["messages"] = [{"role": "user", "content": f"Say that {self._calls} is done."}]
        began, first = time.perf_counter(), 0.0
        async with self._http.stream("POST", f"{self._url}/chat/completions", json=asked) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                if not first and _has_text(line):
                    first = time.perf_counter()
        assert first, "an answer without text"
        return (first - began) * 1000

    async def close(self) -> None:
        await self._http.aclose()


async def model_door(mesh: Whole, book: Book, scale: int) -> None:
    """See the module."""
    through, directly = _Agent(mesh, "turns", door=True), _Agent(mesh, "turns", door=False)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(3):
        await through.call()
        await directly.call()
    for _ in range(20 * scale):
        times[0].append(await through.call())
        times[1].append(await directly.call())
    door_ms, direct_ms = (quantile(one, 0.5) for one in times)
    book.add("door_first_token_p50_ms", door_ms)
    book.add("direct_first_token_p50_ms", direct_ms)
    book.add("door_first_token_overhead_p50_ms", door_ms - direct_ms)
    await through.close()
    await directly.close()
    for door in (True, False):
        agents = [_Agent(mesh, f"{number}", door=door) for number in range(CALLERS)]
        await asyncio.gather(*(one.call() for one in agents))
        pids = mesh.pids()
        used = {name: accounting.cpu_s(of_service) for name, of_service in pids.items()}
        began, each = time.perf_counter(), 5 * scale
        await asyncio.gather(*(_many(one, each) for one in agents))
        count = CALLERS * each
        book.add(f"{'door' if door else 'direct'}_calls_per_s", count / (time.perf_counter() - began))
        if door:
            after = {name: accounting.cpu_s(of_service) for name, of_service in pids.items()}
            cost = {name: (seconds - used[name]) / count * 1000 for name, seconds in after.items()}
            book.add("door_cpu_per_call_ms", sum(cost.values()))
            for name, used_ms in cost.items():
                book.add(f"door_cpu_per_call_ms_{name}", used_ms)
        await asyncio.gather(*(one.close() for one in agents))


def _has_text(line: str) -> bool:
    if not line.startswith("data: {"):
        return False
    said = json.loads(line[6:])
    assert "error" not in said, said
    return any(row["delta"].get("content") for row in said["choices"])


async def _many(agent: _Agent, count: int) -> None:
    for _ in range(count):
        await agent.call()
