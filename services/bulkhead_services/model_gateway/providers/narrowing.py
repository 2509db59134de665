"""A chat of an outside agent in the words that every vendor's form translates; what has no such word is named.

In: messages and options as the agent sent them. Out: a Chat as `render_payload` makes them, with what was left out of
it; or UnsupportedInput.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bulkhead.model_apis.allowed import CHAT, CHEAP_TIERS
from bulkhead.model_apis.chat_view import NO_WORD
from bulkhead.model_apis.gaps import Gap
from bulkhead.model_apis.media import medium_of
from bulkhead.model_apis.views import view_in_chat_form
from bulkhead_services.model_gateway.providers.fields import mapping_of, plain_text, rows_of
from bulkhead_services.model_gateway.providers.port import Chat

DEFAULT_VALUES: Mapping[str, tuple[object, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "tool_choice": ("auto",),
    "parallel_tool_calls": (True,),
    "service_tier": CHEAP_TIERS,
}
"""Values that say what holds without them."""
SYSTEM_ROLES = ("system", "developer")
REASONING_SUMMARY = "reasoning_summary"
"""The field `reasoning.summary` of OpenAI's responses API, which alone has a word for it."""


class UnsupportedInput(ValueError):
    """A parameter or a part of a message that this form has no word for."""


def in_chat_form(chat: Chat) -> tuple[Chat, list[Gap]]:
    """A chat of another API in OpenAI's form, and what that does not say."""
    options = {name: value for name, value in chat.payload.items() if name != "messages"}
    view = view_in_chat_form(chat.api, chat.payload["messages"], options)
    return replace(chat, api=CHAT, payload={"messages": view.messages, **view.options}), view.gaps


def narrow_chat(
    chat: Chat,
    parameter_names: frozenset[str],
    option_names: frozenset[str],
    max_temperature: float,
    gaps: list[Gap],
    *,
    lenient: bool = False,
) -> Chat:
    """The same chat. parameter_names: parameters of the form; option_names: further options that it has. gaps: parts of
    messages that it cannot say are added; where `lenient`, options too. Raises UnsupportedInput.
    """
    thinks = "thinking" in option_names
    parameters, payload = dict(chat.parameters), {"messages": _narrow_messages(chat.payload["messages"], thinks, gaps)}
    for name, value in chat.payload.items():
        if name == "messages" or value is None or value in DEFAULT_VALUES.get(name, ()):
            continue
        if name == REASONING_SUMMARY and name not in option_names:
            check_reasoning_summary(chat.payload, gaps if lenient else None)
            continue
        if name in parameter_names:
            parameters[name] = [value] if name == "stop" and isinstance(value, str) else value
        elif name == "tools":
            payload |= {"tools": [_narrow_tool(tool) for tool in _require_list(value, name)]} if value else {}
        elif name == "response_format":
            payload |= _response_format(mapping_of(value))
        elif name in option_names:
            payload[name] = value
        elif lenient:
            gaps.append(Gap(f"the option {name}", NO_WORD))
        else:
            raise UnsupportedInput(f"the parameter {name}")
    temperature = parameters.get("temperature", 0)
    if not isinstance(temperature, int | float) or temperature > max_temperature:
        raise UnsupportedInput(f"a temperature of {str(temperature)[:20]}, which is over {max_temperature:g}")
    return replace(chat, payload=payload, parameters=parameters)


def content_parts(content: Any) -> list[dict[str, Any]]:
    """The parts of a message: texts, images, PDFs."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else rows_of(content)


def data_of(part: Mapping[str, Any]) -> tuple[str, str]:
    """Media type and Base64 of an image or a PDF."""
    url = plain_text(mapping_of(part.get("image_url")).get("url") or mapping_of(part.get("file")).get("file_data"))
    head, _, data = url.rpartition(",")
    return head.removeprefix("data:").partition(";")[0] or "application/pdf", data


def check_reasoning_summary(payload: Mapping[str, Any], gaps: list[Gap] | None) -> None:
    """Judge the `reasoning.summary` of a call for an API without a word for it: `auto` holds there, for whatever
    reasoning comes is given back; no other value can be kept. Raises UnsupportedInput where it takes no gaps.
    """
    if (summary := payload.get(REASONING_SUMMARY)) in (None, "auto"):
        return
    if gaps is not None:
        gaps.append(Gap("the option reasoning.summary", NO_WORD))
    else:
        raise UnsupportedInput(f"{str(summary)[:32]!r} as reasoning.summary, only 'auto'")


def tool_choice_of(payload: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and name of a `tool_choice`: auto, none, required or named; ("", "") where there is none."""
    choice = payload.get("tool_choice")
    if isinstance(choice, dict):
        return "named", plain_text(mapping_of(choice.get("function")).get("name"))
    return (choice, "") if isinstance(choice, str) else ("", "")


