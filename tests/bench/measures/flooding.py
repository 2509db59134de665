"""One tenant floods the mesh with 10,000 tasks: what another one's latency is beside what it was alone.

In: a folder and a durability. Out: the ratio of the medians; the tasks per second of the flood once it is through. The
other tenant's task is a chain of four agent steps whose model is silent for 0.15 s each time, as a quick model is; the
flood's are single steps without a model, the quickest that there are, so that nothing but its quota slows it down.
"""

import asyncio
import itertools
import time
from pathlib import Path
from typing import Any

from bulkhead.client import Mesh
from bulkhead_infra.nats.server import Durability
from tests.bench.figures import Book, quantile, say
from tests.bench.measures.whole import Whole, agents, whole

FLOOD = "flood"
PLACES = 2
"""As many tasks of the flood run at once as this machine has cores: its quota, which an operator chooses."""
AT_ONCE = 16
STEPS = 4
PERIOD_S = 2.0
NOTHING: dict[str, Any] = {
    "steps": [{"id": "a", "title": "Note it", "instruction": "Note it.", "kind": "noop", "acceptance": "It is noted."}]
}


async def flood(book: Book, folder: Path, durability: Durability, scale: int) -> None:
    """See the module."""
    quota = {
        "running": PLACES,
        "tasks_per_minute": 60_000,
        "burst_tasks": 10_000,
        "person_tasks_per_minute": 60_000,
        "person_burst_tasks": 10_000,
    }
    async with whole(folder / "flood", durability, {FLOOD: quota}) as mesh:
        alone = [await _one(mesh) for _ in range(2 * scale)]
        crowd = Mesh(mesh.mesh.url, mesh.mesh.add_api_key(FLOOD, "crowd", "submitter"))
        try:
            began = time.perf_counter()
            sent = asyncio.create_task(_send(crowd, 1_000 * scale))
            await _until_waiting(crowd)
            beside: list[float] = []
            while len(beside) < 2 * scale or not sent.done():
                beside.append(await _one(mesh))
                say(f"  beside the flood: {beside[-1]:.0f} ms")
            tasks = await sent
            assert (await crowd.task(tasks[-1]).show())["status"] == "queued", "the flood was over before the others"
            book.add("flood_latency_alone_ms", quantile(alone, 0.5))
            book.add("flood_latency_ratio", quantile(beside, 0.5) / quantile(alone, 0.5))
            await _through(crowd, tasks)
            book.add("flood_tasks_per_s", len(tasks) / (time.perf_counter() - began))
        finally:
            await crowd.close()


async def _one(mesh: Whole) -> float:
    return await mesh.run(agents(STEPS, text="STAMP"), check=False)


async def _send(crowd: Mesh, count: int) -> list[str]:
    """All of them, a few requests at a time, as fast as they are taken."""
    numbers, found = itertools.count(), [""] * count

    async def some() -> None:
        while (number := next(numbers)) < count:
            found[number] = (await crowd.submit(f"See to {number}.", plan=NOTHING, check=False)).id

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return found


async def _until_waiting(crowd: Mesh) -> None:
    while not any(row["status"] == "queued" for row in await crowd.tasks(20)):
        await asyncio.sleep(0.05)


async def _through(crowd: Mesh, tasks: list[str]) -> None:
    """Until each of them has ended well."""
    for name in tasks:
        while (status := (await crowd.task(name).show())["status"]) in ("requested", "queued", "running"):
            await asyncio.sleep(PERIOD_S)
        assert status == "succeeded", (name, status)
