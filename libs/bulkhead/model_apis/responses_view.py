"""OpenAI's responses in its chat form, where tools have neither namespaces nor free text. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bulkhead.model_apis.allowed import RESPONSES, is_passed_tool, tool_name
from bulkhead.model_apis.chat_view import (
    ChatView,
    add_tool_result,
    content_of,
    fields_of,
    file_part,
    flat_tool_name,
    objects_in,
    text_in,
)

FREE_TEXT = "input"
"""The one argument of the function that stands for a tool of free text."""
_SAME = ("temperature", "top_p", "parallel_tool_calls", "service_tier")
_HINTS = ("instructions", "tools", "tool_choice", "include", "prompt_cache_key")


def view_responses(rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> ChatView:
    """The chat form of items and options."""
    view = ChatView()
    if instructions := text_in(options.get("instructions")):
        view.messages.append({"role": "system", "content": instructions})
    _add_options(view, options)
    media = list[dict[str, Any]]()
    for row in rows:
        if media and not text_in(row.get("type")).endswith("_output"):
            view.messages.append({"role": "user", "content": media})
            media = []
        media += _add_item(view, row)
    if media:
        view.messages.append({"role": "user", "content": media})
    return view.close()


def named_tools(tools: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The functions and tools of free text, each with the namespace in which it stands."""
    for tool in objects_in(tools):
        if tool.get("type") == "namespace":
            for _, inner in named_tools(tool.get("tools")):
                yield text_in(tool.get("name")), inner
        elif tool.get("type") in ("function", "custom"):
            yield "", tool


def _add_tools(view: ChatView, tools: object) -> None:
    for namespace, tool in named_tools(tools):
        name = flat_tool_name(namespace, tool.get("name"))
        if tool["type"] == "function":
            view.add_tool(name, tool, tool.get("parameters"))
            continue
        grammar = text_in(fields_of(tool.get("format")).get("definition"))
        description = f"{text_in(tool.get('description'))}\nThe input follows this grammar:\n{grammar}"
        schema = {"type": "object", "properties": {FREE_TEXT: {"type": "string"}}, "required": [FREE_TEXT]}
        view.add_tool(name, {"description": description} if grammar else tool, schema)
    for tool in objects_in(tools):
        if tool.get("type") not in ("function", "custom", "namespace") and is_passed_tool(RESPONSES, tool):
            view.gap(f"the tool {tool_name(tool)}")


def _add_options(view: ChatView, options: Mapping[str, Any]) -> None:
    _add_tools(view, options.get("tools"))
    for name, value in options.items():
        if name in _SAME:
            view.options[name] = value
        elif name == "text":
            _add_text_options(view, fields_of(value))
        elif name == "reasoning":
            _add_reasoning_options(view, fields_of(value))
        elif name not in _HINTS:
            view.gap(f"the option {name}")
    choice = options.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") in ("function", "custom"):
        name = flat_tool_name(choice.get("namespace"), choice.get("name"))
        view.options["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif isinstance(choice, str):
        view.options["tool_choice"] = choice
    elif choice is not None:
        view.gap("the option tool_choice")


def _add_text_options(view: ChatView, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name == "verbosity":
            view.options["verbosity"] = value
        elif name == "format":
            form = fields_of(value)
            schema = {key: row for key, row in form.items() if key != "type"}
            is_schema = form.get("type") == "json_schema"
            view.options["response_format"] = {"type": "json_schema", "json_schema": schema} if is_schema else form
        else:
            view.gap(f"the option text.{name}")


def _add_reasoning_options(view: ChatView, fields: Mapping[str, Any]) -> None:
    names = {"effort": "reasoning_effort", "summary": "reasoning_summary", "generate_summary": "reasoning_summary"}
    for name, value in fields.items():
        if name in names and value is not None:
            view.options[names[name]] = value
        elif value is not None:
            view.gap(f"the option reasoning.{name}")


def _add_item(view: ChatView, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Add one item; returns the images and documents of a tool's result."""
    kind, namespace = row.get("type") or "message", row.get("namespace")
    match kind:
        case "message":
            role = "system" if row.get("role") == "developer" else text_in(row.get("role"))
            view.messages.append({"role": role, "content": _message_content(view, role, row.get("content"))})
        case "reasoning":
            if row.get("encrypted_content"):
                view.gap("an encrypted thought")
        case "additional_tools":
            _add_tools(view, row.get("tools"))
        case "function_call":
            view.add_call(row.get("call_id"), row.get("name"), text_in(row.get("arguments")), namespace)
        case "custom_tool_call":
            arguments = json.dumps({FREE_TEXT: text_in(row.get("input"))}, ensure_ascii=False)
            view.add_call(row.get("call_id"), row.get("name"), arguments, namespace)
        case "function_call_output" | "custom_tool_call_output":
            parts = _parts_of(view, row.get("output"))
            media = [part for part in parts if part["type"] != "text"]
            text = "\n".join(part["text"] for part in parts if part["type"] == "text")
            add_tool_result(view, row.get("call_id"), text, media)
            return media
        case _:
            view.messages.append({"role": "system", "content": view.gap(f"an item of the type {kind}")})
    return []


def _message_content(view: ChatView, role: str, content: object) -> Any:
    if isinstance(content, str):
        return content
    parts = _parts_of(view, content)
    if role == "assistant" and all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return content_of(parts)


def _parts_of(view: ChatView, content: object) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [_part_of(view, part) for part in objects_in(content)]


def _part_of(view: ChatView, part: Mapping[str, Any]) -> dict[str, Any]:
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": text_in(part.get("text"))}
        case "refusal":
            return {"type": "text", "text": text_in(part.get("refusal"))}
        case "input_image":
            image = {"url": text_in(part.get("image_url"))}
            detail = part.get("detail")
            return {"type": "image_url", "image_url": image | ({"detail": detail} if detail else {})}
        case "input_file":
            return file_part(text_in(part.get("file_data")), "application/pdf", part.get("filename") or "file")
        case kind:
            return {"type": "text", "text": view.gap(f"a part of the type {kind}")}
