"""What history costs: the same step with few and with very many stored messages, and a task that memory has forgotten.

In: a folder and a durability. Out: cost_growth (step p50 with many over step p50 with few) and fold_cold_ms. Both
meshes run at the same time and are measured in turns, so that a slower minute of the machine meets both.
"""

import asyncio
import time
from pathlib import Path

from bulkhead.runtime.context import Context, unix_ms
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.result import Result
from bulkhead_contracts.step import StepFinished
from bulkhead_contracts.task import TaskLimits, TaskSubmitted
from bulkhead_infra.nats.server import Durability
from tests.bench.figures import Book, quantile, say
from tests.bench.measures.stepping import UNTIL_WARM, gaps_ms
from tests.bench.rig import FINISHED, INSTRUCTION, OBJECTIVE, STEP_ENDED, Rig, rig, stamps

FEW = 1_000
MANY, MANY_QUICK = 1_000_000, 100_000
INBOXES = ("planner", "worker", "gateway")
"""What a step writes to: the messages stand in equal parts in their inboxes (and once more in the journal)."""
FOLD_STORED, FOLD_STORED_QUICK = 200_000, 20_000
FOLD_MESSAGES = 200
FOLD_TASKS = 10
STEPS = 64
FACT_TIMEOUT_S = 60.0


async def growth(book: Book, folder: Path, durability: Durability, scale: int) -> None:
    """Step p50 with few and with many stored messages."""
    many = MANY if scale > 1 else MANY_QUICK
    if many != MANY:
        say(f"  --quick: cost_growth is measured at {many:,} stored messages, not at {MANY:,}")
    async with (
        rig(folder / "few", durability, filled=_share(FEW)) as small,
        rig(folder / "many", durability, filled=_share(many)) as large,
    ):
        gaps: dict[int, list[float]] = {FEW: [], many: []}
        for mesh in (small, large):
            await gaps_ms(mesh, UNTIL_WARM)
        for turn in range(4 + 2 * scale):
            for count, mesh in ((FEW, small), (many, large))[:: 1 if turn % 2 else -1]:
                gaps[count] += await gaps_ms(mesh, 1)
    for count, found in gaps.items():
        book.add(f"step_p50_ms_at_1e{len(str(count)) - 1}", quantile(found, 0.5))
    book.add("cost_growth", quantile(gaps[many], 0.5) / quantile(gaps[FEW], 0.5))


def _share(count: int) -> dict[str, int]:
    return {name: count // len(INBOXES) + (count % len(INBOXES) if name == "planner" else 0) for name in INBOXES}


async def fold(book: Book, folder: Path, durability: Durability, scale: int) -> None:
    """A planner that has just started meets the 201st message of a task: it reads and folds 200 of many."""
    stored = FOLD_STORED if scale > 1 else FOLD_STORED_QUICK
    if stored != FOLD_STORED:
        say(f"  --quick: fold_cold_ms is measured among {stored:,} stored messages, not among {FOLD_STORED:,}")
    async with (
        rig(folder / "fold", durability, filled={"planner": stored}, services=("planner",)) as mesh,
        mesh.speaking_as("worker") as worker,
    ):
        names = [await _task_of_many_messages(mesh, worker, number) for number in range(FOLD_TASKS)]
        await mesh.stop_service("planner")
        await mesh.start_service("planner")
        cold = [await _next_ms(mesh, worker, name, STEPS - 3) for name in names]
        warm = [await _next_ms(mesh, worker, name, STEPS - 2) for name in names]
    book.add("fold_cold_ms", quantile(cold, 0.5))
    book.add("fold_warm_ms", quantile(warm, 0.5))


async def _task_of_many_messages(mesh: Rig, worker: Context, number: int) -> str:
    """A chain of 64 steps, three of them open, 200 messages in the planner's inbox: the bench speaks as the worker."""
    task = f"fold{number}"
    chain = tuple(
        PlanStep(id=f"s{n}", title="", instruction=INSTRUCTION, kind="noop", inputs=(f"s{n - 1}",) if n else ())
        for n in range(STEPS)
    )
    body = TaskSubmitted(
        objective=OBJECTIVE,
        limits=TaskLimits(deadline_ms=600_000),
        submitted_unix_ms=unix_ms(),
        check=False,
        plan=Plan(steps=chain),
    )
    await mesh.context.publisher.send("planner", body, tenant="demo", task=task, cause=task, index=0)
    for n in range(STEPS - 3):
        await _finish(worker, task, n, "first")
        await _ended(mesh, task, n + 1)
    late = FOLD_MESSAGES - 1 - (STEPS - 3)
    # Repeats of results that stand already: folded like any other message, and they change nothing.
    await asyncio.gather(*(_finish(worker, task, n % (STEPS - 3), f"late-{n}") for n in range(late)))
    return task


async def _finish(worker: Context, task: str, step: int, why: str) -> None:
    result = Result(summary=INSTRUCTION)
    body = StepFinished(step_id=f"s{step}", attempt=1, plan_version=1, result=result)
    await worker.publisher.send("planner", body, tenant="demo", task=task, cause=f"{task}/{step}", index=why)


async def _next_ms(mesh: Rig, worker: Context, task: str, step: int) -> float:
    """From when a result was stored to when the next step's hand-out was."""
    await _finish(worker, task, step, "first")
    await _ended(mesh, task, step + 1)
    async with mesh.reader() as bus:
        results = [at for at, kind in await stamps(bus, "planner", task) if kind == FINISHED]
        handed_out = await mesh.handed_out_ms(task)
    return handed_out[step + 1] - results[-1]


async def _ended(mesh: Rig, task: str, steps: int) -> None:
    deadline = time.monotonic() + FACT_TIMEOUT_S
    while len(mesh.tasks[task].at[STEP_ENDED]) < steps:
        assert time.monotonic() < deadline, f"{task}: the planner has not ended step {steps} of {STEPS}"
        await asyncio.sleep(0.0005)
