"""Options of a call in OpenAI's chat form: those on the list are checked and passed on, others refused. Pure."""

import hashlib
import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from bulkhead.model_apis.allowed import CHAT_OPTIONS, CHEAP_TIERS, NESTED_OPTIONS, unlisted_option
from bulkhead.model_apis.bounding import text_type_of
from bulkhead.model_apis.media import drop_largest
from bulkhead_contracts import bounds
from bulkhead_services.doors.forms.fields import Fields, unfit_field, unsupported_field
from bulkhead_services.doors.forms.sse import to_json
from bulkhead_services.doors.port import DoorRefusal, ParsedModelCall

NOT_ANSWERED = {
    "logprobs": "answers hold no log probabilities",
    "top_logprobs": "answers hold no log probabilities",
    "audio": "answers are text",
    "web_search_options": "answers hold no citations of the provider; give the agent a search tool",
    "moderation": "answers hold no scores of the provider's moderation",
}
"""Options whose effect an answer of the mesh cannot show."""
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
KEPT_HERE = ("user", "metadata", "store", "prompt_cache_key", "prompt_cache_retention", "safety_identifier")
"""They name the run, or say what a provider should keep; the record is the mesh's own."""
_OWN_PROVIDER = "the settings of the mesh say which provider is called, and with which key"
_BY_MAX_TOKENS = "the reservation bounds thoughts and answer together"
_INSTEAD = {
    "extra_body": ("its fields stand in the body itself", "send those that are supported beside `model`"),
    "extra_headers": (_OWN_PROVIDER, "leave it out"),
    **dict.fromkeys(
        ("api_base", "base_url", "api_key", "api_version", "organization"), (_OWN_PROVIDER, "leave it out")
    ),
    "max_output_tokens": ("this API calls it otherwise", "send max_completion_tokens"),
    "max_tokens_to_sample": ("this API calls it otherwise", "send max_completion_tokens"),
    "max_new_tokens": ("this API calls it otherwise", "send max_completion_tokens"),
    "thinking_budget": (_BY_MAX_TOKENS, "send reasoning_effort, and max_completion_tokens for the most of both"),
    "enable_thinking": (_BY_MAX_TOKENS, "send reasoning_effort"),
    "reasoning": (_BY_MAX_TOKENS, "send reasoning_effort"),
    "background": ("a call is answered while its client waits", "leave it out"),
    "data_sources": ("what a provider searches has no price here", "give the agent a search tool"),
    "prediction": ("what a model rejects of it is paid for beyond any bound", "leave it out"),
    "best_of": ("one answer is paid for", "send several requests"),
}
"""Reason and remedy of options that are often sent and are on no list."""
_UNLISTED = (
    "it is not among the options whose cost is bounded",
    "leave it out; the page on agents lists what is passed on",
)
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
CHOICES = ("none", "auto", "required")


def check_sizes(parsed_call: ParsedModelCall) -> None:
    """Each message is stored as one blob, and so are all options together. Raises DoorRefusal 413."""
    parts = [(f"messages[{index}]", message) for index, message in enumerate(parsed_call.messages)]
    for name, part in [*parts, ("the options", parsed_call.options)]:
        if len(to_json(part).encode()) > bounds.MAX_BLOB_BYTES:
            problem = f"{name} is larger than {bounds.MAX_BLOB_BYTES} bytes"
            raise DoorRefusal(413, "too_large", problem, "send smaller images, or fewer in one message", field=name)


def fit_messages(parsed_call: ParsedModelCall) -> ParsedModelCall:
    """The same call, without images and documents that have no room in their message: one that is refused would be
    refused for ever, with the whole history that it stands in."""
    text_type, left_out = text_type_of(parsed_call.api), list(parsed_call.left_out)
    fitted = [drop_largest(message, bounds.MAX_BLOB_BYTES, text_type) for message in parsed_call.messages]
    left_out += [str(gap) for _, gaps in fitted for gap in gaps]
    return replace(parsed_call, messages=tuple(message for message, _ in fitted), left_out=tuple(left_out))


def session_of(body: Fields) -> str:
    """A name of the conversation that the body holds: metadata.session, prompt_cache_key, or user."""
    metadata = body.get_object("metadata")
    named = metadata.get_text("session") if metadata is not None else None
    return session_name(named or body.get_text("prompt_cache_key") or body.get_text("user") or "")


def session_name(text: str) -> str:
    """A name of bounded length; two long ones are as different as their texts."""
    return text if len(text) <= bounds.MAX_SUMMARY_CHARS else hashlib.sha256(text.encode()).hexdigest()


def refuse_unlisted(body: Fields, listed: Collection[str] = ()) -> None:
    """Refuse the first field that nobody took and that is not on this list, or a field of one that is, by its name.
    Raises DoorRefusal."""
    nested = {name: value for name, value in body.as_dict().items() if name in listed and name in NESTED_OPTIONS}
    if name := unlisted_option(body.remaining_fields(), listed) or unlisted_option(nested, listed):
        objection, hint = _INSTEAD.get(name, _UNLISTED)
        raise unsupported_field(body.field_path(name), objection, hint)


