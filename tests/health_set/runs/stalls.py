"""Tasks that stall, and tasks that wait: told by what is outstanding, so these are events and no rows.

In: a random generator. Out: what the detectors are told, when the last of it happened, and whether the task stalled. A
task stalls when nothing is outstanding and it has not ended; a wait for a person, a timer, an answer, a lease or money
is no stall, however long.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from bulkhead.health.events import Act, Event, LineageEnded, WorkClosed, WorkOpened
from bulkhead.health.watch import Watch
from tests.health_set.runs.traces import EPOCH_S

KINDS = ("call", "step", "ask", "lease", "approval", "timer", "admission", "plan")
RUNS = 20


@dataclass
class Task:
    """A task under construction."""

    rng: Random
    stalled: bool
    events: list[Event] = field(default_factory=list)
    now_unix_ms: int = int(EPOCH_S * 1000)
    lineage: str = "task"

    def _next(self) -> tuple[str, str, int]:
        self.now_unix_ms += self.rng.randint(5, 9000)
        return f"m{len(self.events)}", self.lineage, self.now_unix_ms

    def opened(self, key: str, kind: str, until: int = 0) -> None:
        """Something is asked for."""
        name, lineage, now = self._next()
        self.events.append(WorkOpened(name, lineage, key, kind, now, "demo", now + until if until else 0))

    def closed(self, key: str) -> None:
        """It came."""
        name, lineage, now = self._next()
        self.events.append(WorkClosed(name, lineage, key, now))

    def work(self, steps: int) -> None:
        """Steps with calls in them, all answered; at any moment something is outstanding, until the last step ends."""
        self.opened("plan-0", "plan")
        for number in range(steps):
            self.opened(f"step-{number}", "step")
            self.closed(f"plan-{number}")
            for call in range(self.rng.randint(1, 3)):
                self.opened(f"call-{number}-{call}", "call")
                name, lineage, now = self._next()
                self.events.append(
                    Act(name, lineage, "worker", "search", {"q": f"{number} {call}"}, f"found {now}", time_unix_ms=now)
                )
                self.closed(f"call-{number}-{call}")
            if number < steps - 1:
                self.opened(f"plan-{number + 1}", "plan")
            self.closed(f"step-{number}")

    def ended(self) -> "Task":
        """It is over."""
        name, lineage, now = self._next()
        self.events.append(LineageEnded(name, lineage, now))
        return self


def waits(rng: Random) -> Task:
    """Honest: works, then waits for something of any kind for hours or days; some of it was asked for twice."""
    task = Task(rng, stalled=False)
    task.work(rng.randint(1, 6))
    # Asked for before the last step ended, as in a mesh: the last closing comes after.
    last = task.events.pop()
    kind = rng.choice(KINDS)
    for number in range(rng.randint(1, 3)):
        task.opened(f"late-{number}", kind, until=rng.randint(10**7, 10**9) if kind == "timer" else 0)
    task.events.append(WorkClosed(f"m{len(task.events)}", task.lineage, last.key, task.now_unix_ms))
    if rng.random() < 0.5:
        task.closed("never-opened")
    return task


def ends(rng: Random) -> Task:
    """Honest: works and ends."""
    task = Task(rng, stalled=False)
    task.work(rng.randint(1, 6))
    return task.ended()


def drops(rng: Random) -> Task:
    """Stalls: the last answer came and nobody went on."""
    task = Task(rng, stalled=True)
    task.work(rng.randint(1, 6))
    return task


def timer_fires(rng: Random) -> Task:
    """Stalls: a timer ran out long ago, and nobody went on."""
    task = Task(rng, stalled=True)
    task.opened("timer", "timer", until=rng.randint(1000, 60_000))
    task.work(rng.randint(1, 4))
    return task


def answered_wait(rng: Random) -> Task:
    """Stalls: the approval, the lease or the answer came after days, and then nothing."""
    task = Task(rng, stalled=True)
    task.work(rng.randint(1, 4))
    last = task.events.pop()
    task.opened("wait", rng.choice(("approval", "lease", "ask", "admission")))
    task.events.append(WorkClosed(f"m{len(task.events)}", task.lineage, last.key, task.now_unix_ms))
    task.now_unix_ms += rng.randint(10**7, 10**8)
    task.closed("wait")
    return task


FAMILIES: tuple[Callable[[Random], Task], ...] = (waits, ends, drops, timer_fires, answered_wait)


def tasks() -> Iterator[tuple[str, Task]]:
    """All of them, by family."""
    for make in FAMILIES:
        for number in range(RUNS):
            yield make.__name__, make(Random(f"stalls/{make.__name__}/{number}"))


def tripped(task: Task, later_ms: int) -> tuple[bool, bool]:
    """Whether a stall was told while it ran, and `later_ms` after its last event."""
    watch, early = Watch(), False
    for event in task.events:
        early |= any(getattr(found, "detector", "") == "stall" for found in watch.fold_event(event))
        early |= any(found.detector == "stall" for found in watch.pass_time(event.time_unix_ms))
    late = any(found.detector == "stall" for found in watch.pass_time(task.now_unix_ms + later_ms))
    return early, late
