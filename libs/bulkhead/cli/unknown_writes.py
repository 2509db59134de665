"""Writes of a task of which nobody knows whether they were done, each by itself: a person must look after every one.

In: the task's messages from the journal. Out: per call its step, tool, arguments, key and when.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from bulkhead.bus.port import BusError
from bulkhead.cli.history import Entry, each_fact, entries, of_tenant
from bulkhead.cli.journal import read_journal
from bulkhead.cli.output import Stop, clock, counted
from bulkhead.cli.target import operator_bus
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.plan import PlanAdopted
from bulkhead_contracts.task import TaskEnded, TaskSubmitted
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested

MAX_SHOWN_CHARS = 400
"""Of one call's arguments, for people; programs get them whole, as the journal has them."""
PATIENCE_S = 5.0
ENDED_BADLY = frozenset({"failed", "cancelled", "halted"})
"""A write whose outcome is unknown ends its task, unless that ends in another way meanwhile."""
CODE = "uncertain_effect"
UNANSWERED = "no answer had come when the task ended: it may have been done, or be done yet"
ELSEWHERE = ("writes of other steps may be in doubt as well: `bulkhead why TASK`, where the mesh runs, lists each with "
             "its arguments and its key")
LOOK_FIRST = "look whether it happened, by its key or its arguments; only what did not happen is to be asked for again"


@dataclass(frozen=True, slots=True)
class Write:
    """One call. key: what a tool that honours keys was sent. outcome: uncertain, or unanswered at the task's end."""

    step_id: str
    title: str
    attempt: int
    tool: str
    arguments_json: str
    key: str
    asked_unix_ms: int
    outcome: Literal["uncertain", "unanswered"]
    why: str
    message: str

    @property
    def named(self) -> str:
        """Which one, for people."""
        title = f" ({self.title})" if self.title else ""
        shown = " ".join(self.arguments_json.split())
        shown = shown if len(shown) <= MAX_SHOWN_CHARS else shown[:MAX_SHOWN_CHARS] + "…"
        return f"step {self.step_id}{title}: {self.tool} {shown}"


def unknown(told: list[Entry]) -> list[Write]:
    """Of one task's facts, in the order in which they were asked for."""
    writing = {tool.name for one in told if isinstance(one.body, TaskSubmitted)
               for tool in one.body.tools if tool.effect == "write"}
    titles = {step.id: step.title for one in told if isinstance(one.body, PlanAdopted) for step in one.body.plan.steps}
    over = any(isinstance(one.body, TaskEnded) for one in told)
    asked: dict[str, Entry] = {}
    replies: dict[str, ToolCallReplied] = {}
    put_off: set[str] = set()
    for entry in told:
        body = entry.body
        if isinstance(body, ToolCallRequested):
            asked.setdefault(body.call_id, entry)
            put_off.discard(body.call_id)
        elif isinstance(body, ToolCallReplied):
            replies[body.call_id] = body
        elif isinstance(body, CallDeferred):
            put_off.add(body.call_id)  # Before it was begun: what had begun is answered.
    found = []
    for call_id, entry in asked.items():
        reply = replies.get(call_id)
        if reply is None and over and call_id not in put_off:
            found.append(_write(entry, titles, "unanswered", UNANSWERED, writing))
        elif reply is not None and reply.outcome == "uncertain":
            why = reply.failure.message if reply.failure else "it may or may not have been done"
            found.append(_write(entry, titles, "uncertain", why, None))
    return [one for one in found if one is not None]


def _write(entry: Entry, titles: Mapping[str, str], outcome: Literal["uncertain", "unanswered"], why: str,
           only: set[str] | None) -> Write | None:
    """only: the tools that write; None where its reply says that it did."""
    body = entry.body
    assert isinstance(body, ToolCallRequested)
    if only is not None and body.tool not in only:
        return None
    key = f"{entry.tenant}.{entry.origin or entry.task}.{body.call_id}"
    return Write(body.step_id, titles.get(body.step_id, ""), body.attempt, body.tool, body.arguments_json, key,
                 entry.at_unix_ms, outcome, why, entry.id)


async def look(document: Mapping[str, Any], local: Path | None) -> list[Write] | None:
    """Of an ended task, as the gateway shows it. None when its journal cannot be read from here.

    local: the data directory of the mesh, where this machine has it; the journal is read under the operator's key.
    """
    if document["status"] not in ENDED_BADLY:
        return []
    if local is None:
        return None
    task, tenant = str(document["task_id"]), str((document.get("requester") or {}).get("tenant", ""))
    try:
        async with asyncio.timeout(PATIENCE_S), operator_bus(local) as bus:
            stored = await read_journal(bus, task, reservations=False)
        return unknown(each_fact(entries(of_tenant(stored, task, tenant))))
    except (Stop, BusError, TimeoutError):
        return None


def as_json(document: Mapping[str, Any], found: list[Write] | None) -> dict[str, Any]:
    """The document with `uncertain_writes`: null where there may be some and they cannot be listed from here."""
    if found is None and not _may_be_more(document):
        found = []
    return {**document, "uncertain_writes": None if found is None else [asdict(one) for one in found]}


def _may_be_more(document: Mapping[str, Any]) -> bool:
    return (document.get("failure") or {}).get("code") == CODE


def show(console: Console, document: Mapping[str, Any], found: list[Write] | None) -> None:
    """Print the list, or where it is to be had."""
    if found is None:
        if _may_be_more(document):
            console.print(ELSEWHERE.replace("TASK", str(document["task_id"])), style="yellow", markup=False)
        return
    if not found:
        return
    console.print()
    console.print(f"{counted(len(found), 'write')} may or may not have been done, and none is repeated by itself; "
                  f"{LOOK_FIRST}", style="bold yellow", markup=False)
    for one in found:
        console.print(f"  {one.named}", markup=False)
        console.print(f"      key {one.key}, asked for {clock(one.asked_unix_ms)}: {one.why}", style="dim",
                      markup=False)
