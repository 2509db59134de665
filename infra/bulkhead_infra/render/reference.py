"""The reference pages of docs/, each rendered from its source.

In: the typer app behind the installed command, the settings classes, bounds.py, the catalog, the OpenAPI document
and tools.yaml. Out: Markdown files.
"""

import inspect
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.core import TyperArgument, TyperCommand, TyperOption
from typer.main import get_command

from bulkhead.runtime.settings import ServiceSettings
from bulkhead.tools import catalog as tools_catalog
from bulkhead_contracts import bounds as contract_bounds
from bulkhead_contracts import catalog
from bulkhead_contracts.quota import Quota
from bulkhead_infra.composition import settings_of
from bulkhead_services.gateway.http.openapi import openapi

FOLDER = "docs/reference"
NOTE = "<!-- rendered by `make render`: change {source} -->"
SHARED_BY = 3
"""An option with the same help in so many commands is told once, at the head of the page."""
HEAD = """
`replay --all`, `doctor`, `backup` and `dead-letters` read the broker itself. They run on the mesh's machine and take
`--data`, never `--url`. [Exit codes](exit-codes.md) are the same for all commands.

## Options of many commands

"""
ENTITIES = str.maketrans({"<": "&lt;", ">": "&gt;"})


def files() -> dict[str, str]:
    pages = {
        "cli": ("Command line", "cli/bulkhead_cli", _render_commands()),
        "settings": ("Settings", "the settings.py of the service", _render_settings()),
        "limits": ("Limits", "contracts/bulkhead_contracts/bounds.py", _render_limits()),
        "messages": ("Messages", "contracts/bulkhead_contracts/catalog.py", _render_messages()),
        "http": ("HTTP", "libs/bulkhead/gateway_api and gateway/http/openapi.py", _render_http()),
        "tools": ("tools.yaml", "libs/bulkhead/tools/tools.yaml", _render_tools()),
    }
    return {
        f"{FOLDER}/{name}.md": f"{NOTE.format(source=source)}\n\n# {title}\n\n{text.strip()}\n"
        for name, (title, source, text) in pages.items()
    }


def _render_commands() -> str:
    """The options that many commands share, then every command below the heading of its group."""
    (script,) = entry_points(group="console_scripts", name="bulkhead")
    top: dict[str, TyperCommand] = getattr(get_command(script.load()), "commands", {})
    used = Counter(line for command in top.values() for line in _nested_options(command))
    shared = {line for line, count in used.items() if count >= SHARED_BY}
    parts: dict[str, list[str]] = {}
    for name, command in top.items():
        panel = getattr(command, "rich_help_panel", None)
        lines = parts.setdefault(panel if isinstance(panel, str) else "Commands", [])
        lines.extend(_render_command(f"bulkhead {name}", command, shared))
    groups = "".join(f"\n\n## {panel}\n\n" + "\n".join(lines) for panel, lines in parts.items())
    return HEAD + "\n".join(sorted(shared)) + groups


def _nested_options(command: TyperCommand) -> Iterator[str]:
    yield from map(_render_option, _list_options(command))
    for subcommand in getattr(command, "commands", {}).values():
        yield from _nested_options(subcommand)


def _list_options(command: TyperCommand) -> list[TyperOption]:
    return [
        parameter
        for parameter in command.params
        if isinstance(parameter, TyperOption) and parameter.opts[0] != "--help"
    ]


def _render_command(name: str, command: TyperCommand, shared: Collection[str]) -> Iterator[str]:
    """A command, then its subcommands."""
    arguments = [
        str(parameter.metavar or parameter.name).upper()
        for parameter in command.params
        if isinstance(parameter, TyperArgument)
    ]
    own_options = [line for line in map(_render_option, _list_options(command)) if line not in shared]
    yield f"### `{' '.join([name, *arguments])}`\n"
    yield _plain_help(command.help or "") + "\n"
    if own_options:
        yield "\n".join(own_options) + "\n"
    for inner, subcommand in getattr(command, "commands", {}).items():
        yield from _render_command(f"{name} {inner}", subcommand, shared)


def _render_option(option: TyperOption) -> str:
    names = "`, `".join((*option.opts, *option.secondary_opts))
    metavar = "" if option.is_flag else f" {option.metavar or _value_name(option)}"
    named_default = option.show_default if isinstance(option.show_default, str) else ""
    variable = f" Environment: `{option.envvar}`." if isinstance(option.envvar, str) else ""
    default = named_default or ("" if option.is_flag or callable(option.default) else str(option.default or ""))
    return (
        f"- `{names}{metavar}`: {_plain_help(option.help or '')}"
        + (f" Default: {default}." if default else "")
        + variable
    )


