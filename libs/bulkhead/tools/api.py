"""The API of a tool: `async def run(arguments: Arguments, call: Call) -> Done | Failed`, or a plain `def run`.

Arguments come in already checked against the tool's schema. A tool returns Failed for every failure that it expects: an
exception is told as `tool_bug` and tried again where that is allowed, and the outcome of a write is unknown then. An
async tool awaits all that takes time: one that blocks holds up every call of its process, and is interrupted after
seconds. A plain tool may block, compute, crash: it has a process of its own, which is killed when its time is over.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Arguments = Mapping[str, Any]

Effect = Literal["none", "unknown"]


@dataclass(frozen=True, slots=True)
class Done:
    """The tool's text. truncated: the tool itself left the rest out. missing: what else it lacks, as `pages 4-9`; the
    result counts as incomplete then. omitted: parts of another kind that it left out, each in a few words."""

    text: str
    truncated: bool = False
    missing: str = ""
    omitted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no result.

    transient: the same call may succeed in a moment. effect: `none` when certainly nothing was changed outside,
    `unknown` when it may have been.
    """

    code: str
    message: str
    hint: str
    transient: bool = False
    effect: Effect = "none"


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer, its body cut at the bound that was asked for."""

    status: int
    media_type: str
    body: bytes
    truncated: bool
    location: str
    charset: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Lack of an HTTP answer. sent: the request may have reached the server. partial: a part of the answer came."""

    reason: str
    sent: bool
    partial: bool = False

    @property
    def code(self) -> str:
        """The failure's name: `partial_answer` or `unreachable`."""
        return "partial_answer" if self.partial else "unreachable"


class World(Protocol):
    """The means by which tools touch the world; tool_executor's effects.py implements it."""

    async def get(self, url: str, address: str, max_bytes: int) -> Response | Unanswered:
        """GET from this very address, following nothing."""

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """IP addresses of a host; none when there is no such host."""

    async def post_json(self, url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Response | Unanswered:
        """POST to an address that the operator configured."""


ReportProgress = Callable[[float, float | None, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Call:
    """The call as its tool sees it. world: for async tools; a plain one has none.

    key: the idempotency key, the same for every attempt and replica, unique across tasks and tenants. settings: of
    BULKHEAD_TOOL_SETTINGS those that the tool's row names in `requires`. credentials: those that its row names, of the
    tenant and user who call: they stand in no log and no message, and are replaced where the tool returns one.
    report_progress: to be awaited with how far it has come, a total and words, where somebody wants to hear that.
    approval: word of the person who let the call be made, where one was asked.
    """

    key: str
    world: World
    http_allow_hosts: tuple[str, ...] = ()
    http_allow_private_hosts: tuple[str, ...] = ()
    counter_url: str = ""
    max_output_bytes: int = 0
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    report_progress: ReportProgress | None = field(default=None, repr=False)
    approval: str = ""


Run = Callable[[Arguments, Call], Awaitable[Done | Failed] | Done | Failed]
