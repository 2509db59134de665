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

from bulkhead.client import Mesh
from bulkhead_cli.inspect import commands
from bulkhead_cli.output import Exit, err, out
from bulkhead_cli.tasks import follow
from bulkhead_infra.demo.corpus import Demo, generate, write
from bulkhead_infra.demo.verdict import compare
from bulkhead_infra.local.__main__ import EXPECTED
from bulkhead_infra.local.supervisor import LocalMesh


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
    """Start, ingest, ask, watch, compare, show the timeline, stop."""
    began = time.monotonic()
    offline = not (os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"))
    introduce(demo, offline=offline)
    async with LocalMesh(data, offline_model=offline, on_event=_say) as mesh:
        out.print(f"  {len(mesh.units)} processes are up after {time.monotonic() - began:.1f} s", style="dim")
        ended, document = await converse(demo, mesh.url, mesh.credentials["submitter"], data / "documents")
        out.print("\n[bold]Timeline[/bold]")
        await commands.show_timeline(data, document["task_id"], as_json=False)
        right = verdict(demo, document) and ended is Exit.OK
    out.print(f"everything is stopped; {time.monotonic() - began:.1f} s in all", style="dim")
    return 0 if right else 1


def introduce(demo: Demo, *, offline: bool) -> None:
    """What is about to be shown."""
    out.print(f"[bold]Bulkhead demo[/bold], case {demo.seed}: {demo.airline}")
    model = "the offline one: rule-based, deterministic, no LLM" if offline else "your provider"
    out.print(f"  model: {model}", style="dim")


async def converse(demo: Demo, url: str, api_key: str, folder: Path) -> tuple[Exit, dict]:  # type: ignore[type-arg]
    """Ingest, ask, watch: how it ended, and the task's document."""
    files = write(demo, folder)
    async with Mesh(url, api_key) as client:
        for path in files:
            receipt = await client.add_document(path)
            line = f"  {receipt['outcome']} {receipt['name']} ({receipt['chunks']} chunks)"
            out.print(line, style="dim", markup=False)
        out.print(f"\n{demo.objective}\n", markup=False, soft_wrap=True)
        task = await client.submit(demo.objective, idempotency_key=f"demo-{demo.seed}")
        ended = await follow.watch(task, out, as_json=False)
        return ended, await task.show()


def _say(text: str) -> None:
    err.print(f"  {text}", style="dim", markup=False)


def verdict(demo: Demo, document: dict) -> bool:  # type: ignore[type-arg]
    """Compare with what the generator knows, and show both when they differ."""
    result = document.get("result") or {}
    answer = document.get("answer") or ""
    cited = {one["document"] for one in result.get("citations", ())}
    found = compare(demo, answer, cited)
    expected = demo.expected
    if found.ok:
        out.print(
            f"\n[bold green]right[/bold green]: {expected.currency} {expected.amount}, citing "
            f"{', '.join(expected.must_cite)} - as the generator of the case expects"
        )
        return True
    err.print("\n[bold red]the answer is not the expected one[/bold red]")
    cited = ", ".join(expected.must_cite)
    err.print(f"  expected: {expected.currency} {expected.amount}, citing {cited}", markup=False)
    err.print(f"  given:    {answer or document.get('failure')}", markup=False)
    for difference in found.differences:
        err.print(f"  - {difference}", markup=False)
    return False


if __name__ == "__main__":
    sys.exit(main())
