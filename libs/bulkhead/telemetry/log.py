"""Log lines: a constant event name with key/values, as text for people or JSON for machines."""

import json
import logging
import sys
import time

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
MAX_VALUE_CHARS = 500
MAX_TRACEBACK_CHARS = 8_000
"""Of a value named `traceback`, the end: that is where it says what happened."""


class _LogFormatter(logging.Formatter):
    def __init__(self, service: str, instance: str, as_json: bool) -> None:
        super().__init__()
        self._service, self._instance, self._json = service, instance, as_json

    def format(self, record: logging.LogRecord) -> str:
        values = dict(getattr(record, "values", {}))
        traceback = str(values.pop("traceback", ""))[-MAX_TRACEBACK_CHARS:].rstrip()
        values = {k: _shorten_value(v) for k, v in values.items()}
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        error = self.formatException(record.exc_info) if record.exc_info else traceback
        if self._json:
            line: dict[str, object] = {
                "time": when,
                "level": record.levelname.lower(),
                "service": self._service,
                "instance": self._instance,
                "event": record.getMessage(),
                **values,
            }
            key = "error" if record.exc_info else "traceback"
            return json.dumps({**line, key: error} if error else line, default=str)
        pairs = " ".join(f"{key}={value}" for key, value in values.items())
        head = f"{when} {record.levelname.lower():7} {self._service}-{self._instance} {record.getMessage()}"
        return f"{head} {pairs}".rstrip() + (f"\n{error}" if error else "")


def _shorten_value(value: object) -> object:
    if isinstance(value, int | float | bool) or value is None:
        return value
    # What people and programs outside wrote must move no terminal's cursor, and begin no line of its own.
    text = "".join(char if char.isprintable() else " " for char in str(value)[: MAX_VALUE_CHARS + 1])
    return text if len(text) <= MAX_VALUE_CHARS else text[:MAX_VALUE_CHARS] + "…"


def setup(service: str, instance: str, *, as_json: bool, level: str) -> None:
    """Send this process's log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogFormatter(service, instance, as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("bulkhead").setLevel(_LEVELS.get(level, logging.INFO))


class Log:
    """A named logger whose calls take an event and key/values."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"bulkhead.{name}")

    def debug(self, event: str, **values: object) -> None:
        """Detail for developers."""
        if self._logger.isEnabledFor(logging.DEBUG):
            self._logger.debug(event, extra={"values": values})

    def info(self, event: str, **values: object) -> None:
        """Something happened."""
        self._logger.info(event, extra={"values": values})

    def warning(self, event: str, **values: object) -> None:
        """An event that an operator should know."""
        self._logger.warning(event, extra={"values": values})

    def error(self, event: str, *, exc_info: bool | BaseException = False, **values: object) -> None:
        """An event that an operator must look at."""
        self._logger.error(event, extra={"values": values}, exc_info=exc_info)
