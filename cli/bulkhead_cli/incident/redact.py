"""Redaction for an incident file: words, numbers and times may leave a mesh. Pure.

In: rows as other commands print them. Out: the fields that are named here, and of each text only what is one
word: objectives, arguments, answers, reasons and errors of tools are content, and content stays where it is.
A person whose spending is counted becomes a digest under a key of this process: the same in one file, and
nothing to anybody else.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from bulkhead.telemetry.redaction import without_keys

MAX_TEXT_CHARS = 400
TEXT = "[text]"
_WORD = re.compile(r"[\w.:/@+,#>*-]{0,160}", re.ASCII)
_CODE = re.compile(r"[a-z][a-z0-9_.]{1,63}(?=:|$)")
_PERSON = re.compile(r"\b(user(?:/|:[^:\s]*:))(\S+?)(?=(?::\d{4}-\d\d-\d\d)?(?:[,;]?\s|$))")
"""In a limit's target, user/NAME, and an account, user:TENANT:NAME:DAY."""
_KEY = secrets.token_bytes(16)
_QUOTED = re.compile(r"'[^']{3,}'|\"[^\"]{3,}\"")

FIELDS: dict[str, tuple[str, ...]] = {
    "halt": ("scope", "tenant", "name", "code", "at_unix_ms"),
    "breaker": ("scope", "tenant", "name", "phase", "since_unix_ms", "until_unix_ms", "opened"),
    "letter": ("id", "code", "service", "subject", "sequence", "buried_unix_ms", "standing"),
    "limit": ("target", "limit", "at_unix_ms"),
    "alert": ("kind", "scope", "unit", "percent", "spent", "limit", "reached_unix_ms", "alerted_unix_ms"),
    "approval": ("approval_id", "task", "state", "tool", "risk", "rule", "requested_unix_ms", "expires_unix_ms"),
    "task": (
        *("task_id", "tenant", "status", "kind", "created_unix_ms", "updated_unix_ms", "cost_usd_micros"),
        *("standing", "complete", "answered", "failure_code"),
    ),
    "story": ("task_id", "tenant", "status", "began_unix_ms", "took_ms", "whole_cost", "adopted", "cut"),
    "plan": ("version", "origin", "drafts_refused", "message"),
    "step": (
        "step_id",
        "plan_version",
        "outcome",
        "attempts",
        "final",
        "inputs",
        "took_ms",
        "seen",
        "standing",
        "given",
    ),
    "call": (
        *("call_id", "kind", "by", "name", "step_id", "attempt", "asked_unix_ms", "took_ms", "outcome", "writes"),
        *("effect", "approval", "model", "chosen_as", "attempts", "retried", "waited_ms", "waited_for", "put_off"),
        *("cached", "message"),
    ),
    "happened": ("at_unix_ms", "kind", "step_id", "evidence"),
    "reason": ("kind", "level", "at_unix_ms", "evidence"),
}
HEADERS = ("ce-id", "ce-type", "ce-time", "ce-source", "ce-causeid")
"""Headers of a dead letter's original that are no content."""


def redact_row(kind: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a row that may leave; texts that are no word become `[text]`."""
    return {name: redact_value(row[name]) for name in FIELDS[kind] if name in row}


def redact_value(value: Any) -> Any:
    """Numbers and words as they are."""
    if isinstance(value, str):
        return _without_persons(without_keys(value)) if _WORD.fullmatch(value) else TEXT
    if isinstance(value, Mapping):
        return {str(redact_value(str(key))): redact_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_value(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else TEXT


def own_words(text: str) -> str:
    """A text that the mesh itself words, without keys, without what it quotes, and not longer than MAX_TEXT_CHARS."""
    return _without_persons(_QUOTED.sub(TEXT, without_keys(" ".join(text.split()))))[:MAX_TEXT_CHARS]


def _without_persons(text: str) -> str:
    """The text with a digest in place of each person."""

    def with_digest(match: re.Match[str]) -> str:
        return f"{match[1]}person-{hashlib.blake2b(match[2].encode(), digest_size=4, key=_KEY).hexdigest()}"

    return _PERSON.sub(with_digest, text)


def redact_health(report: str) -> dict[str, Any]:
    """Health that a process tells of itself at /readyz."""
    try:
        answer = json.loads(report)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        return {"answers": False}
    words = {name: own_words(str(answer.get(name) or "")) for name in ("why", "degraded")}
    return {"answers": True, "ready": redact_value(answer.get("ready")), **words}


def code_of(failure: str) -> str:
    """The code that a failure begins with; "" where it has none."""
    code_match = _CODE.match(failure)
    return code_match[0] if code_match else ""


def redact_story(story: Mapping[str, Any]) -> dict[str, Any]:
    """A task's story without its texts."""
    steps = [
        redact_row("step", step) | {"calls": _redact_calls(step.get("calls", ()))} for step in story.get("steps", ())
    ]
    return redact_row("story", story) | {
        "usage": redact_value(story.get("usage")),
        "plans": [redact_row("plan", row) for row in story.get("plans", ())],
        "steps": steps,
        "planning": _redact_calls(story.get("planning", ())),
        **{name: [redact_row("happened", row) for row in story.get(name, ())] for name in ("happened", "cause")},
        "reasons": [redact_row("reason", row) for row in story.get("reasons", ())],
    }


def _redact_calls(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [redact_row("call", row) | {"failure_code": code_of(str(row.get("failure") or ""))} for row in rows]
