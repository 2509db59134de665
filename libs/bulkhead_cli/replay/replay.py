"""`bulkhead replay`: every decider of a task folded again from its record, compared with what was said.

In: the journal of a running mesh, a gateway's export of a task, or a file of `bulkhead export`. Out: a report and an
exit code. No provider is called and nothing is published; a file needs no mesh at all.
"""

import importlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkhead.amounts import counted
from bulkhead.blobs import BlobMissing, Blobs
from bulkhead.bus.port import Bus
from bulkhead.journal.export import IN_THE_WORKS_MS
from bulkhead.journal.history import one_task
from bulkhead.journal.reader import JournalBehind, Renumbered, caught_up, pages
from bulkhead.runtime.context import unix_ms
from bulkhead.runtime.decider.history import History, HistoryError, NoHistory
from bulkhead.runtime.decider.history_file import load
from bulkhead.runtime.decider.replay import CannotReplay, Divergence, Logics, Report, replay
from bulkhead_cli.output import Exit, Stop, err, out, print_json
from bulkhead_cli.replay.export import remote_history
from bulkhead_cli.target import Target, operator_bus
from bulkhead_contracts import catalog
from bulkhead_contracts.result import ContentRef

SUBMISSIONS = "mesh.gateway.planner.*.*.*"
BEGIN_AGAIN_MAX = 5
SHOWN_CHARS = 2_000
TOLD_EVERY = 100
"""Tasks between two lines of progress where there is no terminal."""
AS_EXPORTED = "the lines are those of the export (by its digest, which is no signature)"
NO_DIGEST = "it has no digest over its lines: changes to messages that no decider reads would not be noticed"


def logics() -> Logics:
    """The decision logic of every decider, by version."""
    return {name: importlib.import_module(f"bulkhead_services.{name}.app").LOGICS for name in catalog.DECIDERS}


async def replay_task(bus: Bus, task: str, tenant: str = "") -> Report:
    """Replay one task. Raises Stop when there is no such task, CannotReplay, BusError."""
    # Each inbox is folded in its own order. What a restored mesh has read just now may still be in the works.
    journal = await one_task(bus, task, tenant, reservations=False, as_it_lies=True)
    tenant = journal[0].tenant
    blobs = Blobs(bus, "operator")

    async def fetch(ref: ContentRef) -> str:
        return await blobs.text(tenant, ref)

    return await replay(journal, logics(), fetch, answered_until_unix_ms=unix_ms() - IN_THE_WORKS_MS)


async def replay_history(history: History) -> Report:
    """Replay an exported task. Raises CannotReplay."""

    async def fetch(ref: ContentRef) -> str:
        text = history.text(ref)
        if text is None:
            raise BlobMissing(f"no content {ref.sha256[:12]} by {ref.author} in the file")
        return text

    last = max(one.time_unix_ms for one in history.messages)
    until = 2**62 if history.settled else last - IN_THE_WORKS_MS
    report = await replay(history.messages, logics(), fetch, answered_until_unix_ms=until)
    if not report.decisions and not history.turned_away:
        raise CannotReplay(
            "it holds no message that a decider had to answer, so nothing was checked",
            "messages are missing: export the task again (`bulkhead export TASK -o FILE`)",
        )
    return report


async def all_tasks(bus: Bus) -> AsyncIterator[tuple[str, str]]:
    """Tenant and id of every task of the journal that the planner was given, the oldest first. Raises BusError."""
    seen: set[tuple[str, str]] = set()
    await caught_up(bus)
    for _ in range(BEGIN_AGAIN_MAX):
        try:
            async for page in pages(bus, SUBMISSIONS):
                for stored in page:
                    key = (stored.tenant, stored.task)
                    if key not in seen:
                        seen.add(key)
                        yield key
            return
        except Renumbered:
            await caught_up(bus)
    raise JournalBehind("the journal is rebuilt from the inboxes again and again; look at the mesh's log and try again")


# Showing


async def show_task(data: Path, task: str, tenant: str = "", *, as_json: bool) -> Exit:
    """Replay a task of a running mesh and say what came out. Raises Stop, BusError."""
    async with operator_bus(data) as bus:
        try:
            report = await replay_task(bus, task, tenant)
        except CannotReplay as error:
            raise _cannot(error) from error
    return _show(report, as_json=as_json)


async def show_file(path: Path, *, as_json: bool) -> Exit:
    """Replay an exported task and say what came out. Raises Stop."""
    return await _show_history(open_history(path), as_json=as_json)


async def show_remote_task(target: Target, task: str, *, as_json: bool) -> Exit:
    """The same of a task that a gateway exports: the decisions are made here. Raises Stop."""
    return await _show_history(await remote_history(target, task), as_json=as_json)


