"""`bulkhead up`: a mesh in the foreground, its log readable, one status line per process, drained by Ctrl-C.

In: a data directory, replicas per service, a durability, a port, a tenants file. Out: a running mesh until a signal.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkhead.text.validation_errors import suggest_name
from bulkhead_cli.output import CommandError, Exit
from bulkhead_cli.screen import out
from bulkhead_cli.target import read_json
from bulkhead_contracts import bounds, catalog

if TYPE_CHECKING:
    from bulkhead_infra.local.status import StatusScreen
    from bulkhead_infra.local.supervisor import LocalMesh

DURABILITIES = ("power", "process")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
QUIET = ("nats-server", "redis", "offline-model")
"""Only their warnings and errors are shown; the rest is in DIR/logs."""
MAX_REPLICAS = 64
DRAINING = (
    "draining: each process has {:g} s to finish its running work; the rest is delivered again at the next "
    "start (a second Ctrl-C ends everything at once)"
)


def parse_shards(shards: list[str]) -> dict[str, int]:
    """`worker=4` pairs of services. Raises CommandError."""
    return _parse_pairs("--shards", shards, bounds.PARTITIONS)


def parse_scale(scale: list[str]) -> dict[str, int]:
    """`worker=3` pairs. Raises CommandError."""
    return _parse_pairs("--scale", scale, MAX_REPLICAS)


def _parse_pairs(option: str, pairs: list[str], most: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for text in pairs:
        service, _, count = text.partition("=")
        if not service or not (count.isascii() and count.isdigit()) or int(count) > most:
            raise CommandError(
                Exit.USAGE, f"{option} {text!r} is not SERVICE=N", f"for example {option} worker=3; at most {most}"
            )
        if service not in catalog.SERVICES:
            raise CommandError(
                Exit.USAGE,
                f"{option} {text}: no service is called {service}{suggest_name(service, catalog.SERVICES)}",
                f"there are {', '.join(catalog.SERVICES)}",
            )
        if int(count) == 0:
            raise CommandError(
                Exit.USAGE,
                f"{option} {text} would leave the mesh without a {service}, and no task could end",
                "every service needs at least one",
            )
        counts[service] = int(count)
    return counts


async def keep_running(
    data: Path,
    scale: list[str],
    durability: str,
    ports: tuple[int, int | None],
    given: dict[str, Any],
    shards: list[str],
    tenants: Path | None = None,
    config: Path | None = None,
) -> None:
    """Start, show, drain. ports: of gateway and doors. Raises CommandError when it cannot start, or was ended
    at once.
    """
    if durability not in DURABILITIES:
        raise CommandError(Exit.USAGE, f"--durability {durability!r} is unknown", "it is power or process")
    from bulkhead_cli.console.first_screen import print_first_screen
    from bulkhead_infra.local.environment import names_provider
    from bulkhead_infra.local.status import StatusScreen
    from bulkhead_infra.local.supervisor import DRAIN_TIMEOUT_S

    replicas, shard_counts = parse_scale(scale), parse_shards(shards)
    offline = not names_provider(os.environ)
    _print_start(data, durability, offline)
    _tell_of_config(data, config)
    _tell_of_tenants(data, tenants)
    if config is None:  # Else its files are checked, and the mesh's own policy is not what is in force.
        _tell_of_tools(os.environ.get("BULKHEAD_PACKS", ""), tenants)
        _tell_of_policy(os.environ.get("BULKHEAD_POLICY_DIR", ""))
    screen = StatusScreen(out, quiet=QUIET)
    async with _started_mesh(
        data, replicas, durability, ports, offline, screen, given, shard_counts, (tenants, config)
    ) as (mesh, stop):
        out.print(f"[bold green]the mesh runs[/bold green] at [bold]{mesh.url}[/bold]")
        await print_first_screen(mesh.url, mesh.doors_url, data)
        following = asyncio.create_task(screen.follow_mesh(mesh))
        try:
            await stop.wait()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        out.print(DRAINING.format(DRAIN_TIMEOUT_S), style="bold", highlight=False)
    out.print("ended")


def _print_start(data: Path, durability: str, offline: bool) -> None:
    out.print(f"starting a mesh in {data}", style="bold", markup=False)
    if durability == "process":
        out.print(
            "durability process: survives kills of processes; a power cut can lose the messages acknowledged last",
            style="yellow",
        )
    if offline:
        out.print(
            "models: the offline model (rule-based). For a real one set a provider's key, e.g. OPENAI_API_KEY or "
            "ANTHROPIC_API_KEY, and start again.",
            style="dim",
        )
    else:
        out.print("models: those of the provider whose key is set; calls cost money", style="yellow")


def _tell_of_config(data: Path, given: Path | None) -> None:
    """Print the folder in force, with a warning when the mesh had another one before."""
    before = ""
    with contextlib.suppress(CommandError):
        before = str(read_json(data / "mesh.json").get("config_dir", ""))
    if given is not None:
        out.print(f"files of your own: {given}", style="dim", markup=False)
    elif before:
        lost = "its identities, tenants, policies and tools are not in force"
        out.print(
            f"without the files of {before}, which the mesh had before: {lost}. --config names it",
            style="yellow",
            markup=False,
        )


def _tell_of_tenants(data: Path, tenants_file: Path | None) -> None:
    """Print which tenants file is in force, with a warning when the mesh had another one before."""
    from bulkhead_infra.identity.policy import TENANTS_FILE

    before = ""
    with contextlib.suppress(CommandError):  # A file that cannot be read is written anew, or the mesh says why not.
        before = str(read_json(data / "mesh.json").get("tenants_file", ""))
    if tenants_file is not None:
        out.print(f"tenants: {tenants_file}", style="dim", markup=False)
    elif before and not _is_same_file(Path(before), TENANTS_FILE):
        out.print(
            f"tenants: those that come with the mesh, and not those of {before}, which it had before, with "
            "ceilings and tools of their own: --tenants names that file",
            style="yellow",
            markup=False,
        )


def _is_same_file(before: Path, now: Path) -> bool:
    """Also where another version of the mesh, in another place, came with the very same file."""
    with contextlib.suppress(OSError):
        return before == now or before.read_bytes() == now.read_bytes()
    return False


def _tell_of_tools(packs: str, tenants_file: Path | None) -> None:
    """Tools of packs that nobody was granted: they are there, and no task will ever use them."""
    from bulkhead_infra.identity.policy import TENANTS_FILE

    if ungranted_tools := find_ungranted_tools(packs, tenants_file or TENANTS_FILE):
        where = str(tenants_file) if tenants_file is not None else "tenants.yaml of the folder that --config names"
        out.print(
            f"no tenant may use {', '.join(ungranted_tools)}: add what is to be used to a tenant's `tools` in {where}",
            style="yellow",
            markup=False,
        )


def _tell_of_policy(folder: str) -> None:
    """The folder of rules in force, and their digest; nothing where they cannot be read: tool_executor says why."""
    from bulkhead_cli.policy.policies import SHIPPED, load_policies, tools_of

    with contextlib.suppress(CommandError):
        digest = load_policies(Path(folder or SHIPPED), tools_of(None, ())).policy.sha256[:12]
        out.print(f"policy: {folder or 'the rules that ship'}, digest {digest}", style="dim", markup=False)


def find_ungranted_tools(packs: str, tenants: Path) -> list[str]:
    """packs: as BULKHEAD_PACKS has them. [] where they or the file cannot be read: the mesh says why not."""
    from bulkhead.tools import catalog as tools_catalog
    from bulkhead_infra.identity.policy import IdentityPolicyError, load_tenants

    try:
        names = json.loads(packs or "[]")
        rows = tools_catalog.tool_rows(tuple(str(name) for name in names))
        granted = {tool for tenant in load_tenants(tenants).tenants.values() for tool in tenant.tools}
    except (ValueError, TypeError, IdentityPolicyError):
        return []
    return sorted(row.spec.name for row in rows if row.pack and row.spec.name not in granted)


@contextlib.asynccontextmanager
async def _started_mesh(
    data: Path,
    scale: dict[str, int],
    durability: str,
    ports: tuple[int, int | None],
    offline: bool,
    screen: "StatusScreen",
    given: dict[str, Any],
    shards: dict[str, int],
    own_files: tuple[Path | None, Path | None],
) -> AsyncIterator[tuple["LocalMesh", asyncio.Event]]:
    from bulkhead.http_server.tcp_ports import PortInUse
    from bulkhead_infra.identity.keys import KeyFileError
    from bulkhead_infra.identity.policy import IdentityPolicyError
    from bulkhead_infra.local.external_services import ExternalServices
    from bulkhead_infra.local.rundir import DirectoryInUse, DirectoryUnfit
    from bulkhead_infra.local.supervisor import LocalMesh
    from bulkhead_infra.nats.provision import ProvisionError
    from bulkhead_infra.processes.child import StartFailed

    try:
        mesh = LocalMesh(
            data,
            scale=scale,
            durability="process" if durability == "process" else "power",
            offline_model=offline,
            http_port=ports[0],
            doors_port=ports[1],
            on_line=screen.print_line,
            on_event=screen.print_event,
            external=ExternalServices(**given),
            shards=shards,
            tenants=own_files[0],
            config=own_files[1],
        )
    except StartFailed as error:
        raise CommandError(Exit.USAGE, str(error), "see `bulkhead up --help`") from error
    try:
        with ShutdownSignals(mesh) as stopping:
            async with mesh:
                stopping.ready = True
                yield mesh, stopping.asked
    except PortInUse as error:
        raise CommandError(Exit.FAILED, str(error), "--port 0 (--doors-port 0) takes a free one") from error
    except (DirectoryUnfit, IdentityPolicyError) as error:
        raise CommandError(
            Exit.USAGE,
            str(error),
            ""
            if isinstance(error, DirectoryUnfit)
            else "correct the file that --tenants (BULKHEAD_TENANTS_FILE) or the folder that --config names",
        ) from error
    except (StartFailed, DirectoryInUse, ProvisionError, KeyFileError) as error:
        raise CommandError(Exit.FAILED, str(error)) from error
    except asyncio.CancelledError:
        how = "at once, by a second signal; no process is left running"
        raise CommandError(
            Exit.FAILED,
            f"ended {how if mesh.ended_at_once else 'by a signal, before it was up'}",
            "no acknowledged message is lost; unfinished work continues at the next start",
        ) from None


class ShutdownSignals:
    """Signal handling: the first signal drains, or ends the start; the second ends everything at once."""

    def __init__(self, mesh: "LocalMesh") -> None:
        self.asked = asyncio.Event()
        self.ready = False
        self._mesh, self._main = mesh, asyncio.current_task()

    def __enter__(self) -> "ShutdownSignals":
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self.asked.is_set():
            self._mesh.end_at_once()
        if (self.asked.is_set() or not self.ready) and self._main is not None:
            self._main.cancel()
        self.asked.set()
