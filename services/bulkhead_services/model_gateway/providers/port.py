"""The port of model providers: `attempts` calls it, and the adapter of a vendor's API implements it.

In: what `render` made, in the chat format that the mesh speaks. Out: an `Answer` or a `Fault`, each with the usage that
the vendor reported.
"""

import json
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
    cache_write_tokens: int = 0


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
    cache_write_tokens: int = 0
    """Of the input tokens, those that were written to the provider's cache: some cost more."""


@dataclass(frozen=True, slots=True)
class Chat:
    """One call. payload: messages, tools and response_format as OpenAI's chat has them.

    limit_field: how this provider calls the most output tokens, where its API has several names; "" takes the usual.
    """

    model: str
    payload: Mapping[str, Any]
    output_tokens: int
    temperature: float | None = None
    limit_field: str = ""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A vendor's request. path: below the provider's base URL. writes_cache: its input may be written to a cache."""

    path: str
    body: bytes
    writes_cache: bool = False


def encode(payload: Mapping[str, Any]) -> bytes:
    """A body as it is sent."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


class Provider(Protocol):
    """One endpoint of a vendor."""

    @property
    def name(self) -> str:
        """Its name in the settings."""
        ...

    def request(self, chat: Chat) -> Outgoing:
        """The vendor's request.

        It asks for a stream, also where nobody watches: only a stream shows that a provider has fallen silent.
        """
        ...

    def place(self, tenant: str, wait_s: float) -> AbstractAsyncContextManager[None]:
        """One of the calls that may run at once; raises Deferred when none becomes free in time."""
        ...

    async def call(self, outgoing: Outgoing, on_text: OnText, *, timeout_s: float) -> Answer | Fault:
        """Send what `request` made; on_text gets the text as it comes. Cancelled, it closes the connection."""
        ...
