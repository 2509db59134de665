"""Quality of ended tasks by name and over time, pure.

In: rows of the task list. Out: figures of `bulkhead.gateway_api.ratings`; shares with Wilson's interval.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

from bulkhead.evaluation.statistics import wilson_interval
from bulkhead.gateway_api.ratings import (
    OF_EVALUATIONS,
    QualityBy,
    QualityFigures,
    QualityPage,
    QualityRow,
    QualityShare,
    QualitySlice,
    RatingCounts,
)
from bulkhead.gateway_api.tasks import TaskSummary

COUNTED = frozenset({"succeeded", "failed", "halted"})
"""Ends that tell of quality: a cancelled task was wanted no more, and a rejected one never ran."""
SHIPPED = "(shipped prompts)"
UNNAMED = {"feature": "(no feature)", "prompt": SHIPPED, "model": "(no model)"}
MAX_ROWS = 100


def is_counted(task: TaskSummary) -> bool:
    """A task of the mesh that ended by itself, and that is no case of an evaluation."""
    return task.kind == "planned" and task.status in COUNTED and task.feature not in OF_EVALUATIONS


def is_good(task: TaskSummary) -> bool:
    """Answered in full, by a result that is not degraded."""
    return task.status == "succeeded" and task.answered == "yes" and task.standing == "ok"


def measure_quality(
    tasks: Iterable[TaskSummary], by: QualityBy, since_unix_ms: int, until_unix_ms: int, slices: int = 0
) -> QualityPage:
    """The page of those tasks that count and that ended in this time."""
    ended = [task for task in tasks if is_counted(task) and since_unix_ms <= task.updated_unix_ms < until_unix_ms]
    by_name: dict[str, list[TaskSummary]] = defaultdict(list)
    by_slice: list[list[TaskSummary]] = [[] for _ in range(slices)]
    for task in ended:
        for name in _names_of(task, by) or (UNNAMED[by],):
            by_name[name].append(task)
        if slices:
            by_slice[(task.updated_unix_ms - since_unix_ms) * slices // (until_unix_ms - since_unix_ms)].append(task)
    names = sorted(by_name, key=lambda name: (-len(by_name[name]), name))
    left_out = len(names) - MAX_ROWS
    return QualityPage(
        by=by,
        since_unix_ms=since_unix_ms,
        until_unix_ms=until_unix_ms,
        total=QualityFigures(**_figures_of(ended)),
        rows=tuple(QualityRow(name=name, **_figures_of(by_name[name])) for name in names[:MAX_ROWS]),
        slices=tuple(
            QualitySlice(
                from_unix_ms=since_unix_ms + (until_unix_ms - since_unix_ms) * number // slices, **_figures_of(part)
            )
            for number, part in enumerate(by_slice)
        ),
        note=f"{left_out} names with fewer tasks are left out" if left_out > 0 else "",
    )


def _names_of(task: TaskSummary, by: QualityBy) -> Sequence[str]:
    match by:
        case "feature":
            return (task.feature,) if task.feature else ()
        case "prompt":
            return (task.release,) if task.release else ()
        case "model":
            return task.models


def _figures_of(tasks: Sequence[TaskSummary]) -> dict[str, Any]:
    good, cost = sum(map(is_good, tasks)), sum(task.cost_usd_micros for task in tasks)
    totals = {name: sum(map(attrgetter(f"ratings.{name}"), tasks)) for name in RatingCounts.model_fields}
    answers = [task for task in tasks if task.status == "succeeded" and task.standing is not None]
    return {
        "ended": len(tasks),
        "good": good,
        "refused": sum(task.status == "succeeded" and task.answered == "no" for task in tasks),
        "answers": len(answers),
        "citations": sum(task.citations for task in answers),
        "cost_usd_micros": cost,
        "per_good_usd_micros": -(-cost // good) if good else None,
        "ratings": RatingCounts(**totals),
        "good_share": _share_of(good, len(tasks)),
        "rated": _share_of(totals["good"], totals["good"] + totals["bad"]),
        "judged": _share_of(totals["judged_good"], totals["judged_good"] + totals["judged_bad"]),
    }


def _share_of(part: int, whole: int) -> QualityShare | None:
    if not whole:
        return None
    low, high = wilson_interval(part / whole, whole)
    return QualityShare(value=round(part / whole, 4), low=round(low, 4), high=round(high, 4))
