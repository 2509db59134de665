"""Admissions under load: nats-server, Redis and replicas of budget as processes, and doers that ask.

In: a folder and a durability. Out: admissions per second with 200 in flight, by one replica and by two, and what of the
CPU went where. A doer's client is a process of its own (`python -m tests.bench.measures.admitting URL FOLDER`), with
the doer's
identity and the mesh's own publisher; half of the calls are of one task, the others of many.
"""

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.grants import Signer
from bulkhead.runtime.context import ServiceIdentity, make_context, unix_ms
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts.budget import Amount, ReserveReplied, ReserveRequested
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.task import TaskLimits
from bulkhead_infra.local.supervisor import BROKER, LocalMesh
from bulkhead_infra.nats.server import Durability
from tests.bench import accounting
from tests.bench.figures import Book, quantile
from tests.paths import ROOT

SERVICE, TENANT = "model_gateway", "demo"
IN_FLIGHT, TASKS, REPLICAS = 200, 40, (1, 2)
PLENTY = 10**12
MEASURES = ("admissions_per_s", "admissions_per_s_1", "admissions_per_s_2")
ANSWER_TIMEOUT_S, DOER_TIMEOUT_S = 20.0, 600.0


async def admissions(book: Book, folder: Path, durability: Durability, scale: int) -> None:
    """The better of both numbers of replicas is the figure. `alone`: one at a time, on the same mesh."""
    best = 0.0
    for replicas in REPLICAS:
        environ = dict(os.environ) | {"OPENAI_API_KEY": "none is called"}
        mesh = LocalMesh(
            folder / f"admitting-{replicas}",
            services=("budget",),
            scale={"budget": replicas},
            durability=durability,
            offline_model=False,
            environ=environ,
        )
        async with mesh, _doer(mesh) as doer:
            await _do(doer, 2 * IN_FLIGHT, IN_FLIGHT)  # Warm.
            pids = _pids(mesh) | {"doer": [doer.pid]}
            before = {name: accounting.cpu_s(some) for name, some in pids.items()}
            count = 1_000 * scale
            found = await _do(doer, count, IN_FLIGHT)
            used = {name: accounting.cpu_s(some) - before[name] for name, some in pids.items()}
            alone = await _do(doer, 50 * scale, 1)
        book.add(f"admissions_per_s_{replicas}", found["per_s"])
        for name, seconds in used.items():
            book.add(f"admissions_per_s_{replicas}_cpu_ms_{name}", seconds / count * 1000)
        book.add(f"admissions_per_s_{replicas}_alone_p50_ms", alone["p50_ms"])
        best = max(best, found["per_s"])
    book.add("admissions_per_s", best)


def _pids(mesh: LocalMesh) -> dict[str, list[int]]:
    """Process ids by service; a service's replicas together."""
    found: dict[str, list[int]] = {}
    for name, unit in mesh.units.items():
        assert unit.pid is not None
        found.setdefault("broker" if name == BROKER else name.removesuffix(f"-{name[-1]}"), []).append(unit.pid)
    return found


@asynccontextmanager
async def _doer(mesh: LocalMesh) -> AsyncIterator[asyncio.subprocess.Process]:
    _write_grants(mesh)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.measures.admitting",
        mesh.nats_url,
        str(mesh.directory),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _do(doer: asyncio.subprocess.Process, count: int, in_flight: int) -> dict[str, float]:
    assert doer.stdin is not None and doer.stdout is not None
    doer.stdin.write(json.dumps({"count": count, "in_flight": in_flight}).encode() + b"\n")
    line = await asyncio.wait_for(doer.stdout.readline(), DOER_TIMEOUT_S)
    assert line, "the doer ended"
    found: dict[str, float] = json.loads(line)
    return found


def _write_grants(mesh: LocalMesh) -> None:
    signer = Signer("signer", ServiceIdentity.load(mesh.directory / "identity", "signer").signing_seed)
    grants = [
        signer.sign_grant(
            TaskGrant(
                tenant=TENANT,
                task=f"task{number}",
                actor="ann",
                tools=(),
                document_scopes=(),
                limits=TaskLimits(cost_usd_micros=10**9, tokens=10**9),
                day_cost_usd_micros=PLENTY,
                day_tokens=PLENTY,
                expires_unix_ms=unix_ms() + 3_600_000,
            )
        )
        for number in range(TASKS)
    ]
    (mesh.directory / "grants.json").write_text(json.dumps(grants))


# The doer's process


class Client:
    """Asks for reservations, each under an id of its own; they stay open."""

    def __init__(self, publisher: Publisher, grants: list[str]) -> None:
        self._publisher, self._grants, self._numbers = publisher, grants, itertools.count()

    async def ask(self) -> float:
        """One reservation; milliseconds."""
        number = next(self._numbers)
        task = 0 if number % 2 else number // 2 % len(self._grants)
        name = f"bench-{os.getpid()}-{number}"
        body = ReserveRequested(
            reservation_id=name,
            call_id=name,
            step_id="s1",
            agent="worker.writer",
            purpose="model",
            resource="m",
            worst_case=Amount(tokens=1, cost_usd_micros=1, model_calls=1),
        )
        began = time.perf_counter()
        while True:
            answer = await self._publisher.request(
                "budget",
                body,
                tenant=TENANT,
                task=f"task{task}",
                grant=self._grants[task],
                actor="ann",
                cause=name,
                index=name,
                timeout_s=ANSWER_TIMEOUT_S,
            )
            assert isinstance(answer, ReserveReplied) and answer.decision != "refused", answer
            if answer.decision == "reserved":
                return (time.perf_counter() - began) * 1000
            await asyncio.sleep(answer.retry_after_ms / 1000)

    async def many(self, count: int, in_flight: int) -> dict[str, float]:
        """So many, so many at a time."""
        began, left, times = time.perf_counter(), iter(range(count)), []

        async def one() -> None:
            for _ in left:
                times.append(await self.ask())

        await asyncio.gather(*(one() for _ in range(in_flight)))
        return {"per_s": count / (time.perf_counter() - began), "p50_ms": quantile(times, 0.5)}


async def serve(url: str, folder: Path) -> None:
    """One line in, one out, until standard input ends."""
    identity = ServiceIdentity.load(folder / "identity", SERVICE)
    bus = await JetStreamBus.connect(url, service=SERVICE, nkey_seed=identity.nkey_seed)
    grants = json.loads((folder / "grants.json").read_text())
    client = Client(make_context(SERVICE, "bench", bus, identity).publisher, grants)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await client.many(**json.loads(line))), flush=True)
    await bus.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(sys.argv[1], Path(sys.argv[2])))
