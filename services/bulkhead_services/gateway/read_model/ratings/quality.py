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
from bulkhead.journal.prompt_usage import SHIPPED

COUNTED = frozenset({"succeeded", "failed", "halted"})
"""Ends that tell of quality: a cancelled task was wanted no more, and a rejected one never ran."""
UNNAMED = {"feature": "(no feature)", "prompt": SHIPPED, "model": "(no model)"}
MAX_ROWS = 100
COUNTS = ("ended", "good", "refused", "answers", "citations", "cost_usd_micros")
RATINGS = tuple(RatingCounts.model_fields)
_RATINGS_OF = attrgetter(*RATINGS)


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
    # Each task is counted in one cell, and cells are few: of 10,000 tasks it takes some hundredths of a second.
    cells: dict[tuple[Sequence[str], int], list[int]] = defaultdict(_nothing)
    duration_ms = until_unix_ms - since_unix_ms
    for task in tasks:
        if is_counted(task) and since_unix_ms <= task.updated_unix_ms < until_unix_ms:
            part = (task.updated_unix_ms - since_unix_ms) * slices // duration_ms
            _add_counts(cells[_names_of(task, by) or (UNNAMED[by],), part], _counts_of(task))
    total = _nothing()
    by_name: dict[str, list[int]] = defaultdict(_nothing)
    by_slice = [_nothing() for _ in range(slices)]
    for (names, part), counts in cells.items():
        for sums in (total, *(by_name[name] for name in names), *by_slice[part : part + 1]):
            _add_counts(sums, counts)
    names = sorted(by_name, key=lambda name: (-by_name[name][0], name))
    left_out = len(names) - MAX_ROWS
    return QualityPage(
        by=by,
        since_unix_ms=since_unix_ms,
        until_unix_ms=until_unix_ms,
        total=QualityFigures(**_figures_of(total)),
        rows=tuple(QualityRow(name=name, **_figures_of(by_name[name])) for name in names[:MAX_ROWS]),
        slices=tuple(
            QualitySlice(from_unix_ms=since_unix_ms + duration_ms * number // slices, **_figures_of(counts))
            for number, counts in enumerate(by_slice)
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


def _nothing() -> list[int]:
    return [0] * (len(COUNTS) + len(RATINGS))


def _add_counts(sums: list[int], counts: Sequence[int]) -> None:
    for place, count in enumerate(counts):
        sums[place] += count


def _counts_of(task: TaskSummary) -> tuple[int, ...]:
    """Of `COUNTS`, and then of `RATINGS`."""
    is_answer = task.status == "succeeded" and task.standing is not None
    refused = task.status == "succeeded" and task.answered == "no"
    citations = task.citations if is_answer else 0
    ratings = _RATINGS_OF(task.ratings)
    return 1, is_good(task), refused, is_answer, citations, task.cost_usd_micros, *ratings


def _figures_of(counts: Sequence[int]) -> dict[str, Any]:
    figures: dict[str, Any] = dict(zip(COUNTS, counts, strict=False))
    ratings = RatingCounts(**dict(zip(RATINGS, counts[len(COUNTS) :], strict=True)))
    good, cost = figures["good"], figures["cost_usd_micros"]
    return figures | {
        "per_good_usd_micros": -(-cost // good) if good else None,
        "ratings": ratings,
        "good_share": _share_of(good, figures["ended"]),
        "rated": _share_of(ratings.good, ratings.good + ratings.bad),
        "judged": _share_of(ratings.judged_good, ratings.judged_good + ratings.judged_bad),
    }


def _share_of(part: int, whole: int) -> QualityShare | None:
    if not whole:
        return None
    low, high = wilson_interval(part / whole, whole)
    return QualityShare(value=round(part / whole, 4), low=round(low, 4), high=round(high, 4))
