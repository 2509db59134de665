"""Replay: fold every decider of a task again from its recorded messages and compare all that it says, byte for byte.

In: a task's messages as the journal holds them, and its contents. Out: a report; the first divergence, if any. No
provider is called, nothing is published.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bulkhead.bus.port import Stored
from bulkhead.flow import Decider, Send, SetTimer
from bulkhead.grants import unverified_claims
from bulkhead.runtime import inbound
from bulkhead.runtime.fold import Fold, as_message, seal, step
from bulkhead.runtime.inbound import Inbound, Unreadable
from bulkhead_contracts import subjects
from bulkhead_contracts.control import MessageRejected, TimerFired
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import TaskEnded

Fetch = Callable[[ContentRef], Awaitable[str]]
Logics = Mapping[str, Mapping[int, Decider[Any]]]
SOURCE_HEADER = "Nats-Stream-Source"
NOT_COMPARED = frozenset({"traceparent"})
"""Differs between runs by nature."""
COMPARED_BY_CLAIMS = frozenset({"bulkhead-grant", "ce-grantdigest"})
"""Of a step grant: the fold has no key to sign it with."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where a fold did not say what the record holds."""

    service: str
    sequence: int
    ce_id: str
    what: str
    expected: str
    recorded: str


@dataclass(slots=True)
class Report:
    """What was replayed. `outstanding`: said by the fold, not (yet) in the record of a task that has not ended."""

    messages: int = 0
    decisions: int = 0
    compared: int = 0
    outstanding: int = 0
    ended: bool = False
    divergences: list[Divergence] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Said:
    sequence: int
    caused_unix_ms: int
    subject: str
    body: bytes
    headers: dict[str, str]
    claims: dict[str, object] | None


async def replay(
    journal: Sequence[Stored], logics: Logics, fetch: Fetch, *, answered_until_unix_ms: int = 2**62
) -> Report:
    """Replay one task. Raises BlobMissing when a content that a decision needs is gone.

    answered_until_unix_ms: what was stored later may still be in the works, also for a task that has ended (a
    cancelled step's last replies); what the fold says to it and the record lacks is outstanding, not a divergence.
    """
    report = Report(messages=len(journal))
    by_inbox: dict[str, list[Stored]] = {}
    for stored in journal:
        receiver = stored.subject.split(".")[2]
        by_inbox.setdefault(receiver, []).append(_at_its_source(stored))
        report.ended = report.ended or stored.headers.get("ce-type", "").startswith(TaskEnded.TYPE)
    for service, versions in logics.items():
        recorded = _recorded(journal, service, report)
        said = await _fold(
            service, sorted(by_inbox.get(service, ()), key=lambda one: one.sequence), versions, fetch, report
        )
        _compare(service, said, recorded, report, answered_until_unix_ms)
    report.divergences.sort(key=lambda one: one.sequence)
    return report


def _at_its_source(stored: Stored) -> Stored:
    """A sourced message with the sequence that it has in its inbox."""
    parts = stored.headers.get(SOURCE_HEADER, "").split()
    sequence = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else stored.sequence
    return Stored(stored.subject, stored.headers, stored.body, sequence, stored.time_unix_ms)


def _recorded(journal: Sequence[Stored], service: str, report: Report) -> dict[str, Stored]:
    """What the service said, by ce-id; two different messages under one id are a divergence themselves."""
    found: dict[str, Stored] = {}
    for stored in journal:
        kind = stored.headers.get("ce-type", "")
        if stored.headers.get("ce-source") == service and not kind.startswith(MessageRejected.TYPE):
            first = found.setdefault(stored.headers["ce-id"], stored)
            if (first.subject, first.body) != (stored.subject, stored.body):
                what = "a second message under one id"
                report.divergences.append(
                    Divergence(
                        service, stored.sequence, stored.headers["ce-id"], what, _show(first.body), _show(stored.body)
                    )
                )
    return found


