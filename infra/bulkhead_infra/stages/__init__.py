"""Meshes that tests run on (`bulkhead.testing.mesh_backend.Stage`), each a row of `bulkhead.stages` in pyproject.toml.

This module holds their shared parts: a tenants file in which every test has a tenant that may use every tool, a file of
API keys to which tests add, and the settings that a session wishes for.
"""

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import Bus
from bulkhead.testing.mesh_backend import TENANTS
from bulkhead.tools import packs as packages
from bulkhead.tools.catalog import tool_rows
from bulkhead_infra.identity import callers
from bulkhead_infra.local.environment import PREFIX

TASK = {"cost_usd_micros": 5_000_000, "tokens": 5_000_000, "deadline_ms": 600_000}
DAY = {"cost_usd_micros": 500_000_000, "tokens": 500_000_000}
DEFAULT_TENANT = "demo"
"""The tenant of the publisher in `policy.yaml`."""
READABLE = 0o644
"""Neither file holds a secret, and in a container another user reads them."""


def write_tenants(path: Path, packs: Sequence[str]) -> Path:
    """One row, referenced by all others: YAML of three hundred rows takes a second to read. Raises PackError."""
    specs = [row.spec for row in tool_rows(tuple(packs))]
    tools, writes = [spec.name for spec in specs], [spec.name for spec in specs if spec.effect == "write"]
    every = {"tools": tools, "default_writes": writes, "document_scopes": ["default"], "task": TASK, "day": DAY}
    lines = [f"{DEFAULT_TENANT}: &every {json.dumps(every)}", *(f"{name}: *every" for name in TENANTS)]
    path.write_text("tenants:\n" + "".join(f"  {line}\n" for line in lines))
    path.chmod(READABLE)
    return path


PERMIT_ALL = '@id("tests")\npermit (principal, action, resource);\n'
"""Tests of agents are about what agents do: nobody is there to ask. `policy_dir` among the settings gives another."""


def write_policy(folder: Path) -> Path:
    """A policy that asks about nothing."""
    folder.mkdir(exist_ok=True)
    (folder / "default.cedar").write_text(PERMIT_ALL)
    folder.chmod(0o755)
    (folder / "default.cedar").chmod(READABLE)
    return folder


def knob_variables(knobs: Mapping[str, Any], accepted: Collection[str]) -> dict[str, str]:
    """The environment that gives the `accepted` ones of these settings to a service."""
    wished = {PREFIX + name.upper(): value for name, value in knobs.items() if name in accepted}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in wished.items()}


def pack_home(pack: str) -> Path:
    """The folder in which Python finds a pack."""
    return packages.folder(pack).parents[pack.count(".")]


@asynccontextmanager
async def operator_bus(url: str, seed: str, ca_file: Path | None = None) -> AsyncIterator[Bus]:
    """The broker as the operator sees it."""
    bus = await JetStreamBus.connect(url, service="operator", nkey_seed=seed, name="test", ca_file=ca_file)
    try:
        yield bus
    finally:
        await bus.close()


class KeyFile:
    """The gateway's API keys: digests. A running gateway reads the file again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, str | bool | int]] = []
        self._write()

    def add(self, tenant: str, person: str, role: str) -> str:
        key = callers.new_key()
        self._rows.append(callers.key_row(key, tenant, person, role))
        self._write()
        return key

    def _write(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({"keys": self._rows}))
        fresh.chmod(READABLE)
        fresh.replace(self._path)
