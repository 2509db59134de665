"""Sources behind the `[#marker]`s of a task's answer, as its messages tell them. Pure but for the read.

In: the facts of one task in the gateway's inbox. Out: per marker the content and where it comes from:
characters of a document, a tool's result, the result of a step, the objective.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bulkhead.gateway_api.tasks import SourceKind
from bulkhead_contracts.result import Citation, Result
from bulkhead_contracts.task import StepEnded, TaskEnded, TaskRequested
from bulkhead_contracts.types import Body

MARKER = re.compile(r"\[#([0-9a-f]{12})\]")


@dataclass(frozen=True, slots=True)
class CitedSource:
    """The content behind a marker. author: of its blob. source: document, tool or step. step_id: its first user."""

    marker: str
    kind: SourceKind = "unknown"
    sha256: str = ""
    author: str = ""
    source: str = ""
    step_id: str = ""
    citation: Citation | None = None
    text: str | None = None


def find_markers(text: str) -> tuple[str, ...]:
    """The markers of a text in their order, each once."""
    return tuple(dict.fromkeys(MARKER.findall(text)))


def collect_sources(bodies: Iterable[Body]) -> dict[str, CitedSource]:
    """Every content that an accepted result of the task rests on, by marker."""
    by_marker: dict[str, CitedSource] = {}
    for body in bodies:
        if isinstance(body, TaskRequested):
            sha256 = hashlib.sha256(body.objective.encode()).hexdigest()
            by_marker[sha256[:12]] = CitedSource(sha256[:12], "objective", sha256, "gateway", text=body.objective)
        elif isinstance(body, StepEnded) and body.outcome == "accepted" and body.result is not None:
            _add_result_sources(by_marker, body.result, body.step_id)
        elif isinstance(body, TaskEnded) and body.result is not None:
            _add_result_sources(by_marker, body.result, "")
    return by_marker


def _add_result_sources(sources: dict[str, CitedSource], result: Result, step_id: str) -> None:
    for label in result.provenance:
        marker = label.sha256[:12]
        if label.kind == "passage" and label.observed_by == "rag":
            sources.setdefault(marker, CitedSource(marker, "document", label.sha256, "rag", label.source, step_id))
        elif label.kind == "tool_result" and label.observed_by == "tool_executor":
            tool_source = CitedSource(marker, "tool_result", label.sha256, "tool_executor", label.source, step_id)
            sources.setdefault(marker, tool_source)
    for citation in result.citations:
        cited = sources.get(citation.marker)
        if cited is None:
            cited = CitedSource(citation.marker, "document", "", "rag", citation.document, step_id)
        if cited.kind == "document" and cited.citation is None:
            sources[citation.marker] = replace(cited, citation=citation)
    if step_id and (content := result.content) is not None:
        marker, sha256 = content.marker, content.sha256
        step_source = CitedSource(marker, "step_result", sha256, content.author, step_id, step_id)
        sources.setdefault(marker, replace(step_source, text=content.carried_text))
