"""One message of a mesh's journal as the detectors read it, and a check of its author.

In: subjects, headers, bodies. Out: messages and what they open and close.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from bulkhead.health.events import Act, CallEnded, Json, OutstandingKind, WaitClosed, WaitOpened, WorkClosed, WorkOpened
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.control import BreakerReset, Switched

OPERATED = frozenset({Switched.TYPE, BreakerReset.TYPE})
"""Facts that the operator's command line tells itself."""
Body = Mapping[str, object]


@lru_cache(maxsize=4_096)
def may_speak(subject: str, kind: str) -> bool:
    """Check whether its author may say this there, about a task that can be one. The broker vouches for the
    author alone: an outside publisher could end a task for the watch, or forge a loop, and its receiver
    would reject both.
    """
    plane, sender, receiver, _, tenant, name, _ = subject.split(".") if subject.count(".") == 6 else [""] * 7
    # Operators of the mesh halt and reset from their own machine, beside every service.
    operates = sender == "operator" and receiver == catalog.JOURNAL and kind in OPERATED
    try:
        return (
            plane == "mesh"
            and (operates or catalog.is_allowed(f"{kind}.v1", sender, receiver))
            and bool(subjects.check_token(tenant) and subjects.check_token(name))
        )
    except subjects.SubjectError:
        return False


@dataclass(slots=True)
class JournalMessage:
    """One message, with the fields that the detectors read."""

    receiver: str
    tenant: str
    lineage: str
    kind: str
    sender: str
    id: str
    time_unix_ms: int
    body: Body
    actor: str = ""

    def work_opened(self, key: str, kind: OutstandingKind) -> WorkOpened:
        """Something is outstanding from now on."""
        return WorkOpened(self.id, self.lineage, key, kind, self.time_unix_ms, self.tenant)

    def work_closed(self, key: str) -> WorkClosed:
        """It no longer is."""
        return WorkClosed(self.id, self.lineage, key, self.time_unix_ms)

    def wait_opened(self, key: str, lineage: str, party: str, targets: tuple[str, ...], **more: Any) -> WaitOpened:
        """A party waits from now on. more: further fields of `WaitOpened`."""
        return WaitOpened(
            key, lineage, party, targets, time_unix_ms=self.time_unix_ms, tenant=self.tenant, said=self.id, **more
        )

    def wait_closed(self, key: str, target: str = "", *, gone: bool = False) -> WaitClosed:
        """A wait is over; with `target` only for that one."""
        return WaitClosed(self.id, self.lineage, key, target, self.time_unix_ms, gone)

    def act_event(self, agent: str, action: str, arguments: Json, **more: Any) -> Act:
        """An agent did something. more: further fields of `Act`."""
        fields = (self.id, self.lineage, agent, action, arguments)
        return Act(*fields, tenant=self.tenant, time_unix_ms=self.time_unix_ms, **more)

    def call_ended(self, agent: str, kind: Literal["tool", "model"], name: str, failed: bool, **more: Any) -> CallEnded:
        """A call ended. more: further fields of `CallEnded`."""
        latency_ms = more.pop("latency_ms", 0)
        fields = (self.id, self.lineage, agent, self.tenant, kind, name, failed, latency_ms, self.time_unix_ms)
        return CallEnded(*fields, actor=self.actor, **more)


def header_value(headers: Mapping[str, str], name: str) -> str:
    """The value of a header, whatever its case; "" when it is missing."""
    value = headers.get(name)
    if value is not None:
        return value
    return next((value for key, value in headers.items() if key.lower() == name), "")
