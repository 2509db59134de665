"""A venv of its own, without the checkout: what is installed there is what a user gets.

In: wheels built of this tree. Out: programs that run there. Dependencies are those of requirements.lock; uv takes them
from its cache, which `make setup` filled.
"""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

from tests.paths import ROOT

TIMEOUT_S = 170
IMPORT = """
import importlib, json, sys
errors = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        errors[name] = f"{type(error).__name__}: {error}"
files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
json.dump({"errors": errors, "loaded": files}, sys.stdout)
"""


def build_wheel(source: Path, out: Path) -> Path:
    """Built as `pip wheel` would, with what is installed here: nothing comes over the network."""
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, out], cwd=source, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


def modules_of(wheel: Path) -> set[str]:
    """Import paths in a wheel, but for the `__main__` of packages: those start."""
    with zipfile.ZipFile(wheel) as archive:
        files = [name.removesuffix(".py") for name in archive.namelist() if name.endswith(".py")]
    return {name.removesuffix("/__init__").replace("/", ".") for name in files if not name.endswith("/__main__")}


class FreshVenv:
    """See the module. folder: is made; programs run in an empty folder inside."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "venv", symlinks=True)
        self.bin = folder / "venv" / "bin"
        self.empty = folder / "empty"
        self.empty.mkdir()

    def install(self, *requirements: str, is_locked: bool = True) -> None:
        """is_locked: dependencies are those of requirements.lock; else as the requirements have them."""
        options = ["--quiet", "--python", str(self.bin / "python")]
        options += ["--constraint", str(ROOT / "requirements.lock")] if is_locked else []
        done = self.run(sys.executable, "-m", "uv", "pip", "install", *options, *requirements)
        assert done.returncode == 0, done.stderr

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BULKHEAD_"))}
        environ = {**kept, "PATH": f"{self.bin}:/usr/bin:/bin"}
        words = [str(word) for word in command]
        return subprocess.run(
            words, cwd=self.empty, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )

    def import_all(self, modules: set[str]) -> tuple[dict[str, str], dict[str, str | None]]:
        """Errors by module, and the file of each module that was loaded."""
        done = self.run(self.bin / "python", "-I", "-c", IMPORT, *sorted(modules))
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer["errors"], answer["loaded"]
