"""Arguments for tools. Enters: text, a tool's JSON schema. Leaves: calls that fit the schema."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bulkhead_infra.offline_model.language.quantities import find_dates
from bulkhead_infra.offline_model.language.text import STOP, words
from bulkhead_infra.offline_model.schema import minimal

TASK_CHARS_READ = 4_000  # arithmetic is looked for at the beginning of a task only
PAIR = re.compile(r"\b([A-Za-z_]\w*)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|“([^”]*)”|(\{.*?\}|\[.*?\]|[^\s,;)]+))")
QUOTED = re.compile(r"\"([^\"\n]{1,400})\"|“([^”\n]{1,400})”|'([^'\n]{2,400})'|`([^`\n]{1,400})`")
URL = re.compile(r"https?://[^\s<>\"')\]]+")
TIGHT = re.compile(r"\d[-/]\d")  # `2025-01`, `24/7` and `10-12` are arithmetic only after a word such as `compute`
COMPUTES = re.compile(r"(?:\bwhat(?: is|'s)|\bhow much is|\b(?:calculate|compute|work out)|[:=])\s*[\"'“`]?$", re.I)
EXPRESSION = re.compile(r"(?<![\w-])[(\d][\d\s.+*/()×÷-]*[+*/×÷-][\d\s.+*/()×÷-]*[\d)](?![\w-])")
PERCENT_OF = re.compile(
    r"\b(\d+(?:\.\d+)?)\s?(?:%|percent|per cent) (?:of|from) (?:[A-Z]{3} |[€$£])?(\d[\d,]*(?:\.\d+)?)"
)
_N = r"(-?\d+(?:\.\d+)?)"
VERBAL = (
    (re.compile(rf"\badd {_N} (?:and|to) {_N}", re.I), "{0} + {1}"),
    (re.compile(rf"\bsubtract {_N} from {_N}", re.I), "{1} - {0}"),
    (re.compile(rf"\bmultiply {_N} (?:by|with|and) {_N}", re.I), "{0} * {1}"),
    (re.compile(rf"\bdivide {_N} by {_N}", re.I), "{0} / {1}"),
    (re.compile(rf"{_N} (?:times|multiplied by) {_N}", re.I), "{0} * {1}"),
    (re.compile(rf"{_N} plus {_N}", re.I), "{0} + {1}"),
    (re.compile(rf"{_N} minus {_N}", re.I), "{0} - {1}"),
)
DAYS_AFTER = re.compile(
    r"(?i)\b(\d{1,5}) (?:days?|weeks?) (after|from|before|later than)\b|\badd (\d{1,5}) days?\b|"
    r"\b(?:plus|\+) (\d{1,5}) days?\b"
)


@dataclass(frozen=True)
class Tool:
    """A tool as the request offers it."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """One tool call; `arguments` is JSON text, as the wire carries it."""

    name: str
    arguments: str


def offered_tools(request: Mapping[str, Any]) -> dict[str, Tool]:
    """Tools of a request by name; none when `tool_choice` is `none`."""
    if request.get("tool_choice") == "none":
        return {}
    functions = [entry.get("function") or {} for entry in request.get("tools") or ()]
    tools = (Tool(str(f.get("name", "")), str(f.get("description", "")), f.get("parameters") or {}) for f in functions)
    return {tool.name: tool for tool in tools}


def call(tool: str, /, **arguments: Any) -> Call:
    return Call(tool, json.dumps(arguments, ensure_ascii=False))


def fill(tool: Tool, text: str) -> dict[str, Any]:
    """Arguments of any tool from a text: `key=value` pairs, then quoted strings, links, dates and numbers in order."""
    properties: Mapping[str, Any] = tool.parameters.get("properties") or {}
    required = set(tool.parameters.get("required") or ())
    pairs = {match[1]: next(g for g in match.groups()[1:] if g is not None) for match in PAIR.finditer(text)}
    rest = PAIR.sub(" ", text)
    quoted = [value for groups in QUOTED.findall(rest) for value in groups if value and value != tool.name]
    links, days = URL.findall(rest), [when.day.isoformat() for when in find_dates(rest)]
    numbers = re.findall(r"(?<![\w.-])-?\d+(?:\.\d+)?(?![\w-])", QUOTED.sub(" ", rest))
    filled: dict[str, Any] = {}
    for key, schema in properties.items():
        kind = _kind(schema)
        if key in pairs:
            filled[key] = _as_kind(pairs[key].rstrip("."), kind)
        elif key not in required:
            continue
        elif "enum" in schema:
            filled[key] = next((v for v in schema["enum"] if str(v).lower() in text.lower()), schema["enum"][0])
        elif kind in ("integer", "number") and numbers:
            filled[key] = _as_kind(numbers.pop(0), kind)
        elif kind == "string" and "url" in key.lower() and links:
            filled[key] = links.pop(0)
        elif kind == "string" and ("date" in key.lower() or schema.get("format") == "date") and days:
            filled[key] = days.pop(0)
        elif kind == "string" and quoted:
            filled[key] = quoted.pop(0)
        elif kind == "string" and not schema.get("pattern"):
            filled[key] = " ".join(rest.split())[: int(schema.get("maxLength", 300))]
        else:
            filled[key] = minimal(schema, tool.parameters)
    return filled


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "")
    if isinstance(kind, list):
        return str(next((k for k in kind if k != "null"), "string"))
    if not kind and "anyOf" in schema:
        return next((str(s["type"]) for s in schema["anyOf"] if s.get("type") not in (None, "null")), "string")
    return str(kind or "string")


def _as_kind(value: str, kind: str) -> Any:
    try:
        if kind == "integer":
            return int(value)
        if kind == "number":
            number = float(value)
            return int(number) if number.is_integer() else number
        if kind in ("object", "array"):
            return json.loads(value)
    except ValueError:
        return value
    return value.lower() in ("true", "yes", "1") if kind == "boolean" else value


def places_named(name: str, task: str) -> list[int]:
    """Positions at which a text means the tool `name`; a name that is an everyday word must be marked as a tool."""
    exact = rf"(?<![\w.]){re.escape(name)}(?![\w])"
    if name.isalpha():
        marked = rf"`{name}`|\b(?i:call|use|using|tool|run|invoke) (?:the )?{exact}|{exact}(?= tool\b|\()"
        return [match.end() - len(name) for match in re.finditer(marked, task)]
    return [match.start() for match in re.finditer(exact, task)]


def named_calls(task: str, offered: Mapping[str, Tool]) -> list[Call]:
    """Calls of tools that the task names exactly, each with arguments from the words after its name."""
    places = sorted((start, name) for name in offered for start in places_named(name, task))
    calls: list[Call] = []
    for index, (start, name) in enumerate(places):
        end = places[index + 1][0] if index + 1 < len(places) else len(task)
        around = task[start + len(name) : end]
        if not PAIR.search(around) and not QUOTED.search(around) and not re.search(r"\d", around):
            around = task
        calls.append(call(name, **fill(offered[name], around)))
    return list(dict.fromkeys(calls))


def explicit_expression(task: str) -> str:
    """An arithmetic expression in a text, in figures or in everyday words; empty for none.

    An expression with several operators is put in brackets: `80 = 12` in `15 / 100 * 80 = 12` would mislead a reader.
    """
    expression = _expression(task)
    return f"({expression})" if len(re.findall(r"[-+*/]", expression)) > 1 else expression


def _expression(task: str) -> str:
    task = task[:TASK_CHARS_READ].replace("×", "*").replace("÷", "/")
    share = PERCENT_OF.search(task)
    if share:
        return f"{share.group(1)} / 100 * {share.group(2).replace(',', '')}"
    for pattern, form in VERBAL:
        match = pattern.search(task)
        if match:
            return form.format(*match.groups())
    without_dates = task
    for when in reversed(find_dates(task)):
        without_dates = without_dates[: when.start] + " " + without_dates[when.end :]
    without_dates = re.sub(r"(?<![\d-])(?:19|20)\d\d-\d\d(?![\d-])", " ", without_dates)
    for match in EXPRESSION.finditer(without_dates):
        text = " ".join(match.group().split())
        if TIGHT.search(text) and not COMPUTES.search(without_dates[: match.start()]):
            continue
        if text.count("(") == text.count(")") and re.search(r"\d\s*[-+*/]\s*[(\d]", text):
            return text
    return ""


def query_of(text: str, extra: Sequence[str] = (), limit: int = 16) -> str:
    """Search words of a text: its content words in order, each once, then the numbers."""
    content = (word for word in [*words(text), *extra] if word.lower() not in STOP)
    bare = dict.fromkeys(word.rstrip(".,") for word in content if len(word) > 1 or word.isdigit())
    return " ".join(sorted(bare, key=lambda word: word[0].isdigit())[:limit])
