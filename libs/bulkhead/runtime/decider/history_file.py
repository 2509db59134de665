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

from bulkhead.bus.port import Stored
from bulkhead.runtime.decider.history import MAX_BYTES, MAX_MESSAGES, Content, History, HistoryError, NoHistory
from bulkhead_contracts import bounds, subjects

VERSION = 1
MAX_LINE_BYTES = 8 * bounds.MAX_BLOB_BYTES
"""A content of control characters grows sixfold as JSON."""
DIGEST = "digest"
_GZIP = b"\x1f\x8b"


class Lines(Protocol):
    """An open file, compressed or not."""

    def readline(self, size: int, /) -> bytes:
        """The next line, or so much of it."""
        ...


# Writing


def _head(history: History) -> dict[str, Any]:
    """The first line, but for the digest."""
    same = {name: getattr(history, name) for name in ("tenant", "task", "ended", "settled")}
    counts = {"messages": len(history.messages), "contents": len(history.contents)}
    return {"bulkhead_history": VERSION, **same, **counts}


def _lines(history: History) -> Iterator[str]:
    """All lines but the first, without their ends."""
    for one in history.messages:
        place = {"stream": subjects.inbox_stream(one.receiver), "sequence": one.sequence, "subject": one.subject}
        rest = {"time_unix_ms": one.time_unix_ms, "headers": dict(one.headers)}
        yield _line(place | rest | _data("body", one.body))
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
            what = f"the task's history exceeds {MAX_BYTES // 1024**2} MiB"
            raise HistoryError(what, "look at it with `bulkhead timeline`, and replay it where it ran")
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
        beside.unlink(missing_ok=True)
        # Prompts, documents and live grants are in it.
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(raw)
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
        what = f"{name} is a history of version {str(version)[:20]}; this program reads {VERSION}"
        raise NoHistory(what, "use the version of bulkhead that wrote it, or a newer one")
    messages: list[Stored] = []
    contents: dict[str, Content] = {}
    try:
        for row in rows:
            if "sha256" in row:
                contents[row["sha256"]] = _content(row, name)
            elif len(messages) >= MAX_MESSAGES:
                raise HistoryError(f"{name} has over {MAX_MESSAGES} messages", "is it the right file?")
            else:
                content, numbers = _bytes(row, "body"), (int(row["sequence"]), int(row["time_unix_ms"]))
                messages.append(Stored(_subject(row), _headers(row), content, *numbers))
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
        what = f"{name} says that its task has {'' if ended else 'not '}ended; its messages say otherwise"
        raise HistoryError(what, "messages were added or taken away: do not trust the file; export the task again")
    if found.digested and head.pop(DIGEST) != _digest(digest, head):
        what = f"{name} was changed after it was exported: its lines do not have its digest"
        raise HistoryError(what, "do not trust the file; export the task again")
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
        hint = "copy it again, or export the task again"
        raise HistoryError(f"{name} is cut off or damaged in line {rows + 1}: {what}", hint) from error


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
        what = f"in {name}, content {str(row['sha256'])[:12]} does not have its digest: it was changed"
        raise HistoryError(what, "do not trust the file; export the task again")
    return Content(authors, data)


def _bytes(row: Mapping[str, Any], name: str) -> bytes:
    if name in row:
        return str(row[name]).encode()
    try:
        return base64.b64decode(row[f"{name}_base64"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"{name}_base64: {error}") from error
