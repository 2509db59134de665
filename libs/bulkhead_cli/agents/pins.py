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

from bulkhead.tools.agent_cards import Unfit, pin
from bulkhead.tools.agents_file import AGENT_NAME, AgentsFile, AgentsFileError, CardPin, RemoteAgent, read, tool_of
from bulkhead.tools.mcp_file import pins_path
from bulkhead.tools.mcp_pins import clean
from bulkhead.validation_errors import meant, misfits
from bulkhead_cli.output import Exit, Stop, err, out, print_json, print_whole

FORM = "docs/how-to/agent-to-agent.md shows the form"
SHOWN_CHARS = 200


def list_agents(file: Path | None, *, as_json: bool) -> None:
    """Print the agents. Raises Stop."""
    files = _read(_named(file))
    rows = [
        {
            "agent": name,
            "tool": tool_of(name),
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
        shown = (row["agent"], row["tool"], row["effect"], tenants, row["card"], pinned)
        table.add_row(*(escape(str(one)) for one in shown))
    print_whole(table)


async def add_agent(file: Path | None, url: str, name: str, given: Mapping[str, Any], *, as_json: bool) -> Exit:
    """Pin the card of an agent, and write a row for it where there is none. Raises Stop."""
    path = _named(file)
    files = _read(path) if path.exists() else AgentsFile({}, {})
    new = _row(url, given)
    row = files.agents.get(name, new)
    if row.card != url:
        what = f"{path} has an agent {name} already, at {row.card}"
        raise Stop(Exit.USAGE, what, "give this one another --name, or change its row", name="known_agent")
    if not AGENT_NAME.fullmatch(name):
        raise Stop(Exit.USAGE, f"{name!r} is no name of an agent", "lower-case letters, digits, _; 32 at most")
    made, reached = await _look(name, row)
    if name not in files.agents:
        _append(path, name, new, files)
    before = files.pins.get(name)
    _write_pins(pins_path(path), {**files.pins, name: made})
    how = "new" if before is None else "same" if before.digest == made.digest else "changed"
    if as_json:
        print_json({"agent": name, "tool": tool_of(name), "change": how, "digest": made.digest, "endpoints": reached})
        return Exit.OK
    out.print(f"{name}: {how}, digest {made.digest}", markup=False)
    _show(made, reached)
    err.print(f"name {tool_of(name)} in a tenant's `tools`, and permit it in its policy", style="dim", markup=False)
    return Exit.OK


async def check_agents(file: Path | None, names: tuple[str, ...], *, as_json: bool) -> Exit:
    """Compare the cards with their pins. Raises Stop."""
    path = _named(file)
    files = _read(path)
    if foreign := [one for one in names if one not in files.agents]:
        hint = f"there are: {', '.join(files.agents)}{meant(foreign[0], files.agents)}"
        raise Stop(Exit.USAGE, f"{path} has no agent {', '.join(foreign)}", hint, name="unknown_agent")
    changes = list[dict[str, str]]()
    for name in names or sorted(files.agents):
        made, _ = await _look(name, files.agents[name])
        before = files.pins.get(name)
        if before is None:
            changes.append({"agent": name, "change": "new", "what": made.description})
        elif before.digest != made.digest:
            changes.append({"agent": name, "change": "changed", "what": _differs(before, made)})
    if as_json:
        print_json({"changes": changes})
    else:
        for one in changes:
            out.print(f"{one['change']:8} {one['agent']}: {one['what']}", markup=False)
        said = f"{len(changes)} differ from their pins" if changes else "no difference"
        err.print(said, style="dim", markup=False)
    return Exit.FAILED if changes else Exit.OK


async def _look(name: str, row: RemoteAgent) -> tuple[CardPin, list[str]]:
    from bulkhead_services.tool_executor.a2a.cards import Unread, client_of, endpoints, read_card
    from bulkhead_services.tool_executor.a2a.http import client

    async with client(row) as http:
        try:
            made = pin(name, await read_card(http, row.card))
            client_of(made.card, http)
            return made, [clean(one, SHOWN_CHARS) for one in endpoints(made.card)]
        except Unread as error:
            hint = "look whether it runs and can be reached from here; nothing was written"
            raise Stop(Exit.UNREACHABLE, f"agent {name}: {error}", hint, name="unreachable_agent") from error
        except Unfit as error:
            raise Stop(Exit.FAILED, f"agent {name}: {error}", "nothing was written", name="unfit_agent") from error


def _row(url: str, given: Mapping[str, Any]) -> RemoteAgent:
    headers = dict(one.partition("=")[::2] for one in given["headers"])
    row: dict[str, Any] = {"card": url, "headers": {key: {"file": value} for key, value in headers.items()}}
    row |= {"tenants": given["tenants"], "private": given["private"], "effect": "read" if given["reads"] else "write"}
    try:
        return RemoteAgent.model_validate(row)
    except ValidationError as error:
        raise Stop(Exit.USAGE, str(misfits(error, RemoteAgent)[0]), FORM, name="bad_agent") from error


def _append(path: Path, name: str, row: RemoteAgent, files: AgentsFile) -> None:
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
        raise Stop(Exit.FAILED, f"{path} is not written as a block of rows", hint, name="file_not_changed")
    _write(path, text)


def _show(made: CardPin, reached: list[str]) -> None:
    out.print(made.description, markup=False)
    for one in reached:
        out.print(f"  is called at {one}", markup=False)


def _differs(before: CardPin, now: CardPin) -> str:
    keys = sorted(key for key in {*before.card, *now.card} if before.card.get(key) != now.card.get(key))
    told = (f"{key}: {_said(now, key)}, and was {_said(before, key)}" for key in keys)
    return clean("; ".join(told), 5 * SHOWN_CHARS)


def _said(card: CardPin, key: str) -> str:
    return clean(json.dumps(card.card.get(key), ensure_ascii=False), SHOWN_CHARS)


def _named(file: Path | None) -> Path:
    if file is None:
        raise Stop(Exit.USAGE, "no file of remote agents is named", "give --file, or set BULKHEAD_AGENTS_FILE")
    return file


def _read(path: Path) -> AgentsFile:
    try:
        return read(path)
    except AgentsFileError as error:
        raise Stop(Exit.USAGE, str(error), FORM, name="bad_file") from error


def _write_pins(path: Path, pins: Mapping[str, CardPin]) -> None:
    text = json.dumps({name: one.model_dump() for name, one in sorted(pins.items())}, indent=1, ensure_ascii=True)
    _write(path, text + "\n")


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    try:
        new.write_text(text)
        new.replace(path)
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror}"
        raise Stop(Exit.FAILED, what, "name a place that you may write") from error
