"""A registry on this machine, for dry runs and tests: Debian's docker-registry on a free port, in a folder.

In: a folder. Out: `localhost:PORT` that answers; it ends with the `with`. What it stores lies in the folder as files.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from bulkhead.tcp_ports import free_port
from bulkhead_infra.promotion.errors import PromotionError

BINARIES = ("docker-registry", "registry")
START_TIMEOUT_S, STOP_TIMEOUT_S, POLL_S = 30.0, 10.0, 0.1


def binary() -> str | None:
    """Its path; None where none is installed."""
    return next(filter(None, map(shutil.which, BINARIES)), None)


@contextmanager
def local_registry(folder: Path, auth: Mapping[str, Any] | None = None) -> Iterator[str]:
    """auth: the section of that name in its configuration. Raises PromotionError."""
    found = binary()
    if found is None:
        why, then = "docker-registry is not installed", "On Debian, apt-get install docker-registry"
        raise PromotionError("no_registry", "no registry can be started here", why, then)
    port, log = free_port(), folder / "registry.log"
    # Without a cache: it would hide what somebody did to the files.
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "one process has it"},
        **({"auth": dict(auth)} if auth else {}),
    }
    file = folder / "registry.yml"
    file.write_text(yaml.safe_dump(settings))
    with log.open("wb") as said:
        process = subprocess.Popen([found, "serve", str(file)], stdout=said, stderr=said)  # noqa: S603
    try:
        _wait(process, port, log)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/v2/", timeout=POLL_S * 10)
            return
        except httpx.HTTPError:
            time.sleep(POLL_S)
    said = log.read_text()[-1_000:].strip() or "it said nothing"
    raise PromotionError("no_registry", "the registry did not start", said, f"Read {log}, and try again")
