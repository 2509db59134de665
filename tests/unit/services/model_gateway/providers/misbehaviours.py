"""Ways in which a provider misbehaves, by name, for every wire form that knows them; and what each must come to.

Enters: a vendor's dialect. Leaves: scripts for the scripted provider; the fault, the charge, the pause.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bulkhead_contracts import bounds
from bulkhead_services.model_gateway.providers.fields import read_object
from bulkhead_services.model_gateway.providers.forms import FORMS, Api
from bulkhead_services.model_gateway.providers.port import ModelAnswer, ProviderFault
from tests.unit.services.model_gateway.providers.dialects import Dialect, ErrorName, Json, Said
from tests.unit.services.model_gateway.scripted_provider import Exchange, Script

Owed = Literal["nothing", "told", "estimate"]
Play = Callable[[Dialect], Script]
Headers = Mapping[str, str]
NONE: Headers = {}
OTHERS: tuple[Api, ...] = ("anthropic", "gemini")
OPENAI: tuple[Api, ...] = ("openai-chat", "openai-responses", "azure-openai")
CHAT: tuple[Api, ...] = ("openai-chat", "azure-openai", "ollama")
WHOLE = Said("The answer is 42.")
EARLIER = "c_earlier"
"""Id of a call of an earlier turn."""
DRIP_S = 0.03


@dataclass(frozen=True)
class Case:
    """One misbehaviour. code: of the fault; "" where an answer comes of it all the same, of which `holds` is true.

    only: the wire forms that know it. wait_s: what the provider asks to wait. waits: the clocks decide, and run short.
    """

    name: str
    play: Play
    code: str
    owed: Owed
    retryable: bool = False
    wait_s: float | None = None
    holds: Callable[[ModelAnswer], object] = lambda answer: True
    only: tuple[Api, ...] = tuple(FORMS)
    waits: bool = False


def owed(said: ModelAnswer | ProviderFault) -> Owed:
    """How an attempt is charged (attempts.py): what was told, nothing, or the reservation as an estimate."""
    if said.usage is not None:
        return "told"
    return "nothing" if isinstance(said, ProviderFault) and not said.consumed else "estimate"


# Plays


def says(said: Said, *, without: int = 0, closed: bool = True, then: Play | None = None) -> Play:
    """A stream. without: of how many last events. closed: with its last line. then: what follows in the end's place."""

    def play(dialect: Dialect) -> Script:
        events = dialect.stream(said)
        return _stream(dialect, events[: len(events) - without], closed=closed and not without, then=then)

    return play


def half(then: Play | None = None, tail: Callable[[Dialect], bytes] = lambda dialect: b"") -> Play:
    """The first half of a stream, then some bytes, then something else."""

    def play(dialect: Dialect) -> Script:
        events = dialect.stream(Said("Half of an answer", end="length"))
        kept = events[: next(at for at, event in enumerate(events) if "Half of" in str(event)) + 1]
        return _stream(dialect, kept, closed=False, tail=tail(dialect), then=then)

    return play


def _stream(
    dialect: Dialect, events: list[Json], *, closed: bool, tail: bytes = b"", then: Play | None = None
) -> Script:
    async def script(x: Exchange) -> None:
        await x.begin()
        for event in events:
            await x.piece(dialect.frame(event))
        if extra := tail or (dialect.closing if closed else b""):
            await x.piece(extra)
        await (then(dialect)(x) if then else x.end())

    return script


def silent(dialect: Dialect) -> Script:
    async def script(x: Exchange) -> None:
        assert await x.hung_up(), "the client keeps a connection that it gave up"

    return script


def dropped(dialect: Dialect) -> Script:
    async def script(x: Exchange) -> None:
        x.drop()

    return script


def headers_begun(dialect: Dialect) -> Script:
    async def script(x: Exchange) -> None:
        await x.raw(b"HTTP/1.1 200 OK\r\ncontent-")
        await silent(dialect)(x)

    return script


def dripping(dialect: Dialect) -> Script:
    async def script(x: Exchange) -> None:
        await x.begin()
        for byte in b"".join(map(dialect.frame, dialect.stream(WHOLE))):
            await x.piece(bytes([byte]))
            await asyncio.sleep(DRIP_S)

    return script


def fails(name: ErrorName, message: str = "", details: Sequence[Json] = (), headers: Headers = NONE) -> Play:
    """An error in the vendor's words, with its status."""

    def play(dialect: Dialect) -> Script:
        async def script(x: Exchange) -> None:
            body = dialect.error(name, message)
            if details:
                body["error"]["details"] = [*details]
            await x.json(dialect.status(name), body, **headers)

        return script

    return play


def late(name: ErrorName) -> Play:
    """Half of an answer, then an error in the stream."""
    return half(tail=lambda dialect: dialect.frame(dialect.late_error(name)))


