"""Tools: their declared shape and effect, a call, its outcome."""

import hashlib
import operator
from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds, envelope

from ..plan.v1 import StepCall
from ..provenance import Attribution, Isolation, Pointer, Sink, Source, ValueOrigin
from ..result import Completeness, ContentRef, Failure, Label, Standing, Usage
from ..settlement import DoerReply
from ..types import Body, Constraints, Contract, Count, Name, Reason, Sha256, Summary, Tag, Title, Token, UnixMs

Effect = Literal["read", "write"]
PolicyEffect = Literal["permit", "ask", "forbid"]
BoundedName = Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)]
Sensitive = Literal["card", "email", "iban", "key", "phone", "secret"]
"""What a tool's result holds: personal data, a key, or (replaced in it) a credential of the call itself."""

CallEvent = Literal["tool.started", "tool.ended", "retrieval.started", "retrieval.ended"]
Excerpt = Annotated[str, Field(max_length=bounds.MAX_EXCERPT_CHARS)]


def _is_unisolated(value: object) -> bool:
    return value == "none"


class ToolSpec(Contract):
    """A tool as models and policies see it.

    parameters_json: JSON Schema of the arguments. idempotent: the tool honours an idempotency key.
    served_by: the service whose inbox takes the call. sinks: arguments that choose where something goes; of a write
    that declares none all are. egress: it sends what it is given out of the house, also where it only reads.
    isolation: the least that it accepts. output_json: JSON Schema of what it returns; "" is text. most_calls: in one
    task; 0 without a bound. four_eyes: who approves a call must not be who asked for the task. feeds:
    by the plan, a field of its result becomes an argument of a later call. result_fields: of the JSON that it returns,
    where they are declared: those that a plan can let flow. unchecked: its description is the words of its server or
    agent, which nobody of this house wrote or vouched for.
    """

    name: Name
    description: Reason
    parameters_json: Annotated[str, Field(max_length=bounds.MAX_SCHEMA_BYTES)]
    effect: Effect = "read"
    idempotent: bool = True
    served_by: Literal["tool_executor", "rag"] = "tool_executor"
    timeout_ms: Count = bounds.DEFAULT_TOOL_TIMEOUT_MS
    sinks: Annotated[tuple[Sink, ...], Field(max_length=bounds.MAX_SINKS, exclude_if=operator.not_)] = ()
    egress: Annotated[bool, Field(exclude_if=operator.not_)] = False
    isolation: Annotated[Isolation, Field(exclude_if=_is_unisolated)] = "none"
    output_json: Annotated[str, Field(max_length=bounds.MAX_SCHEMA_BYTES, exclude_if=operator.not_)] = ""
    most_calls: Annotated[Count, Field(exclude_if=operator.not_)] = 0
    four_eyes: Annotated[bool, Field(exclude_if=operator.not_)] = False
    feeds: Annotated[bool, Field(exclude_if=operator.not_)] = False
    result_fields: Annotated[
        tuple[Pointer, ...], Field(max_length=bounds.MAX_RESULT_FIELDS, exclude_if=operator.not_)
    ] = ()
    unchecked: Annotated[bool, Field(exclude_if=operator.not_)] = False

    @property
    def is_consequential(self) -> bool:
        """True if it matters from where a call's arguments come: it changes something, or tells somebody something."""
        return self.effect == "write" or self.egress or self.feeds or bool(self.sinks)


class CallBasis(Contract):
    """The call of a plan that a request is, and signed labels of what its arguments may be made of: of the call where a
    person wrote it, and of what tools and documents said in the steps that it builds on."""

    call: StepCall
    labels: Annotated[tuple[Label, ...], Field(max_length=bounds.MAX_LABELS)] = ()


class ToolCallRequested(Body, type="mesh.tool.call_requested"):
    """Call a tool. `call_id` is the idempotency key: the same id is done at most once.

    attribution: where its arguments come from, signed by the model gateway; without one they come from nowhere known.
    basis: of a call that no model made, by which the executor itself looks from where they come.
    progress: whoever asks is to be told how far it has come (`ToolProgress`), where its tool says so.
    """

    call_id: Token
    step_id: Token
    attempt: Count
    tool: Name
    arguments_json: Annotated[str, Field(max_length=bounds.MAX_ARGUMENTS_BYTES)]
    deadline_unix_ms: UnixMs
    attribution: Annotated[Attribution | None, Field(exclude_if=operator.not_)] = None
    basis: Annotated[CallBasis | None, Field(exclude_if=operator.not_)] = None
    progress: Annotated[bool, Field(exclude_if=operator.not_)] = False


