"""The data directory: who holds it, where everything lies, what a dead run left behind, the local user's keys.

In: a path. Out: an owned directory. One live mesh per directory: the lock is the kernel's and ends with its holder.
Whatever this process writes while it owns one can be read by its user alone.
"""

import contextlib
import errno
import fcntl
import json
import os
import signal
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import psutil

from bulkhead_contracts import bounds
from bulkhead_infra.identity import callers, keys
from bulkhead_infra.identity.config_folder import CONFIG_VARIABLE
from bulkhead_infra.nats.server import disk_problem, more_room
from bulkhead_infra.processes.child import PRIVATE_UMASK

LOCK_FILE = "lock"
MESH_FILE = "mesh.json"
API_KEYS_FILE = "api_keys.json"
CREDENTIALS_FILE = "credentials.json"
PUBLISHERS_FILE = "publishers.json"
RESTORING_FILE = "restoring"
"""There while a backup is being restored into the directory."""
FOLDERS = ("identity", "identity/services", "logs", "run", "traces", "nats", "nats/store", "redis", "rag")
FULL = (errno.ENOSPC, errno.EDQUOT)
SAME_PROCESS_S = 2.0
"""A recorded start time may differ by so much from what the kernel says."""


class DirectoryInUse(Exception):
    """A running mesh holds the directory."""


class DirectoryUnfit(Exception):
    """The directory cannot be used; says why and what to do."""


class RunDir:
    """An owned data directory; `close` gives it up."""

    def __init__(self, path: Path, *, restoring: bool = False) -> None:
        """Lock the directory. restoring: accept an interrupted restore. Raises DirectoryInUse, DirectoryUnfit."""
        self.path = path.resolve()
        _PRIVATE.add_owner()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            ours = (self.path / LOCK_FILE).exists() or not any(self.path.iterdir())
            self._lock = _take_lock(self.path / LOCK_FILE)
            if ours:
                _remove_others_rights(self.path)
        except OSError as error:
            _PRIVATE.remove_owner()
            raise DirectoryUnfit(_unfit_message(self.path, error)) from error
        except DirectoryInUse:
            _PRIVATE.remove_owner()
            raise
        cut_off = "" if restoring else _interrupted_restore(self.path)
        if problem := disk_problem(self.path) or _find_obstacle(self.path) or cut_off:
            self.close()
            raise DirectoryUnfit(problem)

    @property
    def identity(self) -> Path:
        """Everybody's keys; a service gets `own_identity` instead."""
        return self.path / "identity"

    def own_identity(self, service: str) -> Path:
        return self.identity / "services" / service

    def log_file(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def health_file(self, name: str) -> Path:
        """File in which a service writes its health port."""
        return self.path / "run" / f"{name}.json"

    def end_leftovers(self) -> list[str]:
        """End what a dead run left running (its supervisor was killed where the kernel could not help)."""
        for target in (self.path / "run").glob("*.target.json"):
            target.unlink()  # Prometheus would miss a replica that nobody starts any more.
        ended = []
        for name, record in read_object(self.path / MESH_FILE).get("processes", {}).items():
            try:
                process = psutil.Process(record["pid"])
                if abs(process.create_time() - record["started_unix_s"]) < SAME_PROCESS_S:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(5)
                    ended.append(name)
            except (psutil.Error, ProcessLookupError, PermissionError, KeyError, TypeError):
                continue
        return ended

    def last_shards(self) -> dict[str, int]:
        """By service, as the mesh here last ran; {} when it never did."""
        shards = read_object(self.path / MESH_FILE).get("shards")
        pairs = shards.items() if isinstance(shards, dict) else ()
        return {name: count for name, count in pairs if isinstance(count, int) and 1 < count <= bounds.PARTITIONS}

    def last_logic(self) -> int:
        """The newest decision logic of the version that last ran here; 0 when it did not say."""
        logic = read_object(self.path / MESH_FILE).get("logic")
        return logic if isinstance(logic, int) else 0

    def last_store_gib(self) -> int:
        """Disk that the mesh here was given when it last ran; 0 when nobody said."""
        size = read_object(self.path / MESH_FILE).get("store_gib")
        return size if isinstance(size, int) and size > 0 else 0

    def last_broker_port(self) -> int:
        """Port of the broker that the mesh here ran itself; 0 where none did."""
        mesh = read_object(self.path / MESH_FILE)
        try:
            return urlsplit(str(mesh.get("nats_url", ""))).port or 0 if mesh.get("own_broker") else 0
        except ValueError:
            return 0

    def write_mesh(self, facts: Mapping[str, Any]) -> None:
        """Write what runs, without secrets."""
        keys.replace_file(self.path / MESH_FILE, json.dumps(facts, indent=1))

    def ensure_api_keys(self, tenant: str) -> None:
        """At the first start: one key per role for the local user. The gateway's file has only their digests."""
        callers.ensure_caller_keys(self.path / CREDENTIALS_FILE, self.path / API_KEYS_FILE, tenant)

    def add_api_key(self, tenant: str, person: str, role: str) -> str:
        """A further key; the running gateway learns it by itself. Raises KeyFileError."""
        return callers.add_caller(tenant, person, role, [self.path])["api_key"]

    def read_credentials(self) -> dict[str, str]:
        return {str(role): str(key) for role, key in read_object(self.path / CREDENTIALS_FILE).items()}

    def describe_error(self, error: OSError) -> str:
        """Message about an error in this directory; "" for other errors."""
        if error.errno in FULL:
            return _unfit_message(self.path, error)
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else Path()
        ours = self.path in named.parents
        return f"{named} cannot be used: {error.strerror}; correct that and start again" if ours else ""

    def close(self) -> None:
        if not self._lock.closed:
            self._lock.close()
            _PRIVATE.remove_owner()


class MeshFile:
    """Keeps mesh.json of a running mesh true: it is written when its content has changed.

    Writes nothing before `begins` is set: until then the file tells of the run before.
    """

    def __init__(self, run: RunDir, facts: Callable[[], dict[str, Any]], say: Callable[[str], None]) -> None:
        self.begins = False
        self._run, self._facts, self._say = run, facts, say
        self._written: dict[str, Any] = {}

    def write_if_changed(self) -> None:
        """A full disk is said, and does not stop the supervision."""
        if not self.begins or (facts := self._facts()) == self._written:
            return
        try:
            self._run.write_mesh(facts)
            self._written = facts
        except OSError as error:
            self._say(f"{self._run.path} cannot be written: {error.strerror}; free space there")


class _PrivateUmask:
    """The process's umask while it owns a directory or several: it is one for all threads, so it is counted."""

    def __init__(self) -> None:
        self._owners, self._before = 0, 0

    def add_owner(self) -> None:
        if not self._owners:
            self._before = os.umask(PRIVATE_UMASK)
        self._owners += 1

    def remove_owner(self) -> None:
        self._owners -= 1
        if not self._owners:
            os.umask(self._before)


_PRIVATE = _PrivateUmask()


def _remove_others_rights(directory: Path) -> None:
    """Remove the rights of other users that an older version left, only in a mesh's own directory."""
    for folder, _, files in os.walk(directory):
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode) or not stat.S_IMODE(mode) & PRIVATE_UMASK:
                continue
            with contextlib.suppress(PermissionError):  # Somebody else's file: not ours to give or take.
                path.chmod(stat.S_IMODE(mode) & ~PRIVATE_UMASK)


