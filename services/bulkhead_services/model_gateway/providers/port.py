"""The port of model providers: `attempts` calls it, and the adapter of a vendor's API implements it.

In: what `render_payload` made, in the chat format that the mesh speaks. Out: a `ModelAnswer` or a
`ProviderFault`, each with the usage that the vendor reported.
"""

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from bulkhead.model_apis.allowed import RESPONSES
from bulkhead.model_apis.chat_view import objects_in
from bulkhead.model_apis.gaps import Gap
from bulkhead_contracts.model import TEXT, AnswerPart, ModelApi, ToolCall
from bulkhead_contracts.result import Omission, Usage

Finish = Literal["stop", "length", "tool_calls", ""]
SHORT_DEADLINE = "deadline_too_short"
"""Code of a call that was cut by its asker's deadline, and not for the silence of its provider."""
MAX_PAUSE_S = 1.0
"""Longer than a model pauses between two words that it writes."""


class OnText(Protocol):
    """Listener to an answer as it comes."""

    async def __call__(self, text: str, part: AnswerPart = TEXT) -> None:
        """The next piece of a part of it."""
        ...


@dataclass(frozen=True, slots=True)
class ProviderFault:
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
class ModelAnswer:
    """A model's answer. usage: None when the provider did not tell."""

    text: str
    calls: tuple[ToolCall, ...]
    finish: Finish
    usage: Usage | None
    model: str
    fingerprint: str
    omissions: tuple[Omission, ...] = ()
    cached: bool = False
    """An earlier answer to the very same request, given again."""
    incomplete_calls: str = ""
    """What is missing of its calls of tools; "" when all are whole."""
    thoughts: tuple[Mapping[str, str], ...] = ()
    """Signed blocks of what an outside agent's model thought, as Anthropic has them."""
    service_tier: str = ""
    """The tier in which OpenAI answered; "" where nobody said."""
    native: Mapping[str, Any] = field(default_factory=dict)
    """To an agent that asked in the provider's own API: the whole of it in that API."""


@dataclass(frozen=True, slots=True)
class Chat:
    """One call. payload: messages, tools and response_format as OpenAI's chat has them. adopted: it is an outside
    agent's, with the options that it has sent, in the form of `api`.

    parameters: by the mesh's names (see `forms`). limit_field: how this provider calls the most output tokens, where
    its API has several names; "" takes the usual.
    stable_messages: so many from the start stand in the next turn's call too; 0: nobody said.
    """

    model: str
    payload: Mapping[str, Any]
    output_tokens: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    limit_field: str = ""
    stable_messages: int = 0
    adopted: bool = False
    api: ModelApi = ""


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """A vendor's request. path: below the provider's base URL. writes_cache: its input may be written to a cache, for
    an hour where `caches_1h`.

    call_ids: of the calls of earlier turns. output_tokens: the most that it asks for; 0 where nobody said.
    added_tokens: of the vendor's own words beside the body. adopted: its tools are an outside agent's. native: it came
    in the vendor's own form, and its answer is kept in that form, too. gaps: what was left out of it, for the vendor's
    form has no word for it.
    """

    path: str
    body: bytes
    writes_cache: bool = False
    caches_1h: bool = False
    call_ids: frozenset[str] = frozenset()
    output_tokens: int = 0
    added_tokens: int = 0
    adopted: bool = False
    native: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()


@dataclass(slots=True)
class GenerationProgress:
    """Progress of a provider's call until it ended or was cut; times by the event loop.

    generated_bytes: text, arguments of tools and visible reasoning. last_s: when the latest of it came. silent_s: time
    before that in which nothing came. told_usage: by the provider until now; is_told_at_end: nothing came after that.
    """

    began_s: float = 0.0
    last_s: float = 0.0
    silent_s: float = 0.0
    generated_bytes: int = 0
    told_usage: Usage | None = None
    is_told_at_end: bool = False

    def note_progress(self, generated_bytes: int, now_s: float, told_usage: Usage | None = None) -> None:
        """Note how much has come by now."""
        self.told_usage = told_usage
        if generated_bytes > self.generated_bytes:
            self.silent_s, self.last_s = self.silence_s(now_s), now_s
        self.generated_bytes = generated_bytes

    def silence_s(self, now_s: float) -> float:
        """Seconds in which nothing came; between two words a short pause is none."""
        pause_s = max(0.0, now_s - (self.last_s or self.began_s or now_s))
        return self.silent_s + (pause_s if not self.last_s or pause_s > MAX_PAUSE_S else 0.0)


def is_embedding(payload: Mapping[str, Any]) -> bool:
    """True when vectors are asked for, and no answer in words."""
    return "messages" not in payload


def encode_payload(payload: Mapping[str, Any]) -> bytes:
    """A body as it is sent."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def call_ids(chat: Chat) -> frozenset[str]:
    """Ids of the calls of earlier turns."""
    messages = chat.payload.get("messages", ())
    rows = (call for message in messages for call in (message, *_call_rows(message)))
    ids = (row.get("call_id" if chat.api == RESPONSES else "id") for row in rows)
    return frozenset(call_id for call_id in ids if isinstance(call_id, str))


def _call_rows(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*objects_in(message.get("tool_calls")), *objects_in(message.get("content"))]


@dataclass(slots=True)
class CallNeed:
    """Needs of a call at a deployment. tokens: an estimate of its input; tried: names of those that it has asked."""

    model: str
    tokens: int
    tried: set[str] = field(default_factory=set)


class DeploymentPlace(Protocol):
    """A place at one deployment of a provider."""

    async def call(
        self,
        outgoing: ProviderRequest,
        on_text: OnText,
        need: CallNeed,
        *,
        timeout_s: float,
        progress: GenerationProgress,
    ) -> ModelAnswer | ProviderFault:
        """Send what `build_request` made; on_text gets the answer as it comes, and "" for a tool call that is not
        published live. Cancelled, it closes the connection."""
        ...


class Provider(Protocol):
    """A vendor, or a server of one's own, with one or several deployments: keys and addresses."""

    @property
    def name(self) -> str:
        """Its name in the settings."""
        ...

    def build_request(self, chat: Chat) -> ProviderRequest:
        """The vendor's request.

        It asks for a stream, also where nobody watches: only a stream shows that a provider has fallen silent.
        """
        ...

    def objection(self, chat: Chat) -> str:
        """Part of an outside agent's call that the vendor's API cannot say; "" when it can say all."""
        ...

    def wait_s(self, need: CallNeed, time_left_s: float) -> float:
        """Seconds until some deployment takes this call, by what it refused or told; a guess holds no call back for
        `time_left_s`."""
        ...

    def is_usable(self, model: str) -> bool:
        """True when some deployment is not ejected for this model: for failing again and again."""
        ...

    def has_untried(self, need: CallNeed) -> bool:
        """True when a deployment that this call has not tried takes it now."""
        ...

    def hold_place(self, tenant: str, wait_s: float, need: CallNeed) -> AbstractAsyncContextManager[DeploymentPlace]:
        """One of the calls that may run at once; raises Deferred when none becomes free in time."""
        ...
