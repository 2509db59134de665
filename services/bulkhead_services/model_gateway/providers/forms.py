"""The wire forms that the model gateway speaks, by their name in the settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from bulkhead_services.model_gateway.providers import anthropic, gemini, openai_chat, openai_responses
from bulkhead_services.model_gateway.providers.assembly import Assembly
from bulkhead_services.model_gateway.providers.port import Chat, Outgoing

Api = Literal["openai-chat", "openai-responses", "azure-openai", "anthropic", "gemini", "ollama"]


@dataclass(frozen=True, slots=True)
class Form:
    """One vendor's API.

    headers: of a key. request: a call as it is sent. assembly: makes what puts the answer together. base_url: where the
    settings name none. price_provider: the vendor's id in genai-prices; "" where the base URL tells it.
    key_variable: the setting that people use for the key. max_temperature: what the API takes at most.
    """

    request: Callable[[Chat], Outgoing]
    assembly: Callable[[], Assembly]
    headers: Callable[[str], Mapping[str, str]]
    base_url: str = ""
    price_provider: str = ""
    key_variable: str = "OPENAI_API_KEY"
    max_temperature: float = 2.0


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


_CHAT = Form(openai_chat.request, openai_chat.ChatAssembly, _bearer)

FORMS: Mapping[Api, Form] = {
    "openai-chat": _CHAT,
    "openai-responses": Form(openai_responses.request, openai_responses.ResponsesAssembly, _bearer),
    "azure-openai": Form(
        openai_chat.request,
        openai_chat.ChatAssembly,
        lambda key: {"api-key": key},
        price_provider="azure",
        key_variable="",
    ),
    "anthropic": Form(
        anthropic.request,
        anthropic.MessagesAssembly,
        lambda key: {"x-api-key": key, "anthropic-version": anthropic.VERSION},
        base_url="https://api.anthropic.com/v1",
        price_provider="anthropic",
        key_variable="ANTHROPIC_API_KEY",
        max_temperature=anthropic.MAX_TEMPERATURE,
    ),
    "gemini": Form(
        gemini.request,
        gemini.GenerationAssembly,
        lambda key: {"x-goog-api-key": key},
        base_url="https://generativelanguage.googleapis.com/v1beta",
        price_provider="google",
        key_variable="GEMINI_API_KEY",
    ),
    "ollama": Form(
        partial(openai_chat.request, limit_field="max_tokens"),
        openai_chat.ChatAssembly,
        _bearer,
        base_url="http://127.0.0.1:11434/v1",
    ),
}
assert tuple(FORMS) == get_args(Api)
