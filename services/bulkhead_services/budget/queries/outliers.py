"""Outliers among a tenant's tasks, steps and calls: what cost, or took, many times the median of its kind.

In: attempts at calls with what they cost and took. Out: outliers, those furthest above their median first. Pure.
"""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bulkhead_contracts.budget import SpendOutlier
from bulkhead_services.budget.queries.turns import in_turns

FACTOR, FEWEST_PEERS = 10, 5
"""An outlier has FACTOR times the median of its kind or more; fewer than FEWEST_PEERS have no median worth the name."""
UNITS: tuple[tuple[Literal["cost_usd_micros", "wall_ms"], int], ...] = (("cost_usd_micros", 1), ("wall_ms", 200))
"""What is measured, and the least of it that is told: below, the time of a call is the machine's noise."""
Kind = Literal["task", "step", "model_call", "tool_call"]


@dataclass(frozen=True, slots=True)
class CallAttempt:
    """One attempt at a call. kind: None where it is neither of a model nor of a tool; step_id: "" outside of steps."""

    kind: Literal["model_call", "tool_call"] | None
    task: str
    step_id: str
    call_id: str
    resource: str
    cost_usd_micros: int
    wall_ms: int


@dataclass(frozen=True, slots=True)
class MeasuredUnit:
    """A task, step or call, told apart within its kind; resource: "" unless it is a call."""

    kind: Kind
    task: str
    step_id: str = ""
    call_id: str = ""
    resource: str = ""


async def find_outliers(attempts: Iterable[CallAttempt], top: int) -> tuple[SpendOutlier, ...]:
    """At most `top` outliers by cost and by the time of their calls. Amounts of zero have no part in a median."""
    sums: dict[Kind, dict[MeasuredUnit, list[int]]] = {}
    async for attempt in in_turns(attempts):
        for measured in _units_of(attempt):
            amounts = sums.setdefault(measured.kind, {}).setdefault(measured, [0, 0])
            amounts[0] += attempt.cost_usd_micros
            amounts[1] += attempt.wall_ms
    outliers: list[SpendOutlier] = []
    for by_unit in sums.values():
        for position, (unit, least) in enumerate(UNITS):
            amounts_of = {
                measured: amounts[position]
                async for measured, amounts in in_turns(by_unit.items())
                if amounts[position]
            }
            if len(amounts_of) < FEWEST_PEERS:
                continue
            median = max(1, round(statistics.median(amounts_of.values())))
            outliers += [
                _build_outlier(measured, unit, amount, median)
                for measured, amount in amounts_of.items()
                if amount >= max(least, FACTOR * median)
            ]
    outliers.sort(key=lambda row: (-row.amount / row.median, row.task, row.step_id, row.call_id))
    return tuple(outliers[:top])


def _units_of(attempt: CallAttempt) -> list[MeasuredUnit]:
    """Task, step and call that an attempt counts for."""
    units = [MeasuredUnit("task", attempt.task)]
    if attempt.step_id:
        units.append(MeasuredUnit("step", attempt.task, attempt.step_id))
    if attempt.kind is not None:
        units.append(MeasuredUnit(attempt.kind, attempt.task, attempt.step_id, attempt.call_id, attempt.resource))
    return units


def _build_outlier(
    measured: MeasuredUnit, unit: Literal["cost_usd_micros", "wall_ms"], amount: int, median: int
) -> SpendOutlier:
    return SpendOutlier(
        kind=measured.kind,
        unit=unit,
        task=measured.task,
        step_id=measured.step_id,
        call_id=measured.call_id,
        resource=measured.resource,
        amount=amount,
        median=median,
    )
