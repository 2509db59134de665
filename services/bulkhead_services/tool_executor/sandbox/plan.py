"""Plans of sandboxes: what a tool's process may read, write and use, as data that its start is told.

In: settings, a tool's row, mechanisms that work here. Out: a SandboxCell, with the plan for one process, its
folder and its user; both are given back when that process has ended.
"""

import os
import shutil
import site
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkhead.tools.catalog import ToolRow
from bulkhead_contracts import bounds
from bulkhead_services.tool_executor.private_folders import make_private_folder
from bulkhead_services.tool_executor.sandbox.levels import MECHANISMS
from bulkhead_services.tool_executor.settings import Settings

MIB = 1024 * 1024
PREFIX = "bulkhead-tool-"
SYSTEM_PATHS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/sys/devices/system/cpu", "/nix/store")
ETC_ENTRIES = (
    "alternatives ca-certificates gai.conf group host.conf hosts ld.so.cache ld.so.conf ld.so.conf.d localtime "
    "mime.types nsswitch.conf passwd pki protocols resolv.conf services ssl timezone"
)
"""Of /etc: how names, certificates, time and libraries are found. Nothing else of it is read."""
FIRST_UID, UIDS_PER_REPLICA, MAX_REPLICAS = 62_000, 80, 40
"""Users of tools' processes have numbers from 62000 to 65199: no process that is not a tool's may have one of them."""
PASSED_VARIABLES = ("TZ", "LD_LIBRARY_PATH", "PYTHONHOME")
PASSED_WITH_NETWORK = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


@dataclass(slots=True)
class SandboxCell:
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

    def build_environment(self) -> dict[str, str]:
        """All that its environment holds."""
        names = (*PASSED_VARIABLES, *(PASSED_WITH_NETWORK if self.plan["network"] else ()))
        inherited = {
            variable: os.environ[variable]
            for name in names
            for variable in (name, name.lower())
            if variable in os.environ
        }
        folder = self.plan["scratch"]
        fixed = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
        return inherited | fixed | {"HOME": folder, "TMPDIR": folder}

    def close(self) -> None:
        """Give its folder and its user back."""
        if not self.closed:
            self.closed = True
            shutil.rmtree(self.folder, ignore_errors=True)
            self.users.discard(self.plan["uid"])


@dataclass(slots=True)
class SandboxCells:
    """Makes the cells of this replica."""

    settings: Settings
    users: set[int] = field(default_factory=set)

    def make_cell(
        self, row: ToolRow | None, required: Collection[str] | None, without: Collection[str] = ()
    ) -> SandboxCell:
        """A cell. row: None when the walls are tried. required: mechanisms that must be; None: try each. Raises
        OSError."""
        network = row is not None and (row.network or row.spec.egress)
        granted = self.settings.tool_folders.get(row.spec.name, ()) if row is not None else ()
        folder = make_private_folder(PREFIX)
        disabled = [*without, *(name for name in MECHANISMS if required is not None and name not in required)]
        uid = self._reserve_uid() if "user" not in disabled else 0
        with suppress(PermissionError):  # The namespace's own folder lies over it, or it is the executor's user's.
            os.chown(folder, uid or -1, uid or -1)
        readable, listed = _readable_paths(_hidden_paths(self.settings))
        shared = (*SYSTEM_PATHS, "/etc")
        plan = {
            "scratch": folder,
            "uid": uid,
            "no_user": "" if os.getuid() == 0 else "only root may give a process another user",
            "network": network,
            "read": readable,
            "listed": listed,
            "needs": [path for path in readable if Path(path).is_dir() and not path.startswith(shared)],
            "write": [os.path.realpath(path) for path in granted],
            "memory_bytes": self.settings.tool_memory_mib * MIB,
            "disk_bytes": self.settings.tool_disk_mib * MIB,
            "processes": bounds.MAX_TOOL_THREADS,
            "files": bounds.MAX_TOOL_FILES,
            "must": list(required or ()),
            "without": disabled,
        }
        return SandboxCell(plan, self.users)

    def _reserve_uid(self) -> int:
        if os.getuid():
            return 0
        first = FIRST_UID + UIDS_PER_REPLICA * (os.getpid() % MAX_REPLICAS)
        uid = next(candidate for candidate in range(first, first + UIDS_PER_REPLICA) if candidate not in self.users)
        self.users.add(uid)
        return uid


def _hidden_paths(settings: Settings) -> tuple[Path, ...]:
    """Files of the executor, which no tool reads."""
    secrets = [Path(hook.secret_file).parent for hook in settings.webhooks.values()]
    return tuple(Path(os.path.realpath(path)) for path in (settings.identity_dir, settings.data_dir, *secrets))


def _readable_paths(hidden: Iterable[Path]) -> tuple[list[str], list[str]]:
    """Paths that a tool's process reads: the system's programs and libraries, Python, and where its modules lie.
    Folders that hold something hidden are told entry by entry, and may be listed.
    """
    modules = [entry for entry in sys.path if entry and Path(entry).exists()]
    python = [sys.prefix, sys.base_prefix, sys.exec_prefix, str(Path(sys.executable).resolve().parent.parent)]
    etc = [f"/etc/{name}" for name in ETC_ENTRIES.split()]
    python_paths = [os.path.realpath(entry) for entry in (*python, *modules, *site.getsitepackages())]
    existing = [entry for entry in (*SYSTEM_PATHS, *etc, *python_paths) if entry != "/" and Path(entry).exists()]
    readable, listed = [str(entry) for entry in SYSTEM_PATHS if Path(entry).exists()], list[str]()
    for path in sorted(set(existing) - set(readable), key=len):
        if not any(path == root or path.startswith(f"{root}/") for root in readable):
            paths, folders = _paths_without(
                Path(path), [hidden_path for hidden_path in hidden if hidden_path.is_relative_to(path)]
            )
            readable += paths
            listed += folders
    return readable, listed


def _paths_without(path: Path, hidden: list[Path]) -> tuple[list[str], list[str]]:
    if not hidden:
        return [str(path)], []
    paths, listed = list[str](), [str(path)]
    for entry in path.iterdir() if path not in hidden else ():
        inner, folders = _paths_without(
            entry, [hidden_path for hidden_path in hidden if hidden_path.is_relative_to(entry)]
        )
        paths += inner
        listed += folders
    return paths, listed if path not in hidden else []
