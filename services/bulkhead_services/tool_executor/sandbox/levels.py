"""Isolation levels: what was found at start, which level that makes, and why a tool is refused below its own.

In: what each mechanism said and what a child that tried the forbidden got through with. Out: levels, words. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from bulkhead.tools.api import Failed
from bulkhead_contracts.provenance import Isolation

LEVELS_RISING: tuple[Isolation, ...] = get_args(Isolation)
TOO_LOW = "isolation_too_low"
MECHANISMS = ("namespaces", "user", "rlimits", "landlock", "seccomp")
WALL_DANGERS = {
    "files": "read the executor's files and write outside its folder",
    "network": "open connections, also to the executor's own sockets",
    "processes": "signal, trace or look into the executor",
    "forks": "start processes without end",
    "memory": "take memory without end",
    "privileges": "gain rights by what it starts",
    "environment": "read the executor's environment",
}
"""What has to hold for `process_level`: the name of each wall, and what a tool could do without it."""
MEND_HINT = (
    "kernel 5.13 or newer with Landlock (lsm=landlock) and seccomp, as most distributions and Docker have it; or start "
    "tool_executor as root, which gives each tool a user of its own"
)


@dataclass(frozen=True, slots=True)
class SandboxFindings:
    """Findings about this machine. mechanisms: "" where in force, else why not. walls: "" where held, else what got
    through. wasm, container: "" where they work, else why not.
    """

    mechanisms: Mapping[str, str] = field(default_factory=dict)
    walls: Mapping[str, str] = field(default_factory=dict)
    wasm: str = "not looked at"
    container: str = "not looked at"

    @property
    def active_mechanisms(self) -> tuple[str, ...]:
        """Mechanisms that work here."""
        return tuple(name for name in MECHANISMS if self.mechanisms.get(name, "not looked at") == "")

    @property
    def open_walls(self) -> tuple[str, ...]:
        """Walls of the level `process_level` that do not hold here."""
        return tuple(name for name in WALL_DANGERS if self.walls.get(name, "not looked at"))

    @property
    def process_level(self) -> Isolation:
        """The level of a tool's own process."""
        return "none" if self.open_walls else "process"

    @property
    def available_levels(self) -> tuple[Isolation, ...]:
        """Levels that a tool can have here."""
        works = {"none": True, "process": not self.open_walls, "container": not self.container, "wasm": not self.wasm}
        return tuple(level for level in LEVELS_RISING if works[level])

    def report(self) -> dict[str, Any]:
        """The detail of `/readyz`."""
        return {
            "levels": list(self.available_levels),
            "mechanisms": {name: self.mechanisms.get(name, "not looked at") or "in force" for name in MECHANISMS},
            "walls": {name: self.walls.get(name, "not looked at") or "held" for name in (*WALL_DANGERS, "disk")},
            "wasm": self.wasm or "works",
            "container": self.container or "works",
        }

    def describe_missing(self) -> str:
        """Lack that keeps a process here from the level `process`; "" when none."""
        open_walls = {name: self.walls.get(name, "not looked at") for name in self.open_walls}
        dangers = ", ".join(f"{WALL_DANGERS[name]} ({reason})" for name, reason in open_walls.items())
        return f"a plain tool here could {dangers}" if dangers else ""


def isolation_refusal(name: str, required: Isolation, findings: SandboxFindings, available: Isolation) -> Failed | None:
    """Why a tool is not run: it is isolated less than it accepts. None when it may run."""
    if LEVELS_RISING.index(available) >= LEVELS_RISING.index(required):
        return None
    message = f"{name} accepts no isolation below `{required}`, and would run here with `{available}`"
    if required == "wasm":
        reason = findings.wasm or "its code is Python"
        hint = f"ship it as {name}.wasm beside its row" if not findings.wasm else "install `wasmtime` for tool_executor"
    elif required == "container":
        reason = findings.container
        hint = "an operator names an image in BULKHEAD_TOOL_CONTAINER_IMAGE and lets tool_executor reach Docker"
    else:
        reason, hint = findings.describe_missing(), MEND_HINT
    return Failed(TOO_LOW, f"{message}: {reason}"[:2000], f"{hint}; `bulkhead doctor` shows what is in force"[:2000])
