"""Which role a request asks for, and its reply. Enters: a request body. Leaves: `Reply`.

The role follows from the response schema: one with `steps` asks for a plan, one with `verdict` for a judgement; every
other request is the worker's, or a gate's judge's, whose prompt says so.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bulkhead_infra.offline_model.parts import Prompt, read_prompt
from bulkhead_infra.offline_model.quoting import NOTHING
from bulkhead_infra.offline_model.roles import calling, working
from bulkhead_infra.offline_model.roles.calling import Call
from bulkhead_infra.offline_model.roles.heeding import heed_instruction
from bulkhead_infra.offline_model.roles.planning import make_plan
from bulkhead_infra.offline_model.text import MARKER, overlap, stems

OVERLAP_MIN = 0.5
GATE_JUDGE = "You judge one result for a gate"
"""The beginning of the shipped prompt `worker.gate_judge`, whose answer has no schema in the request."""
HONEST = re.compile(rf"^(?:{NOTHING}|The tool \w+ did not work)|(?i:\bno answer\b|\bdocuments do not (?:say|hold)\b)")
FRAME_WORDS = stems(
    "amount comes passages differ later effective date prevails first holds exception applies case meets terms force "
    "round max min falls leaves excluded none listed covers tool gave"
)


@dataclass(frozen=True)
class Reply:
    """Text or tool calls; `role` is plan, judge or work."""

    role: str
    content: str
    calls: tuple[Call, ...] = ()


def response_schema(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON schema of the answer; empty for plain text."""
    form = request.get("response_format") or {}
    return (form.get("json_schema") or {}).get("schema") or {} if form.get("type") == "json_schema" else {}


def role_of(request: Mapping[str, Any]) -> str:
    """plan, judge or work, by the shape of the response schema."""
    properties = response_schema(request).get("properties") or {}
    return "plan" if "steps" in properties else "judge" if "verdict" in properties else "work"


def reply_to(request: Mapping[str, Any]) -> Reply:
    """The reply to a request: same request, same reply."""
    prompt, role = read_prompt(request.get("messages") or ()), role_of(request)
    if role != "work":
        foresees = '"calls"' in json.dumps(response_schema(request))
        answer = make_plan(prompt, foresees=foresees) if role == "plan" else judge_answer(prompt)
        return Reply(role, json.dumps(answer, ensure_ascii=False))
    if prompt.instruction.startswith(GATE_JUDGE):
        return Reply(role, json.dumps(judge_input(prompt)))
    turn = working.read_turn(prompt, calling.offered_tools(request))
    calls = _chosen_calls(request, working.next_calls(turn), turn)
    if calls:
        return Reply(role, "", tuple(calls[:1] if request.get("parallel_tool_calls") is False else calls))
    return Reply(role, heed_instruction(prompt.instruction, working.final_answer(turn), turn.task))


def _chosen_calls(request: Mapping[str, Any], calls: list[Call], turn: working.Turn) -> list[Call]:
    """Calls as `tool_choice` wants them: a named tool alone, or any tool when one is required."""
    choice = request.get("tool_choice")
    named = (choice.get("function") or {}).get("name") if isinstance(choice, dict) else None
    if choice == "required" and not calls:
        named = next(iter(turn.offered), None)
    if named is None or named not in turn.offered:
        return [call for call in calls if call.name in turn.offered]
    fitting = [call for call in calls if call.name == named]
    return fitting or [calling.make_call(named, **calling.fill_arguments(turn.offered[named], turn.task))]


def judge_input(prompt: Prompt) -> dict[str, Any]:
    """The verdict on the `input` part for a gate: it passes where each of its lines states something."""
    lines = [line for line in prompt.text("input").splitlines() if line.strip()]
    lacking = [MARKER.sub("", line).strip(" .")[:200] for line in lines if HONEST.search(line)]
    share = round(1 - len(lacking) / len(lines), 3) if lines else 0.0
    reasons = [f"It does not state what is asked for: {line}." for line in lacking[:8]] or ["Each line says something."]
    return {"verdict": "pass" if lines and not lacking else "fail", "score": share, "reasons": reasons}


def judge_answer(prompt: Prompt) -> dict[str, Any]:
    """The verdict on the `answer` part: overlap of its words with the evidence. It finds no source for a sentence."""
    lines = [line for line in prompt.text("answer").splitlines() if line.strip()]
    stating = [line for line in lines if not HONEST.search(line)]
    lacking = [MARKER.sub("", line).strip(" .") for line in lines if HONEST.search(line)]
    words = stems(MARKER.sub("", "\n".join(stating))) - FRAME_WORDS
    given = stems(prompt.text("passage", "tool_result", "input", "step"))
    score = overlap(words, given) if words and prompt.of("passage") else float(bool(lines))
    reason = f"Judged by overlap alone: {round(100 * score)} percent of its words stand in what it was given."
    verdict = "accept" if score >= OVERLAP_MIN else "reject"
    answered = "no" if not stating else "partly" if lacking else "yes"
    reasons = [f"{lacking[0][:200]}.", reason] if lacking and verdict == "accept" else [reason]
    return {"verdict": verdict, "answered": answered, "score": round(score, 3), "reasons": reasons, "support": []}
