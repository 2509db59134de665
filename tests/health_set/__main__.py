"""How well the detectors tell loops from honest runs: scores the sets, and shows or keeps the figures."""

import argparse
import json
import sys

from tests.health_set import figures
from tests.health_set.everything import SETS
from tests.health_set.scoring import score
from tests.paths import ROOT

PAGE = ROOT / "docs" / "explanation" / "detectors.md"
BEGIN = "<!-- rendered: python -m tests.health_set --write -->\n"
END = "<!-- end -->"


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 1 when a figure falls below the kept one."""
    parser = argparse.ArgumentParser(prog="python -m tests.health_set", description=__doc__)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--wrong", metavar="FAMILY", help="every run of a family that was judged wrongly, and by what")
    way.add_argument("--run", metavar="FAMILY/N", help="one run as JSON Lines, for `bulkhead analyze`")
    way.add_argument(
        "--write", action="store_true", help="keep the figures, and render them into docs/explanation/detectors.md"
    )
    parser.add_argument("--json", action="store_true", help="one document")
    options = parser.parse_args(argv)
    if options.run:
        runs = [run for register in SETS for run in register.runs() if run["name"] == options.run]
        rows = [row for run in runs for row in run["rows"]]
        print("\n".join(json.dumps(row) for row in rows))
        return 0 if rows else 2
    if options.wrong:
        table = score(run for one in SETS for run in one.runs() if run["family"] == options.wrong).as_json()
        wrong = [one for family in table["families"] for one in family["wrong"]]
        print(json.dumps(table) if options.json else "\n".join(wrong))
        return 0
    found = figures.everything()
    if options.write:
        figures.keep(found)
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + BEGIN + figures.page(found) + END + rest.partition(END)[2])
        return 0
    print(json.dumps(found) if options.json else figures.page(found))
    fallen = [line for one in SETS for line in figures.worse(found[one.name], figures.kept()[one.name])]
    if fallen:
        print("\n".join(fallen), file=sys.stderr)
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
