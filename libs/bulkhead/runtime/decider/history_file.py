"""The file of a portable history: JSON Lines, gzip when the name ends in .gz.

In: a history; or a file. Out: the same bytes for the same history; or the history again, every content checked against
its digest.

Line 1 describes the file, with a digest over all lines: a changed file is refused. The digest is no signature: anybody
can compute it anew, and older files have none. One line per message follows, in the order of the journal, with the
stream and sequence in its inbox; then one line per content, by digest.
"""

import base64
import binascii
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.decider.history import (
    MAX_BYTES,
    MAX_MESSAGES,
    HistoryContent,
    HistoryError,
    NoHistory,
    TaskHistory,
)
from bulkhead_contracts import bounds, subjects

VERSION = 1
MAX_LINE_BYTES = 8 * bounds.MAX_BLOB_BYTES
"""A content of control characters grows sixfold as JSON."""
DIGEST = "digest"
_GZIP = b"\x1f\x8b"


class LineReader(Protocol):
    """An open file, compressed or not."""

    def readline(self, size: int, /) -> bytes:
        """The next line, or so much of it."""
        ...


# Writing


def _head_row(history: TaskHistory) -> dict[str, Any]:
    """The first line, but for the digest."""
    same = {name: getattr(history, name) for name in ("tenant", "task", "ended", "settled")}
    counts = {"messages": len(history.messages), "contents": len(history.contents)}
    return {"bulkhead_history": VERSION, **same, **counts}


def _body_lines(history: TaskHistory) -> Iterator[str]:
    """All lines but the first, without their ends."""
    for message in history.messages:
        place = {
            "stream": subjects.inbox_stream(message.receiver),
            "sequence": message.sequence,
            "subject": message.subject,
        }
        fields = {"time_unix_ms": message.time_unix_ms, "headers": dict(message.headers)}
        yield _json_line(place | fields | _data_field("body", message.body))
    for digest in sorted(history.contents):
        content = history.contents[digest]
        row: dict[str, Any] = {"sha256": digest, "authors": list(content.authors)}
        yield _json_line(row | (_data_field("text", content.data) if content.data is not None else {"gone": True}))


def dump_history(history: TaskHistory, *, compressed: bool = False) -> bytes:
    """The file's bytes: the same for the same history, whenever and wherever it is written.

    Raises HistoryError for a file that would be larger than what can be read again.
    """
    head, digest = _head_row(history), hashlib.sha256()
    rows = [_json_line(head | {DIGEST: digest.hexdigest()})]
    size = len(rows[0]) + 1
    for line in _body_lines(history):
        rows.append(line)
        size += len(line) + 1  # All of it is ASCII.
        digest.update(line.encode() + b"\n")
        if size > MAX_BYTES:
            description = f"the task's history exceeds {MAX_BYTES // 1024**2} MiB"
            raise HistoryError(description, "look at it with `bulkhead timeline`, and replay it where it ran")
    rows[0] = _json_line(head | {DIGEST: _file_digest(digest, head)})
    raw = "".join(row + "\n" for row in rows).encode()
    return gzip.compress(raw, mtime=0) if compressed else raw


