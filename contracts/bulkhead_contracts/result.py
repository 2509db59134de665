"""Results: content, completeness, provenance and standing."""

import hashlib
import operator
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field

from bulkhead_contracts import bounds

from .types import Contract, Count, Marker, MediaType, Name, Reason, Sha256, Summary, Token, TokenCount, UsdMicros

Standing = Literal["ok", "degraded", "failed"]
Answered = Literal["yes", "partly", "no"]
Trust = Literal["system", "user", "untrusted"]
LabelKind = Literal["objective", "document", "passage", "tool_result", "model_reply", "step_result"]


REFERENCES = "application/vnd.bulkhead.references+json"
EMBEDDINGS = "application/vnd.bulkhead.embeddings+json"
"""Media type of a list of contents of the same author: a JSON array of [sha256, size in bytes]."""


EVIDENCE_AUTHORS = frozenset({"rag", "tool_executor"})
"""Services whose contents count as evidence, in whoever's message: all of theirs are blobs, whose author the broker
enforces."""


class ContentRef(Contract):
    """A content by digest: a blob, `blob.<author>.<tenant>.<sha256>`, or a text that stands here whole.

    text: of a judge's answer, which nobody but its asker reads, where it is longer than a summary.
    """

    author: Token
    sha256: Sha256
    size_bytes: Count
    media_type: MediaType = "text/plain"
    summary: Summary = ""
    text: Annotated[str, Field(max_length=bounds.MAX_CARRIED_CHARS, exclude_if=operator.not_)] = ""

    @property
    def marker(self) -> str:
        """The 12 hex digits by which texts cite this content."""
        return self.sha256[:12]

    @property
    def carried_text(self) -> str | None:
        """The content where it stands here, which its digest proves: no blob holds it then. None: it is a blob."""
        text = self.text or self.summary
        is_whole = self.author not in EVIDENCE_AUTHORS and digest_of(text) == self.sha256
        return text if is_whole else None


class Omission(Contract):
    """One thing that is missing from a result, and why. refused: a person or policy did not let that part be done, or
    nobody let it in time; nothing has failed."""

    reason: Literal["truncated", "pruned", "summarised", "failed_part"]
    what: Summary
    detail: Reason = ""
    refused: Annotated[bool, Field(exclude_if=operator.not_)] = False


class Completeness(Contract):
    """`complete`, or what was left out. Two are merged by joining their omissions."""

    complete: bool = True
    omissions: Annotated[tuple[Omission, ...], Field(max_length=bounds.MAX_OMISSIONS)] = ()

    @classmethod
    def with_omissions(cls, *omissions: Omission) -> Self:
        """Incomplete by these omissions."""
        return cls(complete=False, omissions=omissions[: bounds.MAX_OMISSIONS])


