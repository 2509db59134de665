"""A chat of an outside agent in the words that every vendor's form translates; what has no such word is named.

In: messages and options in OpenAI's chat form, with whatever the agent sent. Out: a Chat as `render` makes them, or
Unsupported.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bulkhead_services.model_gateway.providers.fields import mapping, plain, rows
from bulkhead_services.model_gateway.providers.port import Chat

ABOUT_THE_CALLER = frozenset({"user", "metadata", "prompt_cache_key", "safety_identifier", "service_tier"})
"""Options that no answer depends on."""
USUAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "store": (False,),
    "modalities": (["text"],),
    "logprobs": (False,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "tool_choice": ("auto",),
    "parallel_tool_calls": (True,),
}
"""Values that say what holds without them."""
SYSTEM = ("system", "developer")
SUMMARY = "reasoning_summary"
"""The field `reasoning.summary` of OpenAI's responses API, which alone has a word for it."""


class Unsupported(ValueError):
    """A parameter or a part of a message that this form has no word for."""


def narrowed(chat: Chat, takes: frozenset[str], says: frozenset[str], max_temperature: float) -> Chat:
    """The same chat. takes: parameters of the form; says: further options that it has. Raises Unsupported."""
    thinks = "thinking" in says
    parameters, payload = dict(chat.parameters), {"messages": _messages(chat.payload["messages"], thinks)}
    for name, value in chat.payload.items():
        if name == "messages" or value is None or name in ABOUT_THE_CALLER or value in USUAL.get(name, ()):
            continue
        if name == SUMMARY and name not in says:
            check_summary(chat.payload)
            continue
        if name in takes:
            parameters[name] = [value] if name == "stop" and isinstance(value, str) else value
        elif name == "tools":
            payload |= {"tools": [_tool(one) for one in _list(value, name)]} if value else {}
        elif name == "response_format":
            payload |= _response_format(mapping(value))
        elif name in says:
            payload[name] = value
        else:
            raise Unsupported(f"the parameter {name}")
    temperature = parameters.get("temperature", 0)
    if not isinstance(temperature, int | float) or temperature > max_temperature:
        raise Unsupported(f"a temperature of {str(temperature)[:20]}, which is over {max_temperature:g}")
    return replace(chat, payload=payload, parameters=parameters)


def check_summary(payload: Mapping[str, Any]) -> None:
    """Judge the `reasoning.summary` of a call for an API without a word for it: `auto` holds there, for whatever
    reasoning comes is given back; no other value can be kept. Raises Unsupported."""
    if (wanted := payload.get(SUMMARY)) not in (None, "auto"):
        raise Unsupported(f"{str(wanted)[:32]!r} as reasoning.summary, only 'auto'")


def choice_of(payload: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and name of a `tool_choice`: auto, none, required or named; ("", "") where there is none."""
    choice = payload.get("tool_choice")
    if isinstance(choice, dict):
        return "named", plain(mapping(choice.get("function")).get("name"))
    return (choice, "") if isinstance(choice, str) else ("", "")


def _messages(messages: list[dict[str, Any]], thinks: bool) -> list[dict[str, Any]]:
    """One message of the system first, then the others with their text, and with their thoughts where the form has
    such."""
    system = "\n\n".join(_text(one) for one in messages if one["role"] in SYSTEM)
    found: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for message in messages:
        role, text = message["role"], _text(message)
        if role in SYSTEM:
            continue
        if role == "tool":
            found.append({"role": role, "tool_call_id": plain(message.get("tool_call_id")), "content": text})
        elif role in ("user", "assistant"):
            calls = [_call(one) for one in message.get("tool_calls") or ()]
            thoughts = [_thought(one) for one in rows(message.get("thinking_blocks"))] if thinks else []
            more = {"tool_calls": calls} if calls else {}
            found.append({"role": role, "content": text} | more | ({"thinking_blocks": thoughts} if thoughts else {}))
        else:
            raise Unsupported(f"a message of the role {str(role)[:32]}")
    return found


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    for part in rows(content):
        if part.get("type", "text") != "text":
            raise Unsupported(f"a part of a message of the type {str(part.get('type'))[:32]}")
    return plain(content) or plain(message.get("refusal"))


def _thought(block: Mapping[str, Any]) -> dict[str, str]:
    names = ("type", "thinking", "signature", "data")
    return {name: block[name] for name in names if isinstance(block.get(name), str)}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = mapping(call.get("function"))
    if not function:
        raise Unsupported(f"a call of the type {str(call.get('type'))[:32]}")
    told = {"name": plain(function.get("name")), "arguments": plain(function.get("arguments"))}
    return {"id": call["id"], "type": "function", "function": told}


def _tool(tool: object) -> dict[str, Any]:
    function = mapping(mapping(tool).get("function"))
    if not function:
        raise Unsupported(f"a tool of the type {str(mapping(tool).get('type'))[:32]}")
    told = {"name": plain(function.get("name")), "description": plain(function.get("description"))}
    parameters = function.get("parameters")
    return {"type": "function", "function": {**told, "parameters": parameters or {"type": "object", "properties": {}}}}


def _response_format(form: dict[str, Any]) -> dict[str, Any]:
    if form.get("type") == "text":
        return {}
    schema = mapping(form.get("json_schema"))
    if form.get("type") != "json_schema" or not isinstance(schema.get("schema"), dict):
        raise Unsupported(f"a response_format of the type {str(form.get('type'))[:32]}")
    return {"response_format": form}


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise Unsupported(f"a parameter {name} that is no list")
    return value
