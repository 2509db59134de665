"""Calls that wait for a person, as `watch` and `show` tell them.

In: a call's approval as an event, or as the gateway lists it. Out: lines.
"""

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from bulkhead.text.amounts import format_duration, format_time

ID_CHARS = 12
MAX_WHY_CHARS = 200


def waiting_line(approval: str, asked: Mapping[str, Any]) -> str:
    """Call that is waited for, and how to see it."""
    return f"waiting for a person: {asked['tool']}, bulkhead approvals show {approval[:ID_CHARS]}"


def question_line(data: Mapping[str, Any]) -> Text:
    """A question, when it is asked."""
    reasons = "; ".join(data["why"])
    reasons = reasons if len(reasons) <= MAX_WHY_CHARS else reasons[:MAX_WHY_CHARS] + "…"
    until = f", until {format_time(data['expires_unix_ms'])}"
    return Text.assemble(
        (waiting_line(data["approval_id"], data), "bold yellow"),
        f" ({data['risk']} risk{f': {reasons}' if reasons else ''}){until}",
    )


def decision_line(question: Mapping[str, Any] | None, data: Mapping[str, Any]) -> Text:
    """Its answer."""
    tool = f" {question['tool']}" if question is not None else ""
    reason = f": {data['reason']}" if data["reason"] else ""
    if not data["person"]:
        return Text(f"nobody decided about{tool or ' a call'} in time: it is not made", "bold yellow")
    took = (
        f" after {format_duration(max(0, data['ended_unix_ms'] - question['requested_unix_ms']))}" if question else ""
    )
    style = "green" if data["outcome"] == "granted" else "bold red"
    return Text.assemble((f"{data['person']} ({data['role']}) {data['outcome']}{tool}", style), f"{took}{reason}")
