"""Live text, under a tenant's output policy: whole, sentence by sentence as each one's source is found, or none.

In: pieces of a model's text. Out: the pieces that may leave. The checker decides again over the whole answer;
what leaves here early only has to be right by itself.
"""

from collections import Counter

from bulkhead.bus.port import BusError
from bulkhead.grounding.align import ground_text
from bulkhead.grounding.rules import apply_rules, may_be_shown, render_answer
from bulkhead.grounding.sentences import split_sentences, with_plain_markers
from bulkhead.grounding.sources import GroundingSource, GroundingSources, SourceKind
from bulkhead.runtime.doer.protocol import Job, JobContext
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds
from bulkhead_contracts.model import TEXT, AnswerPart, ModelCallRequested, TextDelta
from bulkhead_contracts.output import OutputPolicy
from bulkhead_services.model_gateway.context.render import text_of
from bulkhead_services.model_gateway.effects import read_contents
from bulkhead_services.model_gateway.providers.port import OnText
from bulkhead_services.model_gateway.replies.thinking import LiveThinkingFilter

log = Log("model_gateway")
_KINDS: dict[str, SourceKind] = {"passage": "passage", "tool_result": "tool_result", "input": "input"}


def live_publisher(job: Job[ModelCallRequested], hands: JobContext) -> OnText:
    """Listener that publishes a call's text while it comes, as far as its output policy allows."""
    policy = job.request.output
    if policy is None or policy == OutputPolicy(unverified=policy.unverified, require_citation=policy.require_citation):
        return LiveTextPublisher(job, hands)
    # Of topics the judge alone knows.
    return _publish_nothing if policy.delivery == "held" or policy.topics else VerifiedTextPublisher(job, hands, policy)


class LiveTextPublisher:
    """Publishes an answer as it comes; each attempt begins at offset 0 again, which replaces what was shown."""

    def __init__(self, job: Job[ModelCallRequested], hands: JobContext, *, verified: bool = False) -> None:
        self._job, self._hands, self._verified = job, hands, verified
        self._offsets = Counter[AnswerPart]()
        # What an outside agent is shown must be the record's text, letter for letter.
        self._shown = None if job.request.conversation is not None else LiveThinkingFilter()

    async def __call__(self, text: str, part: AnswerPart = TEXT) -> None:
        """Publish a piece. Live text is lossy by design: the answer itself does not depend on it."""
        request = self._job.request
        if not request.stream:
            return
        text = self._shown.feed(text) if self._shown is not None else text
        for start in range(0, len(text), bounds.MAX_ANSWER_CHARS):
            piece = text[start : start + bounds.MAX_ANSWER_CHARS]
            call_id, step_id, attempt = request.call_id, request.step_id, request.attempt
            delta = TextDelta(
                call_id=call_id,
                step_id=step_id,
                attempt=attempt,
                offset=self._offsets[part],
                text=piece if part == TEXT else "",
                verified=self._verified,
                part=part,
                part_text="" if part == TEXT else piece,
            )
            self._offsets[part] += len(piece)
            try:
                await self._hands.publish_live(self._job, delta)
            except BusError as error:
                log.debug("live_text_lost", call=request.call_id, reason=str(error))


async def _publish_nothing(text: str, part: AnswerPart = TEXT) -> None:
    """Under `held` nothing leaves before the checker has accepted it."""


class VerifiedTextPublisher:
    """Publishes each sentence when it is whole and may leave, with its markers."""

    def __init__(self, job: Job[ModelCallRequested], hands: JobContext, policy: OutputPolicy) -> None:
        self._job, self._hands, self._policy = job, hands, policy
        self._live = LiveTextPublisher(job, hands, verified=policy.delivery == "verified")
        self._sources: GroundingSources | None = None
        self._open, self._size, self._next = "", 0, 0
        self._shown = LiveThinkingFilter()

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
        whole_sentences = split_sentences(self._open)[:-1]
        # A sentence without an end is looked at again when it has grown by an eighth: not once for each piece.
        self._next = 0 if whole_sentences else len(self._open) + len(self._open) // 8
        if not whole_sentences:
            return
        ready_text, self._open = self._open[: whole_sentences[-1].end], self._open[whole_sentences[-1].end :]
        if self._sources is None:
            self._sources = await _grounding_sources(self._job, self._hands)
        plain = with_plain_markers(ready_text, frozenset(self._sources.by_marker))
        rows = apply_rules(ground_text(plain, self._sources), self._policy)
        if any(may_be_shown(row, self._policy) for row in rows):
            await self._live(render_answer(plain, rows, self._policy).strip() + "\n")


async def _grounding_sources(job: Job[ModelCallRequested], hands: JobContext) -> GroundingSources:
    """Sources that the text may rest on: parts of the call, and answers of its tools."""
    request = job.request
    texts, _ = await read_contents(job, hands)
    answers = (part for turn in request.turns for answer in turn.answers for part in answer.parts)
    part_sources = [
        GroundingSource(part.content.marker, texts.get(part.content.sha256, ""), _KINDS[part.kind], part.source)
        for part in (*request.parts, *answers)
        if part.content is not None and part.kind in _KINDS
    ]
    requester_texts = (text_of(part, texts) for part in request.parts if part.kind in ("objective", "step"))
    return GroundingSources(part_sources, "\n".join(requester_texts))
