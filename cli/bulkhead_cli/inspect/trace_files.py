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
from itertools import chain
from pathlib import Path
from typing import cast

from bulkhead.health.events import Event
from bulkhead.health.sources import openai_chats, otel_spans
from bulkhead.health.sources.journal import JournalReader
from bulkhead.health.sources.trace_rows import Row, TraceRowError, TraceRowReader
from bulkhead.runtime.decider.history import HistoryError, NoHistory, TaskHistory
from bulkhead.runtime.decider.history_file import load_history
from bulkhead_cli.options import Form
from bulkhead_cli.output import CommandError, Exit

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


class ReadPosition:
    """Position in a file that is judged while it is read."""

    def __init__(self) -> None:
        self._file: BufferedIOBase | None = None
        self._bytes = 0

    def follow_file(self, file: BufferedIOBase) -> None:
        """From now on it is this file; of a compressed one, as it lies on the disk."""
        self._file, self._bytes = file, os.fstat(file.fileno()).st_size

    def read_share(self) -> float | None:
        """Part of its bytes that was read, from 0 to 1; None when it is read as a whole before anything is judged."""
        if self._file is None or self._file.closed or not self._bytes:
            return None
        return min(1.0, self._file.tell() / self._bytes)


@dataclass(frozen=True, slots=True)
class OpenedTrace:
    """A file whose form is known. rows: as they are judged, None for a history. place: how far it is read."""

    form: Form
    rows: Iterable[Row] | None
    history: TaskHistory | None = None
    place: ReadPosition = field(default_factory=ReadPosition)

    def read_events(self) -> Iterator[Event]:
        """Raises CommandError for a row that does not fit."""
        if self.history is not None:
            journal = JournalReader(_content_reader(self.history))
            for message in self.history.messages:
                yield from journal.read(message.subject, message.headers, message.body, message.time_unix_ms)
            return
        assert self.rows is not None
        try:
            yield from TraceRowReader().read_all(self.rows)
        except TraceRowError as error:
            raise CommandError(Exit.USAGE, str(error), f"{error.hint}; {HINT}") from error


def open_file(path: Path, form: Form) -> OpenedTrace:
    """Look at a file and open it as what it is. Raises CommandError."""
    try:
        if form in ("auto", "bulkhead") and _is_history(path):
            return OpenedTrace("bulkhead", None, load_history(path))
        if form == "bulkhead":
            raise CommandError(
                Exit.USAGE, f"{path} is no file of bulkhead export", "`bulkhead export TASK -o FILE` writes one"
            )
        place = ReadPosition()
        documents = _read_documents(path, place)
        first = next(documents, None)
        if first is None:
            raise CommandError(Exit.USAGE, f"{path} is empty", HINT)
        if form == "auto":
            form = "otel" if otel_spans.looks_like(first) else "openai" if openai_chats.looks_like(first) else "rows"
        every = chain([first], documents)
        if form == "rows":
            return OpenedTrace(form, cast(Iterable[Row], every), place=place)  # Rows refuses what is no object.
        convert = otel_spans.read_rows if form == "otel" else openai_chats.read_rows
        return OpenedTrace(form, convert(_bound_documents(every)))
    except CommandError:
        raise
    except HistoryError as error:
        raise CommandError(
            Exit.USAGE if isinstance(error, NoHistory) else Exit.FAILED, str(error), error.hint
        ) from error
    except OSError as error:
        raise CommandError(
            Exit.USAGE, f"{path} cannot be read: {error.strerror or error}", "name a readable file"
        ) from error
    except (EOFError, zlib.error) as error:
        raise CommandError(Exit.USAGE, f"{path} is cut off: {str(error)[:200]}", "copy it again") from error
    except (ValueError, RecursionError) as error:
        form_note = "in any of the forms that are known" if form == "auto" else f"as {form}"
        raise CommandError(Exit.USAGE, f"{path} cannot be read {form_note}: {str(error)[:300]}", HINT) from error


def _content_reader(history: TaskHistory) -> Callable[[str], str | None]:
    def read_text(digest: str) -> str | None:
        content = history.contents.get(digest)
        return None if content is None or content.data is None else content.data[:65_536].decode("utf-8", "replace")

    return read_text


def _is_history(path: Path) -> bool:
    file, disk = _open_unpacked(path)
    with disk, file:
        return b'"bulkhead_history"' in file.readline(4_096)


def _open_unpacked(path: Path) -> tuple[BufferedIOBase, BufferedIOBase]:
    """The file's contents, unpacked where it is compressed, and the file as it lies on the disk."""
    disk = path.open("rb")
    compressed = disk.read(2) == _GZIP
    disk.seek(0)
    return gzip.GzipFile(fileobj=disk) if compressed else disk, disk


def _read_documents(path: Path, place: ReadPosition) -> Iterator[object]:
    """JSON values of a file: one per line, or the whole file as one (a list of rows is as good as rows)."""
    file, disk = _open_unpacked(path)
    with disk, file:
        try:
            # A little compressed nothing unfolds to gigabytes of it.
            heads = (file.readline(MAX_LINE_BYTES + 1) for _ in range(MAX_BLANK_LINES))
            head = next((line for line in heads if line == b"" or line.strip()), b" ")
            if not head:
                return
            try:
                first = json.loads(head)
            except ValueError:
                first = None
            if first is None or isinstance(first, list):
                yield from _read_whole_document(head, file)
                return
            place.follow_file(disk)
            yield first
            yield from _read_rows(file, len(head))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise CommandError(
                Exit.USAGE, f"{path} is cut off or no gzip file: {str(error)[:200]}", "copy it again"
            ) from error


def _read_rows(file: BufferedIOBase, read: int) -> Iterator[object]:
    for number in range(2, MAX_ROWS + 2):
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        read += len(line)
        if len(line) > MAX_LINE_BYTES or read > MAX_BYTES:
            raise CommandError(
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
            raise CommandError(Exit.USAGE, f"line {number} is no JSON: {str(error)[:200]}", HINT) from error
    raise CommandError(Exit.USAGE, f"over {MAX_ROWS:,} rows", "split the file by task")


def _read_whole_document(head: bytes, file: BufferedIOBase) -> Iterator[object]:
    remainder = file.read(MAX_DOCUMENT_BYTES + 1 - len(head))
    if len(head) + len(remainder) > MAX_DOCUMENT_BYTES:
        raise CommandError(
            Exit.USAGE, f"one document of over {MAX_DOCUMENT_BYTES // 1024**2} MiB", "write one row per line"
        )
    document = json.loads(head + remainder)
    if isinstance(document, list) and not openai_chats.looks_like(document):
        yield from document
    else:
        yield document


def _bound_documents(documents: Iterator[object]) -> Iterator[object]:
    """Spans and chats are held in memory before they are judged."""
    for count, document in enumerate(documents, 1):
        if count > otel_spans.MAX_SPANS:
            raise CommandError(
                Exit.USAGE, f"over {otel_spans.MAX_SPANS:,} spans or messages", "split the file by trace"
            )
        yield document