class ToolProgress(Contract):
    """Live word of a tool on how far a call has come (not stored), untrusted as its results are. total: None where it
    does not say.
    """

    call_id: Token
    progress: Annotated[float, Field(allow_inf_nan=False)]
    total: Annotated[float | None, Field(allow_inf_nan=False)] = None
    message: Summary = ""


class LookedAt(Contract):
    """A document that a retrieval found: its best passage's title and the beginning of its text."""

    document: BoundedName
    title: Summary = ""
    excerpt: Excerpt = ""


class LiveCall(Contract):
    """Live word of a doer (not stored): it takes a call up, or a call has its outcome.

    A call that was refused before it began has no `started`; one that is taken up again has several. looks_at: excerpt
    of its arguments, or its query. excerpt: of its result. Excerpts are bounded, and keys and personal data in them are
    masked. outcome: "" while it runs. code: of its failure. passages, sources: of a retrieval, best first.
    """

    event: CallEvent
    time_unix_ms: UnixMs
    call_id: Token
    step_id: str
    attempt: Count
    tool: BoundedName = ""
    looks_at: Excerpt = ""
    outcome: Tag = ""
    code: Tag = ""
    duration_ms: Count = 0
    excerpt: Excerpt = ""
    passages: Count = 0
    sources: Annotated[tuple[LookedAt, ...], Field(max_length=bounds.MAX_LIVE_SOURCES)] = ()


class WriteNoted(Body, type="mesh.tool.write_noted"):
    """Note of doors to all their replicas about an outside agent's write: it begins. heard: its client has the answer.
    alias: id of a later request that is this call.
    """

    call_id: Token
    heard: bool = False
    alias: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""


class ToolCallCancelRequested(Body, type="mesh.tool.call_cancel_requested"):
    """Notice that nobody waits for this call any more: a tool that can stop what it began elsewhere does. Asks
    for no reply. The envelope's grant is the call's.
    """

    call_id: Token
    step_id: Token
    attempt: Count
    tool: Name


