"""The commands that read the broker and the data directory themselves, under the operator's key.

In: the data directory. Out: text or JSON on standard output, and an exit code.
"""

from collections.abc import Sequence
from pathlib import Path

from bulkhead.journal import history, timeline
from bulkhead.journal.reader import JournalBehind, read_journal
from bulkhead.journal.story.calls import contents
from bulkhead_cli.inspect.texts import readable
from bulkhead_cli.operate import doctor, doctor_cluster
from bulkhead_cli.operate.finding import Finding
from bulkhead_cli.output import Exit, err, out, print_json, print_whole
from bulkhead_cli.target import operator_bus

MARKS = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "problem": "[red]✗[/red]"}


async def show_timeline(
    data: Path, task: str, tenant: str = "", *, content: bool = False, as_json: bool = False
) -> None:
    """The task's messages and spans; content: also what calls said and brought. Raises Stop, BusError."""
    async with operator_bus(data) as bus:
        try:
            stored = await read_journal(bus, task)
        except JournalBehind as error:
            err.print(f"{error}. This is what it has by now:", style="yellow", markup=False)
            stored = await read_journal(bus, task, whole=False)
        mine = history.of_tenant(stored, task, tenant)
        found = history.entries(mine)
        texts = await readable(bus, mine[0].tenant, contents(found)) if content else None
    history.attach(found, history.read_spans(data / "traces", task))
    if as_json:
        print_json(timeline.as_json(found))
    else:
        print_whole(timeline.tree(task, found, len(mine), texts))


async def show_doctor(data: Path, redis_url: str, otlp_endpoint: str, *, as_json: bool) -> Exit:
    """Print findings as they come; FAILED when there is a problem."""
    found = []
    async for finding in doctor.examine(data, redis_url, otlp_endpoint):
        found.append(finding)
        if not as_json:
            _print(finding)
    return _ended(found, as_json=as_json)


async def show_cluster(namespace: str, context: str, *, as_json: bool) -> Exit:
    """The same for a mesh in a cluster. Raises Stop."""
    found = await doctor_cluster.examine(namespace, context)
    for finding in found if not as_json else ():
        _print(finding)
    return _ended(found, as_json=as_json)


def _print(finding: Finding) -> None:
    out.print(f"{MARKS[finding.level]} [bold]{finding.what}[/bold] ", end="")
    out.print(finding.detail, markup=False)
    if finding.todo:
        out.print(f"    → {finding.todo}", markup=False, style="dim")


def _ended(found: Sequence[Finding], *, as_json: bool) -> Exit:
    if as_json:
        print_json([{"what": one.what, "level": one.level, "detail": one.detail, "todo": one.todo} for one in found])
    return Exit.FAILED if any(one.level == "problem" for one in found) else Exit.OK
