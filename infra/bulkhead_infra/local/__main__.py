"""`python -m bulkhead_infra.local --data DIR`: a mesh in the foreground; Ctrl-C drains it, again ends it at once.

Exit codes: 0 drained, 1 it could not start (the message says why and what to do) or was ended at once, 2 wrong
arguments.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from bulkhead.tcp_ports import PortInUse
from bulkhead_infra.identity.keys import KeyFileError
from bulkhead_infra.identity.policy import PolicyError
from bulkhead_infra.local.rundir import DirectoryInUse, DirectoryUnfit
from bulkhead_infra.local.status import Screen
from bulkhead_infra.local.supervisor import BROKER, REDIS, LocalMesh
from bulkhead_infra.nats.provision import ProvisionError
from bulkhead_infra.nats.purge import retention_of
from bulkhead_infra.processes.child import StartFailed

EXPECTED = (StartFailed, DirectoryInUse, DirectoryUnfit, PortInUse, ProvisionError, PolicyError, KeyFileError)


async def run(mesh: LocalMesh, screen: Screen) -> int:
    """Until SIGINT or SIGTERM; returns the exit code."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    starting = asyncio.current_task()
    assert starting is not None

    def stop() -> None:
        if stopping.is_set():
            mesh.end_at_once()
        if stopping.is_set() or not mesh.up:
            starting.cancel()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        async with mesh:
            screen.event(f"{mesh.url} answers; state and keys lie in {mesh.directory}")
            following = asyncio.create_task(screen.follow(mesh))
            await stopping.wait()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            screen.event("draining")
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise
    if mesh.ended_at_once:
        screen.event("ended at once, by a second signal; unfinished work continues at the next start")
    return int(mesh.ended_at_once)


def main(argv: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bulkhead_infra.local", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(".bulkhead"))
    parser.add_argument("--scale", action="append", default=[], metavar="SERVICE=N")
    parser.add_argument("--durability", choices=("power", "process"), default="power")
    parser.add_argument("--http-port", type=int, default=0)
    parser.add_argument("--tenants", type=Path)
    parser.add_argument("--retention", default="30d", metavar="TIME", help="ended tasks are purged after it (30d)")
    parser.add_argument("--provider", action="store_true", help="a real provider instead of the offline model")
    given = parser.parse_args(argv)
    scale = {}
    for pair in given.scale:
        name, _, count = pair.partition("=")
        if not count.isdigit():
            parser.error(f"--scale {pair}: write it as worker=3")
        scale[name] = int(count)
    try:
        retention = retention_of(given.retention, ())
    except ValueError as error:
        parser.error(f"--retention: {error}")
    screen = Screen(quiet=(BROKER, REDIS))
    try:
        mesh = LocalMesh(
            given.data,
            scale=scale,
            durability=given.durability,
            offline_model=not given.provider,
            tenants=given.tenants,
            http_port=given.http_port,
            on_line=screen.line,
            on_event=screen.event,
            retention=retention,
        )
        return asyncio.run(run(mesh, screen))
    except EXPECTED as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
