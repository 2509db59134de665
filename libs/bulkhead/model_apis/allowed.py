"""The table of what is passed on of a model call, by the API in which an agent asks: doors refuse the rest by name, and
the model gateway trusts no door.

An option stands here when the most output tokens and the bytes of the request bound what it can cost.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from bulkhead.model_apis.gaps import Gap
from bulkhead_contracts.model import ModelApi

PROVIDER_RUNS = "its provider runs it, which has no price here; give the agent a tool of its own"
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
NESTED_OPTIONS: Mapping[str, frozenset[str]] = {
    "thinking": frozenset(("type", "budget_tokens", "display")),
    "output_config": frozenset(("effort", "format", "task_budget")),
    "reasoning": frozenset(("effort", "summary", "generate_summary", "context")),
    "text": frozenset(("format", "verbosity")),
}
"""Fields of the options that are objects."""
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
_CLIENT_TOOLS = {
    CHAT: re.compile("function"),
    ANTHROPIC: re.compile(
        r"custom|(?:bash|text_editor|computer|memory)_\d{8}|tool_search_tool_(?:regex|bm25)(?:_\d{8})?"
    ),
    RESPONSES: re.compile("function|custom|namespace|tool_search|local_shell|shell|apply_patch"),
}
"""Kinds of tools that the agent runs itself, or that search the request alone."""


def is_passed_tool(api: ModelApi, tool: object) -> bool:
    """True for a tool that is passed on: what a provider runs itself has no price here."""
    if not isinstance(tool, dict):
        return False
    kind = tool.get("type", "custom" if api == ANTHROPIC else None)
    if not isinstance(kind, str) or not _CLIENT_TOOLS[api].fullmatch(kind):
        return False
    if kind == "namespace":
        inner = tool.get("tools")
        return isinstance(inner, list) and all(is_passed_tool(api, row) for row in inner)
    # A shell in a container is the provider's.
    return kind != "shell" or _is_local(tool.get("environment"))


def unlisted_option(options: Mapping[str, Any], listed: Collection[str]) -> str:
    """Name of the first option that is not passed on, or of a field of it; "" when all are."""
    for name, value in options.items():
        if name not in listed and value is not None:
            return name
        fields = value if isinstance(value, dict) and name in NESTED_OPTIONS else {}
        for field, inner in fields.items():
            if field not in NESTED_OPTIONS[name] and inner is not None:
                return f"{name}.{field}"
    return ""


def left_out_tools(api: ModelApi, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The tools of a request that are not passed on, with the reason."""
    tools = options.get("tools")
    rows = tools if isinstance(tools, list) else ()
    return tuple(str(gap_of_tool(tool)) for tool in rows if not is_passed_tool(api, tool))


def gap_of_tool(tool: object) -> Gap:
    """The words for a tool that its provider runs."""
    return Gap(f"the tool {tool_name(tool)}", PROVIDER_RUNS)


def tool_name(tool: object) -> str:
    """The name of a tool, or its kind."""
    fields = tool if isinstance(tool, dict) else {}
    return str(fields.get("name") or fields.get("type"))[:64]


def _is_local(environment: object) -> bool:
    return isinstance(environment, dict) and environment.get("type") == "local"
