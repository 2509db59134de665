"""Files for `bulkhead analyze`: what form they have, and their events.

In: a file of `bulkhead export`, rows as docs/how-to/analyze.md describes them, OpenTelemetry GenAI spans, or chats in
the
OpenAI message format; compressed or not. Out: events one by one. Every file is bounded, and taken for hostile.
"""

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import cast

from bulkhead.health.events import Event
from bulkhead.health.sources import openai_chats, otel_spans
from bulkhead.health.sources.journal import Journal
from bulkhead.health.sources.trace_rows import Row, RowError, Rows
from bulkhead.runtime.decider.history import History, HistoryError, NoHistory
from bulkhead.runtime.decider.history_file import load
from bulkhead_cli.options import Form
from bulkhead_cli.output import Exit, Stop

MAX_BYTES = 1024 * 1024 * 1024
"""Size limit, uncompressed, of a file that is read row by row."""
MAX_DOCUMENT_BYTES = 128 * 1024 * 1024
"""Size limit of a file that is read whole: one document, spans, chats."""
MAX_LINE_BYTES = 8 * 1024 * 1024
MAX_ROWS = 10_000_000
MAX_BLANK_LINES = 1_000
"""Before the first row."""
_GZIP = b"\x1f\x8b"
HINT = "docs/how-to/analyze.md describes the forms; name one with --form"


class Place:
    """How far a file is read that is judged while it is read."""

    def __init__(self) -> None:
        self._file: BufferedIOBase | None = None
        self._bytes = 0

    def reads(self, file: BufferedIOBase) -> None:
        """From now on it is this file; of a compressed one, as it lies on the disk."""
        self._file, self._bytes = file, os.fstat(file.fileno()).st_size

    def part(self) -> float | None:
        """Part of its bytes that was read, from 0 to 1; None when it is read as a whole before anything is judged."""
        if self._file is None or self._file.closed or not self._bytes:
            return None
        return min(1.0, self._file.tell() / self._bytes)


@dataclass(frozen=True, slots=True)
class Opened:
    """A file whose form is known. rows: as they are judged, None for a history. place: how far it is read."""

    form: Form
    rows: Iterable[Row] | None
    history: History | None = None
    place: Place = field(default_factory=Place)

    def events(self) -> Iterator[Event]:
        """Raises Stop for a row that does not fit."""
        if self.history is not None:
            journal = Journal(_texts(self.history))
            for one in self.history.messages:
                yield from journal.read(one.subject, one.headers, one.body, one.time_unix_ms)
            return
        assert self.rows is not None
        try:
            yield from Rows().all(self.rows)
        except RowError as error:
            raise Stop(Exit.USAGE, str(error), f"{error.hint}; {HINT}") from error


def open_file(path: Path, form: Form) -> Opened:
    """Look at a file and open it as what it is. Raises Stop."""
    try:
        if form in ("auto", "bulkhead") and _is_history(path):
            return Opened("bulkhead", None, load(path))
        if form == "bulkhead":
            raise Stop(Exit.USAGE, f"{path} is no file of bulkhead export", "`bulkhead export TASK -o FILE` writes one")
        place = Place()
        documents = _documents(path, place)
        first = next(documents, None)
        if first is None:
            raise Stop(Exit.USAGE, f"{path} is empty", HINT)
        if form == "auto":
            form = "otel" if otel_spans.looks_like(first) else "openai" if openai_chats.looks_like(first) else "rows"
        every = _chain(first, documents)
        if form == "rows":
            return Opened(form, cast(Iterable[Row], every), place=place)  # Rows refuses what is no object.
        convert = otel_spans.rows if form == "otel" else openai_chats.rows
        return Opened(form, convert(_bounded(every)))
    except Stop:
        raise
    except HistoryError as error:
        raise Stop(Exit.USAGE if isinstance(error, NoHistory) else Exit.FAILED, str(error), error.hint) from error
    except OSError as error:
        raise Stop(Exit.USAGE, f"{path} cannot be read: {error.strerror or error}", "name a readable file") from error
    except (EOFError, zlib.error) as error:
        raise Stop(Exit.USAGE, f"{path} is cut off: {str(error)[:200]}", "copy it again") from error
    except (ValueError, RecursionError) as error:
        what = "in any of the forms that are known" if form == "auto" else f"as {form}"
        raise Stop(Exit.USAGE, f"{path} cannot be read {what}: {str(error)[:300]}", HINT) from error


