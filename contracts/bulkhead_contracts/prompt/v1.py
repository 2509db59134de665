"""Prompts that a tenant's people change: versions, which never change; releases, which name one version of each."""

import datetime
import hashlib
import json
import operator
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from bulkhead_contracts import bounds

from ..result import Failure
from ..task.v1 import RequesterClaim
from ..types import Body, Contract, Count, Name, Reason, Sha256, Summary, Tag, Token, TokenCount, UnixMs, UsdMicros
from ..types import ReleaseRef as ReleaseRef
from .gate_policy import GatePolicy

PromptId = Annotated[str, StringConstraints(pattern=r"^[a-z_]+(\.[a-z_]+)*$", max_length=bounds.MAX_PROMPT_ID_CHARS)]
"""`worker.step`."""
VersionMark = Annotated[str, StringConstraints(pattern=r"^r?[1-9][0-9]{0,8}$")]
"""A version of a prompt: `r3` of the tenant's own, `2` of the shipped ones."""
ReleaseLabel = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
"""An environment: `production`."""
CanariedWorkflow = Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9-]{0,39})?$")]
OF_WORKFLOW = "workflow:"
StickyBy = Literal["task", "person"]
CanaryMetric = Literal["quality", "errors", "tokens", "cost", "latency", "ratings", "judges"]
REGISTRY = "registry"
"""Person and role of a release that the registry made by itself; no person has the role."""
ReleaseChoice = Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9_]{0,31}(\.[1-9][0-9]{0,8})?)?$")]
"""A label, `staging`, or one release of it, `trial.7`."""
PRODUCTION = "production"
"""The label that tasks are given where they name none."""
TRIAL = "trial"
"""The label whose releases stand for changes that are evaluated or tried; only the registry moves it."""
BREAK_GLASS = "break_glass"


def _check_day(text: str) -> str:
    if text:
        datetime.date.fromisoformat(text)
    return text