class WriteResolution(Contract):
    """A person's word on a write that may or may not have been done: it was, or it was not and may be made again.
    result: what its asker is told as its result."""

    happened: bool
    result: Annotated[Reason, Field(exclude_if=operator.not_)] = ""
    person: Name
    role: Annotated[Name, Field(pattern="^(approver|operator)$")]
    reason: Reason
    resolved_unix_ms: UnixMs

    @property
    def signed_sha256(self) -> str:
        """Digest of all of it, which the signer signs."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class ToolCallReplied(Body, DoerReply, type="mesh.tool.call_replied"):
    """Outcome of a call.

    `uncertain`: a write may or may not have happened (the doer died in the middle, or the tool's answer
    was lost, and the tool honours no key); it is never repeated, a person is asked. resolution: that person's word, by
    which this reply follows an uncertain one. sensitive: what its content holds,
    which its summary does not. isolation: how the tool was walled off. rule, policy_sha256: what let it be made or not;
    approval_id: who did.
    """

    call_id: Token
    step_id: Token
    outcome: Literal["succeeded", "refused", "failed", "uncertain"]
    failure: Failure | None = None
    content: ContentRef | None = None
    standing: Standing = "ok"
    completeness: Completeness = Completeness()
    provenance: Annotated[tuple[Label, ...], Field(max_length=8)] = ()
    effect: Effect = "read"
    usage: Usage = Usage()
    duration_ms: Count = 0
    isolation: Annotated[Isolation, Field(exclude_if=_is_unisolated)] = "none"
    rule: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS, exclude_if=operator.not_)] = ""
    policy_sha256: Annotated[str, Field(max_length=64, exclude_if=operator.not_)] = ""
    approval_id: Annotated[str, Field(max_length=64, exclude_if=operator.not_)] = ""
    sensitive: Annotated[
        tuple[Sensitive, ...], Field(max_length=bounds.MAX_SENSITIVE_KINDS, exclude_if=operator.not_)
    ] = ()
    resolution: Annotated[WriteResolution | None, Field(exclude_if=operator.not_)] = None


def write_id_of(task: str, call_id: str) -> str:
    """Id of an uncertain write, under which a person resolves it."""
    return envelope.derive_id("write", task, call_id)


class WriteDoubted(Body, type="mesh.tool.write_doubted"):
    """A write may or may not have been done: a person is to look. key: what a tool that honours keys was sent.
    asked_for: who asked for the task. four_eyes: another person resolves it.
    """

    write_id: Token
    call_id: Token
    step_id: Token
    tool: Name
    arguments_json: Annotated[str, Field(max_length=bounds.MAX_ARGUMENTS_BYTES)]
    key: Annotated[str, Field(max_length=200)]
    why: Reason = ""
    asked_unix_ms: UnixMs
    asked_for: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS, exclude_if=operator.not_)] = ""
    four_eyes: Annotated[bool, Field(exclude_if=operator.not_)] = False


class WriteResolveRequested(Body, type="mesh.tool.write_resolve_requested"):
    """A person says what became of a write that is uncertain. token: the signer's word on the resolution, without which
    it does not count."""

    call_id: Token
    resolution: WriteResolution
    token: Annotated[str, Field(max_length=bounds.MAX_GRANT_TOKEN_BYTES, exclude_if=operator.not_)] = ""


class WriteResolved(Body, type="mesh.tool.write_resolved"):
    """The word on a write that counts, the first one: what was said later changes nothing."""

    write_id: Token
    resolution: WriteResolution


class WritesRequested(Body, type="mesh.tool.writes_requested"):
    """Which writes of the task that the subject names may or may not have been done (rpc)? The asker may read it."""


class UncertainWrite(Contract):
    """One call. write_id: under which a person resolves it. key: what a tool that honours keys was sent. message: the
    id of its request.

    outcome: `uncertain` (it was begun and its outcome was lost), or `unanswered` when the task ended.
    """

    step_id: Token
    title: Title = ""
    attempt: Count
    tool: Name
    arguments_json: Annotated[str, Field(max_length=bounds.MAX_ARGUMENTS_BYTES)]
    key: Annotated[str, Field(max_length=200)]
    asked_unix_ms: UnixMs
    outcome: Literal["uncertain", "unanswered"]
    why: Reason
    message: str
    write_id: str = ""


class WritesReplied(Body, type="mesh.tool.writes_replied"):
    """In the order in which they were asked for; `more` others are left out for want of room."""

    writes: Annotated[tuple[UncertainWrite, ...], Field(max_length=bounds.MAX_WRITES_LISTED)] = ()
    more: Count = 0
    failure: Failure | None = None


class CitedCallRequested(Body, type="mesh.tool.cited_call_requested"):
    """Which call of the task that the subject names gave the content of this digest (rpc)? The asker may read it."""

    sha256: Sha256


class CitedCall(Contract):
    """A call of a tool as it was asked for."""

    step_id: Token
    attempt: Count
    tool: Name
    arguments_json: Annotated[str, Field(max_length=bounds.MAX_ARGUMENTS_BYTES)]
    asked_unix_ms: UnixMs


class CitedCallReplied(Body, type="mesh.tool.cited_call_replied"):
    """The first call that gave this content; none when no call of this task did. failure: it cannot be told now."""

    call: CitedCall | None = None
    failure: Failure | None = None


class ToolListRequested(Body, type="mesh.tool.list_requested"):
    """Request for the tools that tasks of the subject's tenant may be granted, and policy's word on each (rpc)."""


class PolicyOutlook(Contract):
    """Ruling of policy on a sample call, which has the arguments that the tool requires. from_asker: all its values
    stand in the asker's words; from_elsewhere: none of them does. asker_rule, elsewhere_rule: what decided. depends: a
    rule about the tool has conditions, so that a call with other arguments or for another person may be ruled on
    otherwise."""

    from_asker: PolicyEffect
    asker_rule: BoundedName
    from_elsewhere: PolicyEffect
    elsewhere_rule: BoundedName
    depends: bool


class OfferedTool(Contract):
    """A tool that tasks of the tenant may be granted. about: the beginning of its description. isolation: the least
    that it accepts; runs_in: what the executor has for it. served_by: the service that takes its calls; policy is asked
    about those of tool_executor alone. unavailable: why it cannot be called now; "" when it can. outlook: null where
    policy is not asked."""

    name: Name
    about: Summary = ""
    effect: Effect = "read"
    egress: bool = False
    served_by: Token = "tool_executor"
    isolation: Isolation = "none"
    runs_in: Isolation = "none"
    unavailable: Reason = ""
    outlook: PolicyOutlook | None = None


class ToolListReplied(Body, type="mesh.tool.list_replied"):
    """The tools by name; `more` others are left out for want of room."""

    tools: Annotated[tuple[OfferedTool, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    more: Count = 0
    failure: Failure | None = None


class ToolDetailRequested(Body, type="mesh.tool.detail_requested"):
    """Request for the declaration of a tool of the subject's tenant, and the rules that speak of it (rpc)."""

    tool: Name


