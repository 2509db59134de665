"""A source of rows: chat transcripts in the OpenAI message format.

In: conversations: `{"messages": [...]}`, a list of messages, or a message per line. Out: rows: a tool call with the
`tool` message that answers it is one act; what the assistant writes without a call is a text to nobody; what the user
says is said to the assistant. Times are rarely recorded: without them what says that it is pending is believed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping

from bulkhead.health.sources.trace_rows import MAX_NAME_CHARS, Row

MAX_MESSAGES = 1_000_000
USER, ASSISTANT = "user", "assistant"
_FAILURES = ("error", "traceback", "exception", "failed", "fatal")


def looks_like(document: object) -> bool:
    """Check whether a parsed document or line is one of chats."""
    if isinstance(document, list):
        return bool(document) and all(isinstance(message, Mapping) and "role" in message for message in document[:10])
    return isinstance(document, Mapping) and ("messages" in document or "role" in document)


def read_rows(documents: Iterable[object]) -> list[Row]:
    """Rows of all conversations. Raises ValueError for what are no messages, or too many."""
    chat_rows: list[Row] = []
    loose: list[object] = []
    for number, document in enumerate(documents, 1):
        if isinstance(document, Mapping) and "role" in document:
            loose.append(document)
            continue
        messages = document.get("messages") if isinstance(document, Mapping) else document
        name = document.get("id") if isinstance(document, Mapping) else None
        chat_rows += _conversation_rows(messages, str(name or f"chat {number}")[:MAX_NAME_CHARS])
        if len(chat_rows) > MAX_MESSAGES:
            raise ValueError(f"over {MAX_MESSAGES:,} messages; split the file")
    return chat_rows + list(_conversation_rows(loose, "chat")) if loose else chat_rows


def _conversation_rows(messages: object, task: str) -> Iterator[Row]:
    if not isinstance(messages, list) or not all(isinstance(entry, Mapping) for entry in messages):
        raise ValueError("messages is no list of objects")
    answers = {str(entry.get("tool_call_id")): entry for entry in messages if entry.get("role") in ("tool", "function")}
    agent = ASSISTANT
    for number, message in enumerate(messages, 1):
        time = message.get("time_unix_ms") or (message.get("created") or 0)
        row: dict[str, object] = {
            "task": task,
            "id": f"{task} #{number}"[:MAX_NAME_CHARS],
            "time_unix_ms": time if isinstance(time, int) and time > 10**11 else 0,
        }
        text, role = content_text(message.get("content")), message.get("role")
        if role == ASSISTANT:
            agent = str(message.get("name") or ASSISTANT)[:MAX_NAME_CHARS] or ASSISTANT
            calls = [*_object_list(message.get("tool_calls")), *_object_list(message.get("function_call"))]
            for index, call in enumerate(calls):
                yield row | {
                    "agent": agent,
                    **_call_fields(call, answers),
                    "id": f"{row['id']}.{index}"[:MAX_NAME_CHARS],
                }
            if not calls and text:
                yield row | {"agent": agent, "text": text}
        elif role == USER and text:
            name = str(message.get("name") or USER)[:MAX_NAME_CHARS]
            yield row | {"agent": name, "text": text, "to": agent, "productive": True}


def _object_list(value: object) -> list[Mapping[str, object]]:
    if isinstance(value, Mapping):
        return [value]
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _call_fields(call: Mapping[str, object], answers: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    function = call.get("function") or call.get("custom") or call
    assert isinstance(function, Mapping) or function
    name = function.get("name", "tool") if isinstance(function, Mapping) else "tool"
    arguments = function.get("arguments", function.get("input", "")) if isinstance(function, Mapping) else ""
    row: dict[str, object] = {"action": str(name)[:MAX_NAME_CHARS] or "tool", "arguments": arguments}
    answer = answers.get(str(call.get("id")))
    if answer is not None:
        result = content_text(answer.get("content"))
        row["result"] = result
        if is_failure(result):
            row["error"] = True
    return row


def content_text(content: object) -> str:
    """The text of a content: a text, or a list of parts."""
    if isinstance(content, str):
        return content
    parts = [part.get("text") for part in _object_list(content)]
    return "\n".join(text for text in parts if isinstance(text, str))


def is_failure(result: str) -> bool:
    """Check whether a tool's answer is an error: the format has no field for it."""
    head = result[:200].lstrip().lower()
    if head.startswith("{"):
        try:
            parsed = json.loads(result)
        except (ValueError, RecursionError):
            return False
        return isinstance(parsed, dict) and bool(parsed.get("error") or parsed.get("isError") or parsed.get("is_error"))
    return head.startswith(_FAILURES)
