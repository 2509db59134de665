"""All breakers over one stream of calls: which call counts for which breaker, which change, what opened them.

In: calls that ended (`CallEnded`), tasks stopped for chatter, what a person reset, what another owner had
decided. Out: trips, and breakers whose phase changed. A breaker of a tool or model is one tenant's: a
tenant whose calls fail holds up nobody else. A tenant's own breaker looks at how many calls come, not at
how they end: an outage of what it uses is not its fault. An agent's looks at both, with patience: trying
around is honest; and at the tasks in which it only talked.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.breakers.chatter import ChatteringAgents, ChatterStop
from bulkhead.health.breakers.state_machine import (
    BreakerState,
    CallOutcome,
    Phase,
    apply_call,
    close_breaker,
    half_open_breaker,
    open_breaker,
)
from bulkhead.health.events import CallEnded
from bulkhead.health.findings import HealthFinding, finding_of
from bulkhead.health.thresholds import BreakerThresholds

MAX_BREAKERS = 10_000
MAX_EVIDENCE, MAX_ACTORS = 16, 64
MAX_NAMED = 8
"""Tasks that a reason names."""
AGENT_MIN_CALLS, AGENT_ERROR_RATE = 30, 0.8

Key = tuple[str, str, str]
"""scope, tenant ("" for a tenant's own), name."""


class BreakerEvidence:
    """Calls of a breaker, all or those that failed or were slow: when and which the newest were, and for whom and when
    each person's last one was made. A call has its time, its id, and its task."""

    __slots__ = ("calls", "people")

    def __init__(self) -> None:
        self.calls: deque[tuple[int, str, str]] = deque(maxlen=MAX_EVIDENCE)
        self.people = BoundedDict[str, int](MAX_ACTORS)

    def add_call(self, event: CallEnded) -> None:
        """One more."""
        self.calls.append((event.time_unix_ms, event.id, event.lineage.rpartition("/")[2]))
        if event.actor:
            # Not only of the newest calls: who made many of them before another's last ones has tripped it, too.
            self.people[event.actor] = event.time_unix_ms


class BreakerOpening(NamedTuple):
    """Cause of an opening: ids of messages, for whom the calls were made, and the task of each message."""

    evidence: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


NO_OPENING = BreakerOpening()


class BreakerRegistry:
    """The state of all breakers. changed: those whose phase is to be told, the newest state of each.

    from_unix_ms: no call counts that was before, nor a task that talked before talk_from_unix_ms; what came of
    it is known from elsewhere, by `adopt_breaker` and `reset_breaker`. talkers: what counts towards holding an
    agent back that only talks.
    """

    def __init__(self, thresholds: BreakerThresholds) -> None:
        self._thresholds = thresholds
        self._patient = replace(thresholds, min_calls=AGENT_MIN_CALLS, error_rate=AGENT_ERROR_RATE)
        self.states: OrderedDict[Key, BreakerState] = OrderedDict()
        self.changed: dict[Key, BreakerState] = {}
        self._shown: dict[Key, tuple[BreakerEvidence, BreakerEvidence]] = {}
        """All calls, and the faults."""
        self._opened: dict[Key, BreakerOpening] = {}
        self.talkers = ChatteringAgents(self._patient)
        self.from_unix_ms = self.talk_from_unix_ms = 0

    def fold_call(self, event: CallEnded) -> list[HealthFinding]:
        """One call that ended; a trip for each breaker that it opens."""
        if event.role and event.tenant and event.time_unix_ms >= self.talk_from_unix_ms:
            self.talkers.record_use(("agent", event.tenant, event.role), event.actor, event.time_unix_ms)
        if event.time_unix_ms < self.from_unix_ms:
            return []
        return [
            self._trip_finding(key, breaker, event)
            for key, call in _calls_by_breaker(event)
            if (breaker := self._feed_call(key, call, event))
        ]

    def fold_chatter_trip(self, trip: HealthFinding, actor: str = "") -> list[HealthFinding]:
        """A trip of chatter in a task that runs for `actor`; a trip for each agent that by now has only talked in too
        many tasks."""
        roles = trip.facts.get("roles")
        if trip.level != "stop" or trip.time_unix_ms < self.talk_from_unix_ms or not isinstance(roles, list):
            return []
        keys = [("agent", trip.tenant, str(role)) for role in roles]
        return [
            self._trip_finding(key, breaker, trip) for key in keys if (breaker := self._feed_chatter(key, trip, actor))
        ]

    def reset_breaker(self, key: Key, by: str, at_unix_ms: int) -> None:
        """A person has closed it."""
        breaker = self.states.get(key)
        if breaker is not None:
            # The one who tripped it does not close it.
            if breaker.phase != "closed" and by != breaker.name:
                self.states[key] = close_breaker(breaker, at_unix_ms, f"reset by {by}")
            self._shown.pop(key, None)
        self.talkers.forget_stops(key, at_unix_ms)
        self.changed.pop(key, None)

    def adopt_breaker(self, key: Key, breaker: BreakerState, opening: BreakerOpening = NO_OPENING) -> None:
        """Take over what the previous owner decided, which this one did not see or saw a little differently."""
        self._store_breaker(key, breaker)
        self._opened[key] = opening
        self.talkers.forget_stops(key, breaker.since_unix_ms if breaker.phase == "closed" else None)
        self.changed.pop(key, None)

    def opening_of(self, key: Key) -> BreakerOpening:
        """Cause of its opening, since it was closed; nothing while it is closed."""
        return self._opened.get(key, NO_OPENING) if self.states[key].phase != "closed" else NO_OPENING

    def _feed_call(self, key: Key, call: CallOutcome, event: CallEnded) -> BreakerState | None:
        """The breaker, if this call opens it."""
        thresholds = self._patient if key[0] == "agent" else self._thresholds
        breaker = self.states.get(key) or BreakerState(key[0], key[2])
        phase, began = breaker.phase, call.at_unix_ms - call.latency_ms
        if phase != "closed" and began >= breaker.until_unix_ms:
            # It went out after the time of the open breaker was over: a trial, whether or not its doer says so.
            if phase == "open":
                breaker = half_open_breaker(breaker)
            call = replace(call, trial=True)
        calls, faults = self._shown.get(key) or self._shown.setdefault(key, (BreakerEvidence(), BreakerEvidence()))
        if call.trial if phase != "closed" else began >= breaker.since_unix_ms:
            calls.add_call(event)
            if call.failed or call.latency_ms >= thresholds.slow_ms:
                faults.add_call(event)
        openings = breaker.openings
        breaker = apply_call(breaker, call, thresholds)
        self._store_breaker(key, breaker)
        opens = breaker.openings > openings
        if breaker.phase != phase or opens:
            self.changed[key] = breaker
        if not opens:
            return None
        since, causes = call.at_unix_ms - thresholds.window_ms, calls if breaker.flooded else faults
        evidence = {name: task for call_unix_ms, name, task in causes.calls if call_unix_ms > since}
        self._record_opening(
            key, evidence, (who for who, call_unix_ms in causes.people.items() if call_unix_ms > since), phase
        )
        return breaker

    def _feed_chatter(self, key: Key, trip: HealthFinding, actor: str) -> BreakerState | None:
        """The breaker, if this task opens it."""
        thresholds, stopped_unix_ms = self._patient, trip.time_unix_ms
        breaker = self.states.get(key) or BreakerState(key[0], key[2])
        tried = breaker.phase != "closed"
        self._store_breaker(key, breaker)
        if stopped_unix_ms < (breaker.until_unix_ms if tried else breaker.since_unix_ms):
            return None  # It talked before it was held back, or before somebody let it go on.
        tasks = self.talkers.add_stop(key, trip.lineage, ChatterStop(stopped_unix_ms, trip.evidence, actor))
        if not tried and not self.talkers.has_enough_stops(key, stopped_unix_ms):
            return None
        minutes = thresholds.chatter_window_ms // 60_000
        reason = f"{_task_subject(tasks)} stopped within {minutes} min because the agents only talked"
        share = max(1, MAX_EVIDENCE // len(tasks))
        evidence = {
            name: lineage.rpartition("/")[2] for lineage, task in tasks.items() for name in task.evidence[-share:]
        }
        self._record_opening(key, evidence, (task.actor for task in tasks.values() if task.actor), breaker.phase)
        self.changed[key] = breaker = open_breaker(breaker, stopped_unix_ms, reason, thresholds)
        self._store_breaker(key, breaker)
        self.talkers.forget_stops(key)
        return breaker

    def _record_opening(self, key: Key, evidence: Mapping[str, str], people: Iterable[str], phase: Phase) -> None:
        """Remember what opens a breaker. One that is tried keeps those for whom it was opened before. evidence: the
        task of each message."""
        before = self._opened.get(key, NO_OPENING).actors if phase != "closed" else ()
        actors = tuple(dict.fromkeys([*before, *people]))[:MAX_ACTORS]
        self._opened[key] = BreakerOpening(tuple(evidence), actors, tuple(evidence.values()))
        self._shown.pop(key, None)

    def _trip_finding(self, key: Key, breaker: BreakerState, by: CallEnded | HealthFinding) -> HealthFinding:
        """`by`: what opened it, in whichever task."""
        scope, tenant, name = key
        task_scope, description = (tenant or by.tenant, by.lineage), f"{scope} {name}: {breaker.reason}"
        opening, cause = self._opened[key], str(breaker.since_unix_ms)
        evidence, tasks = opening.evidence, list(opening.tasks)
        facts = {"until_unix_ms": breaker.until_unix_ms, "openings": breaker.openings, "tasks": tasks}
        return finding_of(
            f"breaker.{scope}", "stop", *task_scope, (name,), description, evidence, by.time_unix_ms, cause, facts
        )

    def _store_breaker(self, key: Key, breaker: BreakerState) -> None:
        self.states[key] = breaker
        self.states.move_to_end(key)
        while len(self.states) > MAX_BREAKERS:
            # One that is not closed is forgotten last: its entry would never be closed.
            evicted = next(
                (name for name, row in self.states.items() if row.phase == "closed"), next(iter(self.states))
            )
            self.talkers.forget_stops(evicted)
            for table in (self.states, self.changed, self._shown, self._opened):
                table.pop(evicted, None)


def _calls_by_breaker(event: CallEnded) -> Iterator[tuple[Key, CallOutcome]]:
    if event.name:
        yield (
            (event.kind, event.tenant, event.name),
            CallOutcome(event.time_unix_ms, event.failed, event.latency_ms, counted=event.counted, why=event.why),
        )
    if event.tenant and not event.counted:
        yield ("tenant", "", event.tenant), CallOutcome(event.time_unix_ms)
        if event.role:
            yield ("agent", event.tenant, event.role), CallOutcome(event.time_unix_ms, event.error)


def _task_subject(tasks: Collection[str]) -> str:
    """Tasks as a subject of a sentence."""
    task_names = ", ".join(name.rpartition("/")[2] for name in list(tasks)[:MAX_NAMED])
    remainder = f" and {len(tasks) - MAX_NAMED} more" if len(tasks) > MAX_NAMED else ""
    return f"task {task_names} was" if len(tasks) == 1 else f"{len(tasks)} tasks ({task_names}{remainder}) were"
