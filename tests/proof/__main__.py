"""`python -m tests.proof [NAME ...] [--json]`: measures what the docs claim, and fails where a claim does not hold.

In: names of modules beside this one, all without any; each has `measure()`, which gives `Figure`s. Out: the figures as
text or JSON; exit code 1 when a claim does not hold.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import NamedTuple


class Figure(NamedTuple):
    """What was measured. value: for people, with its unit. claim: what docs/explanation/proof.md says of it."""

    name: str
    value: str
    claim: str
    holds: bool


def main(arguments: list[str]) -> int:
    """Measure, print, and tell whether all claims hold."""
    there = sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))
    names = [name for name in arguments if name != "--json"] or there
    if unknown := sorted(set(names) - set(there)):
        print(f"no such proof: {', '.join(unknown)}; there are {', '.join(there)}", file=sys.stderr)
        return 2
    figures = {name: importlib.import_module(f"tests.proof.{name}").measure() for name in names}
    if "--json" in arguments:
        print(json.dumps({name: [row._asdict() for row in rows] for name, rows in figures.items()}, indent=2))
    else:
        for name, rows in figures.items():
            print(name)
            for row in rows:
                print(f"  {'holds' if row.holds else 'FAILS'}  {row.name}: {row.value} (claimed: {row.claim})")
    return 0 if all(row.holds for rows in figures.values() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