async def _fold(
    service: str, messages: Sequence[Stored], versions: Mapping[int, Decider[Any]], fetch: Fetch, report: Report
) -> dict[str, _Said]:
    readable: list[Inbound] = []
    rejected: set[int] = set()
    for stored in messages:
        try:
            one = inbound.read(stored, service)
        except Unreadable:
            continue
        readable.append(one)
        if isinstance(one.body, MessageRejected):
            rejected.add(one.body.sequence)
    said: dict[str, _Said] = {}
    fold = Fold(state=None)
    for one in readable:
        decider = versions.get(one.envelope.logic)
        wanted = decider.wants(one.body) if decider else ()
        message = as_message(one, {ref.sha256: await fetch(ref) for ref in wanted})
        try:
            outputs = step(fold, message, versions)
        except Exception as bug:
            if one.sequence not in rejected:
                report.divergences.append(
                    Divergence(service, one.sequence, one.envelope.id, "the fold fails", repr(bug), "")
                )
            continue
        report.decisions += 1
        for index, output in enumerate(outputs):
            _, head = seal(service, message, index, output, None)
            said[head.id] = _as_said(service, one, output, head)
    return said


def _as_said(service: str, cause: Inbound, output: Send | SetTimer, head: Envelope) -> _Said:
    address = cause.address
    signed = isinstance(output, Send) and output.step_grant is not None
    left_out = NOT_COMPARED | COMPARED_BY_CLAIMS if signed else NOT_COMPARED
    headers = {key: value for key, value in head.headers().items() if key not in left_out}
    if isinstance(output, SetTimer):
        body = TimerFired(key=output.key, due_unix_ms=output.due_unix_ms).encode()
        return _Said(
            cause.sequence,
            cause.time_unix_ms,
            subjects.mesh(service, service, address.tenant, address.task),
            body,
            headers,
            None,
        )
    claims: dict[str, object] | None = None
    if output.step_grant is not None:
        claims = {"grant": output.step_grant.model_dump(mode="json")}
        if output.grant:
            claims["parent"] = output.grant
    subject = subjects.mesh(service, output.to, address.tenant, address.task)
    return _Said(cause.sequence, cause.time_unix_ms, subject, output.body.encode(), headers, claims)


def _compare(
    service: str, said: Mapping[str, _Said], recorded: Mapping[str, Stored], report: Report, answered_until_unix_ms: int
) -> None:
    for ce_id, one in said.items():
        stored = recorded.get(ce_id)
        if stored is None:
            # A timer shows in the record only when it has fired.
            if not one.headers["ce-type"].startswith(TimerFired.TYPE):
                if report.ended and one.caused_unix_ms <= answered_until_unix_ms:
                    report.divergences.append(
                        Divergence(service, one.sequence, ce_id, "not in the record", _show(one.body), "")
                    )
                else:
                    report.outstanding += 1
            continue
        report.compared += 1
        difference = _difference(one, stored)
        if difference:
            report.divergences.append(Divergence(service, one.sequence, ce_id, *difference))
    for ce_id, stored in recorded.items():
        if ce_id not in said:
            report.divergences.append(
                Divergence(
                    service, stored.sequence, ce_id, "recorded, but the fold does not say it", "", _show(stored.body)
                )
            )


def _difference(one: _Said, stored: Stored) -> tuple[str, str, str] | None:
    if one.subject != stored.subject:
        return "subject", one.subject, stored.subject
    if one.body != stored.body:
        return "body", _show(one.body), _show(stored.body)
    for name, value in one.headers.items():
        if stored.headers.get(name, "") != value:
            return f"header {name}", value, stored.headers.get(name, "")
    if one.claims is not None:
        found = unverified_claims(stored.headers.get("bulkhead-grant", ""))
        if found != one.claims:
            return "step grant", str(one.claims), str(found)
    return None


def _show(body: bytes) -> str:
    return body.decode("utf-8", "replace")[:4000]