class PolicyRule(Contract):
    """A rule of the tenant's policy in Cedar. asks: it wants a person to agree. text: its beginning where it is very
    long."""

    name: BoundedName
    file: Annotated[str, Field(max_length=bounds.MAX_SUMMARY_CHARS)]
    line: Count
    effect: Literal["permit", "forbid"]
    asks: bool
    text: Annotated[str, Field(max_length=bounds.MAX_RULE_TEXT_CHARS)]


class ToolDetailReplied(Body, type="mesh.tool.detail_replied"):
    """The declaration, and the rules in the order of their files, of which `more_rules` are left out. sample_json:
    arguments of the sample call, "" where they are too long. constraints: of the tenant, which each of its grants
    has."""

    tool: OfferedTool | None = None
    spec: ToolSpec | None = None
    sample_json: Annotated[str, Field(max_length=bounds.MAX_SCHEMA_BYTES)] = ""
    rules: Annotated[tuple[PolicyRule, ...], Field(max_length=bounds.MAX_RULES_TOLD)] = ()
    more_rules: Count = 0
    constraints: Constraints = ()
    policy_sha256: Annotated[str, Field(max_length=64)] = ""
    failure: Failure | None = None


class TrialSource(Contract):
    """A text that would stand before the agent. source: who is behind it; name: of the document or tool."""

    source: Source
    name: Summary = ""
    content: Annotated[str, Field(max_length=bounds.MAX_TRIAL_SOURCE_CHARS)]


class PolicyTrialRequested(Body, type="mesh.tool.policy_trial_requested"):
    """Request for the ruling on a call, as if a task of this person made it (rpc). Nothing is called.

    sources: texts in which the values of the arguments are looked for; a value that stands in none is the model's.
    role, feature: of the person and the task, as rules may ask for them.
    """

    tool: Name
    arguments_json: Annotated[str, Field(max_length=bounds.MAX_ARGUMENTS_BYTES)]
    sources: Annotated[tuple[TrialSource, ...], Field(max_length=bounds.MAX_TRIAL_SOURCES)] = ()
    person: Name
    role: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    feature: Tag = ""


class TrialFinding(Contract):
    """A value that stands where policy does not want it from there. sources: in which it stands."""

    pointer: Pointer
    text: Summary
    sources: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_ORIGINS)] = ()
    why: Reason


class PolicyTrialReplied(Body, type="mesh.tool.policy_trial_replied"):
    """The ruling: effect, the rule that decided, and reasons, of which the first one decided. code: of a forbidden
    call, for programs. written: the rule's text, null for what is no rule of a file (grant, isolation, taint, no
    permit). origins: of each value, where it stands. failure: why it was not ruled on."""

    effect: PolicyEffect | None = None
    rule: BoundedName = ""
    risk: Literal["low", "medium", "high"] = "low"
    code: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    reasons: Annotated[tuple[Reason, ...], Field(max_length=bounds.MAX_FINDINGS)] = ()
    findings: Annotated[tuple[TrialFinding, ...], Field(max_length=bounds.MAX_FINDINGS)] = ()
    origins: Annotated[tuple[ValueOrigin, ...], Field(max_length=bounds.MAX_FINDINGS)] = ()
    written: PolicyRule | None = None
    isolation: Isolation = "none"
    policy_sha256: Annotated[str, Field(max_length=64)] = ""
    failure: Failure | None = None
