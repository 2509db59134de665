"""Which mesh a command speaks to: `--url/--api-key`, their environment variables, or the data directory of
`up`.

In: options. Out: an address with credentials, or a CommandError that says what is missing. mesh.json says
what runs and where (no secrets); credentials.json, mode 0600, holds the API keys that `up` made.
"""

import hashlib
import json
import os
import pwd
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bulkhead_cli.output import CommandError, Exit

if TYPE_CHECKING:
    from bulkhead.bus.jetstream.bus import JetStreamBus
    from bulkhead.client import Mesh
    from bulkhead.client.transport import Transport

DEFAULT_DATA = Path(".bulkhead")
API_KEYS_FILE = "api_keys.json"
PREFERRED_ROLES = ("operator", "submitter", "auditor", "approver", "prompt_editor", "evaluator")
CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class GatewayTarget:
    """A mesh's gateway and who we are to it. data: its data directory, where that was found there."""

    url: str
    api_key: str
    data: Path | None = None

    def mesh_client(self) -> "Mesh":
        """A client."""
        from bulkhead.client import Mesh

        return Mesh(self.url, self.api_key)

    @asynccontextmanager
    async def open_transport(self) -> AsyncIterator["Transport"]:
        """Plain requests, for a command that prints what it gets: without the models that a client checks by, whose
        import takes longer than the request."""
        sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # httpx's own command line
        from bulkhead.client.transport import TIMEOUT_S, Transport

        transport = Transport(self.url, {"Authorization": f"Bearer {self.api_key}"}, TIMEOUT_S, None)
        try:
            yield transport
        finally:
            await transport.close()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; {} when there is no file. Raises CommandError when it cannot be read."""
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CommandError(
            Exit.USAGE,
            f"{path} cannot be read: {error}",
            "start the mesh again with `bulkhead up`, which writes it anew",
        ) from error
    return document if isinstance(document, dict) else {}


def find_target(data: Path, url: str, api_key: str, tenant: str = "", *, may_make_key: bool = False) -> GatewayTarget:
    """The mesh that the options name. Raises CommandError when something is missing.

    may_make_key: who owns DIR may act for every tenant; a tenant's first submission makes the key for it.
    """
    if url and not _is_url(url):
        raise CommandError(Exit.USAGE, f"--url {url!r} is no address of a gateway", "write it as http://127.0.0.1:8080")
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise CommandError(
            Exit.USAGE,
            "--api-key (or BULKHEAD_API_KEY) holds characters that no key has",
            f"copy it again, without surrounding characters; keys of a local mesh are in {data / 'credentials.json'}",
        )
    if url and api_key:
        return GatewayTarget(url, api_key)
    mesh = read_json(data / "mesh.json")
    found_url = url or gateway_url(mesh)
    if not found_url:
        raise CommandError(
            Exit.UNREACHABLE,
            f"no mesh runs in {data}",
            "start one with `bulkhead up`, or name one with --data, or with --url and --api-key",
        )
    key = api_key or _tenant_key(data, mesh, tenant, may_make_key=may_make_key)
    if not key:
        raise CommandError(
            Exit.USAGE,
            f"no API key for {f'tenant {tenant}' if tenant else found_url}",
            f"use --api-key or BULKHEAD_API_KEY; keys of a local mesh are in {data / 'credentials.json'}",
        )
    return GatewayTarget(found_url, key, data if found_url == gateway_url(mesh) else None)


def doors_of(data: Path, url: str, api_key: str, tenant: str = "") -> tuple[str, str]:
    """The address of the doors, and a key. Raises CommandError when something is missing."""
    mesh = read_json(data / "mesh.json")
    address = url or str(mesh.get("doors_url") or "")
    if not _is_url(address):
        hint = "start a mesh with `bulkhead up`, or name its doors with --doors-url, as http://127.0.0.1:8090"
        raise CommandError(
            Exit.UNREACHABLE, f"no address of doors: {address!r}" if address else f"no mesh runs in {data}", hint
        )
    key = api_key or _tenant_key(data, mesh, tenant, may_make_key=False)
    if not key:
        hint = f"use --api-key or BULKHEAD_API_KEY; keys of a local mesh are in {data / 'credentials.json'}"
        raise CommandError(Exit.USAGE, f"no API key for {address}", hint)
    return address, key


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def gateway_url(mesh: dict[str, Any]) -> str:
    """The gateway's address in mesh.json."""
    return str(mesh.get("http_url") or "")


