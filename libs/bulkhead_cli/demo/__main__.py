"""`make demo`: the whole mesh once, on a generated case, from documents to a checked answer; then everything stops.

With --containers (`make compose-demo`) the same on the mesh of docker-compose.yml: built, run, removed.
Exit codes: 0 the answer is the right one, 1 it is not (both are shown) or the mesh could not start.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from bulkhead_cli.demo.conversation import converse, introduce, verdict
from bulkhead_cli.inspect import read
from bulkhead_cli.output import Exit, err, out
from bulkhead_infra.demo.corpus import Demo, generate
from bulkhead_infra.local.environment import names_provider
from bulkhead_infra.local.supervisor import EXPECTED, LocalMesh


def main() -> int:
    """Parse the arguments, run, return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which case is generated")
    parser.add_argument("--data", type=Path, help="keep the mesh's state here (default: a temporary folder)")
    parser.add_argument("--containers", action="store_true", help="in containers; needs Docker and docker-compose")
    asked = parser.parse_args()
    if asked.containers and asked.data is not None:
        parser.error("--data is for a mesh of processes: in containers state lies in Docker's volumes")
    demo = generate(asked.seed)
    try:
        if asked.containers:
            from bulkhead_cli.demo.containers import run as run_in_containers

            return run_in_containers(demo)
        if asked.data is not None:
            return asyncio.run(run(demo, asked.data))
        with tempfile.TemporaryDirectory(prefix="bulkhead-demo-") as folder:
            return asyncio.run(run(demo, Path(folder)))
    except EXPECTED as error:
        err.print(f"the mesh could not start: {error}", style="bold red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130


async def run(demo: Demo, data: Path) -> int:
    """Start, add documents, ask, print the timeline and last the answer, compare, stop."""
    began = time.monotonic()
    offline = not names_provider(os.environ)
    introduce(demo, offline=offline)
    async with LocalMesh(data, offline_model=offline, on_event=_say) as mesh:
        out.print(f"  {len(mesh.units)} processes are up after {time.monotonic() - began:.1f} s", style="dim")
        ended, document = await converse(demo, mesh.url, mesh.credentials["submitter"], data / "documents")
        out.print("\n[bold]Timeline[/bold]")
        await read.show_timeline(data, document["task_id"], as_json=False)
        right = verdict(demo, document) and ended is Exit.OK
    out.print(f"everything is stopped; {time.monotonic() - began:.1f} s in all", style="dim")
    return 0 if right else 1


def _say(text: str) -> None:
    err.print(f"  {text}", style="dim", markup=False)


if __name__ == "__main__":
    sys.exit(main())
