"""Events that a watcher sees, pure: of stored facts, their opaque ids, and which text is still owed.

In: messages of the inbox, live text, the position that a client names. Out: `Event`s in order.

A position is the sequence of the last stored event (and its place in a message that tells several) and,
for every step whose text is not complete yet, how many characters were sent and their checksum. The
checksum is what makes resuming safe: a text that has become another one (a new attempt, another replica,
the stored record) is sent again whole, with `replace`.
"""

import base64
import binascii
import hashlib
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import get_args

from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts.approval import ApprovalEnded, ApprovalRequested
from bulkhead_contracts.budget import Alerted
from bulkhead_contracts.plan import PlanAdopted, PlanProposed, PlanRejected
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import (
    StepEnded,
    StepStarted,
    TaskAccepted,
    TaskEnded,
    TaskPaused,
    TaskQueued,
    TaskReleased,
)
from bulkhead_contracts.tool import CallEvent, LiveCall
from bulkhead_services.gateway.read_model.task_view import ENDED, TaskView

MAX_OPEN_TEXTS = 32
"""Steps whose text position an event id carries; text of further ones is sent again whole after a reconnect."""
MAX_EVENT_ID_CHARS = 1_024
_HEAD = struct.Struct(">BQ")
_HEAD_OF_PART = struct.Struct(">BQB")
_OPEN = struct.Struct(">4sII")
_VERSION, _OF_PART = 1, 2


class BadEventId(ValueError):
    """A Last-Event-ID that this gateway did not make."""


@dataclass(frozen=True, slots=True)
class SentText:
    """Text of a step that a client has: characters, their CRC-32, and which live text they belong to."""

    chars: int = 0
    crc: int = 0
    epoch: int = -1

    def is_prefix_of(self, text: str) -> bool:
        """True if the characters that were sent are the beginning of `text`."""
        return self.chars <= len(text) and zlib.crc32(text[: self.chars].encode()) == self.crc

    def with_piece(self, piece: str, epoch: int) -> "SentText":
        """After `piece` was sent too."""
        return SentText(self.chars + len(piece), zlib.crc32(piece.encode(), self.crc), epoch)


@dataclass(slots=True)
class StreamPosition:
    """Position of a client. `open`: by step key, the texts under way. part: of a message that tells several facts."""

    sequence: int = 0
    open: dict[bytes, SentText] = field(default_factory=dict)
    part: int = 0

    def to_event_id(self) -> str:
        """The position as an opaque event id."""
        head = (_OF_PART, self.sequence, self.part) if self.part else (_VERSION, self.sequence)
        raw = (_HEAD_OF_PART if self.part else _HEAD).pack(*head)
        for key, sent in list(self.open.items())[-MAX_OPEN_TEXTS:]:
            raw += _OPEN.pack(key, sent.chars, sent.crc)
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def step_key(step_id: str) -> bytes:
    """Four bytes that stand for a step in event ids; a collision only costs sending a text again."""
    return hashlib.blake2b(step_id.encode(), digest_size=4).digest()


def parse_position(event_id: str) -> StreamPosition:
    """The position in an event id; raises BadEventId."""
    try:
        if len(event_id) > MAX_EVENT_ID_CHARS:
            raise ValueError("too long")
        raw = base64.b64decode(event_id + "=" * (-len(event_id) % 4), altchars=b"-_", validate=True)
        head = {_VERSION: _HEAD, _OF_PART: _HEAD_OF_PART}.get(raw[0] if raw else 0)
        if head is None or (len(raw) - head.size) % _OPEN.size:
            raise ValueError("version or length")
        _, sequence, *part = head.unpack_from(raw)
        opens = {key: SentText(chars, crc) for key, chars, crc in _OPEN.iter_unpack(raw[head.size :])}
    except (ValueError, struct.error, binascii.Error) as error:
        raise BadEventId("Last-Event-ID is not an id that this gateway gave out") from error
    return StreamPosition(sequence, opens, *part)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the stream: name, JSON data, and the id to resume after it."""

    name: str
    data: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class FeedFact:
    """A stored event before it is sent. content: the step's or the task's text, to be sent or shown with it.

    part: its place in a message that tells several.
    """

    sequence: int
    name: str
    data: dict[str, object]
    step_id: str = ""
    attempt: int = 0
    content: ContentRef | None = None
    fills_text: bool = False
    last: bool = False
    part: int = 0

    @property
    def time_unix_ms(self) -> int:
        """The broker's time."""
        time_unix_ms = self.data["time_unix_ms"]
        assert isinstance(time_unix_ms, int)
        return time_unix_ms


def fact_of(message: ReceivedMessage, before: TaskView, after: TaskView, part: int = 0) -> FeedFact | None:
    """The event that a message of the inbox, or a part of one, stands for, given the views around it; None for what is
    not shown."""
    body = message.body
    data: dict[str, object] = {"task_id": message.task, "time_unix_ms": message.time_unix_ms}
    if before.status in ENDED:
        return None
    if after.status == "rejected":
        # Refused by the gateway, or never readable at all: to the asker both are the same event.
        assert after.failure is not None
        return FeedFact(message.sequence, "task.rejected", data | after.failure.model_dump(mode="json"), last=True)
    name = NAMES.get(type(body))
    if name is None:
        return None
    if isinstance(body, TaskPaused) and not body.active:
        name = RESUMED
    # Labels can be many; the whole result is at GET /v1/tasks/{id}.
    data |= body.model_dump(mode="json", exclude={"result": {"provenance"}})
    if after.delivery != "draft":
        data = _without_words(data)
    if isinstance(body, TaskEnded) and after.failure is not None:
        data["failure"] = after.failure.model_dump(mode="json")
    result = body.result if isinstance(body, StepEnded | TaskEnded) else None
    content = result.content if result is not None else None
    if isinstance(body, StepEnded):
        fills = body.outcome == "accepted" and content is not None
        return FeedFact(message.sequence, name, data, body.step_id, body.attempt, content, fills_text=fills, part=part)
    if isinstance(body, StepStarted):
        return FeedFact(message.sequence, name, data, body.step_id, body.attempt, part=part)
    return FeedFact(message.sequence, name, data, content=content, last=isinstance(body, TaskEnded), part=part)


