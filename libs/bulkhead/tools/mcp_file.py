"""MCP servers as data: the operator's file (BULKHEAD_MCP_FILE), and the pins of their tools beside it.

Enters: the path of the file. Leaves: checked servers and pins, and rows for the signer (what may be granted) and the
executor. Connects to nothing: mcp_pins.py makes pins of what a server said to `bulkhead mcp pin`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bulkhead.text.validation_errors import find_misfits
from bulkhead.tools.catalog import ToolRow
from bulkhead_contracts import bounds
from bulkhead_contracts.provenance import Pointer, Sink, SinkKind
from bulkhead_contracts.tool import Effect, ToolSpec
from bulkhead_contracts.types import Sha256, Token

MAX_FILE_BYTES = 512 * 1024
MAX_PINS_BYTES = 16 * 1024 * 1024
PINS_SUFFIX = ".pins.json"
_HEADER_VALUE = re.compile(r"[!-~](?:[\t -~]*[!-~])?")
SERVER_NAME = re.compile(r"[a-z][a-z0-9_]{0,23}")


class McpFileError(ValueError):
    """The file of MCP servers, or its pins, cannot be used; says where and what to do."""


class OperatorRow(BaseModel):
    """A row of an operator's file: what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileReference(OperatorRow):
    """A value that stands in a file, read when it is needed: each request for a header, each start for a variable."""

    file: Path

    def read_header(self) -> str:
        """The value as a header carries it. Raises ValueError, which says why and never quotes the value: the HTTP
        library would, to a model and the logs."""
        try:
            value = self.file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            value = ""
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError("holds no header value: one line of printable ASCII is due")
        return value


class McpToolTerms(OperatorRow):
    """The operator's declaration of one tool: the server's own word on it is believed nowhere.

    A tool that is not declared is a write that honours no idempotency key: each argument is a sink, its outcome
    is never repeated. idempotent: a repeated call with the same arguments changes nothing more, or the server
    honours the key in `_meta["bulkhead/idempotency_key"]`. on_error: `undone` where it has changed nothing when
    it says that it failed; such a call of a write is else uncertain, and a person is asked.
    """

    effect: Effect = "write"
    idempotent: bool = False
    sinks: Annotated[dict[str, SinkKind], Field(max_length=bounds.MAX_SINKS)] = {}
    egress: bool = False
    most_calls: Annotated[int, Field(ge=0)] = 0
    four_eyes: bool = False
    timeout_ms: Annotated[int | None, Field(ge=1, le=bounds.MAX_TOOL_TIMEOUT_MS)] = None
    on_error: Literal["uncertain", "undone"] = "uncertain"


class McpServer(OperatorRow):
    """One server: the URLs of its replicas (streamable HTTP), or the command of a process (stdio).

    headers: of every request, by reference. env: of the process, which gets PATH, HOME and LANG beside it and nothing
    else of the executor's environment. cwd: where it runs; a new temporary directory when left out. tenants: who may
    use it; every tenant whose tools name it when left out. tools: by the server's own names. reviewed: an operator has
    read what it says of its tools, and vouches that it leads no planner astray.
    """

    urls: Annotated[tuple[str, ...], Field(max_length=bounds.MAX_MCP_REPLICAS)] = ()
    headers: dict[str, FileReference] = {}
    command: Annotated[tuple[str, ...], Field(max_length=256)] = ()
    env: dict[str, str | FileReference] = {}
    cwd: str = ""
    replicas: Annotated[int, Field(ge=1, le=bounds.MAX_MCP_REPLICAS)] = 1
    tenants: tuple[Token, ...] = ()
    timeout_ms: Annotated[int, Field(ge=1, le=bounds.MAX_TOOL_TIMEOUT_MS)] = bounds.DEFAULT_TOOL_TIMEOUT_MS
    max_output_bytes: Annotated[int, Field(ge=1, le=bounds.MAX_TOOL_OUTPUT_BYTES)] = bounds.MAX_TOOL_OUTPUT_BYTES
    tools: dict[str, McpToolTerms] = {}
    reviewed: bool = False

    @field_validator("urls")
    @classmethod
    def _are_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = urlsplit(url)
            _ = parts.port  # Raises ValueError where it is none.
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
                raise ValueError("must be http(s) URLs without credentials; a token belongs into `headers`")
        if len(set(urls)) < len(urls):
            raise ValueError("names a URL twice; each replica has one of its own")
        return urls

    @model_validator(mode="after")
    def _is_one(self) -> "McpServer":
        if bool(self.urls) == bool(self.command):
            raise ValueError("a server has either `urls` (streamable HTTP) or a `command` (stdio)")
        if self.urls and (self.env or self.cwd or self.replicas > 1):
            raise ValueError("env, cwd and replicas are of a `command`; a server with `urls` has a replica per URL")
        if self.command and self.headers:
            raise ValueError("headers are of `urls`; a command gets its secrets by `env`")
        return self

    def allows_tenant(self, tenant: str) -> bool:
        """True for a tenant that may use it."""
        return not self.tenants or tenant in self.tenants


