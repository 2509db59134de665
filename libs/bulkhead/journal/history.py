"""A task's messages from the journal and its spans from the trace files, for timeline and replay.

In: the broker under the operator's identity, the data directory. Out: entries in the order in which they are read.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bulkhead.bus.port import Bus, StoredMessage
from bulkhead.health.sources.journal_messages import may_speak
from bulkhead.journal.reader import read_journal
from bulkhead.journal.uncertain_writes import origin_of
from bulkhead.telemetry import names
from bulkhead_contracts import catalog, envelope
from bulkhead_contracts.budget import ReservedTogether
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.retrieval import RetrievalReplied, RetrievalRequested
from bulkhead_contracts.settlement import Settled, settlements_of
from bulkhead_contracts.task import Progressed, TaskEnded, list_facts
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from bulkhead_contracts.types import Body

Requested = ModelCallRequested | ToolCallRequested | RetrievalRequested
Replied = ModelCallReplied | ToolCallReplied | RetrievalReplied
MAX_LINE_BYTES = 1024 * 1024
MAX_SPAN_DEPTH = 32


@dataclass(slots=True)
class JournalEntry:
    """One message. reply: the message that answers it. spans: the spans of its handling.

    actor: on whose authority. origin: of a tool's call in a fork, the first task of its line, which is part of the key.
    logic: the decision logic of its author. later: a newer program could read it.
    """

    sequence: int
    at_unix_ms: int
    sender: str
    receiver: str
    tenant: str
    type: str
    id: str
    cause: str
    body: Body | None
    problem: str = ""
    reply: "JournalEntry | None" = None
    spans: list["Span"] = field(default_factory=list)
    task: str = ""
    actor: str = ""
    origin: str = ""
    logic: int = 0
    later: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span of the trace files."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    start_unix_ms: float
    duration_ms: float
    attributes: dict[str, Any]


class UnknownTask(LookupError):
    """The journal holds no such task, or several tenants have one of this id. hint: the next thing to do."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


async def read_one_task(
    bus: Bus, task: str, tenant: str = "", *, reservations: bool = True, as_it_lies: bool = False
) -> list[StoredMessage]:
    """Everything of one tenant's task, as `read_journal` reads it. Raises UnknownTask."""
    journal = await read_journal(bus, task, reservations=reservations, as_it_lies=as_it_lies)
    return messages_of_tenant(journal, task, tenant)


def messages_of_tenant(journal: list[StoredMessage], task: str, tenant: str) -> list[StoredMessage]:
    """The messages of one tenant's task. Raises UnknownTask."""
    tenants = sorted({message.tenant for message in journal})
    if len(tenants) > 1 and not tenant:
        raise UnknownTask(
            f"{len(tenants)} tenants have a task {task}: {', '.join(tenants[:8])}", "say whose with --tenant"
        )
    messages = [message for message in journal if message.tenant == (tenant or tenants[0])]
    if not messages:
        raise UnknownTask(
            f"the journal holds nothing of task {task}" + (f" of tenant {tenant}" if tenant else ""),
            "`bulkhead tasks` lists what there is; the journal may lag by a moment",
        )
    return messages


def build_entries(stored: Iterable[StoredMessage]) -> list[JournalEntry]:
    """Messages as entries, each reply tied to its request. An id is its author's claim: it proves nothing about
    messages of others."""
    built: list[JournalEntry] = []
    by_name: dict[tuple[str, str, str], JournalEntry] = {}
    for message in stored:
        entry = _build_entry(message)
        name = (entry.id, entry.sender, entry.receiver)
        if entry.id and name in by_name:
            continue  # Stored twice, by a publish that was repeated after the dedup window.
        built.append(entry)
        by_name[name] = entry
    for entry in built:
        request = by_name.get((entry.cause, entry.receiver, entry.sender))
        if request is not None:
            request.reply = request.reply or entry
    return built


