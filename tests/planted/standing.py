"""Which modules must be imported anew when some files have changed: they, and all that stands on them.

In: the modules that are loaded, with their files; changed files. Out: names. Only what a module imports while it is
imported itself counts: what it imports within a function it finds in its place when that is called.
"""

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

ROOTS = {"contracts": "contracts", "libs": "libs", "services": "services", "infra": "infra", "cli": "cli", "tests": "."}
"""By the first folder of a file, the folder in which its package lies."""
Graph = Mapping[str, Collection[str]]


def importers(files: Mapping[str, Path]) -> Graph:
    """Of each of these modules, which of the others name it where they are imported."""
    found: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for one in _named(ast.parse(file.read_bytes()), package):
            if one in found and one != name:
                found[one].add(name)
    return found


def _named(tree: ast.AST, package: str) -> Iterator[str]:
    """What a module's statements import; `from a import b` names `a` and, if that is a module, `a.b`."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import(names=names):
                for one in names:
                    parts = one.name.split(".")
                    yield from (".".join(parts[: at + 1]) for at in range(len(parts)))
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                source = ".".join([*above, *([module] if module else [])])
                yield source
                yield from (f"{source}.{one.name}" for one in names)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                pass
            case ast.stmt() | ast.ExceptHandler():
                yield from _named(node, package)


def on(changed: Iterable[str], graph: Graph) -> set[str]:
    """The modules to import anew, of those in the graph, when these files have changed (paths in the tree).

    What a service or a part of infra imports by name at run time lies in its own folder, so each is taken whole. What
    is not Python is read by nobody knows whom, and contracts are under everything: that is all.
    """
    found: set[str] = set()
    todo: list[str] = []
    for file in changed:
        layer, _, rest = file.partition("/")
        if not file.endswith(".py") or layer not in ROOTS or layer == "contracts":
            return set(graph)
        if layer in ("services", "infra"):
            package, _, part = rest.partition("/")
            todo += _within(f"{package}.{part.partition('/')[0].removesuffix('.py')}", graph)
        else:
            path = file if ROOTS[layer] == "." else rest
            todo.append(path.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
    while todo:
        name = todo.pop()
        if name in graph and name not in found:
            found.add(name)
            # A package that is imported anew holds no module that was imported before.
            todo += [*graph[name], *_within(name, graph)]
    return found


def _within(package: str, graph: Graph) -> list[str]:
    return [one for one in graph if one == package or one.startswith(f"{package}.")]
