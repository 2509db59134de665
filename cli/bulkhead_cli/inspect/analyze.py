"""`bulkhead analyze`: the detectors of the live watcher over a recorded run, of this mesh or of any other system.

In: a file. Out: what was found, and an exit code. Nothing is started, asked or sent.
"""

import gc
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.markup import escape

from bulkhead.health.deadlock.evidence import SuspectedDeadlock
from bulkhead.health.findings import HealthFinding
from bulkhead.health.thresholds import DEFAULT
from bulkhead.health.watch import MAX_HELD_ACTS, Watch
from bulkhead.text.amounts import format_count, format_duration
from bulkhead_cli.inspect.trace_files import HINT, MAX_BYTES, OpenedTrace, open_file
from bulkhead_cli.options import Form
from bulkhead_cli.output import CommandError, Exit, json_line, print_json
from bulkhead_cli.screen import SafeConsole, err, out

PERSISTS_MS = 1_000
PERSISTS_EVENTS = 20
"""A circle of waits is told when it has stood so long, or to the end of the file: rows may be a little out of order."""
MAX_TRIPS = 10_000
STDIN = "standard input"
PIECE_BYTES = 1024 * 1024
TOLD_EVENTS, TOLD_S = 256, 1.0
"""How often a long file is looked at for how far it is, and how often that is said."""


Pending = tuple[SuspectedDeadlock, int, int]
"""A circle of waits, and the event and the time from which it stands."""


@dataclass(slots=True)
class AnalysisReport:
    """Findings of one file."""

    form: str
    messages: int = 0
    """Events of a history: a message may give none or several."""
    events: int = 0
    lineages: set[str] = field(default_factory=set)
    trips: list[HealthFinding] = field(default_factory=list)
    more: int = 0
    """Trips beyond MAX_TRIPS."""
    forgotten: int = 0
    """Tasks that went on after they had been forgotten: too many were held."""

    @property
    def stop_count(self) -> int:
        """Trips that would have stopped something."""
        return sum(trip.level == "stop" for trip in self.trips)


def analyze_trace(opened: OpenedTrace, tell: Callable[[int], None] | None = None) -> AnalysisReport:
    """Run every detector over a file; `tell` is told now and then how many events were judged. Raises
    CommandError for a file that is malformed further on.
    """
    report = AnalysisReport(opened.form, len(opened.history.messages) if opened.history else 0)
    watch = Watch(DEFAULT)
    pending: list[Pending] = []
    for event in opened.read_events():
        report.events += 1
        if tell is not None and not report.events % TOLD_EVENTS:
            tell(report.events)
        report.lineages.add(event.lineage)
        for detection in watch.fold_event(event):
            if isinstance(detection, SuspectedDeadlock):
                pending.append((detection, report.events, watch.now_unix_ms))
            else:
                _add_trip(report, detection)
        if pending:
            pending = _report_persisting(report, watch, pending)
    for suspected, _, _ in pending:
        if watch.graph.still_holds(suspected):
            _add_trip(report, watch.deadlock_finding(suspected))
    if opened.form == "bulkhead" and opened.history is not None and opened.history.settled:
        # The file is of a task in which nothing was in the works any more.
        for trip in watch.pass_time(watch.now_unix_ms + DEFAULT.stalls.after_ms):
            _add_trip(report, trip)
    report.forgotten = watch.forgotten
    return report


