"""Manifests as `kubectl kustomize` prints them, rendered once per run."""

import copy
import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from bulkhead_infra.kubernetes.objects import FOLDER
from tests.needs import need
from tests.paths import ROOT

Object = dict[str, Any]


def kustomize(folder: Path) -> str:
    """What kubectl prints; skips where it is too old."""
    need("kubectl")
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def _objects(name: str) -> list[Object]:
    return parsed(kustomize(ROOT / FOLDER / "overlays" / name))


def parsed(text: str) -> list[Object]:
    """Objects of a text. By the loader in C, which takes a tenth of the time."""
    return [one for one in yaml.load_all(text, yaml.CSafeLoader) if one]


def overlay(name: str) -> list[Object]:
    """Fresh objects, which a test may change."""
    return copy.deepcopy(_objects(name))


def components(*names: str) -> list[Object]:
    """What components add, each as it stands in its own file."""
    paths = [path for name in names for path in sorted((ROOT / FOLDER / "components" / name).glob(f"{name}.yaml"))]
    return [one for path in paths for one in parsed(path.read_text())]


def named(objects: list[Object], kind: str, name: str) -> Object:
    return next(one for one in objects if one["kind"] == kind and one["metadata"]["name"].startswith(name))


def copied(folder: Path) -> Path:
    """The rendered tree in another folder, where a test may change files."""
    return Path(shutil.copytree(ROOT / FOLDER, folder / "kubernetes"))
