"""Replay: fold a task's recorded messages again and compare all outputs, byte for byte.

In: a task's messages as the journal (or a portable history) holds them, and its contents. Out: a report; the first
divergence, if any. No provider is called, nothing is published.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bulkhead.blobs import BlobMissing
from bulkhead.bus.port import Stored
from bulkhead.flow import Decider, Message, Send, SetTimer
from bulkhead.grants import unverified_claims
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.consume.inbound import Received
from bulkhead.runtime.decider.fold import Fold, as_message, seal, step
from bulkhead.runtime.decider.history import at_its_source, says
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import envelope, subjects
from bulkhead_contracts.control import MessageRejected, TimerFired
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import TaskEnded

Fetch = Callable[[ContentRef], Awaitable[str]]
Versions = Mapping[int, Decider[Any]]
Logics = Mapping[str, Versions]
NOT_COMPARED = frozenset({"traceparent"})
"""Differs between runs by nature."""
COMPARED_BY_CLAIMS = frozenset({"bulkhead-grant", "ce-grantdigest"})
"""Of a step grant: the fold has no key to sign it with."""
BROKERS = "nats-"
"""What its own headers begin with."""
BY_THE_CLOCK = frozenset({"ce-time", "ce-actor"})
"""Of what is said when the opening message is rejected: no decision says it, so nothing tells its time."""


class CannotReplay(Exception):
    """The record does not allow a verdict. hint: what to do. expired: what is missing was kept for its time only."""

    def __init__(self, what: str, hint: str, *, expired: bool = False) -> None:
        super().__init__(what)
        self.hint, self.expired = hint, expired


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first output of a fold that differs from the record."""

    service: str
    sequence: int
    ce_id: str
    what: str
    expected: str
    recorded: str


@dataclass(slots=True)
class Report:
    """The result of a replay. `outstanding`: outputs of the fold that the record of a running task does not hold yet.

    unread: messages that no decider was given or said: nothing here tells whether they are as they were.
    """

    messages: int = 0
    decisions: int = 0
    compared: int = 0
    outstanding: int = 0
    unread: int = 0
    ended: bool = False
    divergences: list[Divergence] = field(default_factory=list)

    def differs(self, service: str, sequence: int, ce_id: str, what: str, expected: str, recorded: str) -> None:
        """Note a divergence."""
        self.divergences.append(Divergence(service, sequence, ce_id, what, expected, recorded))


@dataclass(frozen=True, slots=True)
class _Said:
    sequence: int
    caused_unix_ms: int
    subject: str
    body: bytes
    headers: dict[str, str]
    claims: dict[str, object] | None
    left_out: frozenset[str]
    """Headers that the record may have all the same."""


async def replay(
    journal: Sequence[Stored], logics: Logics, fetch: Fetch, *, answered_until_unix_ms: int = 2**62
) -> Report:
    """Replay one task. Raises CannotReplay: a content that a decision needs is gone, the record has lost its
    beginning, or the task's decision logic is not in this program.

    answered_until_unix_ms: what was stored later may still be in the works, also for a task that has ended (a
    cancelled step's last replies); what the fold says to it and the record lacks is outstanding, not a divergence.
    """
    report = Report(messages=len(journal))
    by_inbox: dict[str, list[Stored]] = {}
    for stored in journal:
        by_inbox.setdefault(stored.receiver, []).append(at_its_source(stored))
        report.ended = report.ended or says(stored, TaskEnded.TYPE)
    judged: set[tuple[str, str]] = set()
    for service, versions in logics.items():
        recorded = _recorded(journal, service, report, versions)
        inbox = sorted(by_inbox.get(service, ()), key=lambda one: one.sequence)
        _has_opening(service, inbox, versions, recorded)
        said = await _fold(service, inbox, versions, fetch, report)
        _compare(service, said, recorded, report, answered_until_unix_ms)
        judged |= {(service, ce_id) for ce_id in recorded}
    report.unread = sum(one.receiver not in logics and (one.sender, one.ce_id) not in judged for one in journal)
    report.divergences.sort(key=lambda one: one.sequence)
    return report