def _take_lock(path: Path) -> IO[str]:
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        if error.errno in (errno.EAGAIN, errno.EACCES):
            way = "stop it, or choose another directory with --data"
            raise DirectoryInUse(
                f"{path.parent} belongs to a mesh that is running (process {holder}); {way}"
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


def _unfit_message(path: Path, error: OSError) -> str:
    if error.errno in FULL:
        return f"the disk that holds {path} is full; {more_room(path)}"
    return f"{path} cannot be used: {error.strerror}; choose another directory with --data"


def _interrupted_restore(path: Path) -> str:
    if not (path / RESTORING_FILE).exists():
        return ""
    way = "run the same `bulkhead restore` again, which starts over"
    return f"a restore into {path} was interrupted, so the mesh in it is incomplete; {way}"


def _find_obstacle(path: Path) -> str:
    """Message when a file has the name of one of the mesh's folders; "" otherwise."""
    for name in FOLDERS:
        folder = path / name
        if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
            return (
                f"{folder} is no folder, and the mesh keeps one there; move it away (or restore {path} from a backup, "
                "if it was a mesh's), or choose another directory with --data"
            )
    return ""


def config_folder_of(data: Path, given: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Folder of files of one's own: the given one, that of the mesh which last ran here, or the environment's."""
    mesh = read_object(data / MESH_FILE)
    named = given or (mesh["config_dir"] if "config_dir" in mesh else environ.get(CONFIG_VARIABLE))
    return Path(named).absolute() if named else None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object in a file; {} when there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
