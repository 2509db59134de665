"""Agreement of all places that name the services of the mesh.

In: a tree, and the services of its catalog by kind. Out: one line per place that disagrees, with what to write
there.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bulkhead_infra.render.readmes import BEGIN, END
from bulkhead_infra.services import KINDS

FILES = ("__init__.py", "app.py", "README.md")
"""Files of a decider's folder."""
MORE_FILES = {"doer": ("settings.py",), "edge": ("settings.py",)}
"""Further files by the kind of service: deciders have no settings of their own."""
CATALOG = "contracts/bulkhead_contracts/catalog.py"
ROWS = "infra/bulkhead_infra/services.yaml"
POLICY = "infra/bulkhead_infra/identity/policy.yaml"
DEFAULT_USES = {
    "decider": "inbox, inbox_history, timers, control_read, dead_letters_write",
    "doer": "inbox, records, control_read, dead_letters_write",
    "edge": "control_read",
}


def find_disagreements(root: Path, kinds: Mapping[str, tuple[str, ...]] = KINDS) -> list[str]:
    """One line per place that lacks a service which another place has; [] when all agree."""
    folders = {path.parent.name for path in (root / "services" / "bulkhead_services").glob("*/app.py")}
    kind_of = {name: kind for kind, names in kinds.items() for name in names}
    rows, rights = _read_rows(root / ROWS), _read_rows(root / POLICY)
    problems: list[str] = []
    for name in sorted({*folders, *kind_of, *rows, *rights}):
        kind = kind_of.get(name) or str((rows.get(name) or {}).get("kind", "doer"))
        places = {
            f"services/bulkhead_services/{name}": (
                name in folders,
                f"add the folder with {', '.join(_required_files(kind))}",
            ),
            CATALOG: (name in kind_of, f'add "{name}" to {kind.upper()}S, and its messages to ROWS'),
            ROWS: (name in rows, f"add `{name}: {{kind: {kind}, drain: 3}}`"),
            POLICY: (name in rights, f"add `{name}: {{uses: [{DEFAULT_USES.get(kind, '')}]}}`"),
        }
        other_places = ", ".join(place for place, (has, _) in places.items() if has)
        lacking = [(place, fix) for place, (has, fix) in places.items() if not has]
        problems += [f"{place} lacks {name}: {fix}, or remove it from {other_places}" for place, fix in lacking]
        if not lacking:
            problems += _check_folder(root, name, kind)
    return problems


def _read_rows(path: Path) -> Mapping[str, Any]:
    rows: Mapping[str, Any] = yaml.safe_load(path.read_text()).get("services") or {}
    return rows


def _required_files(kind: str) -> tuple[str, ...]:
    return (*FILES, *MORE_FILES.get(kind, ()))


def _check_folder(root: Path, name: str, kind: str) -> Iterator[str]:
    folder = root / "services" / "bulkhead_services" / name
    for file in _required_files(kind):
        if not (folder / file).is_file():
            yield f"services/bulkhead_services/{name} lacks {file}: write it as its siblings have it"
        elif file == "README.md" and not (BEGIN in (text := (folder / file).read_text()) and END in text):
            way = f"add the lines `{BEGIN}` and `{END}`"
            yield f"services/bulkhead_services/{name}/README.md has no table of messages: {way}"
