"""The tools of the mesh as data: `tools.yaml`, read here for the signer (what may be granted) and the executor.

Enters: names of packs, whose own tools.yaml is read beside it. Leaves: rows and ToolSpecs. Imports no service and runs
no code of a pack.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bulkhead.tools import packs as packages
from bulkhead_contracts import bounds
from bulkhead_contracts.tool import ToolSpec

MAX_TOOLS_FILE_BYTES = 512 * 1024
OWN = Path(__file__).with_name(packages.TOOLS_FILE)


@dataclass(frozen=True, slots=True)
class ToolRow:
    """One tool: what models see of it, how much it may return, and the settings that it cannot work without.

    pack: the package that has its function; "" for a tool of this house. built_in: the worker's loop does it itself.
    """

    spec: ToolSpec
    max_output_bytes: int
    requires: tuple[str, ...]
    pack: str = ""
    built_in: bool = False


@cache
def rows(packs: tuple[str, ...] = ()) -> tuple[ToolRow, ...]:
    """All declared tools. Raises ValueError (PackError) that names the tool or the pack that is declared wrongly."""
    found = {row.spec.name: row for row in _read(OWN, "")}
    for pack in packs:
        path = packages.folder(pack) / packages.TOOLS_FILE
        for row in _read(path, pack) if path.is_file() else ():
            if (name := row.spec.name) in found:
                whose = found[name].pack or "the mesh"
                raise packages.PackError(f"{path}: {name} is a tool of {whose} already; give it another name")
            found[name] = row
    return tuple(found.values())


def specs(configured: Collection[str] = (), packs: tuple[str, ...] = ()) -> tuple[ToolSpec, ...]:
    """Specs of the tools whose required settings are among `configured` (by name, e.g. {"counter_url"})."""
    return tuple(row.spec for row in rows(packs) if set(row.requires) <= set(configured))


def _read(path: Path, pack: str) -> tuple[ToolRow, ...]:
    if not pack:
        return tuple(_row(name, declared) for name, declared in yaml.safe_load(path.read_text()).items())
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TOOLS_FILE_BYTES + 1)
        if len(raw) > MAX_TOOLS_FILE_BYTES:
            raise ValueError(f"it is longer than {MAX_TOOLS_FILE_BYTES} bytes; at most so much is read")
        declared = yaml.safe_load(raw.decode())
        found = tuple(_row(str(name), dict(one), pack) for name, one in dict(declared or {}).items())
    except (OSError, yaml.YAMLError, ValidationError, KeyError, TypeError, ValueError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise packages.PackError(f"{path}: {why}; see the head of {OWN} for what a row holds") from error
    if elsewhere := [row.spec.name for row in found if row.spec.served_by != "tool_executor"]:
        raise packages.PackError(f"{path}: {elsewhere[0]}: a pack's tools are served by tool_executor; drop served_by")
    if inside := [row.spec.name for row in found if row.built_in]:
        raise packages.PackError(f"{path}: {inside[0]}: no tool of a pack is built in; drop built_in")
    return found


def _row(name: str, declared: dict[str, Any], pack: str = "") -> ToolRow:
    unknown = set(declared) - {
        "description",
        "parameters",
        "effect",
        "idempotent",
        "served_by",
        "timeout_ms",
        "max_output_bytes",
        "requires",
        "built_in",
    }
    if unknown:
        raise ValueError(f"tools.yaml: {name}: unknown fields {sorted(unknown)}; see the head of the file")
    if not isinstance(declared["description"], str):
        raise ValueError(f"tools.yaml: {name}: description must be a text; models choose a tool by it")
    if not isinstance(declared["parameters"], dict):
        raise ValueError(f"tools.yaml: {name}: parameters must be a JSON Schema, as a mapping")
    requires = declared.get("requires") or ()
    if not isinstance(requires, list | tuple) or not all(isinstance(one, str) for one in requires):
        raise ValueError(f"tools.yaml: {name}: requires must be a list of settings, as in [desk_url]")
    bound = declared.get("max_output_bytes", bounds.MAX_TOOL_OUTPUT_BYTES)
    if not 0 < bound <= bounds.MAX_TOOL_OUTPUT_BYTES:
        raise ValueError(f"tools.yaml: {name}: max_output_bytes must be 1-{bounds.MAX_TOOL_OUTPUT_BYTES}")
    timeout_ms = declared.get("timeout_ms", bounds.DEFAULT_TOOL_TIMEOUT_MS)
    if type(timeout_ms) is not int or not 0 < timeout_ms <= bounds.MAX_TOOL_TIMEOUT_MS:
        raise ValueError(
            f"tools.yaml: {name}: timeout_ms is {str(timeout_ms)[:20]}, and must be a whole number from 1 "
            f"to {bounds.MAX_TOOL_TIMEOUT_MS}. What takes longer is started by one tool and asked for "
            "by another"
        )
    spec = ToolSpec(
        name=name,
        description=" ".join(declared["description"].split()),
        parameters_json=json.dumps(declared["parameters"], sort_keys=True),
        effect=declared["effect"],
        idempotent=declared["idempotent"],
        served_by=declared.get("served_by", "tool_executor"),
        timeout_ms=timeout_ms,
    )
    return ToolRow(spec, bound, tuple(requires), pack, bool(declared.get("built_in", False)))
