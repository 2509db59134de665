"""The commands that read the broker and the data directory themselves, under the operator's key: `bulkhead timeline`,
`why`, `report` and `doctor`.

In: the data directory. Out: text or JSON on standard output, and an exit code.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bulkhead.blobs import BlobCorrupt, BlobMissing, Blobs
from bulkhead.bus.port import Bus
from bulkhead.gateway_api.histories import StoryDocument, TimelinePage
from bulkhead.journal import history, lines, prompt_usage, quality, timeline
from bulkhead.journal.history import build_entries, messages_of_tenant
from bulkhead.journal.reader import JournalBehind, read_journal
from bulkhead.journal.story.calls import contents_to_read
from bulkhead.journal.story.fold import contents_to_quote, fold_story
from bulkhead.journal.story.model import Story
from bulkhead.journal.story.text import ENDED, render_story
from bulkhead.journal.why.reason import Reason
from bulkhead.runtime.context import unix_ms
from bulkhead.text.amounts import format_cost, format_count, format_duration, format_time, format_usd
from bulkhead_cli.operate import doctor, doctor_cluster
from bulkhead_cli.operate.finding import DoctorFinding
from bulkhead_cli.output import Exit, one_line, print_json
from bulkhead_cli.screen import err, out, print_whole
from bulkhead_cli.target import operator_bus
from bulkhead_contracts.result import ContentRef

MARKS = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "problem": "[red]✗[/red]"}
MAX_EVIDENCE_SHOWN = 4
NOTHING = "·"


async def show_timeline(
    data: Path, task: str, tenant: str = "", *, content: bool = False, as_json: bool = False
) -> None:
    """The task's messages and spans; content: also what calls said and brought. JSON is as the API has it, with the
    messages as they are stored beside it. Raises CommandError, BusError.
    """
    async with operator_bus(data) as bus:
        try:
            stored = await read_journal(bus, task)
        except JournalBehind as error:
            err.print(f"{error}. This is what it has by now:", style="yellow", markup=False)
            stored = await read_journal(bus, task, whole=False)
        mine = history.messages_of_tenant(stored, task, tenant)
        task_entries = history.build_entries(mine)
        texts = await read_texts(bus, mine[0].tenant, contents_to_read(task_entries)) if content else None
    history.attach_spans(task_entries, history.read_spans(data / "traces", task))
    if as_json:
        rows = lines.build_rows(task_entries, texts or {}, content=content)
        page = TimelinePage(task_id=task, content=content, cut=False, text=lines.render_rows(rows), rows=rows)
        print_json(page.model_dump(mode="json") | {"messages": timeline.as_json(task_entries)})
    else:
        print_whole(timeline.build_tree(task, task_entries, len(mine), texts))


async def show_doctor(data: Path, redis_url: str, otlp_endpoint: str, *, as_json: bool) -> Exit:
    """Print findings as they come; FAILED when there is a problem."""
    findings = []
    async for finding in doctor.examine_mesh(data, redis_url, otlp_endpoint):
        findings.append(finding)
        if not as_json:
            _print_finding(finding)
    return _exit_of_findings(findings, as_json=as_json)


async def show_cluster(namespace: str, context: str, *, as_json: bool) -> Exit:
    """The same for a mesh in a cluster. Raises CommandError."""
    findings = await doctor_cluster.examine_cluster(namespace, context)
    for finding in findings if not as_json else ():
        _print_finding(finding)
    return _exit_of_findings(findings, as_json=as_json)


def _print_finding(finding: DoctorFinding) -> None:
    out.print(f"{MARKS[finding.level]} [bold]{finding.what}[/bold] ", end="")
    out.print(finding.detail, markup=False)
    if finding.todo:
        out.print(f"    → {finding.todo}", markup=False, style="dim")


def _exit_of_findings(found: Sequence[DoctorFinding], *, as_json: bool) -> Exit:
    if as_json:
        print_json(
            [
                {"what": finding.what, "level": finding.level, "detail": finding.detail, "todo": finding.todo}
                for finding in found
            ]
        )
    return Exit.FAILED if any(finding.level == "problem" for finding in found) else Exit.OK


async def show_why(data: Path, task: str, tenant: str = "", *, whole: bool = False, as_json: bool) -> Exit:
    """Say why. Raises CommandError, BusError."""
    async with operator_bus(data) as bus:
        try:
            stored = await read_journal(bus, task, reservations=False)
        except JournalBehind as error:
            err.print(f"{error}. This is what it has by now:", style="yellow", markup=False)
            stored = await read_journal(bus, task, whole=False, reservations=False)
        task_entries = build_entries(messages_of_tenant(stored, task, tenant))
        texts = await read_texts(bus, task_entries[0].tenant, contents_to_quote(task_entries))
    from bulkhead_infra.composition import newest_logic  # It imports every decider.

    show_story(out, fold_story(task_entries, task, unix_ms(), texts, newest_logic()), whole=whole, as_json=as_json)
    return Exit.OK


def show_story(console: Console, story: Story, *, whole: bool, as_json: bool) -> None:
    """Print it: of a task that goes on the reasons for which it waits, unless all is asked for."""
    if as_json:
        text = render_story(story, whole=whole)
        document = StoryDocument(
            task_id=story.task_id, status=story.status, content=True, cut=story.cut, text=text, story=story
        )
        print_json(document.model_dump(mode="json"))
    elif story.status in ENDED or whole:
        console.print(render_story(story, whole=whole), markup=False)
    else:
        print_reasons(console, list(story.reasons))


def print_reasons(console: Console, reasons: list[Reason]) -> None:
    """For people: a line for each, and what to do under it."""
    for reason in reasons:
        colour = {"stop": "red", "warn": "yellow"}.get(reason.level, "bold")
        console.print(
            f"[{colour}]{reason.kind}[/{colour}]  {escape(format_time(reason.at_unix_ms))}  "
            f"{escape(one_line(reason.what))}"
        )
        if reason.todo:
            console.print(f"    → {one_line(reason.todo)}", markup=False, style="dim")
        if reason.evidence:
            left_out_count = len(reason.evidence) - MAX_EVIDENCE_SHOWN
            evidence = ", ".join(reason.evidence[:MAX_EVIDENCE_SHOWN]) + (
                f" and {left_out_count} more" if left_out_count > 0 else ""
            )
            console.print(f"    messages: {evidence}", markup=False, style="dim")


async def read_texts(bus: Bus, tenant: str, refs: Iterable[ContentRef]) -> dict[str, str]:
    """Raises BusError."""
    blobs, texts = Blobs(bus, "operator"), dict[str, str]()
    for ref in refs:
        try:
            texts[ref.sha256] = await blobs.get_text(tenant, ref)
        except (BlobMissing, BlobCorrupt):
            continue
    return texts


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


async def show_prompt_usage(data: Path, since_s: int, tenant: str, *, as_json: bool) -> Exit:
    """Print the use of prompts by version and by release. Raises CommandError, BusError."""
    since = int(time.time() * 1000) - since_s * 1000
    async with operator_bus(data) as bus:
        usage = await quality.read_prompt_usage(bus, since, tenant or "*")
    if as_json:
        print_json({"since_unix_ms": since, "tenant": tenant or None, **usage})
    else:
        for name, rows in (("prompt", usage["prompts"]), ("release", usage["releases"])):
            columns = "calls", "tokens", "cost", "accepted", "tokens per accepted", "cost per accepted"
            print_whole(_figures_table(name, columns, rows, _prompt_cells))
        out.print(f"tasks that were submitted since {format_time(since)}", markup=False)
        for finding in usage["uses_more"]:
            out.print(f"{finding['what']}; {prompt_usage.HINT}", style="bold yellow", markup=False)
    return Exit.FAILED if usage["uses_more"] else Exit.OK


def _print_report(found: dict[str, Any], since_unix_ms: int) -> None:
    answers, tasks = sum(row["answers"] for row in found["models"]), sum(row["tasks"] for row in found["features"])
    if not answers and not tasks:
        out.print(f"no task was submitted and ended since {format_time(since_unix_ms)}")
    for name, rows in (("model", found["models"]), ("retry", found["retries"])):
        if rows:
            columns = ("answers", "accepted", "score", "cost", "per accepted")
            print_whole(_figures_table(name, columns, rows, _model_cells))
    if found["features"]:
        names = ("tasks", "succeeded", "p50", "p95", "target", "cost", "per task", "accepted", "score")
        print_whole(_figures_table("feature", names, found["features"], _feature_cells))
    if found["sessions"]:
        figures = ("sessions", "turns", "first turn", "last turn", "summaries", "their cost", "tokens saved")
        print_whole(_figures_table("feature", figures, found["sessions"], _session_cells))
    if answers or tasks:
        out.print(
            f"tasks that were submitted since {format_time(since_unix_ms)}: {format_count(tasks, 'task')} ended, "
            f"{format_count(answers, 'attempt')} at steps. Durations are of tasks that succeeded or failed"
        )
    if (ahead := found["ahead"])["asked"]:
        out.print(
            f"queries embedded ahead: {ahead['asked']:,}, used {ahead['used']:,}, wasted {ahead['wasted']:,} "
            f"({format_usd(ahead['wasted_usd_micros'])} of {format_usd(ahead['cost_usd_micros'])}); "
            f"saved {format_duration(ahead['saved_ms'])} of waiting",
            markup=False,
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


def _prompt_cells(row: dict[str, Any]) -> list[str]:
    tokens, cost = row["tokens_per_accepted"], row["per_accepted_usd_micros"]
    return [
        f"{row['calls']:,}",
        f"{row['tokens']:,}",
        format_cost(row["cost_usd_micros"], row["estimated_usd_micros"]),
        f"{row['accepted']:,}",
        f"{tokens:,}" if tokens is not None else NOTHING,
        format_usd(cost) if cost is not None else NOTHING,
    ]


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


def _session_cells(row: dict[str, Any]) -> list[str]:
    ends = [
        f"{end['tokens']:,} tokens, {format_usd(end['cost_usd_micros'])}" if end is not None else NOTHING
        for end in (row["first_turn"], row["last_turn"])
    ]
    summaries = row["summaries"]
    in_vain = f" and {summaries['in_vain']:,} in vain" if summaries["in_vain"] else ""
    return [
        f"{row['sessions']:,}",
        f"{row['turns']:,}",
        *ends,
        f"{summaries['made']:,}{in_vain}",
        f"{summaries['tokens']:,} tokens, {format_usd(summaries['cost_usd_micros'])}",
        f"{summaries['saved_tokens']:,}",
    ]


def _judged_cells(row: dict[str, Any]) -> list[str]:
    share, score = row["accepted_share"], row["score"]
    return [
        f"{row['accepted']:,} of {row['judged']:,} ({share:.0%})" if share is not None else NOTHING,
        f"{score:.2f}" if score is not None else NOTHING,
    ]
