"""All detectors over one stream of events: what the live watcher, `bulkhead analyze` and the scoring set run.

In: events in stream order; the time that has passed. Out: findings and suspicions of deadlock. The end of a lineage
frees its state. Later events of it change nothing, except how calls ended and which model answered: that is about the
tool or model that was called.
"""

from collections import OrderedDict
from dataclasses import replace
from typing import assert_never

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.breakers.registry import Circuits
from bulkhead.health.chatter import Chatter
from bulkhead.health.deadlock.confirmation import Confirmations, Confirmed, Outcome
from bulkhead.health.deadlock.evidence import Suspected, chosen
from bulkhead.health.deadlock.wait_graph import WaitGraph
from bulkhead.health.deadlock.waits import Wait
from bulkhead.health.events import Act, Closed, Ended, Event, Identified, Known, Opened, Served, WaitClosed, WaitOpened
from bulkhead.health.findings import Finding, finding_of
from bulkhead.health.loops.windows import Lineages
from bulkhead.health.models import Models
from bulkhead.health.stalls import Stalls
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
        self.loops = Lineages(thresholds.loops)
        self.chatter = Chatter(thresholds.chatter)
        self.stalls = Stalls(thresholds.stalls)
        self.graph = WaitGraph()
        self.confirmations = Confirmations()
        self.circuits = Circuits(thresholds.breakers)
        self.models = Models()
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

    def ended(self, lineage: str) -> bool:
        """Whether a lineage is known to be over."""
        return lineage in self._ended

    def take(self, event: Event) -> list[Finding | Suspected]:
        """Fold one event. A suspicion is to be confirmed: tell `confirmations` which sequences it has to wait for."""
        found: list[Finding | Suspected] = []
        self.now_unix_ms = max(self.now_unix_ms, event.time_unix_ms)
        if event.lineage in self._ended and not isinstance(event, Served | Identified):
            return found
        match event:
            case Act() if _told_before(self._acts, event):
                pass
            case Served() if _told_before(self._served, event):
                pass
            case Act():
                found += self.loops.take(event)
                talk = self.chatter.take(event)
                found += talk
                found += [one for trip in talk for one in self.circuits.talked(trip, event.actor)]
                self._hold(event.lineage)
            case Served():
                found += self.circuits.take(event)
            case Identified():
                found += self.models.take(event)
            case WaitOpened():
                found += self._wait(event)
            case WaitClosed(target=target):
                if target and event.gone:
                    found += self.graph.lose(event.wait, target)
                elif target:
                    found += self.graph.answer(event.wait, target)
                else:
                    found += self.graph.close(event.wait, task=event.lineage)
            case Known():
                self.graph.know(event.agent, event.lineage, event.time_unix_ms, event.spent)
            case Opened() | Closed():
                self.stalls.take(event)
            case Ended():
                found += self._end(event)
            case _:
                assert_never(event)
        return found

    def pass_time(self, now_unix_ms: int) -> list[Finding]:
        """What is wrong because nothing came."""
        self.now_unix_ms = max(self.now_unix_ms, now_unix_ms)
        return self.stalls.pass_time(self.now_unix_ms)

    def confirmed(self, now_unix_ms: int = 0) -> list[tuple[Outcome, Finding | None]]:
        """Suspicions that can be judged now; a finding for each deadlock."""
        return [
            (one, self.deadlock(chosen(one.suspected, self.graph.parties)) if isinstance(one, Confirmed) else None)
            for one in self.confirmations.settle(self.graph, now_unix_ms)
        ]

    def deadlock(self, suspected: Suspected) -> Finding:
        """The finding of a deadlock. Its id is that of the suspicion, which derives from the edges."""
        victim = suspected.victim or "nobody: only leases wait"
        what = f"{' waits for '.join((*suspected.cycle[:12], suspected.cycle[0]))}: nobody of them can go on"
        facts = {
            "cycle": list(suspected.cycle),
            "circle": list(suspected.circle),
            "victim": victim,
            "refuse": suspected.refuse,
            "waits": [wait.key for wait in suspected.waits],
            "tasks": list(suspected.tasks),
        }
        lineage = next((wait.task for wait in suspected.waits if wait.key == suspected.refuse), suspected.tasks[0])
        tenant, circle, trip = self._tenants.get(lineage, ""), suspected.circle, suspected.trip
        said = tuple(wait.said or wait.key for wait in suspected.waits)
        finding = finding_of("deadlock", "stop", tenant, lineage, circle, what, said, self.now_unix_ms, trip, facts)
        return replace(finding, id=suspected.trip)

    def _wait(self, event: WaitOpened) -> list[Suspected]:
        if event.tenant:
            self._tenants[event.lineage] = event.tenant
        if not event.resource:
            self.graph.know(event.agent, event.lineage, event.time_unix_ms)
        found = self.graph.open(
            Wait(event.id, event.agent, event.targets, event.mode, event.lineage, event.resource, event.said)
        )
        if event.until_unix_ms:
            self.graph.lasts(event.id, event.until_unix_ms)
        return found

    def _hold(self, lineage: str) -> None:
        """Count an act that is held from now on, and forget what was silent longest where it is one too many."""
        before = self._held.pop(lineage, 0)
        if not before and lineage in self._gone:
            del self._gone[lineage]
            self.forgotten += 1
        held = self._held[lineage] = _LINEAGE_ACTS + self.loops.held(lineage)
        self._held_acts += held - before
        while self._held_acts > MAX_HELD_ACTS and len(self._held) > 1:
            name, acts = self._held.popitem(last=False)
            self._held_acts -= acts
            self.loops.end(name)
            self.chatter.end(name)
            self._gone[name] = None

    def _end(self, event: Ended) -> list[Suspected]:
        name = event.lineage
        self._ended[name] = None
        self.loops.end(name)
        self.chatter.end(name)
        self._held_acts -= self._held.pop(name, 0)
        self.stalls.take(event)
        self._tenants.pop(name, None)
        return self.graph.end_task(name)


def _told_before(known: BoundedDict[tuple[str, str, str], None], event: Act | Served) -> bool:
    # A message to several agents is one act for each of them.
    key = (event.lineage, event.id, event.to if isinstance(event, Act) else "")
    if key in known:
        return True
    known[key] = None
    return False
