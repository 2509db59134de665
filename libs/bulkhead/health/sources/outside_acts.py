"""Acts of an outside agent since the model's last answer, read from the conversation that it sends. Pure.

In: messages in OpenAI's chat form. Out: the tool calls with digests of their results; doors says them, and
`journal_outside` reads them. An answer that an agent's own code reads as a call, and whose result comes back as words
of a user, is a call, too: frameworks flatten both into text.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bulkhead.health.sources.openai_chats import content_text, is_failure
from bulkhead.health.text.normalize import canonical_speech
from bulkhead_contracts import bounds
from bulkhead_contracts.model import OutsideAct

Messages = Sequence[Mapping[str, Any]]
WRITTEN_CODE = "written_code"
"""The tool of an answer that is code, by no name."""
_CALL_CHARS = 8_192
"""The end of an answer, where a call is looked for."""
_TOOL_NAME = re.compile(r"\b(?:name|tool|tool_name|action)[\"']?\s*[:=]\s*[\"']?([A-Za-z_][\w.-]*)", re.IGNORECASE)
_ARGUMENTS = re.compile(r"\b(?:arguments|args|parameters|params|input)[\"']?\s*[:=]", re.IGNORECASE)
_CODE = re.compile(r"```|<[A-Za-z_]\w*>")
_OUTPUT = re.compile(
    r"\s*(?:(?:observations?|results?|outputs?|execution|tool|function|error|traceback|stdout|exit|call id)\b"
    r"[^:\n]{0,40}[:\n]|[\[{<])",
    re.IGNORECASE,
)
"""The beginning of words that a program writes in a user's name."""
_CALL_ID = re.compile(r"\bid[\"']?\s*[:=]\s*[\"']?(?:call|toolu|fc)[\w-]*", re.IGNORECASE)
"""The id of a call, which is new each time; other ids are what a call is about."""


def acts_of(messages: Messages) -> tuple[OutsideAct, ...]:
    """Tool calls of the last answer whose results stand behind it; the first ones, where they are many."""
    last = max((place for place, row in enumerate(messages) if row.get("role") == "assistant"), default=-1)
    calls = messages[last].get("tool_calls") if last >= 0 else None
    if last >= 0 and not calls:
        return _written_acts(messages, last)
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


def _written_acts(messages: Messages, last: int) -> tuple[OutsideAct, ...]:
    """The call that the text of the last answer is, unless a person put a question again."""
    answer, result = _text_of(messages[last]), _user_text(messages[last + 1 :])
    tool = _written_tool(answer, result)
    if not tool or _is_question(messages[:last], result):
        return ()
    call, output = (_sha256_of(canonical_speech(_CALL_ID.sub("", text))) for text in (answer, result))
    head = _OUTPUT.match(result)
    failed = is_failure(result[head.end() :] if head else result) or is_failure(result)
    return (OutsideAct(tool=tool, arguments_json=call, result_sha256=output, error=failed),)


def _written_tool(answer: str, result: str) -> str:
    """The tool that an answer calls in writing; "" where it is an answer to a person."""
    end = answer[-_CALL_CHARS:]
    if (named := _TOOL_NAME.search(end)) and _ARGUMENTS.search(end):
        return named[1][: bounds.MAX_NAME_CHARS]
    return WRITTEN_CODE if _CODE.search(end) and _OUTPUT.match(result) else ""


def _is_question(earlier: Messages, text: str) -> bool:
    """Check whether a user said this before, at the beginning or upon an answer that called nothing."""
    answer = ""
    called_nothing: bool | None = None  # Judged once for each answer, however many users' messages follow it.
    for row in earlier:
        if row.get("role") == "assistant":
            answer, called_nothing = _text_of(row), None
        elif row.get("role") == "user" and _text_of(row) == text:
            called_nothing = not _written_tool(answer, text) if called_nothing is None else called_nothing
            if called_nothing:
                return True
    return False


def _user_text(messages: Messages) -> str:
    return "\n".join(_text_of(row) for row in messages if row.get("role") == "user")


def _text_of(message: Mapping[str, Any]) -> str:
    return content_text(message.get("content"))


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
