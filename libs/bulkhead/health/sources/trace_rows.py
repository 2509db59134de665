"""A source of events: traces of any system, one JSON object per line (docs/how-to/analyze.md).

In: parsed rows, in the order in which things happened. Out: events. Everything has a bound and a type; a row that does
not fit raises `RowError`, which says which field is wrong and what to write instead.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.deadlock.waits import MAX_TARGETS
from bulkhead.health.events import Act, Ended, Event, WaitClosed, WaitOpened

MAX_NAME_CHARS = 200
MAX_TEXT_CHARS = 1_000_000
MAX_WAITING_AGENTS = 1_000_000
MAX_TIME_UNIX_MS = 2**53
MAX_TOKENS = 10**12
DEFAULT_TASK = "run"
LEASE = "lease:"
"""An agent whose name begins so is a resource: `{"agent": "lease:x", "waits_on": ["a"]}` says that a holds x."""

Row = Mapping[str, object]


class RowError(ValueError):
    """A row that does not fit the form. `row` counts from 1; `hint` says what to write."""

    def __init__(self, row: int, what: str, hint: str) -> None:
        super().__init__(f"row {row}: {what}")
        self.row = row
        self.hint = hint


class Rows:
    """Reads rows one by one; it remembers which agents wait."""

    def __init__(self) -> None:
        self.count = 0
        self._waits = BoundedDict[tuple[str, str], str](MAX_WAITING_AGENTS)

    def read(self, row: Row) -> list[Event]:
        """The events of one row. Raises RowError."""
        self.count += 1
        if not isinstance(row, Mapping):
            raise RowError(self.count, "it is no object", 'write {"agent": ..., "action": ...}')
        return list(self._read(row))

    def all(self, rows: Iterable[Row]) -> Iterator[Event]:
        """The events of many. Raises RowError."""
        for row in rows:
            yield from self.read(row)

    def _read(self, row: Row) -> Iterator[Event]:
        task, agent = self._name(row, "task", DEFAULT_TASK), self._name(row, "agent")
        time = self._time(row)
        name = self._name(row, "id", f"row {self.count}")
        if (task, agent) in self._waits:
            # An agent that acts waits no longer.
            yield WaitClosed(name, task, self._waits.pop((task, agent)), time_unix_ms=time)
        action, text = self._name(row, "action", ""), row.get("text")
        if action or text is not None:
            yield from self._acts(row, name, task, agent, time)
        targets = row.get("waits_on")
        if targets:
            yield self._wait(row, name, task, agent, time, targets)
        if row.get("ended") is True:
            yield Ended(name, task, time)
        elif not (action or text is not None or targets is not None):
            raise RowError(self.count, "it says nothing", "give it an action, a text, waits_on or ended")

    def _acts(self, row: Row, name: str, task: str, agent: str, time: int) -> Iterator[Act]:
        """The acts of a row: a message to several agents is one act for each, and the first has its tokens."""
        said, *others = self._said_to(row)
        act = self._act(row, name, task, agent, time, said)
        yield act
        for one in others:
            yield replace(act, to=one, tokens=0)

    def _act(self, row: Row, name: str, task: str, agent: str, time: int, to: str) -> Act:
        text: str | None = self._of(row, "text", str, "no text", '"..."')
        error = self._of(row, "error", (bool, str, dict), "neither a text nor true or false", '"no such file"')
        productive: bool | None = self._of(row, "productive", bool, "neither true nor false", "true")
        result = row.get("result")
        if isinstance(error, str | dict) and result is None:
            result = error
        action = self._name(row, "action", "") or "say"
        return Act(
            id=name,
            lineage=task,
            agent=agent,
            action=action,
            arguments=text[:MAX_TEXT_CHARS] if text is not None else row.get("arguments", ""),
            result=result,
            error=bool(error),
            says=text is not None,
            to=to,
            tokens=self._tokens(row),
            time_unix_ms=time,
            since_unix_ms=self._time(row, "since") if "since" in row else 0,
            productive=productive,
        )

    def _said_to(self, row: Row) -> list[str]:
        """The receivers of a row; [""] when it has none."""
        names = row.get("to")
        if not isinstance(names, list):
            return [self._name(row, "to", "")]
        if len(names) > MAX_TARGETS:
            raise RowError(self.count, f"to names over {MAX_TARGETS} agents", "split the row")
        return list(dict.fromkeys(self._name({"to": one}, "to") for one in names)) or [""]

    def _wait(self, row: Row, name: str, task: str, agent: str, time: int, targets: object) -> WaitOpened:
        if isinstance(targets, str):
            targets = [targets]
        if not isinstance(targets, list) or not all(isinstance(one, str) and one for one in targets):
            raise RowError(self.count, "waits_on is no list of agents", 'write "waits_on": ["b", "c"]')
        if len(targets) > MAX_TARGETS:
            raise RowError(self.count, f"waits_on names over {MAX_TARGETS} agents", "split the wait")
        mode = row.get("waits", "all")
        if mode not in ("all", "any"):
            raise RowError(self.count, "waits is neither all nor any", 'write "waits": "any"')
        self._waits[task, agent] = name
        parties = tuple(_party(task, target) for target in targets)
        return WaitOpened(name, task, _party(task, agent), parties, mode, time, resource=agent.startswith(LEASE))

    # Fields

    def _of(self, row: Row, key: str, kinds: type | tuple[type, ...], what: str, example: str) -> Any:
        value = row.get(key)
        if value is not None and not isinstance(value, kinds):
            raise RowError(self.count, f"{key} is {what}", f'write "{key}": {example}')
        return value

    def _name(self, row: Row, key: str, default: str | None = None) -> str:
        value = row.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or len(value) > MAX_NAME_CHARS or (not value and default is None):
            what = f"{key} is missing, or is no text of at most {MAX_NAME_CHARS} characters"
            raise RowError(self.count, what, f'write "{key}": "..."')
        return value

    def _time(self, row: Row, key: str = "time") -> int:
        value = row.get("time_unix_ms") if key == "time" else None
        if value is None and isinstance(row.get(key), str):
            try:
                when = datetime.fromisoformat(str(row[key]).replace("Z", "+00:00"))
            except ValueError:
                raise RowError(self.count, f"{key} is no ISO 8601 time", 'write "2026-11-21T09:00:00Z"') from None
            value = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000
        elif value is None:
            value = row.get(key)
            value = value * 1000 if isinstance(value, int | float) and not isinstance(value, bool) else value
        if value is None:
            return 0
        # Neither NaN, infinity nor a number of a thousand digits lies between.
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME_UNIX_MS:
            raise RowError(self.count, f"{key} is no time", "write seconds since 1970, an ISO time, or time_unix_ms")
        return int(value)

    def _tokens(self, row: Row) -> int:
        value = row.get("tokens", 0) or 0
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TOKENS:
            raise RowError(self.count, "tokens is no count", 'write "tokens": 120')
        return value


def _party(task: str, name: str) -> str:
    """Agents of other tasks are named `task/agent`; leases belong to no task."""
    return name if "/" in name or name.startswith(LEASE) else f"{task}/{name}"
