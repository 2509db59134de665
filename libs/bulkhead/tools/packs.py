"""Packs: tools and worker roles of somebody else's, as one Python package.

    acme_desk/
      __init__.py          may be empty
      tools.yaml           rows as in libs/bulkhead/tools/tools.yaml
      refund.py            `async def run(arguments, call) -> Done | Failed` (or `def run`, where it blocks), one module
                           per row of tools.yaml
      prompts/worker.desk@1.md   a role: the prompt of steps that say `role: desk`

In: names of importable packages (setting BULKHEAD_PACKS). Out: where their files lie. Naming a pack is the operator's
decision: what is merely installed is no tool. Only tool_executor runs a pack's code; the others read its files.
"""

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

from bulkhead.tools.api import Arguments, Call, Done, Effect, Failed, Response, Run, Unanswered, World

__all__ = [
    "Arguments",
    "Call",
    "Done",
    "Effect",
    "Failed",
    "PackError",
    "Response",
    "Run",
    "Unanswered",
    "World",
    "folder",
    "worker_roles",
]

_ROLE = re.compile(r"worker\.([a-z][a-z0-9_]{0,31})@\d+\.md", re.ASCII)
TOOLS_FILE, PROMPTS_FOLDER = "tools.yaml", "prompts"
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


class PackError(ValueError):
    """A pack that cannot be used; says which and what to do."""


def folder(name: str) -> Path:
    """Folder of a pack's files; the pack itself is not imported. Raises PackError."""
    if not _NAME.fullmatch(name):
        raise PackError(f"pack {name!r} is no name of a Python package; write it as in an import, e.g. acme_desk")
    places = package_folders(name)
    if not places:
        raise PackError(
            f"there is no package {name} (BULKHEAD_PACKS); install it where this service runs, or add the folder "
            "that holds it to PYTHONPATH"
        )
    pack_folder = places[0]
    if not (pack_folder / TOOLS_FILE).is_file() and not (pack_folder / PROMPTS_FOLDER).is_dir():
        message = f"package {name} in {pack_folder} is no pack: it has neither {TOOLS_FILE} nor {PROMPTS_FOLDER}/"
        raise PackError(f"{message}; `bulkhead tools export {name}` writes {TOOLS_FILE} from its functions with @tool")
    return pack_folder


def package_folders(name: str) -> list[Path]:
    """Folders of a package. `find_spec` of the whole name would run every package that encloses it."""
    top, *inner = name.split(".")
    spec = importlib.util.find_spec(top)
    places = map(Path, (spec.submodule_search_locations if spec is not None else None) or ())
    return [inner_folder for place in places if (inner_folder := place.joinpath(*inner)).is_dir()]


def worker_roles(names: Iterable[str]) -> frozenset[str]:
    """The worker roles that these packs bring. Raises PackError."""
    files = (path.name for name in names for path in (folder(name) / PROMPTS_FOLDER).glob("worker.*.md"))
    return frozenset(match[1] for match in map(_ROLE.fullmatch, files) if match)
