"""The row that users pay for: full agent steps of the mesh and of its peers, in turns in one run.

In: running systems. Out: per system, latency of a step within a chain, its durable writes and CPU, steps per second
with many chains in flight. A step is two model calls, a tool call and a judge, and the provider answers at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bulkhead_infra.nats.server import Durability
from tests.bench import accounting
from tests.bench.figures import Book, quantile, say

ROUNDS = 3
EXTRA_STEPS = 8
IN_FLIGHT = 32
MEASURES = (
    "full_step_p50_ms",
    "full_step_p99_ms",
    "full_steps_per_s",
    "full_step_cpu_ms",
    "full_step_cpu_ms_loaded",
    "full_step_durable_writes",
    "full_step_pss_mb",
)


class StepRunner(Protocol):
    """A running system that does chains of full steps."""

    async def run_chains(self, chains: int, steps: int) -> None:
        """Chains one after the other."""

    async def step_gaps_ms(self) -> list[float]:
        """Of the chains so far: from each step's beginning to the next one's."""

    async def run_together(self, chains: int, steps: int) -> float:
        """Chains at the same time; seconds from the first to the last."""

    async def writes(self) -> Mapping[str, int]:
        """Durable writes so far, by place."""

    def pids(self) -> Mapping[str, Sequence[int]]:
        """Its processes, by name."""


@dataclass(slots=True)
class _Totals:
    """One system over all rounds. writes, cpu_s: of the steps by which long chains are longer than short ones, so that
    what a task costs by itself has no part in them."""

    writes: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    loaded_s: float = 0.0
    loaded_cpu_s: float = 0.0

    async def add_round(self, system: StepRunner, chains: int) -> None:
        """Short chains, as many long ones, then load."""
        for steps, sign in ((1, -1), (1 + EXTRA_STEPS, 1)):
            writes, cpu_s = await system.writes(), _cpu_s(system)
            await system.run_chains(chains, steps)
            _add_difference(self.cpu_s, cpu_s, _cpu_s(system), sign)
            _add_difference(self.writes, writes, await system.writes(), sign)
        before_s = sum(_cpu_s(system).values())
        self.loaded_s += await system.run_together(IN_FLIGHT, chains)
        self.loaded_cpu_s += sum(_cpu_s(system).values()) - before_s

    def report(self, book: Book, chains: int) -> None:
        """Add what each of a round's chains came to."""
        extra, loaded = ROUNDS * chains * EXTRA_STEPS, ROUNDS * chains * IN_FLIGHT
        book.add("full_steps_per_s", loaded / self.loaded_s)
        book.add("full_step_cpu_ms", sum(self.cpu_s.values()) / extra * 1000)
        book.add("full_step_cpu_ms_loaded", self.loaded_cpu_s / loaded * 1000)
        book.add("full_step_durable_writes", sum(self.writes.values()) / extra)
        for name, seconds in self.cpu_s.items():
            book.add(f"full_step_cpu_ms_{name}", seconds / extra * 1000)
        for name, count in sorted(self.writes.items(), key=lambda row: -row[1]):
            if count:
                book.add(f"full_step_durable_writes_{name.lower()}", count / extra)


def _cpu_s(system: StepRunner) -> dict[str, float]:
    return {name: accounting.cpu_s(pids) for name, pids in system.pids().items()}


def _add_difference(
    total: dict[str, float], before: Mapping[str, float], after: Mapping[str, float], sign: int
) -> None:
    for name, value in after.items():
        total[name] = total.get(name, 0) + sign * (value - before.get(name, 0))


async def measure_in_turns(systems: Mapping[str, StepRunner], book: Book, durability: Durability, scale: int) -> None:
    """Some rounds of each system in turns; then its figures."""
    chains, totals = max(1, scale // 2), {name: _Totals() for name in systems}
    for system in systems.values():
        await system.run_together(IN_FLIGHT, 1)  # Imports, connections, the interpreter's caches.
    for number in range(ROUNDS):
        for name, system in systems.items():
            say(f"  full steps: {name}, round {number + 1} of {ROUNDS}")
            await totals[name].add_round(system, chains)
    for name, system in systems.items():
        book.scope(name, durability)
        gaps_ms = await system.step_gaps_ms()
        book.add("full_step_p50_ms", quantile(gaps_ms, 0.5))
        book.add("full_step_p99_ms", quantile(gaps_ms, 0.99))
        totals[name].report(book, chains)
        book.add("full_step_pss_mb", sum(accounting.pss_mb(pids) for pids in system.pids().values()))
