"""Which role a request asks for, and its reply. Enters: a request body. Leaves: `Reply`.

The role follows from the response schema: one with `steps` asks for a plan, one with `verdict` for a judgement; every
other request is the worker's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bulkhead_infra.offline_model.language.text import MARKER
from bulkhead_infra.offline_model.parts import read_prompt
from bulkhead_infra.offline_model.roles import answering, calling
from bulkhead_infra.offline_model.roles.calling import Call
from bulkhead_infra.offline_model.roles.judging import judge
from bulkhead_infra.offline_model.roles.planning import make_plan
from bulkhead_infra.offline_model.schema import conform, resolve

ANSWER_KEYS = ("answer", "text", "result", "content", "output", "summary", "response")


@dataclass(frozen=True)
class Reply:
    """Text or tool calls; `role` is plan, judge or work."""

    role: str
    content: str
    calls: tuple[Call, ...] = ()


def response_schema(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON schema of the answer; empty for plain text."""
    form = request.get("response_format") or {}
    if form.get("type") != "json_schema":
        return {}
    return (form.get("json_schema") or {}).get("schema") or {}


def role_of(request: Mapping[str, Any]) -> str:
    """plan, judge or work, by the shape of the response schema."""
    schema = response_schema(request)
    properties = resolve(schema, schema).get("properties") or {}
    return "plan" if "steps" in properties else "judge" if "verdict" in properties else "work"


def reply_to(request: Mapping[str, Any]) -> Reply:
    """The reply to a request: same request, same reply."""
    prompt = read_prompt(request.get("messages") or ())
    schema = response_schema(request)
    role = role_of(request)
    if role == "plan":
        return Reply(role, _json(conform(make_plan(prompt), schema, schema)))
    if role == "judge":
        return Reply(role, _json(conform(judge(prompt), schema, schema)))
    offered = calling.offered_tools(request)
    turn = answering.read_turn(prompt, offered)
    calls = answering.next_calls(turn) if offered else []
    calls = _chosen(request, calls, turn)
    if calls:
        single = request.get("parallel_tool_calls") is False
        return Reply(role, "", tuple(calls[:1] if single else calls))
    answer = answering.final_answer(turn)
    if schema:
        return Reply(role, _json(shaped(answer, schema)))
    if (request.get("response_format") or {}).get("type") == "json_object":
        return Reply(role, _json({"answer": answer, "citations": cited(answer)}))
    return Reply(role, answer)


def _chosen(request: Mapping[str, Any], calls: list[Call], turn: answering.Turn) -> list[Call]:
    """Calls as `tool_choice` wants them: a named tool alone, or any tool when one is required."""
    choice = request.get("tool_choice")
    named = (choice.get("function") or {}).get("name") if isinstance(choice, dict) else None
    if named and named in turn.offered:
        fitting = [call for call in calls if call.name == named]
        return fitting or [calling.call(named, **calling.fill(turn.offered[named], turn.task))]
    if choice == "required" and not calls and turn.offered:
        name = next(iter(turn.offered))
        return [calling.call(name, **calling.fill(turn.offered[name], turn.task))]
    return calls


def cited(answer: str) -> list[str]:
    return list(dict.fromkeys(MARKER.findall(answer)))


def shaped(answer: str, schema: Mapping[str, Any]) -> Any:
    """An answer in a caller's own schema: its text under the likeliest key, its citations where asked."""
    properties = resolve(schema, schema).get("properties") or {}
    value: dict[str, Any] = {}
    strings = [key for key, kind in properties.items() if resolve(kind, schema).get("type") == "string"]
    key = next((key for key in ANSWER_KEYS if key in strings), strings[0] if strings else "")
    if key:
        value[key] = answer
    for name in ("citations", "sources", "cited"):
        if name in properties:
            value[name] = cited(answer)
    return conform(value, schema, schema)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
