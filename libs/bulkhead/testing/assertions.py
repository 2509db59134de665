"""Assertions about a task in a test: one readable line each, with an explanation when it fails.

In: a task's journal as entries, and its document from the gateway. Out: nothing, or an AssertionError with the claim,
the facts, and the messages that show them. Every assertion returns a true value, so that `assert` may stand before it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from bulkhead.journal.history import Entry
from bulkhead_contracts import catalog
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested

MICROS = 1_000_000
SHOWN = 12
SHOWN_CHARS = 2_000


def refute(claim: str, found: str, lines: Iterable[str] = (), advice: str = "") -> NoReturn:
    """Raise what pytest shows: the claim, what is so, the evidence, what to look at."""
    __tracebackhide__ = True
    rows = list(lines)
    more = [f"  ... and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
    raise AssertionError(
        "\n".join([f"{claim}: {found}", *(f"  {one}" for one in rows[:SHOWN]), *more, *([advice] if advice else [])])
    )


def times(number: int) -> str:
    """As people say it."""
    return {0: "not once", 1: "once", 2: "twice"}.get(number, f"{number} times")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool, from the journal. outcome: "" while it has no reply."""

    tool: str
    call_id: str
    step_id: str
    arguments: Mapping[str, Any]
    at_ms: int
    outcome: str
    effect: str
    failure: str

    def __str__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        why = f": {self.failure}" if self.failure else ""
        return (
            f"+{self.at_ms / 1000:.3f}s {self.tool}({said}) in step {self.step_id}, call {self.call_id} -> "
            f"{self.outcome or 'no reply yet'}{why}"
        )


class Effects:
    """The tool calls of one task, as the mesh recorded them."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        began = entries[0].at_unix_ms if entries else 0
        self.calls = [_call(entry, began) for entry in entries if isinstance(entry.body, ToolCallRequested)]

    def of(self, tool: str, **arguments: Any) -> list[ToolCall]:
        """The calls of a tool, those with these arguments among others."""
        wanted = arguments.items()
        return [one for one in self.calls if one.tool == tool and wanted <= one.arguments.items()]

    def exactly_once(self, tool: str, **arguments: Any) -> ToolCall:
        """One call succeeded, and none may have been done beside it."""
        __tracebackhide__ = True
        calls = self.of(tool, **arguments)
        done = [one for one in calls if one.outcome == "succeeded"]
        doubtful = [one for one in calls if one.outcome == "uncertain"]
        claim = f"effects.exactly_once({_said(tool, arguments)})"
        if len(done) == 1 and not doubtful:
            return done[0]
        if not done and not doubtful:
            refute(claim, f"{tool} was never done", self._shown(calls), _never(tool, calls, self.calls))
        found = f"{tool} was done {times(len(done))}" + (f", and {times(len(doubtful))} perhaps" if doubtful else "")
        refute(
            claim,
            found,
            self._shown(calls),
            "calls with other ids are other calls: look where the plan or the "
            "model asked twice; one call is never done twice under the same id",
        )

    def never(self, tool: str, **arguments: Any) -> Literal[True]:
        """No such call was done, nor may have been."""
        __tracebackhide__ = True
        calls = [one for one in self.of(tool, **arguments) if one.outcome not in ("refused", "failed")]
        if calls:
            refute(f"effects.never({_said(tool, arguments)})", f"there are {len(calls)}", self._shown(calls))
        return True

    def _shown(self, calls: Sequence[ToolCall]) -> list[str]:
        return [str(one) for one in calls]


def _call(entry: Entry, began: int) -> ToolCall:
    asked = entry.body
    assert isinstance(asked, ToolCallRequested)
    reply = entry.reply.body if entry.reply is not None else None
    outcome, effect, failure = "", "", ""
    if isinstance(reply, ToolCallReplied):
        outcome, effect = reply.outcome, reply.effect
        failure = f"{reply.failure.code}: {reply.failure.message}" if reply.failure else ""
    try:
        given = json.loads(asked.arguments_json)
    except ValueError:
        given = {}
    arguments = given if isinstance(given, dict) else {}
    return ToolCall(
        asked.tool, asked.call_id, asked.step_id, arguments, entry.at_unix_ms - began, outcome, effect, failure
    )


def _said(tool: str, arguments: Mapping[str, Any]) -> str:
    return ", ".join([repr(tool), *(f"{name}={value!r}" for name, value in arguments.items())])


def _never(tool: str, calls: Sequence[ToolCall], every: Sequence[ToolCall]) -> str:
    if calls:
        return "it was asked for: the failures above say why it was not done"
    others = ", ".join(sorted({one.tool for one in every})) or "none"
    return f"nobody asked for {tool} (tools that were called: {others}); is it granted, and does a step name it?"


class Spend:
    """The cost of a task, by the facts of its reservations; an unsettled one counts in full."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._reserved: dict[str, Reserved] = {}
        settled: dict[str, Settled] = {}
        for entry in entries:
            if isinstance(entry.body, Reserved):
                self._reserved.setdefault(entry.body.reservation_id, entry.body)
            elif isinstance(entry.body, Settled):
                settled.setdefault(entry.body.reservation_id, entry.body)
        self._micros = {name: _micros(one, settled.get(name)) for name, one in self._reserved.items()}
        self.open = [name for name in self._reserved if name not in settled]
        """Reservations that nobody has settled."""

    @property
    def usd(self) -> float:
        """Dollars."""
        return self.micros / MICROS

    @property
    def micros(self) -> int:
        """Millionths of a dollar."""
        return sum(self._micros.values())

    def within(self, limit_usd: float) -> Literal[True]:
        """It has cost no more than this."""
        __tracebackhide__ = True
        if self.micros > round(limit_usd * MICROS):
            dear = sorted(self._reserved.values(), key=lambda one: -self._micros[one.reservation_id])
            refute(
                f"spend.within({limit_usd:g})",
                f"it has cost ${self.usd:.6f} in {len(dear)} calls",
                (self._line(one) for one in dear),
            )
        return True

    def _line(self, one: Reserved) -> str:
        held = ", reserved and not settled" if one.reservation_id in self.open else ""
        where = f" in step {one.step_id}" if one.step_id else ""
        return f"${self._micros[one.reservation_id] / MICROS:.6f} {one.service}: {one.resource}{where}{held}"


