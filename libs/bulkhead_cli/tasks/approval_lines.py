"""Calls that wait for a person, as `watch` and `show` tell them.

In: a call's approval as an event, or as the gateway lists it. Out: lines.
"""

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from bulkhead.amounts import clock, seconds

ID_CHARS = 12
MAX_WHY_CHARS = 200


def waits(approval: str, asked: Mapping[str, Any]) -> str:
    """What is waited for, and how to see it."""
    return f"waiting for a person: {asked['tool']}, bulkhead approvals show {approval[:ID_CHARS]}"


def asked(data: Mapping[str, Any]) -> Text:
    """A question, when it is asked."""
    why = "; ".join(data["why"])
    why = why if len(why) <= MAX_WHY_CHARS else why[:MAX_WHY_CHARS] + "…"
    until = f", until {clock(data['expires_unix_ms'])}"
    return Text.assemble(
        (waits(data["approval_id"], data), "bold yellow"), f" ({data['risk']} risk{f': {why}' if why else ''}){until}"
    )


def ended(question: Mapping[str, Any] | None, data: Mapping[str, Any]) -> Text:
    """Its answer."""
    tool = f" {question['tool']}" if question is not None else ""
    reason = f": {data['reason']}" if data["reason"] else ""
    if not data["person"]:
        return Text(f"nobody decided about{tool or ' a call'} in time: it is not made", "bold yellow")
    took = f" after {seconds(max(0, data['ended_unix_ms'] - question['requested_unix_ms']))}" if question else ""
    style = "green" if data["outcome"] == "granted" else "bold red"
    return Text.assemble((f"{data['person']} ({data['role']}) {data['outcome']}{tool}", style), f"{took}{reason}")
