"""Server-sent events without I/O. Enters: bytes cut anywhere. Leaves: the data of whole events."""

import re

from bulkhead_contracts import bounds

_LINE_END = re.compile(rb"\r\n|\n|\r")


class ProviderEventTooLarge(ValueError):
    """One event of a stream exceeds MAX_PROVIDER_EVENT_BYTES."""


class SseDecoder:
    """Server-sent events out of bytes cut anywhere, also inside a character or a line end."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._held = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[str]:
        """Data of the events that this chunk completes. Raises ProviderEventTooLarge."""
        chunk = self._held + chunk
        # A CR at the end may be half of a CRLF: it waits for the next chunk.
        self._held = b"\r" if chunk.endswith(b"\r") else b""
        first, *lines = _LINE_END.split(chunk[:-1] if self._held else chunk)
        self._rest.append(first)
        self._rest_size += len(first)
        events = []
        for line in lines:
            # Only what is new is looked through: an event without an end costs no more than its bytes.
            events.append(self._feed_line(b"".join(self._rest)))
            self._rest, self._rest_size = [line], len(line)
        if self._size + self._rest_size > bounds.MAX_PROVIDER_EVENT_BYTES:
            raise ProviderEventTooLarge(f"an event exceeds {bounds.MAX_PROVIDER_EVENT_BYTES} bytes")
        return [event for event in events if event is not None]

    def flush(self) -> list[str]:
        """The last event when the stream ended without the blank line that should close it."""
        events = [self._feed_line(b"".join(self._rest)), self._feed_line(b"")]
        self._rest, self._rest_size, self._held = [], 0, b""
        return [event for event in events if event is not None]

    def _feed_line(self, line: bytes) -> str | None:
        if not line:
            if not self._data:
                return None
            data, self._data, self._size = b"\n".join(self._data), [], 0
            return data.decode("utf-8", "replace")
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value) + 1
        return None
