"""The rooms of the product: no import circle, bounded folders, files and functions, and no name that says nothing.

An import inside a function counts like one at the head of its file.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("contracts", "libs", "services", "infra", "cli")
MODULES = {
    ".".join(path.relative_to(ROOT / folder).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
MAX_MODULES, MAX_LINES, MAX_FUNCTION_LINES = 15, 600, 100
BANNED = {"utils", "util", "common", "helpers", "helper", "manager", "base", "misc"}


def _imported(name: str) -> Iterator[str]:
    """Modules of the product that a module names in an import."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield from (inner,) if inner in MODULES else (base,) if base in MODULES else ()


IMPORTS = {name: set(_imported(name)) - {name} for name in MODULES}


def _room(name: str) -> Path:
    return MODULES[name].parent


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the name to the end, without the docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    told = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - told


def test_modules_import_each_other_in_no_circle() -> None:
    assert len(MODULES) > 500 and sum(map(len, IMPORTS.values())) > 2_000
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_no_two_rooms_side_by_side_import_each_other() -> None:
    pairs = {(_room(name), _room(other)) for name, others in IMPORTS.items() for other in others}
    both = {
        (str(one.relative_to(ROOT)), str(two.relative_to(ROOT)))
        for one, two in pairs
        if one < two and (two, one) in pairs and one not in two.parents and two not in one.parents
    }
    assert not both


def test_no_room_has_too_many_modules() -> None:
    counts = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    assert not {str(room): count for room, count in counts.items() if count > MAX_MODULES}


def test_no_file_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES.values()}
    assert not {name: count for name, count in lengths.items() if count > MAX_LINES}


def test_no_function_is_too_long() -> None:
    functions = (
        (f"{name}.{node.name}", _length(node))
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert not {name: count for name, count in functions if count > MAX_FUNCTION_LINES}


def test_no_name_says_nothing() -> None:
    assert not [name for name in MODULES if BANNED & set(name.split("."))]
