"""Replay: fold a task's recorded messages again and compare all outputs, byte for byte.

In: a task's messages as the journal (or a portable history) holds them, and its contents. Out: a report; the first
divergence, if any. No provider is called, nothing is published.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bulkhead.blobs import BlobMissing
from bulkhead.bus.port import StoredMessage
from bulkhead.flow import Decider, InboxMessage, Send, SetTimer
from bulkhead.grants import unverified_claims
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.decider.fold import TaskFold, as_message, fold_message, seal
from bulkhead.runtime.decider.history import at_its_source, is_of_type
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import envelope, subjects
from bulkhead_contracts.control import MessageRejected, TimerFired
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import TaskEnded

ReadText = Callable[[ContentRef], Awaitable[str]]
LogicVersions = Mapping[int, Decider[Any]]
Logics = Mapping[str, LogicVersions]
IGNORED_HEADERS = frozenset({"traceparent"})
"""Differs between runs by nature."""
GRANT_HEADERS = frozenset({"bulkhead-grant", "ce-grantdigest"})
"""Of a step grant: the fold has no key to sign it with."""
BROKER_PREFIX = "nats-"
"""What its own headers begin with."""
CLOCK_HEADERS = frozenset({"ce-time", "ce-actor"})
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
class ReplayReport:
    """The result of a replay. `outstanding`: outputs of the fold that the record of a running task does not hold yet.

    unread: messages that no decider was given or expected: nothing here tells whether they are as they were.
    """

    messages: int = 0
    decisions: int = 0
    compared: int = 0
    outstanding: int = 0
    unread: int = 0
    ended: bool = False
    divergences: list[Divergence] = field(default_factory=list)

    def add_divergence(self, service: str, sequence: int, ce_id: str, what: str, expected: str, recorded: str) -> None:
        """Note a divergence."""
        self.divergences.append(Divergence(service, sequence, ce_id, what, expected, recorded))


@dataclass(frozen=True, slots=True)
class _ExpectedOutput:
    sequence: int
    caused_unix_ms: int
    subject: str
    body: bytes
    headers: dict[str, str]
    claims: dict[str, object] | None
    ignored_headers: frozenset[str]
    """Headers that the record may have all the same."""


async def replay_deciders(
    journal: Sequence[StoredMessage], logics: Logics, read_text: ReadText, *, answered_until_unix_ms: int = 2**62
) -> ReplayReport:
    """Replay one task. Raises CannotReplay: a content that a decision needs is gone, the record has lost its
    beginning, or the task's decision logic is not in this program.

    answered_until_unix_ms: what was stored later may still be in the works, also for a task that has ended (a
    cancelled step's last replies); what the fold says to it and the record lacks is outstanding, not a divergence.
    """
    report = ReplayReport(messages=len(journal))
    by_inbox: dict[str, list[StoredMessage]] = {}
    for stored in journal:
        by_inbox.setdefault(stored.receiver, []).append(at_its_source(stored))
        report.ended = report.ended or is_of_type(stored, TaskEnded.TYPE)
    judged: set[tuple[str, str]] = set()
    for service, versions in logics.items():
        recorded = _recorded_outputs(journal, service, report, versions)
        inbox = sorted(by_inbox.get(service, ()), key=lambda one: one.sequence)
        _require_opening(service, inbox, versions, recorded)
        expected = await _fold_inbox(service, inbox, versions, read_text, report)
        _compare_outputs(service, expected, recorded, report, answered_until_unix_ms)
        judged |= {(service, ce_id) for ce_id in recorded}
    report.unread = sum(
        message.receiver not in logics and (message.sender, message.ce_id) not in judged for message in journal
    )
    report.divergences.sort(key=lambda one: one.sequence)
    return report


def _recorded_outputs(
    journal: Sequence[StoredMessage], service: str, report: ReplayReport, versions: LogicVersions
) -> dict[str, StoredMessage]:
    """The service's recorded messages by ce-id; two different messages under one id are a divergence themselves.

    The author is read from the subject, which the broker enforces, not from a header. Outputs of the service's folds of
    other tasks are left out: their causes are not in this record.
    """
    outputs: dict[str, StoredMessage] = {}
    away = {kind for decider in versions.values() for kind in decider.says_elsewhere}
    ignored_types = (MessageRejected.TYPE, *(f"{kind.TYPE}.v" for kind in away))
    for stored in journal:
        kind = stored.ce_type
        if stored.sender == service and not kind.startswith(ignored_types):
            first = outputs.setdefault(stored.ce_id, stored)
            if (first.subject, first.body) != (stored.subject, stored.body):
                description, bodies = "a second message under one id", (_as_text(first.body), _as_text(stored.body))
                report.add_divergence(service, stored.sequence, first.ce_id, description, *bodies)
    return outputs


def _require_opening(
    service: str, inbox: Sequence[StoredMessage], versions: LogicVersions, recorded: Mapping[str, StoredMessage]
) -> None:
    opening = tuple(f"{kind.TYPE}.v" for decider in versions.values() for kind in decider.opening)
    if recorded and not any(message.ce_type.startswith(opening) for message in inbox):
        description = (
            f"the record has lost its beginning: it holds what {service} said and not what opened the task there"
        )
        hint = "the journal drops its oldest messages when it is full: replay tasks sooner, or keep them with"
        raise CannotReplay(description, f"{hint} `bulkhead export`", expired=True)


async def _fold_inbox(
    service: str, messages: Sequence[StoredMessage], versions: LogicVersions, read_text: ReadText, report: ReplayReport
) -> dict[str, _ExpectedOutput]:
    readable: list[ReceivedMessage] = []
    rejected: dict[int, MessageRejected] = {}
    for stored in messages:
        try:
            received = inbound.read_message(stored, service)
        except Unreadable:
            continue
        readable.append(received)
        if isinstance(received.body, MessageRejected):
            rejected[received.body.sequence] = received.body
    expected = _unopened_outputs(service, messages, rejected, versions)
    fold = TaskFold(state=None)
    for received in readable:
        if received.sequence in rejected:
            continue  # Also when it could be read by now: every fold skips it.
        try:
            _require_logic(service, received, fold, versions)
            message = await _with_contents(service, received, fold, versions, read_text)
            outputs = fold_message(fold, message, versions)
        except CannotReplay:
            raise
        except Exception as bug:
            report.add_divergence(service, received.sequence, received.envelope.id, "the fold fails", repr(bug), "")
            continue
        report.decisions += 1
        for index, output in enumerate(outputs):
            if isinstance(output, Send) and output.task not in ("", message.task):
                continue  # It stands in the record of another fold.
            _, head = seal(service, message, index, output, None, fold.logic)
            expected[head.id] = _expected_output(service, received, output, head)
    return expected


def _require_logic(service: str, one: ReceivedMessage, fold: TaskFold, versions: LogicVersions) -> None:
    if fold.decider is None and one.envelope.logic not in versions:
        have = ", ".join(map(str, sorted(versions)))
        description = f"the task was decided under logic {one.envelope.logic}; this program has {service} logic {have}"
        raise CannotReplay(
            description, "replay it with a version of bulkhead that has that logic (the two newest are kept)"
        )


async def _with_contents(
    service: str, one: ReceivedMessage, fold: TaskFold, versions: LogicVersions, read_text: ReadText
) -> InboxMessage:
    try:
        refs = versions[fold.logic or one.envelope.logic].wanted_contents(one.body)
        return as_message(one, {ref.sha256: await read_text(ref) for ref in refs})
    except BlobMissing as error:
        description = f"what {service} read at {one.sequence} of its inbox is gone: {error}"
        hint = "contents are kept for a limited time: replay tasks sooner, or keep them with `bulkhead export`"
        raise CannotReplay(description, hint, expired=True) from error


def _unopened_outputs(
    service: str, messages: Sequence[StoredMessage], rejected: Mapping[int, MessageRejected], versions: LogicVersions
) -> dict[str, _ExpectedOutput]:
    """Outputs that FoldHandler.on_rejected says in the decider's name when the message that opens a task is
    rejected.
    """
    decider = versions[max(versions)]
    opens = tuple(f"{kind.TYPE}.v" for kind in decider.begins_task)
    outputs: dict[str, _ExpectedOutput] = {}
    for stored in messages:
        fact = rejected.get(stored.sequence)
        if fact is None or not stored.ce_type.startswith(opens):
            continue
        address, cause = subjects.parse(stored.subject), stored.ce_id
        for index, output in enumerate(decider.reject_opening(fact.code, fact.reason)):
            name, kind = envelope.derive_id(service, cause, f"unopened/{index}"), output.body.ce_type()
            head = Envelope(id=name, type=kind, source=service, time_unix_ms=0, cause=cause)
            ignored_headers = IGNORED_HEADERS | CLOCK_HEADERS
            headers = {key: value for key, value in head.to_headers().items() if key not in ignored_headers}
            subject = subjects.mesh_subject(service, output.to, address.tenant, address.task)
            body, caused_unix_ms = output.body.encode(), stored.time_unix_ms
            outputs[head.id] = _ExpectedOutput(
                stored.sequence, caused_unix_ms, subject, body, headers, None, ignored_headers
            )
    return outputs


def _expected_output(service: str, cause: ReceivedMessage, output: Send | SetTimer, head: Envelope) -> _ExpectedOutput:
    signed = isinstance(output, Send) and output.step_grant is not None
    ignored_headers = IGNORED_HEADERS | GRANT_HEADERS if signed else IGNORED_HEADERS
    headers = {key: value for key, value in head.to_headers().items() if key not in ignored_headers}
    if isinstance(output, SetTimer):
        body = TimerFired(key=output.key, due_unix_ms=output.due_unix_ms).encode()
        subject = subjects.mesh_subject(service, service, cause.tenant, cause.task)
        return _ExpectedOutput(cause.sequence, cause.time_unix_ms, subject, body, headers, None, ignored_headers)
    claims: dict[str, object] | None = None
    if output.step_grant is not None:
        # The digest of its task grant is written where it is signed.
        claims = {"grant": output.step_grant.model_dump(mode="json", exclude={"parent_sha256"})}
        if output.grant:
            claims["parent"] = output.grant
    subject = subjects.mesh_subject(service, output.to, cause.tenant, cause.task)
    return _ExpectedOutput(
        cause.sequence, cause.time_unix_ms, subject, output.body.encode(), headers, claims, ignored_headers
    )


def _compare_outputs(
    service: str,
    expected: Mapping[str, _ExpectedOutput],
    recorded: Mapping[str, StoredMessage],
    report: ReplayReport,
    answered_until_unix_ms: int,
) -> None:
    for ce_id, output in expected.items():
        stored = recorded.get(ce_id)
        if stored is None:
            # A timer shows in the record only when it has fired.
            if not output.headers["ce-type"].startswith(TimerFired.TYPE):
                if report.ended and output.caused_unix_ms <= answered_until_unix_ms:
                    report.add_divergence(
                        service, output.sequence, ce_id, "not in the record", _as_text(output.body), ""
                    )
                else:
                    report.outstanding += 1
            continue
        report.compared += 1
        if difference := _first_difference(output, stored):
            report.add_divergence(service, output.sequence, ce_id, *difference)
    for ce_id, stored in recorded.items():
        if ce_id not in expected:
            description = "recorded, but the fold does not say it"
            report.add_divergence(service, stored.sequence, ce_id, description, "", _as_text(stored.body))


def _first_difference(one: _ExpectedOutput, stored: StoredMessage) -> tuple[str, str, str] | None:
    if one.subject != stored.subject:
        return "subject", one.subject, stored.subject
    if one.body != stored.body:
        return "body", _as_text(one.body), _as_text(stored.body)
    for name, value in one.headers.items():
        if stored.headers.get(name, "") != value:
            return f"header {name}", value, stored.headers.get(name, "")
    known_headers = {*one.headers, *one.ignored_headers}
    for name, value in stored.headers.items():
        if value and name.lower() not in known_headers and not name.lower().startswith(BROKER_PREFIX):
            return f"header {name}, which the fold does not say", "", value
    if one.claims is not None:
        claims = unverified_claims(stored.headers.get("bulkhead-grant", ""))
        if isinstance(granted := claims.get("grant"), dict):
            granted.pop("parent_sha256", None)
        if claims != one.claims:
            return "step grant", str(one.claims), str(claims)
    return None


def _as_text(body: bytes) -> str:
    return body.decode("utf-8", "replace")[:4000]