async def _show_history(history: History, *, as_json: bool) -> Exit:
    try:
        report = await replay_history(history)
    except CannotReplay as error:
        raise _cannot(error) from error
    if not as_json:
        err.print(
            f"task {history.task} of tenant {history.tenant}; {counted(len(history.contents), 'content')} "
            f"verified; {AS_EXPORTED if history.digested else NO_DIGEST}",
            style="dim",
            markup=False,
        )
    return _show(report, as_json=as_json, more={"digested": history.digested})


def open_history(path: Path) -> History:
    """A file of `bulkhead export`. Raises Stop."""
    try:
        return load(path)
    except OSError as error:
        raise Stop(
            Exit.USAGE,
            f"{path} cannot be read: {error.strerror}",
            "name a task (`bulkhead tasks` lists them) or a file of `bulkhead export`",
        ) from error
    except HistoryError as error:
        code = Exit.USAGE if isinstance(error, NoHistory) else Exit.FAILED
        raise Stop(code, str(error), error.hint) from error


def _cannot(error: CannotReplay) -> Stop:
    return Stop(Exit.FAILED, f"the task cannot be replayed: {error}", error.hint)


@dataclass(slots=True)
class Totals:
    """Sums over all tasks. unknown: no verdict is possible; expired: those of them whose record has expired."""

    tasks: int = 0
    decisions: int = 0
    compared: int = 0
    divergent: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    expired: int = 0

    @property
    def passed(self) -> bool:
        """Nothing differs, and whatever could not be judged was merely too old."""
        return not self.divergent and len(self.unknown) == self.expired


async def show_all(data: Path, *, as_json: bool) -> Exit:
    """Replay every task of the journal. A divergence is shown when it is found; the rest is replayed all the same."""
    totals = Totals()
    async with operator_bus(data) as bus:
        async for tenant, task in all_tasks(bus):
            await _one_of_all(bus, tenant, task, totals, as_json=as_json)
            if not as_json and err.is_terminal:
                err.print_over(f"{counted(totals.tasks, 'task')} replayed")
            elif not as_json and totals.tasks % TOLD_EVERY == 0:
                err.print(f"{counted(totals.tasks, 'task')} replayed, {len(totals.divergent)} divergent", style="dim")
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
        return Exit.OK if totals.passed else Exit.FAILED
    verdict = (
        f"[bold red]{counted(len(totals.divergent), 'task')} diverge[/bold red]"
        if totals.divergent
        else ("[green]no divergence[/green]")
    )
    out.print(
        f"{verdict}: {counted(totals.tasks, 'task')}, {counted(totals.decisions, 'decision')}, "
        f"{counted(totals.compared, 'sent message')} compared byte for byte"
    )
    if totals.unknown:
        out.print(
            f"{counted(len(totals.unknown), 'task')} cannot be replayed, {totals.expired} of them because their "
            "record was kept for a limited time",
            style="yellow",
        )
    return Exit.OK if totals.passed else Exit.FAILED


async def _one_of_all(bus: Bus, tenant: str, task: str, totals: Totals, *, as_json: bool) -> None:
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
        print_json({"task": task, **as_json_of(report)})
    if report.divergences:
        totals.divergent.append(task)
        if not as_json:
            out.print(f"{task}:", style="bold", markup=False)
            _show(report, as_json=False)


def _show(report: Report, *, as_json: bool, more: Mapping[str, Any] | None = None) -> Exit:
    if as_json:
        print_json(as_json_of(report) | dict(more or {}))
        return Exit.FAILED if report.divergences else Exit.OK
    if not report.divergences and not report.decisions:
        out.print("nothing to replay: no decider received this task; `bulkhead show TASK` says why", style="yellow")
        return Exit.OK
    if not report.divergences:
        out.print(
            f"[green]no divergence[/green]: {counted(report.decisions, 'decision')} over "
            f"{counted(report.messages, 'message')}, {counted(report.compared, 'sent message')} compared "
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
        f"[bold red]{counted(len(report.divergences), 'divergence')}[/bold red]; the first: {first.service}, "
        f"inbox sequence {first.sequence}"
    )
    out.print(first.what, markup=False)
    out.print(f"replayed: {first.expected[:SHOWN_CHARS]}", markup=False)
    out.print(f"recorded: {first.recorded[:SHOWN_CHARS]}", markup=False)
    return Exit.FAILED


def as_json_of(report: Report) -> dict[str, Any]:
    """For programs."""
    return {
        "messages": report.messages,
        "decisions": report.decisions,
        "compared": report.compared,
        "outstanding": report.outstanding,
        "not_judged": report.unread,
        "ended": report.ended,
        "divergences": [_divergence(one) for one in report.divergences],
    }


def _divergence(one: Divergence) -> dict[str, Any]:
    return {
        "service": one.service,
        "sequence": one.sequence,
        "ce_id": one.ce_id,
        "what": one.what,
        "expected": one.expected,
        "recorded": one.recorded,
    }
