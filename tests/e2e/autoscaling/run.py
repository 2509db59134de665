"""A load that rises tenfold and falls again, on a real mesh that is scaled as the rendered ScaledObjects say.

In: a scenario. Out: a `Record`: lag, load, replicas and latency over time, and what became of each task. Time is
compressed: a second here counts as COMPRESSION seconds for KEDA's and the autoscaler's intervals and windows. Messages,
processes and their starts take the time that they take.
`python -m tests.e2e.autoscaling.run SCENARIO... [--json FILE] [--svg FILE]` runs scenarios and draws the picture.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bulkhead.client import Task
from bulkhead_infra.kubernetes.chart import SHARDS
from bulkhead_infra.services import SERVICES
from tests.e2e.autoscaling import hpa, picture
from tests.e2e.autoscaling.keda import ScaledObject
from tests.e2e.autoscaling.readings import Reader
from tests.e2e.fixtures.gate import GatedCounter
from tests.e2e.fixtures.world import TENANTS, World
from tests.unit.infra.kubernetes.rendered import installation

COMPRESSION = 10.0
LOW_S, HIGH_S, SETTLES_S = 10.0, 30.0, 120.0
TENFOLD = 10
TASK_S = 90.0
SHARERS = TENANTS[:8]
"""Tenants that submit in turns: one may have 64 tasks running."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """service: which is made slow. per_s: tasks a second while the load is low. tool_s: a tool call takes so long."""

    service: str
    per_s: float
    environment: Mapping[str, str] = field(default_factory=dict)
    model_arguments: tuple[str, ...] = ()
    module: str = ""
    tool_s: float = 0.0


SCENARIOS = {
    one.service: one
    for one in (
        # Two places a replica, a second a call: 2 calls/s each.
        Scenario("tool_executor", 0.6, {"BULKHEAD_TOOL_PLACES": "2"}, tool_s=1.0),
        # Two places a replica, about a second a call, two calls a task.
        Scenario("model_gateway", 0.5, {"BULKHEAD_PROVIDER_CONCURRENCY": "2"}, ("--token-delay-ms", "100")),
        # One message at a time, 0.15 s each, about four a task: 7 messages/s each.
        Scenario("worker", 0.6, module="tests.e2e.autoscaling.slow_worker"),
    )
}


@dataclass(slots=True)
class Record:
    """at_s: since the beginning, in seconds of this machine. looks: one per sync and service."""

    service: str
    compression: float
    high: tuple[float, float] = (0.0, 0.0)
    looks: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def replicas(self, service: str) -> list[int]:
        """What was wanted at each look."""
        return [look["wanted"] for look in self.looks if look["service"] == service]

    def document(self) -> dict[str, Any]:
        return asdict(self)


class SlowCounter(GatedCounter):
    """Each increment takes so long."""

    takes_s = 0.0

    def next_fault(self) -> str:
        time.sleep(self.takes_s)
        return super().next_fault()


class Run:
    """One scenario on a world of its own."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.record = Record(scenario.service, COMPRESSION)
        rendered = [one for one in installation("production", autoscaling="keda") if one["kind"] == "ScaledObject"]
        found = {one["metadata"]["name"].replace("-", "_"): ScaledObject.of(one) for one in rendered}
        self._objects = {name: one for name, one in found.items() if name in SERVICES}
        self._wanted = {name: one.autoscaler.least for name, one in self._objects.items()}
        self._scenario, self._numbers = scenario, itertools.count()
        counter = SlowCounter()
        counter.takes_s = scenario.tool_s
        self._counter = counter
        self._world = World(
            folder,
            counter=counter,
            model_arguments=scenario.model_arguments,
            extra_env={scenario.service: scenario.environment},
            scale=self._wanted,
            shards=dict(SHARDS),
            modules={scenario.service: scenario.module} if scenario.module else {},
        )
        self._changes: set[asyncio.Task[int]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def go(self) -> Record:
        """The whole run."""
        with self._counter:
            async with self._world as world:
                self._reader, self._began = Reader(world.mesh), time.monotonic()
                both = asyncio.create_task(self._load()), asyncio.create_task(self._scale())
                try:
                    ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                    for one in ended:
                        one.result()  # Scaling ends in an error alone.
                finally:
                    for one in both:
                        one.cancel()
                    await asyncio.gather(*both, *self._tasks, return_exceptions=True)
                    await asyncio.gather(*self._changes)
                    await self._reader.close()
            self.record.counts = dict(self._counter.counts()["counts"])
        return self.record

    def _at_s(self) -> float:
        return round(time.monotonic() - self._began, 2)

    async def _load(self) -> None:
        """Tasks come at a rate, whatever becomes of those before."""
        low = self._scenario.per_s
        await self._arrivals(low, LOW_S)
        begun = self._at_s()
        await self._arrivals(low * TENFOLD, HIGH_S)
        self.record.high = begun, self._at_s()
        until = self._at_s() + SETTLES_S
        while self._at_s() < until and not self._settled():
            await self._arrivals(low, 1 / low)
        await asyncio.gather(*self._tasks)

    def _settled(self) -> bool:
        least = {name: one.autoscaler.least for name, one in self._objects.items()}
        return self._wanted == least and max(self.record.replicas(self._scenario.service)) > least[self.record.service]

    async def _arrivals(self, per_s: float, lasts_s: float) -> None:
        began = time.monotonic()
        for number in range(round(per_s * lasts_s)):
            await asyncio.sleep(max(0.0, began + number / per_s - time.monotonic()))
            self._tasks.append(asyncio.create_task(self._one(next(self._numbers))))
        await asyncio.sleep(max(0.0, began + lasts_s - time.monotonic()))

    async def _one(self, number: int) -> None:
        tenant, name, at_s = SHARERS[number % len(SHARERS)], f"count{number}", self._at_s()
        step = {
            "id": "s1",
            "title": "Count",
            "instruction": f"Use counter_increment with name={name} amount=1.",
            "tools": ["counter_increment"],
            "acceptance": "It is counted.",
        }
        task: Task = await self._world.submit(tenant, "Count once.", plan={"steps": [step]}, check=False)
        shown = await self._world.finish(task, TASK_S)
        took_s = round(self._at_s() - at_s, 2)
        self.record.tasks.append({"name": name, "at_s": at_s, "took_s": took_s, "status": shown["status"]})

    async def _scale(self) -> None:
        """KEDA's polls and the autoscaler's syncs, in compressed time."""
        polled: dict[str, float] = {}
        for tick in itertools.count():
            await asyncio.sleep(max(0.0, self._began + tick * hpa.SYNC_S / COMPRESSION - time.monotonic()))
            readings = await self._reader.read(list(self._objects))
            now_s = self._at_s() * COMPRESSION
            for name, one in self._objects.items():
                before = self._wanted[name]
                if now_s - polled.get(name, -1e9) >= one.poll_s:
                    polled[name] = now_s
                    self._set(name, one.poll(now_s, self._wanted[name], readings))
                self._set(name, one.sync(now_s, self._wanted[name], readings))
                lags = [readings.lag(trigger.metadata) for trigger in one.triggers if trigger.kind == "nats-jetstream"]
                loads = [load["bulkhead_load"] for load in readings.loads[one.name]]
                self.record.looks.append(
                    {
                        "at_s": self._at_s(),
                        "service": name,
                        "lag": sum(lags),
                        "load": round(sum(loads), 2),
                        "cores": round(sum(readings.cpu(one.name)), 3),
                        "before": before,
                        "wanted": self._wanted[name],
                        "ready": len(self._reader.ready(name)),
                    }
                )

    def _set(self, name: str, wanted: int) -> None:
        """As a Deployment does: pods come and go at once, and are ready or gone when they are."""
        mesh, more = self._world.mesh, wanted - self._wanted[name]
        self._wanted[name] = wanted
        for _ in range(abs(more)):
            change = asyncio.create_task(mesh.start_replica(name) if more > 0 else mesh.stop_replica(name))
            self._changes.add(change)


async def main(names: Sequence[str]) -> list[Record]:
    found = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found.append(await Run(SCENARIOS[name], Path(folder)).go())
            print(f"{name}: {found[-1].replicas(name)}", file=sys.stderr)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.autoscaling.run", description=__doc__)
    parser.add_argument("scenarios", nargs="+", choices=sorted(SCENARIOS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE")
    asked = parser.parse_args()
    records = [one.document() for one in asyncio.run(main(asked.scenarios))]
    if asked.json:
        asked.json.write_text(json.dumps(records))
    if asked.svg:
        asked.svg.write_text(picture.svg(records))