def _recorded(journal: Sequence[Stored], service: str, report: Report, versions: Versions) -> dict[str, Stored]:
    """The service's recorded messages by ce-id; two different messages under one id are a divergence themselves.

    The author is read from the subject, which the broker enforces, not from a header. Outputs of the service's folds of
    other tasks are left out: their causes are not in this record.
    """
    found: dict[str, Stored] = {}
    away = {kind for one in versions.values() for kind in one.says_elsewhere}
    left_out = (MessageRejected.TYPE, *(f"{kind.TYPE}.v" for kind in away))
    for stored in journal:
        kind = stored.ce_type
        if stored.sender == service and not kind.startswith(left_out):
            first = found.setdefault(stored.ce_id, stored)
            if (first.subject, first.body) != (stored.subject, stored.body):
                what, bodies = "a second message under one id", (_show(first.body), _show(stored.body))
                report.differs(service, stored.sequence, first.ce_id, what, *bodies)
    return found


def _has_opening(service: str, inbox: Sequence[Stored], versions: Versions, recorded: Mapping[str, Stored]) -> None:
    opening = tuple(f"{kind.TYPE}.v" for decider in versions.values() for kind in decider.opening)
    if recorded and not any(one.ce_type.startswith(opening) for one in inbox):
        what = f"the record has lost its beginning: it holds what {service} said and not what opened the task there"
        hint = "the journal drops its oldest messages when it is full: replay tasks sooner, or keep them with"
        raise CannotReplay(what, f"{hint} `bulkhead export`", expired=True)


async def _fold(
    service: str, messages: Sequence[Stored], versions: Versions, fetch: Fetch, report: Report
) -> dict[str, _Said]:
    readable: list[Received] = []
    rejected: dict[int, MessageRejected] = {}
    for stored in messages:
        try:
            one = inbound.read(stored, service)
        except Unreadable:
            continue
        readable.append(one)
        if isinstance(one.body, MessageRejected):
            rejected[one.body.sequence] = one.body
    said = _unopened(service, messages, rejected, versions)
    fold = Fold(state=None)
    for one in readable:
        if one.sequence in rejected:
            continue  # Also when it could be read by now: every fold skips it.
        try:
            _has_logic(service, one, fold, versions)
            message = await _with_contents(service, one, fold, versions, fetch)
            outputs = step(fold, message, versions)
        except CannotReplay:
            raise
        except Exception as bug:
            report.differs(service, one.sequence, one.envelope.id, "the fold fails", repr(bug), "")
            continue
        report.decisions += 1
        for index, output in enumerate(outputs):
            if isinstance(output, Send) and output.task not in ("", message.task):
                continue  # It stands in the record of another fold.
            _, head = seal(service, message, index, output, None, fold.logic)
            said[head.id] = _as_said(service, one, output, head)
    return said


def _has_logic(service: str, one: Received, fold: Fold, versions: Versions) -> None:
    if fold.decider is None and one.envelope.logic not in versions:
        have = ", ".join(map(str, sorted(versions)))
        what = f"the task was decided under logic {one.envelope.logic}; this program has {service} logic {have}"
        raise CannotReplay(what, "replay it with a version of bulkhead that has that logic (the two newest are kept)")


async def _with_contents(service: str, one: Received, fold: Fold, versions: Versions, fetch: Fetch) -> Message:
    try:
        wanted = versions[fold.logic or one.envelope.logic].wants(one.body)
        return as_message(one, {ref.sha256: await fetch(ref) for ref in wanted})
    except BlobMissing as error:
        what = f"what {service} read at {one.sequence} of its inbox is gone: {error}"
        hint = "contents are kept for a limited time: replay tasks sooner, or keep them with `bulkhead export`"
        raise CannotReplay(what, hint, expired=True) from error


