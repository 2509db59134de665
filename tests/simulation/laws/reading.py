"""How the laws read a record: raw messages, as JSON. Shares no code with the services.

In: a Record. Out: messages of a type, bodies, who a message is about.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from bulkhead.bus.port import StoredMessage
from tests.simulation.laws.record import Record, told
from tests.simulation.scenario import Wish

GENTLE = frozenset({"lag_source", "stale_read", "lose_live"})
"""Kinds of faults that must not keep a task from succeeding: what is late or lost then is looked up."""


def body(stored: StoredMessage) -> dict[str, Any]:
    """The message. One value for all laws, which nobody changes: most messages are read by several."""
    return _of_bytes(stored.body)


@lru_cache(4_096)
def _of_bytes(raw: bytes) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(raw)
    return message


def type_of(stored: StoredMessage) -> str:
    """With its version."""
    return stored.headers.get("ce-type", "")


def task_of(subject: str) -> str:
    """Task of a message; of a blob or a control entry the last token."""
    return subject.split(".", 6)[:6][-1]


def of(record: Record, stream: str, *kinds: str) -> list[StoredMessage]:
    """Messages of these types in a stream, in its order; also those that were purged since, but no strays."""
    heads = tuple(f"{kind}.v" for kind in kinds)
    if stream not in record.read:
        record.read[stream] = [part for one in record.stored(stream) if not is_stray(one) for part in told(one)]
    return [one for one in record.read[stream] if type_of(one).startswith(heads)]


def is_stray(stored: StoredMessage) -> bool:
    """Whether the run itself stored this, as from a service with a bug: not to be taken."""
    return stored.headers.get("ce-id", "").startswith("poison-")


def said(record: Record, stream: str, *kinds: str) -> dict[str, list[StoredMessage]]:
    """The same by task, each message once (by sender and id: an inbox may hold it twice)."""
    found: dict[str, dict[tuple[str, str], StoredMessage]] = {}
    for one in of(record, stream, *kinds):
        key = (one.headers.get("ce-source", ""), one.headers.get("ce-id", ""))
        found.setdefault(task_of(one.subject), {}).setdefault(key, one)
    return {task: list(each.values()) for task, each in found.items()}


def wishes(record: Record) -> Iterator[tuple[Wish, str]]:
    """What was taken, with its task."""
    for wish in record.scenario.wishes:
        if wish.name in record.tasks:
            yield wish, record.tasks[wish.name]


def is_calm(record: Record) -> bool:
    """Whether nothing went wrong that could keep a task from succeeding."""
    return record.crashes == 0 and all(fault.kind in GENTLE for fault in record.chaos.fired)


def contents(record: Record) -> dict[str, bytes]:
    """Every content by its digest."""
    return {task_of(one.subject): one.body for one in record.stored("BLOBS")}


def wants(wish: Wish) -> list[dict[str, Any]]:
    """What the scripted model is told to do in each step of a plan that was submitted."""
    return [instructed(step.instruction) for step in (wish.plan.steps if wish.plan else ())]


def instructed(text: str) -> dict[str, Any]:
    """The `SIM{...}` in a text; {} without one."""
    at = text.find("SIM{")
    return json.JSONDecoder().raw_decode(text[at + 3 :])[0] if at >= 0 else {}
