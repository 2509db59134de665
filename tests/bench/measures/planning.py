"""The cost of a step in the planner's logic, in plans of 10, 100 and 1,000 steps: messages folded, decided and encoded.

In: nothing; no broker, no process. Out: microseconds of CPU per step at 10, and how many times as much at more. Of a
chain, of steps that are all ready at once and composed in one, and of a map's items.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from bulkhead.flow import InboxMessage, Send
from bulkhead.flow.content import reference
from bulkhead.runtime.decider.fold import TaskFold, fold_message, seal
from bulkhead_contracts import catalog
from bulkhead_contracts.envelope import Envelope, derive_id
from bulkhead_contracts.plan import MapOver, Plan, PlanStep
from bulkhead_contracts.result import Result
from bulkhead_contracts.step import StepAssigned, StepFinished
from bulkhead_contracts.task import TaskLimits, TaskSubmitted
from bulkhead_contracts.types import Body
from bulkhead_infra.nats.server import Durability
from bulkhead_services.planner.core import Planner
from tests.bench.figures import Book

SIZES = (10, 100, 1_000)
STEPS_PER_SIZE = 4_000
FAN_IN = 50
START_UNIX_MS = 1_700_000_000_000
CONTENT = reference("worker", b"64 bytes of result " * 3)


def chain(count: int) -> tuple[PlanStep, ...]:
    """Each step waits for the one before."""
    return tuple(_noop(f"s{number}", *([f"s{number - 1}"] if number else [])) for number in range(count))


def fan(count: int) -> tuple[PlanStep, ...]:
    """All but a few steps are ready at once; the others put them together, as many as a step can have inputs."""
    leaves = [f"s{number}" for number in range(count - count // FAN_IN - 1)]
    groups = [leaves[first : first + FAN_IN] for first in range(0, len(leaves), FAN_IN)]
    parts = [_noop(f"p{number}", *group) for number, group in enumerate(groups)]
    return (*map(_noop, leaves), *parts, _noop("last", *(part.id for part in parts)))


def mapped(count: int) -> tuple[PlanStep, ...]:
    """One map of so many items; each is the call of a tool."""
    over = MapOver(of="list", parallel=8, max_items=count)
    each = PlanStep(id="each", title="", instruction="x", acceptance="done", kind="noop", inputs=("list",), over=over)
    return (_noop("list"), each)


SHAPES = {"chain": chain, "fan": fan, "map": mapped}


MEASURES = tuple(
    name
    for shape in SHAPES
    for name in (f"planner_cpu_us_per_step_{shape}", *(f"planner_cpu_growth_{shape}_{size}" for size in SIZES[1:]))
)


def _noop(step_id: str, *inputs: str) -> PlanStep:
    return PlanStep(id=step_id, title="", instruction="x" * 64, kind="noop", inputs=inputs)


def run_plan(steps: tuple[PlanStep, ...], items: int) -> int:
    """Run a plan to its end, each step answered at once; how many steps were handed out."""
    planner, fold, handed, sequence = {1: Planner()}, TaskFold(state=None), 0, 0
    submitted = TaskSubmitted(
        objective=CONTENT,
        limits=TaskLimits(deadline_ms=600_000),
        submitted_unix_ms=START_UNIX_MS,
        plan=Plan(steps=steps),
        check=False,
    )
    waiting: list[tuple[str, Body]] = [("gateway", submitted)]
    while waiting:
        source, body = waiting.pop()
        sequence += 1
        head = Envelope(
            id=derive_id(source, str(sequence), 0), type=body.ce_type(), source=source, time_unix_ms=START_UNIX_MS
        )
        body = catalog.decode_body(head.type, body.encode())
        message = InboxMessage(head, body, "demo", "t1", sequence)
        for index, output in enumerate(fold_message(fold, message, planner)):
            seal("planner", message, index, output, None)
            if isinstance(output, Send):
                output.body.encode()
                waiting += [("worker", answer) for answer in _answers(output.body, items)]
                handed += isinstance(output.body, StepAssigned)
    assert fold.state.phase == "ended" and fold.state.steps.over == len(fold.state.steps)
    return handed


def _answers(body: Body, items: int) -> Iterator[StepFinished]:
    if isinstance(body, StepAssigned):
        is_opening = body.step.over is not None and body.gathering is None
        yield StepFinished(
            step_id=body.step.id,
            attempt=body.attempt,
            plan_version=body.plan_version,
            result=Result(content=CONTENT),
            items=items if is_opening else None,
        )


async def planning(book: Book, folder: Path, durability: Durability, scale: int) -> None:
    """CPU per step of each shape at each size, the least of several runs: the same whatever is durable."""
    for shape, make_steps in SHAPES.items():
        costs: dict[int, float] = {}
        for size in SIZES:
            for _ in range(3 * min(scale, 3)):
                before, handed = time.process_time(), 0
                for _ in range(max(1, STEPS_PER_SIZE // size // 4)):
                    handed += run_plan(make_steps(size), size)
                cost = (time.process_time() - before) / handed * 1e6
                costs[size] = min(cost, costs.get(size, cost))
        book.add(f"planner_cpu_us_per_step_{shape}", costs[SIZES[0]])
        for size in SIZES[1:]:
            book.add(f"planner_cpu_growth_{shape}_{size}", costs[size] / costs[SIZES[0]])