def body(status: int, content: bytes, kind: str = "application/json", **headers: str) -> Play:
    """A body that is the same for all."""

    def play(dialect: Dialect) -> Script:
        async def script(x: Exchange) -> None:
            await x.whole(status, content, kind, **headers)

        return script

    return play


def error_behind_200(dialect: Dialect) -> Script:
    async def script(x: Exchange) -> None:
        await x.json(200, dialect.error("server"))

    return script


def cut_body(dialect: Dialect) -> Script:
    async def script(x: Exchange) -> None:
        await x.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{")
        x.writer.close()

    return script


def called(*calls: tuple[str, str, str], **more: Any) -> Play:
    """An answer that makes calls."""
    return says(Said(calls=calls, end="tool_calls", **more))


def _begun_and(then: Play) -> Play:
    return lambda dialect: _stream(dialect, [], closed=False, then=then)


def _end_and(then: Play) -> Play:
    """A stream up to its end, but not to what still follows it."""
    return says(WHOLE, without=1, then=then)


def _junk(dialect: Dialect) -> Script:
    async def script(x: Exchange) -> None:
        await x.piece(b"data: {\n\n")
        await x.end()

    return script


def _with_noise(dialect: Dialect) -> Script:
    """Comments, fields and events that nobody knows, and every line cut from its end."""

    async def script(x: Exchange) -> None:
        await x.begin()
        for event in dialect.stream(WHOLE):
            for piece in (b": keep-alive\n\n", b"retry: 3\nid: 7\n", *_cut(dialect.frame(event)), b"data:\n\n"):
                await x.piece(piece)
        await x.piece(b'data: {"type": "news.of_tomorrow"}\n\n' + dialect.closing)
        await x.end()

    return script


def _cut(frame: bytes) -> list[bytes]:
    return [frame[:9], frame[9:-1], frame[-1:]]


def _one_index(dialect: Dialect) -> Script:
    return _indexed(dialect, 0)


def _no_index(dialect: Dialect) -> Script:
    return _indexed(dialect, None)


def _indexed(dialect: Dialect, index: int | None) -> Script:
    """Two calls, each told whole, with the same index or with none."""
    events = dialect.stream(Said(calls=(("c_1", "add", '""'), ("c_2", "add", '""')), end="tool_calls"))
    made = [event for event in events if "tool_calls" in str(event.get("choices"))]
    for event in made:
        for row in event["choices"][0]["delta"].get("tool_calls", ()):
            row["index"] = index
    return _stream(dialect, events, closed=True)


def _ends_with(reason: str) -> Play:
    def play(dialect: Dialect) -> Script:
        events = dialect.stream(Said())
        events[-1]["candidates"][0]["finishReason"] = reason
        return _stream(dialect, events, closed=True)

    return play


# What an answer is all the same


def _is_whole(answer: ModelAnswer) -> bool:
    return answer.text == WHOLE.text and answer.finish == "stop" and not answer.omissions


def _is_cut(answer: ModelAnswer) -> bool:
    return answer.text == "Half." and answer.finish in ("length", "") and bool(answer.omissions)


def _calls(name: str) -> Callable[[ModelAnswer], bool]:
    return lambda answer: [call.name for call in answer.calls] == [name] and answer.finish == "tool_calls"


def _no_object(answer: ModelAnswer) -> bool:
    return len(answer.calls) == 1 and read_object(answer.calls[0].arguments_json) is None


def _bounded(answer: ModelAnswer) -> bool:
    """Calls that can stand on the bus, none with the id of another or of an earlier turn."""
    ids = {call.id for call in answer.calls}
    return 0 < len(answer.calls) == len(ids) <= bounds.MAX_CALLS_PER_TURN and EARLIER not in ids


def _two(answer: ModelAnswer) -> bool:
    return [(call.id, call.name) for call in answer.calls] == [("c_1", "add"), ("c_2", "add")]


def _wordings(*pairs: tuple[Api, str]) -> tuple[tuple[Api, str], ...]:
    return pairs


def _always(content: bytes) -> Callable[[Dialect], bytes]:
    return lambda dialect: content


# The table

DATE, LATER = "Sun, 22 Nov 2026 10:00:00 GMT", "Sun, 22 Nov 2026 10:00:07 GMT"
RETRY_INFO: list[Json] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]
DAY_S = float(bounds.MAX_RETRY_AFTER_S)
WAITS: list[tuple[str, Headers, float | None]] = [
    ("seconds", {"retry_after": "7"}, 7.0),
    ("milliseconds", {"retry_after_ms": "250", "retry_after": "1"}, 0.25),
    ("date", {"retry_after": LATER, "date": DATE}, 7.0),
    ("past date", {"retry_after": DATE, "date": LATER}, 0.0),
    ("date without a clock", {"retry_after": LATER}, None),
    ("absurd length", {"retry_after": "1e30"}, DAY_S),
    ("negative", {"retry_after": "-5"}, 0.0),
    ("no number", {"retry_after": "soon"}, None),
    ("NaN", {"retry_after": "nan"}, None),
    ("absent", {}, None),
]
RATES = [
    *(
        Case(f"429, Retry-After: {name}", fails("rate_limit", headers=headers), "rate_limited", "nothing", True, wait)
        for name, headers, wait in WAITS
    ),
    Case("429, RetryInfo", fails("rate_limit", details=RETRY_INFO), "rate_limited", "nothing", True, 34.5),
    Case("429 in the stream", late("rate_limit"), "rate_limited", "estimate", True, only=(*OPENAI, *OTHERS)),
    Case("no credit", fails("credit"), "rate_limited", "nothing", only=(*OPENAI, "anthropic")),
]

