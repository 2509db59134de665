"""What of a model call is passed on, by the API in which an agent asks: the one table for doors, which refuse the rest
by name, and for the model gateway, which trusts no door.

An option stands here when the most output tokens and the bytes of the request bound what it can cost.
"""

from collections.abc import Mapping
from typing import Any

from bulkhead_contracts.model import ModelApi

CHAT: ModelApi = ""
ANTHROPIC: ModelApi = "anthropic"
RESPONSES: ModelApi = "openai-responses"
CHAT_OPTIONS = frozenset(
    (
        *("temperature", "top_p", "top_k", "min_p", "seed", "stop", "logit_bias"),
        *("frequency_penalty", "presence_penalty", "repetition_penalty", "chat_template_kwargs"),
        *("tools", "tool_choice", "parallel_tool_calls", "response_format"),
        *("reasoning_effort", "reasoning_summary", "thinking", "verbosity", "service_tier"),
    )
)
EMBEDDING_OPTIONS = frozenset(("encoding_format", "dimensions", "input_type", "truncate"))
BETAS = "betas"
"""Option that holds the values of the header `anthropic-beta`."""
INTERLEAVED = "interleaved-thinking-"
"""Beginning of the beta under which a budget of thoughts spans several requests."""
NATIVE_OPTIONS: Mapping[str, frozenset[str]] = {
    ANTHROPIC: frozenset(
        (
            *("system", "tools", "tool_choice", "temperature", "top_p", "top_k", "stop_sequences"),
            *("thinking", "output_config", "context_management", "cache_control", BETAS),
        )
    ),
    RESPONSES: frozenset(
        (
            *("instructions", "tools", "tool_choice", "parallel_tool_calls", "temperature", "top_p"),
            *("reasoning", "text", "include", "prompt_cache_key", "service_tier"),
        )
    ),
}
CHEAP_TIERS = ("auto", "default", "flex")
"""Values of `service_tier` that have a price here."""
INCLUDED = ("reasoning.encrypted_content",)
"""Values of `include` that answers hold."""
PASSED_BETAS = frozenset(
    (
        *("claude-code-20250219", "interleaved-thinking-2025-05-14", "context-management-2025-06-27"),
        *("thinking-token-count-2026-05-13", "thinking-display-updates-2026-08-18", "redact-thinking-2026-02-12"),
        *("advanced-tool-use-2025-11-20", "tool-search-tool-2025-10-19", "inline-tools-2026-09-15"),
        *("mid-conversation-tool-changes-2026-07-01", "mid-conversation-system-2026-04-07"),
        *("mid-conversation-system-clear-at-2026-08-21", "per-turn-control-2026-07-01", "effort-2025-11-24"),
        *("extended-cache-ttl-2025-04-11", "prompt-caching-scope-2026-01-05", "prompt-caching-2024-07-31"),
        *("fine-grained-tool-streaming-2025-05-14", "token-efficient-tools-2025-02-19", "output-128k-2025-02-19"),
        *("structured-outputs-2025-11-13", "structured-outputs-2025-12-15", "pdfs-2024-09-25"),
        *("computer-use-2025-01-24", "computer-use-2025-11-24", "task-budgets-2026-03-13"),
    )
)
"""Values of `anthropic-beta` that neither call another model nor cost beside the tokens."""
PASSED_EDITS = ("clear_thinking_", "clear_tool_uses_")
"""Beginnings of the kinds of `context_management.edits` that cost nothing beside."""
_CLIENT_TOOLS: Mapping[str, tuple[str, ...]] = {
    ANTHROPIC: ("custom", "bash_", "text_editor_", "computer_", "memory_", "tool_search_tool_"),
    RESPONSES: ("function", "custom", "namespace", "tool_search", "local_shell", "shell", "apply_patch"),
}
"""Beginnings of the kinds of tools that the agent runs itself, or that search the request alone."""


def is_passed_tool(api: str, tool: object) -> bool:
    """True for a tool that is passed on: what a provider runs itself has no price here."""
    if not isinstance(tool, dict):
        return False
    kind = tool.get("type", "custom" if api == ANTHROPIC else None)
    if api == ANTHROPIC:
        return isinstance(kind, str) and kind.startswith(_CLIENT_TOOLS[api])
    if not isinstance(kind, str) or kind not in _CLIENT_TOOLS.get(api, ("function",)):
        return False
    if kind == "namespace":
        inner = tool.get("tools")
        return isinstance(inner, list) and all(is_passed_tool(api, row) for row in inner)
    # A shell in a container is the provider's.
    return kind != "shell" or _is_local(tool.get("environment"))


def left_out_tools(api: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the tools of a request that are not passed on."""
    tools = options.get("tools")
    rows = tools if isinstance(tools, list) else ()
    return tuple(tool_name(tool) for tool in rows if not is_passed_tool(api, tool))


def tool_name(tool: object) -> str:
    """The name of a tool, or its kind."""
    fields = tool if isinstance(tool, dict) else {}
    return str(fields.get("name") or fields.get("type"))[:64]


def _is_local(environment: object) -> bool:
    return environment is None or (isinstance(environment, dict) and environment.get("type") == "local")