def each_fact(entries: Iterable[JournalEntry]) -> list[JournalEntry]:
    """The entries, with one for each fact of a message that holds several; reply and spans stay with the first."""
    parts: list[JournalEntry] = []
    settled: set[str] = set()
    for entry in entries:
        if isinstance(entry.body, Progressed | TaskEnded):
            for number, body in enumerate(list_facts(entry.body)):
                spans = entry.spans if not number else []
                parts.append(replace(entry, type=body.ce_type(), body=body, spans=spans))
            continue
        if isinstance(entry.body, ReservedTogether):
            for row in entry.body.rows:
                fact = row.reserved
                parts.append(
                    replace(entry, type=fact.ce_type(), id=row.id, cause=row.cause, body=fact, reply=None, spans=[])
                )
            continue
        if not isinstance(entry.body, Settled):
            parts.append(entry)
        for settlement in _settlements_in(entry):
            if settlement.id not in settled:
                settled.add(settlement.id)
                parts.append(settlement)
    return parts


def _settlements_in(entry: JournalEntry) -> Iterator[JournalEntry]:
    """The settlement that a message is, or those that a doer's reply tells, as messages of their own."""
    if isinstance(entry.body, Settled) and not entry.body.unused:
        yield entry
    elif isinstance(entry.body, Settled) or (entry.sender, entry.receiver) in catalog.SETTLEMENT_EDGES:
        for body in settlements_of(entry.body) if entry.body is not None else ():
            own_id, cause = body.derive_ce_id(entry.sender), body.reservation_id
            yield replace(entry, type=body.ce_type(), id=own_id, cause=cause, body=body, reply=None, spans=[])


def _build_entry(stored: StoredMessage) -> JournalEntry:
    head: envelope.Envelope | None = None
    body: Body | None = None
    problem, later = "", False
    parts = (stored.subject.split(".") + [""] * 6)[:6]
    try:
        head = envelope.parse(stored.headers)
        body = catalog.decode_body(head.type, stored.body)
        if not may_speak(stored.subject, head.type.rpartition(".v")[0]):
            body, problem = None, f"{parts[1]} may not say this to {parts[2]}, which rejects it: nothing came of it"
            later = not parts[1].startswith("pub_")
    except (envelope.EnvelopeError, catalog.DecodeError) as error:
        problem, later = str(error), isinstance(error, catalog.DecodeError) and error.later
    return JournalEntry(
        stored.sequence,
        stored.time_unix_ms,
        parts[1],
        parts[2],
        parts[4],
        head.type if head else "",
        head.id if head else "",
        head.cause if head else "",
        body,
        problem,
        task=parts[5],
        actor=head.actor if head else "",
        origin=origin_of(head.grant) if head and isinstance(body, ToolCallRequested) else "",
        logic=head.logic if head else 0,
        later=later,
    )


def read_spans(folder: Path, task: str) -> list[Span]:
    """Spans of the task's trace, from every service's file; [] when there are no files."""
    raw_spans: list[dict[str, Any]] = []
    traces: set[str] = set()
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                span = _parse_span_line(line)
                if span is None:
                    continue
                raw_spans.append(span)
                if span.get("attributes", {}).get(names.TASK) == task:
                    traces.add(span["trace_id"])
    return [_build_span(span) for span in raw_spans if span["trace_id"] in traces]


def _parse_span_line(line: bytes) -> dict[str, Any] | None:
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        span = json.loads(line)
    except ValueError:
        return None  # The last line of a process that was killed.
    return span if isinstance(span, dict) and "trace_id" in span and "span_id" in span else None


def _build_span(raw: dict[str, Any]) -> Span:
    start, end = int(raw.get("start_unix_ns") or 0), int(raw.get("end_unix_ns") or 0)
    return Span(
        raw["trace_id"],
        raw["span_id"],
        raw.get("parent_id", ""),
        raw.get("name", ""),
        raw.get("service", ""),
        start / 1e6,
        max(0, end - start) / 1e6,
        raw.get("attributes") or {},
    )


def attach_spans(entries: list[JournalEntry], spans: list[Span]) -> None:
    """Give every span to the message during whose handling it was made."""
    by_span = {span.span_id: span for span in spans}
    by_message = {entry.id: entry for entry in entries}
    for span in sorted(spans, key=lambda one: one.start_unix_ms):
        above: Span | None = span
        for _ in range(MAX_SPAN_DEPTH):
            if above is None or names.MESSAGING_ID in above.attributes:
                break
            above = by_span.get(above.parent_id)
        entry = by_message.get(str(above.attributes.get(names.MESSAGING_ID))) if above is not None else None
        if entry is not None:
            entry.spans.append(span)
