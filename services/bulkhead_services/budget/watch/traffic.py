"""Messages of the last minute between services, and what failed: counters by second, which the watcher folds.

In: messages of the journal, under the times of the journal. Out: counts within the window. Pure; what it keeps is
bounded by the catalog's edges, and a message costs an increment. A journal that is made again while budget starts has
all its messages now: the rates are too high until a minute later.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from pydantic_core import from_json

from bulkhead.bus.port import StoredMessage
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.step import StepFinished
from bulkhead_contracts.task import TaskEnded
from bulkhead_contracts.tool import ToolCallReplied

WINDOW_S = 60
SECONDS = 2 * WINDOW_S
"""Of one inbox behind another: what comes so late is counted where it belongs, or no more."""
FAILED = frozenset({"failed", "uncertain"})
RESULTS = {
    ModelCallReplied.TYPE: "outcome",
    ToolCallReplied.TYPE: "outcome",
    RetrievalReplied.TYPE: "outcome",
    StepFinished.TYPE: "result.standing",
    TaskEnded.TYPE: "status",
}
"""Messages that tell how a piece of work ended, and where in them."""
MAX_PARSED_BYTES = 256 * 1024

Edge = tuple[str, str]
K = TypeVar("K", str, Edge)


class Traffic:
    """The fold: a ring of counters."""

    def __init__(self) -> None:
        self._second = [-1] * SECONDS
        self._edges = [Counter[Edge]() for _ in range(SECONDS)]
        self._failed = [Counter[str]() for _ in range(SECONDS)]
        self._rejected = [Counter[str]() for _ in range(SECONDS)]

    def fold_message(self, kind: str, stored: StoredMessage) -> None:
        """Fold one message of this type, which its author may say there."""
        second = stored.time_unix_ms // 1000
        slot = second % SECONDS
        if second != self._second[slot]:
            if second < self._second[slot]:
                return
            self._second[slot] = second
            for counter in (self._edges[slot], self._failed[slot], self._rejected[slot]):
                counter.clear()
        _, sender, receiver, _ = stored.subject.split(".", 3)
        sender = _role_of(sender)
        self._edges[slot][sender, receiver] += 1
        if kind == MessageRejected.TYPE:
            self._rejected[slot][sender] += 1
        elif kind in RESULTS and (kind != TaskEnded.TYPE or receiver == "gateway") and _is_failed(kind, stored.body):
            self._failed[slot][sender] += 1

    def recent_edges(self, now_unix_ms: int) -> Counter[Edge]:
        """Messages from one to another."""
        return self._sum_window(self._edges, now_unix_ms)

    def failed_counts(self, now_unix_ms: int) -> Counter[str]:
        """Results that failed, by their author; an outcome that nobody knows counts."""
        return self._sum_window(self._failed, now_unix_ms)

    def rejected_counts(self, now_unix_ms: int) -> Counter[str]:
        """Messages that could not be handled, by receiver; each has become a dead letter."""
        return self._sum_window(self._rejected, now_unix_ms)

    def _sum_window(self, counters: Iterable[Counter[K]], now_unix_ms: int) -> Counter[K]:
        last = now_unix_ms // 1000
        total = Counter[K]()
        for second, counter in zip(self._second, counters, strict=True):
            if last - WINDOW_S < second <= last:
                total.update(counter)
        return total


def _role_of(sender: str) -> str:
    """Outside publishers are one: their names tell of tenants."""
    return catalog.PUBLISHER if sender.startswith(subjects.PUBLISHER) else sender


def _is_failed(kind: str, body: bytes) -> bool:
    """True when a result says that it failed. Most say nothing of the kind, and are not parsed."""
    if not any(outcome.encode() in body for outcome in FAILED) or len(body) > MAX_PARSED_BYTES:
        return False
    try:
        value = from_json(body)
        for name in RESULTS[kind].split("."):
            value = value[name]
        return value in FAILED
    except (ValueError, LookupError, TypeError):
        return False
