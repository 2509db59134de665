"""Which mesh a command speaks to: `--url/--api-key`, their environment variables, or the data directory of `up`.

In: options. Out: an address with credentials, or a Stop that says what is missing. mesh.json says what runs and
where (no secrets); credentials.json, mode 0600, holds the API keys that `up` made.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkhead.cli.output import Exit, Stop

if TYPE_CHECKING:
    from bulkhead.bus.jetstream import JetStreamBus
    from bulkhead.client import Mesh

DEFAULT_DATA = Path(".bulkhead")
CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """A mesh's gateway and who we are to it."""

    url: str
    api_key: str

    def mesh(self) -> "Mesh":
        """A client."""
        from bulkhead.client import Mesh

        return Mesh(self.url, self.api_key)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; {} when there is no file. Raises Stop when it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Stop(Exit.USAGE, f"{path} cannot be read: {error}",
                   "start the mesh again with `bulkhead up`, which writes it anew") from error
    return found if isinstance(found, dict) else {}


def find(data: Path, url: str, api_key: str, tenant: str = "") -> Target:
    """The mesh that the options name. Raises Stop when something is missing."""
    if url and api_key:
        return Target(url, api_key)
    mesh = read_json(data / "mesh.json")
    found_url = url or gateway_url(mesh)
    if not found_url:
        raise Stop(Exit.UNREACHABLE, f"no mesh runs in {data}",
                   "start one with `bulkhead up`, or name one with --data, or with --url and --api-key")
    key = api_key or _key(data / "credentials.json", tenant)
    if not key:
        raise Stop(Exit.USAGE, f"no API key for {f'tenant {tenant}' if tenant else found_url}",
                   f"use --api-key or BULKHEAD_API_KEY; keys of a local mesh are in {data / 'credentials.json'}")
    return Target(found_url, key)


def gateway_url(mesh: dict[str, Any]) -> str:
    """The gateway's address in mesh.json."""
    return str(mesh.get("gateway_url") or mesh.get("url") or "")


def nats_url(mesh: dict[str, Any]) -> str:
    """The broker's address in mesh.json."""
    return str(mesh.get("nats_url") or "")


def _key(path: Path, tenant: str) -> str:
    """The first key of the tenant (of any, when none is named)."""
    found = read_json(path)
    if found and os.name == "posix" and path.stat().st_mode & 0o077:
        raise Stop(Exit.USAGE, f"{path} can be read by others", f"run: chmod 600 {path}")
    for row in found.get("keys", ()):
        if isinstance(row, dict) and (not tenant or row.get("tenant") == tenant):
            return str(row.get("key", ""))
    return ""


@asynccontextmanager
async def operator_bus(data: Path) -> AsyncIterator["JetStreamBus"]:
    """The broker under the operator's identity, which only the machine of the mesh has. Raises Stop, BusError."""
    from bulkhead.bus.jetstream import JetStreamBus

    url = nats_url(read_json(data / "mesh.json"))
    key = data / "identity" / "operator.nkey"
    if not url:
        raise Stop(Exit.UNREACHABLE, f"no mesh runs in {data}",
                   "this command reads the broker itself: name the data directory of a running mesh with --data")
    try:
        seed = key.read_text().strip()
    except OSError as error:
        raise Stop(Exit.USAGE, f"the operator's key {key} cannot be read: {error.strerror}",
                   "run this as the user that started the mesh") from error
    bus = await JetStreamBus.connect(url, service="operator", nkey_seed=seed, name="operator",
                                     timeout_s=CONNECT_TIMEOUT_S)
    try:
        yield bus
    finally:
        await bus.close()
