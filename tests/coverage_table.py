"""Coverage by package: measured against the floor of pyproject.toml and the figures of the page about testing.

In: the data of `coverage run`, combined. Out: a table; exit code 1 below the floor, or where the page is more than a
point off. `--write` puts the table on the page instead.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

from tests.paths import ROOT

PAGE = ROOT / "docs" / "explanation" / "testing.md"
BEGIN, END = "<!-- coverage: written by `make coverage ARGS=--write` -->\n", "<!-- end of coverage -->"
TOTAL = "all of it"
MAX_DRIFT = 1.0
"""Points between the page and a measurement: a change that moves less need not touch the page."""


def floor_percent() -> float:
    """The least that all packages together may have."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return float(settings["tool"]["coverage"]["report"]["fail_under"])


def percent_by_package(report: dict[str, dict[str, dict[str, dict[str, int]]]]) -> dict[str, float]:
    """Covered lines and branches in percent of all, by package and under TOTAL. report: of `coverage json`."""
    covered: Counter[str] = Counter()
    countable: Counter[str] = Counter()
    for path, entry in report["files"].items():
        summary = entry["summary"]
        package = next(part for part in Path(path).parts if part.startswith("bulkhead"))
        for name in (package, TOTAL):
            covered[name] += summary["covered_lines"] + summary["covered_branches"]
            countable[name] += summary["num_statements"] + summary["num_branches"]
    return {name: 100 * covered[name] / total for name, total in countable.items() if total}


def as_table(percents: dict[str, float]) -> str:
    names = [*sorted(percents.keys() - {TOTAL}), TOTAL]
    rows = [f"| `{name}` | {percents[name]:.1f} % |" for name in names]
    rows[-1] = rows[-1].replace("`", "")
    return "\n".join(["| package | lines and branches |", "| --- | --- |", *rows, ""])


def percents_of_page() -> dict[str, float]:
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    return {name: float(percent) for name, percent in re.findall(r"^\| `?(\w[\w ]*)`? \| ([\d.]+) % \|$", table, re.M)}


def write_to_page(table: str) -> None:
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{PAGE} has no place for the table"
    PAGE.write_text(f"{before}{begin}{table}{end}{after}")


def complaints(measured: dict[str, float], on_page: dict[str, float], floor: float) -> list[str]:
    """What is wrong with a measurement, one sentence each."""
    total = measured[TOTAL]
    below = [f"coverage is {total:.1f} %, the floor in pyproject.toml {floor:.0f} %"] if total < floor else []
    drifted = sorted(
        name
        for name in measured.keys() | on_page.keys()
        if abs(measured.get(name, 0.0) - on_page.get(name, 0.0)) > MAX_DRIFT
    )
    told = f"docs/explanation/testing.md tells other figures of {', '.join(drifted)}: make coverage ARGS=--write"
    return below + ([told] if drifted else [])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.coverage_table", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table on the page about testing")
    options = parser.parse_args()
    command = [sys.executable, "-m", "coverage", "json", "-q", "--fail-under=0", "-o", "-"]
    report = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    measured = percent_by_package(json.loads(report))
    print(as_table(measured))
    if options.write:
        write_to_page(as_table(measured))
    wrong = complaints(measured, percents_of_page(), floor_percent())
    for complaint in wrong:
        print(complaint, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
