"""All breakers over one stream of calls: which call counts for which breaker, which change, what opened them.

In: calls that ended (`Served`), what a person reset, what another owner had decided. Out: trips, and breakers whose
phase changed. A breaker of a tool or model is one tenant's: a tenant whose calls fail holds up nobody else. A tenant's
own breaker looks at how many calls come, not at how they end: an outage of what it uses is not its fault. An agent's
looks at both, with patience: trying around is honest.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import replace

from bulkhead.health.breakers import Asked, Breaker, Called, Changed, Reset, step
from bulkhead.health.events import Served
from bulkhead.health.thresholds import BreakerThresholds
from bulkhead.health.trips import Trip, trip_of

MAX_BREAKERS = 10_000
MAX_EVIDENCE, MAX_ACTORS = 16, 64
AGENT_MIN_CALLS, AGENT_ERROR_RATE = 30, 0.8

Key = tuple[str, str, str]
"""scope, tenant ("" for a tenant's own), name."""


class Shown:
    """The newest calls of a breaker, when, which and for whom: all, and those that failed or were slow."""

    __slots__ = ("calls", "faults")

    def __init__(self) -> None:
        self.calls: deque[tuple[int, str, str]] = deque(maxlen=MAX_EVIDENCE)
        self.faults: deque[tuple[int, str, str]] = deque(maxlen=MAX_EVIDENCE)


class Circuits:
    """The state of all breakers. changed: those whose phase is to be told, the newest state of each."""

    def __init__(self, named: BreakerThresholds) -> None:
        self._named = named
        self._patient = replace(named, min_calls=AGENT_MIN_CALLS, error_rate=AGENT_ERROR_RATE)
        self.found: OrderedDict[Key, Breaker] = OrderedDict()
        self.changed: dict[Key, Breaker] = {}
        self._shown: dict[Key, Shown] = {}
        self._opened_by: dict[Key, tuple[str, ...]] = {}
        self._opened_for: dict[Key, tuple[str, ...]] = {}

    def take(self, event: Served) -> list[Trip]:
        """One call that ended; a trip for each breaker that it opens."""
        trips = []
        for key, call in _calls(event):
            named = self._patient if key[0] == "agent" else self._named
            opened = self._feed(key, call, named, event)
            if opened is not None:
                trips.append(_trip(key, opened, event, self._opened_by[key]))
        return trips

    def reset(self, key: Key, by: str, at_unix_ms: int) -> None:
        """A person has closed it."""
        breaker = self.found.get(key)
        if breaker is not None:
            self.found[key], _ = step(breaker, Reset(at_unix_ms, by), self._named)
            self._shown.pop(key, None)
        self.changed.pop(key, None)

    def adopt(
        self, key: Key, breaker: Breaker, evidence: tuple[str, ...] = (), actors: tuple[str, ...] = ()
    ) -> None:
        """What the owner before had decided, and this one did not see or saw a little differently."""
        self._keep(key, breaker)
        self._opened_by[key], self._opened_for[key] = evidence, actors
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
        shown = self._shown.get(key) or self._shown.setdefault(key, Shown())
        if call.trial if phase != "closed" else began >= breaker.since_unix_ms:
            seen = (call.at_unix_ms, event.id, event.actor)
            shown.calls.append(seen)
            if call.failed or call.latency_ms >= named.slow_ms:
                shown.faults.append(seen)
        breaker, answer = step(breaker, call, named)
        self._keep(key, breaker)
        if breaker.phase != phase or isinstance(answer, Changed):
            self.changed[key] = breaker
        if not isinstance(answer, Changed) or answer.phase != "open":
            return None
        since = call.at_unix_ms - named.window_ms
        shows = [one for one in (shown.calls if answer.flooded else shown.faults) if one[0] > since]
        before = self._opened_for.get(key, ()) if phase != "closed" else ()
        self._opened_by[key] = tuple(name for _, name, _ in shows)
        self._opened_for[key] = tuple(dict.fromkeys([*before, *(who for *_, who in shows if who)]))[:MAX_ACTORS]
        del self._shown[key]
        return breaker

    def _keep(self, key: Key, breaker: Breaker) -> None:
        self.found[key] = breaker
        self.found.move_to_end(key)
        while len(self.found) > MAX_BREAKERS:
            # One that is not closed is the last to be forgotten: nobody would close what its entry says.
            gone = next((one for one, found in self.found.items() if found.phase == "closed"), next(iter(self.found)))
            del self.found[gone]
            self._shown.pop(gone, None)
            self._opened_by.pop(gone, None)
            self._opened_for.pop(gone, None)
            self.changed.pop(gone, None)


def _calls(event: Served) -> Iterator[tuple[Key, Called]]:
    if event.name:
        yield (event.kind, event.tenant, event.name), Called(
            event.time_unix_ms, event.failed, event.latency_ms, counted=event.counted, why=event.why)
    if event.tenant and not event.counted:
        yield ("tenant", "", event.tenant), Called(event.time_unix_ms)
        if event.role:
            yield ("agent", event.tenant, event.role), Called(event.time_unix_ms, event.error)


def _trip(key: Key, breaker: Breaker, event: Served, evidence: tuple[str, ...]) -> Trip:
    scope, tenant, name = key
    return trip_of(f"breaker.{scope}", "stop", tenant or event.tenant, event.lineage, (name,),
                   f"{scope} {name}: {breaker.reason}", evidence, event.time_unix_ms, str(breaker.since_unix_ms),
                   {"until_unix_ms": breaker.until_unix_ms, "openings": breaker.openings})  # fmt: skip