def _texts(history: History) -> Callable[[str], str | None]:
    def text(digest: str) -> str | None:
        held = history.contents.get(digest)
        return None if held is None or held.data is None else held.data[:65_536].decode("utf-8", "replace")

    return text


def _is_history(path: Path) -> bool:
    file, disk = _open(path)
    with disk, file:
        return b'"bulkhead_history"' in file.readline(4_096)


def _open(path: Path) -> tuple[BufferedIOBase, BufferedIOBase]:
    """The file's contents, unpacked where it is compressed, and the file as it lies on the disk."""
    disk = path.open("rb")
    compressed = disk.read(2) == _GZIP
    disk.seek(0)
    return gzip.GzipFile(fileobj=disk) if compressed else disk, disk


def _documents(path: Path, place: Place) -> Iterator[object]:
    """JSON values of a file: one per line, or the whole file as one (a list of rows is as good as rows)."""
    file, disk = _open(path)
    with disk, file:
        try:
            # A little compressed nothing unfolds to gigabytes of it.
            head = next((line for _ in range(MAX_BLANK_LINES) if (line := _line(file)) == b"" or line.strip()), b" ")
            if not head:
                return
            try:
                first = json.loads(head)
            except ValueError:
                first = None
            if first is None or isinstance(first, list):
                yield from _whole(head, file)
                return
            place.reads(disk)
            yield first
            yield from _lines(file, len(head))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise Stop(Exit.USAGE, f"{path} is cut off or no gzip file: {str(error)[:200]}", "copy it again") from error


def _line(file: BufferedIOBase) -> bytes:
    return file.readline(MAX_LINE_BYTES + 1)


def _lines(file: BufferedIOBase, read: int) -> Iterator[object]:
    for number in range(2, MAX_ROWS + 2):
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        read += len(line)
        if len(line) > MAX_LINE_BYTES or read > MAX_BYTES:
            raise Stop(
                Exit.USAGE,
                f"line {number}: over {MAX_LINE_BYTES // 1024**2} MiB in a line, or over "
                f"{MAX_BYTES // 1024**2} MiB in all",
                "split the file by task",
            )
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Stop(Exit.USAGE, f"line {number} is no JSON: {str(error)[:200]}", HINT) from error
    raise Stop(Exit.USAGE, f"over {MAX_ROWS:,} rows", "split the file by task")


def _whole(head: bytes, file: BufferedIOBase) -> Iterator[object]:
    rest = file.read(MAX_DOCUMENT_BYTES + 1 - len(head))
    if len(head) + len(rest) > MAX_DOCUMENT_BYTES:
        raise Stop(Exit.USAGE, f"one document of over {MAX_DOCUMENT_BYTES // 1024**2} MiB", "write one row per line")
    found = json.loads(head + rest)
    if isinstance(found, list) and not openai_chats.looks_like(found):
        yield from found
    else:
        yield found


def _chain(first: object, rest: Iterator[object]) -> Iterator[object]:
    yield first
    yield from rest


def _bounded(documents: Iterator[object]) -> Iterator[object]:
    """Spans and chats are held in memory before they are judged."""
    for held, document in enumerate(documents, 1):
        if held > otel_spans.MAX_SPANS:
            raise Stop(Exit.USAGE, f"over {otel_spans.MAX_SPANS:,} spans or messages", "split the file by trace")
        yield document
