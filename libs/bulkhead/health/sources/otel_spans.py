"""A source of rows: OpenTelemetry GenAI spans.

In: OTLP JSON (`resourceSpans`), or spans one by one as the Python SDK prints them; attributes by the GenAI semantic
conventions (`gen_ai.operation.name` and what belongs to it, the older names too). Out: rows, by the time at which each
span ended. Spans without content (it is opt-in) give acts without arguments or results: only their order is judged.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from bulkhead.health.sources.trace_rows import MAX_NAME_CHARS, MAX_TIME_UNIX_MS, Row

MAX_SPANS = 1_000_000
MAX_DEPTH = 64
_TEXT = ("chat", "generate_content", "text_completion")
_ATTRIBUTE_VALUES = ("stringValue", "intValue", "doubleValue", "boolValue")


def looks_like(document: object) -> bool:
    """Check whether a parsed document or line is one of spans."""
    if not isinstance(document, Mapping):
        return False
    return (
        "resourceSpans" in document
        or "resource_spans" in document
        or ("attributes" in document and ("span_id" in document or "spanId" in document or "context" in document))
    )


def read_rows(documents: Iterable[object]) -> list[Row]:
    """Rows of all spans of all documents. Raises ValueError for what are no spans, or too many."""
    spans: dict[str, dict[str, object]] = {}
    for document in documents:
        for span in _spans_of(document):
            spans[str(span["id"])] = span
            if len(spans) > MAX_SPANS:
                raise ValueError(f"over {MAX_SPANS:,} spans; split the file by trace")
    ordered = sorted(spans.values(), key=lambda one: (one["end"], one["start"], one["id"]))
    return [row for span in ordered if (row := _span_row(span, spans)) is not None]


def _spans_of(document: object) -> Iterator[dict[str, object]]:
    if not isinstance(document, Mapping):
        raise ValueError("a line is no object: neither a span nor an OTLP document")
    groups = document.get("resourceSpans", document.get("resource_spans"))
    if groups is None:
        yield _span_fields(document)
        return
    for group in _object_list(groups):
        for scope in _object_list(group.get("scopeSpans", group.get("scope_spans", []))):
            for span in _object_list(scope.get("spans", [])):
                yield _span_fields(span)


def _object_list(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise ValueError("resourceSpans, scopeSpans and spans are lists of objects")
    return value


def _span_fields(raw: Mapping[str, object]) -> dict[str, object]:
    context = raw.get("context")
    ids = context if isinstance(context, Mapping) else raw
    attributes = _span_attributes(raw.get("attributes") or {})
    status = raw.get("status")
    code = status.get("code", status.get("status_code")) if isinstance(status, Mapping) else status
    return {
        "id": str(ids.get("span_id") or ids.get("spanId") or "")[:MAX_NAME_CHARS],
        "trace": str(ids.get("trace_id") or ids.get("traceId") or "")[:MAX_NAME_CHARS],
        "parent": str(raw.get("parent_id") or raw.get("parentSpanId") or raw.get("parent_span_id") or ""),
        "name": str(raw.get("name", ""))[:MAX_NAME_CHARS],
        "start": _time_unix_ms(raw, "startTimeUnixNano", "start_time", "start_unix_ns"),
        "end": _time_unix_ms(raw, "endTimeUnixNano", "end_time", "end_unix_ns"),
        "failed": code in (2, "2", "ERROR", "STATUS_CODE_ERROR") or "error.type" in attributes,
        "attributes": attributes,
    }


def _span_attributes(raw: object) -> dict[str, object]:
    if isinstance(raw, Mapping):
        return {str(key): value for key, value in raw.items()}
    attributes: dict[str, object] = {}
    for attribute in _object_list(raw):
        value = attribute.get("value")
        if isinstance(value, Mapping):
            value = next((value[kind] for kind in _ATTRIBUTE_VALUES if kind in value), value)
        attributes[str(attribute.get("key"))] = value
    return attributes


def _time_unix_ms(raw: Mapping[str, object], *names: str) -> int:
    value = next((raw[name] for name in names if name in raw), 0)
    if isinstance(value, str) and not value.isdecimal():
        try:
            return int(datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp() * 1000)
        except ValueError:
            raise ValueError(f"{names[0]} {value[:40]!r} is no time") from None
    number = int(value) if isinstance(value, int | str) and value else 0
    number = number // 1_000_000 if number > 10**14 else number
    if not 0 <= number <= MAX_TIME_UNIX_MS:
        raise ValueError(f"{names[0]} is no time")
    return number


def _span_row(span: dict[str, object], spans: Mapping[str, dict[str, object]]) -> Row | None:
    attributes = span["attributes"]
    assert isinstance(attributes, dict)
    operation = str(attributes.get("gen_ai.operation.name") or str(span["name"]).split(" ")[0])
    parent = spans.get(str(span["parent"]))
    row: dict[str, object] = {
        "id": span["id"],
        "task": str(attributes.get("gen_ai.conversation.id") or span["trace"] or "trace"),
        "agent": _agent_of(span, spans),
        "time_unix_ms": span["end"],
        "since": int(str(span["start"])) / 1000,
        "tokens": _token_count(attributes, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
        + _token_count(attributes, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    }
    if span["failed"]:
        row["error"] = str(attributes.get("error.type") or "error")
    if operation == "execute_tool":
        tool = str(attributes.get("gen_ai.tool.name") or str(span["name"]).partition(" ")[2] or "tool")
        arguments, result = attributes.get("gen_ai.tool.call.arguments", ""), attributes.get("gen_ai.tool.call.result")
        row |= {"action": tool[:MAX_NAME_CHARS], "arguments": arguments, "result": result}
    elif operation == "retrieval":
        query, hits = attributes.get("gen_ai.retrieval.query.text", ""), attributes.get("gen_ai.retrieval.documents")
        row |= {"action": "retrieval", "arguments": query, "result": hits}
    elif operation == "invoke_agent" and parent is not None:
        question = str(attributes.get("gen_ai.input.messages", ""))
        row |= {"agent": _agent_of(parent, spans), "action": "invoke_agent", "to": row["agent"], "text": question}
    elif operation in _TEXT and span["failed"]:
        row |= {"action": operation, "arguments": attributes.get("gen_ai.request.model", "")}
    elif operation in _TEXT and (text := attributes.get("gen_ai.output.messages")) and "tool_call" not in str(text):
        row |= {"text": str(text)}
    else:
        return None
    return row


def _agent_of(span: dict[str, object], spans: Mapping[str, dict[str, object]]) -> str:
    """The agent that the span names, or the nearest span above it that names one."""
    for _ in range(MAX_DEPTH):
        attributes = span["attributes"]
        assert isinstance(attributes, dict)
        name = attributes.get("gen_ai.agent.name") or attributes.get("gen_ai.agent.id")
        if name:
            return str(name)[:MAX_NAME_CHARS]
        above = spans.get(str(span["parent"]))
        if above is None:
            break
        span = above
    return "agent"


def _token_count(attributes: Mapping[str, object], *names: str) -> int:
    value = next((attributes[name] for name in names if name in attributes), 0)
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0
