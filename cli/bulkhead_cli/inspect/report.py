"""`bulkhead report`: quality, cost and latency by model and by feature.

In: the inboxes, under the operator's key; targets of latency. Out: tables or JSON; FAILED where a target is missed.
"""

import time
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.journal import quality
from bulkhead.text.amounts import format_cost, format_count, format_duration, format_time, format_usd
from bulkhead_cli.output import Exit, out, print_json, print_whole
from bulkhead_cli.target import operator_bus

NOTHING = "·"


async def show_report(data: Path, since_s: int, tenant: str, targets_ms: dict[str, int], *, as_json: bool) -> Exit:
    """Print the report. Raises CommandError, BusError."""
    since = int(time.time() * 1000) - since_s * 1000
    async with operator_bus(data) as bus:
        report = (await quality.read_quality(bus, since, tenant or "*")).as_json(targets_ms)
    missed = any(row["missed"] for row in report["features"])
    if as_json:
        print_json({"since_unix_ms": since, "tenant": tenant or None, **report})
    else:
        _print_report(report, since)
    return Exit.FAILED if missed else Exit.OK


def _print_report(found: dict[str, Any], since_unix_ms: int) -> None:
    answers, tasks = sum(row["answers"] for row in found["models"]), sum(row["tasks"] for row in found["features"])
    if not answers and not tasks:
        out.print(f"no task was submitted and ended since {format_time(since_unix_ms)}")
    if found["models"]:
        print_whole(
            _figures_table(
                "model", ("answers", "accepted", "score", "cost", "per accepted"), found["models"], _model_cells
            )
        )
    if found["features"]:
        names = ("tasks", "succeeded", "p50", "p95", "target", "cost", "per task", "accepted", "score")
        print_whole(_figures_table("feature", names, found["features"], _feature_cells))
    if answers or tasks:
        out.print(
            f"tasks that were submitted since {format_time(since_unix_ms)}: {format_count(tasks, 'task')} ended, "
            f"{format_count(answers, 'attempt')} at steps. Durations are of tasks that succeeded or failed"
        )
    for row in found["features"]:
        if row["missed"]:
            message = f"{row['feature']} misses its target: p95 is {format_duration(row['p95_ms'])}, the target"
            out.print(f"{message} {format_duration(row['target_ms'])}", style="bold yellow", markup=False)
        elif row["target_ms"] and row["p95_ms"] is None:
            out.print(f"no task of feature {row['feature']} has ended", style="yellow", markup=False)
    for uneconomic_model in found["does_not_pay"]:
        out.print(uneconomic_model["what"], style="bold yellow", markup=False)


def _figures_table(name: str, columns: tuple[str, ...], rows: list[dict[str, Any]], cells: Any) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in (name, *columns):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(escape(row[name]), *cells(row))
    return table


def _model_cells(row: dict[str, Any]) -> list[str]:
    each = row["per_accepted_usd_micros"]
    return [
        f"{row['answers']:,}",
        *_judged_cells(row),
        format_cost(row["answers_usd_micros"], row["answers_estimated_usd_micros"]),
        format_usd(each) if each is not None else NOTHING,
    ]


def _feature_cells(row: dict[str, Any]) -> list[str]:
    times = [
        format_duration(row[name]) if row[name] is not None else NOTHING for name in ("p50_ms", "p95_ms", "target_ms")
    ]
    each = row["per_task_usd_micros"]
    return [
        f"{row['tasks']:,}",
        f"{row['succeeded']:,}",
        *times[:2],
        times[2] + (" missed" if row["missed"] else ""),
        format_cost(row["cost_usd_micros"], row["estimated_usd_micros"]),
        format_usd(each) if each is not None else NOTHING,
        *_judged_cells(row),
    ]


def _judged_cells(row: dict[str, Any]) -> list[str]:
    share, score = row["accepted_share"], row["score"]
    return [
        f"{row['accepted']:,} of {row['judged']:,} ({share:.0%})" if share is not None else NOTHING,
        f"{score:.2f}" if score is not None else NOTHING,
    ]
