"""Warnings about an answer and about a write in doubt, in words that every view of a task uses.

In: a task's document, or a write that `bulkhead.journal.uncertain_writes` found. Out: lines.
"""

from typing import Any

MAX_SHOWN_CHARS = 400
"""Length of one call's arguments in the output for people; programs get them whole."""
LOOK_FIRST = "check by its key or its arguments whether it happened; request it again only if it did not"


def resolve_command(write_id: str) -> str:
    """The command by which a person says what became of a write."""
    return f"bulkhead writes resolve {write_id[:12]}"


def describe_write(step_id: str, title: str, tool: str, arguments_json: str) -> str:
    """A write, for people."""
    arguments = " ".join(arguments_json.split())
    arguments = arguments if len(arguments) <= MAX_SHOWN_CHARS else arguments[:MAX_SHOWN_CHARS] + "…"
    return f"step {step_id}{f' ({title})' if title else ''}: {tool} {arguments}"


def answer_warnings(document: dict[str, Any]) -> list[str]:
    """Everything that a reader must know before believing the answer."""
    lines = []
    result = document.get("result") or {}
    if (answered := result.get("answered")) in ("partly", "no"):
        label = "partly answered" if answered == "partly" else "not answered"
        lines.append(f"{label}: {result.get('answered_reason') or 'see the answer'}")
    if result.get("standing", "ok") != "ok":
        lines.append(f"{result['standing']}: {result.get('standing_reason') or 'a part of it came from a fallback'}")
    completeness = result.get("completeness") or {}
    for omission in completeness.get("omissions") or ():
        detail = f" ({omission['detail']})" if omission.get("detail") else ""
        how = "failed" if omission["reason"] == "failed_part" else f"was {omission['reason'].replace('_', ' ')}"
        how = "was refused" if omission.get("refused") else how
        lines.append(f"incomplete: {omission['what']} {how}{detail}")
    if not completeness.get("complete", True) and not completeness.get("omissions"):
        lines.append("incomplete: something was left out")
    return lines
