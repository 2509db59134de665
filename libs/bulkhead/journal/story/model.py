"""The shape of a task's story. Texts are of models, documents and people: data, never markup or instructions.

Times are Unix milliseconds, money is in micro US dollars, durations are in milliseconds.
"""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from bulkhead.journal.why.reason import Reason
from bulkhead_contracts.result import Usage

SourceKind = Literal["document", "tool_result", "step_result", "objective", "unknown"]
CallKind = Literal["model", "tool", "search"]
Effect = Literal["", "done", "not_done", "unknown"]
WaitKind = Literal["queued", "step", "lease", "approval", "budget", "halt", "breaker", "retried", "time"]


@dataclass(frozen=True, slots=True)
class WaitTold:
    """A time in which a step or a call stood still. kind: what it waited for; `queued`: a place or a provider, `step`:
    another step, `retried`: attempts that brought nothing. what: its name. took_ms: None while it waits."""

    kind: WaitKind
    at_unix_ms: int
    took_ms: int | None = None
    what: str = ""


@dataclass(frozen=True, slots=True)
class AttemptTold:
    """One attempt of a step. reasons: why it was not accepted. took_ms: None while it runs."""

    number: int
    outcome: str
    began_unix_ms: int
    took_ms: int | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A content behind a marker. name: document, tool or step. where: `characters 0–46` of a document. step_id: of
    the step that had it first.
    """

    marker: str
    kind: SourceKind
    name: str = ""
    where: str = ""
    step_id: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model, a tool or the document store.

    by: the service that asked. name: prompt or tool; of an outside agent's call the model. prompt, prompt_digest: the
    version that a model had, `worker.step@r1`; release: of the tenant's prompts. arguments: of a
    tool, the query, or the last message of an outside agent. why: what the model
    said beside asking for it, which is its claim and no fact. result: what came, or the tools that the model asked
    for. attempts: those that its doer made; retried: why one brought nothing. waited_ms, waited_for: for a provider.
    put_off: why it could not begin at once. effect: what a write did. reserved_usd_micros: that was set aside for it.
    """

    call_id: str
    kind: CallKind
    by: str
    name: str
    prompt: str = ""
    prompt_digest: str = ""
    release: str = ""
    step_id: str = ""
    attempt: int = 1
    asked_unix_ms: int = 0
    took_ms: int | None = None
    outcome: str = "open"
    arguments: str = ""
    why: str = ""
    result: str = ""
    failure: str = ""
    writes: bool = False
    effect: Effect = ""
    approval: str = ""
    model: str = ""
    chosen_as: str = ""
    attempts: int = 0
    retried: tuple[str, ...] = ()
    waited_ms: int = 0
    waited_for: str = ""
    put_off: tuple[str, ...] = ()
    cached: bool = False
    found: tuple[Source, ...] = ()
    usage: Usage = Usage()
    message: str = ""
    waits: tuple[WaitTold, ...] = ()
    reserved_usd_micros: int = 0

    @property
    def prompt_name(self) -> str:
        """`worker.step@r1 (production 12)`; the name that was asked for until an answer tells the version."""
        label, _, number = self.release.partition(".")
        number, _, canary = number.partition(".")
        release = f" ({label} {number}{', canary' if canary else ''})" if self.release else ""
        return f"{self.prompt or self.name}{release if self.prompt else ''}"


@dataclass(frozen=True, slots=True)
class PlanTold:
    """A plan that ran, from adopted_unix_ms on. origin: in words. by: who made it. drafts: how many the plan checker
    refused before it. sha256: of its steps."""

    version: int
    origin: Literal["submitted", "drafted", "fallback", "fork", "adopted"]
    by: str
    steps: tuple[str, ...]
    drafts_refused: int = 0
    notes: tuple[str, ...] = ()
    message: str = ""
    adopted_unix_ms: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class StepTold:
    """One step of one plan. inputs: the steps on whose results it builds. cites: what its result rests on. refused:
    per attempt that was not accepted, why. tried: its attempts. whole_cost: false while a call of it has not settled.
    answered: as in `Result`. action, retry, skippable: as its plan has them."""

    step_id: str
    title: str
    plan_version: int
    outcome: str
    attempts: int
    final: bool
    inputs: tuple[str, ...]
    took_ms: int
    calls: tuple[Call, ...]
    cites: tuple[Source, ...]
    seen: int
    refused: tuple[str, ...]
    standing: str
    standing_reason: str
    result: str
    usage: Usage
    whole_cost: bool = True
    given: bool = False
    answered: str = ""
    instruction: str = ""
    tried: tuple[AttemptTold, ...] = ()
    waits: tuple[WaitTold, ...] = ()
    action: str = "agent"
    retry: str = "with_feedback"
    skippable: bool = False