ReviewDate = Annotated[str, StringConstraints(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$"), AfterValidator(_check_day)]
"""A day, `2027-03-31`; "" for none."""
_PLACEHOLDER = re.compile(r"\{\{([^{}\n]{0,64})\}\}")


class PromptVariable(Contract):
    """A place in a prompt's text, `{{name}}`. default: its value where the release sets none; of a choice one of
    `choices`."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    kind: Literal["text", "number", "choice"] = "text"
    choices: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_PROMPT_CHOICES)] = ()
    default: Summary
    description: Summary = ""

    @model_validator(mode="after")
    def _default_fits(self) -> "PromptVariable":
        if reason := self.describe_misfit(self.default):
            raise ValueError(reason)
        return self

    def describe_misfit(self, value: str) -> str:
        """Why this is no value of it; "" when it is."""
        return describe_value_misfit(self.name, self.kind, self.choices, value)


def describe_value_misfit(name: str, kind: str, choices: Collection[str], value: str) -> str:
    """Reason for which this is no value of a variable of such a kind; "" when it is."""
    match kind:
        case "choice":
            return "" if value in choices else f"{name} is one of {', '.join(choices) or 'none'}"
        case "number":
            return "" if re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,9})?", value) else f"{name} is a number"
    return "" if value.isprintable() else f"{name} is one line of text"


def _is_none(value: object) -> bool:
    return value is None


class ModelParameters(Contract):
    """Parameters of a call, over those of its route. max_output_tokens: at most; never more than the call asks for."""

    temperature: Annotated[float | None, Field(ge=0, le=2, exclude_if=_is_none)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, exclude_if=_is_none)] = None
    reasoning_effort: Annotated[Literal["", "minimal", "low", "medium", "high"], Field(exclude_if=operator.not_)] = ""
    max_output_tokens: Annotated[int, Field(ge=0, le=bounds.MAX_ASKED_OUTPUT_TOKENS, exclude_if=operator.not_)] = 0


class PromptContent(Contract):
    """Content of a version: all that decides what a model answers. Its digest names it.

    model: a route of the model gateway, or the pin `provider/model`, for tasks that name no route themselves; "" for
    the mesh's own. output_schema: JSON Schema of an answer in text.
    """

    text: Annotated[str, Field(min_length=1, max_length=bounds.MAX_PROMPT_CHARS)]
    variables: Annotated[tuple[PromptVariable, ...], Field(max_length=bounds.MAX_PROMPT_VARIABLES)] = ()
    model: Annotated[
        str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._:/-]{0,127})?$"), Field(exclude_if=operator.not_)
    ] = ""
    parameters: Annotated[ModelParameters, Field(exclude_if=lambda value: value == ModelParameters())] = (
        ModelParameters()
    )
    output_schema: Annotated[dict[str, Any], Field(exclude_if=operator.not_)] = {}

    @property
    def sha256(self) -> str:
        """Digest of the content in canonical form."""
        return canonical_sha256(self.model_dump(mode="json"))

    def list_problems(self) -> tuple[str, ...]:
        """Faults that keep it from being used, for people; () without any."""
        declared, used = [variable.name for variable in self.variables], set(_PLACEHOLDER.findall(self.text))
        problems = [f"{{{{{name}}}}} stands in the text and is not declared" for name in sorted(used - set(declared))]
        problems += [f"the variable {name} does not stand in the text" for name in sorted(set(declared) - used)]
        problems += [
            f"the variable {name} is declared twice" for name in sorted(set(declared)) if declared.count(name) > 1
        ]
        if not self.text.strip():
            problems.append("the text is empty")
        if (length := len(self.fill_variables({}))) > bounds.MAX_PROMPT_CHARS:
            problems.append(f"the text has {length:,} characters with its defaults, of {bounds.MAX_PROMPT_CHARS:,}")
        if len(json.dumps(self.output_schema).encode()) > bounds.MAX_SCHEMA_BYTES:
            problems.append(f"the output schema is larger than {bounds.MAX_SCHEMA_BYTES:,} bytes")
        elif self.output_schema and self.output_schema.get("type") != "object":
            problems.append("the output schema needs `type: object`, as providers ask for it")
        elif _refers_outside(self.output_schema):
            problems.append("the output schema refers to another document: a $ref begins with #")
        if odd := sorted({f"U+{ord(char):04X}" for char in self.text if not (char.isprintable() or char in "\n\t")}):
            problems.append(f"the text has characters that nobody sees: {', '.join(odd[:8])}")
        return tuple(problems)

    def fill_variables(self, values: dict[str, str]) -> str:
        """The text with the value of each variable; of one that is not named, its default."""
        defaults = {variable.name: variable.default for variable in self.variables}
        return _PLACEHOLDER.sub(lambda place: values.get(place[1], defaults.get(place[1], place[0])), self.text)


class PromptVersion(Contract):
    """One version of a tenant's prompt; it never changes.

    number: 1, 2, ... of this prompt of this tenant. based_on: the version from which it was made, `worker.step@r2`, or
    of a shipped one `worker.step@1`. note: what changed, and why. review_by: day until which somebody reads it again.
    """

    prompt: PromptId
    number: Annotated[Count, Field(ge=1)]
    content: PromptContent
    sha256: Sha256
    based_on: Summary = ""
    owner: Name
    note: Reason
    review_by: Annotated[ReviewDate, Field(exclude_if=operator.not_)] = ""
    person: Name
    role: Name
    act: Token
    act_sha256: Sha256
    published_unix_ms: UnixMs

    @property
    def name(self) -> str:
        """`worker.step@r3`."""
        return version_name(self.prompt, self.number)


class ReleasedPrompt(Contract):
    """A version that a release uses. values: of its variables, where not the default."""

    prompt: PromptId
    number: Annotated[Count, Field(ge=1)]
    sha256: Sha256
    values: Annotated[dict[Name, Summary], Field(max_length=bounds.MAX_PROMPT_VARIABLES, exclude_if=operator.not_)] = {}

    @property
    def filled_sha256(self) -> str:
        """Digest of the content with these values: the content's own where it sets none."""
        return canonical_sha256({"content": self.sha256, "values": self.values}) if self.values else self.sha256


class Canary(Contract):
    """Other versions for a share of the tasks that begin. percent: of tasks, or of people (`sticky_by`), who all keep
    theirs. began: number of the release that began it, so that each canary has other tasks and people."""

    prompts: Annotated[tuple[ReleasedPrompt, ...], Field(min_length=1, max_length=bounds.MAX_RELEASED_PROMPTS)]
    percent: Annotated[int, Field(ge=1, le=50)]
    sticky_by: StickyBy = "task"
    began: Count = 0


class CanaryArm(Contract):
    """Tasks that ended on one side of a canary. tasks: number of them. good: those that succeeded, and whose
    answer is full or was not checked.
    errors: those that failed. tokens: of a task, on average. cost_usd_micros: of a task, on average. latency_ms: time
    of half of the last tasks at most. rated: tasks that people rated. rated_bad: those that they rated bad."""

    tasks: Count = 0
    good: Count = 0
    errors: Count = 0
    tokens: TokenCount = 0
    cost_usd_micros: UsdMicros = 0
    latency_ms: Count = 0
    rated: Count = 0
    rated_bad: Count = 0


class CanaryEvidence(Contract):
    """One metric of a canary. metric: its name. worse: stake of who bet 1 that the canary is worse; at the watch's
    bound that is taken for true. better: stake of who bet that it is better. canary_bad: the canary's tasks that were
    bad by it. canary_tasks: of so many. rest_bad: other tasks that were bad by it. rest_tasks: of so many."""

    metric: CanaryMetric
    worse: Annotated[float, Field(ge=0)] = 1.0
    better: Annotated[float, Field(ge=0)] = 1.0
    canary_bad: Count = 0
    canary_tasks: Count = 0
    rest_bad: Count = 0
    rest_tasks: Count = 0


class CanaryWatch(Contract):
    """A canary beside the rest. label: of prompts; `workflow` of a canary of that `workflow`. began: number of the
    release that began it. canary: its tasks. rest: all others. evidence: by metric. bound: stake at which a difference
    is taken for true. verdict: `regressed` ends it; `better` and `no_worse` propose to promote it. metric: that
    decided, "" of none. tasks: of the canary, when it was decided. reason: of the verdict, with figures."""

    label: ReleaseLabel
    began: Count
    canary: CanaryArm = CanaryArm()
    rest: CanaryArm = CanaryArm()
    evidence: Annotated[tuple[CanaryEvidence, ...], Field(max_length=16)] = ()
    bound: Annotated[float, Field(ge=1)]
    verdict: Literal["running", "regressed", "better", "no_worse"] = "running"
    metric: CanaryMetric | Literal[""] = ""
    tasks: Count = 0
    reason: Reason = ""
    workflow: Annotated[CanariedWorkflow, Field(exclude_if=operator.not_)] = ""

    @property
    def name(self) -> str:
        """Name of what it is the canary of: `production`, `workflow:weekly-report`."""
        return f"{OF_WORKFLOW}{self.workflow}" if self.workflow else self.label


class PromptRelease(Contract):
    """Versions that a label stands for since a moment; it never changes: the next one has the next number.

    prompts: those that are not the shipped ones. restores: number of the earlier release that this one equals, 0 of a
    new one. rolled_back: the canary that the registry dropped by making this release. gate: statements on which the
    move stood, `answers#7@<digest>`, or `break_glass`; () without a gate.
    """

    label: ReleaseLabel
    number: Annotated[Count, Field(ge=1)]
    prompts: Annotated[tuple[ReleasedPrompt, ...], Field(max_length=bounds.MAX_RELEASED_PROMPTS)] = ()
    canary: Annotated[Canary | None, Field(exclude_if=operator.not_)] = None
    restores: Annotated[Count, Field(exclude_if=operator.not_)] = 0
    rolled_back: Annotated[CanaryWatch | None, Field(exclude_if=operator.not_)] = None
    gate: Annotated[tuple[Summary, ...], Field(max_length=8, exclude_if=operator.not_)] = ()
    reason: Reason
    person: Name
    role: Name
    act: Token
    act_sha256: Sha256
    moved_unix_ms: UnixMs

    @property
    def ref(self) -> str:
        """`production.12`."""
        return f"{self.label}.{self.number}"

    def ref_for(self, task: str, person: str) -> str:
        """The release or its canary, for a task of a person; the same for the same."""
        return choose_side(self.ref, self.label, self.canary, task, person)

    def prompts_for(self, ref: str) -> dict[str, ReleasedPrompt]:
        """The versions by prompt, for a ref of this release."""
        by_prompt = {row.prompt: row for row in self.prompts}
        if ref.endswith(".canary") and self.canary is not None:
            by_prompt |= {row.prompt: row for row in self.canary.prompts}
        return by_prompt


class CanaryShare(Protocol):
    """The fields by which tasks and people are shared out (see `Canary`)."""

    @property
    def percent(self) -> int: ...
    @property
    def sticky_by(self) -> StickyBy: ...
    @property
    def began(self) -> int: ...


def choose_side(ref: str, name: str, canary: CanaryShare | None, task: str, person: str) -> str:
    """The release of this ref, or its canary, for a task of a person; the same for the same. name: of what it is a
    release of."""
    if canary is None:
        return ref
    key = task if canary.sticky_by == "task" else person
    # Not by the release's own number: who is in the canary stays there when its share grows.
    digest = hashlib.blake2b(f"{name}/{canary.began}/{key}".encode(), digest_size=8, person=b"bulkhead-canary").digest()
    return f"{ref}.canary" if int.from_bytes(digest, "big") % 10_000 < canary.percent * 100 else ref


def version_name(prompt: str, number: int) -> str:
    """Name of a tenant's version; a shipped one has no `r`."""
    return f"{prompt}@r{number}"


class PromptPublishRequested(Body, type="mesh.prompt.publish_requested"):
    """A person makes a version (rpc). act: by which it is signed and known when it comes again; token: the signer's,
    over `act_sha256`."""

    act: Token
    prompt: PromptId
    content: PromptContent
    based_on: Summary = ""
    owner: Name
    note: Annotated[str, StringConstraints(min_length=1, max_length=bounds.MAX_REASON_CHARS)]
    review_by: Annotated[ReviewDate, Field(exclude_if=operator.not_)] = ""
    token: Annotated[str, Field(max_length=bounds.MAX_GRANT_TOKEN_BYTES)] = ""

    @property
    def act_sha256(self) -> str:
        """Digest of all that the person asks for."""
        return canonical_sha256(self.model_dump(mode="json", exclude={"token"}))


class PromptPublishReplied(Body, type="mesh.prompt.publish_replied"):
    """The version, or why there is none."""

    version: PromptVersion | None = None
    failure: Failure | None = None


class ReleaseChange(Contract):
    """One prompt of a move. number: of the version; 0 for the shipped one."""

    prompt: PromptId
    number: Count
    values: Annotated[dict[Name, Summary], Field(max_length=bounds.MAX_PROMPT_VARIABLES, exclude_if=operator.not_)] = {}


class ReleaseMoveRequested(Body, type="mesh.prompt.release_move_requested"):
    """A person moves a label (rpc): to other versions, to a canary of them, or back to an earlier release.

    after: number of the release that the person saw; another one now is refused. percent: 0 for everybody, else the
    share of the canary that gets `changes`; without changes the canary that stands gets this share. restore: number of
    an earlier release, whose prompts stand again. end_canary: the release stays as it is, its canary goes; with
    `promote` everybody gets the canary's versions. break_glass: without the statements that the label's gate asks for.
    """

    act: Token
    label: ReleaseLabel
    after: Count
    changes: Annotated[tuple[ReleaseChange, ...], Field(max_length=bounds.MAX_RELEASED_PROMPTS)] = ()
    percent: Annotated[int, Field(ge=0, le=50)] = 0
    sticky_by: StickyBy = "task"
    restore: Count = 0
    end_canary: Literal["", "drop", "promote"] = ""
    break_glass: Annotated[bool, Field(exclude_if=operator.not_)] = False
    reason: Annotated[str, StringConstraints(min_length=1, max_length=bounds.MAX_REASON_CHARS)]
    token: Annotated[str, Field(max_length=bounds.MAX_GRANT_TOKEN_BYTES)] = ""

    @property
    def act_sha256(self) -> str:
        """Digest of all that the person asks for."""
        return canonical_sha256(self.model_dump(mode="json", exclude={"token"}))


class ReleaseMoveReplied(Body, type="mesh.prompt.release_move_replied"):
    """The release that the label stands for now, or why it was not moved."""

    release: PromptRelease | None = None
    failure: Failure | None = None


class PromptSummary(Contract):
    """A prompt that a tenant can change. shipped: its newest shipped version, `worker.step@1`, with its digest.

    newest: number of the tenant's newest version, 0 without any; person, published_unix_ms and the beginning of note
    and review_by are that version's. used: number that a label uses, of labels that use one of the tenant's.
    """

    prompt: PromptId
    shipped: Summary
    shipped_sha256: Sha256 | Literal[""] = ""
    description: Summary = ""
    owner: Summary = ""
    newest: Count = 0
    review_by: Annotated[ReviewDate, Field(exclude_if=operator.not_)] = ""
    person: Summary = ""
    note: Summary = ""
    published_unix_ms: UnixMs = 0
    used: Annotated[dict[ReleaseLabel, Count], Field(max_length=bounds.MAX_RELEASE_LABELS)] = {}


class PromptsRequested(Body, type="mesh.prompt.prompts_requested"):
    """Question which prompts a tenant can change, and for the versions of one (rpc). prompt: "" for all, without
    versions. before: versions older than this number, 0 for the newest. version: this one alone, shipped or the
    tenant's; release: with the values that this release sets."""

    requester: RequesterClaim
    prompt: PromptId | Literal[""] = ""
    before: Count = 0
    version: Annotated[VersionMark | Literal[""], Field(exclude_if=operator.not_)] = ""
    release: Annotated[ReleaseRef, Field(exclude_if=operator.not_)] = ""


class PromptsReplied(Body, type="mesh.prompt.prompts_replied"):
    """Prompts by name; versions, the newest first, of the one that was asked for, and its shipped text. more: whether
    there are older ones. To a question for one version: that version, or the text of that shipped one; values: those
    that the release sets."""

    prompts: Annotated[tuple[PromptSummary, ...], Field(max_length=bounds.MAX_PROMPTS)] = ()
    versions: Annotated[tuple[PromptVersion, ...], Field(max_length=bounds.MAX_PROMPT_PAGE)] = ()
    shipped_text: Annotated[str, Field(max_length=bounds.MAX_PROMPT_CHARS)] = ""
    shipped_sha256: Sha256 | Literal[""] = ""
    more: bool = False
    values: Annotated[dict[Name, Summary], Field(max_length=bounds.MAX_PROMPT_VARIABLES, exclude_if=operator.not_)] = {}
    failure: Failure | None = None


class ReleasesRequested(Body, type="mesh.prompt.releases_requested"):
    """Releases of a tenant's labels (rpc): of each label the newest, of one label all. before: as in
    PromptsRequested."""

    requester: RequesterClaim
    label: ReleaseLabel | Literal[""] = ""
    before: Count = 0


class DriftAlarm(Contract):
    """Something about a feature's tasks moved away from what it was. signal: what moved. before: the average of earlier
    tasks. after: that of the last ones. task: that showed it. raised_unix_ms: end of that task, in milliseconds since
    1970 (UTC)."""

    feature: Tag = ""
    signal: Literal["not_answered", "refused", "citations", "length", "cost"]
    before: Annotated[float, Field(ge=0)]
    after: Annotated[float, Field(ge=0)]
    task: Token
    raised_unix_ms: UnixMs


class ReleasesReplied(Body, type="mesh.prompt.releases_replied"):
    """Releases, the newest first. canaries: of the labels that were asked for, as they stand now. drifts: alarms of the
    last day. gate: of the label that was asked for."""

    releases: Annotated[tuple[PromptRelease, ...], Field(max_length=bounds.MAX_RELEASE_PAGE)] = ()
    more: bool = False
    canaries: Annotated[
        tuple[CanaryWatch, ...], Field(max_length=bounds.MAX_RELEASE_LABELS, exclude_if=operator.not_)
    ] = ()
    drifts: Annotated[tuple[DriftAlarm, ...], Field(max_length=bounds.MAX_DRIFT_ALARMS, exclude_if=operator.not_)] = ()
    gate: Annotated[GatePolicy | None, Field(exclude_if=operator.not_)] = None
    failure: Failure | None = None


def _refers_outside(schema: Any) -> bool:
    """True when a schema takes a part of it from elsewhere."""
    if isinstance(schema, dict):
        reference = schema.get("$ref", "#")
        return (isinstance(reference, str) and not reference.startswith("#")) or any(
            map(_refers_outside, schema.values())
        )
    return isinstance(schema, list) and any(map(_refers_outside, schema))


def canonical_sha256(document: Any) -> str:
    """Digest of a document in canonical form."""
    return hashlib.sha256(
        json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()
