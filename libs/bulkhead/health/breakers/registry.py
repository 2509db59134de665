"""All breakers over one stream of calls: which call counts for which breaker, which change, what opened them.

In: calls that ended (`Served`), tasks stopped for chatter, what a person reset, what another owner had decided. Out:
trips, and breakers whose phase changed. A breaker of a tool or model is one tenant's: a tenant whose calls fail holds
up nobody else. A tenant's own breaker looks at how many calls come, not at how they end: an outage of what it uses is
not its fault. An agent's looks at both, with patience: trying around is honest; and at the tasks in which it only
talked.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.breakers.chatter import Talked, Talkers
from bulkhead.health.breakers.state_machine import Breaker, Called, Phase, closed, half_open, opened, step
from bulkhead.health.events import Served
from bulkhead.health.findings import Finding, finding_of
from bulkhead.health.thresholds import BreakerThresholds

MAX_BREAKERS = 10_000
MAX_EVIDENCE, MAX_ACTORS = 16, 64
MAX_NAMED = 8
"""Tasks that a reason names."""
AGENT_MIN_CALLS, AGENT_ERROR_RATE = 30, 0.8

Key = tuple[str, str, str]
"""scope, tenant ("" for a tenant's own), name."""


class Shown:
    """Calls of a breaker, all or those that failed or were slow: when and which the newest were, and for whom and when
    each person's last one was made."""

    __slots__ = ("calls", "people")

    def __init__(self) -> None:
        self.calls: deque[tuple[int, str]] = deque(maxlen=MAX_EVIDENCE)
        self.people = BoundedDict[str, int](MAX_ACTORS)

    def add(self, event: Served) -> None:
        """One more."""
        self.calls.append((event.time_unix_ms, event.id))
        if event.actor:
            # Not only of the newest calls: who made many of them before another's last ones has tripped it, too.
            self.people[event.actor] = event.time_unix_ms


class Circuits:
    """The state of all breakers. changed: those whose phase is to be told, the newest state of each.

    from_unix_ms: no call counts that was before, nor a task that talked before talk_from_unix_ms; what came of it is
    known from elsewhere, by `adopt` and `reset`. talkers: what counts towards holding an agent back that only talks.
    """

    def __init__(self, named: BreakerThresholds) -> None:
        self._named = named
        self._patient = replace(named, min_calls=AGENT_MIN_CALLS, error_rate=AGENT_ERROR_RATE)
        self.found: OrderedDict[Key, Breaker] = OrderedDict()
        self.changed: dict[Key, Breaker] = {}
        self._shown: dict[Key, tuple[Shown, Shown]] = {}
        """All calls, and the faults."""
        self._opened: dict[Key, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        """What opened each breaker, and for whom that was done."""
        self.talkers = Talkers(self._patient)
        self.from_unix_ms = self.talk_from_unix_ms = 0

    def take(self, event: Served) -> list[Finding]:
        """One call that ended; a trip for each breaker that it opens."""
        if event.role and event.tenant and event.time_unix_ms >= self.talk_from_unix_ms:
            self.talkers.uses(("agent", event.tenant, event.role), event.actor, event.time_unix_ms)
        if event.time_unix_ms < self.from_unix_ms:
            return []
        return [
            self._trip(key, breaker, event) for key, call in _calls(event) if (breaker := self._feed(key, call, event))
        ]

    def talked(self, trip: Finding, actor: str = "") -> list[Finding]:
        """A trip of chatter in a task that runs for `actor`; a trip for each agent that by now has only talked in too
        many tasks."""
        roles = trip.facts.get("roles")
        if trip.level != "stop" or trip.time_unix_ms < self.talk_from_unix_ms or not isinstance(roles, list):
            return []
        keys = [("agent", trip.tenant, str(role)) for role in roles]
        return [self._trip(key, breaker, trip) for key in keys if (breaker := self._chatters(key, trip, actor))]

    def reset(self, key: Key, by: str, at_unix_ms: int) -> None:
        """A person has closed it."""
        breaker = self.found.get(key)
        if breaker is not None:
            # The one who tripped it does not close it.
            if breaker.phase != "closed" and by != breaker.name:
                self.found[key] = closed(breaker, at_unix_ms, f"reset by {by}")
            self._shown.pop(key, None)
        self.talkers.forget(key, at_unix_ms)
        self.changed.pop(key, None)

    def adopt(self, key: Key, breaker: Breaker, evidence: tuple[str, ...] = (), actors: tuple[str, ...] = ()) -> None:
        """Take over what the previous owner decided, which this one did not see or saw a little differently."""
        self._keep(key, breaker)
        self._opened[key] = evidence, actors
        self.talkers.forget(key, breaker.since_unix_ms if breaker.phase == "closed" else None)
        self.changed.pop(key, None)

    def evidence(self, key: Key) -> tuple[str, ...]:
        """Ids of the calls that opened it; () while it is closed."""
        return self._opened.get(key, ((), ()))[0] if self.found[key].phase != "closed" else ()

    def actors(self, key: Key) -> tuple[str, ...]:
        """For whom the calls were made that opened it, since it was closed; () while it is closed."""
        return self._opened.get(key, ((), ()))[1] if self.found[key].phase != "closed" else ()

    def _feed(self, key: Key, call: Called, event: Served) -> Breaker | None:
        """The breaker, if this call opens it."""
        named = self._patient if key[0] == "agent" else self._named
        breaker = self.found.get(key) or Breaker(key[0], key[2])
        phase, began = breaker.phase, call.at_unix_ms - call.latency_ms
        if phase != "closed" and began >= breaker.until_unix_ms:
            # It went out after the time of the open breaker was over: a trial, whether or not its doer says so.
            if phase == "open":
                breaker = half_open(breaker)
            call = replace(call, trial=True)
        calls, faults = self._shown.get(key) or self._shown.setdefault(key, (Shown(), Shown()))
        if call.trial if phase != "closed" else began >= breaker.since_unix_ms:
            calls.add(event)
            if call.failed or call.latency_ms >= named.slow_ms:
                faults.add(event)
        openings = breaker.openings
        breaker = step(breaker, call, named)
        self._keep(key, breaker)
        opens = breaker.openings > openings
        if breaker.phase != phase or opens:
            self.changed[key] = breaker
        if not opens:
            return None
        since, shown = call.at_unix_ms - named.window_ms, calls if breaker.flooded else faults
        evidence = tuple(name for at, name in shown.calls if at > since)
        self._shows(key, evidence, (who for who, at in shown.people.items() if at > since), phase)
        return breaker

    def _chatters(self, key: Key, trip: Finding, actor: str) -> Breaker | None:
        """The breaker, if this task opens it."""
        named, at = self._patient, trip.time_unix_ms
        breaker = self.found.get(key) or Breaker(key[0], key[2])
        tried = breaker.phase != "closed"
        self._keep(key, breaker)
        if at < (breaker.until_unix_ms if tried else breaker.since_unix_ms):
            return None  # It talked before it was held back, or before somebody let it go on.
        tasks = self.talkers.add(key, trip.lineage, Talked(at, trip.evidence, actor))
        if not tried and not self.talkers.enough(key, at):
            return None
        minutes = named.chatter_window_ms // 60_000
        reason = f"{_named(tasks)} stopped within {minutes} min because the agents only talked"
        share = max(1, MAX_EVIDENCE // len(tasks))
        evidence = tuple(name for task in tasks.values() for name in task.evidence[-share:])
        self._shows(key, evidence, (task.actor for task in tasks.values() if task.actor), breaker.phase)
        self.changed[key] = breaker = opened(breaker, at, reason, named)
        self._keep(key, breaker)
        self.talkers.forget(key)
        return breaker

    def _shows(self, key: Key, evidence: tuple[str, ...], people: Iterable[str], phase: Phase) -> None:
        """Remember what opens a breaker. One that is tried keeps those for whom it was opened before."""
        before = self._opened.get(key, ((), ()))[1] if phase != "closed" else ()
        self._opened[key] = evidence, tuple(dict.fromkeys([*before, *people]))[:MAX_ACTORS]
        self._shown.pop(key, None)

    def _trip(self, key: Key, breaker: Breaker, by: Served | Finding) -> Finding:
        """`by`: what opened it, in whichever task."""
        scope, tenant, name = key
        where, what = (tenant or by.tenant, by.lineage), f"{scope} {name}: {breaker.reason}"
        evidence, cause = self._opened[key][0], str(breaker.since_unix_ms)
        facts = {"until_unix_ms": breaker.until_unix_ms, "openings": breaker.openings}
        return finding_of(f"breaker.{scope}", "stop", *where, (name,), what, evidence, by.time_unix_ms, cause, facts)

    def _keep(self, key: Key, breaker: Breaker) -> None:
        self.found[key] = breaker
        self.found.move_to_end(key)
        while len(self.found) > MAX_BREAKERS:
            # One that is not closed is forgotten last: its entry would never be closed.
            gone = next((name for name, row in self.found.items() if row.phase == "closed"), next(iter(self.found)))
            self.talkers.forget(gone)
            for table in (self.found, self.changed, self._shown, self._opened):
                table.pop(gone, None)


def _calls(event: Served) -> Iterator[tuple[Key, Called]]:
    if event.name:
        yield (
            (event.kind, event.tenant, event.name),
            Called(event.time_unix_ms, event.failed, event.latency_ms, counted=event.counted, why=event.why),
        )
    if event.tenant and not event.counted:
        yield ("tenant", "", event.tenant), Called(event.time_unix_ms)
        if event.role:
            yield ("agent", event.tenant, event.role), Called(event.time_unix_ms, event.error)


def _named(tasks: Collection[str]) -> str:
    """Tasks as a subject of a sentence."""
    shown = ", ".join(name.rpartition("/")[2] for name in list(tasks)[:MAX_NAMED])
    more = f" and {len(tasks) - MAX_NAMED} more" if len(tasks) > MAX_NAMED else ""
    return f"task {shown} was" if len(tasks) == 1 else f"{len(tasks)} tasks ({shown}{more}) were"
