"""All breakers over one stream of calls: which call counts for which breaker, which change, what opened them.

In: calls that ended (`Served`), tasks stopped for chatter, what a person reset, what another owner had decided. Out:
trips, and breakers whose phase changed. A breaker of a tool or model is one tenant's: a tenant whose calls fail holds
up nobody else. A tenant's own breaker looks at how many calls come, not at how they end: an outage of what it uses is
not its fault. An agent's looks at both, with patience: trying around is honest; and at the tasks in which it only
talked.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from dataclasses import replace

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.breakers.chatter import Talked, Talkers
from bulkhead.health.breakers.state_machine import Asked, Breaker, Called, Changed, Reset, Tripped, step
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
        self._opened_by: dict[Key, tuple[str, ...]] = {}
        self._opened_for: dict[Key, tuple[str, ...]] = {}
        self.talkers = Talkers(self._patient)
        self.from_unix_ms = self.talk_from_unix_ms = 0

    def take(self, event: Served) -> list[Finding]:
        """One call that ended; a trip for each breaker that it opens."""
        trips: list[Finding] = []
        if event.role and event.tenant and event.time_unix_ms >= self.talk_from_unix_ms:
            self.talkers.uses(("agent", event.tenant, event.role), event.actor, event.time_unix_ms)
        if event.time_unix_ms < self.from_unix_ms:
            return trips
        for key, call in _calls(event):
            named = self._patient if key[0] == "agent" else self._named
            opened = self._feed(key, call, named, event)
            if opened is not None:
                trips.append(self._trip(key, opened, event.tenant, event.lineage, event.time_unix_ms))
        return trips

    def talked(self, trip: Finding, actor: str = "") -> list[Finding]:
        """A trip of chatter in a task that runs for `actor`; a trip for each agent that by now has only talked in too
        many tasks."""
        roles = trip.facts.get("roles")
        if trip.level != "stop" or trip.time_unix_ms < self.talk_from_unix_ms or not isinstance(roles, list):
            return []
        found = []
        for role in roles:
            key = ("agent", trip.tenant, str(role))
            opened = self._chatters(key, trip, actor)
            if opened is not None:
                found.append(self._trip(key, opened, trip.tenant, trip.lineage, trip.time_unix_ms))
        return found

    def reset(self, key: Key, by: str, at_unix_ms: int) -> None:
        """A person has closed it."""
        breaker = self.found.get(key)
        if breaker is not None:
            self.found[key], _ = step(breaker, Reset(at_unix_ms, by), self._named)
            self._shown.pop(key, None)
        self.talkers.forget(key, at_unix_ms)
        self.changed.pop(key, None)

    def adopt(self, key: Key, breaker: Breaker, evidence: tuple[str, ...] = (), actors: tuple[str, ...] = ()) -> None:
        """Take over what the previous owner decided, which this one did not see or saw a little differently."""
        self._keep(key, breaker)
        self._opened_by[key], self._opened_for[key] = evidence, actors
        self.talkers.forget(key, breaker.since_unix_ms if breaker.phase == "closed" else None)
        self.changed.pop(key, None)

    def evidence(self, key: Key) -> tuple[str, ...]:
        """Ids of the calls that opened it; () while it is closed."""
        return self._opened_by.get(key, ()) if self.found[key].phase != "closed" else ()

    def actors(self, key: Key) -> tuple[str, ...]:
        """For whom the calls were made that opened it, since it was closed; () while it is closed."""
        return self._opened_for.get(key, ()) if self.found[key].phase != "closed" else ()

    def _feed(self, key: Key, call: Called, named: BreakerThresholds, event: Served) -> Breaker | None:
        breaker = self.found.get(key) or Breaker(key[0], key[2])
        phase, began = breaker.phase, call.at_unix_ms - call.latency_ms
        if phase != "closed" and began >= breaker.until_unix_ms:
            # It went out after the time of the open breaker was over: a trial, whether or not its doer says so.
            if phase == "open":
                breaker, _ = step(breaker, Asked(breaker.until_unix_ms), named)
            call = replace(call, trial=True)
        calls, faults = self._shown.get(key) or self._shown.setdefault(key, (Shown(), Shown()))
        if call.trial if phase != "closed" else began >= breaker.since_unix_ms:
            calls.add(event)
            if call.failed or call.latency_ms >= named.slow_ms:
                faults.add(event)
        breaker, answer = step(breaker, call, named)
        self._keep(key, breaker)
        if breaker.phase != phase or isinstance(answer, Changed):
            self.changed[key] = breaker
        if not isinstance(answer, Changed) or answer.phase != "open":
            return None
        since, shown = call.at_unix_ms - named.window_ms, calls if answer.flooded else faults
        before = self._opened_for.get(key, ()) if phase != "closed" else ()
        self._opened_by[key] = tuple(name for at, name in shown.calls if at > since)
        people = (who for who, at in shown.people.items() if at > since)
        self._opened_for[key] = tuple(dict.fromkeys([*before, *people]))[:MAX_ACTORS]
        del self._shown[key]
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
        if breaker.phase == "open":
            breaker, _ = step(breaker, Asked(breaker.until_unix_ms), named)
        opened, _ = step(breaker, Tripped(at, reason), named)
        before = self._opened_for.get(key, ()) if tried else ()
        share = max(1, MAX_EVIDENCE // len(tasks))
        self._opened_by[key] = tuple(name for one in tasks.values() for name in one.evidence[-share:])
        self._opened_for[key] = tuple(dict.fromkeys([*before, *(one.actor for one in tasks.values() if one.actor)]))[
            :MAX_ACTORS
        ]
        self.changed[key] = opened
        self._keep(key, opened)
        self.talkers.forget(key)
        self._shown.pop(key, None)
        return opened

    def _trip(self, key: Key, breaker: Breaker, of: str, lineage: str, at_unix_ms: int) -> Finding:
        """`of`: the tenant of who opened it, in the task `lineage`."""
        scope, tenant, name = key
        return finding_of(
            f"breaker.{scope}",
            "stop",
            tenant or of,
            lineage,
            (name,),
            f"{scope} {name}: {breaker.reason}",
            self._opened_by[key],
            at_unix_ms,
            str(breaker.since_unix_ms),
            {"until_unix_ms": breaker.until_unix_ms, "openings": breaker.openings},
        )

    def _keep(self, key: Key, breaker: Breaker) -> None:
        self.found[key] = breaker
        self.found.move_to_end(key)
        while len(self.found) > MAX_BREAKERS:
            # One that is not closed is forgotten last: its entry would never be closed.
            gone = next((one for one, found in self.found.items() if found.phase == "closed"), next(iter(self.found)))
            del self.found[gone]
            self._shown.pop(gone, None)
            self.talkers.forget(gone)
            self._opened_by.pop(gone, None)
            self._opened_for.pop(gone, None)
            self.changed.pop(gone, None)


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
