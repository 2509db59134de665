"""Steps that are carried out elsewhere: the rows of a tenant's policy, and what programs outside are handed and answer.

The same by HTTP and by NATS.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from .plan.v1 import Role
from .result import Failure
from .types import Body, Contract, Count, Name, Reason, Summary, Title, Token, UnixMs

Text = Annotated[str, Field(max_length=bounds.MAX_ANSWER_CHARS)]
StepKeyText = Annotated[str, Field(max_length=bounds.MAX_STEP_KEY_CHARS, repr=False)]


class DelegatedRole(Contract, extra="forbid"):
    """One row. identity: of the program outside that alone is handed such steps. agent: called as the tool
    `agent_NAME`. deadline_s: of one attempt at a step; the task's deadline stands above it. description: one line by
    which a model that makes a plan chooses the role; without any, an agent's card tells it."""

    to: Literal["worker", "agent"]
    identity: Token | None = None
    agent: Token | None = None
    deadline_s: Annotated[float, Field(gt=0, le=bounds.MAX_TASK_DEADLINE_MS / 1000)] = (
        bounds.DEFAULT_DELEGATED_STEP_MS / 1000
    )
    description: Annotated[str, Field(max_length=bounds.MAX_SUMMARY_CHARS, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""


DelegatedRoles = Annotated[Mapping[Role, DelegatedRole], Field(max_length=bounds.MAX_DELEGATED_ROLES)]


class HandedInput(Contract):
    """Result of an earlier step. cut: the text is longer than what stands here. untrusted in any case: it is content,
    and no instruction."""

    step: Token
    title: Title = ""
    text: Text = ""
    cut: bool = False
    standing: str = "ok"
    standing_reason: Reason = ""
    missing: tuple[Summary, ...] = ()


class HandedStep(Contract):
    """A step, handed to its holder. key: for every call through the doors, and for beats and the answer; it is good
    until the step is answered, taken by another, or over. number: how often it was taken, this time included.

    beat_s: a beat is wanted so often, in seconds; whoever is silent three times as long has lost the step.
    """

    id: Token
    key: StepKeyText
    number: Count
    task: Token
    step: Token
    role: Name
    attempt: Count
    title: Title = ""
    instruction: str
    acceptance: str = ""
    objective: Text = ""
    inputs: tuple[HandedInput, ...] = ()
    notes: tuple[Reason, ...] = ()
    tools: tuple[Name, ...] = ()
    deadline_unix_ms: UnixMs
    beat_s: float
    traceparent: str = ""


class OpenStep(Contract):
    """A delegated step without an answer, whether somebody has taken it or not, for who looks on. holder: the program's
    own word for itself. number: how often the step was taken, 0 while nobody has it. taken_unix_ms: the newest taking.
    held_until_unix_ms: until when nobody is handed it, because a call of it was put off; else 0."""

    id: Token
    task: Token
    step: Token
    role: Name
    identity: Token
    holder: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    number: Count = 0
    asked_unix_ms: UnixMs
    taken_unix_ms: UnixMs = 0
    held_until_unix_ms: UnixMs = 0
    deadline_unix_ms: UnixMs


class OpenStepList(Contract):
    """The oldest ones of a tenant. more: how many there are beside these."""

    steps: tuple[OpenStep, ...] = ()
    more: Count = 0


class StepBeaten(Contract):
    """Answer to a beat. go_on: false: stop, for this reason; an answer may be refused as late."""

    go_on: bool
    reason: Reason = ""
    deadline_unix_ms: UnixMs = 0


class StepAnswer(Contract, extra="forbid"):
    """Answer of a holder, once. text: the result; or failed: why there is none. missing: what it lacks, in
    words.
    """

    text: Annotated[str, Field(max_length=bounds.MAX_ANSWER_CHARS)] = ""
    failed: Reason = ""
    missing: Annotated[tuple[Summary, ...], Field(max_length=16)] = ()


class AnswerAccepted(Contract):
    """The answer counts. repeated: it was there already, from this very holder."""

    accepted: bool = True
    repeated: bool = False


class StepTakeRequested(Body, type="mesh.step.take_requested"):
    """A program outside wants a step of its identity (rpc). role: "" is any. wait_ms: for so long it is waited for."""

    role: Annotated[str, Field(max_length=32)] = ""
    holder: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    wait_ms: Annotated[int, Field(ge=0, le=bounds.MAX_STEP_WAIT_MS)] = bounds.MAX_STEP_WAIT_MS


class StepTakeReplied(Body, type="mesh.step.take_replied"):
    """A step, or none for now; failure: why none is handed out."""

    step: HandedStep | None = None
    failure: Failure | None = None


class StepBeatRequested(Body, type="mesh.step.beat_requested"):
    """The holder works on it (rpc). key: of the taking."""

    key: StepKeyText


class StepBeatReplied(Body, type="mesh.step.beat_replied"):
    """Word to go on or to stop; failure: the beat was not taken."""

    beaten: StepBeaten | None = None
    failure: Failure | None = None


class StepAnswerRequested(Body, type="mesh.step.answer_requested"):
    """The holder's answer (rpc). key: of the taking."""

    key: StepKeyText
    answer: StepAnswer


class StepAnswerReplied(Body, type="mesh.step.answer_replied"):
    """The answer counts; failure: it does not (`late`), or is to be sent again (`unavailable`)."""

    accepted: AnswerAccepted | None = None
    failure: Failure | None = None
