"""Traces: one per task, carried by W3C `traceparent` in the envelope.

Spans go to an OTLP endpoint when one is configured, else to a local JSON Lines file that `bulkhead timeline` reads.
"""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

from bulkhead.telemetry.redaction import without_sensitive

_tracer = trace.get_tracer("bulkhead")
_records_prompts = False
MAX_PROMPT_CHARS = 64 * 1024
MAX_TRACE_FILE_BYTES = 256 * 1024 * 1024


class JsonLinesExporter(SpanExporter):
    """Appends spans to a file, one JSON object a line; starts a new file when it has grown too large."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        lines = "".join(json.dumps(_as_dict(span), separators=(",", ":")) + "\n" for span in spans)
        try:
            with self._lock:
                if self._path.exists() and self._path.stat().st_size > MAX_TRACE_FILE_BYTES:
                    os.replace(self._path, self._path.with_suffix(".old.jsonl"))
                with self._path.open("a") as file:
                    file.write(lines)
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS


def _as_dict(span: ReadableSpan) -> dict[str, object]:
    ids = span.get_span_context()
    assert ids is not None
    return {
        "trace_id": f"{ids.trace_id:032x}",
        "span_id": f"{ids.span_id:016x}",
        "parent_id": f"{span.parent.span_id:016x}" if span.parent else "",
        "name": span.name,
        "kind": span.kind.name,
        "service": span.resource.attributes.get("service.name", ""),
        "start_unix_ns": span.start_time,
        "end_unix_ns": span.end_time,
        "attributes": dict(span.attributes or {}),
        "status": span.status.status_code.name,
    }


def setup(
    service: str, instance: str, otlp_endpoint: str, trace_file: Path | None, *, prompts: bool = False
) -> TracerProvider | None:
    """Configure this process. Without endpoint and file nothing is recorded, but context is still passed on.

    prompts: also record what models were told and answered; off unless somebody asked for it.
    """
    global _records_prompts
    _records_prompts = prompts
    if not otlp_endpoint and trace_file is None:
        return None
    provider = TracerProvider(
        resource=Resource.create(
            {"service.name": service, "service.namespace": "bulkhead", "service.instance.id": instance}
        ),
        shutdown_on_exit=True,
    )
    if otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter: SpanExporter = OTLPSpanExporter(endpoint=otlp_endpoint.rstrip("/") + "/v1/traces")
    else:
        assert trace_file is not None
        exporter = JsonLinesExporter(trace_file)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
    trace.set_tracer_provider(provider)
    return provider


def is_recording() -> bool:
    """Check whether this process records spans."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def span(
    name: str,
    traceparent: str = "",
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str | int | float | bool] | None = None,
) -> AbstractContextManager[Span]:
    """A span under the given parent (or the current one). Where nothing is recorded only the parent is passed on."""
    parent = _parent_context(traceparent) if traceparent else None
    if parent is None and not is_recording():
        return nullcontext(trace.get_current_span())
    started = _tracer.start_span(name, context=parent, kind=kind, attributes=attributes)
    return trace.use_span(started, end_on_exit=True)


def _parent_context(traceparent: str) -> otel_context.Context | None:
    parts = traceparent.split("-")
    try:
        ids = SpanContext(
            int(parts[1], 16), int(parts[2], 16), is_remote=True, trace_flags=TraceFlags(int(parts[3], 16))
        )
    except (IndexError, ValueError):
        return None
    return trace.set_span_in_context(NonRecordingSpan(ids)) if ids.is_valid else None


def record_prompt_text(name: str, text: object) -> None:
    """Put prompt or answer text on the current span, when that is switched on."""
    current = trace.get_current_span()
    if _records_prompts and current.is_recording():
        prompt_text = text if isinstance(text, str) else json.dumps(text, default=str)
        current.set_attribute(name, without_sensitive(prompt_text[:MAX_PROMPT_CHARS]))


def current_traceparent() -> str:
    """`traceparent` of the current span; "" when there is none."""
    ids = trace.get_current_span().get_span_context()
    if not ids.is_valid:
        return ""
    return f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{int(ids.trace_flags):02x}"
