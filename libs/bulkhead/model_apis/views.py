"""A call in OpenAI's chat form, whichever API it came in. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from bulkhead.model_apis.allowed import ANTHROPIC, RESPONSES
from bulkhead.model_apis.anthropic_view import view_anthropic
from bulkhead.model_apis.chat_view import ChatView
from bulkhead.model_apis.responses_view import view_responses
from bulkhead_contracts.model import ModelApi


def view_in_chat_form(api: ModelApi, rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> ChatView:
    """Messages and options of a call, and what the chat form does not say of them."""
    if api == ANTHROPIC:
        return view_anthropic(rows, options)
    if api == RESPONSES:
        return view_responses(rows, options)
    return ChatView([dict(row) for row in rows], dict(options))
