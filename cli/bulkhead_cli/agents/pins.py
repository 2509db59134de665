"""Pins of remote agents: listed, made, compared with the cards that the agents show now.

In: the file of agents. Out: a row in it, the file of pins beside it; tables or JSON.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from bulkhead.text.validation_errors import find_misfits, suggest_name
from bulkhead.tools.agent_cards import UnfitCard, pin_card
from bulkhead.tools.agents_file import (
    AGENT_NAME,
    AgentsFile,
    AgentsFileError,
    CardPin,
    RemoteAgent,
    agent_tool_name,
    read_agents_file,
)
from bulkhead.tools.mcp_file import pins_path
from bulkhead.tools.mcp_pins import clean_line
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.pin_files import replace_file, write_pins
from bulkhead_cli.screen import err, out, print_whole

FORM = "docs/how-to/agent-to-agent.md shows the form"
SHOWN_CHARS = 200


def list_agents(file: Path | None, *, as_json: bool) -> None:
    """Print the agents. Raises CommandError."""
    files = _read_agents_file(_require_agents_file(file))
    rows = [
        {
            "agent": name,
            "tool": agent_tool_name(name),
            "card": row.card,
            "effect": row.effect,
            "egress": row.egress,
            "tenants": list(row.tenants),
            "price_usd_micros": row.price_usd_micros,
            "digest": files.pins[name].digest if name in files.pins else "",
        }
        for name, row in sorted(files.agents.items())
    ]
    if as_json:
        print_json({"agents": rows})
        return
    table = Table(box=None, pad_edge=False)
    for title in ("agent", "tool", "effect", "tenants", "card", "pinned"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        tenants = ", ".join(row["tenants"]) or "all"  # type: ignore[arg-type]
        pinned = str(row["digest"])[:12] or "no"
        cells = (row["agent"], row["tool"], row["effect"], tenants, row["card"], pinned)
        table.add_row(*(escape(str(cell)) for cell in cells))
    print_whole(table)


async def add_agent(file: Path | None, url: str, name: str, given: Mapping[str, Any], *, as_json: bool) -> Exit:
    """Pin the card of an agent, and write a row for it where there is none. Raises CommandError."""
    path = _require_agents_file(file)
    files = _read_agents_file(path) if path.exists() else AgentsFile({}, {})
    new = _build_remote_agent(url, given)
    row = files.agents.get(name, new)
    if row.card != url:
        problem = f"{path} has an agent {name} already, at {row.card}"
        raise CommandError(Exit.USAGE, problem, "give this one another --name, or change its row", name="known_agent")
    if not AGENT_NAME.fullmatch(name):
        raise CommandError(Exit.USAGE, f"{name!r} is no name of an agent", "lower-case letters, digits, _; 32 at most")
    new_pin, reached = await _pin_current_card(name, row)
    if name not in files.agents:
        _append_agent_row(path, name, new, files)
    before = files.pins.get(name)
    write_pins(pins_path(path), {**files.pins, name: new_pin})
    how = "new" if before is None else "same" if before.digest == new_pin.digest else "changed"
    if as_json:
        print_json(
            {
                "agent": name,
                "tool": agent_tool_name(name),
                "change": how,
                "digest": new_pin.digest,
                "endpoints": reached,
            }
        )
        return Exit.OK
    out.print(f"{name}: {how}, digest {new_pin.digest}", markup=False)
    _print_agent_pin(new_pin, reached)
    err.print(
        f"name {agent_tool_name(name)} in a tenant's `tools`, and permit it in its policy", style="dim", markup=False
    )
    return Exit.OK


async def check_agents(file: Path | None, names: tuple[str, ...], *, as_json: bool) -> Exit:
    """Compare the cards with their pins. Raises CommandError."""
    path = _require_agents_file(file)
    files = _read_agents_file(path)
    if foreign := [agent for agent in names if agent not in files.agents]:
        hint = f"there are: {', '.join(files.agents)}{suggest_name(foreign[0], files.agents)}"
        raise CommandError(Exit.USAGE, f"{path} has no agent {', '.join(foreign)}", hint, name="unknown_agent")
    changes = list[dict[str, str]]()
    for name in names or sorted(files.agents):
        current_pin, _ = await _pin_current_card(name, files.agents[name])
        before = files.pins.get(name)
        if before is None:
            changes.append({"agent": name, "change": "new", "what": current_pin.description})
        elif before.digest != current_pin.digest:
            changes.append({"agent": name, "change": "changed", "what": _describe_card_changes(before, current_pin)})
    if as_json:
        print_json({"changes": changes})
    else:
        for change in changes:
            out.print(f"{change['change']:8} {change['agent']}: {change['what']}", markup=False)
        summary = f"{len(changes)} differ from their pins" if changes else "no difference"
        err.print(summary, style="dim", markup=False)
    return Exit.FAILED if changes else Exit.OK


async def _pin_current_card(name: str, row: RemoteAgent) -> tuple[CardPin, list[str]]:
    from bulkhead_services.tool_executor.a2a.cards import CardUnreadable, client_of, describe_endpoints, read_card
    from bulkhead_services.tool_executor.a2a.http import checked_client

    async with checked_client(row) as http:
        try:
            new_pin = pin_card(name, await read_card(http, row.card))
            client_of(new_pin.card, http)
            return new_pin, [clean_line(endpoint, SHOWN_CHARS) for endpoint in describe_endpoints(new_pin.card)]
        except CardUnreadable as error:
            hint = "look whether it runs and can be reached from here; nothing was written"
            raise CommandError(Exit.UNREACHABLE, f"agent {name}: {error}", hint, name="unreachable_agent") from error
        except UnfitCard as error:
            raise CommandError(
                Exit.FAILED, f"agent {name}: {error}", "nothing was written", name="unfit_agent"
            ) from error


def _build_remote_agent(url: str, given: Mapping[str, Any]) -> RemoteAgent:
    headers = dict(header.partition("=")[::2] for header in given["headers"])
    row: dict[str, Any] = {"card": url, "headers": {key: {"file": value} for key, value in headers.items()}}
    row |= {"tenants": given["tenants"], "private": given["private"], "effect": "read" if given["reads"] else "write"}
    try:
        return RemoteAgent.model_validate(row)
    except ValidationError as error:
        raise CommandError(Exit.USAGE, str(find_misfits(error, RemoteAgent)[0]), FORM, name="bad_agent") from error


def _append_agent_row(path: Path, name: str, row: RemoteAgent, files: AgentsFile) -> None:
    """Write the row behind the others, which stay as they were written, comments and all."""
    declared = row.model_dump(mode="json", exclude_defaults=True)
    text = path.read_text() if path.exists() else ""
    block = "".join(f"  {line}\n" for line in yaml.safe_dump({name: declared}, sort_keys=False).splitlines())
    text = (text.rstrip("\n") + "\n" if files.agents else "agents:\n") + block
    try:
        same = set(yaml.safe_load(text)["agents"]) == {*files.agents, name}
    except (yaml.YAMLError, KeyError, TypeError):
        same = False
    if not same:
        hint = f"write this row yourself and add it again:\n{block}"
        raise CommandError(Exit.FAILED, f"{path} is not written as a block of rows", hint, name="file_not_changed")
    replace_file(path, text)


def _print_agent_pin(made: CardPin, reached: list[str]) -> None:
    out.print(made.description, markup=False)
    for endpoint in reached:
        out.print(f"  is called at {endpoint}", markup=False)


def _describe_card_changes(before: CardPin, now: CardPin) -> str:
    keys = sorted(key for key in {*before.card, *now.card} if before.card.get(key) != now.card.get(key))
    differences = (f"{key}: {_render_card_field(now, key)}, and was {_render_card_field(before, key)}" for key in keys)
    return clean_line("; ".join(differences), 5 * SHOWN_CHARS)


def _render_card_field(card: CardPin, key: str) -> str:
    return clean_line(json.dumps(card.card.get(key), ensure_ascii=False), SHOWN_CHARS)


def _require_agents_file(file: Path | None) -> Path:
    if file is None:
        raise CommandError(Exit.USAGE, "no file of remote agents is named", "give --file, or set BULKHEAD_AGENTS_FILE")
    return file


def _read_agents_file(path: Path) -> AgentsFile:
    try:
        return read_agents_file(path)
    except AgentsFileError as error:
        raise CommandError(Exit.USAGE, str(error), FORM, name="bad_file") from error
