"""Google's Gemini. Thoughts, and code that the provider runs itself, are no part of an answer."""

import json
from collections import Counter
from typing import Any
from urllib.parse import quote

from bulkhead.model_apis.token_counts import token_count
from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.providers.assembly import FILTERED, MALFORMED, Assembly
from bulkhead_services.model_gateway.providers.fields import (
    mapping_of,
    plain_text,
    read_object,
    rows_of,
    short_text,
    usage_of,
)
from bulkhead_services.model_gateway.providers.narrowing import content_parts, data_of, tool_choice_of
from bulkhead_services.model_gateway.providers.port import Chat, ProviderRequest, encode_payload

UNSIGNED = "skip_thought_signature_validator"
"""Signature of a call whose own was not kept (Gemini 3 refuses a call without one; the provider documents this)."""
_NAMES = {"top_p": "topP", "stop": "stopSequences"}
_MODES = {"none": "NONE", "required": "ANY", "named": "ANY"}
_FILTERS = (
    *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "ESCALATION", "MODEL_ARMOR"),
    *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "PUP_LIMITED_DISABLED"),
)
_UNREADABLE = ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE", "TOO_MANY_TOOL_CALLS")
_REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    **{reason: f"{FILTERED}: {reason}" for reason in _FILTERS},
    **{reason: f"{MALFORMED}: {reason}" for reason in _UNREADABLE},
}


def build_request(chat: Chat) -> ProviderRequest:
    """One generation, streamed. Its path names the model."""
    system = ""
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in chat.payload["messages"]:
        if message["role"] == "system":
            system = message["content"]
            continue
        names |= {call["id"]: call["function"]["name"] for call in message.get("tool_calls", ())}
        role = "model" if message["role"] == "assistant" else "user"
        parts = _message_parts(message, names)
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": role, "parts": parts})
    config: dict[str, Any] = {"maxOutputTokens": chat.output_tokens}
    config |= {_NAMES.get(name, name): value for name, value in chat.parameters.items()}
    if form := chat.payload.get("response_format"):
        config |= {"responseMimeType": "application/json", "responseJsonSchema": form["json_schema"]["schema"]}
    payload: dict[str, Any] = {"systemInstruction": {"parts": [{"text": system}]}} if system else {}
    payload |= {"contents": contents, "generationConfig": config}
    kind, name = tool_choice_of(chat.payload)
    if mode := _MODES.get(kind):
        allowed_function = {"allowedFunctionNames": [name]} if name else {}
        payload["toolConfig"] = {"functionCallingConfig": {"mode": mode, **allowed_function}}
    if tools := chat.payload.get("tools"):
        payload["tools"] = [{"functionDeclarations": [_declaration_of(tool["function"]) for tool in tools]}]
    return ProviderRequest(
        f"models/{quote(chat.model, safe='')}:streamGenerateContent?alt=sse", encode_payload(payload)
    )


def _declaration_of(function: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": function["name"],
        "description": function["description"],
        "parametersJsonSchema": function["parameters"],
    }


def _message_parts(message: dict[str, Any], names: dict[str, str]) -> list[dict[str, Any]]:
    content = message.get("content")
    shown_parts = [_part_of(part) for part in content_parts(content)] if content else []
    if message["role"] == "tool":
        text = plain_text(content if isinstance(content, str) else [part for part in shown_parts if "text" in part])
        document = read_object(text)
        response = document if document is not None else {"result": text}
        result = {"functionResponse": {"name": names.get(message["tool_call_id"], "tool"), "response": response}}
        return [result, *(part for part in shown_parts if "text" not in part)]
    parts = shown_parts
    for call in message.get("tool_calls", ()):
        function = call["function"]
        call_fields = {"name": function["name"], "args": read_object(function["arguments"]) or {}}
        parts.append({"functionCall": call_fields, "thoughtSignature": UNSIGNED})
    return parts or [{"text": "(nothing)"}]


def _part_of(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"text": part["text"]}
    media_type, data = data_of(part)
    return {"inlineData": {"mimeType": media_type, "data": data}}


class GenerationAssembly(Assembly):
    """One answer out of a generation or out of its chunks, which have the same form."""

    def __init__(self, outgoing: ProviderRequest | None = None) -> None:
        super().__init__(outgoing)
        self._made = 0

    def _apply_event(self, event: dict[str, Any]) -> None:
        self._apply_chunk(event)

    def _apply_body(self, body: dict[str, Any]) -> None:
        if not rows_of(body.get("candidates")) and not mapping_of(body.get("promptFeedback")).get("blockReason"):
            self._set_no_answer_fault("candidates")
        else:
            self._apply_chunk(body)

    def _read_usage(self, body: dict[str, Any]) -> Usage | None:
        return _usage_of_counts(body.get("usageMetadata"))

    def _apply_chunk(self, chunk: dict[str, Any]) -> None:
        self._model = short_text(chunk.get("modelVersion")) or self._model
        if blocked := short_text(mapping_of(chunk.get("promptFeedback")).get("blockReason")):
            self._finish = f"{FILTERED}: the prompt was blocked ({blocked})"
        candidate: dict[str, Any] = next(iter(rows_of(chunk.get("candidates"))), {})
        if reason := short_text(candidate.get("finishReason")):
            self._finish = _REASONS.get(reason, reason)
        self._tell_usage(self._read_usage(chunk))
        for part in rows_of(mapping_of(candidate.get("content")).get("parts")):
            if not part.get("thought"):
                self._add_text(plain_text(part.get("text")))
            if call := mapping_of(part.get("functionCall")):
                self._add_call(
                    self._made, call.get("id"), plain_text(call.get("name")), json.dumps(call.get("args") or {})
                )
                self._made += 1
            if part.get("inlineData") or part.get("fileData"):
                kind = mapping_of(part.get("inlineData") or part.get("fileData")).get("mimeType")
                self._note_non_text(f"a file of type {short_text(kind) or 'unknown'}")


def _usage_of_counts(counts: object) -> Usage | None:
    """Thoughts are paid as output, and what the provider's own tools read as input."""
    if not isinstance(counts, dict):
        return None
    names = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    prompt, tool_prompt, completion, thought = (token_count(counts.get(name)) or 0 for name in names)
    sent, cached = _modality_counts(counts, "promptTokensDetails"), _modality_counts(counts, "cacheTokensDetails")
    input_counts, output_counts = (
        _modality_counts(counts, "toolUsePromptTokensDetails"),
        _modality_counts(counts, "candidatesTokensDetails"),
    )
    return usage_of(
        prompt + tool_prompt,
        completion + thought,
        token_count(counts.get("cachedContentTokenCount")),
        thought,
        token_count(counts.get("totalTokenCount")),
        input_audio_tokens=sent["AUDIO"] + input_counts["AUDIO"],
        cached_audio_tokens=cached["AUDIO"],
        input_image_tokens=sent["IMAGE"] + input_counts["IMAGE"],
        output_audio_tokens=output_counts["AUDIO"],
        output_image_tokens=output_counts["IMAGE"],
    )


def _modality_counts(counts: dict[str, Any], name: str) -> Counter[str]:
    """Tokens of each modality that is told."""
    rows = rows_of(counts.get(name))
    return Counter({plain_text(row.get("modality")): token_count(row.get("tokenCount")) or 0 for row in rows})
