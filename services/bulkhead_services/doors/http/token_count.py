"""Anthropic's count of a message's tokens. Pure: no model is asked.

In: the body of a request. Out: an estimate on the safe side, by the rates of the model's family.
"""

from typing import Any

from bulkhead.quotas.token_estimates import TokenCounter, chat_tokens
from bulkhead_services.doors.forms.anthropic_messages import AnthropicMessageForm
from bulkhead_services.doors.forms.fields import Fields
from bulkhead_services.doors.forms.sse import to_json


def count_of(value: object) -> dict[str, Any]:
    """The answer to a request for a count. Raises DoorRefusal."""
    body = Fields(value).as_dict()
    parsed_call = AnthropicMessageForm({**body, "max_tokens": 1, "stream": False}).asked
    sent = {"messages": parsed_call.messages, **parsed_call.options}
    tokens = chat_tokens(TokenCounter(parsed_call.model), to_json(sent).encode("utf-8", "replace"))
    return {"input_tokens": tokens}
