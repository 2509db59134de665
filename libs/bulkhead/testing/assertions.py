"""Assertions about a task in a test: one readable line each, with an explanation when it fails.

In: a task's journal as entries, and its document from the gateway. Out: nothing, or an AssertionError with the claim,
the facts, and the messages that show them. Every assertion returns a true value, so that `assert` may stand before it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from bulkhead.journal.history import JournalEntry
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
    rest_line = [f"  ... and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
    raise AssertionError(
        "\n".join(
            [f"{claim}: {found}", *(f"  {row}" for row in rows[:SHOWN]), *rest_line, *([advice] if advice else [])]
        )
    )


def count_words(number: int) -> str:
    """Number of times in words, as people say it."""
    return {0: "not once", 1: "once", 2: "twice"}.get(number, f"{number} times")


@dataclass(frozen=True, slots=True)
class RecordedToolCall:
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
        arguments_text = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        failure_text = f": {self.failure}" if self.failure else ""
        return (
            f"+{self.at_ms / 1000:.3f}s {self.tool}({arguments_text}) in step {self.step_id}, call {self.call_id} -> "
            f"{self.outcome or 'no reply yet'}{failure_text}"
        )


class Effects:
    """The tool calls of one task, as the mesh recorded them."""

    def __init__(self, entries: Sequence[JournalEntry]) -> None:
        began = entries[0].at_unix_ms if entries else 0
        self.calls = [_recorded_call(entry, began) for entry in entries if isinstance(entry.body, ToolCallRequested)]

    def of(self, tool: str, **arguments: Any) -> list[RecordedToolCall]:
        """The calls of a tool, those with these arguments among others."""
        expected_items = arguments.items()
        return [call for call in self.calls if call.tool == tool and expected_items <= call.arguments.items()]

    def exactly_once(self, tool: str, **arguments: Any) -> RecordedToolCall:
        """One call succeeded, and none may have been done beside it."""
        __tracebackhide__ = True
        calls = self.of(tool, **arguments)
        done = [call for call in calls if call.outcome == "succeeded"]
        doubtful = [call for call in calls if call.outcome == "uncertain"]
        claim = f"effects.exactly_once({_claim_text(tool, arguments)})"
        if len(done) == 1 and not doubtful:
            return done[0]
        if not done and not doubtful:
            refute(claim, f"{tool} was never done", map(str, calls), _never_advice(tool, calls, self.calls))
        count_text = f"{tool} was done {count_words(len(done))}" + (
            f", and {count_words(len(doubtful))} perhaps" if doubtful else ""
        )
        refute(
            claim,
            count_text,
            map(str, calls),
            "calls with other ids are other calls: look where the plan or the "
            "model asked twice; one call is never done twice under the same id",
        )

    def never(self, tool: str, **arguments: Any) -> Literal[True]:
        """Claim that no such call was done, nor may have been."""
        __tracebackhide__ = True
        calls = [call for call in self.of(tool, **arguments) if call.outcome not in ("refused", "failed")]
        if calls:
            refute(f"effects.never({_claim_text(tool, arguments)})", f"there are {len(calls)}", map(str, calls))
        return True


def _recorded_call(entry: JournalEntry, began: int) -> RecordedToolCall:
    request = entry.body
    assert isinstance(request, ToolCallRequested)
    reply = entry.reply.body if entry.reply is not None else None
    outcome, effect, failure = "", "", ""
    if isinstance(reply, ToolCallReplied):
        outcome, effect = reply.outcome, reply.effect
        failure = f"{reply.failure.code}: {reply.failure.message}" if reply.failure else ""
    try:
        parsed = json.loads(request.arguments_json)
    except ValueError:
        parsed = {}
    arguments = parsed if isinstance(parsed, dict) else {}
    return RecordedToolCall(
        request.tool, request.call_id, request.step_id, arguments, entry.at_unix_ms - began, outcome, effect, failure
    )


def _claim_text(tool: str, arguments: Mapping[str, Any]) -> str:
    return ", ".join([repr(tool), *(f"{name}={value!r}" for name, value in arguments.items())])


def _never_advice(tool: str, calls: Sequence[RecordedToolCall], every: Sequence[RecordedToolCall]) -> str:
    if calls:
        return "it was asked for: the failures above say why it was not done"
    called_tools = ", ".join(sorted({call.tool for call in every})) or "none"
    return f"nobody asked for {tool} (tools that were called: {called_tools}); is it granted, and does a step name it?"


class TaskSpend:
    """The cost of a task, by the facts of its reservations; an unsettled one counts in full."""

    def __init__(self, entries: Sequence[JournalEntry]) -> None:
        self._reserved: dict[str, Reserved] = {}
        settled: dict[str, Settled] = {}
        for entry in entries:
            if isinstance(entry.body, Reserved):
                self._reserved.setdefault(entry.body.reservation_id, entry.body)
            elif isinstance(entry.body, Settled):
                settled.setdefault(entry.body.reservation_id, entry.body)
        self._micros = {name: _cost_micros(reserved, settled.get(name)) for name, reserved in self._reserved.items()}
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
            dear = sorted(self._reserved.values(), key=lambda reserved: -self._micros[reserved.reservation_id])
            refute(
                f"spend.within({limit_usd:g})",
                f"it has cost ${self.usd:.6f} in {len(dear)} calls",
                (self._spend_line(reserved) for reserved in dear),
            )
        return True

    def _spend_line(self, reserved: Reserved) -> str:
        unsettled = ", reserved and not settled" if reserved.reservation_id in self.open else ""
        where = f" in step {reserved.step_id}" if reserved.step_id else ""
        usd = self._micros[reserved.reservation_id] / MICROS
        return f"${usd:.6f} {reserved.service}: {reserved.resource}{where}{unsettled}"


def _cost_micros(reserved: Reserved, settled: Settled | None) -> int:
    if settled is None:
        return reserved.amount.cost_usd_micros
    # Where the provider gave no usage, the ledger charges what was reserved.
    return max(settled.usage.cost_usd_micros, reserved.amount.cost_usd_micros if settled.estimated else 0)


class Trace:
    """The messages of a task by sender and receiver, with the request to budget behind every reservation."""

    def __init__(self, entries: Sequence[JournalEntry]) -> None:
        self.edges: Counter[tuple[str, str]] = Counter()
        for entry in entries:
            self.edges[entry.sender, entry.receiver] += 1
            if isinstance(entry.body, Reserved):
                self.edges[entry.body.service, "budget"] += 1

    def has_edge(self, sender: str, receiver: str) -> int:
        """Number of messages; at least one."""
        __tracebackhide__ = True
        _require_services(sender, receiver)
        count = self.edges[sender, receiver]
        if not count:
            refute(
                f"trace.has_edge({sender!r}, {receiver!r})",
                "there is no such message; these there are",
                self._edge_lines(sender, receiver),
            )
        return count

    def has_no_edge(self, sender: str, receiver: str) -> Literal[True]:
        """Not one message."""
        __tracebackhide__ = True
        _require_services(sender, receiver)
        if count := self.edges[sender, receiver]:
            refute(
                f"trace.has_no_edge({sender!r}, {receiver!r})", f"there are {count}", self._edge_lines(sender, receiver)
            )
        return True

    def _edge_lines(self, *whose: str) -> list[str]:
        edges = sorted(self.edges.items())
        return [
            f"{sender} -> {receiver} ({count})"
            for (sender, receiver), count in edges
            if sender in whose or receiver in whose
        ]


def _require_services(*names: str) -> None:
    services = {*catalog.SERVICES, *catalog.INBOXES}
    for name in names:
        if name not in services and not name.startswith("pub_"):
            raise ValueError(f"there is no service {name!r}; there are {', '.join(sorted(services))}")


class TaskAnswer:
    """The answer of a task. text is "" when it has none. answered: yes, partly, no, or "" where nobody knows."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._task = document["task_id"]
        self.text: str = document["answer"] or ""
        result = document["result"] or {}
        self.standing: str = result.get("standing", "")
        self.answered: str = result.get("answered", "")
        self.citations: list[Mapping[str, Any]] = list(result.get("citations", ()))

    def __str__(self) -> str:
        return self.text

    @property
    def sources(self) -> list[str]:
        """Names of the cited documents, each once."""
        return sorted({str(citation["document"]) for citation in self.citations})

    def cites(self, *documents: str) -> Literal[True]:
        """Each of these documents is cited."""
        __tracebackhide__ = True
        if absent := [name for name in documents if name not in self.sources]:
            cited = f"it cites {', '.join(self.sources)}" if self.sources else "it cites nothing"
            claim = f"answer.cites({', '.join(map(repr, documents))})"
            refute(claim, f"{', '.join(absent)} is not cited; {cited}", self._text_lines())
        return True

    def says(self, text: str) -> Literal[True]:
        """It holds this text, capitals and spaces aside."""
        __tracebackhide__ = True
        if _plain_text(text) not in _plain_text(self.text):
            refute(f"answer.says({text!r})", "it does not", self._text_lines())
        return True

    def _text_lines(self) -> list[str]:
        return (self.text or "(no answer)")[:SHOWN_CHARS].splitlines()


def _plain_text(text: str) -> str:
    return " ".join(text.lower().split())
