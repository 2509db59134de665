"""The data directory: who holds it, where everything lies, what a dead run left behind, the local user's keys.

In: a path. Out: an owned directory. One live mesh per directory: the lock is the kernel's and ends with its holder.
"""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import psutil

from infra.identity import keys
from infra.nats.server import disk_problem

LOCK_FILE = "lock"
MESH_FILE = "mesh.json"
API_KEYS_FILE = "api_keys.json"
CREDENTIALS_FILE = "credentials.json"
PUBLISHERS_FILE = "publishers.json"
ROLES = ("submitter", "approver", "operator", "auditor")
KEY_PREFIX = "bk_"
SAME_PROCESS_S = 2.0
"""A recorded start time may differ by so much from what the kernel says."""


class DirectoryInUse(Exception):
    """A running mesh holds the directory."""


class DirectoryUnfit(Exception):
    """The directory cannot be used; says why and what to do."""


class RunDir:
    """An owned data directory; `close` gives it up."""

    def __init__(self, path: Path) -> None:
        """Take the directory. Raises DirectoryInUse, DirectoryUnfit."""
        self.path = path.resolve()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _take_lock(self.path / LOCK_FILE)
        except OSError as error:
            raise DirectoryUnfit(_unfit(self.path, error)) from error
        if problem := disk_problem(self.path):
            self.close()
            raise DirectoryUnfit(problem)

    @property
    def identity(self) -> Path:
        """Everybody's keys; a service gets `own_identity` instead."""
        return self.path / "identity"

    def own_identity(self, service: str) -> Path:
        """A folder with the keys of one service."""
        return self.identity / "services" / service

    def log(self, name: str) -> Path:
        """Log file of one process."""
        return self.path / "logs" / f"{name}.log"

    def health_file(self, name: str) -> Path:
        """Where a service tells its health port."""
        return self.path / "run" / f"{name}.json"

    def end_leftovers(self) -> list[str]:
        """End what a dead run left running (its supervisor was killed where the kernel could not help)."""
        ended = []
        for name, record in _read(self.path / MESH_FILE).get("processes", {}).items():
            try:
                process = psutil.Process(record["pid"])
                if abs(process.create_time() - record["started_unix_s"]) < SAME_PROCESS_S:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(5)
                    ended.append(name)
            except (psutil.Error, ProcessLookupError, PermissionError, KeyError, TypeError):
                continue
        return ended

    def write_mesh(self, facts: Mapping[str, Any]) -> None:
        """Tell what runs; no secrets."""
        keys.replace(self.path / MESH_FILE, json.dumps(facts, indent=1))

    def ensure_api_keys(self, tenant: str) -> None:
        """At the first start: one key per role for the local user. The gateway's file has only their digests."""
        if (self.path / API_KEYS_FILE).exists():
            return
        credentials = {role: KEY_PREFIX + secrets.token_urlsafe(32) for role in ROLES}
        rows = [_api_key(key, tenant, f"local-{role}", role) for role, key in credentials.items()]
        # The credentials first: a crash in between must not leave digests of keys that nobody has.
        keys.replace(self.path / CREDENTIALS_FILE, json.dumps(credentials, indent=1))
        keys.replace(self.path / API_KEYS_FILE, json.dumps({"keys": rows}, indent=1))

    def add_api_key(self, tenant: str, person: str, role: str) -> str:
        """A further key; the running gateway learns it by itself."""
        path = self.path / API_KEYS_FILE
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        rows = [*_read(path).get("keys", ()), _api_key(key, tenant, person, role)]
        keys.replace(path, json.dumps({"keys": rows}, indent=1))
        return key

    def credentials(self) -> dict[str, str]:
        """The local user's keys by role."""
        return {str(role): str(key) for role, key in _read(self.path / CREDENTIALS_FILE).items()}

    def close(self) -> None:
        """Let others have the directory."""
        self._lock.close()


def _take_lock(path: Path) -> IO[str]:
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise DirectoryInUse(
                f"{path.parent} belongs to a mesh that is running (process {holder}); stop it, or choose another "
                "directory with --data"
            ) from error
        raise
    try:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except OSError:
        file.close()
        raise
    return file


def _unfit(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk that holds {path} is full; free space, or choose another directory with --data"
    return f"{path} cannot be used: {error.strerror}; choose another directory with --data"


def _api_key(key: str, tenant: str, person: str, role: str) -> dict[str, str]:
    return {"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": tenant, "person": person, "role": role}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