class McpToolPin(OperatorRow):
    """One tool as it was when the operator looked at it: what models see of it, and the digest of all that the server
    said of it. tool: the server's own name."""

    tool: Annotated[str, Field(min_length=1, max_length=256)]
    digest: Sha256
    description: Annotated[str, Field(max_length=bounds.MAX_REASON_CHARS)]
    parameters: dict[str, Any]
    result_fields: Annotated[tuple[Pointer, ...], Field(max_length=bounds.MAX_RESULT_FIELDS)] = ()


class PinnedServer(OperatorRow):
    """tools: pins by the names that they have in the mesh. left_out: the server's other tools, and why."""

    tools: Annotated[dict[str, McpToolPin], Field(max_length=bounds.MAX_MCP_TOOLS)] = {}
    left_out: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class McpTool:
    """A pinned tool of a server, with the row that models and policies see."""

    server: str
    pin: McpToolPin
    row: ToolRow
    terms: McpToolTerms

    @property
    def is_repeatable(self) -> bool:
        """True when a call may be made again when nobody knows whether it was done."""
        return self.row.spec.effect == "read" or self.row.spec.idempotent


@dataclass(frozen=True, slots=True)
class McpFile:
    """Both files, read."""

    servers: Mapping[str, McpServer]
    pins: Mapping[str, PinnedServer]

    def pinned_tools(self) -> dict[str, McpTool]:
        """Every pinned tool of every server, by its name in the mesh."""
        return {
            name: _build_tool(name, pin, server, self.servers[server])
            for server, pinned in self.pins.items()
            if server in self.servers
            for name, pin in pinned.tools.items()
        }

    def tenants_of(self) -> dict[str, tuple[str, ...]]:
        """The tools that are for some tenants alone, with those."""
        return {name: who for name, tool in self.pinned_tools().items() if (who := self.servers[tool.server].tenants)}


def pins_path(file: Path) -> Path:
    """The file of pins beside the file of servers: mcp.yaml has mcp.pins.json."""
    return file.with_name(file.stem + PINS_SUFFIX)


def pinned_file_stamps(file: Path) -> tuple[tuple[int, int] | None, ...]:
    """Stamps by which a change of a file or of its pins shows; None for one that cannot be read."""
    return tuple(map(_file_stamp, (file, pins_path(file))))


def _file_stamp(path: Path) -> tuple[int, int] | None:
    try:
        file_stat = path.stat()
    except OSError:
        return None
    return (file_stat.st_mtime_ns, file_stat.st_size)


