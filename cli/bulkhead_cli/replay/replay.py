"""`bulkhead replay`: every decider of a task folded again from its record, compared with what was said.

In: the journal of a running mesh, a gateway's export of a task, or a file of `bulkhead export`. Out: a report and an
exit code. No provider is called and nothing is published; a file needs no mesh at all.
"""

import importlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkhead.blobs import BlobMissing, Blobs
from bulkhead.bus.port import Bus
from bulkhead.journal.export import IN_THE_WORKS_MS
from bulkhead.journal.history import read_one_task
from bulkhead.journal.reader import JournalBehind, JournalRenumbered, read_pages, wait_until_caught_up
from bulkhead.runtime.context import unix_ms
from bulkhead.runtime.decider.history import HistoryError, NoHistory, TaskHistory
from bulkhead.runtime.decider.history_file import load_history
from bulkhead.runtime.decider.replay import CannotReplay, Divergence, Logics, ReplayReport, replay_deciders
from bulkhead.text.amounts import format_count
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.replay.export import remote_history
from bulkhead_cli.screen import err, out
from bulkhead_cli.target import GatewayTarget, operator_bus
from bulkhead_contracts import catalog
from bulkhead_contracts.result import ContentRef

SUBMISSIONS = "mesh.gateway.planner.>"
BEGIN_AGAIN_MAX = 5
SHOWN_CHARS = 2_000
TOLD_EVERY = 100
"""Tasks between two lines of progress where there is no terminal."""
AS_EXPORTED = "the lines are those of the export (by its digest, which is no signature)"
NO_DIGEST = "it has no digest over its lines: changes to messages that no decider reads would not be noticed"


def decider_logics() -> Logics:
    """The decision logic of every decider, by version."""
    return {name: importlib.import_module(f"bulkhead_services.{name}.app").LOGICS for name in catalog.DECIDERS}


async def replay_task(bus: Bus, task: str, tenant: str = "") -> ReplayReport:
    """Replay one task. Raises CommandError when there is no such task, CannotReplay, BusError."""
    # Each inbox is folded in its own order. What a restored mesh has read just now may still be in the works.
    journal = await read_one_task(bus, task, tenant, reservations=False, as_it_lies=True)
    tenant = journal[0].tenant
    blobs = Blobs(bus, "operator")

    async def fetch_text(ref: ContentRef) -> str:
        return await blobs.get_text(tenant, ref)

    return await replay_deciders(
        journal, decider_logics(), fetch_text, answered_until_unix_ms=unix_ms() - IN_THE_WORKS_MS
    )


async def replay_history(history: TaskHistory) -> ReplayReport:
    """Replay an exported task. Raises CannotReplay."""

    async def fetch_text(ref: ContentRef) -> str:
        text = history.text_of(ref)
        if text is None:
            raise BlobMissing(f"no content {ref.sha256[:12]} by {ref.author} in the file")
        return text

    last = max(message.time_unix_ms for message in history.messages)
    until = 2**62 if history.settled else last - IN_THE_WORKS_MS
    report = await replay_deciders(history.messages, decider_logics(), fetch_text, answered_until_unix_ms=until)
    if not report.decisions and not history.turned_away:
        raise CannotReplay(
            "it holds no message that a decider had to answer, so nothing was checked",
            "messages are missing: export the task again (`bulkhead export TASK -o FILE`)",
        )
    return report


async def all_tasks(bus: Bus) -> AsyncIterator[tuple[str, str]]:
    """Tenant and id of every task of the journal that the planner was given, the oldest first. Raises BusError."""
    seen_tasks: set[tuple[str, str]] = set()
    await wait_until_caught_up(bus)
    for _ in range(BEGIN_AGAIN_MAX):
        try:
            async for page in read_pages(bus, SUBMISSIONS):
                for stored in page:
                    key = (stored.tenant, stored.task)
                    if key not in seen_tasks:
                        seen_tasks.add(key)
                        yield key
            return
        except JournalRenumbered:
            await wait_until_caught_up(bus)
    raise JournalBehind("the journal is rebuilt from the inboxes again and again; look at the mesh's log and try again")


# Showing


async def show_task(data: Path, task: str, tenant: str = "", *, as_json: bool) -> Exit:
    """Replay a task of a running mesh and say what came out. Raises CommandError, BusError."""
    async with operator_bus(data) as bus:
        try:
            report = await replay_task(bus, task, tenant)
        except CannotReplay as error:
            raise _replay_error(error) from error
    return _print_report(report, as_json=as_json)


async def show_file(path: Path, *, as_json: bool) -> Exit:
    """Replay an exported task and say what came out. Raises CommandError."""
    return await _show_history(open_history(path), as_json=as_json)


async def show_remote_task(target: GatewayTarget, task: str, *, as_json: bool) -> Exit:
    """The same of a task that a gateway exports: the decisions are made here. Raises CommandError."""
    return await _show_history(await remote_history(target, task), as_json=as_json)


async def _show_history(history: TaskHistory, *, as_json: bool) -> Exit:
    try:
        report = await replay_history(history)
    except CannotReplay as error:
        raise _replay_error(error) from error
    if not as_json:
        err.print(
            f"task {history.task} of tenant {history.tenant}; {format_count(len(history.contents), 'content')} "
            f"verified; {AS_EXPORTED if history.has_digest else NO_DIGEST}",
            style="dim",
            markup=False,
        )
    return _print_report(report, as_json=as_json, more={"digested": history.has_digest})


