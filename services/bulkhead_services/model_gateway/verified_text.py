"""Live text under a tenant's output policy: whole, sentence by sentence as each one's source is found, or none.

In: pieces of a model's text. Out: the pieces that may leave. The checker decides again over the whole answer;
what leaves here early only has to be right by itself.
"""

from bulkhead.grounding.align import ground
from bulkhead.grounding.rules import leaves, ruled, shown
from bulkhead.grounding.sentences import sentences, with_plain_markers
from bulkhead.grounding.sources import Source, SourceKind, Sources
from bulkhead.runtime.doer.protocol import Hands, Job
from bulkhead_contracts import bounds
from bulkhead_contracts.model import TEXT, AnswerPart, ModelCallRequested, Part
from bulkhead_contracts.output import OutputPolicy
from bulkhead_services.model_gateway.effects import LiveText, read_contents
from bulkhead_services.model_gateway.providers.port import OnText
from bulkhead_services.model_gateway.replies.thinking import LiveFilter

_KINDS: dict[str, SourceKind] = {"passage": "passage", "tool_result": "tool_result", "input": "input"}


def live_text(job: Job[ModelCallRequested], hands: Hands) -> OnText:
    """Where a call's text goes while it comes."""
    policy = job.request.output
    if policy is None or policy == OutputPolicy(unverified=policy.unverified, require_citation=policy.require_citation):
        return LiveText(job, hands)
    # Of topics the judge alone knows.
    return _nothing if policy.delivery == "held" or policy.topics else VerifiedText(job, hands, policy)


async def _nothing(text: str, part: AnswerPart = TEXT) -> None:
    """Under `held` nothing leaves before the checker has accepted it."""


class VerifiedText:
    """Publishes each sentence when it is whole and may leave, with its markers."""

    def __init__(self, job: Job[ModelCallRequested], hands: Hands, policy: OutputPolicy) -> None:
        self._job, self._hands, self._policy = job, hands, policy
        self._live = LiveText(job, hands, verified=policy.delivery == "verified")
        self._sources: Sources | None = None
        self._open, self._size, self._next = "", 0, 0
        self._shown = LiveFilter()

    async def __call__(self, text: str, part: AnswerPart = TEXT) -> None:
        """Take a piece of the text; what is whole by now is checked and published."""
        if part != TEXT:
            return
        self._size += len(text)
        if self._size > bounds.MAX_ANSWER_CHARS:
            return
        # Thinking is left out first: of a sentence that is cut, the tag would be lost that hides the next ones.
        self._open += self._shown.feed(text)
        if len(self._open) < self._next:
            return
        # The last sentence may go on; a blank line or the next sentence ends it.
        whole = sentences(self._open)[:-1]
        # A sentence without an end is looked at again when it has grown by an eighth: not once for each piece.
        self._next = 0 if whole else len(self._open) + len(self._open) // 8
        if not whole:
            return
        said, self._open = self._open[: whole[-1].end], self._open[whole[-1].end :]
        if self._sources is None:
            self._sources = await _sources(self._job, self._hands)
        plain = with_plain_markers(said, frozenset(self._sources.by_marker))
        rows = ruled(ground(plain, self._sources), self._policy)
        if any(leaves(row, self._policy) for row in rows):
            await self._live(shown(plain, rows, self._policy).strip() + "\n")


async def _sources(job: Job[ModelCallRequested], hands: Hands) -> Sources:
    """What the text may rest on: the parts of the call and the answers of its tools."""
    request = job.request
    texts, _ = await read_contents(job, hands)
    answers = (part for turn in request.turns for answer in turn.answers for part in answer.parts)
    found = [
        Source(part.content.marker, texts.get(part.content.sha256, ""), _KINDS[part.kind], part.source)
        for part in (*request.parts, *answers)
        if part.content is not None and part.kind in _KINDS
    ]
    given = (_text(part, texts) for part in request.parts if part.kind in ("objective", "step"))
    return Sources(found, "\n".join(given))


def _text(part: Part, texts: dict[str, str]) -> str:
    return texts.get(part.content.sha256, "") if part.content is not None else part.text
