"""The protocol of mesh backends: in one process, as processes, or in containers.

In: a session's wishes. Out: a running mesh, asked over its own HTTP API, read through its own bus, with faults on
purpose. Backends are found by name in the entry point group `bulkhead.stages`: another kind of mesh is another row
there. `CannotDo` says what a backend lacks, and what to use instead.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from bulkhead.bus.port import Bus

GROUP = "bulkhead.stages"
TENANTS = tuple(f"test-{number:03}" for number in range(1, 301))
"""One for each test that shares a stage: documents, budgets and tasks of one are nothing to the others."""


class CannotDo(Exception):
    """The backend cannot do that; the message says why, and what can."""

    def __init__(self, mode: str, what: str, why: str, instead: str) -> None:
        super().__init__(f"a mesh of {mode} cannot {what}: {why}; {instead}")


class StageMissing(Exception):
    """A stage of that name is not installed."""


@dataclass(frozen=True, slots=True)
class StageOptions:
    """Options of a session. folder: for everything that the stage writes. packs: packages with tools and roles.

    settings: knobs of services by name (`tool_settings`, `stall_timeout_s`); each service gets those that it
    has. A URL on 127.0.0.1 in it means the test's machine, wherever the services run.
    disk_mib: the mesh gets a disk of its own of this size, which can then be filled; 0: none.
    """

    folder: Path
    packs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    disk_mib: int = 0

    @property
    def knobs(self) -> dict[str, Any]:
        """Settings with the packs."""
        return {**({"packs": self.packs} if self.packs else {}), **self.settings}


class Stage(Protocol):
    """A mesh. All coroutines run in the loop in which `open` ran. Each fault has its way back; both are idempotent.

    mode: its name. url: the gateway's HTTP. doors_url: what outside agents call. model_url: the offline model without
    `/v1`, with its admin routes. logs: a folder of one file per process.
    """

    mode: str
    url: str
    doors_url: str
    model_url: str
    logs: Path

    async def open(self) -> None:
        """Start; returns when all services are ready. Raises what says why not."""
        ...

    async def close(self) -> None:
        """Stop everything; nothing is left running."""
        ...

    async def ready(self, timeout_s: float) -> None:
        """Return when all services are ready. Raises TimeoutError with those that are not."""
        ...

    def new_key(self, tenant: str, person: str, role: str) -> str:
        """An API key; the gateway knows it by the next request."""
        ...

    def bus(self) -> AbstractAsyncContextManager[Bus]:
        """The broker as the operator sees it."""
        ...

    async def collect_logs(self) -> None:
        """Collect the services' logs in `logs`."""
        ...

    async def kill(self, service: str, *, hold: bool) -> None:
        """kill -9. It comes back by itself unless held; `restart` brings a held one back."""
        ...

    async def restart(self, service: str) -> None:
        """Bring a held service back, or drain and start a running one."""
        ...

    async def pause(self, service: str) -> None:
        """It stands still and keeps its connections, as under SIGSTOP."""
        ...

    async def resume(self, service: str) -> None:
        """End of `pause`."""
        ...

    async def disconnect(self, service: str) -> None:
        """It reaches the broker no more."""
        ...

    async def reconnect(self, service: str) -> None:
        """End of `disconnect`."""
        ...

    async def slow_broker(self, delay_ms: float) -> None:
        """Everything takes so much longer, to the broker and back; 0 ends it."""
        ...

    async def fill_disk(self) -> None:
        """Not a byte is left where the broker stores."""
        ...

    async def free_disk(self) -> None:
        """End of `fill_disk`."""
        ...

    async def empty_redis(self) -> None:
        """Kill Redis and start it with nothing in it."""
        ...


def find_stage(mode: str) -> type[Any]:
    """The class of a stage, called with `StageOptions`. Raises StageMissing."""
    stages = {entry.name: entry for entry in entry_points(group=GROUP)}
    if mode not in stages:
        installed = ", ".join(sorted(stages)) or "none"
        raise StageMissing(
            f"no stage {mode!r} is installed (installed: {installed}); run `pip install bulkhead[testing]` again, or "
            "`make setup` in a checkout: the installation is older than the code"
        )
    loaded: type[Any] = stages[mode].load()
    return loaded
