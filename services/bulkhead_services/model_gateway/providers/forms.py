"""The wire forms that the model gateway speaks, by their name in the settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from bulkhead_services.model_gateway.providers import anthropic, gemini, openai_chat, openai_responses
from bulkhead_services.model_gateway.providers.assembly import Assembly
from bulkhead_services.model_gateway.providers.port import Chat, ProviderRequest

Api = Literal["openai-chat", "openai-responses", "azure-openai", "anthropic", "gemini", "ollama"]


@dataclass(frozen=True, slots=True)
class WireForm:
    """One vendor's API.

    build_headers: of a key. base_url: where the settings name none. price_provider: the vendor's id in genai-prices; ""
    where the base URL tells it. key_variable: the setting that people use for the key. parameter_names: parameters of a
    route that the API has; a route with another one is refused at the start, so that none is silently left out.
    is_openai_chat: an outside agent's call is sent as it is. option_names: options of such calls that another API has
    words for, beside tools and parameters.
    """

    build_request: Callable[[Chat], ProviderRequest]
    assembly_type: type[Assembly]
    build_headers: Callable[[str], Mapping[str, str]]
    base_url: str = ""
    price_provider: str = ""
    key_variable: str = "OPENAI_API_KEY"
    parameter_names: frozenset[str] = frozenset({"temperature", "top_p", "seed", "stop", "reasoning_effort"})
    max_temperature: float = 2.0
    is_openai_chat: bool = False
    option_names: frozenset[str] = frozenset({"tool_choice", "parallel_tool_calls"})


def key_setting_name(api: Api, name: str, base_url: str) -> str:
    """The setting that holds a provider's key: a vendor's variable counts for its own address alone."""
    form = FORMS[api]
    is_own = name == "openai" or (form.key_variable and base_url == form.base_url)
    return form.key_variable if is_own else f"the api_key of {name} in BULKHEAD_PROVIDERS"


def missing_key_message(api: Api, name: str, base_url: str) -> str:
    """The words for a provider without a key, and what to do."""
    offline = ", or point OPENAI_BASE_URL at the offline model" if name == "openai" else ""
    setting = key_setting_name(api, name, base_url)
    return (
        f"provider {name} ({base_url}) has no key: set {setting}, or name another provider's model "
        f"(BULKHEAD_MODEL=PROVIDER:MODEL){offline}"
    )


def _bearer_headers(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


_CHAT = WireForm(openai_chat.build_request, openai_chat.ChatAssembly, _bearer_headers, is_openai_chat=True)

FORMS: Mapping[Api, WireForm] = {
    "openai-chat": _CHAT,
    "openai-responses": WireForm(
        openai_responses.build_request,
        openai_responses.ResponsesAssembly,
        _bearer_headers,
        parameter_names=frozenset({"temperature", "top_p", "reasoning_effort"}),
        option_names=frozenset({"tool_choice", "parallel_tool_calls", "reasoning_summary"}),
    ),
    "azure-openai": WireForm(
        openai_chat.build_request,
        openai_chat.ChatAssembly,
        lambda key: {"api-key": key},
        price_provider="azure",
        key_variable="",
        is_openai_chat=True,
    ),
    "anthropic": WireForm(
        anthropic.build_request,
        anthropic.MessagesAssembly,
        lambda key: {"x-api-key": key, "anthropic-version": anthropic.VERSION},
        base_url="https://api.anthropic.com/v1",
        price_provider="anthropic",
        key_variable="ANTHROPIC_API_KEY",
        parameter_names=frozenset({"temperature", "top_p", "stop"}),
        option_names=frozenset({"tool_choice", "parallel_tool_calls", "reasoning_effort", "thinking"}),
        max_temperature=anthropic.MAX_TEMPERATURE,
    ),
    "gemini": WireForm(
        gemini.build_request,
        gemini.GenerationAssembly,
        lambda key: {"x-goog-api-key": key},
        base_url="https://generativelanguage.googleapis.com/v1beta",
        price_provider="google",
        option_names=frozenset({"tool_choice"}),
        key_variable="GEMINI_API_KEY",
        parameter_names=frozenset({"temperature", "top_p", "seed", "stop"}),
    ),
    "ollama": WireForm(
        partial(openai_chat.build_request, limit_field="max_tokens"),
        openai_chat.ChatAssembly,
        _bearer_headers,
        base_url="http://127.0.0.1:11434/v1",
        key_variable="",
        is_openai_chat=True,
        parameter_names=frozenset({"temperature", "top_p", "seed", "stop"}),
    ),
}
assert tuple(FORMS) == get_args(Api)
