"""One schedule: a seed's scenario and chaos, run and judged; and how a failing one is made short.

In: a seed, perhaps the faults that may happen and the wishes that are kept. Out: a Verdict.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.simulation.laws.oracle import complaints
from tests.simulation.laws.record import Record
from tests.simulation.mesh.chaos import Chaos, Fault

from .scenario import scenario
from .situations import with_situations
from .world import run


@dataclass(frozen=True, slots=True)
class Schedule:
    """What determines a run. faults: the only ones that may happen (None: all that the seed brings); wishes: names of
    the tasks and acts that are kept (None: all); tasks: how many there are instead of the seed's own number."""

    seed: int
    faults: frozenset[Fault] | None = None
    wishes: frozenset[str] | None = None
    tasks: int | None = None

    def dump(self) -> str:
        """As a file in found/."""
        faults = None if self.faults is None else [[one.kind, one.event, one.nth] for one in sorted(self.faults)]
        wishes = None if self.wishes is None else sorted(self.wishes)
        return json.dumps({"seed": self.seed, "tasks": self.tasks, "wishes": wishes, "faults": faults}, indent=1)

    @classmethod
    def load(cls, path: Path) -> "Schedule":
        """From a file in found/."""
        found = json.loads(path.read_text())
        faults, wishes = found.get("faults"), found.get("wishes")
        return cls(
            found["seed"],
            None if faults is None else frozenset(Fault(*one) for one in faults),
            None if wishes is None else frozenset(wishes),
            found.get("tasks"),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """A run and what is wrong with it."""

    schedule: Schedule
    record: Record
    complaints: tuple[str, ...]

    @property
    def kinds(self) -> frozenset[str]:
        """Which laws were broken, without the particulars."""
        return frozenset(one.partition(":")[0] for one in self.complaints)


def judge(schedule: Schedule, folder: Path) -> Verdict:
    """Run it. An exception out of the run itself is a complaint, too."""
    wanted = with_situations(scenario(schedule.seed, schedule.tasks), schedule.wishes or frozenset())
    if schedule.wishes is not None:
        wanted = wanted.only(schedule.wishes)
    record = run(wanted, Chaos.of(schedule.seed, schedule.faults), folder)
    return Verdict(schedule, record, tuple(complaints(record)))


def shrink(failing: Verdict, folder: Path, tell: Callable[[str], None], most_runs: int = 400) -> Verdict:
    """The shortest schedule found that still breaks one of the same laws: fewer tasks, then fewer faults (ddmin)."""
    best, runs = failing, 0

    def still(schedule: Schedule) -> bool:
        nonlocal best, runs
        runs += 1
        verdict = judge(schedule, folder)
        if verdict.kinds & failing.kinds:
            best = verdict
            return True
        return False

    names = failing.record.scenario.names
    for name in names:
        left = (best.schedule.wishes or frozenset(names)) - {name}
        if left:
            still(replace(best.schedule, wishes=left))
    still(replace(best.schedule, faults=frozenset(best.record.chaos.fired)))
    parts = 2
    while runs < most_runs and (fired := sorted(best.record.chaos.fired)) and parts <= max(2, len(fired)):
        tell(f"{len(fired)} faults left after {runs} runs")
        for piece in _pieces(fired, parts):
            if still(replace(best.schedule, faults=frozenset(fired) - frozenset(piece))):
                parts = max(2, parts - 1)
                break
            if runs >= most_runs:
                break
        else:
            if parts >= len(fired):
                break
            parts = min(len(fired), parts * 2)
    return best


def _pieces(faults: Sequence[Fault], parts: int) -> Iterator[Sequence[Fault]]:
    size = -(-len(faults) // parts)
    for start in range(0, len(faults), size):
        yield faults[start : start + size]