@dataclass(frozen=True, slots=True)
class Happened:
    """Something out of the ordinary, with the ids of the messages that show it.

    kind: refused, degraded, retried, put_off, paused, approved, denied, expired, fallback or unreadable.
    """

    at_unix_ms: int
    kind: str
    what: str
    step_id: str = ""
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of the answer, without its markers, and what it rests on; nothing for one that nothing supports."""

    text: str
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class Story:
    """reasons: how it ended, what held it, what it waits for. cause: of an end that is no success, what led to it, the
    last first. content: false where texts were left out for who asks. cut: more messages than were read. waits: before
    it ran."""

    task_id: str
    tenant: str
    status: str
    asked_by: str
    objective: str
    began_unix_ms: int
    took_ms: int
    usage: Usage
    whole_cost: bool
    plans: tuple[PlanTold, ...]
    steps: tuple[StepTold, ...]
    planning: tuple[Call, ...]
    happened: tuple[Happened, ...]
    answer: tuple[Sentence, ...]
    cause: tuple[Happened, ...]
    reasons: tuple[Reason, ...]
    adopted: bool = False
    content: bool = True
    cut: bool = False
    waits: tuple[WaitTold, ...] = ()

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls: of the plan's drafts, then of the steps."""
        return (*self.planning, *(call for step in self.steps for call in step.calls))

    @property
    def write_calls(self) -> tuple[Call, ...]:
        """Calls that were to change something."""
        return tuple(call for call in self.calls if call.writes)


@dataclass(frozen=True, slots=True)
class Row:
    """One message. what: in a few words. call: what was asked, of the message that asks last. reply_id: of the message
    that answers it."""

    number: int
    offset_ms: int
    sender: str
    receiver: str
    type: str
    id: str
    cause: str
    step_id: str = ""
    what: str = ""
    problem: str = ""
    reply_id: str = ""
    took_ms: int | None = None
    call: Call | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """A piece of what a model was given, in order. kind: of the part, or `model_said`, `model_asked`, `call_failed` of
    an earlier turn, or `message` and `options` of an outside agent. note: that it is cut, or gone."""

    kind: str
    source: str = ""
    sha256: str = ""
    text: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt as it was settled. failed: the code of one that brought no answer."""

    usage: Usage
    wall_ms: int
    failed: str = ""
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class CallDetail:
    """prompt_id names the prompt and its version, prompt_digest its text: the model gateway puts `given` behind it.
    release: of the tenant's prompts, whose values fill the text. instruction: the text as the model had it;
    instruction_note: why it is not here, or not whole.
    answer: a model's words, a tool's result. sources: what the answer cites, or a search found."""

    call: Call
    prompt_id: str = ""
    prompt_digest: str = ""
    release: str = ""
    instruction: str = ""
    instruction_note: str = ""
    price_digest: str = ""
    provider: str = ""
    model: str = ""
    pinned: str = ""
    fingerprint: str = ""
    tools: tuple[str, ...] = ()
    given: tuple[Given, ...] = ()
    arguments: str = ""
    answer: str = ""
    answer_note: str = ""
    sources: tuple[Source, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    rule: str = ""
    approval_id: str = ""
    content: bool = True


def as_json(story: Story) -> dict[str, Any]:
    """The story for programs."""
    document: dict[str, Any] = _STORY.dump_python(story, mode="json")
    return document


_STORY = TypeAdapter(Story)