def digest_of(text: str) -> str:
    """The digest by which a label or a content names a text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


class Label(Contract):
    """Provenance of one input: its digest, its kind, how far it can be trusted, its readers.

    `signature` is the observer's Ed25519 signature (base64url) over tenant, task and the other fields in RFC 8785 form:
    it says nothing of another task. Without it the label counts as untrusted, whatever it says. step_id: of a tool's
    result, under whose step's grant it was called; "" on older ones. signed_by: the gateway, of what a fork takes over:
    it looked at the observer's signature, which was for the earlier task. carries: of a tool's result, the sources that
    had been shown to whoever wrote what it was read from. partial: not all of the result is there.
    """

    sha256: Sha256
    kind: LabelKind
    source: Summary = ""
    trust: Trust = "untrusted"
    observed_by: Token
    step_id: Annotated[str, Field(max_length=64, exclude_if=operator.not_)] = ""
    signed_by: Annotated[Literal["", "gateway"], Field(exclude_if=operator.not_)] = ""
    carries: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_CARRIED_SOURCES, exclude_if=operator.not_)] = ()
    partial: Annotated[bool, Field(exclude_if=operator.not_)] = False
    signature: Annotated[str, Field(max_length=128)] = ""


class Citation(Contract):
    """Which characters of which document stand behind a marker in the text."""

    marker: Marker
    document: Name
    document_sha256: Sha256
    chunk_id: Name
    start: Count
    end: Count


class Usage(Contract):
    """Consumption. Accounting shows sums of these. cached_calls: model calls that the response cache answered; they
    are no model_calls, and cost nothing. reasoning_tokens: the part of output_tokens that providers say was thinking.

    The other classes are parts of input_tokens and output_tokens too, as far as providers tell them: each has its own
    price. cache_write_1h_tokens: of cache_write_tokens, those that are kept for an hour and not for minutes;
    cached_audio_tokens: of input_audio_tokens, those that were read from the cache.

    estimated_tokens, estimated_usd_micros: the part of the tokens (input and output) and of the cost that the provider
    did not tell: it is an estimate.
    """

    model_calls: Count = 0
    tool_calls: Count = 0
    retrievals: Count = 0
    input_tokens: TokenCount = 0
    output_tokens: TokenCount = 0
    cached_input_tokens: TokenCount = 0
    reasoning_tokens: Annotated[TokenCount, Field(exclude_if=operator.not_)] = 0
    cache_write_tokens: Annotated[TokenCount, Field(exclude_if=operator.not_)] = 0
    cache_write_1h_tokens: Annotated[TokenCount, Field(exclude_if=operator.not_)] = 0
    input_audio_tokens: Annotated[TokenCount, Field(exclude_if=operator.not_)] = 0
    cached_audio_tokens: Annotated[TokenCount, Field(exclude_if=operator.not_)] = 0
    input_image_tokens: Annotated[TokenCount, Field(exclude_if=operator.not_)] = 0
    output_audio_tokens: Annotated[TokenCount, Field(exclude_if=operator.not_)] = 0
    output_image_tokens: Annotated[TokenCount, Field(exclude_if=operator.not_)] = 0
    cached_calls: Annotated[Count, Field(exclude_if=operator.not_)] = 0
    cost_usd_micros: UsdMicros = 0
    estimated_tokens: Annotated[TokenCount, Field(exclude_if=operator.not_)] = 0
    estimated_usd_micros: Annotated[UsdMicros, Field(exclude_if=operator.not_)] = 0

    def __add__(self, other: "Usage") -> "Usage":
        if not any(other.__dict__.values()):
            return self
        sums = {name: amount + other.__dict__[name] for name, amount in self.__dict__.items()}
        # A provider may tell any figure: a sum beyond what is counted stays at its bound, and ends nobody's work.
        return Usage(**{name: min(amount, _MOST.get(name, amount)) for name, amount in sums.items()})

    def as_estimate(self) -> "Usage":
        """The same usage, all of it estimated."""
        tokens = self.input_tokens + self.output_tokens
        return self.model_copy(update={"estimated_tokens": tokens, "estimated_usd_micros": self.cost_usd_micros})


_MOST = {name: bounds.MAX_TOKENS for name in Usage.model_fields if name.endswith("_tokens")}
_MOST |= {name: bounds.MAX_COST_USD_MICROS for name in Usage.model_fields if name.endswith("_usd_micros")}
"""Largest values of the fields of a Usage."""


class Failure(Contract):
    """An expected failure as a value: a code for programs, what happened and what to do for people."""

    code: Name
    message: Reason
    hint: Reason = ""

    @classmethod
    def from_text(cls, code: str, message: str, hint: str = "") -> Self:
        """A failure whose words are cut to their bounds: they quote models, tools and people."""
        return cls(code=code, message=message[: bounds.MAX_REASON_CHARS], hint=hint[: bounds.MAX_REASON_CHARS])


class Result(Contract):
    """A result never travels bare: content, standing, completeness, provenance, citations.

    answered: whether it gives what was asked for, and why not (`bulkhead.flow.answered`); None while that is not known.
    """

    content: ContentRef | None = None
    summary: Summary = ""
    standing: Standing = "ok"
    standing_reason: Reason = ""
    completeness: Completeness = Completeness()
    provenance: Annotated[tuple[Label, ...], Field(max_length=bounds.MAX_LABELS)] = ()
    citations: Annotated[tuple[Citation, ...], Field(max_length=bounds.MAX_CITATIONS)] = ()
    answered: Annotated[Answered | None, Field(exclude_if=operator.not_)] = None
    answered_reason: Annotated[Reason, Field(exclude_if=operator.not_)] = ""


_ORDER = {"ok": 0, "degraded": 1, "failed": 2}


def worst_standing(*standings: Standing) -> Standing:
    """The worst of several standings; `ok` of none."""
    return max(standings, key=_ORDER.__getitem__, default="ok")


def merge_completeness(*parts: Completeness) -> Completeness:
    """Completeness of anything built on all of `parts`."""
    omissions: list[Omission] = []
    for part in parts:
        omissions.extend(omission for omission in part.omissions if omission not in omissions)
    return Completeness(
        complete=all(part.complete for part in parts), omissions=tuple(omissions[: bounds.MAX_OMISSIONS])
    )


def merge_labels(*groups: tuple[Label, ...]) -> tuple[Label, ...]:
    """Union of labels in first-seen order, one per (digest, kind)."""
    labels: dict[tuple[str, str], Label] = {}
    for group in groups:
        for label in group:
            labels.setdefault((label.sha256, label.kind), label)
    return tuple(labels.values())[: bounds.MAX_LABELS]


def merge_citations(*groups: tuple[Citation, ...]) -> tuple[Citation, ...]:
    """Union of citations in first-seen order, one per marker and document."""
    citations: dict[tuple[str, str], Citation] = {}
    for group in groups:
        for citation in group:
            citations.setdefault((citation.marker, citation.document_sha256), citation)
    return tuple(citations.values())[: bounds.MAX_CITATIONS]


def cut_completeness(
    labels: Sequence[tuple[Label, ...]], citations: Sequence[tuple[Citation, ...]] = ()
) -> Completeness:
    """Omissions for labels and citations of these groups that `merge_labels` and `merge_citations` leave out."""
    many_labels = len({(label.sha256, label.kind) for group in labels for label in group}) > bounds.MAX_LABELS
    many_citations = len({(row.marker, row.document_sha256) for group in citations for row in group})
    cuts = (
        (many_labels, f"labels of provenance beyond {bounds.MAX_LABELS}"),
        (many_citations > bounds.MAX_CITATIONS, f"citations beyond {bounds.MAX_CITATIONS}"),
    )
    omissions = [Omission(reason="pruned", what=missing_part) for is_cut, missing_part in cuts if is_cut]
    return Completeness.with_omissions(*omissions) if omissions else Completeness()