def read_mcp_file(file: Path | None) -> McpFile:
    """Both files; nothing where none is set. Raises McpFileError."""
    if file is None:
        return McpFile({}, {})
    mcp_file = McpFile(_read_servers(file), _read_pins(pins_path(file)))
    try:
        mcp_file.pinned_tools()
    except ValidationError as error:
        raise McpFileError(
            f"{pins_path(file)}: {find_misfits(error, ToolSpec)[0]}; take it away and pin the servers again"
        ) from error
    return mcp_file


def mcp_rows(file: Path | None, known: Mapping[str, ToolSpec]) -> tuple[ToolRow, ...]:
    """Rows of all pinned tools. known: tools that have their names already. Raises McpFileError."""
    tools = read_mcp_file(file).pinned_tools()
    if duplicates := sorted(set(tools) & set(known)):
        raise McpFileError(f"{file}: {duplicates[0]} is a tool of the mesh already; give its MCP server another name")
    return tuple(tool.row for tool in tools.values())


def _build_tool(name: str, pin: McpToolPin, server_name: str, server: McpServer) -> McpTool:
    terms = server.tools.get(pin.tool, McpToolTerms())
    spec = ToolSpec(
        name=name,
        description=pin.description,
        parameters_json=json.dumps(pin.parameters, sort_keys=True),
        effect=terms.effect,
        idempotent=terms.idempotent or terms.effect == "read",
        timeout_ms=terms.timeout_ms or server.timeout_ms,
        sinks=tuple(Sink(argument=f"/{argument.lstrip('/')}", kind=kind) for argument, kind in terms.sinks.items()),
        egress=terms.egress,
        most_calls=terms.most_calls,
        four_eyes=terms.four_eyes,
        result_fields=pin.result_fields,
        unchecked=not server.reviewed,
    )
    return McpTool(server_name, pin, ToolRow(spec, server.max_output_bytes, ()), terms)


def _read_servers(file: Path) -> dict[str, McpServer]:
    try:
        declared = yaml.safe_load(read_bounded_text(file, MAX_FILE_BYTES, "set BULKHEAD_MCP_FILE"))
    except yaml.YAMLError as error:
        raise McpFileError(f"{file} is not YAML: {error}") from error
    servers = declared.get("servers") if isinstance(declared, dict) else None
    if not isinstance(servers, dict) or set(declared) != {"servers"} or len(servers) > bounds.MAX_MCP_SERVERS:
        raise McpFileError(f"{file} must hold a mapping `servers:` of at most {bounds.MAX_MCP_SERVERS} servers alone")
    by_name: dict[str, McpServer] = {}
    for name, row in servers.items():
        if not isinstance(name, str) or not SERVER_NAME.fullmatch(name):
            raise McpFileError(f"{file}: {name!r} is no name of a server: lower-case letters, digits, _; 24 at most")
        try:
            by_name[name] = McpServer.model_validate(row)
        except ValidationError as error:
            raise McpFileError(f"{file}: {name}: {find_misfits(error, McpServer)[0]}") from error
    return by_name


def _read_pins(file: Path) -> dict[str, PinnedServer]:
    if not file.exists():
        return {}
    advice = "take it away and pin the servers again: bulkhead mcp pin"
    try:
        document = json.loads(read_bounded_text(file, MAX_PINS_BYTES, advice))
        return {str(name): PinnedServer.model_validate(row) for name, row in dict(document).items()}
    except ValidationError as error:
        raise McpFileError(f"{file}: {find_misfits(error, PinnedServer)[0]}; {advice}") from error
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, McpFileError):
            raise
        raise McpFileError(f"{file} does not hold pins: {error}; {advice}") from error


def read_bounded_text(file: Path, most: int, mend: str) -> str:
    """The text of a file of at most so many bytes. mend: what to do when it cannot be read. Raises McpFileError."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(most + 1)
        if len(raw) > most:
            raise McpFileError(f"{file} is longer than {most} bytes; at most so much is read")
        return raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise McpFileError(f"{file} cannot be read: {reason}; {mend}") from error
