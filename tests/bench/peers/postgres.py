"""A private PostgreSQL for the peer: Debian's binaries, a cluster in a temporary folder, a free port, gone at the end.

In: whether it waits for fsync. Out: a running server with a URL. Root starts it as the user postgres, since it refuses
to run as root; anybody else as himself. Settings are the defaults, but for the number of connections.
"""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkhead.http_server.tcp_ports import free_port
from bulkhead_infra.processes.child import ChildProcess, StartFailed
from tests.bench import accounting

FOLDERS = Path("/usr/lib/postgresql")
USER = "postgres"
ROLE, DATABASE = "bench", "postgres"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


class NoPostgres(Exception):
    """There is no server to run; says what to install."""


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running cluster."""

    url: str
    child: ChildProcess

    def pids(self) -> list[int]:
        """The server and its workers, as they are now."""
        return accounting.with_children(self.child.pid)

    async def writes(self) -> int:
        """Transactions so far that wrote something: only these take a number. Raises StartFailed."""
        ask = "select pg_snapshot_xmax(pg_current_snapshot())"
        command = [str(binaries() / "psql"), self.url, "-Atc", ask]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        if process.returncode:
            raise StartFailed(f"psql could not count transactions: exit code {process.returncode}")
        return int(output)


def binaries() -> Path:
    """The newest installed version's folder. Raises NoPostgres."""
    found = [one.parent for one in FOLDERS.glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda one: int(one.parent.name) if one.parent.name.isdigit() else 0)
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    raise NoPostgres("PostgreSQL is not installed: apt-get install postgresql")


def _as_user() -> tuple[list[str], int, int]:
    """What to put before a command, and who owns the files. The kernel ends the server with the bench."""
    if os.geteuid() != 0:
        return [], os.geteuid(), os.getegid()
    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        advice = "apt-get install postgresql, or run the bench as a plain user"
        raise NoPostgres(f"there is no user {USER} to run PostgreSQL as: {advice}") from None
    prefix = ["setpriv", f"--reuid={USER}", f"--regid={entry.pw_gid}", "--clear-groups", "--pdeathsig", "KILL"]
    return prefix, entry.pw_uid, entry.pw_gid


@asynccontextmanager
async def postgres(*, fsync: bool) -> AsyncIterator[Postgres]:
    """Make a cluster, start it, remove it. Raises NoPostgres, StartFailed."""
    programs, (prefix, uid, gid) = binaries(), _as_user()
    folder = Path(tempfile.mkdtemp(prefix="bulkhead-bench-pg-"))
    child: ChildProcess | None = None
    try:
        password = secrets.token_hex(16)
        secret = folder / "password"
        secret.write_text(password)
        secret.chmod(0o600)
        for path in (folder, secret):
            os.chown(path, uid, gid)
        environ = {"PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}", "LC_ALL": "C"}
        made = await ChildProcess.start(
            "initdb",
            [
                *prefix,
                str(programs / "initdb"),
                "-D",
                str(folder / "data"),
                "-U",
                ROLE,
                "-E",
                "UTF8",
                "--auth=scram-sha-256",
                f"--pwfile={secret}",
            ],
            log=folder / "initdb.log",
            environ=environ,
            cwd=folder,
        )
        if await made.wait() != 0:
            raise StartFailed(made.describe_end())
        port = free_port()
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def heard(line: str) -> None:
            if "ready to accept connections" in line and not started.done():
                started.set_result(None)

        child = await ChildProcess.start(
            "postgres",
            [
                *prefix,
                str(programs / "postgres"),
                "-D",
                str(folder / "data"),
                "-p",
                str(port),
                "-k",
                str(folder),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "max_connections=200",
                "-c",
                f"fsync={'on' if fsync else 'off'}",
            ],
            log=folder / "postgres.log",
            environ=environ,
            cwd=folder,
            on_line=heard,
        )
        await _until_ready(child, started)
        yield Postgres(f"postgresql://{ROLE}:{password}@127.0.0.1:{port}/{DATABASE}", child)
    finally:
        if child is not None and child.is_running:
            child.send_signal(signal.SIGINT)  # "Fast": it does not wait for its clients.
            try:
                await asyncio.wait_for(child.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                await child.kill_and_wait()
        shutil.rmtree(folder, ignore_errors=True)


async def _until_ready(child: ChildProcess, started: asyncio.Future[None]) -> None:
    ended = asyncio.ensure_future(child.exited.wait())
    ends: set[asyncio.Future[Any]] = {started, ended}
    try:
        await asyncio.wait(ends, timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
    if not started.done():
        raise StartFailed(f"PostgreSQL was not ready within {START_TIMEOUT_S:g} s\n{child.describe_end()}")
