"""What goes wrong in a run, and when. Every choice is a pure function of (seed, what happens, how often it happened).

So a fault keeps its place when another one is taken away: that is what makes a failing schedule shrinkable. Rates
are per event; a run has only some kinds of faults (swarm testing: rare combinations come up more often that way).
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b

from tests.simulation.mesh.loop import WHO

RATES = {
    # What crosses the network and does not arrive, by kind of bulkhead.bus.memory.broker.Offer.
    "lose_publish": 0.02,
    "lose_answer": 0.03,
    "lose_message": 0.03,
    "lose_ack": 0.05,
    "lose_request": 0.03,
    "lose_reply": 0.03,
    "lose_read": 0.02,
    "lose_live": 0.1,
    # What comes late: a little (0-30 ms), or by seconds.
    "jitter": 0.5,
    "late": 0.03,
    "lag_source": 0.2,
    "stale_read": 0.15,
    # A replica dies as it says something: before it is said, or after, without hearing the answer.
    "crash_before": 0.006,
    "crash_after": 0.006,
    "cut_off": 0.002,
    "redis_fails": 0.03,
    "redis_forgets": 0.008,
    "redis_fails_over": 0.004,
    "provider": 0.12,
    "outside": 0.15,
}
PAUSES = {"pause": 0.016, "pause_outside": 0.12}
"""A replica stands still for seconds: as it says something to the broker or to Redis, or between what it has claimed or
reserved and what it does outside. In a part of the runs, whatever else goes wrong in them."""
PAUSED = 0.12
LATER = {"redis_late": 0.02}
"""Redis does what it was asked after who asked has given up: in a part of the runs, too."""
LATER_SHARE = 0.06
FIGURES = {"figures": 0.5}
"""A provider tells a call's usage in another way than it is expected: in a part of the runs, too."""
FIGURES_SHARE = 0.1
KILLED = "killed"
"""A replica that an act of the run killed; its event begins with which."""
APART = "lag_apart"
"""No fault of its own: each source lags by itself, so that one inbox may overtake another on the way to the journal."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that went wrong: its kind, the event it befell, the how-manieth of its name."""

    kind: str
    event: str
    nth: int

    def __str__(self) -> str:
        return f"{self.kind} {self.event} #{self.nth}"


@dataclass(slots=True)
class Chaos:
    """The faults of one run. `only`: when set, nothing but these may happen (a schedule that is being shrunk)."""

    seed: int
    only: frozenset[Fault] | None = None
    rates: dict[str, float] = field(default_factory=dict)
    fired: list[Fault] = field(default_factory=list)
    calm: bool = False
    on_pause: Callable[[str, float], None] = lambda who, for_s: None
    _seen: dict[tuple[str, str], int] = field(default_factory=dict)
    _limits: dict[str, bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._limits = {kind: math.ceil(rate * 2**32).to_bytes(4, "big") for kind, rate in self.rates.items()}

    @classmethod
    def of(cls, seed: int, only: frozenset[Fault] | None = None) -> "Chaos":
        """A seed's mixture: one in ten runs is calm, the others have a random half of the kinds at random rates."""
        draw = random.Random(f"chaos/{seed}")
        if draw.random() < 0.1:
            return cls(seed, only)
        intensity = draw.choice((0.3, 1.0, 1.0, 2.0))
        rates = {
            kind: min(0.5, rate * intensity * draw.uniform(0.3, 1.7))
            for kind, rate in RATES.items()
            if draw.random() < 0.5
        }
        if "lag_source" in rates and random.Random(f"apart/{seed}").random() < 0.5:
            rates[APART] = 0.0
        pauses = random.Random(f"pauses/{seed}")
        if pauses.random() < PAUSED or any(one.kind in PAUSES for one in only or ()):
            rates |= {kind: rate * pauses.uniform(0.3, 1.7) for kind, rate in PAUSES.items()}
        later = random.Random(f"later/{seed}")
        if later.random() < LATER_SHARE or any(one.kind in LATER for one in only or ()):
            rates |= {kind: rate * later.uniform(0.3, 3) for kind, rate in LATER.items()}
        figures = random.Random(f"told/{seed}")
        if figures.random() < FIGURES_SHARE or any(one.kind in FIGURES for one in only or ()):
            rates |= {kind: rate * figures.uniform(0.3, 1.7) for kind, rate in FIGURES.items()}
        return cls(seed, only, rates)

    def pauses(self, kind: str, event: str, who: str = "") -> bool:
        """Whether who runs this stands still from here on: nothing of it is called before it goes on."""
        if kind not in self.rates or not (who := who or WHO.get("")):
            return False
        how = self.strikes(kind, f"{who} {event}")
        if how is not None:
            self.on_pause(who, 0.2 + how * 14)
        return how is not None

    def strikes(self, kind: str, event: str) -> float | None:
        """Whether this fault befalls this event now; then a number in [0, 1) that tells how badly."""
        limit = self._limits.get(kind)
        if limit is None or self.calm:
            return None
        key = (kind, event)
        nth = self._seen[key] = self._seen.get(key, 0) + 1
        digest = blake2b(f"{self.seed}|{kind}|{event}|{nth}".encode(), digest_size=8).digest()
        # Its first four bytes as a fraction of 2^32, against the rate.
        if digest >= limit:
            return None
        if kind != "jitter":
            fault = Fault(kind, event, nth)
            if self.only is not None and fault not in self.only:
                return None
            self.fired.append(fault)
        return int.from_bytes(digest[4:], "big") / 2**32
