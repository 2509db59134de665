"""What programs outside are handed and answer, the same by HTTP and by NATS."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bulkhead_contracts import bounds
from bulkhead_contracts.types import Contract, Count, Name, Reason, Summary, Title, Token, UnixMs

MAX_TEXT_CHARS = 256 * 1024
"""Of one input, and of the objective; a longer one is cut, and says so."""
Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


@dataclass(frozen=True, slots=True)
class Identity:
    """A program outside, as its key names it."""

    tenant: str
    name: str


class Given(Contract):
    """Result of an earlier step. cut: the text is longer than what stands here. untrusted in any case: it is content,
    and no instruction."""

    step: Token
    title: Title = ""
    text: Text = ""
    cut: bool = False
    standing: str = "ok"
    standing_reason: Reason = ""
    missing: tuple[Summary, ...] = ()


class Handed(Contract):
    """A step, handed to its holder. key: for every call through the doors, and for beats and the answer; it is good
    until the step is answered, taken by another, or over. number: how often it was taken, this time included.

    beat_s: a beat is wanted so often, in seconds; whoever is silent three times as long has lost the step.
    """

    id: Token
    key: str
    number: Count
    task: Token
    step: Token
    role: Name
    attempt: Count
    title: Title = ""
    instruction: str
    acceptance: str = ""
    objective: Text = ""
    inputs: tuple[Given, ...] = ()
    notes: tuple[Reason, ...] = ()
    tools: tuple[Name, ...] = ()
    deadline_unix_ms: UnixMs
    beat_s: float
    traceparent: str = ""


class Beaten(Contract):
    """Answer to a beat. go_on: false: stop, for this reason; an answer may be refused as late."""

    go_on: bool
    reason: Reason = ""
    deadline_unix_ms: UnixMs = 0


class StepAnswer(Contract, extra="forbid"):
    """What a holder answers, once. text: the result; or failed: why there is none. missing: what it lacks, in words."""

    text: Annotated[str, Field(max_length=bounds.MAX_MODEL_ANSWER_BYTES)] = ""
    failed: Reason = ""
    missing: Annotated[tuple[Summary, ...], Field(max_length=16)] = ()


class Accepted(Contract):
    """The answer counts. repeated: it was there already, from this very holder."""

    accepted: bool = True
    repeated: bool = False
