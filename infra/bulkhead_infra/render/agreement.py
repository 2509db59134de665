"""Whether all places that name the services of the mesh name the same ones.

In: a tree, and the services of its catalog by kind. Out: one line per place that disagrees, with what to write there.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bulkhead_infra.render.readmes import BEGIN, END
from bulkhead_infra.services import KINDS

FILES = ("__init__.py", "__main__.py", "app.py", "README.md")
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


def disagreements(root: Path, kinds: Mapping[str, tuple[str, ...]] = KINDS) -> list[str]:
    """One line per place that lacks a service which another place has; [] when all agree."""
    folders = {path.parent.name for path in (root / "services" / "bulkhead_services").glob("*/app.py")}
    kind_of = {name: kind for kind, names in kinds.items() for name in names}
    rows, rights = _rows(root / ROWS), _rows(root / POLICY)
    found: list[str] = []
    for name in sorted({*folders, *kind_of, *rows, *rights}):
        kind = kind_of.get(name) or str((rows.get(name) or {}).get("kind", "doer"))
        places = {
            f"services/bulkhead_services/{name}": (name in folders, f"add the folder with {', '.join(_files(kind))}"),
            CATALOG: (name in kind_of, f'add "{name}" to {kind.upper()}S, and its messages to ROWS'),
            ROWS: (name in rows, f"add `{name}: {{kind: {kind}, drain: 3}}`"),
            POLICY: (name in rights, f"add `{name}: {{uses: [{DEFAULT_USES.get(kind, '')}]}}`"),
        }
        others = ", ".join(place for place, (has, _) in places.items() if has)
        lacking = [(place, what) for place, (has, what) in places.items() if not has]
        found += [f"{place} lacks {name}: {what}, or remove it from {others}" for place, what in lacking]
        if not lacking:
            found += _folder(root, name, kind)
    return found


def _rows(path: Path) -> Mapping[str, Any]:
    rows: Mapping[str, Any] = yaml.safe_load(path.read_text()).get("services") or {}
    return rows


def _files(kind: str) -> tuple[str, ...]:
    return (*FILES, *MORE_FILES.get(kind, ()))


def _folder(root: Path, name: str, kind: str) -> Iterator[str]:
    folder = root / "services" / "bulkhead_services" / name
    for file in _files(kind):
        if not (folder / file).is_file():
            yield f"services/bulkhead_services/{name} lacks {file}: write it as its siblings have it"
        elif file == "README.md" and not (BEGIN in (text := (folder / file).read_text()) and END in text):
            way = f"add the lines `{BEGIN}` and `{END}`"
            yield f"services/bulkhead_services/{name}/README.md has no table of messages: {way}"
