"""What the detectors make of the sets, as numbers to be kept and as a table to be read.

In: the sets. Out: figures (a dict that `figures.json` keeps), the places where a new run falls below kept ones, and the
table of docs/detectors.md.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bulkhead.health.scoring import score
from tests.health_set import stalls
from tests.health_set.everything import SETS, checksum
from tests.health_set.traces import Register

KEPT = Path(__file__).with_name("figures.json")
STALL_LATER_MS = 3_600_000
Figures = dict[str, dict[str, Any]]


def judged(register: Register) -> dict[str, Any]:
    """Figures of one set. Its honest_runs count those whose texts are alike, too: they must not be stopped either."""
    runs = register.runs()
    table = score(runs).as_json()
    families = {}
    truths = {family.name: family for family in register.families}
    for found in table.pop("families"):
        family = truths[found["family"]]
        families[family.name] = {"truth": family.truth, "what": family.what} | {
            key: found[key] for key in ("runs", "stopped", "in_time", "warned", "most_rounds")
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
    """What was committed."""
    return json.loads(KEPT.read_text())


def worse(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    """Where a set falls below what was committed, by family; and texts alike that are stopped or not warned of."""
    said = []
    for name, floor in old["families"].items():
        found = new["families"].get(name)
        if found is None or found["runs"] < floor["runs"]:
            said.append(f"{name}: runs are missing")
        elif floor["truth"] == "looping" and found["in_time"] < floor["in_time"]:
            said.append(f"{name}: {found['in_time']} loops stopped in time, {floor['in_time']} before")
        elif floor["truth"] != "looping" and found["stopped"] > floor["stopped"]:
            said.append(f"{name}: {found['stopped']} stopped that should go on, {floor['stopped']} before")
        elif floor["truth"] == "alike" and (found["stopped"] or found["warned"] < floor["warned"]):
            said.append(f"{name}: {found['stopped']} stopped and {found['warned']} warned, {floor['warned']} before")
    return said


def table(figures: Mapping[str, Any], truth: str) -> str:
    """The families of one truth."""
    shown = [(name, one) for name, one in figures["families"].items() if one["truth"] == truth]
    if truth == "looping":
        lines = [
            "| looping | what | runs | stopped | in time | most rounds | warned |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| `{name}` | {one['what']} | {one['runs']} | {one['stopped']} | {one['in_time']} | "
            f"{one['most_rounds']:.1f} | {one['warned']} |"
            for name, one in shown
        ]
    else:
        lines = [f"| {truth} | what | runs | stopped | warned |", "| --- | --- | --- | --- | --- |"]
        lines += [
            f"| `{name}` | {one['what']} | {one['runs']} | {one['stopped']} | {one['warned']} |" for name, one in shown
        ]
    return "\n".join(lines)


def page(figures: Figures) -> str:
    """What stands between the marks of docs/detectors.md."""
    parts = []
    for register in SETS:
        one = figures[register.name]
        alike = [family for family in one["families"].values() if family["truth"] == "alike"]
        honest = one["honest_runs"] - sum(family["runs"] for family in alike)
        parts.append(
            f"### The {register.name} set\n\n"
            f"{honest} honest runs, {sum(family['runs'] for family in alike)} with texts that resemble each other and "
            f"nothing else, {one['looping_runs']} looping; {one['rows']} rows. Of those that should go on "
            f"**{one['honest_stopped']} were stopped**; of the loops **{one['looping_in_time']} were stopped in "
            f"time**, {one['looping_stopped']} at all. Precision {one['precision']}, recall {one['recall']}."
        )
        parts += [
            table(one, truth)
            for truth in ("honest", "alike", "looping")
            if any(family["truth"] == truth for family in one["families"].values())
        ]
    lines = [
        "### Stalls\n",
        "| tasks | stalled | runs | told before | told within an hour |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{name}` | {'yes' if one['stalled'] else 'no'} | {one['runs']} | {one['early']} | {one['told']} |"
        for name, one in figures["stalls"]["families"].items()
    ]
    return "\n\n".join([*parts, "\n".join(lines)]) + "\n"