def check_thinking(body: Fields, most: int | None) -> dict[str, Any]:
    """The mode of a model's thinking, as Anthropic words it; {} where it is not set. most: of output tokens, thoughts
    among them."""
    thinking = body.get_object("thinking")
    if thinking is None:
        return {}
    thinking.require_text("type", bounds.MAX_NAME_CHARS)
    budget = thinking.get_integer("budget_tokens", 1, bounds.MAX_ASKED_OUTPUT_TOKENS)
    if budget is not None and most is not None and budget >= most:
        problem = f"must be less than the most output tokens ({most}), which it is part of, and is {budget}"
        raise unfit_field(thinking.field_path("budget_tokens"), problem)
    thinking.get_choice("display", ("summarized", "omitted", "updates"))
    return thinking.as_dict()


def options_of(body: Fields, most: int | None = None) -> dict[str, Any]:
    """The options that are passed on, checked; everything that nobody took and that is not on the list is refused.
    most: output tokens."""
    for name in KEPT_HERE:
        body.get_raw(name)
    if body.get_raw("modalities") not in (None, ["text"]):
        raise unsupported_field(body.field_path("modalities"), "answers are text", "leave it out, or send ['text']")
    refuse_unlisted(body, CHAT_OPTIONS)
    options = body.remaining_fields()
    check_thinking(body, most)
    check_tier(body)
    body.get_number("temperature", 0, 2)
    body.get_number("top_p", 0, 1)
    body.get_number("frequency_penalty", -2, 2)
    body.get_number("presence_penalty", -2, 2)
    body.get_integer("seed", -(2**63), 2**63 - 1)
    body.get_flag("parallel_tool_calls")
    body.get_choice("reasoning_effort", EFFORTS)
    if isinstance(body.get_raw("stop"), list):
        body.get_texts("stop", 4)
    else:
        body.get_text("stop")
    named = _check_tools(body)
    _check_choice(body, named)
    _check_format(body)
    return options


def check_tier(body: Fields) -> None:
    """The tier of a call: one that has a price."""
    if body.get_text("service_tier") not in (None, *CHEAP_TIERS):
        raise unsupported_field(body.field_path("service_tier"), "dearer tiers have no price here", "send default")


def check_function(function: Fields, named: set[str]) -> None:
    """A function that the model may call: its name, said once, and the outline of its schema."""
    name = function.require_text("name")
    if not _TOOL_NAME.fullmatch(name):
        raise unfit_field(function.field_path("name"), "must have 1 to 64 of A-Z a-z 0-9 _ -")
    if name in named:
        raise unfit_field(function.field_path("name"), f"is {name!r}, as another tool's already is")
    named.add(name)
    function.get_text("description")
    function.get_flag("strict")
    if schema := function.get_object("parameters"):
        check_schema(schema)


def check_schema(schema: Fields) -> None:
    """The outline of a JSON schema for an object."""
    if schema.get_raw("type") not in (None, "object"):
        raise unfit_field(schema.field_path("type"), "must be object: a tool takes named arguments")
    for name in ("properties", "$defs"):
        if rows := schema.get_object(name):
            for key, row in rows.as_dict().items():
                if not isinstance(row, dict | bool):
                    raise unfit_field(f"{rows.at}.{key}", "must be a JSON schema (an object)")
    schema.get_texts("required", bounds.MAX_SCHEMA_BYTES)


def check_tool_count(body: Fields) -> list[Fields]:
    """The tools of a request."""
    return body.get_objects("tools", bounds.MAX_ASKED_TOOLS) or []


def _check_tools(body: Fields) -> set[str]:
    named: set[str] = set()
    for tool in check_tool_count(body):
        if tool.require_text("type") != "function":
            raise unsupported_field(tool.field_path("type"), "tools here are functions", "send type: function")
        function = tool.require_object("function")
        check_function(function, named)
    return named


def _check_choice(body: Fields, named: set[str]) -> None:
    value = body.get_raw("tool_choice")
    if not isinstance(value, dict):
        body.get_choice("tool_choice", CHOICES)
        return
    choice = Fields(value, body.field_path("tool_choice"))
    if choice.require_text("type") != "function":
        return  # A provider may know it.
    function = choice.require_object("function")
    if function.require_text("name") not in named:
        raise unfit_field(function.field_path("name"), "is not among the tools")


def _check_format(body: Fields) -> None:
    form = body.get_object("response_format")
    if form is None:
        return
    if form.require_text("type") == "json_schema":
        schema = form.require_object("json_schema")
        schema.require_text("name", bounds.MAX_NAME_CHARS)
        schema.get_object("schema")
