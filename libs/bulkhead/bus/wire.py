"""The broker's bytes decoded: acks, refusals, stored messages, positions in a durable. Pure.

In: subjects, headers and bodies as nats-py gives them. Out: the port's values, or the port's errors with a hint.
Formats: ADR-15 (ack subjects), ADR-31 (direct get) of nats-architecture-and-design.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json

from bulkhead.bus.port import (
    BusError,
    BusUnavailable,
    DurableCounts,
    PubAck,
    PublishRefused,
    Schedule,
    StoredMessage,
    StreamCounts,
    WrongLastSequence,
)

MESSAGE_ID = "Nats-Msg-Id"
EXPECTED_LAST_ON_SUBJECT = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_ON = "Nats-Expected-Last-Subject-Sequence-Subject"
"""The filter that the other one counts on, where that is not the message's own subject."""
HEEDED_HEADERS = frozenset({EXPECTED_LAST_ON_SUBJECT, EXPECTED_ON})
"""The broker heeds the first of each, written exactly so; a reader that believes them must read them alike."""
SCHEDULE = "Nats-Schedule"
SCHEDULE_TARGET = "Nats-Schedule-Target"
STATUS = "Status"
SEQUENCE = "Nats-Sequence"
"""The broker adds it to every stored message that it answers a read with, and to no status."""
DESCRIPTION = "Description"

WRONG_LAST_SEQUENCE_CODES = frozenset({10071, 10164})
RETRYABLE_CODES = frozenset({10007, 10008, 10009, 10118, 10158, 10163, 10167, 10194})
"""No leader, starting, too many publishes waiting, the same id under way: the same publish may succeed in a moment."""
STORE_FAILED_CODE = 10077
_FULL_ADVICE = "what is there stays; purge ended tasks or raise the stream's limit"
_SPACE_ADVICE = "free disk or raise the account's limit in the policy, then restart the broker"
_ADVICE = {
    10002: _SPACE_ADVICE,
    10023: _SPACE_ADVICE,
    10028: _SPACE_ADVICE,
    10047: _SPACE_ADVICE,
    10039: "this account has no JetStream: the service must use the mesh's API prefix",
    10053: _FULL_ADVICE,
    10054: "the message is larger than the stream takes: store the content as blobs and send references",
    10059: "no such stream: run the provisioner",
    10060: "the publisher expects another stream under this subject: check the provisioner",
    10076: "JetStream is off in this broker: start it with a store; a full disk turns it off too",
    STORE_FAILED_CODE: "the broker cannot write: look at its health and its disk, then restart it",
    10097: "the headers are too large: shorten the grant chain",
    10109: "the stream is sealed",
    10111: "rollups are off: a publish must not erase messages",
    10166: "per-message time to live is off: a publish must not erase messages",
    10188: "schedules belong into TIMERS_<SERVICE>",
    10189: "a schedule is '@at <RFC 3339 time>'",
    10190: "the schedule's target must lie in the same timers stream",
}

_SUBJECT = re.compile(r"^(?=.{1,1024}$)[^\s.*>]+(\.[^\s.*>]+)*\Z")
_READ_HEADERS = frozenset(
    {
        "Nats-Stream",
        "Nats-Subject",
        SEQUENCE,
        "Nats-Time-Stamp",
        "Nats-Num-Pending",
        "Nats-Last-Sequence",
        "Nats-UpTo-Sequence",
        STATUS,
        DESCRIPTION,
    }
)
"""Added by the broker to the answer of a read; they are not part of the message."""


def check_sendable(subject: str, size: int, max_bytes: int) -> None:
    """Raise PublishRefused for what no broker takes: a subject that is none, or more bytes than one message holds.

    size: body and headers as they are sent.
    """
    if size > max_bytes:
        raise PublishRefused(
            f"{subject[:200]}: {size} bytes with headers exceed the broker's {max_bytes}; store the content as blobs "
            "and send references"
        )
    if not _is_subject(subject):
        raise PublishRefused(f"{subject[:200]!r} is not a subject to publish on; see subjects.py")


@lru_cache(maxsize=4096)
def _is_subject(text: str) -> bool:
    return _SUBJECT.match(text) is not None


def stored_bytes(headers: Mapping[str, str], body: bytes) -> int:
    """Bytes of a message that count against a stream's limit: its headers as they are sent, and its body."""
    framing = len("NATS/1.0\r\n") + len("\r\n")
    return len(body) + framing + len("".join(headers)) + len("".join(headers.values()).encode()) + 4 * len(headers)


