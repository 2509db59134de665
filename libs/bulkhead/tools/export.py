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


def installed_packs() -> dict[str, tuple[str, ...]]:
    """Packages whose installation says that they hold tools, with the modules of these. Nothing is imported."""
    modules_by_pack: dict[str, tuple[str, ...]] = {}
    for entry_point in entry_points(group=GROUP):
        modules_by_pack[entry_point.name] = (
            *modules_by_pack.get(entry_point.name, ()),
            entry_point.value.partition(":")[0],
        )
    return modules_by_pack


def find_declarations(pack: str) -> dict[str, Declaration]:
    """Decorated functions of a package, by name: of the modules of its entry points, or of all. Raises PackError."""
    by_name: dict[str, Declaration] = {}
    for module in _tool_modules(pack):
        for value in vars(module).values():
            declared = declaration_of(value)
            if declared is None or declared.function.__module__.partition(".")[0] != pack.partition(".")[0]:
                continue
            if by_name.setdefault(declared.name, declared) is not declared:
                raise PackError(f"{pack} has two tools {declared.name}; give one of them another `name`")
    return by_name


def render_tools_file(pack: str, declared: dict[str, Declaration]) -> str:
    """tools.yaml of these. Raises PackError where the package has none."""
    if not declared:
        raise PackError(
            f"{pack} has no function with @tool above it, in {', '.join(m.__name__ for m in _tool_modules(pack))}"
        )
    rows: dict[str, Any] = {name: dict(declared[name].row) for name in sorted(declared)}
    return HEAD.format(pack) + "\n" + yaml.safe_dump(rows, sort_keys=False, width=120, allow_unicode=True)


def _tool_modules(pack: str) -> list[ModuleType]:
    try:
        if named := installed_packs().get(pack):
            return [importlib.import_module(name) for name in named]
        top = importlib.import_module(pack)
        inner = (module.name for module in pkgutil.iter_modules(getattr(top, "__path__", ()), f"{pack}."))
        names = [name for name in inner if not name.rpartition(".")[2].startswith(("test_", "conftest", "__main__"))]
        return [top, *map(importlib.import_module, names)]
    except ModuleNotFoundError as error:
        message = f"package {pack} cannot be imported: {error}"
        raise PackError(f"{message}; install it with what it needs, or go to the folder that holds it") from error