def _value_name(option: TyperOption) -> str:
    annotation = getattr(getattr(option, "type_descriptor", None), "annotation", None)
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    return "|".join(map(str, choices)) or str(option.name).upper()


def _plain_help(help_text: str) -> str:
    """Help without the marks of rich and without examples, which `--help` shows; other paragraphs stay."""
    plain = re.sub(r"\[(/?)(bold|dim|italic|cyan)\]", "`", inspect.cleandoc(help_text))
    parts = (" ".join(part.split()) for part in plain.split("\n\n"))
    return _escape_brackets("\n\n".join(part for part in parts if not part.startswith("Examples:")))


def _escape_brackets(text: str) -> str:
    """Angle brackets outside code are no tags."""
    parts = text.split("`")
    return "`".join(part if number % 2 else part.translate(ENTITIES) for number, part in enumerate(parts))


def _render_settings() -> str:
    head = (
        "Settings come from the environment with the prefix `BULKHEAD_`, which the lists leave out. `NAME_FILE=/path` "
        "gives the setting NAME the content of a file. Lists and objects are JSON.\n"
    )
    parts = [head, _render_settings_of("Every service", ServiceSettings, {})]
    for service in catalog.EVERY_SERVICE:
        settings = settings_of(service)
        own_fields = {
            name: field
            for name, field in settings.model_fields.items()
            if repr(field) != repr(ServiceSettings.model_fields.get(name))
        }
        if own_fields:
            parts.append(_render_settings_of(f"`{service}`", settings, own_fields))
    parts.append(_render_quota())
    return "\n".join(parts)


def _render_settings_of(title: str, settings: type[ServiceSettings], fields: Mapping[str, FieldInfo]) -> str:
    listed_fields = fields or settings.model_fields
    about, explanations = _split_explanations(_plain_help(settings.__doc__ or ""), listed_fields)
    rows = [
        _render_setting(name, field) + (f". {explanations[name]}" if name in explanations else "")
        for name, field in listed_fields.items()
    ]
    return "\n\n".join(filter(None, (f"## {title}", about, "\n".join(rows)))) + "\n"


def _split_explanations(text: str, fields: Collection[str]) -> tuple[str, dict[str, str]]:
    """Sentences that begin with the name of a field, by field; and those before them, which are about the whole."""
    about: list[str] = []
    explanations: dict[str, list[str]] = {}
    name = ""
    for sentence in re.split(r"(?<=\.)\s+", text):
        head, colon, explanation = sentence.partition(": ")
        names = [
            field
            for token in re.findall(r"[a-z_]+", head if colon else head.split(" ")[0])
            for field in fields
            if field == token or (token.endswith("_") and field.startswith(token))
        ]
        if names and sentence.startswith(names[0]):
            name = names[0]
            explanations.update({sibling: [f"See `{name.upper()}`."] for sibling in names[1:]})
            plain = colon and head.replace(name, "").strip(", ") in ("", ", ".join(names[1:]))
            explanations[name] = [explanation[0].upper() + explanation[1:] if plain else sentence]
        else:
            (explanations[name] if name else about).append(sentence)
    return " ".join(about), {field: " ".join(sentences) for field, sentences in explanations.items()}


