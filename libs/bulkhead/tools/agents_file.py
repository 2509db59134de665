"""Remote A2A agents as data: the operator's file (BULKHEAD_AGENTS_FILE), and the pins of their cards beside it.

Enters: the path of the file. Leaves: checked rows and pins, and tools for the signer (what may be granted) and the
executor. Connects to nothing: agent_cards.py makes a pin of what an agent said to `bulkhead agents add`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, field_validator

from bulkhead.text.validation_errors import find_misfits
from bulkhead.tools.catalog import ToolRow
from bulkhead.tools.mcp_file import FileReference, McpFileError, OperatorRow, pins_path, read_bounded_text
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import AGENT_TOOL
from bulkhead_contracts.provenance import Sink, SinkKind
from bulkhead_contracts.tool import Effect, ToolSpec
from bulkhead_contracts.types import Sha256, Token, UsdMicros

MAX_FILE_BYTES = 256 * 1024
MAX_PINS_BYTES = 2 * bounds.MAX_AGENTS * bounds.MAX_CARD_BYTES
AGENT_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
STEP_ONLY_ARGUMENTS = frozenset({"inputs"})
"""Arguments that name stored results: of the mesh's own call of a delegated step alone. A model's call that carries
them is refused, for it could name any content of its tenant. Declared all the same, as policies and taint know only
what is declared."""
PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "text": {
            "type": "string",
            "minLength": 1,
            "maxLength": bounds.MAX_AGENT_TEXT_CHARS,
            "description": "All that the agent is to know and do: it sees nothing else.",
        },
        "inputs": {
            "type": "array",
            "maxItems": bounds.MAX_STEP_INPUTS,
            "items": {"type": "object"},
            "description": "Results of earlier steps, which the mesh alone names: leave it out.",
        },
        "notes": {"type": "array", "maxItems": 16, "items": {"type": "string"}},
    },
    "required": ["text"],
    "additionalProperties": False,
}


class AgentsFileError(ValueError):
    """The file of remote agents, or its pins, cannot be used; says where and what to do."""


class RemoteAgent(OperatorRow):
    """One agent. card: the URL of its card; one without a path has it at /.well-known/agent-card.json.

    headers: of every request, by reference. tenants: who may use it; every tenant whose tools name it when left out.
    effect: `read_agents_file` only where it changes nothing outside; its calls are repeated, and cut by every halt.
    egress: it
    sends what it is told out of the house. price_usd_micros: reserved before each call and charged with it.
    timeout_ms: for the whole of its task. silence_ms: so long it may say nothing. on_error: `undone` where it has
    changed nothing when it says that it failed; such a call of a write is else uncertain. private: its address may be
    private or loopback, and its URL plain http.
    """

    card: Annotated[str, Field(max_length=2_000)]
    headers: dict[str, FileReference] = {}
    tenants: tuple[Token, ...] = ()
    effect: Effect = "write"
    egress: bool = True
    sinks: Annotated[dict[str, SinkKind], Field(max_length=bounds.MAX_SINKS)] = {}
    most_calls: Annotated[int, Field(ge=0)] = 0
    four_eyes: bool = False
    price_usd_micros: UsdMicros = 0
    timeout_ms: Annotated[int, Field(ge=1, le=bounds.MAX_TOOL_TIMEOUT_MS)] = bounds.MAX_TOOL_TIMEOUT_MS
    silence_ms: Annotated[int, Field(ge=100, le=bounds.MAX_TOOL_TIMEOUT_MS)] = 60_000
    max_output_bytes: Annotated[int, Field(ge=1, le=bounds.MAX_TOOL_OUTPUT_BYTES)] = bounds.MAX_TOOL_OUTPUT_BYTES
    on_error: Literal["uncertain", "undone"] = "uncertain"
    private: bool = False

    @field_validator("card")
    @classmethod
    def _is_url(cls, url: str) -> str:
        parts = urlsplit(url)
        _ = parts.port  # Raises ValueError where it is none.
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError("must be an http(s) URL without credentials; a token belongs into `headers`")
        return url

    def allows_tenant(self, tenant: str) -> bool:
        """True for a tenant that may use it."""
        return not self.tenants or tenant in self.tenants


class CardPin(OperatorRow):
    """An agent as it was when the operator looked at it. card: its whole card; description: what models see of it."""

    digest: Sha256
    description: Annotated[str, Field(max_length=bounds.MAX_REASON_CHARS)]
    card: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AgentTool:
    """A pinned agent, with the row that models and policies see."""

    agent: str
    declared: RemoteAgent
    pin: CardPin
    row: ToolRow


@dataclass(frozen=True, slots=True)
class AgentsFile:
    """Both files, read."""

    agents: Mapping[str, RemoteAgent]
    pins: Mapping[str, CardPin]

    def pinned_tools(self) -> dict[str, AgentTool]:
        """Every pinned agent, by the name of its tool."""
        return {
            agent_tool_name(name): AgentTool(
                name, declared, self.pins[name], _build_row(name, declared, self.pins[name])
            )
            for name, declared in self.agents.items()
            if name in self.pins
        }

    def tenants_of(self) -> dict[str, tuple[str, ...]]:
        """The tools that are for some tenants alone, with those."""
        return {agent_tool_name(name): row.tenants for name, row in self.agents.items() if row.tenants}


def agent_tool_name(agent: str) -> str:
    """The tool's name: with an underscore, for providers of models take no dot."""
    return AGENT_TOOL + agent


