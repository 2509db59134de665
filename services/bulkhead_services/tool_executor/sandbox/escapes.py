"""Escapes, tried by a tool's process at start: what gets through is a wall that does not hold on this machine.

In: where the executor is (its pid, sockets, a file of its own). Out: by wall, "" when every try failed, else what
succeeded. It is run as a plain tool is, behind the very walls.
"""

import ctypes
import json
import mmap
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bulkhead.tools.api import Arguments, Call, Done

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
PR_GET_NO_NEW_PRIVS = 39
WRITE_BYTES = 1024 * 1024
CONNECT_S = 0.5


def run(arguments: Arguments, call: Call) -> Done:
    """Try them all."""
    targets = dict(arguments)
    tries: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
        "files": _try_files,
        "network": _try_network,
        "processes": _try_processes,
        "memory": _try_memory,
        "privileges": _try_privileges,
        "environment": _try_environment,
        "disk": _try_disk,
        "forks": _try_forks,
    }
    return Done(json.dumps({name: ", ".join(try_wall(targets)) for name, try_wall in tries.items()}))


@contextmanager
def _may_fail() -> Iterator[None]:
    with suppress(OSError, ValueError, MemoryError):
        yield


def _try_files(targets: dict[str, Any]) -> Iterator[str]:
    with _may_fail():
        Path(targets["secret"]).read_bytes()
        yield "it read a file of the executor"
    for folder in targets["folders"]:
        with _may_fail():
            file = Path(folder, f"bulkhead-escape-{os.getpid()}")
            file.touch()
            file.unlink()
            yield f"it wrote to {folder}"


def _try_network(targets: dict[str, Any]) -> Iterator[str]:
    for family, address in ((socket.AF_UNIX, targets["unix"]), (socket.AF_UNIX, f"\0{targets['abstract']}")):
        with _may_fail(), socket.socket(family) as wire:
            wire.connect(address)
            yield "it connected to a local socket of the executor"
    if targets["network"]:
        return
    with _may_fail(), socket.create_connection(("127.0.0.1", targets["tcp"]), CONNECT_S):
        yield "it opened a TCP connection"
    with _may_fail(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.sendto(b"escape", ("127.0.0.1", targets["udp"]))
        yield "it sent a UDP packet"


def _try_processes(targets: dict[str, Any]) -> Iterator[str]:
    for pid in (targets["pid"], *targets["victims"]):
        owner = "the executor" if pid == targets["pid"] else "another process of its user"
        with _may_fail():
            os.kill(pid, 0)
            yield f"it can signal {owner}"
        with _may_fail():
            resource.prlimit(pid, resource.RLIMIT_NOFILE)
            yield f"it can change the limits of {owner}"
        for name in ("environ", "mem"):
            with _may_fail():
                os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
                yield f"it read {name} of {owner}"
    libc = ctypes.CDLL(None, use_errno=True)
    for victim in targets["victims"]:
        if libc.ptrace(PTRACE_ATTACH, victim, None, None) == 0:
            libc.ptrace(PTRACE_DETACH, victim, None, None)
            yield "it traced another process of the executor"


def _try_memory(targets: dict[str, Any]) -> Iterator[str]:
    with _may_fail():
        mmap.mmap(-1, targets["memory_bytes"]).close()
        yield f"it took {targets['memory_bytes']} bytes"


def _try_privileges(targets: dict[str, Any]) -> Iterator[str]:
    if not ctypes.CDLL(None).prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0):
        yield "what it starts may gain rights"
    with _may_fail():
        effective = Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0]
        if int(effective, 16):
            yield f"it has capabilities {effective}"
    with _may_fail():
        os.setuid(0 if os.getuid() else 1)
        yield "it changed its user"


def _try_environment(targets: dict[str, Any]) -> Iterator[str]:
    if os.environ.get(targets["variable"]):
        yield "it saw a variable of the executor"


def _try_disk(targets: dict[str, Any]) -> Iterator[str]:
    written, files = 0, []
    with _may_fail():
        for number in range(2):
            files.append(Path(f"escape-{number}"))
            with files[-1].open("wb", buffering=0) as file:
                for _ in range(targets["disk_bytes"] // WRITE_BYTES):
                    written += file.write(bytes(WRITE_BYTES))
    for path in files:
        path.unlink(missing_ok=True)
    if written >= 2 * targets["disk_bytes"] - WRITE_BYTES:
        yield "its files together outgrew the bound: the executor watches them instead"


def _try_forks(targets: dict[str, Any]) -> Iterator[str]:
    children: list[int] = []
    read_end, write_end = os.pipe()
    with _may_fail():
        while len(children) < targets["forks"]:
            child = os.fork()
            if not child:
                os.close(write_end)
                os.read(read_end, 1)
                os._exit(0)
            children.append(child)
    os.close(write_end)  # They end by themselves: where nothing else holds, it may not signal them.
    for child in children:
        os.waitpid(child, 0)
    if len(children) >= targets["forks"]:
        yield f"it started {len(children)} processes"
