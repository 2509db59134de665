"""The decide/fold protocol: pure. Messages and their contents go in, a new state and outputs come out.

A decider is a function of the fold of one task's messages in one inbox. It has no clock, no randomness and no
I/O: time, ids and contents come in with the message.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.grant import StepGrant
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.types import Body

if TYPE_CHECKING:
    from dataclasses import replace as replace
else:

    def replace(one, /, **changes):
        """Replace fields as dataclasses.replace does, for frozen dataclasses with slots that do nothing when they
        are made: it does not look at every field's description, for a decision changes its state several times.
        Raises KeyError for what is no field, TypeError for other classes.
        """
        kind = type(one)
        values, puts = _slot_access(kind)
        clone = object.__new__(kind)
        for setter, value in zip(puts.values(), values(one), strict=True):
            setter(clone, value)
        for name, value in changes.items():
            puts[name](clone, value)
        return clone


@lru_cache(maxsize=256)
def _slot_access(kind: type[Any]) -> tuple[Callable[[Any], tuple[Any, ...]], dict[str, Any]]:
    """Reader of all fields of such a class, and what sets each. Raises TypeError for any other class."""
    names = [slot.name for slot in fields(kind)]
    if not set(names) <= set(getattr(kind, "__slots__", ())) or hasattr(kind, "__post_init__"):
        raise TypeError(f"{kind.__name__} is no plain dataclass with slots: use dataclasses.replace")
    # Of a single name attrgetter gives the bare value.
    values = attrgetter(*names) if len(names) > 1 else lambda one: (getattr(one, names[0]),)
    return values, {name: getattr(kind, name).__set__ for name in names}


S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """One message of a task's inbox.

    sequence: its place in the inbox stream. contents: text of the blobs that `Decider.wanted_contents` named,
    by sha256.
    """

    envelope: Envelope
    body: Body
    tenant: str
    task: str
    sequence: int
    contents: Mapping[str, str] = field(default_factory=dict)

    @property
    def time_unix_ms(self) -> int:
        """The only time a decider knows."""
        return self.envelope.time_unix_ms


@dataclass(frozen=True, slots=True)
class Send:
    """Say `body` to service `to`.

    grant: a token to hand on as it is; `step_grant`: claims that the shell signs with this service's key, with
    `grant` as their parent. task: whose fold over there it is for, when not the one that says it. contents: texts that
    the body refers to (`flow.content.reference`), which the shell stores before it says it.
    """

    to: str
    body: Body
    grant: str = ""
    step_grant: StepGrant | None = None
    task: str = ""
    contents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Wake this task with `TimerFired(key)` at a time. Nobody cancels: a late timer is ignored by the fold."""

    key: str
    due_unix_ms: int


Output = Send | SetTimer


class Transition(NamedTuple, Generic[S]):
    """The state after a message, and what to say because of it, in order."""

    state: S
    outputs: tuple[Output, ...] = ()

    def preceded_by(self, *outputs: Output) -> "Transition[S]":
        """This transition, with these outputs ahead of its own."""
        return Transition(self.state, (*outputs, *self.outputs))


Handler = Callable[[S, InboxMessage, Any], Transition[S]]
"""Decides about messages of one type; their body comes last."""


def handle_message(handlers: Mapping[type[Body], Handler[S]], state: S, message: InboxMessage) -> Transition[S]:
    """The decision of the handler for the message's type; without one, nothing follows."""
    handler = handlers.get(type(message.body))
    return handler(state, message, message.body) if handler is not None else Transition(state)


class Decider(ABC, Generic[S]):
    """The decision logic of a service, one version of it. A subclass sets `service` and `opening`.

    service: the name of the service whose inbox it folds. opening: the types that may begin a fold in this inbox.
    begins: the types it says that begin a fold in another decider's inbox. says_elsewhere: the types it says to folds
    other than the one it decides.
    """

    service: str
    opening: frozenset[type[Body]]
    begins: frozenset[type[Body]] = frozenset()
    says_elsewhere: frozenset[type[Body]] = frozenset()

    @property
    def begins_task(self) -> frozenset[type[Body]]:
        """The types in `opening` that begin a task; a rejected one is answered with `reject_opening`."""
        return self.opening

    @abstractmethod
    def initial_state(self) -> S:
        """State before any message."""

    @abstractmethod
    def wanted_contents(self, body: Body) -> tuple[ContentRef, ...]:
        """Contents that `decide` needs to read for this body (empty for most)."""

    @abstractmethod
    def decide(self, state: S, message: InboxMessage) -> Transition[S]:
        """Pure transition. A bug is an assert; everything else is an output."""

    @abstractmethod
    def has_ended(self, state: S) -> bool:
        """True if nothing can follow, so that the state may be forgotten."""

    def is_at_rest(self, state: S) -> bool:
        """True if an earlier message that comes again changes nothing, so that the fold may count from zero."""
        return False

    def reject_opening(self, code: str, reason: str) -> tuple[Send, ...]:
        """Messages to send when a message in `begins_task` was rejected."""
        return ()
