"""The bounded log that `GET /admin/requests` shows. Enters: requests. Leaves: one entry for each, newest last."""

from collections import deque
from typing import Any


class RequestLog:
    """Entries of the last requests; an entry is changed in place while its request is served."""

    def __init__(self, limit: int) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=limit)
        self._count = 0

    def open(self, **known: Any) -> dict[str, Any]:
        """A new entry with its number, the known fields, and outcomes that are open yet."""
        self._count += 1
        entry: dict[str, Any] = {"number": self._count}
        entry |= dict.fromkeys(("model", "role", "fault", "usage", "status"))
        entry |= {"stream": False, "chunks_sent": 0, "client_cut": False, "finished": False, **known}
        self._entries.append(entry)
        return entry

    def view(self) -> dict[str, Any]:
        return {"total": self._count, "requests": list(self._entries)}

    def clear(self) -> None:
        self._entries.clear()
        self._count = 0
