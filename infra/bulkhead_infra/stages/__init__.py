"""Meshes that tests run on (`bulkhead.testing.mesh_backend.Stage`): composition roots, each a row of `bulkhead.stages`
in
pyproject.toml. Here is what they share: a tenants file in which every test has a tenant that may use every tool, and a
file of API keys to which tests add.
"""

import hashlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from bulkhead.testing.mesh_backend import TENANTS
from bulkhead.tools.catalog import rows

TASK = {"cost_usd_micros": 5_000_000, "tokens": 5_000_000, "deadline_ms": 600_000}
DAY = {"cost_usd_micros": 500_000_000, "tokens": 500_000_000}
DEFAULT_TENANT = "demo"
"""Whom `policy.yaml` has a publisher for."""
READABLE = 0o644
"""Neither file holds a secret, and in a container another user reads them."""


def write_tenants(path: Path, packs: Sequence[str]) -> Path:
    """Raises PackError. One row, named by all others: YAML of three hundred rows takes a second to read."""
    tools = [row.spec.name for row in rows(tuple(packs))]
    one = {"tools": tools, "document_scopes": ["default"], "task": TASK, "day": DAY}
    lines = [f"{DEFAULT_TENANT}: &every {json.dumps(one)}", *(f"{name}: *every" for name in TENANTS)]
    path.write_text("tenants:\n" + "".join(f"  {line}\n" for line in lines))
    path.chmod(READABLE)
    return path


class KeyFile:
    """The gateway's API keys: digests. A running gateway reads the file again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, str]] = []
        self._write()

    def add(self, tenant: str, person: str, role: str) -> str:
        """A new key."""
        key = "bk_" + secrets.token_urlsafe(32)
        digest = hashlib.sha256(key.encode()).hexdigest()
        self._rows.append({"sha256": digest, "tenant": tenant, "person": person, "role": role})
        self._write()
        return key

    def _write(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({"keys": self._rows}))
        fresh.chmod(READABLE)
        fresh.replace(self._path)
