"""Traces under construction, and the register of families: what generators are written with.

In: a random generator. Out: rows in the form of docs/how-to/analyze.md, with a clock that only goes on when somebody
acts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

EPOCH_S = 1_790_000_000.0
Truth = Literal["honest", "looping"]
TIMED = 0.6


@dataclass
class Trace:
    """One run. timed: rows carry times; a third of what others record has none."""

    rng: Random
    timed: bool = True
    task: str = "task"
    rows: list[dict[str, object]] = field(default_factory=list)
    now_s: float = EPOCH_S
    start: int = 0
    period: int = 1

    def __post_init__(self) -> None:
        self.now_s += self.rng.randrange(40_000_000)

    def call(
        self,
        agent: str,
        action: str,
        arguments: object,
        result: object = None,
        *,
        error: object = None,
        pause: float | None = None,
        tokens: int | None = None,
        **more: object,
    ) -> None:
        """A call and what came of it, `pause` seconds after what was before (a model's thinking, when left out)."""
        row: dict[str, object] = {"agent": agent, "action": action, "arguments": arguments}
        if result is not None:
            row["result"] = result
        if error is not None:
            row["error"] = error
        self._add(row, pause, tokens if tokens is not None else self.rng.randint(150, 900), more)

    def say(
        self,
        agent: str,
        text: str,
        to: str = "",
        *,
        pause: float | None = None,
        tokens: int | None = None,
        **more: object,
    ) -> None:
        """A text to another agent, or to nobody."""
        row: dict[str, object] = {"agent": agent, "text": text}
        if to:
            row["to"] = to
        self._add(row, pause, tokens if tokens is not None else 20 + len(text) // 4, more)

    def _add(self, row: dict[str, object], pause: float | None, tokens: int, more: dict[str, object]) -> None:
        self.now_s += self.rng.uniform(1.5, 9.0) if pause is None else pause
        row |= {"task": self.task, "tokens": tokens} | more
        if self.timed:
            row.setdefault("time", round(self.now_s, 3))
        self.rows.append(row)

    def wait(self, seconds: float) -> None:
        """Nobody does anything for so long."""
        self.now_s += seconds

    def loop_begins(self, period: int = 1) -> None:
        """The next row is the first of the first round; a round has `period` rows."""
        self.start, self.period = len(self.rows), period

    def ends(self) -> "Trace":
        """The task is over."""
        self.rows.append({"agent": str(self.rows[-1]["agent"]), "task": self.task, "ended": True})
        return self


Play = Callable[..., None]
"""Fills a trace, with a random generator; what `first` drew comes after it."""


@dataclass(frozen=True)
class Family:
    """Runs of one kind. what: in words, for the table."""

    name: str
    truth: Truth
    runs: int
    what: str
    make: Callable[[Random], Trace]


@dataclass
class Register:
    """The families of one set, in the order in which they were written. kind: of its traces."""

    name: str
    kind: type[Trace] = Trace
    families: list[Family] = field(default_factory=list)

    def _family(
        self, truth: Truth, runs: int, what: str, timed: float, first: Callable[[Random], object] | None
    ) -> Callable[[Play], Play]:
        def add(play: Play) -> Play:
            def make(rng: Random) -> Trace:
                drawn = (first(rng),) if first is not None else ()
                trace = self.kind(rng, timed=rng.random() < timed if 0 < timed < 1 else bool(timed))
                play(trace, rng, *drawn)
                return trace.ends()

            assert all(one.name != play.__name__ for one in self.families), f"two families named {play.__name__}"
            self.families.append(Family(play.__name__, truth, runs, what, make))
            return play

        return add

    def honest(self, runs: int, what: str, timed: float = TIMED) -> Callable[[Play], Play]:
        """Nobody would stop this. timed: the share of runs whose rows carry times."""
        return self._family("honest", runs, what, timed, None)

    def looping(
        self, runs: int, what: str, timed: float = TIMED, first: Callable[[Random], object] | None = None
    ) -> Callable[[Play], Play]:
        """Somebody looking on would stop this. first: what is drawn before the trace begins."""
        return self._family("looping", runs, what, timed, first)

    def runs(self) -> list[dict[str, object]]:
        """All runs, in the form that `scoring.score` takes."""
        return [
            {
                "name": f"{family.name}/{number}",
                "family": family.name,
                "looping": family.truth == "looping",
                "rows": trace.rows,
                "start": trace.start,
                "period": trace.period,
            }
            for family in self.families
            for number in range(family.runs)
            for trace in [family.make(Random(f"{self.name}/{family.name}/{number}"))]
        ]