def open_history(path: Path) -> TaskHistory:
    """A file of `bulkhead export`. Raises CommandError."""
    try:
        return load_history(path)
    except OSError as error:
        raise CommandError(
            Exit.USAGE,
            f"{path} cannot be read: {error.strerror}",
            "name a task (`bulkhead tasks` lists them) or a file of `bulkhead export`",
        ) from error
    except HistoryError as error:
        code = Exit.USAGE if isinstance(error, NoHistory) else Exit.FAILED
        raise CommandError(code, str(error), error.hint) from error


def _replay_error(error: CannotReplay) -> CommandError:
    return CommandError(Exit.FAILED, f"the task cannot be replayed: {error}", error.hint)


@dataclass(slots=True)
class ReplayTotals:
    """Sums over all tasks. unknown: no verdict is possible; expired: those of them whose record has expired."""

    tasks: int = 0
    decisions: int = 0
    compared: int = 0
    divergent: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    expired: int = 0

    @property
    def has_passed(self) -> bool:
        """True if nothing differs, and what could not be judged was merely too old."""
        return not self.divergent and len(self.unknown) == self.expired


async def show_all(data: Path, *, as_json: bool) -> Exit:
    """Replay every task of the journal. A divergence is shown when it is found; the rest is replayed all the same."""
    totals = ReplayTotals()
    async with operator_bus(data) as bus:
        async for tenant, task in all_tasks(bus):
            await _replay_one_of_all(bus, tenant, task, totals, as_json=as_json)
            if not as_json and err.is_terminal:
                err.print_over(f"{format_count(totals.tasks, 'task')} replayed")
            elif not as_json and totals.tasks % TOLD_EVERY == 0:
                err.print(
                    f"{format_count(totals.tasks, 'task')} replayed, {len(totals.divergent)} divergent", style="dim"
                )
    if as_json:
        print_json(
            {
                "tasks": totals.tasks,
                "decisions": totals.decisions,
                "compared": totals.compared,
                "divergent": totals.divergent,
                "unknown": totals.unknown,
                "expired": totals.expired,
            }
        )
        return Exit.OK if totals.has_passed else Exit.FAILED
    verdict = (
        f"[bold red]{format_count(len(totals.divergent), 'task')} diverge[/bold red]"
        if totals.divergent
        else ("[green]no divergence[/green]")
    )
    out.print(
        f"{verdict}: {format_count(totals.tasks, 'task')}, {format_count(totals.decisions, 'decision')}, "
        f"{format_count(totals.compared, 'sent message')} compared byte for byte"
    )
    if totals.unknown:
        out.print(
            f"{format_count(len(totals.unknown), 'task')} cannot be replayed, {totals.expired} of them because their "
            "record was kept for a limited time",
            style="yellow",
        )
    return Exit.OK if totals.has_passed else Exit.FAILED


async def _replay_one_of_all(bus: Bus, tenant: str, task: str, totals: ReplayTotals, *, as_json: bool) -> None:
    totals.tasks += 1
    try:
        report = await replay_task(bus, task, tenant)
    except CannotReplay as error:
        totals.unknown.append(task)
        totals.expired += error.expired
        if as_json:
            print_json({"task": task, "unknown": str(error), "expired": error.expired})
        else:
            out.print(f"{task}: cannot be replayed: {error}", style="yellow", markup=False)
        return
    totals.decisions += report.decisions
    totals.compared += report.compared
    if as_json:
        print_json({"task": task, **report_as_json(report)})
    if report.divergences:
        totals.divergent.append(task)
        if not as_json:
            out.print(f"{task}:", style="bold", markup=False)
            _print_report(report, as_json=False)


def _print_report(report: ReplayReport, *, as_json: bool, more: Mapping[str, Any] | None = None) -> Exit:
    if as_json:
        print_json(report_as_json(report) | dict(more or {}))
        return Exit.FAILED if report.divergences else Exit.OK
    if not report.divergences and not report.decisions:
        out.print("nothing to replay: no decider received this task; `bulkhead show TASK` says why", style="yellow")
        return Exit.OK
    if not report.divergences:
        out.print(
            f"[green]no divergence[/green]: {format_count(report.decisions, 'decision')} over "
            f"{format_count(report.messages, 'message')}, {format_count(report.compared, 'sent message')} compared "
            "byte for byte"
        )
        if report.unread:
            out.print(
                f"not judged: {report.unread} of the {report.messages}, which no decider receives or sends "
                "(to the gateway, about money)",
                style="dim",
            )
        if report.outstanding:
            out.print(f"{report.outstanding} messages were decided and are not in the journal yet", style="dim")
        return Exit.OK
    first = report.divergences[0]
    out.print(
        f"[bold red]{format_count(len(report.divergences), 'divergence')}[/bold red]; the first: {first.service}, "
        f"inbox sequence {first.sequence}"
    )
    out.print(first.what, markup=False)
    out.print(f"replayed: {first.expected[:SHOWN_CHARS]}", markup=False)
    out.print(f"recorded: {first.recorded[:SHOWN_CHARS]}", markup=False)
    return Exit.FAILED


def report_as_json(report: ReplayReport) -> dict[str, Any]:
    """For programs."""
    return {
        "messages": report.messages,
        "decisions": report.decisions,
        "compared": report.compared,
        "outstanding": report.outstanding,
        "not_judged": report.unread,
        "ended": report.ended,
        "divergences": [_divergence_row(divergence) for divergence in report.divergences],
    }


def _divergence_row(one: Divergence) -> dict[str, Any]:
    return {
        "service": one.service,
        "sequence": one.sequence,
        "ce_id": one.ce_id,
        "what": one.what,
        "expected": one.expected,
        "recorded": one.recorded,
    }
