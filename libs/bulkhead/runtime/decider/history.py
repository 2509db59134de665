"""A portable history: everything that was said in one task, and every content that it names, in one file.

In: a task's messages as the journal holds them, and its contents; or a file. Out: JSON Lines (gzip when the name ends
in .gz), the same bytes for the same history; or the messages and contents again, every content held against its digest.

Line 1 says what it is, with a digest over all lines: a file that was changed is refused. It is no signature: whoever
changes a file can work it out anew, or take it out, as it is not in files of before. Then one line per message, in the
order in which they were said: stream and sequence name its place in its inbox. Then one line per content, by digest.
Signatures of grants are not in it: their claims are, for the fold needs them.
"""

import base64
import binascii
import gzip
import hashlib
import json
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from bulkhead.bus.port import Stored
from bulkhead.flow import bounded
from bulkhead.runtime.decider.history_secrets import without_secrets
from bulkhead_contracts import bounds, catalog, subjects
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import TaskEnded, TaskRejected

VERSION = 1
MAX_MESSAGES = 100_000
MAX_BYTES = 512 * 1024 * 1024
"""Of a history, as messages and contents, and as the lines of its file, uncompressed."""
MAX_LINE_BYTES = 8 * bounds.MAX_BLOB_BYTES
"""A content of control characters grows sixfold as JSON."""
SOURCE_HEADER = "Nats-Stream-Source"
DIGEST = "digest"
_GZIP = b"\x1f\x8b"
_REF = frozenset({"author", "sha256", "size_bytes"})


class Lines(Protocol):
    """An open file, compressed or not."""

    def readline(self, size: int, /) -> bytes:
        """The next line, or so much of it."""
        ...


Read = Callable[[ContentRef], Awaitable[bytes | None]]


class HistoryError(ValueError):
    """A file that is no whole history, or a task that does not fit into one; `hint` says what to do."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


class NoHistory(HistoryError):
    """Another file than a history: nothing is wrong with it, it was named by mistake."""


@dataclass(frozen=True, slots=True)
class Content:
    """One content: who stored it, and its bytes; None when it was gone already."""

    authors: tuple[str, ...]
    data: bytes | None


@dataclass(frozen=True, slots=True)
class History:
    """Messages have the sequence that they have in their inbox. settled: nothing was in the works any more."""

    tenant: str
    task: str
    messages: tuple[Stored, ...]
    contents: Mapping[str, Content] = field(default_factory=dict)
    settled: bool = True
    digested: bool = field(default=False, compare=False)
    """It was read from a file that bears a digest over all its lines, and is as that says."""

    @property
    def ended(self) -> bool:
        """Whether the planner has said the task's end, or there was never a task to end."""
        return self._says(TaskEnded.TYPE) or self.turned_away

    @property
    def turned_away(self) -> bool:
        """Whether the gateway has rejected the task, or could not read its request: no decider heard of it then."""
        heard = any(one.receiver == "planner" for one in self.messages)
        return self._says(TaskRejected.TYPE) or (self._says(MessageRejected.TYPE) and not heard)

    def _says(self, kind: str) -> bool:
        return any(says(one, kind) for one in self.messages)

    def text(self, ref: ContentRef) -> str | None:
        """The text of a reference; None when it is not here."""
        found = self.contents.get(ref.sha256)
        return None if found is None or found.data is None else found.data.decode("utf-8", "replace")


async def collect(journal: Sequence[Stored], read: Read, *, settled: bool = True) -> History:
    """A task's history. `read` gives the bytes of a reference, None when they are gone. Raises HistoryError."""
    assert journal, "a task without a message has no history"
    if len(journal) > MAX_MESSAGES:
        raise HistoryError(f"the task has over {MAX_MESSAGES} messages", "look at it with `bulkhead timeline`")
    messages = without_secrets([at_its_source(one) for one in journal])
    room = MAX_BYTES - sum(len(one.body) for one in messages)
    contents: dict[str, Content] = {}
    for ref in _by_digest(messages):
        known = contents.get(ref.sha256)
        authors = tuple(sorted({*(known.authors if known else ()), ref.author}))
        data = known.data if known and known.data is not None else await read(ref)
        room -= len(data or b"") if known is None or known.data is None else 0
        if room < 0:
            raise HistoryError(
                f"the task's messages and contents exceed {MAX_BYTES // 1024**2} MiB",
                "look at it with `bulkhead timeline`, and replay it where it ran",
            )
        contents[ref.sha256] = Content(authors, data)
    first = messages[0]
    return History(first.tenant, first.task, tuple(messages), contents, settled)


