"""Live events of calls as sentences: what an agent looks at, and what came of it. Pure."""

from collections.abc import Mapping
from typing import Any, get_args

from bulkhead.text.amounts import format_count, format_duration
from bulkhead_contracts.tool import CallEvent

CALL_EVENTS = frozenset(get_args(CallEvent))


def describe_call(event: str, data: Mapping[str, Any]) -> str:
    """The sentence of one event (`tool.started`, ...); of who may not read texts it has names and outcomes."""
    looks_at = f": {data['looks_at']}" if data["looks_at"] else ""
    if event == "retrieval.started":
        return f"searches{looks_at or ' the documents'}"
    if event == "tool.started":
        return f"calls {data['tool']}{looks_at}"
    code = f" ({data['code']})" if data["code"] else ""
    excerpt = f": {data['excerpt']}" if data["excerpt"] else ""
    if event == "retrieval.ended" and data["outcome"] == "found":
        documents = ", ".join(source["document"] for source in data["sources"])
        return f"found {format_count(data['passages'], 'passage')}{f' in {documents}' if documents else ''}"
    subject = "the search" if event == "retrieval.ended" else data["tool"]
    return f"{subject} {data['outcome']}{code} after {format_duration(data['duration_ms'])}{excerpt}"
