"""The tools of the mesh as data: `tools.yaml`, read here for the signer (what may be granted) and the executor.

Leaves: rows and ToolSpecs. Imports no service.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from bulkhead_contracts import limits
from bulkhead_contracts.tool import ToolSpec


@dataclass(frozen=True, slots=True)
class ToolRow:
    """One tool: what models see of it, how much it may return, and the settings that it cannot work without."""

    spec: ToolSpec
    max_output_bytes: int
    requires: tuple[str, ...]


@cache
def rows() -> tuple[ToolRow, ...]:
    """All declared tools. Raises ValueError that names the tool that is declared wrongly."""
    found = yaml.safe_load(files(__package__).joinpath("tools.yaml").read_text())
    return tuple(_row(name, declared) for name, declared in found.items())


def specs(configured: Collection[str] = ()) -> tuple[ToolSpec, ...]:
    """Specs of the tools whose required settings are among `configured` (by name, e.g. {"counter_url"})."""
    return tuple(row.spec for row in rows() if set(row.requires) <= set(configured))


def _row(name: str, declared: dict[str, Any]) -> ToolRow:
    unknown = set(declared) - {
        "description", "parameters", "effect", "idempotent", "served_by", "timeout_ms", "max_output_bytes", "requires",
    }  # fmt: skip
    if unknown:
        raise ValueError(f"tools.yaml: {name}: unknown fields {sorted(unknown)}; see the head of the file")
    bound = declared.get("max_output_bytes", limits.MAX_TOOL_OUTPUT_BYTES)
    if not 0 < bound <= limits.MAX_TOOL_OUTPUT_BYTES:
        raise ValueError(f"tools.yaml: {name}: max_output_bytes must be 1-{limits.MAX_TOOL_OUTPUT_BYTES}")
    spec = ToolSpec(
        name=name,
        description=" ".join(declared["description"].split()),
        parameters_json=json.dumps(declared["parameters"], sort_keys=True),
        effect=declared["effect"],
        idempotent=declared["idempotent"],
        served_by=declared.get("served_by", "tool_executor"),
        timeout_ms=declared.get("timeout_ms", limits.DEFAULT_TOOL_TIMEOUT_MS),
    )
    return ToolRow(spec, bound, tuple(declared.get("requires", ())))
