"""One call with everything that was put into it and came of it. Pure.

In: the task's entries, the call's id, the contents that could be read. Out: a `CallDetail`, and its text for people.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bulkhead.amounts import clock, cost, seconds, tokens
from bulkhead.journal.history import Entry, each_fact
from bulkhead.journal.story.calls import Replied, Requested, calls
from bulkhead.journal.story.model import Call, Source
from bulkhead.journal.story.redact import call_without_content
from bulkhead.journal.story.sources import cited, sources
from bulkhead.plain_text import harmless, one_line
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested, Part
from bulkhead_contracts.result import ContentRef, Usage
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested

MAX_CONTENTS = 256
MAX_TEXT_CHARS = 64 * 1024
MAX_ALL_CHARS = 512 * 1024
"""Of all texts of one detail."""
GONE = "its content has expired or was removed"


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
    """prompt_id names the prompt's file and version, prompt_digest its text: the model gateway puts `given` into it.
    answer: a model's words, a tool's result. sources: what the answer cites, or a search found."""

    call: Call
    prompt_id: str = ""
    prompt_digest: str = ""
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


@dataclass(slots=True)
class _Texts:
    """Gives out texts as long as there is room."""

    texts: Mapping[str, str]
    room: int

    def of(self, ref: ContentRef) -> tuple[str, str]:
        """The text of a reference, and a note where it is not whole."""
        whole = self.texts.get(ref.sha256)
        if whole is None:
            return ref.summary, GONE
        return self.cut(whole)

    def cut(self, whole: str) -> tuple[str, str]:
        """As much of it as there is room for."""
        most = min(MAX_TEXT_CHARS, max(0, self.room))
        self.room -= min(len(whole), most)
        return whole[:most], f"cut: it has {len(whole):,} characters" if len(whole) > most else ""


def named(found: Sequence[Entry], call_id: str) -> list[ContentRef]:
    """Contents of a call: what came of it first."""
    request, reply = _pair(each_fact(found), call_id)
    refs = [reply.content] if isinstance(reply, ModelCallReplied | ToolCallReplied) and reply.content else []
    if isinstance(request, ModelCallRequested):
        refs += [ref for _, _, ref in _pieces(request) if isinstance(ref, ContentRef)]
    return list({ref.sha256: ref for ref in refs}.values())[:MAX_CONTENTS]


def detail(found: Sequence[Entry], call_id: str, texts: Mapping[str, str]) -> CallDetail | None:
    """The call; None where the task has none of this id."""
    told = each_fact(found)
    call = next((one for one in calls(told, texts) if one.call_id == call_id), None)
    request, reply = _pair(told, call_id)
    if call is None or request is None:
        return None
    room, known = _Texts(texts, MAX_ALL_CHARS), sources(told, texts)
    made = CallDetail(call, attempts=_attempts(told, call_id))
    if isinstance(reply, ModelCallReplied | ToolCallReplied) and reply.content is not None:
        answer, note = room.of(reply.content)
        made = replace(made, answer=answer, answer_note=note, sources=cited(answer, known))
    match request:
        case ToolCallRequested():
            made = replace(made, arguments=request.arguments_json)
        case ModelCallRequested():
            given = tuple(_given(kind, source, content, room) for kind, source, content in _pieces(request))
            made = replace(
                made, prompt_id=request.prompt_id, given=given, tools=tuple(one.name for one in request.tools)
            )
        case _:
            made = replace(made, arguments=request.query)
    match reply:
        case ModelCallReplied():
            asked = "\n".join(f"{one.name} {one.arguments_json}" for one in reply.tool_calls)
            answer = "\n".join(filter(None, (made.answer, asked)))
            names = ("prompt_id", "prompt_digest", "price_digest", "provider", "model", "pinned", "fingerprint")
            made = replace(made, answer=answer, **{name: getattr(reply, name) for name in names})
        case ToolCallReplied():
            made = replace(made, rule=reply.rule, approval_id=reply.approval_id)
        case RetrievalReplied():
            made = replace(made, sources=call.found)
    return made


def _pair(told: Sequence[Entry], call_id: str) -> tuple[Requested | None, Replied | None]:
    request = next((one.body for one in told if isinstance(one.body, Requested) and one.body.call_id == call_id), None)
    reply = next((one.body for one in told if isinstance(one.body, Replied) and one.body.call_id == call_id), None)
    return request, reply


def _attempts(told: Sequence[Entry], call_id: str) -> tuple[Attempt, ...]:
    settled = [one.body for one in told if isinstance(one.body, Settled) and one.body.call_id == call_id]
    once = {one.reservation_id: one for one in settled}
    return tuple(Attempt(one.usage, one.wall_ms, one.failed, one.estimated) for one in once.values())


def _pieces(request: ModelCallRequested) -> Iterator[tuple[str, str, ContentRef | str]]:
    """kind, source and content of each piece, in the order in which the model has them."""
    for part in request.parts:
        yield _piece(part)
    for turn in request.turns:
        if turn.content is not None:
            yield "model_said", "", turn.content
        for asked in turn.tool_calls:
            yield "model_asked", asked.name, asked.arguments_json
        for answer in turn.answers:
            for part in answer.parts:
                yield _piece(part)
            if answer.error is not None:
                yield "call_failed", answer.tool_call_id, f"{answer.error.code}: {answer.error.message}"
    for part in request.latest:
        yield _piece(part)
    if request.conversation is not None:
        for message in request.conversation.messages:
            yield "message", "", message
        if request.conversation.options is not None:
            yield "options", "", request.conversation.options


def _piece(part: Part) -> tuple[str, str, ContentRef | str]:
    source = part.source or part.title or (f"step {part.step_id}" if part.step_id else "")
    return part.kind, source, part.content if part.content is not None else part.text


def _given(kind: str, source: str, content: ContentRef | str, room: _Texts) -> Given:
    if isinstance(content, ContentRef):
        return Given(kind, source, content.sha256, *room.of(content))
    return Given(kind, source, "", *room.cut(content))


def bare(told: CallDetail) -> CallDetail:
    """The call for those who may not read its texts."""
    # A digest of a short text can be guessed; a piece may stand under a title that a model made.
    given = tuple(replace(one, source="", text="", sha256="") for one in told.given)
    found = tuple(replace(one, text="") for one in told.sources)
    call = call_without_content(told.call)
    return replace(told, call=call, given=given, sources=found, arguments="", answer="", content=False)


def text(told: CallDetail) -> str:
    """For people."""
    return "\n".join(harmless(one_line(line)) for line in _lines(told))


def _lines(told: CallDetail) -> Iterator[str]:
    call = told.call
    yield f"{call.kind} call {call.call_id} of {call.by}" + (f" in step {call.step_id}" if call.step_id else "")
    took = f" after {seconds(call.took_ms)}" if call.took_ms is not None else ""
    yield f"{call.name}, asked at {clock(call.asked_unix_ms)}: {call.outcome}{took}"
    if told.model:
        prompt = f"prompt {told.prompt_id} {told.prompt_digest[:12]}"
        yield f"{told.provider} {told.model} {told.fingerprint}, {prompt}"
    yield from (
        f"{name}: {said}" for name, said in (("failed", call.failure), ("the model says why", call.why)) if said
    )
    for number, one in enumerate(told.attempts, 1):
        used = tokens(one.usage.input_tokens + one.usage.output_tokens, one.usage.estimated_tokens)
        how = f"failed: {one.failed}" if one.failed else "answered"
        yield f"attempt {number}: {how}, {seconds(one.wall_ms)}, {used}, {cost(one.usage.cost_usd_micros)}"
    if call.waited_ms:
        yield f"waited {seconds(call.waited_ms)} for {call.waited_for}"
    yield from (f"put off: {why}" for why in call.put_off)
    yield from (f"{name}: {said}" for name, said in (("rule", told.rule), ("approval", call.approval)) if said)
    if told.arguments:
        yield f"asked: {told.arguments}"
    for piece in told.given:
        yield f"--- given: {piece.kind} {piece.source} {f'({piece.note})' if piece.note else ''}".rstrip()
        yield from (f"| {line}" for line in piece.text.splitlines())
    if told.answer:
        yield f"--- answer{f' ({told.answer_note})' if told.answer_note else ''}"
        yield from (f"| {line}" for line in told.answer.splitlines())
    for source in told.sources:
        yield f"source [#{source.marker}]: {source.kind.replace('_', ' ')} {source.name} {source.where}".rstrip()
    if not told.content:
        yield "texts are left out: only an operator, or who submitted the task, may read them"
