"""Google's Gemini. Thoughts, and code that the provider runs itself, are no part of an answer."""

import json
from typing import Any
from urllib.parse import quote

from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.providers.assembly import FILTERED, MALFORMED, Assembly
from bulkhead_services.model_gateway.providers.fields import count, mapping, plain, read_object, rows, short, usage_of
from bulkhead_services.model_gateway.providers.narrowing import choice_of
from bulkhead_services.model_gateway.providers.port import Chat, Outgoing, encode

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


def request(chat: Chat) -> Outgoing:
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
        parts = _parts(message, names)
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
    kind, name = choice_of(chat.payload)
    if mode := _MODES.get(kind):
        named = {"allowedFunctionNames": [name]} if name else {}
        payload["toolConfig"] = {"functionCallingConfig": {"mode": mode, **named}}
    if tools := chat.payload.get("tools"):
        payload["tools"] = [{"functionDeclarations": [_declared(tool["function"]) for tool in tools]}]
    return Outgoing(f"models/{quote(chat.model, safe='')}:streamGenerateContent?alt=sse", encode(payload))


def _declared(function: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": function["name"],
        "description": function["description"],
        "parametersJsonSchema": function["parameters"],
    }


def _parts(message: dict[str, Any], names: dict[str, str]) -> list[dict[str, Any]]:
    if message["role"] == "tool":
        given = read_object(message["content"])
        response = given if given is not None else {"result": message["content"]}
        return [{"functionResponse": {"name": names.get(message["tool_call_id"], "tool"), "response": response}}]
    parts: list[dict[str, Any]] = [{"text": message["content"]}] if message.get("content") else []
    for call in message.get("tool_calls", ()):
        function = call["function"]
        made = {"name": function["name"], "args": read_object(function["arguments"]) or {}}
        parts.append({"functionCall": made, "thoughtSignature": UNSIGNED})
    return parts or [{"text": "(nothing)"}]


class GenerationAssembly(Assembly):
    """One answer out of a generation or out of its chunks, which have the same form."""

    def __init__(self, outgoing: Outgoing | None = None) -> None:
        super().__init__(outgoing)
        self._made = 0

    def _event(self, found: dict[str, Any]) -> None:
        self._taken(found)

    def _whole(self, found: dict[str, Any]) -> None:
        if not rows(found.get("candidates")) and not mapping(found.get("promptFeedback")).get("blockReason"):
            self._no_answer("candidates")
        else:
            self._taken(found)

    def _taken(self, found: dict[str, Any]) -> None:
        self._model = short(found.get("modelVersion")) or self._model
        if blocked := short(mapping(found.get("promptFeedback")).get("blockReason")):
            self._finish = f"{FILTERED}: the prompt was blocked ({blocked})"
        candidate: dict[str, Any] = next(iter(rows(found.get("candidates"))), {})
        if reason := short(candidate.get("finishReason")):
            self._finish = _REASONS.get(reason, reason)
        if self._finish:
            # Before its end an answer that is cut off has used more than the counts say.
            self.usage = _usage(found.get("usageMetadata")) or self.usage
        for part in rows(mapping(candidate.get("content")).get("parts")):
            if not part.get("thought"):
                self._add(plain(part.get("text")))
            if call := mapping(part.get("functionCall")):
                self._call(self._made, call.get("id"), plain(call.get("name")), json.dumps(call.get("args") or {}))
                self._made += 1
            if part.get("inlineData") or part.get("fileData"):
                kind = mapping(part.get("inlineData") or part.get("fileData")).get("mimeType")
                self._leave_out(f"a file of type {short(kind) or 'unknown'}")


def _usage(found: object) -> Usage | None:
    """Thoughts are paid as output, and what the provider's own tools read as input."""
    if not isinstance(found, dict) or found.get("promptTokenCount") is None:
        return None
    names = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    prompt, used, said, thought = (count(found.get(name)) for name in names)
    if prompt is None or used is None or said is None or thought is None:
        return None
    return usage_of(prompt + used, said + thought, count(found.get("cachedContentTokenCount")), thought)
