"""Plans of sandboxes: what a tool's process may read, write and use, as data that its start is told.

In: settings, a tool's row, mechanisms that work here. Out: a Cell, with the plan for one process, its folder and its
user; both are given back when that process has ended.
"""

import os
import shutil
import site
import sys
import tempfile
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from bulkhead.tools.catalog import ToolRow
from bulkhead_contracts import bounds
from bulkhead_services.tool_executor.sandbox.levels import MECHANISMS
from bulkhead_services.tool_executor.settings import Settings

MIB = 1024 * 1024
PREFIX = "bulkhead-tool-"
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/sys/devices/system/cpu", "/nix/store")
OF_ETC = (
    "alternatives ca-certificates gai.conf group host.conf hosts ld.so.cache ld.so.conf ld.so.conf.d localtime "
    "mime.types nsswitch.conf passwd pki protocols resolv.conf services ssl timezone"
)
"""Of /etc: how names, certificates, time and libraries are found. Nothing else of it is read."""
FIRST_UID, USERS, REPLICAS = 62_000, 80, 40
"""Users of tools' processes have numbers from 62000 to 65199: no process that is not a tool's may have one of them."""
PASSED = ("TZ", "LD_LIBRARY_PATH", "PYTHONHOME")
PASSED_WITH_NETWORK = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


@dataclass(slots=True)
class Cell:
    """The place of one process. plan: what confine.py is told. container: its name, where it is one. `close` it once
    the process and all that it started have ended."""

    plan: dict[str, Any]
    users: set[int]
    container: str = ""
    closed: bool = False

    @property
    def folder(self) -> Path:
        """Its private folder."""
        return Path(self.plan["scratch"])

    def environment(self) -> dict[str, str]:
        """All that its environment holds."""
        names = (*PASSED, *(PASSED_WITH_NETWORK if self.plan["network"] else ()))
        both = {one: os.environ[one] for name in names for one in (name, name.lower()) if one in os.environ}
        folder = self.plan["scratch"]
        more = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
        return both | more | {"HOME": folder, "TMPDIR": folder}

    def close(self) -> None:
        """Give its folder and its user back."""
        if not self.closed:
            self.closed = True
            shutil.rmtree(self.folder, ignore_errors=True)
            self.users.discard(self.plan["uid"])


@dataclass(slots=True)
class Cells:
    """Makes the cells of this replica."""

    settings: Settings
    users: set[int] = field(default_factory=set)

    def contained(self, row: ToolRow | None) -> Cell:
        """A cell that is a container of its own. Raises OSError."""
        cell = self.make(row, ())
        cell.container = f"{PREFIX}{uuid4().hex}"
        return cell

    def make(self, row: ToolRow | None, in_force: Collection[str] | None, without: Collection[str] = ()) -> Cell:
        """A cell. row: None when the walls are tried. in_force: mechanisms that must be; None: try each. Raises
        OSError."""
        network = row is not None and (row.network or row.spec.egress)
        granted = self.settings.tool_folders.get(row.spec.name, ()) if row is not None else ()
        folder = tempfile.mkdtemp(prefix=PREFIX)
        off = [*without, *(name for name in MECHANISMS if in_force is not None and name not in in_force)]
        uid = self._user() if "user" not in off else 0
        with suppress(PermissionError):  # The namespace's own folder lies over it, or it is the executor's user's.
            os.chown(folder, uid or -1, uid or -1)
        read, listed = _readable(_hidden(self.settings))
        plan = {
            "scratch": folder,
            "uid": uid,
            "no_user": "" if os.getuid() == 0 else "only root may give a process another user",
            "network": network,
            "read": read,
            "listed": listed,
            "needs": [path for path in read if Path(path).is_dir() and not path.startswith((*SYSTEM, "/etc"))],
            "write": [os.path.realpath(path) for path in granted],
            "memory_bytes": self.settings.tool_memory_mib * MIB,
            "disk_bytes": self.settings.tool_disk_mib * MIB,
            "processes": bounds.MAX_TOOL_THREADS,
            "files": bounds.MAX_TOOL_FILES,
            "must": list(in_force or ()),
            "without": off,
        }
        return Cell(plan, self.users)

    def _user(self) -> int:
        if os.getuid():
            return 0
        first = FIRST_UID + USERS * (os.getpid() % REPLICAS)
        uid = next(one for one in range(first, first + USERS) if one not in self.users)
        self.users.add(uid)
        return uid


def _hidden(settings: Settings) -> tuple[Path, ...]:
    """Files of the executor, which no tool reads."""
    secrets = [Path(one.secret_file).parent for one in settings.webhooks.values()]
    return tuple(Path(os.path.realpath(one)) for one in (settings.identity_dir, settings.data_dir, *secrets))


def _readable(hidden: Iterable[Path]) -> tuple[list[str], list[str]]:
    """What a tool's process reads: the system's programs and libraries, Python, and where its modules lie. Folders
    that hold something hidden are told entry by entry, and may be listed."""
    modules = [one for one in sys.path if one and Path(one).exists()]
    python = [sys.prefix, sys.base_prefix, sys.exec_prefix, str(Path(sys.executable).resolve().parent.parent)]
    etc = [f"/etc/{name}" for name in OF_ETC.split()]
    wanted = [os.path.realpath(one) for one in (*python, *modules, *site.getsitepackages())]
    given = [one for one in (*SYSTEM, *etc, *wanted) if one != "/" and Path(one).exists()]
    kept, listed = [str(one) for one in SYSTEM if Path(one).exists()], list[str]()
    for path in sorted(set(given) - set(kept), key=len):
        if not any(path == one or path.startswith(f"{one}/") for one in kept):
            found, folders = _without(Path(path), [one for one in hidden if one.is_relative_to(path)])
            kept += found
            listed += folders
    return kept, listed


def _without(path: Path, hidden: list[Path]) -> tuple[list[str], list[str]]:
    if not hidden:
        return [str(path)], []
    kept, listed = list[str](), [str(path)]
    for entry in path.iterdir() if path not in hidden else ():
        more, folders = _without(entry, [one for one in hidden if one.is_relative_to(entry)])
        kept += more
        listed += folders
    return kept, listed if path not in hidden else []
