"""`bulkhead tools list` and `show`. In: packs. Out: tables or JSON. No code of a pack runs."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.tools.catalog import ToolRow, rows
from bulkhead.tools.export import installed
from bulkhead.tools.packs import PackError
from bulkhead.validation_errors import meant
from bulkhead_cli.output import Exit, Stop, err, out, print_json, print_whole


def show_tools(packs: tuple[str, ...], *, as_json: bool) -> None:
    """Print all tools."""
    named = named_packs(packs)
    found, others = read(named), sorted(set(installed()) - set(named))
    if as_json:
        print_json({"tools": [document(row) for row in found], "installed_and_not_named": others})
        return
    table = Table(box=None, pad_edge=False)
    for title in ("tool", "effect", "isolation", "sinks", "served by", "requires"):
        table.add_column(title, no_wrap=True)
    for row in found:
        table.add_row(*(escape(text) for text in _cells(row)))
    print_whole(table)
    if others:
        err.print(f"installed, and not named in BULKHEAD_PACKS: {', '.join(others)}", style="dim", markup=False)


def show_tool(name: str, packs: tuple[str, ...], *, as_json: bool) -> None:
    """Print one tool. Raises Stop for an unknown one."""
    found = {row.spec.name: row for row in read(named_packs(packs))}
    if name not in found:
        what = f"there is no tool {name!r}{meant(name, found)}"
        hint = "`bulkhead tools list` lists them; --pack names a package, `bulkhead tools export` adds its functions"
        raise Stop(Exit.USAGE, what, hint, name="unknown_tool")
    told = document(found[name])
    if as_json:
        print_json(told)
        return
    out.print(name, style="bold", markup=False)
    out.print(told["description"], markup=False)
    for field, value in told.items():
        if field in ("name", "description") or value in ("", [], {}, None):
            continue
        words = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        out.print(f"{field}: {words}", markup=False)


def named_packs(packs: tuple[str, ...]) -> tuple[str, ...]:
    """The packs that are meant; those of this folder can be imported, as they can by pytest. Raises Stop."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    if packs:
        return packs
    try:
        found = json.loads(os.environ.get("BULKHEAD_PACKS") or "[]")
        if isinstance(found, list):
            return tuple(str(one) for one in found)
    except ValueError:
        pass
    raise Stop(Exit.USAGE, "BULKHEAD_PACKS is no JSON list", """write it as '["acme_desk"]'""")


def read(packs: tuple[str, ...]) -> tuple[ToolRow, ...]:
    """The rows. Raises Stop."""
    try:
        return rows(packs)
    except PackError as error:
        raise unusable(error) from error


def unusable(error: ValueError) -> Stop:
    """A pack that cannot be used, in its own words."""
    return Stop(Exit.USAGE, str(error), "docs/tutorial/write-a-tool.md shows a package", name="bad_pack")


def document(row: ToolRow) -> dict[str, Any]:
    """One tool for programs: what it is first, then what policies look at, then its schemas."""
    spec = row.spec
    rule = row.error_if
    return {
        "name": spec.name,
        "description": spec.description,
        "served_by": "worker" if row.built_in else spec.served_by,
        "package": row.pack,
        "function": row.function,
        "effect": spec.effect,
        "idempotent": spec.idempotent,
        "sinks": {sink.argument: sink.kind for sink in spec.sinks},
        "egress": spec.egress,
        "isolation": spec.isolation,
        "network": row.network,
        "most_calls": spec.most_calls,
        "four_eyes": spec.four_eyes,
        "check": row.check,
        "requires": list(row.requires),
        "credentials": list(row.credentials),
        "timeout_ms": spec.timeout_ms,
        "max_output_bytes": row.max_output_bytes,
        "error_if": {"pointer": rule.pointer, "equals": rule.equals, "message": rule.message} if rule else None,
        "parameters": json.loads(spec.parameters_json),
        "output": json.loads(spec.output_json) if spec.output_json else None,
    }


def _cells(row: ToolRow) -> tuple[str, ...]:
    spec = row.spec
    effect = spec.effect + ("" if spec.effect == "read" else ", keyed" if spec.idempotent else ", no key")
    sinks = ", ".join(f"{sink.argument[1:]}: {sink.kind}" for sink in spec.sinks)
    if spec.effect == "write" and not sinks:
        sinks = "every argument"
    served = "worker" if row.built_in else f"{spec.served_by}{f' ({row.pack})' if row.pack else ''}"
    needs = [*row.requires, *(f"credential {name}" for name in row.credentials)]
    return spec.name, effect, spec.isolation, sinks or "-", served, ", ".join(needs) or "-"
