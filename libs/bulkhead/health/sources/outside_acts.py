"""Acts of an outside agent since the model's last answer, read from the conversation that it sends. Pure.

In: messages in OpenAI's chat form. Out: the tool calls with digests of their results; doors says them, and
`journal_outside` reads them. A text that an agent's own code reads as a call is a text here.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bulkhead.health.sources.openai_chats import is_failure
from bulkhead_contracts import bounds
from bulkhead_contracts.model import OutsideAct

Messages = Sequence[Mapping[str, Any]]


def acts_of(messages: Messages) -> tuple[OutsideAct, ...]:
    """Tool calls of the last answer whose results stand behind it; the first ones, where they are many."""
    last = max((place for place, row in enumerate(messages) if row.get("role") == "assistant"), default=-1)
    calls = messages[last].get("tool_calls") if last >= 0 else None
    named = {str(row.get("id")): row for row in calls if isinstance(row, Mapping)} if isinstance(calls, list) else {}
    results = (row for row in messages[last + 1 :] if row.get("role") == "tool")
    answered = ((named.get(str(row.get("tool_call_id"))), row) for row in results)
    answered_calls = [(call, row) for call, row in answered if call is not None][: bounds.MAX_ADOPTED_CALLS]
    # Many calls at once are seldom long: one message must hold them all.
    most = [bounds.MAX_ACT_ARGUMENTS_CHARS] * bounds.MAX_CALLS_PER_TURN + [bounds.MAX_NAME_CHARS] * bounds.MAX_MORE_ACTS
    return tuple(_outside_act(call, row, chars) for (call, row), chars in zip(answered_calls, most, strict=False))


def thread_of(messages: Messages) -> str:
    """Digest of what people said before the first answer. What the system says may hold the time of day."""
    opening = []
    for row in messages:
        if row.get("role") == "assistant":
            break
        if row.get("role") == "user":
            opening.append(row.get("content"))
    return _sha256_of(_as_text(opening))[:32]


def _outside_act(call: Mapping[str, Any], result: Mapping[str, Any], most_chars: int) -> OutsideAct:
    function = call.get("function")
    function_fields = function if isinstance(function, Mapping) else {}
    arguments, text = _as_text(function_fields.get("arguments") or ""), _as_text(result.get("content"))
    if len(arguments) > most_chars:
        arguments = _sha256_of(arguments)
    return OutsideAct(
        call_id=str(call.get("id"))[: bounds.MAX_SUMMARY_CHARS],
        tool=str(function_fields.get("name"))[: bounds.MAX_NAME_CHARS],
        arguments_json=arguments,
        result_sha256=_sha256_of(text),
        error=is_failure(text),
    )


def _as_text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()


def _sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