HTML = b"<html><body>Bad gateway</body></html>"
STATUSES = [
    Case("500", fails("server"), "provider_error", "nothing", True),
    Case("500, Retry-After", fails("server", headers={"retry_after": "3"}), "provider_error", "nothing", True, 3.0),
    Case("502 with a page", body(502, HTML, "text/html"), "provider_error", "nothing", True),
    Case("504 without a body", body(504, b""), "provider_error", "estimate", True),
    Case("500 with half a body", body(500, b'{"error": {"mess'), "provider_error", "nothing", True),
    Case("overloaded", fails("overloaded"), "provider_error", "nothing", True),
    Case("overloaded in the stream", late("overloaded"), "error_body", "estimate", True),
    Case("error in the stream", late("server"), "error_body", "estimate", True),
    Case("wrong key", fails("key"), "provider_error", "nothing"),
    Case("wrong key in the stream", late("key"), "provider_error", "estimate", only=(*OPENAI, "anthropic")),
    Case("moved", body(308, b"", location="https://elsewhere.example/v1"), "provider_error", "nothing"),
    Case("unknown model", body(404, b'{"error": {"message": "no such model"}}'), "unknown_model", "nothing"),
    Case("refused request", fails("request"), "request_refused", "nothing"),
    Case("refused request in the stream", late("request"), "request_refused", "estimate"),
    Case("no error but status 418", body(418, b"[]"), "request_refused", "nothing"),
]

SILENCES = [
    Case("silent before the headers", silent, "timeout", "estimate", True, waits=True),
    Case("silent within the headers", headers_begun, "timeout", "estimate", True, waits=True),
    Case("silent before the first byte", _begun_and(silent), "timeout", "estimate", True, waits=True),
    Case("silent in the middle", half(then=silent), "timeout", "estimate", True, waits=True),
    Case("slow drip", dripping, "deadline_too_short", "estimate", True, waits=True),
    Case("silent past the end", _end_and(silent), "", "estimate", holds=_is_whole, only=CHAT, waits=True),
    Case("silent past the end", _end_and(silent), "", "told", holds=_is_whole, only=("anthropic",), waits=True),
    Case("closed past the end", _end_and(dropped), "", "estimate", holds=_is_whole, only=CHAT),
    Case("closed past the end", _end_and(dropped), "", "told", holds=_is_whole, only=("anthropic",)),
    Case("closed at once", dropped, "provider_error", "estimate", True),
    Case("closed before the first byte", _begun_and(dropped), "truncated_stream", "estimate", True),
    Case("closed in the middle", half(then=dropped), "truncated_stream", "estimate", True),
    Case("ended in the middle", half(), "truncated_stream", "estimate", True),
    Case("ended before the first byte", body(200, b"", "text/event-stream"), "truncated_stream", "estimate", True),
    Case("a body shorter than said", cut_body, "truncated_stream", "estimate", True),
]

DEEP = b'data: {"a":' + b'{"a":' * 50_000 + b"\n\n"
HUGE = b"data: {" + b" " * (bounds.MAX_PROVIDER_EVENT_BYTES + 10) + b"\n\n"
JUNK = [
    b'data: {"choices": [{"del\n\n',
    b"data: [1, 2]\n\n",
    b'data: {"a": "\xff\xfe\n\n',
    b"data: null\n\n",
    DEEP,
    HUGE,
]
BODIES = [
    *(
        Case(f"junk in the stream, {number}", half(tail=_always(junk)), "malformed_json", "estimate", True)
        for number, junk in enumerate(JUNK)
    ),
    Case("junk past the end", _end_and(_junk), "", "estimate", holds=_is_whole, only=CHAT),
    Case("lines of no meaning", _with_noise, "", "told", holds=_is_whole),
    Case("200 with an error", error_behind_200, "error_body", "estimate", True),
    Case("200 with a page", body(200, HTML, "text/html"), "malformed_json", "estimate", True),
    Case("200 with nothing", body(200, b""), "malformed_json", "estimate", True),
    Case("200 with half a body", body(200, b'{"id": "x", "cho'), "malformed_json", "estimate", True),
    Case("200 with something else", body(200, b'{"hello": "world"}'), "error_body", "estimate", True),
    Case("200, compressed", body(200, b"x", content_encoding="gzip"), "malformed_json", "estimate", True),
]