def _micros(reserved: Reserved, settled: Settled | None) -> int:
    if settled is None:
        return reserved.amount.cost_usd_micros
    # Where the provider gave no usage, the ledger charges what was reserved.
    return max(settled.usage.cost_usd_micros, reserved.amount.cost_usd_micros if settled.estimated else 0)


class Trace:
    """The messages of a task by sender and receiver, with the request to budget behind every reservation."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.edges: Counter[tuple[str, str]] = Counter()
        for entry in entries:
            self.edges[entry.sender, entry.receiver] += 1
            if isinstance(entry.body, Reserved):
                self.edges[entry.body.service, "budget"] += 1

    def has_edge(self, sender: str, receiver: str) -> int:
        """How many messages; at least one."""
        __tracebackhide__ = True
        _known(sender, receiver)
        found = self.edges[sender, receiver]
        if not found:
            refute(
                f"trace.has_edge({sender!r}, {receiver!r})",
                "there is no such message; these there are",
                self._shown(sender, receiver),
            )
        return found

    def has_no_edge(self, sender: str, receiver: str) -> Literal[True]:
        """Not one message."""
        __tracebackhide__ = True
        _known(sender, receiver)
        if found := self.edges[sender, receiver]:
            refute(f"trace.has_no_edge({sender!r}, {receiver!r})", f"there are {found}", self._shown(sender, receiver))
        return True

    def _shown(self, *whose: str) -> list[str]:
        edges = sorted(self.edges.items())
        return [
            f"{sender} -> {receiver} ({count})"
            for (sender, receiver), count in edges
            if sender in whose or receiver in whose
        ]


def _known(*names: str) -> None:
    known = {*catalog.SERVICES, *catalog.INBOXES}
    for name in names:
        if name not in known and not name.startswith("pub_"):
            raise ValueError(f"there is no service {name!r}; there are {', '.join(sorted(known))}")


class Answer:
    """The answer of a task. text is "" when it has none."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._task = document["task_id"]
        self.text: str = document["answer"] or ""
        result = document["result"] or {}
        self.standing: str = result.get("standing", "")
        self.citations: list[Mapping[str, Any]] = list(result.get("citations", ()))

    def __str__(self) -> str:
        return self.text

    @property
    def sources(self) -> list[str]:
        """Names of the cited documents, each once."""
        return sorted({str(one["document"]) for one in self.citations})

    def cites(self, *documents: str) -> Literal[True]:
        """Each of these documents is cited."""
        __tracebackhide__ = True
        if absent := [name for name in documents if name not in self.sources]:
            cited = f"it cites {', '.join(self.sources)}" if self.sources else "it cites nothing"
            claim = f"answer.cites({', '.join(map(repr, documents))})"
            refute(claim, f"{', '.join(absent)} is not cited; {cited}", self._shown())
        return True

    def says(self, text: str) -> Literal[True]:
        """It holds this text, capitals and spaces aside."""
        __tracebackhide__ = True
        if _plain(text) not in _plain(self.text):
            refute(f"answer.says({text!r})", "it does not", self._shown())
        return True

    def _shown(self) -> list[str]:
        return (self.text or "(no answer)")[:SHOWN_CHARS].splitlines()


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
