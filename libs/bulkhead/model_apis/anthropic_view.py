"""Anthropic's messages in OpenAI's chat form. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bulkhead.model_apis.allowed import ANTHROPIC, BETAS, is_passed_tool, tool_name
from bulkhead.model_apis.chat_view import (
    ChatView,
    add_tool_result,
    content_of,
    fields_of,
    file_part,
    objects_in,
    text_in,
)

THOUGHTS = ("thinking", "redacted_thinking")
_SAME = ("temperature", "top_p", "top_k")
_HINTS = ("system", "tools", "tool_choice", "cache_control", BETAS)
"""Options that change no answer, or that are said otherwise."""
_CHOICES = {"any": "required", "auto": "auto", "none": "none"}


def view_anthropic(rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> ChatView:
    """The chat form of messages and options."""
    view = ChatView()
    if system := _system_text(options.get("system"), "\n\n"):
        view.messages.append({"role": "system", "content": system})
    _add_options(view, options)
    for row in rows:
        match row.get("role"):
            case "system":
                _add_system(view, row.get("content"))
            case "assistant":
                _add_assistant(view, row.get("content"))
            case _:
                _add_user(view, row.get("content"))
    return view.close()


def _add_options(view: ChatView, options: Mapping[str, Any]) -> None:
    for tool in objects_in(options.get("tools")):
        _add_tool(view, tool)
    for name, value in options.items():
        if name in _SAME:
            view.options[name] = value
        elif name == "stop_sequences":
            view.options["stop"] = value
        elif name == "output_config":
            _add_output_config(view, fields_of(value))
        elif name not in _HINTS and not (name == "thinking" and fields_of(value).get("type") == "disabled"):
            view.gap(f"the option {name}")
    choice = fields_of(options.get("tool_choice"))
    if mode := _CHOICES.get(text_in(choice.get("type"))):
        view.options["tool_choice"] = mode
    elif choice.get("type") == "tool":
        view.options["tool_choice"] = {"type": "function", "function": {"name": text_in(choice.get("name"))}}
    if isinstance(alone := choice.get("disable_parallel_tool_use"), bool):
        view.options["parallel_tool_calls"] = not alone


def _add_output_config(view: ChatView, config: Mapping[str, Any]) -> None:
    for name, value in config.items():
        if name == "effort":
            view.options["reasoning_effort"] = value
        elif name == "format":
            schema = {"name": "answer", "strict": True, "schema": fields_of(value).get("schema")}
            view.options["response_format"] = {"type": "json_schema", "json_schema": schema}
        else:
            view.gap(f"the option output_config.{name}")


def _add_tool(view: ChatView, tool: Mapping[str, Any]) -> None:
    if "input_schema" in tool:
        view.add_tool(text_in(tool.get("name")), tool, tool.get("input_schema"))
    elif is_passed_tool(ANTHROPIC, tool):  # Others are left out for every provider.
        view.gap(f"the tool {tool_name(tool)}")


def _system_text(value: object, joint: str) -> str:
    if isinstance(value, str):
        return value
    return joint.join(text for block in objects_in(value) if (text := text_in(block.get("text"))))


def _add_system(view: ChatView, content: object) -> None:
    for block in objects_in(content):
        definition = fields_of(fields_of(block.get("tool")).get("definition"))
        if block.get("type") == "tool_addition" and definition:
            _add_tool(view, definition)
        elif block.get("type") == "tool_removal":
            view.remove_tool(text_in(fields_of(block.get("tool")).get("name")))
    if text := _system_text(content, "\n\n"):
        view.messages.append({"role": "system", "content": text})


def _add_assistant(view: ChatView, content: object) -> None:
    if isinstance(content, str):
        view.messages.append({"role": "assistant", "content": content})
        return
    texts = list[str]()
    message: dict[str, Any] = {"role": "assistant", "content": None}
    view.messages.append(message)
    for block in objects_in(content):
        match block.get("type"):
            case "text":
                texts.append(text_in(block.get("text")))
            case "tool_use":
                arguments = json.dumps(fields_of(block.get("input")), ensure_ascii=False, separators=(",", ":"))
                view.add_call(block.get("id"), block.get("name"), arguments)
            case kind if kind in THOUGHTS:
                view.gap("a signed thought")
            case kind:
                texts.append(view.gap(str(kind)))
    message["content"] = "".join(texts) or (None if "tool_calls" in message else "")


def _add_user(view: ChatView, content: object) -> None:
    """Results of tools stand before the user's own words: they answer the message before."""
    if isinstance(content, str):
        view.messages.append({"role": "user", "content": content})
        return
    parts = list[dict[str, Any]]()
    results = [block for block in objects_in(content) if block.get("type") == "tool_result"]
    for block in results:
        parts += _add_result(view, block)
    for block in objects_in(content):
        if block.get("type") != "tool_result":
            parts += _parts_of(view, block)
    if parts:
        view.messages.append({"role": "user", "content": content_of(parts)})


def _add_result(view: ChatView, block: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Add one result; returns its images and documents."""
    content = block.get("content")
    parts = [part for row in objects_in(content) for part in _parts_of(view, row)]
    text = content if isinstance(content, str) else "\n".join(p["text"] for p in parts if p["type"] == "text")
    media = [part for part in parts if part["type"] != "text"]
    if block.get("is_error"):
        # The chat form has no mark for it, and a model must not take a failure for a result.
        text = f"Error: {text}"
    add_tool_result(view, block.get("tool_use_id"), text, media)
    return media


def _parts_of(view: ChatView, block: Mapping[str, Any]) -> list[dict[str, Any]]:
    source = fields_of(block.get("source"))
    data = text_in(source.get("data"))
    match block.get("type"), source.get("type"):
        case "text", _:
            return [_text_part(block.get("text"))]
        case "image", "base64":
            url = f"data:{source.get('media_type')};base64,{data}"
            return [{"type": "image_url", "image_url": {"url": url}}]
        case "document", "base64":
            return [file_part(data, str(source.get("media_type")), block.get("title"))]
        case "document", "text":
            return [_text_part(data)]
        case "document", "content":
            return [part for row in objects_in(source.get("content")) for part in _parts_of(view, row)]
        case "search_result", _:
            return [_text_part(_system_text(block.get("content"), "\n"))]
        case "tool_reference", _:
            return [_text_part(f"[tool {block.get('tool_name')}]")]
        case kind, _:
            return [_text_part(view.gap(str(kind)))]


def _text_part(text: object) -> dict[str, Any]:
    return {"type": "text", "text": text_in(text)}