def save_history(history: TaskHistory, path: Path) -> int:
    """Write a file, whole or not at all; compressed when its name ends in .gz. Returns its size. Raises OSError,
    HistoryError."""
    raw = dump_history(history, compressed=path.suffix == ".gz")
    if path.exists() and not path.is_file():
        path.write_bytes(raw)  # A pipe or a device: nothing may take its place.
        return len(raw)
    path = path.resolve()  # Of a link, what it leads to.
    partial_path = path.with_name(path.name + ".part")
    try:
        partial_path.unlink(missing_ok=True)
        # Prompts, documents and live grants are in it.
        with open(os.open(partial_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(raw)
        partial_path.replace(path)
    except OSError:
        partial_path.unlink(missing_ok=True)
        raise
    return len(raw)


def _file_digest(rest: "hashlib._Hash", head: Mapping[str, Any]) -> str:
    """Over all lines: the others first, then the first one without it."""
    complete = rest.copy()
    complete.update(_json_line(head).encode() + b"\n")
    return complete.hexdigest()


def _json_line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, separators=(",", ":"))


def _data_field(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


# Reading


def load_history(path: Path) -> TaskHistory:
    """Read a file, compressed or not. Raises HistoryError, OSError."""
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
        file.seek(0)
        if not compressed:
            return parse_history(file, path.name)
        with gzip.open(file) as unfolded:
            return parse_history(unfolded, path.name)


def parse_history(file: LineReader, name: str = "the file") -> TaskHistory:
    """Read an open file and check that it is whole. Raises HistoryError."""
    digest = hashlib.sha256()
    rows = _read_rows(file, name, digest)
    head = next(rows, {})
    version = head.get("bulkhead_history")
    if version is None:
        raise NoHistory(f"{name} is no history", "`bulkhead export TASK -o FILE` writes one")
    if version != VERSION:
        description = f"{name} is a history of version {str(version)[:20]}; this program reads {VERSION}"
        raise NoHistory(description, "use the version of bulkhead that wrote it, or a newer one")
    messages: list[StoredMessage] = []
    contents: dict[str, HistoryContent] = {}
    try:
        for row in rows:
            if "sha256" in row:
                contents[row["sha256"]] = _content_of(row, name)
            elif len(messages) >= MAX_MESSAGES:
                raise HistoryError(f"{name} has over {MAX_MESSAGES} messages", "is it the right file?")
            else:
                content, numbers = _bytes_of(row, "body"), (int(row["sequence"]), int(row["time_unix_ms"]))
                messages.append(StoredMessage(_subject_of(row), _headers_of(row), content, *numbers))
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
    history = TaskHistory(tenant, task, tuple(messages), contents, settled, DIGEST in head)
    # Programs of before did not take a rejection for an end.
    if history.ended is not ended and not history.turned_away:
        description = f"{name} says that its task has {'' if ended else 'not '}ended; its messages say otherwise"
        raise HistoryError(
            description, "messages were added or taken away: do not trust the file; export the task again"
        )
    if history.has_digest and head.pop(DIGEST) != _file_digest(digest, head):
        description = f"{name} was changed after it was exported: its lines do not have its digest"
        raise HistoryError(description, "do not trust the file; export the task again")
    return history


def _read_rows(file: LineReader, name: str, digest: "hashlib._Hash") -> Iterator[dict[str, Any]]:
    """Every line; all but the first go into the digest."""
    bytes_read = rows = 0
    try:
        while line := file.readline(MAX_LINE_BYTES + 1):
            bytes_read += len(line)
            if len(line) > MAX_LINE_BYTES or bytes_read > MAX_BYTES:
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
        description = error.msg if isinstance(error, json.JSONDecodeError) else str(error)[:200]
        if not rows and not isinstance(error, EOFError | zlib.error):
            raise NoHistory(
                f"{name} is no history: {description}", "`bulkhead export TASK -o FILE` writes one"
            ) from error
        hint = "copy it again, or export the task again"
        raise HistoryError(f"{name} is cut off or damaged in line {rows + 1}: {description}", hint) from error


def _subject_of(row: Mapping[str, Any]) -> str:
    subject = str(row["subject"])
    if subject.count(".") < 5:
        raise ValueError("a subject has seven tokens")
    # Of before a subject had a key.
    return subject if subject.count(".") > 5 else f"{subject}.{subjects.NO_KEY}"


def _headers_of(row: Mapping[str, Any]) -> dict[str, str]:
    headers = dict(row["headers"])
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in headers.items()):
        raise ValueError("a header is no text")
    return headers


def _content_of(row: Mapping[str, Any], name: str) -> HistoryContent:
    authors = tuple(str(author) for author in row["authors"])
    if row.get("gone"):
        return HistoryContent(authors, None)
    data = _bytes_of(row, "text")
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        description = f"in {name}, content {str(row['sha256'])[:12]} does not have its digest: it was changed"
        raise HistoryError(description, "do not trust the file; export the task again")
    return HistoryContent(authors, data)


def _bytes_of(row: Mapping[str, Any], name: str) -> bytes:
    if name in row:
        return str(row[name]).encode()
    try:
        return base64.b64decode(row[f"{name}_base64"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"{name}_base64: {error}") from error
