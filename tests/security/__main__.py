"""`make security`: the table of attacks, honest tasks and questions; with --json as one document."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.security.harness import APPROVERS, FRESH, HELD_OUT, HERE, KINDS, PLANS, RULES, Row, document, measure, table


def main() -> None:
    """Print the figures of all sets; what succeeds and what stays undone by name."""
    sets = {folder.name: _measure_set(folder) for folder in (HERE, HELD_OUT, KINDS, RULES, FRESH)}
    rows = sets.pop(HERE.name)
    others = sets
    if "--json" in sys.argv[1:]:
        print(json.dumps(document(rows, others)))
        return
    _print(rows)
    for name, other_rows in others.items():
        print(f"\n{name}:")
        _print(other_rows)


def _measure_set(folder: Path) -> list[Row]:
    by_approver = [measure(approver, folder) for approver in APPROVERS]
    are_drafted = (folder / "drafts.yaml").exists()
    kinds = (plans for plans in PLANS if plans and (are_drafted or "drafted" not in plans))
    return [*by_approver, *(measure("nobody", folder, plans) for plans in kinds)]


def _print(rows: Sequence[Row]) -> None:
    print(table(rows))
    for row in rows:
        if row.approver.startswith("nobody"):
            _tell_of(row)


def _tell_of(nobody: Row) -> None:
    every = nobody.attacks + nobody.attacks_left
    print(f"\nto ask: {nobody.approver}; in {nobody.attack_runs} runs of {every} attacks, these succeed:")
    print(f"  {', '.join(nobody.succeeded) or 'none'}; of the kinds left: {', '.join(nobody.left) or 'none'}")
    print(f"honest tasks that stay undone then: {', '.join(nobody.incomplete) or 'none'}")


if __name__ == "__main__":
    main()