def _without_words(data: dict[str, object]) -> dict[str, object]:
    """Without what a model has written into a plan: no checker has read that."""
    cut: dict[str, object] = {"title": "", "instruction": "", "acceptance": ""}
    plan = data.get("plan")
    if isinstance(plan, dict):
        data = {**data, "plan": {**plan, "notes": [], "steps": [{**step, **cut} for step in plan["steps"]]}}
    return {name: [] if name == "notes" else "" if name == "title" else value for name, value in data.items()}


NAMES: dict[type, str] = {
    TaskQueued: "task.queued",
    TaskReleased: "task.released",
    TaskAccepted: "task.accepted",
    PlanRejected: "plan.rejected",
    PlanProposed: "plan.proposed",
    PlanAdopted: "plan.adopted",
    StepStarted: "step.started",
    StepEnded: "step.ended",
    TaskEnded: "task.ended",
    TaskPaused: "task.paused",
    Alerted: "budget.alerted",
    ApprovalRequested: "approval.requested",
    ApprovalEnded: "approval.ended",
}
CALLS: tuple[str, ...] = get_args(CallEvent)
TEXT = "text"
RESUMED = "task.resumed"


@dataclass(slots=True)
class LiveStepText:
    """Live text of a step, as far as it was heard: always a gapless beginning.

    epoch is another number after every rewrite; old_calls are calls that this step has left behind.
    """

    call_id: str
    attempt: int
    text: str = ""
    epoch: int = 0
    old_calls: tuple[str, ...] = ()
    verified: bool = False
    """Every piece of it is."""


MAX_OLD_CALLS = 64


def extend_live_text(
    current: LiveStepText | None,
    call_id: str,
    attempt: int,
    offset: int,
    text: str,
    *,
    epoch: int,
    max_chars: int,
    verified: bool = False,
) -> LiveStepText | None:
    """The live text after a delta; `current` itself, grown or not. `epoch` is a fresh number, used for a rewrite.

    What follows a gap is not shown: it comes with the stored record. A delta from a call's beginning, or one that
    contradicts what was heard, starts the text again.
    """
    if current is None:
        return LiveStepText(call_id, attempt, text[:max_chars], epoch, verified=verified) if offset == 0 else None
    if call_id in current.old_calls:
        return current
    if call_id != current.call_id:
        if offset != 0:
            return current
        old = (*current.old_calls, current.call_id)[-MAX_OLD_CALLS:]
        return LiveStepText(call_id, attempt, text[:max_chars], epoch, old, verified)
    have = len(current.text)
    if offset > have:
        return current
    current.verified = current.verified and verified
    if offset == have:
        current.text += text[: max(0, max_chars - have)]
        return current
    if current.text[offset : offset + len(text)] == text:
        return current  # A repeat.
    rewritten = (current.text[:offset] + text)[:max_chars]
    return LiveStepText(call_id, attempt, rewritten, epoch, current.old_calls, current.verified)


def owed_live(sent: SentText, live: LiveStepText) -> tuple[int, str, bool] | None:
    """(offset, piece, replace) that brings a client to the live text; None when it has it all."""
    if sent.epoch == live.epoch or (sent.epoch < 0 and sent.is_prefix_of(live.text)):
        return (sent.chars, live.text[sent.chars :], False) if len(live.text) > sent.chars else None
    return (0, live.text, sent.chars > 0) if live.text or sent.chars else None


def owed_final(sent: SentText, text: str) -> tuple[int, str, bool] | None:
    """(offset, piece, replace) that brings a client to a step's stored text; None when it has it."""
    if sent.is_prefix_of(text):
        return (sent.chars, text[sent.chars :], False) if len(text) > sent.chars else None
    return (0, text, True)


def text_event(
    position: StreamPosition, step_id: str, attempt: int, call_id: str, owed: tuple[int, str, bool]
) -> Event:
    """The `text` event for a piece; the client keeps its first `offset` characters and appends `text`."""
    offset, piece, replace = owed
    data = {"step_id": step_id, "attempt": attempt, "call_id": call_id}
    data |= {"offset": offset, "text": piece, "replace": replace}
    return Event(TEXT, to_json(data), position.to_event_id())


def call_event(position: StreamPosition, task: str, call: LiveCall, *, words: bool) -> Event:
    """The event of a live word about a call. words: with what it looks at, and excerpts of what it brought."""
    cut = {} if words else {"looks_at": "", "excerpt": ""}
    data = {"task_id": task, **call.model_dump(exclude={"event"}), **cut}
    if not words:
        data["sources"] = [source | {"excerpt": ""} for source in data["sources"]]
    shown = data if call.outcome else {name: data[name] for name in data if name not in _OF_OUTCOMES}
    return Event(call.event, to_json(shown), position.to_event_id())


_OF_OUTCOMES = frozenset({"outcome", "code", "duration_ms", "excerpt", "passages", "sources"})


def to_json(data: dict[str, object]) -> str:
    """Compact JSON."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
