"""The port of model providers: `attempts` calls it, and the adapter of a vendor's API implements it.

In: what `render` made, in the chat format that the mesh speaks. Out: an `Answer` or a `Fault`, each with the usage that
the vendor reported.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from bulkhead_contracts.model import ToolCall
from bulkhead_contracts.result import Omission, Usage

Finish = Literal["stop", "length", "tool_calls", ""]
OnText = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt gave no answer.

    consumed: tokens may have been used, so that the attempt has to be paid. outage: another provider might answer.
    refused: it was not tried, because it may not be. usage: None when the provider did not tell.
    """

    code: str
    message: str
    hint: str = ""
    retryable: bool = False
    outage: bool = False
    consumed: bool = True
    refused: bool = False
    retry_after_s: float | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said. usage: None when the provider did not tell."""

    text: str
    calls: tuple[ToolCall, ...]
    finish: Finish
    usage: Usage | None
    model: str
    fingerprint: str
    omissions: tuple[Omission, ...] = ()


class Provider(Protocol):
    """One endpoint of a vendor."""

    @property
    def name(self) -> str:
        """Its name in the settings."""
        ...

    def body(self, model: str, chat: Mapping[str, Any], output_tokens: int, temperature: float | None) -> bytes:
        """The vendor's request. chat: messages, tools and response_format as OpenAI has them.

        It asks for a stream, also where nobody watches: only a stream shows that a provider has fallen silent.
        """
        ...

    def place(self, tenant: str, wait_s: float) -> AbstractAsyncContextManager[None]:
        """One of the calls that may run at once; raises Deferred when none becomes free in time."""
        ...

    async def chat(self, body: bytes, on_text: OnText, *, timeout_s: float) -> Answer | Fault:
        """Send a body that `body` made; on_text gets the text as it comes. Cancelled, it closes the connection."""
        ...
