"""What an image's row names is what its program imports: nothing missing, so that it starts, and nothing to spare."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead_contracts import catalog
from bulkhead_infra.docker import image_contents

ROOT = image_contents.ROOT
PLACES = {
    "bulkhead_contracts": ROOT / "contracts",
    "bulkhead": ROOT / "libs",
    "bulkhead_services": ROOT / "services",
    "bulkhead_infra": ROOT / "infra",
}
DISTRIBUTIONS = {
    "a2a": "a2a-sdk",
    "jwt": "pyjwt",
    "nacl": "pynacl",
    "re2": "google-re2",
    "toktok": "toktok-rs",
    "yaml": "pyyaml",
    "nats": "nats-py",
    "opentelemetry": "opentelemetry-api",
    "google": "googleapis-common-protos",
}
ROWS = {True: "infra/bulkhead_infra/services.yaml", False: "infra/bulkhead_infra/docker/image_contents.py"}
NOT_WHEN_RUNNING = {"faststream"}
"""Imported by what declares the apps for documents and tests, which no running service does."""


def _file(module: str) -> Path | None:
    path = PLACES[module.split(".")[0]].joinpath(*module.split("."))
    return next((one for one in (path / "__init__.py", path.with_suffix(".py")) if one.is_file()), None)


@functools.cache
def _imported(file: Path, module: str) -> tuple[str, ...]:
    """Modules that a module names, read once for all images."""
    return tuple(_named(file, module))


def _named(file: Path, module: str) -> Iterator[str]:
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(file.read_text())
    # No program runs what stands there for the type checker.
    nodes = list(ast.walk(tree))
    typed = [
        node
        for node in nodes
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    left_out = {id(one) for node in typed for statement in node.body for one in ast.walk(statement)}
    for node in nodes:
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{one.name}" for one in node.names)


@functools.cache
def _closure(start: str) -> tuple[set[Path], set[str]]:
    """Files of ours that a module needs, and the top packages of others."""
    files: dict[str, Path] = {}
    others: set[str] = set()
    todo = [start]
    while todo:
        module = todo.pop()
        file = _file(module)
        if file is None or module in files:
            continue
        files[module] = file
        todo.append(module.rpartition(".")[0] or module)
        for name in _imported(file, module):
            if name.split(".")[0] in PLACES:
                todo.append(name)
            else:
                others.add(name.split(".")[0])
    return set(files.values()), others - set(sys.stdlib_module_names)


def _module(name: str) -> str:
    module = image_contents.IMAGES[name].module
    return f"{module}.__main__" if _file(f"{module}.__main__") else module


@pytest.mark.parametrize("name", image_contents.IMAGES)
def test_an_image_has_every_module_that_its_program_imports(name: str) -> None:
    named = [ROOT / part for part in image_contents.IMAGES[name].code]
    left_out = [part for path in image_contents.FOR_PEOPLE if (part := ROOT / path) not in named]
    files, _ = _closure(_module(name))
    missing = [
        file
        for file in files
        if not any(file == one or one in file.parents for one in named) or any(one in file.parents for one in left_out)
    ]
    assert missing == [], f"add them to the code of {name} in {ROWS[name not in image_contents.INFRASTRUCTURE]}"


@pytest.mark.parametrize("name", image_contents.IMAGES)
def test_an_image_has_every_package_that_its_program_imports(name: str) -> None:
    core, own = image_contents.requirement_lists(name)
    pinned = set(re.findall(r"^([a-z0-9-]+)==", core + own, re.M))
    _, others = _closure(_module(name))
    wanted = {DISTRIBUTIONS.get(one, one.replace("_", "-")) for one in others - NOT_WHEN_RUNNING}
    assert wanted <= pinned, (
        f"add {wanted - pinned} to the packages of {name} in {ROWS[name not in image_contents.INFRASTRUCTURE]}"
    )


def test_no_row_names_another_services_folder() -> None:
    for name, row in image_contents.IMAGES.items():
        folders = {part.split("/")[2] for part in row.code if part.startswith("services/")}
        assert folders <= {name, "__init__.py"}
    assert set(image_contents.SERVICES) == set(catalog.SERVICES)
    assert set(image_contents.IN_KUBERNETES) == set(catalog.IN_KUBERNETES)


def test_every_line_is_pinned_with_hashes_and_the_core_is_the_same_for_all_services() -> None:
    cores = {
        image_contents.requirement_lists(name)[0] for name in (*image_contents.SERVICES, *image_contents.IN_KUBERNETES)
    }
    assert len(cores) == 1
    for name in image_contents.IMAGES:
        for text in image_contents.requirement_lists(name):
            pins = [block for block in re.split(r"\n(?=[a-z])", text.strip()) if block]
            assert all(re.match(r"[a-z0-9-]+==\S+", pin) and "--hash=sha256:" in pin for pin in pins)


def test_a_package_that_is_not_locked_is_named() -> None:
    with pytest.raises(KeyError, match=r"no-such-thing is not in requirements\.lock; run `make lock`"):
        image_contents.RequirementsLock((ROOT / "requirements.lock").read_text()).dependency_closure(["no-such-thing"])


@pytest.mark.slow
def test_the_code_of_an_image_runs_from_its_folder_alone(tmp_path: Path) -> None:
    image_contents.prepare_images(tmp_path)
    for name in ("planner", "nats"):
        sources = list((tmp_path / name / "code").rglob("*.py"))
        compiled = list((tmp_path / name / "code").rglob("*.pyc"))
        assert len(sources) == len(compiled) > 5
    tmp_path = tmp_path / "planner"
    packages = {path.name for path in (tmp_path / "code").iterdir()}
    assert packages == {"bulkhead", "bulkhead_contracts", "bulkhead_services"}
    assert not (tmp_path / "code" / "bulkhead" / "testing").exists()
    assert (tmp_path / "state" / "identity").is_dir() and (tmp_path / "lists" / "core.txt").read_text()
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    say = "import bulkhead_services.planner.app, bulkhead; print(bulkhead.__file__)"
    # -S: without the editable install, which would find everything else too.
    done = subprocess.run(
        [sys.executable, "-S", "-c", say],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": f"{tmp_path / 'code'}:{packages}"},
        cwd=tmp_path,
    )
    assert done.returncode == 0 and done.stdout.startswith(str(tmp_path)), done.stderr
