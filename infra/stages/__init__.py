"""Meshes that tests run on (`bulkhead.testing.stage.Stage`): composition roots, each a row of `bulkhead.stages` in
pyproject.toml. Here is what they share: a tenants file in which every test has a tenant that may use every tool.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from bulkhead.testing.stage import TENANTS
from infra.tools import rows

TASK = {"cost_usd_micros": 5_000_000, "tokens": 5_000_000, "deadline_ms": 600_000}
DAY = {"cost_usd_micros": 500_000_000, "tokens": 500_000_000}
DEFAULT_TENANT = "demo"
"""Whom `policy.yaml` has a publisher for."""


def write_tenants(path: Path, packs: Sequence[str]) -> Path:
    """Raises PackError. One row, named by all others: YAML of three hundred rows takes a second to read."""
    tools = [row.spec.name for row in rows(tuple(packs))]
    one = {"tools": tools, "document_scopes": ["default"], "task": TASK, "day": DAY}
    lines = [f"{DEFAULT_TENANT}: &every {json.dumps(one)}", *(f"{name}: *every" for name in TENANTS)]
    path.write_text("tenants:\n" + "".join(f"  {line}\n" for line in lines))
    return path
