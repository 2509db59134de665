"""The tools of the mesh as data: `tools.yaml`, read here for the signer (what may be granted) and the executor.

Enters: names of packs, whose own tools.yaml is read beside it. Leaves: rows and ToolSpecs. Imports no service and runs
no code of a pack.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bulkhead.flow.schema_places import list_places
from bulkhead.text.validation_errors import find_misfits
from bulkhead.tools import packs as packages
from bulkhead_contracts import bounds
from bulkhead_contracts.provenance import Sink
from bulkhead_contracts.tool import ToolSpec

MAX_TOOLS_FILE_BYTES = 512 * 1024
ROW_FIELDS = frozenset(
    [
        "description",
        "parameters",
        "effect",
        "idempotent",
        "served_by",
        "timeout_ms",
        "max_output_bytes",
        "requires",
        "built_in",
        "sinks",
        "egress",
        "isolation",
        "network",
        "output",
        "most_calls",
        "four_eyes",
        "function",
        "credentials",
        "error_if",
        "check",
    ]
)
"""Of a row of tools.yaml."""
MESH_TOOLS_FILE = Path(__file__).with_name(packages.TOOLS_FILE)


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """A result whose JSON has something at `pointer` (RFC 6901) is an error: anything but null, false, 0 and what is
    empty; or `equals`, where that is given. message: where it says why."""

    pointer: str
    equals: Any = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class ToolRow:
    """One tool: what models see of it, how much it may return, and the settings that it cannot work without.

    network: a plain tool that opens connections itself. pack: the package that has its function; "" for a tool of this
    house. built_in: the worker's loop does it itself. function: `module:name` of a decorated function; "" for `run` of
    the module of the tool's name. credentials: names of what its calls get in `call.credentials`. error_if: when a
    result that came is an error. check: its function can tell whether a call was made. price_usd_micros: of each call,
    reserved before it.
    """

    spec: ToolSpec
    max_output_bytes: int
    requires: tuple[str, ...]
    network: bool = False
    pack: str = ""
    built_in: bool = False
    function: str = ""
    credentials: tuple[str, ...] = ()
    error_if: ErrorRule | None = None
    check: bool = False
    price_usd_micros: int = 0


@cache
def tool_rows(packs: tuple[str, ...] = ()) -> tuple[ToolRow, ...]:
    """All declared tools. Raises ValueError (PackError) that names the tool or the pack that is declared wrongly."""
    by_name = {row.spec.name: row for row in _read_rows(MESH_TOOLS_FILE, "")}
    for pack in packs:
        path = packages.folder(pack) / packages.TOOLS_FILE
        for row in _read_rows(path, pack) if path.is_file() else ():
            if (name := row.spec.name) in by_name:
                whose = by_name[name].pack or "the mesh"
                raise packages.PackError(f"{path}: {name} is a tool of {whose} already; give it another name")
            by_name[name] = row
    return tuple(by_name.values())


def file_rows(path: Path) -> tuple[ToolRow, ...]:
    """Rows of a file of this form that belongs to no pack. Raises ValueError (PackError)."""
    return _read_rows(path, path.stem, alone=True)


def tool_specs(configured: Collection[str] = (), packs: tuple[str, ...] = ()) -> tuple[ToolSpec, ...]:
    """Specs of the tools whose required settings are among `configured` (by name, e.g. {"counter_url"})."""
    return tuple(row.spec for row in tool_rows(packs) if set(row.requires) <= set(configured))


def _read_rows(path: Path, pack: str, *, alone: bool = False) -> tuple[ToolRow, ...]:
    if not pack:
        return tuple(row_of(name, declared) for name, declared in yaml.safe_load(path.read_text()).items())
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TOOLS_FILE_BYTES + 1)
        if len(raw) > MAX_TOOLS_FILE_BYTES:
            raise ValueError(f"it is longer than {MAX_TOOLS_FILE_BYTES} bytes; at most so much is read")
        declared = yaml.safe_load(raw.decode())
        skip = {"function"} if alone else set()  # Where it lies is of no interest to who only reads of it.
        pack_rows = tuple(
            row_of(str(name), {key: value for key, value in dict(declared_row).items() if key not in skip}, pack)
            for name, declared_row in dict(declared or {}).items()
        )
    except (OSError, yaml.YAMLError, ValidationError, KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise packages.PackError(f"{path}: {reason}; see the head of {MESH_TOOLS_FILE} for what a row holds") from error
    if elsewhere := [row.spec.name for row in pack_rows if row.spec.served_by != "tool_executor"]:
        raise packages.PackError(f"{path}: {elsewhere[0]}: a pack's tools are served by tool_executor; drop served_by")
    if inside := [row.spec.name for row in pack_rows if row.built_in]:
        raise packages.PackError(f"{path}: {inside[0]}: no tool of a pack is built in; drop built_in")
    return pack_rows


def row_of(name: str, declared: Mapping[str, Any], pack: str = "") -> ToolRow:
    """One row of tools.yaml. Raises ValueError or KeyError for what is none."""
    try:
        return _build_row(name, declared, pack)
    except ValidationError as error:
        raise ValueError(f"tools.yaml: {name}: {find_misfits(error, ToolSpec)[0]}") from error


def _build_row(name: str, declared: Mapping[str, Any], pack: str) -> ToolRow:
    unknown = set(declared) - ROW_FIELDS
    if unknown:
        raise ValueError(f"tools.yaml: {name}: unknown fields {sorted(unknown)}; see the head of the file")
    if not isinstance(declared["description"], str):
        raise ValueError(f"tools.yaml: {name}: description must be a text; models choose a tool by it")
    if not isinstance(declared["parameters"], dict):
        raise ValueError(f"tools.yaml: {name}: parameters must be a JSON Schema, as a mapping")
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
    sinks, output = declared.get("sinks") or {}, declared.get("output")
    if not isinstance(sinks, dict):
        raise ValueError(f"tools.yaml: {name}: sinks must be a mapping of arguments to kinds, as in {{to: recipient}}")
    if not isinstance(output, dict | None):
        raise ValueError(f"tools.yaml: {name}: output must be a JSON Schema, as a mapping")
    spec = ToolSpec(
        name=name,
        description=" ".join(declared["description"].split()),
        parameters_json=json.dumps(declared["parameters"], sort_keys=True),
        effect=declared["effect"],
        idempotent=declared["idempotent"],
        served_by=declared.get("served_by", "tool_executor"),
        timeout_ms=timeout_ms,
        sinks=tuple(Sink(argument=f"/{name.lstrip('/')}", kind=kind) for name, kind in sinks.items()),
        egress=declared.get("egress", False),
        isolation=declared.get("isolation", "none"),
        output_json=json.dumps(output, sort_keys=True) if output else "",
        most_calls=declared.get("most_calls", 0),
        four_eyes=declared.get("four_eyes", False),
        result_fields=tuple(pointer for pointer, _ in list_places(output)),
    )
    return ToolRow(
        spec,
        bound,
        _name_list(name, "requires", declared, "[desk_url]"),
        declared.get("network", False) is True,
        pack,
        bool(declared.get("built_in", False)),
        _function_path(name, declared, pack),
        _name_list(name, "credentials", declared, "[github]"),
        _error_rule(name, declared.get("error_if")),
        declared.get("check", False) is True,
    )


def _name_list(name: str, field: str, declared: Mapping[str, Any], example: str) -> tuple[str, ...]:
    names = declared.get(field) or ()
    if not isinstance(names, list | tuple) or not all(isinstance(item, str) for item in names):
        label = "settings" if field == "requires" else field
        raise ValueError(f"tools.yaml: {name}: {field} must be a list of {label}, as in {example}")
    return tuple(names)


def _function_path(name: str, declared: Mapping[str, Any], pack: str) -> str:
    path = declared.get("function", "")
    module, _, attribute = str(path).partition(":")
    if path and not (pack and attribute and f"{module}.".startswith(f"{pack}.")):
        raise ValueError(f"tools.yaml: {name}: function must be module:name of a module of the pack; export it again")
    return str(path)


def _error_rule(name: str, declared: Any) -> ErrorRule | None:
    if declared is None:
        return None
    try:
        rule = ErrorRule(**declared)
        if all(isinstance(pointer, str) and pointer[:1] in ("", "/") for pointer in (rule.pointer, rule.message)):
            return rule
    except TypeError:
        pass
    example = "{pointer: /error} or {pointer: /status, equals: failed, message: /reason}"
    raise ValueError(f"tools.yaml: {name}: error_if must be a rule, as in {example}")
