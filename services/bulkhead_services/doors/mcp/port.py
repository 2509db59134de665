"""The seam between MCP's side and the bus side. In: a call of a tool. Out: its outcome, or a DoorRefusal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import ToolProgress, ToolSpec
from bulkhead_services.doors.port import Caller


@dataclass(frozen=True, slots=True)
class ParsedToolCall:
    """One call. request: the client's id of it; where `unique`, nobody else's call ever bears the same, so that a call
    which comes under it again is a repeat. keyed: it is an idempotency key, by which the client tells calls apart.
    on_progress: hears what its tool says of how far it has come; None where the client does not want to know."""

    tool: ToolSpec
    arguments: Mapping[str, Any]
    request: str
    unique: bool
    keyed: bool = False
    on_progress: Callable[[ToolProgress], None] | None = None


@dataclass(frozen=True, slots=True)
class ToolCallAnswer:
    """Outcome of a call. text: of its result; "" where it has none. passages: of a search, with what each
    cites.
    """

    task: str
    call_id: str
    outcome: Literal["succeeded", "refused", "failed", "uncertain"]
    text: str = ""
    failure: Failure | None = None
    standing: str = "ok"
    left_out: tuple[str, ...] = ()
    passages: tuple[Mapping[str, Any], ...] = ()


class ToolCallPort(Protocol):
    """The bus side of the tool door."""

    async def list_tools(self, caller: Caller) -> tuple[ToolSpec, ...]:
        """The tools of the caller's tenant, or of the step that it holds. Raises DoorRefusal."""
        ...

    async def call_tool(self, caller: Caller, tool_call: ParsedToolCall) -> ToolCallAnswer:
        """A call, once, and its outcome. Raises DoorRefusal: it was not made, or has no outcome yet."""
        ...
