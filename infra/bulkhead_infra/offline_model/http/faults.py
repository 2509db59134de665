"""Misbehaviour on demand, for tests. Enters: `{"fault": ..., "times": n, ...}`. Leaves: what to do to a request.

A fault is armed for `times` requests whose JSON text matches `match`; the first armed one that fits is taken.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bulkhead_infra.offline_model.parts import read_prompt
from bulkhead_infra.offline_model.roles.calling import Call, make_call
from bulkhead_infra.offline_model.roles.reply import Reply, role_of

ARMED_MAX = 100
HUGE_PLAN_STEPS = 10_000
LONG_ANSWER_WORDS = 20_000
KIND_OF_FAULT = {
    name: kind
    for kind, names in {
        "wire": "429 500 503 timeout stall cut_stream error_200 malformed_json context_overflow missing_usage",
        "plan": "bad_plan_cyclic bad_plan_huge bad_plan_no_acceptance",
        "judge": "judge_reject",
        "work": "invented_tool long_answer",
        "tools": "malformed_arguments wrong_arguments runaway chatter",
    }.items()
    for name in names.split()
}
"""Kinds of requests by the faults that fit them. Those of the wire fit any; the others change what the reply says."""

ASK, ANSWER, NOBODY = "ask_steps", "answer_step", "nobody"
ASKS = re.compile(r"^Step (\S+) asks this step and waits\.")
NAME = re.compile(r"\bYou are (\w+)\.")
PARTNER = re.compile(r"\bTalk with (\w+)\.")
BEGINS = re.compile(r"\bBegin\.")


@dataclass
class Fault:
    """One armed fault. `after_chunks` says where a stream stalls or is cut; `delay_ms` slows stalls and chunks."""

    name: str
    left: int = 1
    match: re.Pattern[str] | None = None
    delay_ms: int = 0
    retry_after_s: float = 1.0
    after_chunks: int = 3
    abrupt: bool = False
    taken: int = 0

    @property
    def kind(self) -> str:
        return KIND_OF_FAULT[self.name]

    def fits(self, text: str, request: Mapping[str, Any]) -> bool:
        """True when this fault is armed for a request and can be done to it."""
        if self.left <= 0 or (self.match and not self.match.search(text)):
            return False
        return self.kind in ("wire", role_of(request)) or (self.kind == "tools" and bool(request.get("tools")))


@dataclass
class Faults:
    """The armed faults, in order."""

    armed: list[Fault] = field(default_factory=list)

    def arm(self, given: Mapping[str, Any]) -> None:
        """Arm a fault from an admin request; raises ValueError or TypeError with what is wrong."""
        options = dict(given)
        name, match = str(options.pop("fault", "")), options.pop("match", "")
        if name not in KIND_OF_FAULT:
            raise ValueError(f"unknown fault {name!r}; known: {', '.join(sorted(KIND_OF_FAULT))}")
        if len(self.armed) >= ARMED_MAX:
            raise ValueError(f"more than {ARMED_MAX} faults armed")
        try:
            pattern = re.compile(match) if match else None
        except re.error as wrong:
            raise ValueError(f"match is not a regular expression: {wrong}") from wrong
        self.armed.append(Fault(name, options.pop("times", 1), pattern, **options))

    def take(self, text: str, request: Mapping[str, Any]) -> Fault | None:
        """The fault to do to this request, counted down."""
        fault = next((fault for fault in self.armed if fault.fits(text, request)), None)
        if fault:
            fault.left -= 1
            fault.taken += 1
        return fault

    def view(self) -> list[dict[str, Any]]:
        return [
            {"fault": f.name, "left": f.left, "taken": f.taken, "match": f.match.pattern if f.match else None}
            for f in self.armed
        ]


def distort(reply: Reply, name: str, request: Mapping[str, Any]) -> Reply:
    """A reply as a reply fault makes it."""
    tool = (
        reply.calls[0].name
        if reply.calls
        else str((request.get("tools") or [{"function": {"name": ""}}])[0]["function"]["name"])
    )
    calls: tuple[Call, ...] = ()
    match name:
        case "malformed_arguments":
            calls = (Call(tool, '{"broken": "ar'),)
        case "wrong_arguments":
            calls = (Call(tool, '{"no_such_argument": [true, null]}'),)
        case "invented_tool":
            calls = (Call("summon_oracle", '{"question": "what now?"}'),)
        case "runaway":
            calls = reply.calls[:1] or (_last_call(request) or Call(tool, "{}"),)
        case "chatter":
            calls = chatter_calls(request)
        case "long_answer":
            return Reply(reply.role, " ".join(f"word{i}" for i in range(LONG_ANSWER_WORDS)))
        case "judge_reject":
            rejected = {"verdict": "reject", "score": 0.0, "reasons": ["Rejected on demand (fault judge_reject)."]}
            return Reply(reply.role, json.dumps(json.loads(reply.content) | rejected))
        case _:
            return Reply(reply.role, json.dumps({"steps": _bad_steps(json.loads(reply.content)["steps"], name)}))
    return Reply(reply.role, "", calls)


def _bad_steps(steps: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    first, second = steps[0], steps[1] if len(steps) > 1 else {**steps[0], "id": "s2"}
    if name == "bad_plan_cyclic":
        return [{**first, "inputs": [second["id"]]}, {**second, "inputs": [first["id"]]}, *steps[2:]]
    if name == "bad_plan_huge":
        return [{**first, "id": f"s{number}", "inputs": []} for number in range(1, HUGE_PLAN_STEPS + 1)]
    return [{**step, "acceptance": ""} for step in steps]


def _last_call(request: Mapping[str, Any]) -> Call | None:
    for message in reversed(request["messages"]):
        for call in message.get("tool_calls") or ():
            return Call(call["function"]["name"], call["function"]["arguments"])
    return None


def chatter_calls(request: Mapping[str, Any]) -> tuple[Call, ...]:
    """The calls of an agent that only talks: it answers, asks again about another point each turn, and never ends.

    The step names the agent and its partner: `You are ada. Talk with bob.`; with `Begin.` the agent asks first. While
    nobody asks, it asks a step that does not exist, gets its answer at once, and looks again in its next turn.
    """
    prompt = read_prompt(request.get("messages") or ())
    step = prompt.text("step")
    name, partner = NAME.search(step), PARTNER.search(step)
    if name is None or partner is None:
        return (make_call(ASK, steps=[NOBODY]),)
    point = 1 + sum(message["role"] == "assistant" for message in request["messages"])
    asking = [match[1] for part in prompt.of("context") if (match := ASKS.match(part.text))]
    answers = [
        make_call(ANSWER, step=step_id, answer=f"{name[1]} thinks of point {point} what you think.")
        for step_id in asking
    ]
    if not asking and not (BEGINS.search(step) and not prompt.tool_uses):
        return (make_call(ASK, steps=[NOBODY]),)
    return (
        *answers,
        make_call(ASK, steps=[partner[1]], question=f"{name[1]} wonders what you think of point {point}."),
    )
