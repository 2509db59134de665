"""A mesh in containers as tests use it: tasks with a write in the middle, and what must be true of them at the end.

In: a stack, a counter. Out: `Field`: submit, see that it ended rightly; the counter says how often the world changed.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bulkhead.client import Mesh, Task
from bulkhead.client.errors import Refused, Unreachable
from bulkhead_infra.demo.corpus import generate_demo, write_documents
from bulkhead_infra.demo.verdict import compare_answer
from bulkhead_infra.docker.stack import Stack
from tests.e2e.fixtures.gate import GatedCounter

GIVEN_TAG = os.environ.get("BULKHEAD_TEST_TAG", "")
"""Of images of a release, which are tested as they are (infra/release/images.sh)."""
TAG = GIVEN_TAG or f"test-{os.getpid()}"
"""Of the images of this run."""
TASK_TIMEOUT_S = 150.0
PATIENCE_S = 90.0
STEPS = 3
_numbers = itertools.count(1)


class Field:
    """See the module."""

    def __init__(self, stack: Stack, counter: GatedCounter) -> None:
        self.stack, self.counter = stack, counter
        self.credentials = stack.credentials

    def client(self, role: str = "submitter") -> Mesh:
        """A client of the gateway."""
        return Mesh(self.stack.url, self.credentials[role])


class Count:
    """A task of three steps, one after another, each of which counts once: lost or doubled steps show outside."""

    def __init__(self, field: Field, client: Mesh) -> None:
        self.field, self.client = field, client
        self.name = f"count{next(_numbers)}"
        self.task: Task | None = None

    def names(self) -> list[str]:
        """What its steps count under."""
        return [f"{self.name}-{number}" for number in range(STEPS)]

    async def submit(self) -> "Count":
        """As a patient client does: with the same key again, while the gateway is away."""
        steps = [
            {
                "id": f"s{number}",
                "title": "Count",
                "instruction": f"Use counter_increment with name={name} amount=1.",
                "tools": ["counter_increment"],
                "inputs": [f"s{number - 1}"] if number else [],
                "acceptance": "It is counted.",
            }
            for number, name in enumerate(self.names())
        ]
        async with asyncio.timeout(PATIENCE_S):
            while self.task is None:
                try:
                    self.task = await self.client.submit(
                        "Count three times.", plan={"steps": steps}, check=False, idempotency_key=self.name
                    )
                except (Refused, Unreachable) as error:
                    assert isinstance(error, Unreachable) or error.status in (502, 503), error
        return self

    async def ends_rightly(self) -> dict[str, Any]:
        """Succeeded, and each step changed the world once."""
        assert self.task is not None
        document = await finished(self.task)
        assert document["status"] == "succeeded", (self.task.id, document["status"], document["failure"])
        counted = {name: self.field.counter.count(name) for name in self.names()}
        assert counted == dict.fromkeys(self.names(), 1), (self.task.id, counted)
        assert len(document["steps"]) == STEPS, document["steps"]
        return document


async def finished(task: Task) -> dict[str, Any]:
    """The task's document when it has ended, however often the gateway goes away meanwhile."""
    async with asyncio.timeout(TASK_TIMEOUT_S):
        while True:
            try:
                document: dict[str, Any] = await task.show()
                if document["status"] in ("succeeded", "failed", "cancelled", "rejected"):
                    return document
            except (Refused, Unreachable) as error:
                assert isinstance(error, Unreachable) or error.status in (502, 503), error
            await asyncio.sleep(0.2)


async def answers_the_demo(client: Mesh, seed: int, folder: Path) -> None:
    """The documents of the demo go in; its task is answered rightly, with the right citations, and was paid for."""
    demo = generate_demo(seed)
    for path in write_documents(demo, folder / f"documents-{seed}"):
        receipt = await client.add_document(path)
        assert receipt["outcome"] in ("ingested", "unchanged"), receipt
    document = await finished(await client.submit(demo.objective, idempotency_key=f"demo-{seed}"))
    assert document["status"] == "succeeded", document["failure"]
    cited = {one["document"] for one in document["result"]["citations"]}
    assert compare_answer(demo, document["answer"], cited).differences == ()
    assert document["usage"]["cost_usd_micros"] > 0


@asynccontextmanager
async def load(field: Field, client: Mesh, at_a_time: int = 2) -> AsyncIterator[list[Count]]:
    """Tasks go in, so many at a time, until the block ends."""
    tasks: list[Count] = []
    ending = asyncio.Event()

    async def submit() -> None:
        while not ending.is_set():
            one = await Count(field, client).submit()
            tasks.append(one)
            assert one.task is not None
            await finished(one.task)

    submitting = [asyncio.create_task(submit()) for _ in range(at_a_time)]
    try:
        yield tasks
    finally:
        ending.set()
        await asyncio.gather(*submitting)
