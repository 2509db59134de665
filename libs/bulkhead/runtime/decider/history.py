"""Portable histories: every message of a task and every content that they name.

In: a task's messages from the journal, and a way to read contents. Out: a `TaskHistory`; see history_file
for its form as a file. Grants keep their claims, which the fold needs, and lose their signatures.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from bulkhead.bus.port import StoredMessage
from bulkhead.flow import bounded
from bulkhead.flow.content import in_list
from bulkhead.runtime.decider.history_secrets import without_secrets
from bulkhead_contracts import catalog
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.result import REFERENCES, ContentRef
from bulkhead_contracts.task import TaskEnded, TaskRejected

MAX_MESSAGES = 100_000
MAX_BYTES = 512 * 1024 * 1024
"""Size of a history, as messages and contents, and as the lines of its file, uncompressed."""
SOURCE_HEADER = "Nats-Stream-Source"
_REF_FIELDS = frozenset({"author", "sha256", "size_bytes"})


ReadContent = Callable[[ContentRef], Awaitable[bytes | None]]


class HistoryError(ValueError):
    """A file that is no whole history, or a task that does not fit into one; `hint` says what to do."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


class NoHistory(HistoryError):
    """A file that is no history: it was named by mistake."""


@dataclass(frozen=True, slots=True)
class HistoryContent:
    """One content: its author and its bytes; None when it was gone already."""

    authors: tuple[str, ...]
    data: bytes | None


@dataclass(frozen=True, slots=True)
class TaskHistory:
    """Messages have the sequence that they have in their inbox. settled: no message was under way any more."""

    tenant: str
    task: str
    messages: tuple[StoredMessage, ...]
    contents: Mapping[str, HistoryContent] = field(default_factory=dict)
    settled: bool = True
    has_digest: bool = field(default=False, compare=False)
    """It was read from a file that bears a digest over all its lines, and is as that says."""

    @property
    def ended(self) -> bool:
        """True once the planner has reported the task's end, or there was never a task to end."""
        return self._has_message(TaskEnded.TYPE) or self.turned_away

    @property
    def turned_away(self) -> bool:
        """True if the gateway has rejected the task, or could not read its request: no decider heard of it then."""
        heard = any(message.receiver == "planner" for message in self.messages)
        return self._has_message(TaskRejected.TYPE) or (self._has_message(MessageRejected.TYPE) and not heard)

    def _has_message(self, kind: str) -> bool:
        return any(is_of_type(message, kind) for message in self.messages)

    def text_of(self, ref: ContentRef) -> str | None:
        """The text of a reference; None when it is not here."""
        content = self.contents.get(ref.sha256)
        return None if content is None or content.data is None else content.data.decode("utf-8", "replace")


async def collect_history(journal: Sequence[StoredMessage], read: ReadContent, *, settled: bool = True) -> TaskHistory:
    """A task's history. `read` gives the bytes of a reference, None when they are gone. Raises HistoryError."""
    assert journal, "a task without a message has no history"
    if len(journal) > MAX_MESSAGES:
        raise HistoryError(f"the task has over {MAX_MESSAGES} messages", "look at it with `bulkhead timeline`")
    messages = without_secrets([at_its_source(stored) for stored in journal])
    room = MAX_BYTES - sum(len(message.body) for message in messages)
    contents: dict[str, HistoryContent] = {}
    refs = {(ref.sha256, ref.author): ref for message in messages for ref in content_refs(message.body)}
    # Appended to while it is gone through: a list names further contents.
    queue = [ref for _, ref in sorted(refs.items(), key=lambda row: row[0])]
    for ref in queue:
        known_content = contents.get(ref.sha256)
        authors = tuple(sorted({*(known_content.authors if known_content else ()), ref.author}))
        data = known_content.data if known_content and known_content.data is not None else await read(ref)
        room -= len(data or b"") if known_content is None or known_content.data is None else 0
        if room < 0:
            description = f"the task's messages and contents exceed {MAX_BYTES // 1024**2} MiB"
            raise HistoryError(description, "look at it with `bulkhead timeline`, and replay it where it ran")
        contents[ref.sha256] = HistoryContent(authors, data)
        for listed_ref in _listed_refs(ref, data):
            if (listed_ref.sha256, listed_ref.author) not in refs:
                refs[listed_ref.sha256, listed_ref.author] = listed_ref
                queue.append(listed_ref)
    first = messages[0]
    return TaskHistory(first.tenant, first.task, tuple(messages), contents, settled)


def source_of(stored: StoredMessage) -> str:
    """Source from which the broker took a message, in its words; "" for one that was not sourced.

    Its own spelling goes first: it refuses an author's header of that name, and takes one in another case.
    """
    headers = stored.headers
    if SOURCE_HEADER in headers:
        return headers[SOURCE_HEADER]
    return next((value for key, value in headers.items() if key.lower() == SOURCE_HEADER.lower()), "")


def at_its_source(stored: StoredMessage) -> StoredMessage:
    """A sourced message with the sequence that it has in its inbox."""
    source_words = source_of(stored).split()
    sequence = int(source_words[1]) if len(source_words) > 1 and source_words[1].isdigit() else stored.sequence
    return StoredMessage(stored.subject, stored.headers, stored.body, sequence, stored.time_unix_ms)


def is_of_type(stored: StoredMessage, kind: str) -> bool:
    """Check that a message is of this type, by an author who may send it: the type alone is the author's claim."""
    ce_type = stored.ce_type
    return ce_type.startswith(f"{kind}.v") and catalog.is_allowed(ce_type, stored.sender, stored.receiver)


def _listed_refs(ref: ContentRef, data: bytes | None) -> tuple[ContentRef, ...]:
    try:
        return in_list(ref, data) if data is not None and ref.media_type == REFERENCES else ()
    except ValueError:
        return ()  # An outsider's reference may say anything.


def content_refs(body: bytes) -> Iterator[ContentRef]:
    """Every reference to a content in a body; none in one that cannot be read."""
    try:
        document = bounded.load_json(body.decode())
    except ValueError:
        return
    stack: list[object] = [document]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if value.keys() >= _REF_FIELDS:
                try:
                    yield ContentRef.model_validate(value)
                except ValidationError:
                    pass  # An outsider's body may hold anything.
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