def _render_setting(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    variable = str(getattr(alias, "choices", [alias])[0]) if alias else name.upper()
    default = field.get_default(call_default_factory=False)
    unset = default in (None, "", (), {}, PydanticUndefined, contract_bounds.UNLIMITED)
    bounds = _render_bounds(field)
    return f"- `{variable}`: {'none' if unset else _render_default(default)}" + (f" ({bounds})" if bounds else "")


def _render_bounds(field: FieldInfo) -> str:
    marks = {key: getattr(mark, key) for mark in field.metadata for key in ("ge", "gt", "le") if hasattr(mark, key)}
    low, high = marks.get("ge", marks.get("gt")), marks.get("le")
    if low is None or high == contract_bounds.UNLIMITED:
        return ""
    return f"{low} to {high}" if high is not None else f"from {low}" if "ge" in marks else f"above {low}"


def _render_default(value: object) -> str:
    get_secret = getattr(value, "get_secret_value", None)
    if isinstance(value, bool | tuple):
        return f"`{json.dumps(value)}`"
    text = str(get_secret() if get_secret else value)
    return f"`{text.rpartition('/infra/')[1].lstrip('/') + text.rpartition('/infra/')[2]}`" if text else "none"


def _render_quota() -> str:
    rows = [f"- `{name}`: {field.default}" for name, field in Quota.model_fields.items()]
    return f"## `quota` in the tenants file\n\n{_plain_help(Quota.__doc__ or '')}\n\n" + "\n".join(rows) + "\n"


def _render_limits() -> str:
    source = inspect.getsource(contract_bounds)
    lines = ["Bounds that the code keeps. No setting changes them.\n"]
    for line in source.splitlines():
        if match := re.match(r"# (.+)", line):
            lines += [f"\n## {match[1]}\n"]
        elif match := re.match(r"([A-Z][A-Z0-9_]*)(?:: [^=]+)? = (.+?)(?:  # (.+))?$", line):
            note = f", {match[3]}" if match[3] else ""
            lines.append(f"- `{match[1]}`: {_render_value(getattr(contract_bounds, match[1]))}{note}")
    return "\n".join(lines)


def _render_value(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"`{value}`"


def _render_messages() -> str:
    head = (
        "One row per message of `contracts/bulkhead_contracts/catalog.py`. The broker's permissions follow from these "
        "rows. Schemas lie in `contracts/schemas`, examples in `contracts/examples`, the AsyncAPI document in "
        "`contracts/asyncapi.yaml`. An *rpc* message is a request or a reply, and is not stored.\n"
    )
    lines = [head]
    owners = dict.fromkeys(row.owner for row in catalog.ROWS)
    for owner in owners:
        lines.append(f"\n## {owner}\n")
        for row in (row for row in catalog.ROWS if row.owner == owner):
            senders: dict[str, list[str]] = {}
            for sender, receiver in row.edges:
                senders.setdefault(receiver, []).append(sender)
            receivers: dict[tuple[str, ...], list[str]] = {}
            for receiver, names in senders.items():
                receivers.setdefault(tuple(names), []).append(receiver)
            ways = "; ".join(
                f"{', '.join(names)}→{', '.join(receiver_names)}" for names, receiver_names in receivers.items()
            )
            plane = " (rpc)" if row.plane == "rpc" else ""
            summary = re.split(r"[.;?] |\.$", _plain_help((row.body.__doc__ or "").partition("\n")[0]))[0].removesuffix(
                " (rpc)"
            )
            lines.append(f"- `{row.body.ce_type()}`{plane}, {ways}: {summary}")
    return "\n".join(lines)


def _render_http() -> str:
    head = (
        "A gateway shows this API in the browser at `/docs`, with fields, errors and an example of each operation, and "
        "serves it as an OpenAPI document at `/openapi.json` (committed: `contracts/openapi.json`). A request carries "
        "`X-API-Key: KEY` or `Authorization: Bearer JWT`. A request that changes something carries an "
        "`Idempotency-Key`: the same key repeats the same request, another request under it is refused with 422. "
        "Errors are RFC 9457 problem documents with a `hint`.\n"
    )
    rows = [head]
    paths: dict[str, dict[str, dict[str, Any]]] = openapi()["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            codes = " ".join(sorted(code for code in operation["responses"] if code.startswith("2")))
            rows.append(f"- `{method.upper()} {path}`: {operation['summary']} ({codes})")
    rows.append("\n## Errors\n\nStatus and `code`, an example of `detail`, and its `hint`.\n")
    problems = [example["value"] for example in openapi()["components"]["examples"].values()]
    for problem in sorted(problems, key=lambda row: (row["status"], row["code"])):
        rows.append(f"- {problem['status']} `{problem['code']}`: {problem['detail']}. Remedy: {problem['hint']}")
    return "\n".join(rows)


def _render_tools() -> str:
    comment = tools_catalog.MESH_TOOLS_FILE.read_text().split("\n\n", 1)[0]
    lines = [
        line.removeprefix("#").strip() if not line.startswith("#   ") else f"  {line[1:].strip()}"
        for line in comment.splitlines()
    ]
    fields = re.sub(r"(?m)^([a-z_]+)  +", r"- `\1`: ", "\n".join(lines))
    rows = ["\n## Tools that come with the mesh\n"]
    for row in tools_catalog.tool_rows():
        marks = [
            row.spec.effect,
            "" if row.spec.idempotent else "no key",
            "built in" if row.built_in else "",
            *(f"requires {name}" for name in row.requires),
        ]
        first = row.spec.description.strip().split(". ")[0].rstrip(".")
        rows.append(f"- `{row.spec.name}` ({', '.join(filter(None, marks))}): {first}.")
    return _escape_brackets(fields) + "\n" + "\n".join(rows)
