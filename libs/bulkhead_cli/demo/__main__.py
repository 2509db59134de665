"""`make demo`: the whole mesh once, on a generated case, from documents to a checked answer; then everything stops.

With --containers (`make compose-demo`) the same on the mesh of docker-compose.yml: built, run, removed.
With --model smollm2 (`make demo MODEL=smollm2`) a real, small language model answers in place of the rule-based one.
Exit codes: 0 the answer is the right one, 1 it is not (both are shown) or the mesh could not start. The small model is
hardly ever right: with it 0 says that the task ended, with an answer or with a reason.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bulkhead_cli.demo.conversation import converse, introduce, verdict
from bulkhead_cli.inspect import read
from bulkhead_cli.output import Exit, err, out
from bulkhead_infra.demo.corpus import Demo, generate
from bulkhead_infra.local.environment import names_provider
from bulkhead_infra.local.supervisor import EXPECTED, LocalMesh

SMALL = "smollm2"


def main() -> int:
    """Parse the arguments, run, return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which case is generated")
    parser.add_argument("--data", type=Path, help="keep the mesh's state here (default: a temporary folder)")
    parser.add_argument("--containers", action="store_true", help="in containers; needs Docker and docker-compose")
    parser.add_argument("--keep", action="store_true", help="leave the mesh running until Ctrl-C")
    parser.add_argument("--model", choices=["rules", SMALL], default="rules", help="what answers without a provider")
    asked = parser.parse_args()
    if asked.containers and asked.model == SMALL:
        parser.error("--model smollm2 runs beside a mesh of processes only")
    if asked.containers and asked.data is not None:
        parser.error("--data is for a mesh of processes: in containers state lies in Docker's volumes")
    if asked.containers and asked.keep:
        parser.error("--keep is for a mesh of processes: `docker compose up` keeps one in containers")
    demo = generate(asked.seed)
    try:
        if asked.containers:
            from bulkhead_cli.demo.containers import run as run_in_containers

            return run_in_containers(demo)
        if asked.data is not None:
            return asyncio.run(_run(demo, asked.data, asked.model, keep=asked.keep))
        with tempfile.TemporaryDirectory(prefix="bulkhead-demo-") as folder:
            return asyncio.run(_run(demo, Path(folder), asked.model, keep=asked.keep))
    except EXPECTED as error:
        err.print(f"the mesh could not start: {error}", style="bold red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130


async def _run(demo: Demo, data: Path, model: str, *, keep: bool) -> int:
    if model != SMALL:
        return await run(demo, data, keep=keep)
    from bulkhead_infra.small_model.process import running

    _say("starting a small language model")
    async with running(data / "small-model.log") as settings:
        await run(demo, data, settings, keep=keep)
    return 0


async def run(demo: Demo, data: Path, provider: Mapping[str, str] | None = None, *, keep: bool = False) -> int:
    """Start, add documents, ask, print the timeline and last the answer, compare, stop.

    provider: variables that name one, beside those of the environment. keep: stop at Ctrl-C alone.
    """
    began = time.monotonic()
    environ = {**os.environ, **(provider or {})}
    offline = not names_provider(environ)
    introduce(demo, model="" if offline else environ.get("BULKHEAD_MODEL", "your provider's"))
    async with LocalMesh(data, offline_model=offline, environ=environ, on_event=_say) as mesh:
        out.print(f"  {len(mesh.units)} processes are up after {time.monotonic() - began:.1f} s", style="dim")
        ended, document = await converse(demo, mesh.url, mesh.credentials["submitter"], data / "documents")
        out.print("\n[bold]Timeline[/bold]")
        await read.show_timeline(data, document["task_id"], as_json=False)
        right = verdict(demo, document) and ended is Exit.OK
        if keep:
            tell_of_console(mesh.url, data, document["task_id"])
            await _ctrl_c()
    out.print(f"everything is stopped; {time.monotonic() - began:.1f} s in all", style="dim")
    return 0 if right else 1


def tell_of_console(url: str, data: Path, task: str) -> None:
    """The console's address, and where a key for it lies."""
    out.print(f"\nlook at it in a browser: [bold]{url}/tasks/{task}[/bold]")
    out.print(
        f"  sign in with a key of {data / 'credentials.json'}    (Ctrl-C ends the mesh)", style="dim", markup=False
    )


async def _ctrl_c() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


def _say(text: str) -> None:
    err.print(f"  {text}", style="dim", markup=False)


if __name__ == "__main__":
    sys.exit(main())