@contextmanager
def _rarely_collected() -> Iterator[None]:
    """Look for cycles of garbage seldom: none are made, and looking through all that is held took its time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def progress_reporter(
    opened: OpenedTrace,
    console: SafeConsole = err,
    clock: Callable[[], float] = time.monotonic,
    *,
    as_json: bool = False,
) -> Iterator[Callable[[int], None] | None]:
    """Progress report for a long file on a terminal; None elsewhere."""
    if as_json or not console.is_terminal:
        yield None
        return
    from rich.live import Live
    from rich.text import Text

    begun = last = clock()
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def report_progress(events: int) -> None:
            nonlocal last
            now_s = clock()
            if now_s - last >= TOLD_S:
                last = now_s
                live.update(
                    Text(_progress_line(events, now_s - begun, opened.place.read_share()), style="dim"), refresh=True
                )

        yield report_progress


def _progress_line(events: int, spent_s: float, part: float | None) -> str:
    judged = f"{format_count(events, 'event')} judged, {events / spent_s:,.0f}/s"
    if not part:
        return judged
    return f"{judged}, {part:.0%} of the file, about {format_duration(spent_s * (1 - part) / part * 1000)} to go"


def _report_persisting(report: AnalysisReport, watch: Watch, pending: list[Pending]) -> list[Pending]:
    still_pending: list[Pending] = []
    for suspected, since, since_unix_ms in pending:
        if not watch.graph.still_holds(suspected):
            continue
        if report.events - since >= PERSISTS_EVENTS or watch.now_unix_ms - since_unix_ms >= PERSISTS_MS:
            _add_trip(report, watch.deadlock_finding(suspected))
        else:
            still_pending.append((suspected, since, since_unix_ms))
    return still_pending


def _add_trip(report: AnalysisReport, trip: HealthFinding) -> None:
    if len(report.trips) < MAX_TRIPS:
        report.trips.append(trip)
    else:
        report.more += 1


def show_analysis(path: Path, form: Form, *, as_rows: bool, as_json: bool) -> Exit:
    """Analyze a file and say what came out; 1 when something would have been stopped. Raises CommandError."""
    if str(path) == "-":
        with _standard_input() as spooled:
            try:
                return show_analysis(spooled, form, as_rows=as_rows, as_json=as_json)
            except CommandError as error:
                message = str(error).replace(str(spooled), STDIN).replace(spooled.name, STDIN)
                raise CommandError(error.code, message, error.hint, error.name) from error
    opened = open_file(path, form)
    if as_rows:
        return _show_rows(opened)
    with _rarely_collected(), progress_reporter(opened, as_json=as_json) as tell:
        report = analyze_trace(opened, tell=tell)
    if not report.events:
        # "Nothing found" of a file that says nothing would pass for health.
        raise CommandError(Exit.USAGE, f"{path} holds no act that could be judged, read as {report.form}", HINT)
    if as_json:
        print_json(
            {
                "form": report.form,
                "messages": report.messages,
                "events": report.events,
                "tasks": len(report.lineages),
                "stops": report.stop_count,
                "warnings": len(report.trips) - report.stop_count,
                "left_out": report.more,
                "forgotten": report.forgotten,
                "trips": [trip.as_json() for trip in report.trips],
            }
        )
    else:
        _print_report(report)
    return Exit.FAILED if report.stop_count else Exit.OK


@contextmanager
def _standard_input() -> Iterator[Path]:
    """Standard input as a temporary file, since files are read more than once. Raises CommandError."""
    with tempfile.NamedTemporaryFile(prefix="bulkhead-") as file:
        size = 0
        while piece := sys.stdin.buffer.read(PIECE_BYTES):
            size += len(piece)
            if size > MAX_BYTES:
                raise CommandError(
                    Exit.USAGE, f"{STDIN} holds more than {MAX_BYTES // 1024**3} GiB", "split it by task"
                )
            file.write(piece)
        file.flush()
        yield Path(file.name)


def _show_rows(opened: OpenedTrace) -> Exit:
    if opened.rows is None:
        raise CommandError(Exit.USAGE, "a file of bulkhead export has no rows", "analyze it as it is")
    for row in opened.rows:
        sys.stdout.write(json_line(row) + "\n")
    return Exit.OK


def _print_report(report: AnalysisReport) -> None:
    for trip in report.trips:
        colour = "red" if trip.level == "stop" else "yellow"
        out.print(f"[bold {colour}]{trip.level}[/bold {colour}]  {trip.detector}  task {escape(trip.lineage)}")
        out.print(f"  {trip.what}", markup=False)
        evidence = trip.evidence if len(trip.evidence) <= 4 else (*trip.evidence[:2], "...", *trip.evidence[-2:])
        if evidence:
            out.print(f"  evidence: {', '.join(evidence)}", markup=False, style="dim")
        if trip.level == "stop":
            out.print(f"  {trip.hint}", markup=False, style="dim")
    if report.more:
        out.print(f"{format_count(report.more, 'more finding')} left out", style="dim")
    if report.forgotten:
        out.print(
            f"{format_count(report.forgotten, 'task')} continued after they had been dropped from memory, which "
            f"holds {MAX_HELD_ACTS:,} acts: split the file by task, or sort it by task",
            style="yellow",
        )
    kinds = Counter(f"{trip.detector} ({trip.level})" for trip in report.trips)
    summary = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items())) or "nothing found"
    within = f" (acts, waits and ends, in {format_count(report.messages, 'message')})" if report.messages else ""
    out.print(
        f"{format_count(report.events, 'event')}{within} of {format_count(len(report.lineages), 'task')} read as "
        f"{report.form}: {summary}",
        markup=False,
    )
