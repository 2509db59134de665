"""kubectl as a program: GET requests alone, each bounded in time and size.

In: a context, a kubeconfig. Out: JSON, or a `KubectlError` that tells apart what a person does about it. Nothing but
`get` and `config view` is ever run; requests go by `get --raw`, which needs no discovery and has no other verb.
"""

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bulkhead.tools.mcp_pins import clean_line

REQUEST_TIMEOUT_S = 10.0
EXTRA_S = 5.0
"""Beyond the timeout of the request, for programs that make credentials, before the process is killed."""
MAX_BYTES = 32 * 1024 * 1024
MAX_ERROR_BYTES = 16 * 1024
MAX_SAID_CHARS = 300
AT_ONCE = 4
"""Processes of kubectl at a time."""
PAGE, MAX_PAGES = 500, 8
FROM_SERVER = re.compile(r"Error from server(?: \((\w+)\))?: (.*)", re.S)
NO_CONTEXT = "current-context must exist"
UNKNOWN_TYPE = "the server doesn't have a resource type"

Kind = Literal["missing", "config", "unreachable", "unauthorized", "forbidden", "absent", "hung", "large", "failed"]
REASONS: dict[str, Kind] = {"Forbidden": "forbidden", "NotFound": "absent", "Unauthorized": "unauthorized"}


class KubectlError(Exception):
    """No answer. kind: what to do depends on it."""

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind: Kind = kind


@dataclass(frozen=True, slots=True)
class Page:
    """Items of a list. whole: there are no more of them."""

    items: list[dict[str, Any]]
    whole: bool


class Kubectl:
    """See the module."""

    def __init__(self, context: str = "", kubeconfig: Path | None = None, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.options = (
            *((f"--kubeconfig={kubeconfig}",) if kubeconfig else ()),
            *((f"--context={context}",) if context else ()),
        )
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def server(self) -> str:
        """Address of the cluster, by the kubeconfig alone; "" inside of a cluster without one. Raises KubectlError."""
        try:
            found = json.loads(await self._run("config", "view", "--minify", "--output=json"))
            return str(found["clusters"][0]["cluster"]["server"])
        except (KubectlError, ValueError, LookupError, TypeError) as error:
            if isinstance(error, KubectlError) and error.kind in ("missing", "hung"):
                raise
            if os.environ.get("KUBERNETES_SERVICE_HOST") and not self.options:
                return ""
            why = str(error) if isinstance(error, KubectlError) else ""
            if not why or NO_CONTEXT in why:
                why = "there is no kubeconfig, or it has no current context"
            raise KubectlError("config", why) from error

    async def get(self, path: str) -> dict[str, Any]:
        """One object. path: of the API server. Raises KubectlError."""
        try:
            found = json.loads(await self._run("get", "--raw", path))
        except ValueError as error:
            raise KubectlError("failed", f"{path} was answered with something else than JSON") from error
        if not isinstance(found, dict):
            raise KubectlError("failed", f"{path} was answered with something else than an object")
        return found

    async def items(self, path: str, query: str = "") -> Page:
        """Objects, page by page. Raises KubectlError."""
        found_items: list[dict[str, Any]] = []
        token = ""
        for _ in range(MAX_PAGES):
            more = f"&continue={token}" if token else ""
            found = await self.get(f"{path}?limit={PAGE}{query}{more}")
            listed, metadata = found.get("items"), found.get("metadata")
            found_items += [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
            token = str(metadata.get("continue") or "") if isinstance(metadata, dict) else ""
            if not token or not re.fullmatch(r"[A-Za-z0-9_=.-]{1,4096}", token):
                return Page(found_items, not token)
        return Page(found_items, False)

    async def names(self, kind: str, namespace: str) -> list[str]:
        """Names of objects whose content must not leave the cluster: the server prints a table of them. Raises
        KubectlError."""
        said = await self._run("get", kind, f"--namespace={namespace}", "--no-headers", "--ignore-not-found")
        return [line.split()[0] for line in said.splitlines() if line.split()]

    async def _run(self, *words: str) -> str:
        program = shutil.which("kubectl")
        if program is None:
            raise KubectlError("missing", "kubectl is not installed")
        seconds = max(1, round(self._timeout_s))
        limits = [*self.options, f"--request-timeout={seconds}s"]
        async with self._turns:
            process = await asyncio.create_subprocess_exec(
                program,
                *words,
                *limits,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(self._timeout_s + EXTRA_S):
                    out, err = await asyncio.gather(
                        _read(process.stdout, MAX_BYTES, lambda: _kill(process)),
                        _read(process.stderr, MAX_ERROR_BYTES),
                        return_exceptions=True,  # Each pipe is read to its end before anything is told.
                    )
                    code = await process.wait()
            except TimeoutError as error:
                raise KubectlError("hung", f"kubectl did not end within {self._timeout_s + EXTRA_S:g} s") from error
            finally:
                await _end(process)
        if isinstance(out, BaseException):
            raise out
        if isinstance(err, BaseException):
            raise err
        if code:
            raise _error(err.decode("utf-8", "replace"))
        return out.decode("utf-8", "replace")


async def _read(stream: asyncio.StreamReader | None, most: int, stop: Callable[[], None] | None = None) -> bytes:
    """All that comes, to its end: a pipe that nobody reads holds up whoever waits for the process. What is beyond the
    bound is dropped; with `stop` it is an error, and whoever writes it is stopped."""
    assert stream is not None
    found, beyond = bytearray(), False
    while piece := await stream.read(64 * 1024):
        if stop is not None and not beyond and len(found) + len(piece) > most:
            beyond = True
            stop()
        found += piece[: max(0, most - len(found))]
    if beyond:
        raise KubectlError("large", f"an answer has more than {most // 1024**2} MiB")
    return bytes(found)


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the process and the programs that it started for credentials."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        _kill(process)
        await asyncio.gather(_read(process.stdout, 0), _read(process.stderr, 0))
        await process.wait()


def _error(text: str) -> KubectlError:
    """By what kubectl says on standard error; it ends with 1 whatever happened."""
    said = clean_line(_last(text), MAX_SAID_CHARS) or "kubectl failed and said nothing"
    if match := FROM_SERVER.search(said):
        return KubectlError(REASONS.get(match[1] or "", "failed"), match[2])
    said = said.removeprefix("error: ")
    if UNKNOWN_TYPE in said:
        return KubectlError("absent", said)
    if "You must be logged in" in said or "getting credentials" in said:
        return KubectlError("unauthorized", said)
    if re.search(r"Client\.Timeout|deadline exceeded|i/o timeout|TLS handshake timeout", said):
        return KubectlError("hung", said)
    if re.search(r"[Uu]nable to connect|was refused|no such host|connection reset|EOF|x509", said):
        return KubectlError("unreachable", said)
    if re.search(r"context|kubeconfig|current-context|config", said):
        return KubectlError("config", said)
    return KubectlError("failed", said)


def _last(text: str) -> str:
    """The error: client-go logs its attempts in lines before it (`E1123 15:20:00.000000 ...`)."""
    lines = [line for line in text.splitlines() if line.strip() and not re.match(r"[EWI]\d{4} ", line)]
    start = next(
        (at for at, line in enumerate(lines) if line.startswith(("Error", "error", "Unable", "The connection"))), 0
    )
    return " ".join(lines[start : start + 4])
