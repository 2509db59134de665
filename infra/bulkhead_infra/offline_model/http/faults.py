"""Misbehaviour on demand, for tests. Enters: `{"fault": ..., "times": n, ...}`. Leaves: what to do to a request.

A fault is armed for `times` requests whose JSON text matches `match`; the first armed one that fits is taken.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bulkhead_infra.offline_model.roles.calling import Call
from bulkhead_infra.offline_model.roles.chattering import talk
from bulkhead_infra.offline_model.roles.reply import Reply, response_schema, role_of

ARMED_MAX = 100
HUGE_PLAN_STEPS = 10_000
LONG_ANSWER_WORDS = 20_000

FAULTS_OF = {
    "wire": "429 500 503 timeout stall cut_stream error_200 malformed_json context_overflow missing_usage",
    "plan": "bad_plan_cyclic bad_plan_huge bad_plan_no_acceptance",
    "judge": "judge_reject",
    "work": "invented_tool",
    "tools": "malformed_arguments wrong_arguments runaway chatter",
    "text": "long_answer",
}
"""Faults by the kind of request that they fit. Those of the wire fit any; the others change what the reply says."""
KIND_OF_FAULT = {name: kind for kind, names in FAULTS_OF.items() for name in names.split()}
REPLY_FAULTS = frozenset(name for name, kind in KIND_OF_FAULT.items() if kind != "wire")


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

    def fits(self, text: str, request: Mapping[str, Any]) -> bool:
        """Whether a request is one that this fault is armed for and can be done to."""
        if self.left <= 0 or (self.match and not self.match.search(text)):
            return False
        match KIND_OF_FAULT[self.name]:
            case "wire":
                return True
            case "tools":
                return bool(request.get("tools"))
            case "text":
                return role_of(request) == "work" and not response_schema(request)
            case role:
                return role_of(request) == role


@dataclass
class Faults:
    """The armed faults, in order."""

    armed: list[Fault] = field(default_factory=list)

    def arm(self, given: Mapping[str, Any]) -> Fault:
        """Arm a fault from an admin request; raises ValueError with what is wrong."""
        name = str(given.get("fault", ""))
        if name not in KIND_OF_FAULT:
            raise ValueError(f"unknown fault {name!r}; known: {', '.join(sorted(KIND_OF_FAULT))}")
        if len(self.armed) >= ARMED_MAX:
            raise ValueError(f"more than {ARMED_MAX} faults armed")
        try:
            fault = Fault(
                name,
                int(given.get("times", 1)),
                re.compile(str(given["match"])) if given.get("match") else None,
                int(given.get("delay_ms", 0)),
                float(given.get("retry_after_s", 1.0)),
                int(given.get("after_chunks", 3)),
                bool(given.get("abrupt", False)),
            )
        except re.error as wrong:
            raise ValueError(f"match is not a regular expression: {wrong}") from wrong
        self.armed.append(fault)
        return fault

    def take(self, text: str, request: Mapping[str, Any]) -> Fault | None:
        """The fault to do to this request, counted down."""
        for fault in self.armed:
            if fault.fits(text, request):
                fault.left -= 1
                fault.taken += 1
                return fault
        return None

    def clear(self) -> None:
        self.armed.clear()

    def view(self) -> list[dict[str, Any]]:
        return [
            {"fault": f.name, "left": f.left, "taken": f.taken, "match": f.match.pattern if f.match else None}
            for f in self.armed
        ]


def distort(reply: Reply, name: str, request: Mapping[str, Any]) -> Reply:
    """A reply as a reply fault makes it."""
    calls: tuple[Call, ...] = ()
    match name:
        case "malformed_arguments":
            calls = (Call(_tool_of(reply, request), '{"broken": "ar'),)
        case "wrong_arguments":
            calls = (Call(_tool_of(reply, request), '{"no_such_argument": [true, null]}'),)
        case "invented_tool":
            calls = (Call("summon_oracle", '{"question": "what now?"}'),)
        case "runaway":
            again = reply.calls[0] if reply.calls else _last_call(request)
            calls = (again or Call(_tool_of(reply, request), "{}"),)
        case "chatter":
            calls = talk(request)
        case "long_answer":
            return Reply(reply.role, " ".join(f"word{i}" for i in range(LONG_ANSWER_WORDS)))
        case "judge_reject":
            rejected = {"verdict": "reject", "score": 0.0, "reasons": ["Rejected on demand (fault judge_reject)."]}
            return Reply(reply.role, json.dumps(json.loads(reply.content) | rejected))
        case _:
            return Reply(reply.role, json.dumps(_bad_plan(json.loads(reply.content), name)))
    return Reply(reply.role, "", calls)


def _bad_plan(plan: dict[str, Any], name: str) -> dict[str, Any]:
    steps: list[dict[str, Any]] = plan["steps"]
    first = steps[0]
    if name == "bad_plan_cyclic":
        second = steps[1] if len(steps) > 1 else {**first, "id": "s2"}
        return plan | {"steps": [{**first, "inputs": [second["id"]]}, {**second, "inputs": [first["id"]]}, *steps[2:]]}
    if name == "bad_plan_huge":
        return plan | {"steps": [{**first, "id": f"s{i}", "inputs": []} for i in range(1, HUGE_PLAN_STEPS + 1)]}
    return plan | {"steps": [{**step, "acceptance": ""} for step in steps]}


def _tool_of(reply: Reply, request: Mapping[str, Any]) -> str:
    return reply.calls[0].name if reply.calls else str(request["tools"][0]["function"]["name"])


def _last_call(request: Mapping[str, Any]) -> Call | None:
    for message in reversed(request["messages"]):
        for call in message.get("tool_calls") or ():
            return Call(call["function"]["name"], call["function"]["arguments"])
    return None