OVERFLOWS = [
    Case("context overflow", fails("overflow"), "context_overflow", "nothing"),
    Case("context overflow, 413", body(413, b'{"error": {}}'), "context_overflow", "nothing"),
    Case("context overflow in the stream", late("overflow"), "context_overflow", "nothing"),
    *(
        Case(f"context overflow, {said[:24]}", fails("request", said), "context_overflow", "nothing", only=(api,))
        for api, said in _wordings(
            ("anthropic", "input length and `max_tokens` exceed context limit: 199000 + 8000 > 200000"),
            ("openai-chat", "Please reduce the length of the messages or completion."),
            ("ollama", "the request exceeds the available context size, try increasing it"),
        )
    ),
]

REFUSALS = [
    Case("filtered prompt", fails("filter"), "content_filter", "nothing", only=(*OPENAI, "anthropic")),
    Case("filtered in the stream", late("filter"), "content_filter", "estimate", only=("openai-responses",)),
    Case("filtered answer", says(Said(end="filter")), "content_filter", "told", only=(*OPENAI, "gemini")),
    Case("filtered halfway", says(Said("Half.", end="filter")), "", "told", holds=_is_cut, only=(*OPENAI, "gemini")),
    Case("filtered answer", says(Said(end="filter")), "model_refused", "told", only=("anthropic",)),
    Case("refused", says(Said("I cannot help.", end="refusal")), "model_refused", "told", only=(*OPENAI, "anthropic")),
    Case("blocked prompt", says(Said(end="refusal")), "content_filter", "told", only=("gemini",)),
]

CALLS = [
    Case("invented tool", called(("c_1", "summon_oracle", '{"a": 1}')), "", "told", holds=_calls("summon_oracle")),
    Case("unreadable arguments", called(("c_1", "add", '{"a": ')), "", "told", holds=_no_object),
    Case("arguments that are a list", called(("c_1", "add", "[1, 2]")), "", "told", holds=_no_object),
    Case("a call without a name", called(("c_1", "", "{}")), "", "told", holds=_calls("")),
    Case("a name without end", called(("c_1", "add" * 999, "{}")), "", "told", holds=_bounded),
    Case("arguments without end", called(("c_1", "add", json.dumps({"a": "x" * 40_000}))), "", "told", holds=_bounded),
    Case("calls without end", called(*((f"c_{n}", "add", "{}") for n in range(40))), "", "told", holds=_bounded),
    Case("one id for all calls", called(*(("c_1", "add", "{}") for _ in range(4))), "", "told", holds=_bounded),
    Case("calls without an id", called(*(("", "add", "{}") for _ in range(4))), "", "told", holds=_bounded),
    Case("an id that is none", called(("functions.add:0 ", "add", "{}")), "", "told", holds=_bounded),
    Case("the id of an earlier turn", called((EARLIER, "add", "{}")), "", "told", holds=_bounded),
    Case(
        "no call that can be read",
        _ends_with("MALFORMED_FUNCTION_CALL"),
        "malformed_arguments",
        "told",
        True,
        only=("gemini",),
    ),
    Case("one index for all calls", _one_index, "", "told", holds=_two, only=CHAT),
    Case("calls without an index", _no_index, "", "told", holds=_two, only=CHAT),
]

JUNK_COUNTS: tuple[object, ...] = (0, -1, 1.5, True, [], {"n": 1})
USAGES = [
    Case("no usage", says(replace(WHOLE, counts=None)), "", "estimate", holds=_is_whole),
    *(
        Case(f"usage of {junk!r}", says(replace(WHOLE, junk_usage=junk)), "", "estimate", holds=_is_whole)
        for junk in JUNK_COUNTS
    ),
]

ENDS = [
    Case("nothing said", says(Said()), "", "told", holds=lambda answer: answer.text == "" and answer.finish == "stop"),
    Case("cut at its length", says(Said("Half.", end="length")), "", "told", holds=_is_cut),
    Case("an unknown end", says(Said("Half.", end="unknown")), "", "told", holds=_is_cut),
    Case("an unknown end of nothing", says(Said(end="unknown")), "error_body", "told", True),
]
CASES = [*RATES, *STATUSES, *SILENCES, *BODIES, *OVERFLOWS, *REFUSALS, *CALLS, *USAGES, *ENDS]


def rows() -> Iterator[tuple[Api, Case]]:
    """Every misbehaviour of every wire form that knows it."""
    return ((api, case) for case in CASES for api in case.only)
