"""A version of a prompt tried on tasks that have ended: which of them, and as which new tasks. Pure.

In: rows, documents and stories of tasks, tools and releases, as the API tells them. Out: what is to be asked of the
API: a release for the trial, and tasks that change nothing. No label moves.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bulkhead.gateway_api.ratings import OF_EVALUATIONS

FEATURE = "eval"
USUAL_TASKS, MAX_TASKS, CANDIDATES = 3, 5, 8
MIN_LIMIT_USD_MICROS, MAX_LIMIT_USD_MICROS, LIMIT_FACTOR = 50_000, 1_000_000, 3
"""Ceiling of a task that is tried: so many times its earlier cost, within these."""


def list_candidates(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Ids of tasks to try on, the newest first, one an objective. rows: tasks that succeeded."""
    by_objective: dict[str, str] = {}
    for row in rows:
        if row["feature"] not in OF_EVALUATIONS and row["kind"] == "planned" and not row["fork_of"]:
            by_objective.setdefault(row["objective"], row["task_id"])
    return list(by_objective.values())[:CANDIDATES]


def uses_prompt(story: Mapping[str, Any], prompt: str) -> bool:
    """True when a call of the task had a version of this prompt."""
    calls = [*story["planning"], *(call for step in story["steps"] for call in step["calls"])]
    return any(str(call["prompt"]).partition("@")[0] == prompt for call in calls)


def build_change(
    prompt: str, number: int, variables: Sequence[Mapping[str, Any]], standing: Sequence[Any]
) -> dict[str, Any]:
    """The change of a trial: this version, with the values that the label's newest release sets for its variables."""
    rows = standing[0]["prompts"] if standing else ()
    values: Mapping[str, str] = next((row.get("values", {}) for row in rows if row["prompt"] == prompt), {})
    declared = {variable["name"]: variable for variable in variables}
    kept_values = {
        name: value
        for name, value in values.items()
        if name in declared and value in (declared[name].get("choices") or (value,))
    }
    return {"prompt": prompt, "number": number} | ({"values": kept_values} if kept_values else {})


def list_reading(tools: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the tools that only read."""
    return [tool["name"] for tool in tools if tool["effect"] == "read"]


def build_submission(document: Mapping[str, Any], tools: Sequence[Mapping[str, Any]], release: str) -> dict[str, Any]:
    """The body of a task that does again what another did, with tools that only read. Raises ValueError where it had
    none of those."""
    requested_names = document["tools"] or [tool["name"] for tool in tools]
    named = [name for name in list_reading(tools) if name in requested_names]
    # A task that names no tools gets those that write by default.
    if requested_names and not named:
        raise ValueError(f"task {document['task_id']} had only tools that change something: choose another one")
    options = {name: document[name] for name in ("route", "constraints") if document.get(name)}
    return {
        "objective": document["objective"],
        "tools": named,
        "feature": FEATURE,
        "prompt_release": release,
        "limits": {"cost_usd_micros": limit_of(document)},
        **options,
    }


def limit_of(document: Mapping[str, Any]) -> int:
    """The most that doing it again may cost, in micro US dollars."""
    return min(max(LIMIT_FACTOR * cost_of(document), MIN_LIMIT_USD_MICROS), MAX_LIMIT_USD_MICROS)


def cost_of(document: Mapping[str, Any]) -> int:
    """Cost of a task in micro US dollars."""
    charged: int = (document.get("charged") or document["usage"])["cost_usd_micros"]
    return charged


def tokens_of(document: Mapping[str, Any]) -> int:
    """Tokens of a task, input and output."""
    usage = document["usage"]
    return int(usage["input_tokens"] + usage["output_tokens"])
