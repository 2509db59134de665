"""What was measured: rows as JSON lines, and a table that holds each against the floor, the peers and the targets.

In: (system, durability, measure, value). Out: a JSON line per row at once; at the end the table; changes against the
rows of an earlier run.
"""

import fnmatch
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tests.bench.targets import BETTER_HIGH, TARGETS, Target

SYSTEMS = ("bulkhead", "floor", "dbos", "langgraph", "restate")
NOISE = 0.15
"""Two runs of the same commit on a quiet machine differ by so much at worst, but for p99 and recovery."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; its unit stands last in the measure's name."""

    system: str
    durability: str
    measure: str
    value: float

    def line(self) -> str:
        """As JSON."""
        row = {"system": self.system, "durability": self.durability, "measure": self.measure}
        return json.dumps(row | {"value": round(self.value, 4)})


@dataclass(slots=True)
class Book:
    """Takes figures and tells of each as soon as it is there. `copy`: a second file for the JSON lines. only: patterns
    of measures; () is all. A measure's parts (`full_step_cpu_ms_budget`) come with it."""

    copy: TextIO | None = None
    only: tuple[str, ...] = ()
    figures: list[Figure] = field(default_factory=list)
    _scope: tuple[str, str] = ("", "")

    def scope(self, system: str, durability: str) -> None:
        """Whose figures come next."""
        self._scope = (system, durability)

    def add(self, measure: str, value: float) -> None:
        """One figure of the scope."""
        if self.only and not any(fnmatch.fnmatchcase(measure, end) for one in self.only for end in (one, f"{one}_*")):
            return
        figure = Figure(*self._scope, measure, float(value))
        self.figures.append(figure)
        print(figure.line(), flush=True)
        if self.copy is not None:
            print(figure.line(), file=self.copy, flush=True)
        say(f"  {figure.system:9} {figure.durability:7} {measure:34} {_number(value)}")

    def value(self, system: str, durability: str, measure: str) -> float | None:
        """What was measured, if it was."""
        for one in self.figures:
            if (one.system, one.durability, one.measure) == (system, durability, measure):
                return one.value
        return None


def say(text: str) -> None:
    """Progress and explanations: on standard error, so that standard output is JSON lines alone."""
    print(text, file=sys.stderr, flush=True)


def read(path: Path) -> list[Figure]:
    """The rows of an earlier run. Raises ValueError that names the line."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found.append(Figure(row["system"], row["durability"], row["measure"], float(row["value"])))
        except (ValueError, KeyError, TypeError) as error:
            what = f"{path}:{number} is no row of the bench: {error!r}"
            raise ValueError(f"{what}; give a file made by --json") from error
    return found


def table(book: Book) -> str:
    """One block per durability: our value, those of the floor and the peers, the ratios, the targets and whether they
    are met."""
    blocks = []
    for durability in dict.fromkeys(one.durability for one in book.figures):
        mine = [one for one in book.figures if one.durability == durability]
        measures = list(dict.fromkeys(one.measure for system in SYSTEMS for one in mine if one.system == system))
        systems = [system for system in SYSTEMS if any(one.system == system for one in mine)]
        rows = [_row(book, systems, durability, measure) for measure in measures]
        peers = [f"x {system}" for system in systems if system != "bulkhead"]
        head = ("measure", *systems, *peers, "at first", "then")
        blocks.append(f"durability {durability}\n{_aligned([head, *rows])}")
    return "\n\n".join(blocks)


def _row(book: Book, systems: Sequence[str], durability: str, measure: str) -> tuple[str, ...]:
    values = {system: book.value(system, durability, measure) for system in systems}
    ours = values.get("bulkhead")
    target = TARGETS.get(measure) if durability == "power" else None
    return (
        measure,
        *map(_number, values.values()),
        *(_ratio(ours, value) for system, value in values.items() if system != "bulkhead"),
        *(_met(ours, target, stage, measure) for stage in (0, 1)),
    )


def _met(ours: float | None, target: Target | None, stage: int, measure: str) -> str:
    if target is None:
        return ""
    bound = target[stage]
    sign = ">=" if measure in BETTER_HIGH else "<="
    if ours is None:
        return f"{sign} {bound:g}"
    good = ours >= bound if measure in BETTER_HIGH else ours <= bound
    return f"{sign} {bound:g} {'yes' if good else 'NO'}"


def changes(book: Book, before: Iterable[Figure]) -> str:
    """Every figure beside the one of an earlier run, with a word where it moved by more than noise."""
    known: Mapping[tuple[str, str, str], float] = {
        (one.system, one.durability, one.measure): one.value for one in before
    }
    rows: list[tuple[str, ...]] = [("system", "durability", "measure", "before", "now", "change", "")]
    for one in book.figures:
        old = known.get((one.system, one.durability, one.measure))
        if old is None:
            rows.append((one.system, one.durability, one.measure, "-", _number(one.value), "", "new"))
            continue
        share = (one.value - old) / old if old else 0.0
        moved = (share > 0) == (one.measure in BETTER_HIGH)
        word = "" if abs(share) <= NOISE or one.system != "bulkhead" else "better" if moved else "WORSE"
        rows.append((one.system, one.durability, one.measure, _number(old), _number(one.value), f"{share:+.0%}", word))
    return _aligned(rows)


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile by rank. Raises IndexError without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def _ratio(ours: float | None, other: float | None) -> str:
    return f"{ours / other:.2f}" if ours is not None and other else ""


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
