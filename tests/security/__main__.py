"""`make security`: the table of attacks, honest tasks and questions; with --json as one document."""

import json
import sys
from collections.abc import Sequence

from tests.security.harness import APPROVERS, HELD_OUT, KINDS, Row, document, measure, table


def main() -> None:
    """Print the figures of all sets; what succeeds and what stays undone by name."""
    rows = [measure(approver) for approver in APPROVERS]
    others = {folder.name: [measure(approver, folder) for approver in APPROVERS] for folder in (HELD_OUT, KINDS)}
    if "--json" in sys.argv[1:]:
        print(json.dumps(document(rows, others)))
        return
    _print(rows)
    for name, other_rows in others.items():
        print(f"\n{name}:")
        _print(other_rows)


def _print(rows: Sequence[Row]) -> None:
    print(table(rows))
    nobody = rows[0]
    every = nobody.attacks + nobody.attacks_left
    print(f"\nwith nobody to ask, in {nobody.attack_runs} runs of {every} attacks, these succeed:")
    print(f"  {', '.join(nobody.succeeded) or 'none'}; of the kinds left: {', '.join(nobody.left) or 'none'}")
    print(f"honest tasks that stay undone then: {', '.join(nobody.incomplete) or 'none'}")


if __name__ == "__main__":
    main()
