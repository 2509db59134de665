"""One run: a mesh, clients of every kind at once, the blows of a seed, and the laws when all is over.

In: a seed, times, a load. Out: a `ChaosReport`. The same seed deals the same blows; what they meet differs.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.chaos import oracle
from tests.faults.chaos.clients import ChaosClient, all_clients
from tests.faults.chaos.requests import ClientRequest, pursue_request
from tests.faults.chaos.schedule import Blow, draw_schedule
from tests.faults.chaos.world import ChaosWorld, CpuLoad, draws_of, follow_schedule

TELL_EVERY_S, READ_LOG_EVERY_S = 5.0, 1.0
BETWEEN_S = (0.2, 2.0)
SHOWN_SLOWEST = 3
QUIET_LOAD = 4
"""So many processes more that compute make everything take about as long again."""


@dataclass(frozen=True, slots=True)
class ChaosPlan:
    """seconds: for which blows fall. grace_s: after the last one, until every client must be served. gap_s: between two
    blows, on average. load: processes that compute beside the mesh. at_once: clients of each kind."""

    seed: int
    seconds: float = 20.0
    grace_s: float = 60.0
    gap_s: float = 1.5
    load: int = 0
    at_once: int = 1

    @property
    def wait_s(self) -> float:
        """The longest wait of a call at the doors."""
        return max(15.0, self.grace_s / 3)

    @property
    def command(self) -> str:
        """The command that repeats it."""
        words = f"python -m tests.faults.chaos --seed {self.seed} --seconds {self.seconds:g} --grace {self.grace_s:g}"
        return f"{words} --gap {self.gap_s:g} --load {self.load} --clients {self.at_once}"


@dataclass(slots=True)
class ChaosReport:
    """What came of a run. breaches: of laws, each in one line; none is well."""

    plan: ChaosPlan
    blows: Sequence[Blow] = ()
    requests: list[ClientRequest] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)

    def count_by_kind(self) -> dict[str, dict[str, int]]:
        """Of each kind of client: requests, those that were served, tries, and what these came to."""
        counts: dict[str, Counter[str]] = {}
        for request in self.requests:
            row = counts.setdefault(request.kind, Counter())
            row["requests"] += 1
            row["served"] += request.is_served
            row["late"] += request.is_late
            row.update(f"told {attempt.outcome}" for attempt in request.attempts if attempt.outcome != "served")
        return {kind: dict(row) for kind, row in sorted(counts.items())}

    def count_refusals(self) -> dict[str, int]:
        """Codes that clients were told, the most frequent first."""
        codes = Counter(
            attempt.code for request in self.requests for attempt in request.attempts if attempt.outcome == "refused"
        )
        return dict(codes.most_common())

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "command": self.plan.command,
            **asdict(self.plan),
            "schedule": [asdict(blow) for blow in self.blows],
            "clients": self.count_by_kind(),
            "refusals": self.count_refusals(),
            "breaches": self.breaches,
            "requests": [asdict(request) for request in self.requests],
        }

    def as_text(self) -> str:
        """For people: what repeats it, who was served, what is broken."""
        lines = [f"repeat it: {self.plan.command}", f"{len(self.blows)} blows"]
        lines += [
            f"  {kind}: {', '.join(f'{n} {what}' for what, n in row.items())}"
            for kind, row in self.count_by_kind().items()
        ]
        lines += [
            f"  refused: {', '.join(f'{code} ({count})' for code, count in self.count_refusals().items()) or 'nobody'}"
        ]
        slowest = sorted(self.requests, key=lambda request: -request.took_s)[:SHOWN_SLOWEST]
        lines += [f"  slowest: {request.kind} {request.name} {request.took_s:.0f} s" for request in slowest]
        lines += [f"BROKEN {breach}" for breach in self.breaches]
        return "\n".join([*lines, "every law holds" if not self.breaches else f"{len(self.breaches)} breaches"])


async def run_chaos(plan: ChaosPlan, folder: Path, progress: Callable[[str], None]) -> ChaosReport:
    """Run a plan. folder: of the mesh, which stays for whoever looks into it."""
    report = ChaosReport(plan, draw_schedule(plan.seed, plan.seconds, plan.gap_s))
    async with ChaosWorld(folder, plan.wait_s) as world:
        quiet_findings = await oracle.judge_doctor(world)
        run = _ChaosRun(plan, world, report, progress)
        with CpuLoad(plan.load):
            await run.play()
        await run.judge(quiet_findings)
    return report


class _ChaosRun:
    """The part of a run in which the mesh stands."""

    def __init__(
        self, plan: ChaosPlan, world: ChaosWorld, report: ChaosReport, progress: Callable[[str], None]
    ) -> None:
        self._plan, self._world, self._report, self._tell = plan, world, report, progress
        self._began = time.monotonic()
        self._calm_since: float | None = None
        self._provider_log: dict[int, dict[str, Any]] = {}

    def clock(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    async def play(self) -> None:
        """Blows and clients at once, until every client is served or the grace is over."""
        plan, world, report = self._plan, self._world, self._report
        self._tell(f"the mesh stands at {world.mesh.directory}; seed {plan.seed}, {len(report.blows)} blows")
        sets = [all_clients(world, draws_of(plan.seed, number)) for number in range(plan.at_once)]
        clients = [client for clients_of_all_kinds in sets for client in clients_of_all_kinds]
        beside = [asyncio.create_task(self._watch_log()), asyncio.create_task(self._tell_standing())]
        asking = [
            asyncio.create_task(self._ask_on(client, number), name=client.kind) for number, client in enumerate(clients)
        ]
        try:
            await follow_schedule(world, report.blows, self.clock, lambda text: self._tell(f"  {text}"))
            await asyncio.sleep(max(0.0, plan.seconds - self.clock()))
            self._calm_since = self.clock()
            self._tell(f"{self.clock():6.1f} s  the last blow has fallen; {plan.grace_s:g} s of grace")
            await asyncio.wait(asking, timeout=plan.grace_s)
        finally:
            for task in (*asking, *beside):
                task.cancel()
            ends = await asyncio.gather(*asking, return_exceptions=True)
            await asyncio.gather(*beside, *(client.close() for client in clients), return_exceptions=True)
        report.breaches += [
            f"a client of kind {task.get_name()} broke: {error!r}"
            for task, error in zip(asking, ends, strict=True)
            if isinstance(error, Exception)
        ]

    async def judge(self, quiet_findings: Sequence[str]) -> None:
        """Read the laws. quiet_findings: of the doctor before the first blow."""
        report, world = self._report, self._world
        await world.mend()
        self._tell(f"{self.clock():6.1f} s  the laws are read")
        setting = oracle.Setting(report.blows, 1 + self._plan.load / QUIET_LOAD)
        report.breaches += oracle.judge_requests(report.requests, setting)
        report.breaches += oracle.judge_writes(oracle.count_writes(world), report.requests)
        report.breaches += await oracle.judge_remains(world, self._plan.wait_s * 1.5 + 15)
        await self._read_log()
        report.breaches += await oracle.judge_tasks(world, self._provider_log)
        report.breaches += oracle.judge_logs(world)
        findings = await oracle.judge_doctor(world)
        report.breaches += [finding for finding in findings if finding not in quiet_findings]
        self._tell(f"{self.clock():6.1f} s  done")

    async def _ask_on(self, client: ChaosClient, number: int) -> None:
        """One request after the other, until one was served that began after the last blow."""
        count = 0
        while True:
            count += 1
            name = f"c{self._plan.seed}-{number}-{count}"
            request = ClientRequest(client.kind, name, tenant=client.tenant, fronts=client.fronts)
            request.is_late = self._calm_since is not None
            self._report.requests.append(request)
            await pursue_request(request, partial(client.ask, request), self.clock, 2 * self._plan.wait_s + 30)
            if request.is_late:
                return
            await asyncio.sleep(client.draw.uniform(*BETWEEN_S))

    async def _watch_log(self) -> None:
        """The provider forgets old requests."""
        while True:
            await self._read_log()
            await asyncio.sleep(READ_LOG_EVERY_S)

    async def _read_log(self) -> None:
        try:
            self._provider_log |= {row["number"]: row for row in await self._world.model_requests()}
        except OSError:
            pass

    async def _tell_standing(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            requests = self._report.requests
            served = sum(request.is_served for request in requests)
            away = [row.name for row in self._world.mesh.rows() if row.state != "ready"]
            self._tell(
                f"{self.clock():6.1f} s  {served} of {len(requests)} requests served"
                + (f"; away: {', '.join(away)}" if away else "")
            )
