"""A source of events: traces of any system, one JSON object per line (docs/how-to/analyze.md).

In: parsed rows, in the order in which things happened. Out: events. Everything has a bound and a type; a
row that does not fit raises `TraceRowError`, which says which field is wrong and what to write instead.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.deadlock.waits import MAX_TARGETS
from bulkhead.health.events import Act, Event, LineageEnded, WaitClosed, WaitOpened

MAX_NAME_CHARS = 200
MAX_TEXT_CHARS = 1_000_000
MAX_WAITING_AGENTS = 1_000_000
MAX_TIME_UNIX_MS = 2**53
MAX_TOKENS = 10**12
DEFAULT_TASK = "run"
LEASE = "lease:"
"""An agent whose name begins so is a resource: `{"agent": "lease:x", "waits_on": ["a"]}` says that a holds x."""

Row = Mapping[str, object]


class TraceRowError(ValueError):
    """A row that does not fit the form. `row` counts from 1; `hint` says what to write."""

    def __init__(self, row: int, what: str, hint: str) -> None:
        super().__init__(f"row {row}: {what}")
        self.row = row
        self.hint = hint


class TraceRowReader:
    """Reads rows one by one; it remembers which agents wait."""

    def __init__(self) -> None:
        self.count = 0
        self._waits = BoundedDict[tuple[str, str], str](MAX_WAITING_AGENTS)

    def read(self, row: Row) -> list[Event]:
        """The events of one row. Raises TraceRowError."""
        self.count += 1
        if not isinstance(row, Mapping):
            raise TraceRowError(self.count, "it is no object", 'write {"agent": ..., "action": ...}')
        return list(self._row_events(row))

    def read_all(self, rows: Iterable[Row]) -> Iterator[Event]:
        """The events of many. Raises TraceRowError."""
        for row in rows:
            yield from self.read(row)

    def _row_events(self, row: Row) -> Iterator[Event]:
        task, agent = self._name_field(row, "task", DEFAULT_TASK), self._name_field(row, "agent")
        time = self._time_field(row)
        name = self._name_field(row, "id", f"row {self.count}")
        if (task, agent) in self._waits:
            # An agent that acts waits no longer.
            yield WaitClosed(name, task, self._waits.pop((task, agent)), time_unix_ms=time)
        action, text = self._name_field(row, "action", ""), row.get("text")
        if action or text is not None:
            yield from self._row_acts(row, name, task, agent, time)
        targets = row.get("waits_on")
        if targets:
            yield self._build_wait(row, name, task, agent, time, targets)
        if row.get("ended") is True:
            yield LineageEnded(name, task, time)
        elif not (action or text is not None or targets is not None):
            raise TraceRowError(self.count, "it says nothing", "give it an action, a text, waits_on or ended")

    def _row_acts(self, row: Row, name: str, task: str, agent: str, time: int) -> Iterator[Act]:
        """The acts of a row: a message to several agents is one act for each, and the first has its tokens."""
        first_receiver, *other_receivers = self._receivers_of(row)
        act = self._build_act(row, name, task, agent, time, first_receiver)
        yield act
        for receiver in other_receivers:
            yield replace(act, to=receiver, tokens=0)

    def _build_act(self, row: Row, name: str, task: str, agent: str, time: int, to: str) -> Act:
        text: str | None = self._typed_field(row, "text", str, "no text", '"..."')
        error = self._typed_field(row, "error", (bool, str, dict), "neither a text nor true or false", '"no such file"')
        productive: bool | None = self._typed_field(row, "productive", bool, "neither true nor false", "true")
        result = row.get("result")
        if isinstance(error, str | dict) and result is None:
            result = error
        action = self._name_field(row, "action", "") or "say"
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
            tokens=self._tokens_field(row),
            time_unix_ms=time,
            since_unix_ms=self._time_field(row, "since") if "since" in row else 0,
            productive=productive,
        )

    def _receivers_of(self, row: Row) -> list[str]:
        """The receivers of a row; [""] when it has none."""
        names = row.get("to")
        if not isinstance(names, list):
            return [self._name_field(row, "to", "")]
        if len(names) > MAX_TARGETS:
            raise TraceRowError(self.count, f"to names over {MAX_TARGETS} agents", "split the row")
        return list(dict.fromkeys(self._name_field({"to": receiver}, "to") for receiver in names)) or [""]

    def _build_wait(self, row: Row, name: str, task: str, agent: str, time: int, targets: object) -> WaitOpened:
        if isinstance(targets, str):
            targets = [targets]
        if not isinstance(targets, list) or not all(isinstance(target, str) and target for target in targets):
            raise TraceRowError(self.count, "waits_on is no list of agents", 'write "waits_on": ["b", "c"]')
        if len(targets) > MAX_TARGETS:
            raise TraceRowError(self.count, f"waits_on names over {MAX_TARGETS} agents", "split the wait")
        mode = row.get("waits", "all")
        if mode not in ("all", "any"):
            raise TraceRowError(self.count, "waits is neither all nor any", 'write "waits": "any"')
        self._waits[task, agent] = name
        parties = tuple(_party_name(task, target) for target in targets)
        return WaitOpened(name, task, _party_name(task, agent), parties, mode, time, resource=agent.startswith(LEASE))

    # Fields

    def _typed_field(self, row: Row, key: str, kinds: type | tuple[type, ...], what: str, example: str) -> Any:
        value = row.get(key)
        if value is not None and not isinstance(value, kinds):
            raise TraceRowError(self.count, f"{key} is {what}", f'write "{key}": {example}')
        return value

    def _name_field(self, row: Row, key: str, default: str | None = None) -> str:
        value = row.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or len(value) > MAX_NAME_CHARS or (not value and default is None):
            description = f"{key} is missing, or is no text of at most {MAX_NAME_CHARS} characters"
            raise TraceRowError(self.count, description, f'write "{key}": "..."')
        return value

    def _time_field(self, row: Row, key: str = "time") -> int:
        value = row.get("time_unix_ms") if key == "time" else None
        if value is None and isinstance(row.get(key), str):
            try:
                when = datetime.fromisoformat(str(row[key]).replace("Z", "+00:00"))
            except ValueError:
                raise TraceRowError(self.count, f"{key} is no ISO 8601 time", 'write "2026-11-21T09:00:00Z"') from None
            value = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000
        elif value is None:
            value = row.get(key)
            value = value * 1000 if isinstance(value, int | float) and not isinstance(value, bool) else value
        if value is None:
            return 0
        # Neither NaN, infinity nor a number of a thousand digits lies between.
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME_UNIX_MS:
            raise TraceRowError(
                self.count, f"{key} is no time", "write seconds since 1970, an ISO time, or time_unix_ms"
            )
        return int(value)

    def _tokens_field(self, row: Row) -> int:
        value = row.get("tokens", 0) or 0
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TOKENS:
            raise TraceRowError(self.count, "tokens is no count", 'write "tokens": 120')
        return value


def _party_name(task: str, name: str) -> str:
    """Agents of other tasks are named `task/agent`; leases belong to no task."""
    return name if "/" in name or name.startswith(LEASE) else f"{task}/{name}"
