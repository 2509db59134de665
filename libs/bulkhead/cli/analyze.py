"""`bulkhead analyze`: the detectors of the live watcher over a recorded run, of this mesh or of any other system.

In: a file. Out: what was found, and an exit code. Nothing is started, asked or sent.
"""

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.markup import escape

from bulkhead.cli.output import Exit, Stop, counted, json_line, out, print_json
from bulkhead.cli.tracing_files import HINT, Form, Opened, open_file
from bulkhead.health.evidence import Suspected
from bulkhead.health.thresholds import DEFAULT, Thresholds
from bulkhead.health.trips import Trip
from bulkhead.health.watch import Watch

PERSISTS_MS = 1_000
PERSISTS_EVENTS = 20
"""A circle of waits is told when it has stood so long, or to the end of the file: rows may be a little out of order."""
MAX_TRIPS = 10_000


@dataclass(slots=True)
class Report:
    """What was found in a file."""

    form: str
    events: int = 0
    lineages: set[str] = field(default_factory=set)
    trips: list[Trip] = field(default_factory=list)
    more: int = 0
    """Trips beyond MAX_TRIPS."""

    @property
    def stops(self) -> int:
        """Trips that would have stopped something."""
        return sum(trip.level == "stop" for trip in self.trips)


def analyze(opened: Opened, thresholds: Thresholds = DEFAULT) -> Report:
    """Run every detector over a file. Raises Stop for a file that is malformed further on."""
    report, watch = Report(opened.form), Watch(thresholds)
    pending: list[tuple[Suspected, int, int]] = []
    for event in opened.events():
        report.events += 1
        report.lineages.add(event.lineage)
        for found in watch.take(event):
            if isinstance(found, Suspected):
                pending.append((found, report.events, watch.now_unix_ms))
            else:
                _add(report, found)
        if pending:
            pending = _persisting(report, watch, pending)
    for suspected, _, _ in pending:
        if watch.graph.holds(suspected):
            _add(report, watch.deadlock(suspected))
    if opened.form == "bulkhead" and opened.history is not None and opened.history.settled:
        # The file is of a task in which nothing was in the works any more.
        for trip in watch.pass_time(watch.now_unix_ms + thresholds.stalls.after_ms):
            _add(report, trip)
    return report


def _persisting(report: Report, watch: Watch, pending: list[tuple[Suspected, int, int]]) -> list:  # type: ignore[type-arg]
    left = []
    for suspected, since, since_unix_ms in pending:
        if not watch.graph.holds(suspected):
            continue
        if report.events - since >= PERSISTS_EVENTS or watch.now_unix_ms - since_unix_ms >= PERSISTS_MS:
            _add(report, watch.deadlock(suspected))
        else:
            left.append((suspected, since, since_unix_ms))
    return left


def _add(report: Report, trip: Trip) -> None:
    if len(report.trips) < MAX_TRIPS:
        report.trips.append(trip)
    else:
        report.more += 1


def show_analysis(path: Path, form: Form, *, as_rows: bool, as_json: bool) -> Exit:
    """Analyze a file and say what came out; 1 when something would have been stopped. Raises Stop."""
    opened = open_file(path, form)
    if as_rows:
        return _show_rows(opened)
    report = analyze(opened)
    if not report.events:
        # "Nothing found" of a file that says nothing would pass for health.
        raise Stop(Exit.USAGE, f"{path} holds no act that could be judged, read as {report.form}", HINT)
    if as_json:
        print_json({
            "form": report.form, "events": report.events, "tasks": len(report.lineages), "stops": report.stops,
            "warnings": len(report.trips) - report.stops, "left_out": report.more,
            "trips": [trip.as_json() for trip in report.trips],
        })
    else:
        _say(report)
    return Exit.FAILED if report.stops else Exit.OK


def _show_rows(opened: Opened) -> Exit:
    if opened.rows is None:
        raise Stop(Exit.USAGE, "a file of bulkhead export has no rows", "analyze it as it is")
    for row in opened.rows:
        sys.stdout.write(json_line(row) + "\n")
    return Exit.OK


def _say(report: Report) -> None:
    for trip in report.trips:
        colour = "red" if trip.level == "stop" else "yellow"
        out.print(f"[bold {colour}]{trip.level}[/bold {colour}]  {trip.detector}  task {escape(trip.lineage)}")
        out.print(f"  {trip.what}", markup=False)
        shown = trip.evidence if len(trip.evidence) <= 4 else (*trip.evidence[:2], "...", *trip.evidence[-2:])
        if shown:
            out.print(f"  evidence: {', '.join(shown)}", markup=False, style="dim")
        if trip.level == "stop":
            out.print(f"  {trip.hint}", markup=False, style="dim")
    if report.more:
        out.print(f"{counted(report.more, 'more finding')} left out", style="dim")
    kinds = Counter(f"{trip.detector} ({trip.level})" for trip in report.trips)
    found = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items())) or "nothing found"
    out.print(f"{counted(report.events, 'event')} of {counted(len(report.lineages), 'task')} read as {report.form}: "
              f"{found}", markup=False)
