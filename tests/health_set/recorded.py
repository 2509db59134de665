"""Recorded runs in a folder, scored against labels that somebody gave them before.

In: FOLDER/SOURCE/NAME.jsonl in the form of docs/how-to/analyze.md, and one JSON object of labels, by "SOURCE/NAME":
{"label": "honest" | "looping" | "doubtful", "start": row, "period": rows a round}, the last two of looping runs alone.
What is doubtful is left out and counted. Out: a table per source, and every run that was judged wrongly.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.health_set.scoring import score

Labels = dict[str, dict[str, object]]


def page(folder: Path, labels: Labels) -> str:
    """Markdown. Raises ValueError for a label that does not fit."""
    table = score(_runs(folder, labels)).as_json()
    doubtful = Counter(name.split("/")[0] for name, one in labels.items() if one["label"] == "doubtful")
    of: dict[str, dict[bool, dict[str, object]]] = {}
    for family in table["families"]:  # type: ignore[union-attr]
        of.setdefault(family["family"].split(" ")[0], {})[family["looping"]] = family
    lines = ["| source | honest | stopped | warned | looping | in time | at all | doubtful |", f"|{' --- |' * 8}"]
    for source in sorted(of.keys() | doubtful.keys()):
        honest, loops = of.get(source, {}).get(False, {}), of.get(source, {}).get(True, {})
        figures = [honest.get(key, 0) for key in ("runs", "stopped", "warned")]
        figures += [loops.get(key, 0) for key in ("runs", "in_time", "stopped")]
        lines.append(f"| {source} | {' | '.join(map(str, (*figures, doubtful[source])))} |")
    total = [
        table[key]
        for key in (
            "honest_runs",
            "honest_stopped",
            "honest_warned",
            "looping_runs",
            "looping_in_time",
            "looping_stopped",
        )
    ]
    lines.append(f"| all | {' | '.join(map(str, (*total, doubtful.total())))} |")
    wrong = [line for family in table["families"] for line in family["wrong"]]  # type: ignore[union-attr]
    return "\n".join([*lines, "", f"Precision {table['precision']}, recall {table['recall']}.", "", *wrong]) + "\n"


def _runs(folder: Path, labels: Labels) -> Iterator[dict[str, object]]:
    for name, one in sorted(labels.items()):
        label, source = one["label"], name.split("/")[0]
        if label not in ("honest", "looping", "doubtful"):
            raise ValueError(f"{name} is labelled {label!r}: write honest, looping or doubtful")
        if label == "doubtful":
            continue
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        run = {"name": name, "family": f"{source} {label}", "looping": label == "looping", "rows": rows}
        if label == "looping":
            if not (isinstance(one.get("start"), int) and isinstance(one.get("period"), int) and one["period"]):
                raise ValueError(f"{name} loops, but its start and its period are not told: write both, in rows")
            run |= {"start": one["start"], "period": one["period"]}
        yield run
