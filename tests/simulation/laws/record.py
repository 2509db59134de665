"""What a run left behind: all that was stored, said and done outside. The oracle judges by this alone."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from bulkhead.bus.memory.broker import MemoryBroker
from bulkhead.bus.memory.streams import subject_matches
from bulkhead.bus.port import StoredMessage
from bulkhead_contracts import subjects
from tests.simulation.mesh.chaos import Chaos
from tests.simulation.mesh.net import Saying
from tests.simulation.mesh.outside import Counter, Model
from tests.simulation.mesh.redis_server import SimulatedRedis
from tests.simulation.scenario import Scenario


@dataclass(slots=True)
class Record:
    """What a run left behind. tasks: wish name -> task id, of what was accepted. story: what happened, in lines."""

    scenario: Scenario
    chaos: Chaos
    broker: MemoryBroker
    model: Model
    counter: Counter
    redis: SimulatedRedis
    tasks: dict[str, str] = field(default_factory=dict)
    acts: list[str] = field(default_factory=list)
    unheard: list[str] = field(default_factory=list)
    """Who still asked when everything was to have come to its end."""
    gone: set[str] = field(default_factory=set)
    """Tasks that were purged."""
    purged: dict[str, list[StoredMessage]] = field(default_factory=dict)
    halts: list[StoredMessage] = field(default_factory=list)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the gateway's API tells of each task at the end."""
    held: set[tuple[str, str]] = field(default_factory=set)
    """Service and reservation: what budget said that it holds, whether that was heard or not."""
    poisons: int = 0
    sayings: list[Saying] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    idle: bool = False
    ended_at_s: float = 0.0
    crashes: int = 0
    read: dict[str, list[StoredMessage]] = field(default_factory=dict)
    """By stream, as the laws read it: told one by one."""
    remembered: list[tuple[str, str, Any, Any]] = field(default_factory=list)
    """What deciders' replicas remember at the end: who, which task, the state, and the state that the inbox gives."""

    def stored(self, stream: str, subject: str = ">") -> list[StoredMessage]:
        """Everything that ever was in a stream on a subject filter, also what was purged since."""
        found = self.broker.get_stream(stream).read(subject, 0, 1_000_000)
        if gone := [one for one in self.purged.get(stream, ()) if subject_matches(subject, one.subject)]:
            found = sorted((*gone, *found), key=lambda one: one.sequence)
        return found

    def digest(self) -> str:
        """Of the order of all that was stored: equal for equal runs."""
        found = hashlib.blake2b(digest_size=16)
        for line in self.story:
            found.update(line.encode())
        return found.hexdigest()


TOGETHER = "mesh.ledger.reserved_together.v1"
PROGRESS = "mesh.task.progressed.v1"
PARTS = {
    "accepted": "mesh.task.accepted.v1",
    "rejected": "mesh.plan.rejected.v1",
    "adopted": "mesh.plan.adopted.v1",
    "ended": "mesh.task.step_ended.v1",
    "started": "mesh.task.step_started.v1",
}
"""What one message of progress may tell, in this order, and how each part is called alone."""
ENDED = "mesh.task.ended.v1"
PARTS_OF_END = {"ended_steps": PARTS["ended"]}


def told(stored: StoredMessage) -> Iterator[StoredMessage]:
    """The message, or, of what is told at once (progress, reservations), each part as a message of its own."""
    if stored.headers.get("ce-type") == TOGETHER:
        place = stored.subject.split(".")
        for row in json.loads(stored.body)["rows"]:
            head = {
                **stored.headers,
                "ce-type": "mesh.budget.reserved.v1",
                "ce-id": row["id"],
                "ce-causeid": row["cause"],
            }
            subject = subjects.mesh_subject(place[1], place[2], place[5], row["task"])
            yield replace(stored, subject=subject, headers=head, body=json.dumps(row["reserved"]).encode())
        return
    kind = stored.headers.get("ce-type")
    if kind not in (PROGRESS, ENDED):
        yield stored
        return
    whole = json.loads(stored.body)
    for name, of_part in (PARTS if kind == PROGRESS else PARTS_OF_END).items():
        parts = whole.get(name) or []
        for number, part in enumerate(parts if isinstance(parts, list) else [parts]):
            head = {**stored.headers, "ce-type": of_part, "ce-id": f"{stored.headers['ce-id']}/{name}/{number}"}
            yield replace(stored, headers=head, body=json.dumps(part).encode())
    if kind == ENDED:
        yield stored