def _narrow_messages(messages: list[dict[str, Any]], keeps_thoughts: bool, gaps: list[Gap]) -> list[dict[str, Any]]:
    """One message of the system first, then the others, and with their thoughts where the form has such."""
    system = "\n\n".join(
        plain_text(_narrow_content(message, gaps)) for message in messages if message["role"] in SYSTEM_ROLES
    )
    narrowed_messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for message in messages:
        role = message["role"]
        if role in SYSTEM_ROLES:
            continue
        content = _narrow_content(message, gaps)
        if role == "tool":
            narrowed_messages.append(
                {"role": role, "tool_call_id": plain_text(message.get("tool_call_id")), "content": content}
            )
        elif role in ("user", "assistant"):
            calls = [_narrow_call(call) for call in message.get("tool_calls") or ()]
            thoughts = (
                [_narrow_thought(block) for block in rows_of(message.get("thinking_blocks"))] if keeps_thoughts else []
            )
            call_fields = {"tool_calls": calls} if calls else {}
            narrowed_messages.append(
                {"role": role, "content": content} | call_fields | ({"thinking_blocks": thoughts} if thoughts else {})
            )
        else:
            raise UnsupportedInput(f"a message of the role {str(role)[:32]}")
    return narrowed_messages


def _narrow_content(message: Mapping[str, Any], gaps: list[Gap]) -> Any:
    """One text; or parts, where there are images or PDFs beside it."""
    content = message.get("content")
    if not isinstance(content, list):
        return plain_text(content) or plain_text(message.get("refusal"))
    parts = [_narrow_part(part, gaps) for part in rows_of(content)]
    return plain_text(parts) if all(part["type"] == "text" for part in parts) else parts


def _narrow_part(part: dict[str, Any], gaps: list[Gap]) -> dict[str, Any]:
    medium = medium_of(part)
    if medium is None and part.get("type", "text") in ("text", "refusal"):
        return {"type": "text", "text": plain_text(part.get("text")) or plain_text(part.get("refusal"))}
    if medium is not None and medium.kind != "sound":
        return part
    gaps.append(Gap(f"a part of the type {str(part.get('type'))[:32]}", NO_WORD))
    return {"type": "text", "text": gaps[-1].text}


def _narrow_thought(block: Mapping[str, Any]) -> dict[str, str]:
    names = ("type", "thinking", "signature", "data")
    return {name: block[name] for name in names if isinstance(block.get(name), str)}


def _narrow_call(call: dict[str, Any]) -> dict[str, Any]:
    function = mapping_of(call.get("function"))
    if not function:
        raise UnsupportedInput(f"a call of the type {str(call.get('type'))[:32]}")
    function_fields = {"name": plain_text(function.get("name")), "arguments": plain_text(function.get("arguments"))}
    return {"id": call["id"], "type": "function", "function": function_fields}


def _narrow_tool(tool: object) -> dict[str, Any]:
    function = mapping_of(mapping_of(tool).get("function"))
    if not function:
        raise UnsupportedInput(f"a tool of the type {str(mapping_of(tool).get('type'))[:32]}")
    function_fields = {"name": plain_text(function.get("name")), "description": plain_text(function.get("description"))}
    parameters = function.get("parameters")
    return {
        "type": "function",
        "function": {**function_fields, "parameters": parameters or {"type": "object", "properties": {}}},
    }


def _response_format(form: dict[str, Any]) -> dict[str, Any]:
    if form.get("type") == "text":
        return {}
    schema = mapping_of(form.get("json_schema"))
    if form.get("type") != "json_schema" or not isinstance(schema.get("schema"), dict):
        raise UnsupportedInput(f"a response_format of the type {str(form.get('type'))[:32]}")
    return {"response_format": form}


def _require_list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise UnsupportedInput(f"a parameter {name} that is no list")
    return value
