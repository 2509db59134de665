"""A wheel of the project: the names that an installation brings, and the data files that lie beside the code."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("contracts", "libs", "services", "infra")
PACKAGES = {"bulkhead", "bulkhead_cli", "bulkhead_contracts", "bulkhead_infra", "bulkhead_services"}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Files in the wheel, built with what is installed here."""
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run([sys.executable, "-c", build, out], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(out / done.stdout.split()[-1]) as wheel:
        return set(wheel.namelist())


def test_an_installation_brings_only_names_that_begin_with_bulkhead(names: set[str]) -> None:
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES


def test_every_file_of_the_packages_is_in_it(names: set[str]) -> None:
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = {name.partition("/")[2] for name in listed.splitlines() if (ROOT / name).is_file()}
    wanted = {name for name in files if name.partition("/")[0] in PACKAGES}
    assert len(wanted) > 400 and wanted <= names, sorted(wanted - names)


def test_every_package_says_that_it_has_types(names: set[str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
