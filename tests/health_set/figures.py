"""Figures of the detectors on the sets: numbers that are kept, and a table for docs/explanation/detectors.md.

In: the sets. Out: figures (a dict that `figures.json` keeps, a line per family), the places where a new run falls below
kept ones, and the table.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.health_set.everything import SETS, checksum
from tests.health_set.runs import stalls
from tests.health_set.runs.traces import Register
from tests.health_set.scoring import score

KEPT = Path(__file__).with_name("figures.json")
STALL_LATER_MS = 3_600_000
Figures = dict[str, dict[str, Any]]


def judged(register: Register) -> dict[str, Any]:
    """Figures of one set."""
    runs = register.runs()
    table = score(runs).as_json()
    families = {}
    for found in table.pop("families"):
        truth = "looping" if found["looping"] else "honest"
        families[found["family"]] = {"truth": truth} | {
            key: found[key] for key in ("runs", "stopped", "in_time", "warned")
        }
    return {"checksum": checksum(runs), "rows": sum(len(run["rows"]) for run in runs), **table, "families": families}


def judged_stalls() -> dict[str, Any]:
    """Figures of the stalls: how many were told within an hour, and how many before there was one."""
    families: dict[str, dict[str, Any]] = {}
    for name, task in stalls.tasks():
        early, late = stalls.tripped(task, STALL_LATER_MS)
        family = families.setdefault(name, {"stalled": task.stalled, "runs": 0, "early": 0, "told": 0})
        family["runs"] += 1
        family["early"] += early
        family["told"] += late
    return {"families": families}


def everything() -> Figures:
    """Figures of all sets."""
    return {register.name: judged(register) for register in SETS} | {"stalls": judged_stalls()}


def kept() -> Figures:
    """Figures that were committed."""
    return json.loads(KEPT.read_text())


def keep(figures: Figures) -> None:
    """Write figures, a line per family."""
    lines = []
    for name, one in figures.items():
        head = json.dumps({key: value for key, value in one.items() if key != "families"})[1:-1]
        rows = ",\n".join(f"  {json.dumps(family)}: {json.dumps(row)}" for family, row in one["families"].items())
        lines.append(f' {json.dumps(name)}: {{{head}{", " if head else ""}"families": {{\n{rows}\n }}}}')
    KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def worse(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    """Families of a set that fall below what was committed."""
    said = []
    for name, floor in old["families"].items():
        found = new["families"].get(name)
        if found is None or found["runs"] < floor["runs"]:
            said.append(f"{name}: runs are missing")
        elif floor["truth"] == "looping" and found["in_time"] < floor["in_time"]:
            said.append(f"{name}: {found['in_time']} loops stopped in time, {floor['in_time']} before")
        elif floor["truth"] == "honest" and found["stopped"] > floor["stopped"]:
            said.append(f"{name}: {found['stopped']} stopped that should go on, {floor['stopped']} before")
    return said


def page(figures: Figures) -> str:
    """Table between the marks of docs/explanation/detectors.md."""
    lines = ["| set | honest | stopped | warned | looping | in time | at all |", f"|{' --- |' * 7}"]
    keys = ("honest_runs", "honest_stopped", "honest_warned", "looping_runs", "looping_in_time", "looping_stopped")
    for register in SETS:
        one = figures[register.name]
        lines.append(f"| {register.name} | {' | '.join(str(one[key]) for key in keys)} |")
    return "\n".join(lines) + "\n"