def source_of(stored: Stored) -> str:
    """Where the broker sourced a message from, in its words; "" for one that was not sourced.

    Its own spelling goes first: it refuses an author's header of that name, and takes one in another case.
    """
    headers = stored.headers
    if SOURCE_HEADER in headers:
        return headers[SOURCE_HEADER]
    return next((value for key, value in headers.items() if key.lower() == SOURCE_HEADER.lower()), "")


def at_its_source(stored: Stored) -> Stored:
    """A sourced message with the sequence that it has in its inbox."""
    found = source_of(stored).split()
    sequence = int(found[1]) if len(found) > 1 and found[1].isdigit() else stored.sequence
    return Stored(stored.subject, stored.headers, stored.body, sequence, stored.time_unix_ms)


def says(stored: Stored, kind: str) -> bool:
    """Whether it is of this type, by somebody who may say that there: a type is its author's word."""
    ce_type = stored.ce_type
    return ce_type.startswith(f"{kind}.v") and catalog.allowed(ce_type, stored.sender, stored.receiver)


def named(body: bytes) -> Iterator[ContentRef]:
    """Every reference to a content in a body; none in one that cannot be read."""
    try:
        found = bounded.loads(body.decode())
    except ValueError:
        return
    stack: list[object] = [found]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            if one.keys() >= _REF:
                try:
                    yield ContentRef.model_validate(one)
                except ValidationError:
                    pass  # An outsider's body may hold anything.
            stack.extend(one.values())
        elif isinstance(one, list):
            stack.extend(one)


def _by_digest(messages: Iterable[Stored]) -> list[ContentRef]:
    found = {(ref.sha256, ref.author): ref for one in messages for ref in named(one.body)}
    return [found[key] for key in sorted(found)]


# Writing


def _head(history: History) -> dict[str, Any]:
    """The first line, but for the digest."""
    return {
        "bulkhead_history": VERSION,
        "tenant": history.tenant,
        "task": history.task,
        "ended": history.ended,
        "settled": history.settled,
        "messages": len(history.messages),
        "contents": len(history.contents),
    }


def _lines(history: History) -> Iterator[str]:
    """All lines but the first, without their ends."""
    for one in history.messages:
        yield _line(
            {
                "stream": subjects.inbox_stream(one.receiver),
                "sequence": one.sequence,
                "time_unix_ms": one.time_unix_ms,
                "subject": one.subject,
                "headers": dict(one.headers),
                **_data("body", one.body),
            }
        )
    for digest in sorted(history.contents):
        held = history.contents[digest]
        row: dict[str, Any] = {"sha256": digest, "authors": list(held.authors)}
        yield _line(row | (_data("text", held.data) if held.data is not None else {"gone": True}))


def dump(history: History, *, compressed: bool = False) -> bytes:
    """The file's bytes: the same for the same history, whenever and wherever it is written.

    Raises HistoryError for a file that would be larger than what can be read again.
    """
    head, digest = _head(history), hashlib.sha256()
    rows = [_line(head | {DIGEST: digest.hexdigest()})]
    size = len(rows[0]) + 1
    for line in _lines(history):
        rows.append(line)
        size += len(line) + 1  # All of it is ASCII.
        digest.update(line.encode() + b"\n")
        if size > MAX_BYTES:
            raise HistoryError(
                f"the task's history exceeds {MAX_BYTES // 1024**2} MiB",
                "look at it with `bulkhead timeline`, and replay it where it ran",
            )
    rows[0] = _line(head | {DIGEST: _digest(digest, head)})
    raw = "".join(row + "\n" for row in rows).encode()
    return gzip.compress(raw, mtime=0) if compressed else raw


def save(history: History, path: Path) -> int:
    """Write a file, whole or not at all; compressed when its name ends in .gz. Returns its size. Raises OSError,
    HistoryError."""
    raw = dump(history, compressed=path.suffix == ".gz")
    if path.exists() and not path.is_file():
        path.write_bytes(raw)  # A pipe or a device: nothing may take its place.
        return len(raw)
    path = path.resolve()  # Of a link, what it leads to.
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_bytes(raw)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return len(raw)


def _digest(rest: "hashlib._Hash", head: Mapping[str, Any]) -> str:
    """Over all lines: the others first, then the first one without it."""
    whole = rest.copy()
    whole.update(_line(head).encode() + b"\n")
    return whole.hexdigest()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, separators=(",", ":"))


