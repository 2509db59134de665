"""Uncertain writes of a task: each one may or may not have been done, and a person must check it.

In: the task's facts, in order. Out: per call its step, tool, arguments, key and time.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

from bulkhead.grants import unverified_claims
from bulkhead.journal.why.reason import Write
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.plan import PlanAdopted
from bulkhead_contracts.task import TaskEnded, TaskSubmitted
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested, write_id_of
from bulkhead_contracts.types import Body

UNANSWERED = "no answer had come when the task ended: it may have been done, or be done yet"


class WriteFact(Protocol):
    """One fact. origin: of a tool's call in a fork, the first task of its line (`origin_of` its grant); else ""."""

    @property
    def body(self) -> Body | None: ...
    @property
    def id(self) -> str: ...
    @property
    def at_unix_ms(self) -> int: ...
    @property
    def tenant(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def origin(self) -> str: ...


def find_uncertain_writes(facts: Iterable[WriteFact]) -> list[Write]:
    """Uncertain writes of one task's facts, in the order in which they were asked for."""
    facts = list(facts)
    writing = {
        tool.name
        for fact in facts
        if isinstance(fact.body, TaskSubmitted)
        for tool in fact.body.tools
        if tool.effect == "write"
    }
    titles = {
        step.id: step.title for fact in facts if isinstance(fact.body, PlanAdopted) for step in fact.body.plan.steps
    }
    over = any(isinstance(fact.body, TaskEnded) for fact in facts)
    requests: dict[str, tuple[WriteFact, ToolCallRequested]] = {}
    replies: dict[str, ToolCallReplied] = {}
    put_off: set[str] = set()
    for entry in facts:
        body = entry.body
        if isinstance(body, ToolCallRequested):
            requests.setdefault(body.call_id, (entry, body))
            put_off.discard(body.call_id)
        elif isinstance(body, ToolCallReplied):
            replies[body.call_id] = body
        elif isinstance(body, CallDeferred):
            put_off.add(body.call_id)  # Before it was begun: what had begun is answered.
    writes = []
    for call_id, (entry, call) in requests.items():
        reply = replies.get(call_id)
        if reply is None and over and call_id not in put_off and call.tool in writing:
            writes.append(_make_write(entry, call, titles, "unanswered", UNANSWERED))
        elif reply is not None and reply.outcome == "uncertain":
            reason = reply.failure.message if reply.failure else "it may or may not have been done"
            writes.append(_make_write(entry, call, titles, "uncertain", reason))
    return writes


def _make_write(
    entry: WriteFact,
    call: ToolCallRequested,
    titles: Mapping[str, str],
    outcome: Literal["uncertain", "unanswered"],
    why: str,
) -> Write:
    key = f"{entry.tenant}.{entry.origin or entry.task}.{call.call_id}"
    return Write(
        call.step_id,
        titles.get(call.step_id, ""),
        call.attempt,
        call.tool,
        call.arguments_json,
        key,
        entry.at_unix_ms,
        outcome,
        why,
        entry.id,
        write_id_of(entry.task, call.call_id) if outcome == "uncertain" else "",
    )


def origin_of(grant: str) -> str:
    """The task under whose name the keys of a call are, as the grants in it say. "" for its own."""
    return claim_of_task(grant, "origin")


def claim_of_task(grant: str, name: str) -> str:
    """A claim about the task in the grant of a call that was verified: a step's holds its task's. "" for none."""
    claims = unverified_claims(grant)
    if isinstance(parent := claims.get("parent"), str):
        claims = unverified_claims(parent)
    task = claims.get("grant")
    return str(task.get(name) or "") if isinstance(task, dict) else ""