def _unopened(
    service: str, messages: Sequence[Stored], rejected: Mapping[int, MessageRejected], versions: Versions
) -> dict[str, _Said]:
    """What FoldHandler.rejected says in the decider's name when the message that opens a task is rejected."""
    decider = versions[max(versions)]
    opens = tuple(f"{kind.TYPE}.v" for kind in decider.begins_task)
    found: dict[str, _Said] = {}
    for stored in messages:
        fact = rejected.get(stored.sequence)
        if fact is None or not stored.ce_type.startswith(opens):
            continue
        address, cause = subjects.parse(stored.subject), stored.ce_id
        for index, output in enumerate(decider.unopened(fact.code, fact.reason)):
            name, kind = envelope.derive_id(service, cause, f"unopened/{index}"), output.body.ce_type()
            head = Envelope(id=name, type=kind, source=service, time_unix_ms=0, cause=cause)
            left_out = NOT_COMPARED | BY_THE_CLOCK
            headers = {key: value for key, value in head.headers().items() if key not in left_out}
            subject = subjects.mesh(service, output.to, address.tenant, address.task)
            body, at = output.body.encode(), stored.time_unix_ms
            found[head.id] = _Said(stored.sequence, at, subject, body, headers, None, left_out)
    return found


def _as_said(service: str, cause: Received, output: Send | SetTimer, head: Envelope) -> _Said:
    signed = isinstance(output, Send) and output.step_grant is not None
    left_out = NOT_COMPARED | COMPARED_BY_CLAIMS if signed else NOT_COMPARED
    headers = {key: value for key, value in head.headers().items() if key not in left_out}
    if isinstance(output, SetTimer):
        body = TimerFired(key=output.key, due_unix_ms=output.due_unix_ms).encode()
        subject = subjects.mesh(service, service, cause.tenant, cause.task)
        return _Said(cause.sequence, cause.time_unix_ms, subject, body, headers, None, left_out)
    claims: dict[str, object] | None = None
    if output.step_grant is not None:
        # The digest of its task grant is written where it is signed.
        claims = {"grant": output.step_grant.model_dump(mode="json", exclude={"parent_sha256"})}
        if output.grant:
            claims["parent"] = output.grant
    subject = subjects.mesh(service, output.to, cause.tenant, cause.task)
    return _Said(cause.sequence, cause.time_unix_ms, subject, output.body.encode(), headers, claims, left_out)


def _compare(
    service: str, said: Mapping[str, _Said], recorded: Mapping[str, Stored], report: Report, answered_until_unix_ms: int
) -> None:
    for ce_id, one in said.items():
        stored = recorded.get(ce_id)
        if stored is None:
            # A timer shows in the record only when it has fired.
            if not one.headers["ce-type"].startswith(TimerFired.TYPE):
                if report.ended and one.caused_unix_ms <= answered_until_unix_ms:
                    report.differs(service, one.sequence, ce_id, "not in the record", _show(one.body), "")
                else:
                    report.outstanding += 1
            continue
        report.compared += 1
        if difference := _difference(one, stored):
            report.differs(service, one.sequence, ce_id, *difference)
    for ce_id, stored in recorded.items():
        if ce_id not in said:
            what = "recorded, but the fold does not say it"
            report.differs(service, stored.sequence, ce_id, what, "", _show(stored.body))


def _difference(one: _Said, stored: Stored) -> tuple[str, str, str] | None:
    if one.subject != stored.subject:
        return "subject", one.subject, stored.subject
    if one.body != stored.body:
        return "body", _show(one.body), _show(stored.body)
    for name, value in one.headers.items():
        if stored.headers.get(name, "") != value:
            return f"header {name}", value, stored.headers.get(name, "")
    said = {*one.headers, *one.left_out}
    for name, value in stored.headers.items():
        if value and name.lower() not in said and not name.lower().startswith(BROKERS):
            return f"header {name}, which the fold does not say", "", value
    if one.claims is not None:
        found = unverified_claims(stored.headers.get("bulkhead-grant", ""))
        if isinstance(granted := found.get("grant"), dict):
            granted.pop("parent_sha256", None)
        if found != one.claims:
            return "step grant", str(one.claims), str(found)
    return None


def _show(body: bytes) -> str:
    return body.decode("utf-8", "replace")[:4000]
