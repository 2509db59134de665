"""All detectors over one stream of events: what the live watcher, `bulkhead analyze` and the scoring set run.

In: events in stream order; the time that has passed. Out: findings and suspicions of deadlock. The end of a lineage
frees its state. Later events of it change nothing, except how calls ended and which model answered: that is about the
tool or model that was called.
"""

from collections import OrderedDict
from dataclasses import replace
from typing import assert_never

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.breakers.registry import BreakerRegistry
from bulkhead.health.chatter import ChatterDetector
from bulkhead.health.deadlock.confirmation import ConfirmedDeadlock, DeadlockConfirmations, Outcome
from bulkhead.health.deadlock.evidence import SuspectedDeadlock, choose_victim
from bulkhead.health.deadlock.wait_graph import WaitGraph
from bulkhead.health.deadlock.waits import Wait
from bulkhead.health.events import (
    Act,
    CallEnded,
    Event,
    LineageEnded,
    ModelIdentified,
    PartyFacts,
    WaitClosed,
    WaitOpened,
    WorkClosed,
    WorkOpened,
)
from bulkhead.health.findings import HealthFinding, finding_of
from bulkhead.health.loops.windows import LoopDetector
from bulkhead.health.models import ModelIdentities
from bulkhead.health.stalls import StallDetector
from bulkhead.health.thresholds import DEFAULT, Thresholds

MAX_ENDED = 200_000
MAX_ACTS = 100_000
"""Ids of acts, and of calls that ended, that are remembered: who delivers at least once tells some of them twice."""
MAX_HELD_ACTS = 500_000
"""Acts held in the windows of all lineages: of tasks whose end nobody tells there may be any number. Beyond it those
that were silent longest are forgotten. A lineage itself takes as much as a few acts."""
_LINEAGE_ACTS = 4