def publish_headers(
    headers: Mapping[str, str], message_id: str, expect_last_on_subject: int | None, expect_none_on: str
) -> dict[str, str]:
    """The headers of a publish as they are sent, with what the broker is to hold; see port.Bus.publish."""
    sent = {**headers, MESSAGE_ID: message_id}
    if expect_last_on_subject is not None:
        sent[EXPECTED_LAST_ON_SUBJECT] = str(expect_last_on_subject)
    elif expect_none_on:
        sent |= {EXPECTED_LAST_ON_SUBJECT: "0", EXPECTED_ON: expect_none_on}
    return sent


def schedule_headers(schedule: Schedule, message_id: str) -> dict[str, str]:
    """The headers of a schedule as they are sent."""
    due = f"@at {format_rfc3339(schedule.due_unix_ms)}"
    return {**schedule.headers, MESSAGE_ID: message_id, SCHEDULE: due, SCHEDULE_TARGET: schedule.target}


def pub_ack(data: bytes, subject: str) -> PubAck:
    """Read the answer to a publish. Raises what the port says; the errors name the remedy."""
    try:
        answer = from_json(data)
        error = answer.get("error")
        if error is None:
            return PubAck(answer["stream"], int(answer["seq"]), bool(answer.get("duplicate", False)))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PublishRefused(f"{subject} was not stored: who answered is no stream; run the provisioner") from None
    code, text = int(error.get("err_code", 0)), str(error.get("description", "no reason given"))
    if code in WRONG_LAST_SEQUENCE_CODES:
        raise StreamWrongLastSequence(
            f"{subject}: {text}; read the newest message there and decide again", str(answer.get("stream", ""))
        )
    if code in RETRYABLE_CODES:
        raise BusUnavailable(f"{subject} was not stored: {text} ({code}); publish again with the same id")
    advice = _ADVICE.get(code, "see the broker's log and the stream's settings")
    if code == STORE_FAILED_CODE and "maximum" in text:
        advice = _FULL_ADVICE
    raise PublishRefused(f"{subject} was not stored: {text} ({code}); {advice}")


class StreamWrongLastSequence(WrongLastSequence):
    """The refusal with its stream, so that the last message can be compared."""

    def __init__(self, message: str, stream: str) -> None:
        super().__init__(message)
        self.stream = stream


class AckPosition(NamedTuple):
    """Position of a delivery: parsed from its ack subject."""

    stream: str
    attempts: int
    sequence: int
    consumer_sequence: int
    time_unix_ms: int


