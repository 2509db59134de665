"""`bulkhead tools list` and `show`. In: packs. Out: tables or JSON. No code of a pack runs."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.text.validation_errors import suggest_name
from bulkhead.tools.catalog import ToolRow, tool_rows
from bulkhead.tools.export import installed_packs
from bulkhead.tools.packs import PackError
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import err, out, print_whole
from bulkhead_infra.identity.config_folder import CONFIG_VARIABLE, read_config_folder


def show_tools(packs: tuple[str, ...], *, as_json: bool) -> None:
    """Print all tools."""
    named = named_packs(packs)
    tool_rows, unnamed_packs = read_tools(named), sorted(set(installed_packs()) - set(named))
    if as_json:
        print_json({"tools": [tool_document(row) for row in tool_rows], "installed_and_not_named": unnamed_packs})
        return
    table = Table(box=None, pad_edge=False)
    for title in ("tool", "effect", "isolation", "sinks", "served by", "requires"):
        table.add_column(title, no_wrap=True)
    for row in tool_rows:
        table.add_row(*(escape(text) for text in _tool_cells(row)))
    print_whole(table)
    if unnamed_packs:
        err.print(f"installed, and not named in BULKHEAD_PACKS: {', '.join(unnamed_packs)}", style="dim", markup=False)


def show_tool(name: str, packs: tuple[str, ...], *, as_json: bool) -> None:
    """Print one tool. Raises CommandError for an unknown one."""
    tools = {row.spec.name: row for row in read_tools(named_packs(packs))}
    if name not in tools:
        problem = f"there is no tool {name!r}{suggest_name(name, tools)}"
        hint = "`bulkhead tools list` lists them; --pack names a package, `bulkhead tools export` adds its functions"
        raise CommandError(Exit.USAGE, problem, hint, name="unknown_tool")
    fields = tool_document(tools[name])
    if as_json:
        print_json(fields)
        return
    out.print(name, style="bold", markup=False)
    out.print(fields["description"], markup=False)
    for field, value in fields.items():
        if field in ("name", "description") or value in ("", [], {}, None):
            continue
        words = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        out.print(f"{field}: {words}", markup=False)


def named_packs(packs: tuple[str, ...]) -> tuple[str, ...]:
    """The packs that are meant; those of this folder can be imported, as they can by pytest. Raises
    CommandError.
    """
    if (working_folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, working_folder)
    if packs:
        return packs
    own_packs = _find_own_packs()
    try:
        parsed = json.loads(os.environ.get("BULKHEAD_PACKS") or "[]")
        if isinstance(parsed, list):
            return tuple(dict.fromkeys((*map(str, parsed), *own_packs)))
    except ValueError:
        pass
    raise CommandError(Exit.USAGE, "BULKHEAD_PACKS is no JSON list", """write it as '["acme_desk"]'""")


def _find_own_packs() -> tuple[str, ...]:
    """Packs among files of one's own (BULKHEAD_CONFIG_DIR), which can be imported then."""
    if not (named := os.environ.get(CONFIG_VARIABLE)):
        return ()
    config = read_config_folder(Path(named).absolute())
    if (place := str(config.tools_folder)) not in sys.path:
        sys.path.append(place)
    return config.packs


def read_tools(packs: tuple[str, ...]) -> tuple[ToolRow, ...]:
    """The rows. Raises CommandError."""
    try:
        return tool_rows(packs)
    except PackError as error:
        raise bad_pack_error(error) from error


def bad_pack_error(error: ValueError) -> CommandError:
    """A pack that cannot be used, in its own words."""
    return CommandError(Exit.USAGE, str(error), "docs/tutorial/write-a-tool.md shows a package", name="bad_pack")


def tool_document(row: ToolRow) -> dict[str, Any]:
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


def _tool_cells(row: ToolRow) -> tuple[str, ...]:
    spec = row.spec
    effect = spec.effect + ("" if spec.effect == "read" else ", keyed" if spec.idempotent else ", no key")
    sinks = ", ".join(f"{sink.argument[1:]}: {sink.kind}" for sink in spec.sinks)
    if spec.effect == "write" and not sinks:
        sinks = "every argument"
    served = "worker" if row.built_in else f"{spec.served_by}{f' ({row.pack})' if row.pack else ''}"
    needs = [*row.requires, *(f"credential {name}" for name in row.credentials)]
    return spec.name, effect, spec.isolation, sinks or "-", served, ", ".join(needs) or "-"