class Watch:
    """The state of all detectors."""

    def __init__(self, thresholds: Thresholds = DEFAULT) -> None:
        self.thresholds = thresholds
        self.loops = LoopDetector(thresholds.loops)
        self.chatter = ChatterDetector(thresholds.chatter)
        self.stalls = StallDetector(thresholds.stalls)
        self.graph = WaitGraph()
        self.confirmations = DeadlockConfirmations()
        self.breakers = BreakerRegistry(thresholds.breakers)
        self.models = ModelIdentities()
        self.now_unix_ms = 0
        self._ended = BoundedDict[str, None](MAX_ENDED)
        self._acts = BoundedDict[tuple[str, str, str], None](MAX_ACTS)
        self._served = BoundedDict[tuple[str, str, str], None](MAX_ACTS)
        self._tenants: dict[str, str] = {}
        self._held = OrderedDict[str, int]()
        self._held_acts = 0
        self.forgotten = 0
        """How many lineages went on after they had been forgotten."""
        self._gone = BoundedDict[str, None](MAX_ENDED)

    def has_ended(self, lineage: str) -> bool:
        """Check whether a lineage is known to be over."""
        return lineage in self._ended

    def fold_event(self, event: Event) -> list[HealthFinding | SuspectedDeadlock]:
        """Fold one event. A suspicion is to be confirmed: tell `confirmations` which sequences it has to wait for."""
        results: list[HealthFinding | SuspectedDeadlock] = []
        self.now_unix_ms = max(self.now_unix_ms, event.time_unix_ms)
        if event.lineage in self._ended and not isinstance(event, CallEnded | ModelIdentified):
            return results
        match event:
            case Act() if _is_repeat(self._acts, event):
                pass
            case CallEnded() if _is_repeat(self._served, event):
                pass
            case Act():
                results += self.loops.fold_act(event)
                talk = self.chatter.fold_act(event)
                results += talk
                results += [
                    breaker_finding
                    for trip in talk
                    for breaker_finding in self.breakers.fold_chatter_trip(trip, event.actor)
                ]
                self._hold_act(event.lineage)
            case CallEnded():
                results += self.breakers.fold_call(event)
            case ModelIdentified():
                results += self.models.fold_event(event)
            case WaitOpened():
                results += self._open_wait(event)
            case WaitClosed(target=target):
                if target and event.gone:
                    results += self.graph.lose_target(event.wait, target)
                elif target:
                    results += self.graph.answer_target(event.wait, target)
                else:
                    results += self.graph.close_wait(event.wait, task=event.lineage)
            case PartyFacts():
                self.graph.add_party_facts(event.agent, event.lineage, event.time_unix_ms, event.spent)
            case WorkOpened() | WorkClosed():
                self.stalls.fold_event(event)
            case LineageEnded():
                results += self._end_lineage(event)
            case _:
                assert_never(event)
        return results

    def pass_time(self, now_unix_ms: int) -> list[HealthFinding]:
        """Findings of what is wrong because nothing came."""
        self.now_unix_ms = max(self.now_unix_ms, now_unix_ms)
        return self.stalls.pass_time(self.now_unix_ms)

    def judge_suspicions(self, now_unix_ms: int = 0) -> list[tuple[Outcome, HealthFinding | None]]:
        """Suspicions that can be judged now; a finding for each deadlock."""
        return [
            (
                outcome,
                self.deadlock_finding(choose_victim(outcome.suspected, self.graph.parties))
                if isinstance(outcome, ConfirmedDeadlock)
                else None,
            )
            for outcome in self.confirmations.settle_suspicions(self.graph, now_unix_ms)
        ]

    def deadlock_finding(self, suspected: SuspectedDeadlock) -> HealthFinding:
        """The finding of a deadlock. Its id is that of the suspicion, which derives from the edges."""
        victim = suspected.victim or "nobody: only leases wait"
        description = f"{' waits for '.join((*suspected.cycle[:12], suspected.cycle[0]))}: nobody of them can go on"
        facts = {
            "cycle": list(suspected.cycle),
            "circle": list(suspected.circle),
            "victim": victim,
            "refuse": suspected.refused_wait,
            "waits": [wait.key for wait in suspected.waits],
            "tasks": list(suspected.tasks),
        }
        lineage = next(
            (wait.task for wait in suspected.waits if wait.key == suspected.refused_wait), suspected.tasks[0]
        )
        tenant, circle, trip = self._tenants.get(lineage, ""), suspected.circle, suspected.trip
        message_ids = tuple(wait.said or wait.key for wait in suspected.waits)
        finding = finding_of(
            "deadlock", "stop", tenant, lineage, circle, description, message_ids, self.now_unix_ms, trip, facts
        )
        return replace(finding, id=suspected.trip)

    def _open_wait(self, event: WaitOpened) -> list[SuspectedDeadlock]:
        if event.tenant:
            self._tenants[event.lineage] = event.tenant
        if not event.resource:
            self.graph.add_party_facts(event.agent, event.lineage, event.time_unix_ms)
        suspicions = self.graph.open_wait(
            Wait(event.id, event.agent, event.targets, event.mode, event.lineage, event.resource, event.said)
        )
        if event.until_unix_ms:
            self.graph.set_expiry(event.id, event.until_unix_ms)
        return suspicions

    def _hold_act(self, lineage: str) -> None:
        """Count an act that is held from now on, and forget what was silent longest where it is one too many."""
        before = self._held.pop(lineage, 0)
        if not before and lineage in self._gone:
            del self._gone[lineage]
            self.forgotten += 1
        held_acts = self._held[lineage] = _LINEAGE_ACTS + self.loops.held_acts(lineage)
        self._held_acts += held_acts - before
        while self._held_acts > MAX_HELD_ACTS and len(self._held) > 1:
            name, acts = self._held.popitem(last=False)
            self._held_acts -= acts
            self.loops.end_lineage(name)
            self.chatter.end_lineage(name)
            self._gone[name] = None

    def _end_lineage(self, event: LineageEnded) -> list[SuspectedDeadlock]:
        name = event.lineage
        self._ended[name] = None
        self.loops.end_lineage(name)
        self.chatter.end_lineage(name)
        self._held_acts -= self._held.pop(name, 0)
        self.stalls.fold_event(event)
        self._tenants.pop(name, None)
        return self.graph.end_task(name)


def _is_repeat(known: BoundedDict[tuple[str, str, str], None], event: Act | CallEnded) -> bool:
    # A message to several agents is one act for each of them.
    key = (event.lineage, event.id, event.to if isinstance(event, Act) else "")
    if key in known:
        return True
    known[key] = None
    return False
