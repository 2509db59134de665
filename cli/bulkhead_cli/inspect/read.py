"""The commands that read the broker and the data directory themselves, under the operator's key.

In: the data directory. Out: text or JSON on standard output, and an exit code.
"""

from collections.abc import Sequence
from pathlib import Path

from bulkhead.journal import history, timeline
from bulkhead.journal.reader import JournalBehind, read_journal
from bulkhead.journal.story.calls import contents_to_read
from bulkhead_cli.inspect.texts import read_texts
from bulkhead_cli.operate import doctor, doctor_cluster
from bulkhead_cli.operate.finding import DoctorFinding
from bulkhead_cli.output import Exit, err, out, print_json, print_whole
from bulkhead_cli.target import operator_bus

MARKS = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "problem": "[red]✗[/red]"}


async def show_timeline(
    data: Path, task: str, tenant: str = "", *, content: bool = False, as_json: bool = False
) -> None:
    """The task's messages and spans; content: also what calls said and brought. Raises CommandError,
    BusError.
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
        print_json(timeline.as_json(task_entries))
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
