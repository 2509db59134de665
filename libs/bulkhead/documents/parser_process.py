"""A parser in a process of its own, with little memory and time: a hostile file ends that process alone.

Enters: a module, its arguments, a document. Leaves: the JSON object that it writes; or a reply with a `code` where it
crashed or took too long.
"""

import asyncio
import json
import logging
import math
import os
import resource
import sys
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from typing import Any

DAMAGED = "damaged_document"


@dataclass(frozen=True, slots=True)
class ParserLimits:
    """Limits of a parser. Its settings and bounds are told it as arguments."""

    memory_mib: int
    timeout_s: float

    def as_arguments(self) -> tuple[str, str]:
        """The first arguments of a parser, which `limit_this_process` reads."""
        return str(self.memory_mib), str(math.ceil(self.timeout_s))


def limit_this_process(memory_mib: int, cpu_s: int) -> None:
    """Limit the process of a parser, before it reads anything."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib * 2**20, memory_mib * 2**20))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    logging.disable(logging.CRITICAL)


async def run_parser(module: str, form: str, data: bytes, limits: ParserLimits, *more: int) -> dict[str, Any]:
    """The reply of `python -m MODULE FORM MEMORY_MIB CPU_SECONDS MORE...`; a `code` and a `message` for none."""
    # An environment of its own: the parser of a hostile file must not see this service's secrets.
    program = (sys.executable, "-m", module, form, *limits.as_arguments(), *map(str, more))
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = await asyncio.create_subprocess_exec(*program, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=env)
    try:
        out, _ = await asyncio.wait_for(child.communicate(data), limits.timeout_s)
    except TimeoutError:
        out = b""
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if out:
        reply: dict[str, Any] = json.loads(out)
        return reply
    most = f"{limits.timeout_s:g} s or {limits.memory_mib} MiB"
    message = f"reading it as {form} took more than {most}, or crashed the parser (exit {child.returncode})"
    return {"code": DAMAGED, "message": message}
