"""The mesh in miniature, to try a model on a corpus without services. Enters: chunks, objective. Leaves: an answer.

A planner call, a check of the plan's graph, a worker loop per step with keyword search, calculator and dates, a
judge. Nothing of the demo's answer is known here.
"""

import ast
import html
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from bulkhead_infra.offline_model.parts import short_digest

Complete = Callable[[dict[str, Any]], dict[str, Any]]
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
TEXTS = {"type": "array", "items": TEXT}


def _object(**properties: Any) -> dict[str, Any]:
    """The schema of an object with these properties, all required, and no other."""
    shape = {"type": "object", "additionalProperties": False}
    return {**shape, "required": list(properties), "properties": properties}


STEP_SCHEMA = _object(id=TEXT, title=TEXT, instruction=TEXT, tools=TEXTS, inputs=TEXTS, acceptance=TEXT)
PLAN_SCHEMA = _object(steps={"type": "array", "items": STEP_SCHEMA})
VERDICT_SCHEMA = _object(
    verdict=TEXT | {"enum": ["accept", "reject"]}, score={"type": "number"}, reasons=TEXTS, support=TEXTS
)
TOOLS: dict[str, dict[str, Any]] = {
    name: {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
    for name, description, parameters in (
        ("search_documents", "search the documents", _object(query=TEXT, k=NUMBER | {"maximum": 20})),
        ("calculate", "decimal arithmetic", _object(expression=TEXT)),
        ("date_difference", "days between dates", _object(start=TEXT, end=TEXT)),
        ("date_add", "add days to a date", _object(date=TEXT, days=NUMBER)),
    )
}


def part(kind: str, text: str, **attributes: str) -> str:
    named = "".join(f' {key}="{value}"' for key, value in attributes.items())
    digest = short_digest(text)
    return f"[[part kind={kind} id={digest}{named}]]\n{text}\n[[/part {digest}]]"


@dataclass(frozen=True)
class Chunk:
    source: str
    text: str

    @property
    def id(self) -> str:
        return short_digest(self.text)


def chunks_of(name: str, text: str, limit: int = 800) -> list[Chunk]:
    """Paragraphs, joined up to `limit` characters; tags of HTML stripped."""
    if name.endswith(".html"):
        text = re.sub(r"<title>.*?</title>", "", text, flags=re.S)
        text = re.sub(r"</(?:p|li|h\d|ul)>", "\n\n", text)
        text = html.unescape(re.sub(r"<[^>]+>", "", text))
    found: list[Chunk] = []
    held = ""
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = paragraph.strip()
        if held and len(held) + len(paragraph) > limit:
            found.append(Chunk(name, held))
            held = ""
        held = f"{held}\n\n{paragraph}".strip()
    return [*found, Chunk(name, held)] if held else found


def search(chunks: Iterable[Chunk], query: str, k: int) -> list[Chunk]:
    """Chunks that share most words with the query, by bare prefixes of five letters."""
    wanted = {word[:5] for word in re.findall(r"[a-z]{3,}", query.lower())}
    scored = [(len(wanted & {w[:5] for w in re.findall(r"[a-z]{3,}", c.text.lower())}), c) for c in chunks]
    return [chunk for score, chunk in sorted(scored, key=lambda pair: -pair[0]) if score][:k]


def calculate(expression: str) -> str:
    def value(node: ast.expr) -> Decimal:
        match node:
            case ast.Constant(value=number):
                return Decimal(str(number))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right):
                one, two = value(left), value(right)
                return {
                    ast.Add: one + two,
                    ast.Sub: one - two,
                    ast.Mult: one * two,
                    ast.Div: one / two if two else Decimal(0),
                }[type(op)]
            case ast.Call(func=ast.Name(id="round"), args=[number, places]):
                return value(number).quantize(Decimal(1).scaleb(-int(value(places))), ROUND_HALF_UP)
            case ast.Call(func=ast.Name(id=name), args=args):
                return {"min": min, "max": max}[name](*(value(arg) for arg in args))
        raise ValueError(ast.dump(node))

    return f"{expression} = {value(ast.parse(expression, mode='eval').body)}"


