"""How well the detectors tell loops from honest runs: runs with their truth go in, a table comes out.

A run is a mapping:
    name      for the report
    family    what kind of run it is; families are scored apart
    looping   the truth
    rows      the run itself, in the form of docs/how-to/analyze.md (`rows.py`)
    start     looping runs: index in `rows` at which the first round of the loop begins
    period    looping runs: rows per round

Round 1 of a loop is news; a loop is stopped in time when it is stopped within three repetitions of it, that is before
round 5 begins. Warnings are counted apart: they stop nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bulkhead.health.findings import HealthFinding
from bulkhead.health.sources.trace_rows import TraceRowReader
from bulkhead.health.thresholds import DEFAULT, Thresholds
from bulkhead.health.watch import Watch

REPETITIONS = 3


@dataclass(slots=True)
class Family:
    """Figures of one family. rounds: how far each stopped loop came, in rounds, the first one counted."""

    family: str
    looping: bool
    runs: int = 0
    stopped: int = 0
    in_time: int = 0
    warned: int = 0
    rounds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Honest runs that were stopped, loops that were not, or not in time: each with the detector."""

    @property
    def right(self) -> int:
        """Runs that were judged as they are."""
        return self.in_time if self.looping else self.runs - self.stopped


@dataclass(slots=True)
class Table:
    """All families."""

    families: dict[str, Family] = field(default_factory=dict)

    def _sum(self, looping: bool, what: str) -> int:
        return sum(getattr(one, what) for one in self.families.values() if one.looping is looping)

    @property
    def precision(self) -> float:
        """Of what was stopped, how much was looping."""
        stopped = self._sum(True, "stopped") + self._sum(False, "stopped")
        return self._sum(True, "stopped") / stopped if stopped else 1.0

    @property
    def recall(self) -> float:
        """Of what was looping, how much was stopped in time."""
        runs = self._sum(True, "runs")
        return self._sum(True, "in_time") / runs if runs else 1.0

    def as_json(self) -> dict[str, object]:
        """For programs and for the committed report."""
        return {
            "honest_runs": self._sum(False, "runs"),
            "honest_stopped": self._sum(False, "stopped"),
            "honest_warned": self._sum(False, "warned"),
            "looping_runs": self._sum(True, "runs"),
            "looping_stopped": self._sum(True, "stopped"),
            "looping_in_time": self._sum(True, "in_time"),
            "precision": round(self.precision, 4),
            "recall": round(self.recall, 4),
            "families": [
                {
                    "family": one.family,
                    "looping": one.looping,
                    "runs": one.runs,
                    "stopped": one.stopped,
                    "in_time": one.in_time,
                    "warned": one.warned,
                    "right": one.right,
                    "most_rounds": round(max(one.rounds, default=0.0), 2),
                    "wrong": one.wrong,
                }
                for one in self.families.values()
            ],
        }


def score(runs: Iterable[Mapping[str, object]], thresholds: Thresholds = DEFAULT) -> Table:
    """Judge every run by itself. Raises TraceRowError for a run that does not fit the form."""
    table = Table()
    for run in runs:
        looping = bool(run["looping"])
        family = table.families.setdefault(str(run["family"]), Family(str(run["family"]), looping))
        assert family.looping is looping, f"family {family.family} mixes honest and looping runs"
        _judge(run, family, thresholds)
    return table


def _judge(run: Mapping[str, object], family: Family, thresholds: Thresholds) -> None:
    watch, rows = Watch(thresholds), TraceRowReader()
    stopped_at, stopped_by, warned = -1, "", False
    for at, row in enumerate(run["rows"]):  # type: ignore[arg-type, var-annotated]
        for event in rows.read(row):
            for trip in watch.fold_event(event):
                if not isinstance(trip, HealthFinding) or not trip.detector.startswith(("loop", "chatter")):
                    continue
                warned |= trip.level == "warn"
                if trip.level == "stop" and stopped_at < 0:
                    stopped_at, stopped_by = at, trip.detector
        if stopped_at >= 0:
            break
    family.runs += 1
    family.warned += warned
    family.stopped += stopped_at >= 0
    if not family.looping:
        if stopped_at >= 0:
            family.wrong.append(f"{run['name']}: stopped by {stopped_by} at row {stopped_at}")
        return
    start, period = int(run["start"]), int(run["period"])  # type: ignore[call-overload]
    if stopped_at < 0:
        family.wrong.append(f"{run['name']}: not stopped")
        return
    rounds = (stopped_at + 1 - start) / period
    family.rounds.append(rounds)
    if 0 < rounds <= 1 + REPETITIONS:
        family.in_time += 1
    else:
        family.wrong.append(f"{run['name']}: stopped by {stopped_by} after {rounds:.1f} rounds")
