"""A detector's finding: what is wrong, the evidence for it, and what to do.

The id derives from the evidence, so that a watcher that folds the same messages again gives the same ids.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bulkhead.health.events import Act

Level = Literal["warn", "stop"]
MAX_EVIDENCE = 64
"""Ids that a finding names; of a longer chain the first and the last half."""


@dataclass(frozen=True, slots=True)
class HealthFinding:
    """detector: `loop.repeat`, `chatter.group`, `stall`, `deadlock`, `breaker.tool`. agents: those that take part.

    evidence: ids of the messages that show it, oldest first. facts: numbers and names for programs.
    """

    id: str
    detector: str
    level: Level
    tenant: str
    lineage: str
    agents: tuple[str, ...]
    what: str
    hint: str
    evidence: tuple[str, ...]
    time_unix_ms: int
    facts: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "id": self.id,
            "detector": self.detector,
            "level": self.level,
            "tenant": self.tenant,
            "task": self.lineage,
            "agents": list(self.agents),
            "what": self.what,
            "hint": self.hint,
            "evidence": list(self.evidence),
            "time_unix_ms": self.time_unix_ms,
            "facts": dict(self.facts),
        }


HINTS = {
    "loop": "tell the agent what it has already found, change its instruction, or end the task",
    "loop.error": "the action fails the same way every time: repair what it needs, or take the action away",
    "loop.monologue": "the agent writes instead of acting: tell it which action comes next, or end the step",
    "loop.paraphrase": "look whether the answers are of use; nothing is stopped for this alone",
    "chatter": "agents talk more than they work: give one of them the decision, or end the task",
    "stall": "nothing will move this task on by itself: cancel it, or send it the message that it lacks",
    "deadlock": "the wait of the victim is to be refused; its agent can go on without the answer",
    "watch": "report it with what budget's log says under left_out; the task itself goes on, and its limits hold",
    "model": "look whether it is worse now: bulkhead models probe, bulkhead models compare; if so, pin another version",
    "breaker": "calls are held back for a while; look at the tool or model, then reset the breaker: bulkhead breakers",
    "breaker.agent": "its calls wait for a while in all tasks of the tenant; look at what it did in those that are "
    "named, change its instruction, then reset the breaker: bulkhead breakers",
}


def finding_of(
    detector: str,
    level: Level,
    tenant: str,
    lineage: str,
    agents: tuple[str, ...],
    what: str,
    evidence: tuple[str, ...],
    time_unix_ms: int,
    cause: str,
    facts: Mapping[str, object],
) -> HealthFinding:
    """A finding whose id derives from what was found and the act that showed it."""
    if len(evidence) > MAX_EVIDENCE:
        evidence = evidence[: MAX_EVIDENCE // 2] + evidence[-MAX_EVIDENCE // 2 :]
    parts = "\0".join((detector, level, tenant, lineage, cause, *agents, *evidence))
    name = hashlib.blake2b(parts.encode("utf-8", "replace"), digest_size=16).hexdigest()
    hint = HINTS.get(detector) or HINTS[detector.partition(".")[0]]
    return HealthFinding(name, detector, level, tenant, lineage, agents, what, hint, evidence, time_unix_ms, facts)


def shown_by(
    act: Act,
    detector: str,
    level: Level,
    agents: tuple[str, ...],
    what: str,
    evidence: tuple[str, ...],
    facts: Mapping[str, object],
) -> HealthFinding:
    """A finding that an act has shown, in its lineage and at its time."""
    scope = (act.tenant, act.lineage)
    return finding_of(detector, level, *scope, agents, what, evidence, act.time_unix_ms, act.id, facts)