def read_agents_file(file: Path | None) -> AgentsFile:
    """Both files; nothing where none is set. Raises AgentsFileError."""
    if file is None:
        return AgentsFile({}, {})
    try:
        return AgentsFile(_read_agents(file), _read_pins(pins_path(file)))
    except McpFileError as error:
        raise AgentsFileError(str(error)) from error


def agent_rows(file: Path | None, known: Mapping[str, ToolSpec]) -> tuple[ToolRow, ...]:
    """Rows of all pinned agents. known: tools that have their names already. Raises AgentsFileError."""
    tools = read_agents_file(file).pinned_tools()
    if duplicates := sorted(set(tools) & set(known)):
        raise AgentsFileError(f"{file}: {duplicates[0]} is a tool of the mesh already; give the agent another name")
    return tuple(tool.row for tool in tools.values())


def _build_row(name: str, declared: RemoteAgent, pin: CardPin) -> ToolRow:
    spec = ToolSpec(
        name=agent_tool_name(name),
        description=pin.description,
        parameters_json=json.dumps(PARAMETERS, sort_keys=True),
        effect=declared.effect,
        idempotent=True,  # By its key: a repeated call finds the remote's task on record.
        timeout_ms=declared.timeout_ms,
        sinks=tuple(Sink(argument=f"/{argument.lstrip('/')}", kind=kind) for argument, kind in declared.sinks.items()),
        egress=declared.egress,
        most_calls=declared.most_calls,
        four_eyes=declared.four_eyes,
        unchecked=True,
    )
    return ToolRow(spec, declared.max_output_bytes, (), price_usd_micros=declared.price_usd_micros)


def _read_agents(file: Path) -> dict[str, RemoteAgent]:
    try:
        declared = yaml.safe_load(read_bounded_text(file, MAX_FILE_BYTES, "set BULKHEAD_AGENTS_FILE"))
    except yaml.YAMLError as error:
        raise AgentsFileError(f"{file} is not YAML: {error}") from error
    agents = declared.get("agents") if isinstance(declared, dict) else None
    if not isinstance(agents, dict) or set(declared) != {"agents"} or len(agents) > bounds.MAX_AGENTS:
        raise AgentsFileError(f"{file} must hold a mapping `agents:` of at most {bounds.MAX_AGENTS} agents alone")
    by_name: dict[str, RemoteAgent] = {}
    for name, row in agents.items():
        if not isinstance(name, str) or not AGENT_NAME.fullmatch(name):
            raise AgentsFileError(f"{file}: {name!r} is no name of an agent: lower-case letters, digits, _; 32 at most")
        try:
            by_name[name] = RemoteAgent.model_validate(row)
        except ValidationError as error:
            raise AgentsFileError(f"{file}: {name}: {find_misfits(error, RemoteAgent)[0]}") from error
        if urlsplit(by_name[name].card).scheme == "http" and not by_name[name].private:
            message = f"{file}: {name}: its card is at plain http, where anybody on the way can change it"
            raise AgentsFileError(f"{message}; use https, or say `private: true` of an agent in your own network")
    return by_name


def _read_pins(file: Path) -> dict[str, CardPin]:
    if not file.exists():
        return {}
    advice = "take it away and pin the agents again: bulkhead agents add"
    try:
        document = json.loads(read_bounded_text(file, MAX_PINS_BYTES, advice))
        return {str(name): CardPin.model_validate(row) for name, row in dict(document).items()}
    except ValidationError as error:
        raise AgentsFileError(f"{file}: {find_misfits(error, CardPin)[0]}; {advice}") from error
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, McpFileError):
            raise
        raise AgentsFileError(f"{file} does not hold pins: {error}; {advice}") from error
