"""The record of releases: contracts/released.json holds the schema of every version that has ever left this repository.

In: that file and the schemas of today. Out: findings, each with what to do; or the file with today's additions.
`make render` never writes it: a release does, by `python -m bulkhead_infra.render --release`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkhead_infra.render import compat, schemas

FILE = Path("contracts") / "released.json"
Schemas = Mapping[str, Mapping[str, Any]]


_KEEP = "old messages of it lie in streams and journals. Keep its class, as `older` of its catalog row with an upcast"
_NEXT = (
    "Undo it, or leave this version as it is and add the next one: a class in its vN.py, `older` with an upcast in "
    "catalog.py, an example, `make render`"
)
_RECORD = "When that is meant, `python -m bulkhead_infra.render --release` records it; commit the result"


@dataclass(frozen=True, slots=True)
class Finding:
    """A released name that is not what it was. breaking: a release cannot record it."""

    name: str
    breaking: bool
    message: str


def current() -> dict[str, dict[str, Any]]:
    """Today's schemas: every message version by its ce-type, and what else crosses a wire by its name."""
    kinds = [(one.ce_type(), one) for one in schemas.bodies()] + list(schemas.ALSO.items())
    found: dict[str, dict[str, Any]] = {name: schemas.schema_of(kind, name) for name, kind in kinds}
    found["envelope"] = schemas.envelope_schema()
    return found


def read(root: Path) -> dict[str, dict[str, Any]]:
    """The released schemas; {} before the first release."""
    path = root / FILE
    found: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def compare(released: Schemas, today: Schemas) -> list[Finding]:
    """Everything released that has gone, broken or changed."""
    found = []
    for name, old in released.items():
        if name not in today:
            found.append(Finding(name, True, f"{name} was released and is gone: {_KEEP}"))
        elif problems := compat.breaking(old, today[name]):
            listed = "".join(f"\n  - {problem}" for problem in problems)
            found.append(Finding(name, True, f"{name} was released and must not change like this:{listed}\n{_NEXT}"))
        elif compat.changed(old, today[name]):
            found.append(Finding(name, False, f"{name} differs from what was released, compatibly. {_RECORD}"))
    return found


def text(released: Schemas) -> str:
    """The file: one line per name, so that a release is read line by line."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(released[name], sort_keys=True, ensure_ascii=False)}"
        for name in sorted(released)
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def release(root: Path) -> list[Finding]:
    """Write the file with today's schemas; nothing is written when a finding that is returned is breaking."""
    released, today = read(root), current()
    findings = compare(released, today)
    if not any(finding.breaking for finding in findings):
        (root / FILE).write_text(text({**released, **today}))
    return findings
