"""Tool calls that a text asks for. Enters: text, the offered tools. Leaves: calls with their arguments."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bulkhead_infra.offline_model.text import content_words, find_dates

SEARCH, CALCULATE, DIFFERENCE = "search_documents", "calculate", "date_difference"
PASSAGES_PER_SEARCH, QUERY_WORDS, TASK_CHARS_READ = 12, 20, 4_000
PAIR = re.compile(r"\b([A-Za-z_]\w*)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|(\{.*?\}|\[.*?\]|[^\s,;)]+))")
EXPRESSION = re.compile(r"(?<![\w.])\(*\d[\d.]*\)*(?: [-+*/] \(*\d[\d.]*\)*)+(?!\w)")

EMPTY: Mapping[Any, Any] = {"array": [], "object": {}, "boolean": False}


@dataclass(frozen=True)
class Call:
    """One tool call; `arguments` is JSON text, as the wire carries it."""

    name: str
    arguments: str


def make_call(tool: str, /, **arguments: Any) -> Call:
    return Call(tool, json.dumps(arguments, ensure_ascii=False))


def offered_tools(request: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Schemas of the parameters of a request's tools, by name; none when `tool_choice` is `none`."""
    if request.get("tool_choice") == "none":
        return {}
    functions = [entry.get("function") or {} for entry in request.get("tools") or ()]
    return {str(function.get("name", "")): function.get("parameters") or {} for function in functions}


def fill_arguments(parameters: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Arguments of any tool: the `key=value` pairs of a text; another that is required gets the text, or 0."""
    pairs = {m[1]: next(group for group in m.groups()[1:] if group is not None) for m in PAIR.finditer(text)}
    filled: dict[str, Any] = {}
    for key, schema in (parameters.get("properties") or {}).items():
        kind = schema.get("type", "string")
        if key in pairs:
            filled[key] = _as_kind(pairs[key].rstrip("."), kind)
        elif key in (parameters.get("required") or ()):
            whole = " ".join(text.split())[: int(schema.get("maxLength", 300))]
            filled[key] = next(iter(schema.get("enum") or ()), whole if kind == "string" else EMPTY.get(kind, 0))
    return filled


def _as_kind(value: str, kind: Any) -> Any:
    try:
        return value if kind == "string" else json.loads(value)
    except ValueError:
        return value


def named_places(name: str, task: str) -> list[int]:
    """Positions at which a text names a tool; a name that is an everyday word must follow `use` or `call`."""
    before = r"\b(?:[Uu]se|[Cc]all|then) " if name.isalpha() else r"(?<![\w.])"
    return [match.end() for match in re.finditer(rf"{before}{re.escape(name)}(?!\w)", task)]


def named_calls(task: str, offered: Mapping[str, Mapping[str, Any]]) -> list[Call]:
    """Calls of the tools that a task names, each with arguments from the words after its name."""
    places = sorted((end, name) for name in offered for end in named_places(name, task))
    ends = [*(end for end, _ in places[1:]), len(task)]
    texts = [task[start:end] for (start, _), end in zip(places, ends, strict=True)] if places else []
    named = zip(places, texts, strict=True)
    return list(dict.fromkeys(make_call(name, **fill_arguments(offered[name], text)) for (_, name), text in named))


def find_expression(task: str) -> str:
    """The arithmetic expression that stands in a text; empty for none."""
    match = EXPRESSION.search(task[:TASK_CHARS_READ])
    expression = match.group().rstrip(".") if match else ""
    return expression if expression.count("(") == expression.count(")") else ""


def days_call(task: str) -> Call | None:
    """The days between the two dates of a question for days."""
    days = find_dates(task) if re.search(r"(?i)days\b", task) else []
    if len(days) < 2:
        return None
    return make_call(DIFFERENCE, start=min(days[:2]).isoformat(), end=max(days[:2]).isoformat())


def search_call(text: str) -> Call:
    """A search for the content words of a text, each once."""
    words = dict.fromkeys(word.rstrip(".,") for word in content_words(text))
    return make_call(SEARCH, query=" ".join(list(words)[:QUERY_WORDS])[:400] or text[:400], k=PASSAGES_PER_SEARCH)
