"""Steps of a running plan: each by its id, and at hand which are ready, run, and are over. A leaf, pure and frozen.

In: a plan's steps, later a changed step. Out: another table. What a decision about one step costs must not grow with
the plan: it looks at that step and at those that build on it. Tables share what does not change.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bulkhead.flow import replace
from bulkhead_contracts.plan import PlanStep
from bulkhead_contracts.result import Result
from bulkhead_contracts.step import Gathering, MapItem

StepStatus = Literal["queued", "waiting", "running", "done", "left_out", "failed", "skipped"]
"""queued: an item of a map that has not begun, since as many others run as may. left_out: an item that has failed, and
that its map goes on without."""
OVER = frozenset({"done", "left_out", "skipped"})
"""What builds on such steps need not wait for them."""


@dataclass(frozen=True, slots=True)
class OpenMap:
    """A map whose list was read. items: of the list. item_bytes: of each one's inputs. begun: of these, from the first
    on. left_out: that failed."""

    items: int
    item_bytes: int = 0
    begun: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class StepState:
    """One step of the running plan. notes: why earlier attempts were not accepted. standby: the last result that was
    not accepted and may stand, degraded, when no better one comes. map_id: of whose map it is a part. gathers: in place
    of its inputs, whose results it puts together, when it is a map that is open or a part of one."""

    plan_step: PlanStep
    status: StepStatus = "waiting"
    attempt: int = 0
    deadline_unix_ms: int = 0
    notes: tuple[str, ...] = ()
    result: Result | None = None
    standby: Result | None = None
    map_id: str = ""
    item: MapItem | None = None
    open_map: OpenMap | None = None
    gathering: Gathering | None = None
    gathers: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        """True when nothing waits for it any more."""
        return self.status in OVER

    @property
    def assignee(self) -> str:
        """The service that carries it out."""
        return "doors" if self.plan_step.adopted else "worker"

    @property
    def needed_ids(self) -> tuple[str, ...]:
        """The steps that it waits for."""
        return self.gathers if self.gathering is not None else self.plan_step.inputs


@dataclass(frozen=True, slots=True)
class StepTable:
    """Steps by id, in the plan's order. places: of each in that order. dependents: those that wait for it.
    open_inputs: of a step that waits, how many of the steps that it needs are not over; absent for none."""

    by_id: Mapping[str, StepState] = field(default_factory=dict)
    places: Mapping[str, int] = field(default_factory=dict)
    dependents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    open_inputs: Mapping[str, int] = field(default_factory=dict)
    ready: frozenset[str] = frozenset()
    running: frozenset[str] = frozenset()
    over: int = 0

    @classmethod
    def from_steps(cls, steps: Iterable[StepState]) -> "StepTable":
        """Table of these steps."""
        by_id = {step.plan_step.id: step for step in steps}
        dependents: dict[str, list[str]] = {}
        open_inputs: dict[str, int] = {}
        for step_id, step in by_id.items():
            for name in (needed := dict.fromkeys(step.needed_ids)):
                dependents.setdefault(name, []).append(step_id)
            if count := sum(not by_id[name].is_over for name in needed if name in by_id):
                open_inputs[step_id] = count
        waiting = (step_id for step_id, step in by_id.items() if step.status == "waiting")
        return cls(
            by_id=by_id,
            places={step_id: place for place, step_id in enumerate(by_id)},
            dependents={name: tuple(names) for name, names in dependents.items()},
            open_inputs=open_inputs,
            ready=frozenset(step_id for step_id in waiting if step_id not in open_inputs),
            running=frozenset(step_id for step_id, step in by_id.items() if step.status == "running"),
            over=sum(step.is_over for step in by_id.values()),
        )

    def __iter__(self) -> Iterator[StepState]:
        return iter(self.by_id.values())

    def __len__(self) -> int:
        return len(self.by_id)

    def in_order(self, step_ids: Iterable[str]) -> tuple[StepState, ...]:
        """These steps, in the plan's order."""
        return tuple(self.by_id[step_id] for step_id in sorted(step_ids, key=self.places.__getitem__))

    def with_steps(self, *changed_steps: StepState) -> "StepTable":
        """This table with these steps replaced, which need the same steps as before."""
        by_id, open_inputs = dict(self.by_id), self.open_inputs
        over, open_changes = self.over, Counter[str]()
        for step in changed_steps:
            step_id = step.plan_step.id
            assert step_id in by_id, f"the plan has no step {step_id}"
            # A step that a gate has repeated is over no more.
            if change := by_id[step_id].is_over - step.is_over:
                over -= change
                open_changes.update(dict.fromkeys(self.dependents.get(step_id, ()), change))
            by_id[step_id] = step
        changed = {step.plan_step.id: step.status for step in changed_steps}
        ready, running = self.ready, self.running
        if open_changes:
            open_inputs = dict(open_inputs)
            for name, change in open_changes.items():
                if count := open_inputs.pop(name, 0) + change:
                    open_inputs[name] = count
            freed = {name for name in open_changes if name not in open_inputs and by_id[name].status == "waiting"}
            ready = (ready - open_changes.keys()) | freed
        now_ready = {name for name, status in changed.items() if status == "waiting" and name not in open_inputs}
        if now_ready or not ready.isdisjoint(changed):
            ready = (ready - changed.keys()) | now_ready
        now_running = {name for name, status in changed.items() if status == "running"}
        if now_running or not running.isdisjoint(changed):
            running = (running - changed.keys()) | now_running
        return replace(self, by_id=by_id, open_inputs=open_inputs, ready=ready, running=running, over=over)