def _data(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


# Reading


def load(path: Path) -> History:
    """Read a file, compressed or not. Raises HistoryError, OSError."""
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
        file.seek(0)
        if not compressed:
            return parse(file, path.name)
        with gzip.open(file) as unfolded:
            return parse(unfolded, path.name)


def parse(file: Lines, name: str = "the file") -> History:
    """Read an open file and check that it is whole. Raises HistoryError."""
    digest = hashlib.sha256()
    rows = _rows(file, name, digest)
    head = next(rows, {})
    version = head.get("bulkhead_history")
    if version is None:
        raise NoHistory(f"{name} is no history", "`bulkhead export TASK -o FILE` writes one")
    if version != VERSION:
        raise NoHistory(
            f"{name} is a history of version {str(version)[:20]}; this program reads {VERSION}",
            "use the version of bulkhead that wrote it, or a newer one",
        )
    messages: list[Stored] = []
    contents: dict[str, Content] = {}
    try:
        for row in rows:
            if "sha256" in row:
                contents[row["sha256"]] = _content(row, name)
            elif len(messages) >= MAX_MESSAGES:
                raise HistoryError(f"{name} has over {MAX_MESSAGES} messages", "is it the right file?")
            else:
                messages.append(
                    Stored(
                        _subject(row),
                        _headers(row),
                        _bytes(row, "body"),
                        int(row["sequence"]),
                        int(row["time_unix_ms"]),
                    )
                )
        expected = (int(head["messages"]), int(head["contents"]))
        tenant, task, settled, ended = str(head["tenant"]), str(head["task"]), bool(head["settled"]), head["ended"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, HistoryError):
            raise
        raise HistoryError(f"{name} has a malformed line: {error!r}", "export the task again") from error
    if (len(messages), len(contents)) != expected or not messages:
        raise HistoryError(
            f"{name} is cut off: it has {len(messages)} of {expected[0]} messages and "
            f"{len(contents)} of {expected[1]} contents",
            "copy it again, or export the task again",
        )
    found = History(tenant, task, tuple(messages), contents, settled, DIGEST in head)
    # Programs of before did not take a rejection for an end.
    if found.ended is not ended and not found.turned_away:
        raise HistoryError(
            f"{name} says that its task has {'' if ended else 'not '}ended; its messages say otherwise",
            "messages were added or taken away: do not trust the file; export the task again",
        )
    if found.digested and head.pop(DIGEST) != _digest(digest, head):
        raise HistoryError(
            f"{name} was changed after it was exported: its lines do not have its digest",
            "do not trust the file; export the task again",
        )
    return found


def _rows(file: Lines, name: str, digest: "hashlib._Hash") -> Iterator[dict[str, Any]]:
    """Every line; all but the first go into the digest."""
    read = rows = 0
    try:
        while line := file.readline(MAX_LINE_BYTES + 1):
            read += len(line)
            if len(line) > MAX_LINE_BYTES or read > MAX_BYTES:
                raise NoHistory(f"{name} is larger than any history", "is it the right file?")
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("a line is no object")
            if rows:
                digest.update(line.rstrip(b"\r\n") + b"\n")
            rows += 1
            yield row
    except HistoryError:
        raise
    except (ValueError, EOFError, RecursionError, gzip.BadGzipFile, zlib.error) as error:
        # What JSON calls its place is that in the line.
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)[:200]
        if not rows and not isinstance(error, EOFError | zlib.error):
            raise NoHistory(f"{name} is no history: {what}", "`bulkhead export TASK -o FILE` writes one") from error
        raise HistoryError(
            f"{name} is cut off or damaged in line {rows + 1}: {what}", "copy it again, or export the task again"
        ) from error


def _subject(row: Mapping[str, Any]) -> str:
    subject = str(row["subject"])
    if subject.count(".") < 5:
        raise ValueError("a subject has six tokens")
    return subject


def _headers(row: Mapping[str, Any]) -> dict[str, str]:
    headers = dict(row["headers"])
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in headers.items()):
        raise ValueError("a header is no text")
    return headers


def _content(row: Mapping[str, Any], name: str) -> Content:
    authors = tuple(str(one) for one in row["authors"])
    if row.get("gone"):
        return Content(authors, None)
    data = _bytes(row, "text")
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise HistoryError(
            f"in {name}, content {str(row['sha256'])[:12]} does not have its digest: it was changed",
            "do not trust the file; export the task again",
        )
    return Content(authors, data)


def _bytes(row: Mapping[str, Any], name: str) -> bytes:
    if name in row:
        return str(row[name]).encode()
    try:
        return base64.b64decode(row[f"{name}_base64"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"{name}_base64: {error}") from error
