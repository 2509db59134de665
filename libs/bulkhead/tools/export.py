"""Rows of decorated tools, written as the tools.yaml of their package: services that hold keys read the file, and run
nothing of it.

Enters: the name of a package, which is imported here. Leaves: its rows, and the text of its tools.yaml. The executor,
which runs the code anyway, refuses a package whose file says something else than its code.
"""

import importlib
import pkgutil
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import yaml

from bulkhead.tools.decorator import Declaration, declaration_of
from bulkhead.tools.packs import PackError

GROUP = "bulkhead.tools"
"""Entry points `<package> = "<module of its tools>"`."""
HEAD = "# Written by `bulkhead tools export {}` from its code, which is what to change."


def installed() -> dict[str, tuple[str, ...]]:
    """Packages whose installation says that they hold tools, with the modules of these. Nothing is imported."""
    found: dict[str, tuple[str, ...]] = {}
    for one in entry_points(group=GROUP):
        found[one.name] = (*found.get(one.name, ()), one.value.partition(":")[0])
    return found


def declarations(pack: str) -> dict[str, Declaration]:
    """Decorated functions of a package, by name: of the modules of its entry points, or of all. Raises PackError."""
    found: dict[str, Declaration] = {}
    for module in _modules(pack):
        for value in vars(module).values():
            declared = declaration_of(value)
            if declared is None or declared.function.__module__.partition(".")[0] != pack.partition(".")[0]:
                continue
            if found.setdefault(declared.name, declared) is not declared:
                raise PackError(f"{pack} has two tools {declared.name}; give one of them another `name`")
    return found


def text(pack: str, declared: dict[str, Declaration]) -> str:
    """tools.yaml of these. Raises PackError where the package has none."""
    if not declared:
        raise PackError(
            f"{pack} has no function with @tool above it, in {', '.join(m.__name__ for m in _modules(pack))}"
        )
    rows: dict[str, Any] = {name: dict(declared[name].row) for name in sorted(declared)}
    return HEAD.format(pack) + "\n" + yaml.safe_dump(rows, sort_keys=False, width=120, allow_unicode=True)


def _modules(pack: str) -> list[ModuleType]:
    try:
        if named := installed().get(pack):
            return [importlib.import_module(name) for name in named]
        top = importlib.import_module(pack)
        inner = (one.name for one in pkgutil.iter_modules(getattr(top, "__path__", ()), f"{pack}."))
        names = [name for name in inner if not name.rpartition(".")[2].startswith(("test_", "conftest", "__main__"))]
        return [top, *map(importlib.import_module, names)]
    except ModuleNotFoundError as error:
        what = f"package {pack} cannot be imported: {error}"
        raise PackError(f"{what}; install it with what it needs, or go to the folder that holds it") from error
