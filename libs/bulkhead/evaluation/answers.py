"""The answer to a case, as checks see it: its text, what it cites, and what the task did. Pure."""

import re
from dataclasses import dataclass

MARKER = re.compile(r"\s?\[#[0-9a-f]{12}\]")


@dataclass(frozen=True, slots=True)
class ToolCallRecord:
    """A call of a tool that a task made. arguments: as JSON; "" where they may not be read, or cannot be."""

    tool: str
    arguments: str = ""
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class CaseAnswer:
    """Text that came of a case. cited: names of the documents that the answer cites. answered: the mesh's own verdict,
    `yes`, `partly`, `no` or `unknown`. tool_calls: None where nobody asked for them, or not all are known."""

    text: str
    cited: tuple[str, ...] = ()
    answered: str = ""
    tool_calls: tuple[ToolCallRecord, ...] | None = None
    cost_usd_micros: int = 0
    latency_ms: int = 0

    @property
    def plain_text(self) -> str:
        """The text without the markers of its citations."""
        return MARKER.sub("", self.text)
