"""The doors' HTTP server before a desk that answers by a script. In: answers. Out: requests as the desk saw them."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from bulkhead.callers.authentication import CallerAuthenticator, Unauthenticated
from bulkhead.http_server.server import HttpServer
from bulkhead_contracts.model import TEXT, ToolCall
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors.http.routes import DoorsHttp
from bulkhead_services.doors.port import AnswerPiece, Caller, DoorRefusal, ModelCallAnswer, ParsedModelCall, RunSpending
from bulkhead_services.doors.settings import Settings

KEY = "bk_key_of_ada"
READER = "bk_key_of_an_auditor"
TASK = "doors-0123456789abcdef"
USAGE = Usage(
    model_calls=1, input_tokens=120, output_tokens=30, cached_input_tokens=20, reasoning_tokens=7, cost_usd_micros=1_500
)


@dataclass(frozen=True)
class Reply:
    """One answer of the script. refused: in place of the answer, after the pieces; at_once: by the desk itself. gap_s:
    before each piece."""

    pieces: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    finish: str = ""
    refused: DoorRefusal | None = None
    at_once: bool = False
    gap_s: float = 0.0
    degraded: str = ""
    thoughts: tuple[Mapping[str, str], ...] = ()


def text(*pieces: str) -> Reply:
    """An answer of text."""
    return Reply(pieces, finish="stop")


def calls(name: str, **arguments: object) -> Reply:
    """An answer that asks for one tool."""
    return Reply(
        tool_calls=(ToolCall(id="call_1", name=name, arguments_json=json.dumps(arguments)),), finish="tool_calls"
    )


@dataclass
class ScriptedCall:
    """One call."""

    reply: Reply
    asked: ParsedModelCall
    call_id: str
    taken: int = 0
    closed: bool = False
    awaited: bool = False

    @property
    def kept_as(self) -> str:
        """Of a response that is kept."""
        return f"resp_kept_{self.call_id}" if self.asked.keep else ""

    @property
    def run_spending(self) -> RunSpending:
        """As if each run had spent 0.25 of 2 dollars."""
        return RunSpending(TASK, 250_000, 1_750_000, 9_100)

    async def follow_pieces(self) -> AsyncIterator[AnswerPiece]:
        """Thoughts, the pieces of the text, tool calls in two pieces each."""
        parts = () if self.reply.refused is not None else self._answered().parts
        try:
            for part, text in parts:
                if part.kind not in ("text", "call"):
                    yield AnswerPiece(part, text)
            for piece in self.reply.pieces:
                await asyncio.sleep(self.reply.gap_s)
                self.taken += 1
                yield AnswerPiece(TEXT, piece)
            for part, text in parts:
                if part.kind == "call":
                    yield AnswerPiece(part, text[: (middle := len(text) // 2)])
                    yield AnswerPiece(part, text[middle:])
        finally:
            self.closed = True

    async def wait_for_answer(self) -> ModelCallAnswer:
        """The end. Whoever does not follow the text waits as long for it."""
        self.awaited = True
        if not self.closed:
            await asyncio.sleep(self.reply.gap_s)
        if self.reply.refused is not None:
            raise self.reply.refused
        return self._answered()

    def _answered(self) -> ModelCallAnswer:
        return ModelCallAnswer(
            call_id=self.call_id,
            model="large-2026",
            text="".join(self.reply.pieces),
            tool_calls=self.reply.tool_calls,
            finish=self.reply.finish,  # type: ignore[arg-type]
            usage=USAGE,
            created_unix_ms=1_790_000_000_000,
            degraded=self.reply.degraded,
            thoughts=self.reply.thoughts,
        )


@dataclass
class ScriptedDesk:
    """Answers one after another; the last one again and again."""

    replies: list[Reply] = field(default_factory=lambda: [text("hello")])
    asked: list[ParsedModelCall] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    calls: list[ScriptedCall] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    async def begin_model_call(self, caller: Caller, parsed_call: ParsedModelCall) -> ScriptedCall:
        """The next answer."""
        json.dumps([parsed_call.messages, parsed_call.options], allow_nan=False).encode()
        self.asked.append(parsed_call)
        self.callers.append(caller)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply.at_once and reply.refused is not None:
            raise reply.refused
        self.calls.append(ScriptedCall(reply, parsed_call, f"c{len(self.calls) + 1}"))
        return self.calls[-1]

    async def end_run(self, caller: Caller, task: str) -> None:
        """A run's end."""
        if task != TASK:
            raise DoorRefusal(404, "no_such_run", f"there is no run {task!r} in your tenant", "check the id")
        self.ended.append(task)

    async def list_models(self, caller: Caller) -> tuple[str, ...]:
        """Two."""
        return ("small", "large")


class Keys(CallerAuthenticator):
    """Two keys, of no file."""

    def __init__(self) -> None: ...

    async def claim(self, headers: Mapping[str, str]) -> RequesterClaim:
        """The owner of a key."""
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if key not in (KEY, READER):
            raise Unauthenticated("this API key is not known", "check the key")
        role: Literal["submitter", "auditor"] = "submitter" if key == KEY else "auditor"
        return RequesterClaim(tenant="acme", person="ada", role=role, via="api_key")

    def token_of(self, headers: Mapping[str, str]) -> str:
        """None has a token."""
        return ""


@dataclass
class Served:
    """A running server."""

    desk: ScriptedDesk
    http: DoorsHttp
    url: str

    @property
    def openai(self) -> str:
        """The base URL for OpenAI's SDK."""
        return f"{self.url}/openai/v1"

    @property
    def anthropic(self) -> str:
        """The base URL for Anthropic's SDK."""
        return f"{self.url}/anthropic"


@asynccontextmanager
async def served(*replies: Reply, **settings: object) -> AsyncIterator[Served]:
    """The server on a free port, in this loop."""
    desk = ScriptedDesk(list(replies) or [text("hello")])
    chosen = Settings(http_port=0, nats_url="nats://127.0.0.1:1", **settings)  # type: ignore[arg-type]

    async def ready() -> str:
        return ""

    http = DoorsHttp(chosen, Keys(), desk, ready)
    server = HttpServer(http.build_app(), chosen, "doors")
    await server.start()
    try:
        yield Served(desk, http, f"http://127.0.0.1:{server.port}")
    finally:
        await server.stop()
