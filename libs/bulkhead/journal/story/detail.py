"""One call with everything that was put into it and came of it. Pure.

In: the task's entries, the call's id, the contents that could be read. Out: a `CallDetail`, and its text for people.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bulkhead.journal.history import JournalEntry, Replied, Requested, each_fact
from bulkhead.journal.story.calls import find_calls
from bulkhead.journal.story.model import Attempt, CallDetail, Given
from bulkhead.journal.story.redact import call_without_content
from bulkhead.journal.story.sources import cited_sources, find_sources
from bulkhead.text.amounts import format_cost, format_duration, format_time, format_tokens
from bulkhead.text.plain_text import escape_controls, one_line
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested, Part
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested

MAX_CONTENTS = 256
MAX_TEXT_CHARS = 64 * 1024
MAX_ALL_CHARS = 512 * 1024
"""Of all texts of one detail."""
GONE = "its content has expired or was removed"


@dataclass(slots=True)
class _TextBudget:
    """Gives out texts as long as there is room."""

    texts: Mapping[str, str]
    room: int

    def read_content(self, ref: ContentRef) -> tuple[str, str]:
        """The text of a reference, and a note where it is not whole."""
        full_text = self.texts.get(ref.sha256)
        if full_text is None:
            return ref.summary, GONE
        return self.cut_to_room(full_text)

    def cut_to_room(self, whole: str) -> tuple[str, str]:
        """The part of a text for which there is room."""
        most = min(MAX_TEXT_CHARS, max(0, self.room))
        self.room -= min(len(whole), most)
        return whole[:most], f"cut: it has {len(whole):,} characters" if len(whole) > most else ""


def call_contents(entries: Sequence[JournalEntry], call_id: str) -> list[ContentRef]:
    """Contents of a call: what came of it first."""
    request, reply = _request_and_reply(each_fact(entries), call_id)
    refs = [reply.content] if isinstance(reply, ModelCallReplied | ToolCallReplied) and reply.content else []
    if isinstance(request, ModelCallRequested):
        refs += [ref for _, _, ref in _model_pieces(request) if isinstance(ref, ContentRef)]
    return list({ref.sha256: ref for ref in refs}.values())[:MAX_CONTENTS]


def build_detail(entries: Sequence[JournalEntry], call_id: str, texts: Mapping[str, str]) -> CallDetail | None:
    """The call; None where the task has none of this id."""
    facts = each_fact(entries)
    request, reply = _request_and_reply(facts, call_id)
    calls = find_calls(_facts_about(facts, call_id), texts)
    call = next((candidate for candidate in calls if candidate.call_id == call_id), None)
    if call is None or request is None:
        return None
    room, sources = _TextBudget(texts, MAX_ALL_CHARS), find_sources(facts, texts)
    call_detail = CallDetail(call, attempts=_settled_attempts(facts, call_id))
    if isinstance(reply, ModelCallReplied | ToolCallReplied) and reply.content is not None:
        answer, note = room.read_content(reply.content)
        call_detail = replace(call_detail, answer=answer, answer_note=note, sources=cited_sources(answer, sources))
    match request:
        case ToolCallRequested():
            call_detail = replace(call_detail, arguments=request.arguments_json)
        case ModelCallRequested():
            pieces = tuple(
                _build_piece(kind, source, content, room) for kind, source, content in _model_pieces(request)
            )
            call_detail = replace(
                call_detail, prompt_id=request.prompt_id, given=pieces, tools=tuple(tool.name for tool in request.tools)
            )
        case _:
            call_detail = replace(call_detail, arguments=request.query)
    match reply:
        case ModelCallReplied():
            tool_requests = "\n".join(f"{tool_call.name} {tool_call.arguments_json}" for tool_call in reply.tool_calls)
            answer = "\n".join(filter(None, (call_detail.answer, tool_requests)))
            names = (
                "prompt_id",
                "prompt_digest",
                "release",
                "price_digest",
                "provider",
                "model",
                "pinned",
                "fingerprint",
            )
            call_detail = replace(call_detail, answer=answer, **{name: getattr(reply, name) for name in names})
        case ToolCallReplied():
            call_detail = replace(call_detail, rule=reply.rule, approval_id=reply.approval_id)
        case RetrievalReplied():
            call_detail = replace(call_detail, sources=call.found)
    return call_detail


def _facts_about(facts: Sequence[JournalEntry], call_id: str) -> list[JournalEntry]:
    """The facts without those of other calls, except for the reply in which a model asked for this one."""
    of_calls = (Requested, Replied, CallDeferred, Settled)
    causes = {fact.cause for fact in facts if isinstance(fact.body, Requested) and fact.body.call_id == call_id}
    return [
        fact
        for fact in facts
        if not isinstance(fact.body, of_calls) or fact.body.call_id == call_id or fact.id in causes
    ]


def _request_and_reply(entries: Sequence[JournalEntry], call_id: str) -> tuple[Requested | None, Replied | None]:
    request = next(
        (entry.body for entry in entries if isinstance(entry.body, Requested) and entry.body.call_id == call_id), None
    )
    reply = next(
        (entry.body for entry in entries if isinstance(entry.body, Replied) and entry.body.call_id == call_id), None
    )
    return request, reply


def _settled_attempts(entries: Sequence[JournalEntry], call_id: str) -> tuple[Attempt, ...]:
    settled = [entry.body for entry in entries if isinstance(entry.body, Settled) and entry.body.call_id == call_id]
    once = {settlement.reservation_id: settlement for settlement in settled}
    return tuple(
        Attempt(settlement.usage, settlement.wall_ms, settlement.failed, settlement.estimated)
        for settlement in once.values()
    )


def _model_pieces(request: ModelCallRequested) -> Iterator[tuple[str, str, ContentRef | str]]:
    """kind, source and content of each piece, in the order in which the model has them."""
    for part in request.parts:
        yield _part_piece(part)
    for turn in request.turns:
        if turn.content is not None:
            yield "model_said", "", turn.content
        for tool_call in turn.tool_calls:
            yield "model_asked", tool_call.name, tool_call.arguments_json
        for answer in turn.answers:
            for part in answer.parts:
                yield _part_piece(part)
            if answer.error is not None:
                yield "call_failed", answer.tool_call_id, f"{answer.error.code}: {answer.error.message}"
    for part in request.latest:
        yield _part_piece(part)
    if request.conversation is not None:
        for message in request.conversation.messages:
            yield "message", "", message
        if request.conversation.options is not None:
            yield "options", "", request.conversation.options


def _part_piece(part: Part) -> tuple[str, str, ContentRef | str]:
    source = part.source or part.title or (f"step {part.step_id}" if part.step_id else "")
    return part.kind, source, part.content if part.content is not None else part.text


def _build_piece(kind: str, source: str, content: ContentRef | str, room: _TextBudget) -> Given:
    if isinstance(content, ContentRef):
        return Given(kind, source, content.sha256, *room.read_content(content))
    return Given(kind, source, "", *room.cut_to_room(content))


def without_texts(detail: CallDetail) -> CallDetail:
    """The call for those who may not read its texts."""
    # A digest of a short text can be guessed; a piece may stand under a title that a model made.
    pieces = tuple(replace(piece, source="", text="", sha256="") for piece in detail.given)
    bare_sources = tuple(replace(source, text="") for source in detail.sources)
    call = call_without_content(detail.call)
    return replace(
        detail, call=call, given=pieces, sources=bare_sources, arguments="", answer="", instruction="", content=False
    )


def render_detail(detail: CallDetail) -> str:
    """For people."""
    return "\n".join(escape_controls(one_line(line)) for line in _detail_lines(detail))


def _detail_lines(detail: CallDetail) -> Iterator[str]:
    call = detail.call
    yield f"{call.kind} call {call.call_id} of {call.by}" + (f" in step {call.step_id}" if call.step_id else "")
    took = f" after {format_duration(call.took_ms)}" if call.took_ms is not None else ""
    yield f"{call.name}, asked at {format_time(call.asked_unix_ms)}: {call.outcome}{took}"
    if detail.model:
        prompt = f"prompt {call.prompt_name if call.prompt else detail.prompt_id} {detail.prompt_digest[:12]}"
        yield f"{detail.provider} {detail.model} {detail.fingerprint}, {prompt}"
    yield from (
        f"{name}: {words}" for name, words in (("failed", call.failure), ("the model says why", call.why)) if words
    )
    for number, attempt in enumerate(detail.attempts, 1):
        used = format_tokens(attempt.usage.input_tokens + attempt.usage.output_tokens, attempt.usage.estimated_tokens)
        how = f"failed: {attempt.failed}" if attempt.failed else "answered"
        yield (
            f"attempt {number}: {how}, {format_duration(attempt.wall_ms)}, {used}, "
            f"{format_cost(attempt.usage.cost_usd_micros)}"
        )
    if call.waited_ms:
        yield f"waited {format_duration(call.waited_ms)} for {call.waited_for}"
    yield from (f"put off: {reason}" for reason in call.put_off)
    yield from (f"{name}: {words}" for name, words in (("rule", detail.rule), ("approval", call.approval)) if words)
    if detail.arguments:
        yield f"asked: {detail.arguments}"
    if detail.instruction or detail.instruction_note:
        yield f"--- instruction {call.prompt_name}{f' ({detail.instruction_note})' if detail.instruction_note else ''}"
        yield from (f"| {line}" for line in detail.instruction.splitlines())
    for piece in detail.given:
        yield f"--- given: {piece.kind} {piece.source} {f'({piece.note})' if piece.note else ''}".rstrip()
        yield from (f"| {line}" for line in piece.text.splitlines())
    if detail.answer:
        yield f"--- answer{f' ({detail.answer_note})' if detail.answer_note else ''}"
        yield from (f"| {line}" for line in detail.answer.splitlines())
    for source in detail.sources:
        yield f"source [#{source.marker}]: {source.kind.replace('_', ' ')} {source.name} {source.where}".rstrip()
    if not detail.content:
        yield "texts are left out: only an operator, or who submitted the task, may read them"