def parse_ack_subject(ack_subject: str) -> AckPosition | None:
    """Parse `$JS.ACK.<stream>.<durable>.<delivered>.<sseq>.<cseq>.<ns>.<pending>`, or the form with domain and
    account hash after ACK; None for anything else."""
    tokens = ack_subject.split(".")
    if len(tokens) < 9 or tokens[0] != "$JS" or tokens[1] != "ACK":
        return None
    offset = 2 if len(tokens) == 9 else 4
    try:
        delivered, sequence, consumer_sequence, time_ns = map(int, tokens[offset + 2 : offset + 6])
    except ValueError:
        return None
    return AckPosition(tokens[offset], delivered, sequence, consumer_sequence, time_ns // 1_000_000)


def reclaim_subjects(state: Mapping[str, Any], stream: str, durable: str) -> list[str]:
    """Subjects on which a NAK has all that a durable handed out come again; none while somebody asks for messages.

    state: the answer to CONSUMER.INFO. The broker ignores what is no longer outstanding; of a delivery's own number it
    heeds only that it is between the first and the last. None comes again at once where one has come again before: it
    may be what ended the process."""
    try:
        floor, last = state["ack_floor"], state["delivered"]
        first, end, number = int(floor["stream_seq"]) + 1, int(last["stream_seq"]), int(last["consumer_seq"])
        if int(state["num_waiting"]) or int(state.get("num_redelivered", 0)):
            return []
        if not int(state["num_ack_pending"]) or end - first >= MAX_RECLAIMED:
            return []
    except (ValueError, KeyError, TypeError):
        return []
    return [f"$JS.ACK.{stream}.{durable}.1.{sequence}.{number}.0.0" for sequence in range(first, end + 1)]


def stream_counts(body: bytes, stream: str) -> StreamCounts:
    """Read the answer to STREAM.INFO. Raises BusError."""
    try:
        answer = json.loads(body)
        state, max_bytes = answer["state"], int(answer.get("config", {}).get("max_bytes", 0))
        by_subject = {str(subject): int(count) for subject, count in (state.get("subjects") or {}).items()}
        return StreamCounts(int(state["last_seq"]), int(state.get("bytes", 0)), max(0, max_bytes), by_subject)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BusError(f"{stream} does not tell how far it has come ({error!r}); run the provisioner") from error


MAX_RECLAIMED = 10_000
"""Beyond so many sequences what was handed out comes again after its ack wait."""
NO_DURABLE_CODE = 10014


def durable_counts(body: bytes, durable: str) -> DurableCounts | None:
    """Read the answer to CONSUMER.INFO; None for "no such durable". Raises BusError."""
    try:
        answer = json.loads(body)
        if int((answer.get("error") or {}).get("err_code", 0)) == NO_DURABLE_CODE:
            return None
        now_ms = time_of(answer["ts"])
        active = (answer.get(part, {}).get("last_active") for part in ("delivered", "ack_floor"))
        last = max((time_of(stamp) for stamp in active if stamp), default=0)
        waits = int(answer["num_pending"]), int(answer["num_ack_pending"])
        return DurableCounts(*waits, int(answer.get("num_waiting", 0)), max(0, now_ms - last))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BusError(f"{durable} does not tell what waits for it ({error!r}); run the provisioner") from error


def was_first(headers: Mapping[str, str], nothing_on: str) -> bool:
    """True if the broker held, when it stored this message, that its stream had nothing under a filter.

    It keeps what it was asked to expect, and stores nothing that it finds otherwise.
    """
    return headers.get(EXPECTED_ON) == nothing_on and headers.get(EXPECTED_LAST_ON_SUBJECT) == "0"


def status_code(headers: Mapping[str, str] | None) -> int:
    """The status of a broker's own answer; 0 for a message, and for a stored one whatever its author wrote into it."""
    if not headers or SEQUENCE in headers:
        return 0
    text = headers.get(STATUS, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def time_of(stamp: str) -> int:
    """Unix milliseconds of the broker's RFC 3339 time with up to nine fractional digits, rounded down."""
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    whole_s = int(datetime.fromisoformat(seconds).replace(tzinfo=UTC).timestamp())
    return whole_s * 1000 + int((fraction + "000")[:3])


def format_rfc3339(time_unix_ms: int) -> str:
    """The broker's form of a time."""
    text = datetime.fromtimestamp(time_unix_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def read_message(headers: Mapping[str, str], body: bytes) -> StoredMessage:
    """A message of a direct get, as it was stored."""
    return StoredMessage(
        subject=headers["Nats-Subject"],
        headers={key: value for key, value in headers.items() if key not in _READ_HEADERS},
        body=body,
        sequence=int(headers[SEQUENCE]),
        time_unix_ms=time_of(headers["Nats-Time-Stamp"]),
    )


def read_page(answers: Sequence[tuple[Mapping[str, str] | None, bytes]], stream: str) -> list[StoredMessage]:
    """All messages of a (batched) direct get, whose last answer may be a status. Raises BusUnavailable, BusError."""
    page: list[StoredMessage] = []
    for headers, body in answers:
        code = status_code(headers)
        if code in (0, 204):
            assert headers is not None
            # Each answer names the one before it: a fold must never be built on an answer with a hole.
            before = int(headers.get("Nats-Last-Sequence", "0"))
            if page and before != page[-1].sequence:
                raise BusUnavailable(f"an answer of {stream} has a hole after {page[-1].sequence}; read again")
            if code == 0:
                page.append(read_message(headers, body))
        elif code == 503:
            raise BusUnavailable(
                f"stream {stream} answers no reads: it was not provisioned with allow_direct, has no leader now, "
                "or this account does not import its direct get"
            )
        elif code != 404:
            text = headers.get(DESCRIPTION, "") if headers else ""
            raise BusError(f"stream {stream} refused to read: {text} ({code})")
    return page


def api_answer(data: bytes, what: str) -> dict[str, Any]:
    """The answer of the JetStream API. Raises BusUnavailable with the reason and the remedy."""
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise BusUnavailable(f"{what}: the broker's answer cannot be read")
    if "error" in answer:
        error = answer["error"]
        raise BusUnavailable(
            f"{what}: {error.get('description', 'no reason given')} ({error.get('err_code', 0)}); "
            "run the provisioner, or wait until it has run"
        )
    return answer
