"""Playbooks: tests of a decider that read as a script of messages in and outputs out. No bus, no clock.

play = Playbook(Planner())
play.hears(TaskSubmitted(...), grant="g")
play.says(TaskAccepted, ModelCallRequested)
"""

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

from bulkhead.blobs import reference
from bulkhead.flow import Decider, InboxMessage, Output, Send, SetTimer
from bulkhead.runtime.decider.fold import TaskFold, fold_message, seal
from bulkhead_contracts.control import TimerFired
from bulkhead_contracts.envelope import Envelope, derive_id
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import Progressed, list_facts
from bulkhead_contracts.types import Body

B = TypeVar("B", bound=Body)

START_UNIX_MS = 1_700_000_000_000


class Playbook:
    """Drives one decider through one task. Time moves only by `at_second`."""

    def __init__(self, decider: Decider[Any], tenant: str = "demo", task: str = "t1") -> None:
        self.decider = decider
        self.tenant, self.task = tenant, task
        self.now_unix_ms = START_UNIX_MS
        self.texts: dict[str, str] = {}
        self.heard: list[InboxMessage] = []
        self.outputs: tuple[Output, ...] = ()
        self.timers: dict[str, int] = {}
        self._fold = TaskFold(state=None)

    @property
    def state(self) -> Any:
        """The folded state."""
        return self._fold.state

    def add_content(self, text: str, author: str = "model_gateway") -> ContentRef:
        """Content that the decider can read when it wants it."""
        ref = reference(author, text.encode())
        self.texts[ref.sha256] = text
        return ref

    def at_second(self, seconds: float) -> "Playbook":
        """Move time to so many seconds after the start."""
        self.now_unix_ms = START_UNIX_MS + round(seconds * 1000)
        return self

    def hears(self, body: Body, *, sender: str = "somebody", grant: str = "", id: str = "") -> tuple[Output, ...]:
        """Give it a message; returns (and keeps) what it says."""
        name = id or derive_id(sender, str(len(self.heard)), 0)
        head = Envelope(id=name, type=body.ce_type(), source=sender, time_unix_ms=self.now_unix_ms, grant=grant)
        contents = {
            ref.sha256: self.texts[ref.sha256] for ref in self.decider.wanted_contents(body) if ref.sha256 in self.texts
        }
        message = InboxMessage(head, body, self.tenant, self.task, len(self.heard) + 1, contents)
        self.heard.append(message)
        self.outputs = fold_message(self._fold, message, {1: self.decider})
        for output in self.outputs:
            if isinstance(output, SetTimer):
                self.timers[output.key] = output.due_unix_ms
            else:
                self.texts |= {hashlib.sha256(text.encode()).hexdigest(): text for text in output.contents}
        return self.outputs

    def hears_again(self, index: int = -1) -> tuple[Output, ...]:
        """Give it a message that it had already."""
        self.outputs = fold_message(self._fold, self.heard[index], {1: self.decider})
        return self.outputs

    def fires(self, key: str) -> tuple[Output, ...]:
        """Let a timer that it has set come due."""
        due = self.timers[key]
        self.now_unix_ms = max(self.now_unix_ms, due)
        return self.hears(TimerFired(key=key, due_unix_ms=due), sender=self.decider.service)

    def says(self, *types: type[Body]) -> None:
        """Assert the types of what it just said, in order, timers left out."""
        sent_types = [type(output.body) for output in self.outputs if isinstance(output, Send)]
        assert sent_types == list(types), f"said {[t.__name__ for t in sent_types]}, not {[t.__name__ for t in types]}"

    def only_output(self, kind: type[B]) -> B:
        """The one output of this type."""
        bodies = self.outputs_of(kind)
        assert len(bodies) == 1, f"{len(bodies)} of {kind.__name__} among {_output_names(self.outputs)}"
        return bodies[0]

    def outputs_of(self, kind: type[B]) -> list[B]:
        """Outputs of this type, also those that a `Progressed` tells."""
        bodies = [output.body for output in self.outputs if isinstance(output, Send)]
        progress = (body for body in bodies if isinstance(body, Progressed))
        all_bodies = (*progress, *(fact for body in bodies for fact in list_facts(body)))
        return [item for item in all_bodies if isinstance(item, kind)]

    def send_of(self, kind: type[Body]) -> Send:
        """The one Send whose body is of this type."""
        return next(output for output in self.outputs if isinstance(output, Send) and isinstance(output.body, kind))

    def replays(self) -> None:
        """Fold everything again from nothing, in a fresh fold: the same state and bytes must come out."""
        fresh_fold = TaskFold(state=None)
        first: list[bytes] = []
        for message in self.heard:
            first += _output_bytes(self.decider.service, message, fold_message(fresh_fold, message, {1: self.decider}))
        assert fresh_fold.state == self.state
        second: list[bytes] = []
        second_fold = TaskFold(state=None)
        for message in self.heard:
            second += _output_bytes(
                self.decider.service, message, fold_message(second_fold, message, {1: self.decider})
            )
        assert first == second


def _output_bytes(service: str, cause: InboxMessage, outputs: Sequence[Output]) -> list[bytes]:
    encoded = []
    for index, output in enumerate(outputs):
        _, head = seal(service, cause, index, output, None)
        body = output.body.encode() if isinstance(output, Send) else output.key.encode()
        encoded.append(repr(sorted(head.to_headers().items())).encode() + body)
    return encoded


def _output_names(outputs: Sequence[Output]) -> list[str]:
    return [type(output.body).__name__ if isinstance(output, Send) else f"timer {output.key}" for output in outputs]