@dataclass
class Loop:
    """Runs one objective over documents; `calls` and `verdicts` record what happened."""

    complete: Complete
    chunks: list[Chunk]
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    plan: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)

    def run(self, objective: str) -> str:
        self.plan = self._plan(objective)
        check_plan(self.plan)
        for step in self.plan:
            self.results[step["id"]] = self._work(step)
            self.verdicts.append(self._judge(step, self.results[step["id"]]))
        return self.results[self.plan[-1]["id"]]

    def cited_sources(self, answer: str) -> set[str]:
        return {self.seen[marker] for marker in re.findall(r"\[#([0-9a-f]{12})\]", answer) if marker in self.seen}

    def _ask(self, messages: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
        body = self.complete({"model": "offline-rules-1", "messages": messages, **extra})
        message: dict[str, Any] = body["choices"][0]["message"]
        return message

    def _plan(self, objective: str) -> list[dict[str, Any]]:
        tools = "\n".join(f"{name}: {tool['function']['description']} (read)" for name, tool in TOOLS.items())
        user = f"{part('objective', objective)}\n{part('tools', tools)}"
        steps: list[dict[str, Any]] = self._structured("Make a plan.", user, "plan", PLAN_SCHEMA)["steps"]
        return steps

    def _structured(self, order: str, user: str, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        wanted = {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}
        messages = [{"role": "system", "content": order}, {"role": "user", "content": user}]
        answer: dict[str, Any] = json.loads(self._ask(messages, response_format=wanted)["content"])
        return answer

    def _work(self, step: dict[str, Any]) -> str:
        text = f"{step['title']}\n{step['instruction']}\nAcceptance: {step['acceptance']}"
        inputs = [part("input", self.results[name], step=name) for name in step["inputs"]]
        user = "\n".join([part("step", text, step=step["id"]), *inputs])
        messages: list[dict[str, Any]] = [{"role": "system", "content": "Do."}, {"role": "user", "content": user}]
        tools = [TOOLS[name] for name in step["tools"]]
        for _ in range(8):
            said = self._ask(messages, **({"tools": tools} if tools else {}))
            if not said.get("tool_calls"):
                return str(said["content"])
            messages.append(said)
            for call in said["tool_calls"]:
                name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
                self.calls.append((name, arguments))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": self._tool(name, arguments)})
        raise AssertionError(f"step {step['id']} does not end")

    def _tool(self, name: str, arguments: dict[str, Any]) -> str:
        if name == "search_documents":
            found = search(self.chunks, arguments["query"], arguments["k"])
            self.seen.update({chunk.id: chunk.source for chunk in found})
            return "\n".join(part("passage", chunk.text, source=chunk.source, trust="untrusted") for chunk in found)
        if name == "calculate":
            return calculate(arguments["expression"])
        if name == "date_difference":
            start, end = (date.fromisoformat(arguments[key]) for key in ("start", "end"))
            return f"{start} to {end} = {(end - start).days} days"
        start = date.fromisoformat(arguments["date"])
        return f"{start} + {arguments['days']} days = {start + timedelta(days=arguments['days'])}"

    def _judge(self, step: dict[str, Any], answer: str) -> dict[str, Any]:
        cited = set(re.findall(r"\[#([0-9a-f]{12})\]", answer))
        passages = [part("passage", c.text, source=c.source) for c in self.chunks if c.id in cited]
        user = "\n".join([part("answer", answer), part("acceptance", step["acceptance"]), *passages])
        return self._structured("Judge.", user, "verdict", VERDICT_SCHEMA)


def check_plan(steps: list[dict[str, Any]]) -> None:
    """The plan is a bounded graph in order, with one last step and a criterion for each."""
    assert 1 <= len(steps) <= 8
    before: set[str] = set()
    for step in steps:
        assert step["acceptance"] and step["instruction"]
        assert set(step["inputs"]) <= before, "an input that is not an earlier step"
        before.add(step["id"])
    used = {name for step in steps for name in step["inputs"]}
    assert len(before - used) == 1, f"last steps: {before - used}"
