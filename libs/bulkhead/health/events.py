"""The events that the detectors read, from a mesh's journal or from a trace of another system.

Every event carries its own id (the evidence of a finding names it) and its own time.
"""

from dataclasses import dataclass
from typing import Literal

Json = object
"""A parsed JSON value, or a text."""

OutstandingKind = Literal["call", "step", "ask", "lease", "approval", "timer", "admission", "plan"]


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that an agent did, and what came of it.

    lineage: the task, or the family of tasks that it belongs to; loops are looked for in the whole of it. to: the agent
    that it was said to; "" for calls, and for what is said to nobody. What is said to several at once is an act for
    each of them, with the same id, and the first has its tokens. says: it is text, not a call. result: None when there
    is none (yet). tokens: spent on it. since_unix_ms: when it was asked for, 0 if unknown; time_unix_ms: when it was
    over.
    """

    id: str
    lineage: str
    agent: str
    action: str
    arguments: Json = ""
    result: Json | None = None
    error: bool = False
    says: bool = False
    to: str = ""
    tokens: int = 0
    time_unix_ms: int = 0
    since_unix_ms: int = 0
    tenant: str = ""
    productive: bool | None = None
    """Whether it is work rather than coordination; None: calls are, what is said to another agent is not."""
    role: str = ""
    actor: str = ""
    """As in `CallEnded`; told with what is said to another agent."""
    begins: bool = False
    """A question to a model that stands for itself. The same one again may be another run of the same program."""
    unmade: bool = False
    """An outside agent's call that the mesh did not make, for a reason that passes: to ask again is to wait for it."""


@dataclass(frozen=True, slots=True)
class WaitOpened:
    """`agent` cannot go on before `targets` (all, or any of them) have answered."""

    id: str
    lineage: str
    agent: str
    targets: tuple[str, ...]
    mode: Literal["all", "any"] = "all"
    time_unix_ms: int = 0
    tenant: str = ""
    resource: bool = False
    """`agent` is a lease, and `targets` hold it; or a plan makes it wait: this wait cannot be refused."""
    said: str = ""
    """The message that tells of it, where `id` names the wait itself."""
    until_unix_ms: int = 0
    """When it ends by itself; 0 when it does not."""


@dataclass(frozen=True, slots=True)
class WaitClosed:
    """The wait is over; with `target`, that one has answered, or (`gone`) never will."""

    id: str
    lineage: str
    wait: str
    target: str = ""
    time_unix_ms: int = 0
    gone: bool = False


@dataclass(frozen=True, slots=True)
class PartyFacts:
    """Facts about a party that may come to wait: its start, and further tokens that it has spent."""

    id: str
    lineage: str
    agent: str
    time_unix_ms: int = 0
    spent: int = 0


@dataclass(frozen=True, slots=True)
class WorkOpened:
    """Something is outstanding that will move the task on: while anything is, it does not stall."""

    id: str
    lineage: str
    key: str
    kind: OutstandingKind
    time_unix_ms: int
    tenant: str = ""
    until_unix_ms: int = 0
    """For timers: it is outstanding until then, and needs no closing."""


@dataclass(frozen=True, slots=True)
class WorkClosed:
    """It is no longer outstanding."""

    id: str
    lineage: str
    key: str
    time_unix_ms: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call to a tool or model ended; the input of the breakers.

    name: "" when it did not go out. failed: an outage of the tool or model, not a fault of the caller. role: the agent
    by its role, `worker.step`; "" when it is not known. error: the agent got no result, for whatever reason. counted:
    another event counts the call itself; this one adds that it failed after all, and why. actor: the person for whom it
    was made.
    """

    id: str
    lineage: str
    agent: str
    tenant: str
    kind: Literal["tool", "model"]
    name: str
    failed: bool
    latency_ms: int
    time_unix_ms: int
    role: str = ""
    error: bool = False
    counted: bool = False
    why: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True)
class ModelIdentified:
    """A provider said which model answered. model: the one that was asked for; told, fingerprint: the provider's words,
    "" where it says nothing."""

    id: str
    lineage: str
    tenant: str
    provider: str
    model: str
    told: str
    fingerprint: str
    time_unix_ms: int


@dataclass(frozen=True, slots=True)
class LineageEnded:
    """The lineage is over: its state is freed."""

    id: str
    lineage: str
    time_unix_ms: int = 0


Event = (
    Act | WaitOpened | WaitClosed | PartyFacts | WorkOpened | WorkClosed | CallEnded | ModelIdentified | LineageEnded
)