def nats_url(mesh: dict[str, Any]) -> str:
    """The broker's address in mesh.json."""
    return str(mesh.get("nats_url") or "")


def _tenant_key(data: Path, mesh: dict[str, Any], tenant: str, *, may_make_key: bool) -> str:
    """The local user's key for a tenant, or for any; "" when this directory has no keys. Raises CommandError."""
    path = data / "credentials.json"
    credentials = read_json(path)
    if not credentials:
        return ""
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise CommandError(Exit.USAGE, f"{path} can be read by others", f"run: chmod 600 {path}")
    rows = {row["sha256"]: row for row in read_json(data / API_KEYS_FILE).get("keys", ())}
    mine = [
        (row, key) for key in credentials.values() if (row := rows.get(hashlib.sha256(str(key).encode()).hexdigest()))
    ]
    fitting = [(row, key) for row, key in mine if row["tenant"] == tenant or not tenant]
    for role in PREFERRED_ROLES:
        for row, key in fitting:
            if row["role"] == role:
                return str(key)
    if not tenant:
        return ""
    known_tenants = mesh.get("tenants") or sorted({row["tenant"] for row in rows.values()})
    if tenant not in known_tenants:
        from bulkhead.text.validation_errors import suggest_name

        raise CommandError(
            Exit.USAGE,
            f"no tenant {tenant}; there are {', '.join(known_tenants)}{suggest_name(tenant, known_tenants)}",
            "an operator adds a tenant to the file that `bulkhead up --tenants` names (without it: "
            "infra/bulkhead_infra/identity/tenants.yaml) and starts the mesh again",
        )
    if not may_make_key:
        raise CommandError(
            Exit.USAGE,
            f"tenant {tenant} has no API key in {data} yet",
            f"its first `bulkhead submit … --tenant {tenant}` makes one; or use --api-key",
        )
    return _new_key(data, tenant)


def _new_key(data: Path, tenant: str) -> str:
    from bulkhead_infra.identity.callers import key_row, new_key
    from bulkhead_infra.identity.keys import replace_file

    key = new_key()
    credentials = {**read_json(data / "credentials.json"), f"{tenant}/operator": key}
    # The key first: a digest without its key would be of no use to anybody.
    replace_file(data / "credentials.json", json.dumps(credentials, indent=1))
    rows = [*read_json(data / API_KEYS_FILE).get("keys", ()), key_row(key, tenant, "local-operator", "operator")]
    replace_file(data / API_KEYS_FILE, json.dumps({"keys": rows}, indent=1))
    return key


def local_user() -> str:
    """The user at this machine: everybody who may read the operator's key is an operator."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"


@asynccontextmanager
async def operator_bus(data: Path) -> AsyncIterator["JetStreamBus"]:
    """The broker under the operator's identity, which only the machine of the mesh has. Raises CommandError,
    BusError.
    """
    from bulkhead.bus.jetstream.bus import JetStreamBus
    from bulkhead.bus.jetstream.connection import ca_beside

    url = nats_url(read_json(data / "mesh.json"))
    key = data / "identity" / "operator.nkey"
    if not url:
        raise CommandError(
            Exit.UNREACHABLE,
            f"no mesh runs in {data}",
            "this command reads the broker itself: name the data directory of a running mesh with --data",
        )
    try:
        seed = key.read_text().strip()
    except OSError as error:
        raise CommandError(
            Exit.USAGE,
            f"the operator's key {key} cannot be read: {error.strerror}",
            "run this as the user that started the mesh",
        ) from error
    bus = await JetStreamBus.connect(
        url,
        service="operator",
        nkey_seed=seed,
        name="operator",
        timeout_s=CONNECT_TIMEOUT_S,
        ca_file=ca_beside(key.parent),
    )
    try:
        yield bus
    finally:
        await bus.close()
