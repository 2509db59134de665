"""Server-sent events, sans I/O: lines in, events out (WHATWG HTML, section 9.2)."""

from dataclasses import dataclass

MAX_EVENT_CHARS = 8 * 1024 * 1024


class ServerEventTooLarge(ValueError):
    """The server sends an event without an end."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its name, its data (lines joined), the last id seen so far."""

    name: str
    data: str
    id: str


class SseParser:
    """Feed it lines without their ends. Keeps `last_id` and `retry_ms` over events."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_ms: int | None = None
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed_line(self, line: str) -> ServerEvent | None:
        """The event that this line ends, if any. Raises ServerEventTooLarge."""
        if not line:
            return self._dispatch_event()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._size += len(value)
            if self._size > MAX_EVENT_CHARS:
                raise ServerEventTooLarge(f"an event is larger than {MAX_EVENT_CHARS} characters")
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self.last_id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)
        return None

    def _dispatch_event(self) -> ServerEvent | None:
        name, data = self._name, self._data
        self._name, self._data, self._size = "", [], 0
        return ServerEvent(name or "message", "\n".join(data), self.last_id) if data else None
