"""Server-sent events without I/O. Enters: bytes cut anywhere. Leaves: the data of whole events."""

import re

from bulkhead_contracts import bounds


class EventTooLarge(ValueError):
    """One event of a stream exceeds MAX_PROVIDER_EVENT_BYTES."""


class SseDecoder:
    """Server-sent events out of bytes cut anywhere, also inside a character or a line end."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[str]:
        """Data of the events that this chunk completes. Raises EventTooLarge."""
        buffer = self._rest + chunk
        # A CR at the end may be half of a CRLF: it waits for the next chunk.
        held = buffer.endswith(b"\r")
        lines = re.split(rb"\r\n|\n|\r", buffer[:-1] if held else buffer)
        self._rest = lines.pop() + (b"\r" if held else b"")
        found = [event for line in lines if (event := self._line(line)) is not None]
        if self._size + len(self._rest) > bounds.MAX_PROVIDER_EVENT_BYTES:
            raise EventTooLarge(f"an event exceeds {bounds.MAX_PROVIDER_EVENT_BYTES} bytes")
        return found

    def flush(self) -> list[str]:
        """The last event when the stream ended without the blank line that should close it."""
        found = [self._line(self._rest.rstrip(b"\r")), self._line(b"")]
        self._rest = b""
        return [one for one in found if one is not None]

    def _line(self, line: bytes) -> str | None:
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
