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
class ReleaseFinding:
    """A released name that is not what it was. breaking: a release cannot record it."""

    name: str
    breaking: bool
    message: str


def current_schemas() -> dict[str, dict[str, Any]]:
    """Today's schemas: every message version by its ce-type, and what else crosses a wire by its name."""
    kinds = [(body.ce_type(), body) for body in schemas.body_classes()] + list(schemas.ALSO.items())
    current: dict[str, dict[str, Any]] = {name: schemas.schema_of(kind, name) for name, kind in kinds}
    current["envelope"] = schemas.envelope_schema()
    return current


def read_released(root: Path) -> dict[str, dict[str, Any]]:
    """The released schemas; {} before the first release."""
    path = root / FILE
    released: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}
    return released


def compare_releases(released: Schemas, today: Schemas) -> list[ReleaseFinding]:
    """Everything released that has gone, broken or changed."""
    findings = []
    for name, old in released.items():
        if name not in today:
            findings.append(ReleaseFinding(name, True, f"{name} was released and is gone: {_KEEP}"))
        elif problems := compat.breaking_changes(old, today[name]):
            listed = "".join(f"\n  - {problem}" for problem in problems)
            findings.append(
                ReleaseFinding(name, True, f"{name} was released and must not change like this:{listed}\n{_NEXT}")
            )
        elif compat.has_changed(old, today[name]):
            findings.append(
                ReleaseFinding(name, False, f"{name} differs from what was released, compatibly. {_RECORD}")
            )
    return findings


def render_released(released: Schemas) -> str:
    """The file: one line per name, so that a release is read line by line."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(released[name], sort_keys=True, ensure_ascii=False)}"
        for name in sorted(released)
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def record_release(root: Path) -> list[ReleaseFinding]:
    """Write the file with today's schemas; nothing is written when a finding that is returned is breaking."""
    released, today = read_released(root), current_schemas()
    findings = compare_releases(released, today)
    if not any(finding.breaking for finding in findings):
        (root / FILE).write_text(render_released({**released, **today}))
    return findings
