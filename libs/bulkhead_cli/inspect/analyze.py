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

from bulkhead.amounts import counted, seconds
from bulkhead.health.deadlock.evidence import Suspected
from bulkhead.health.findings import Finding
from bulkhead.health.thresholds import DEFAULT, Thresholds
from bulkhead.health.watch import MAX_HELD_ACTS, Watch
from bulkhead_cli.inspect.trace_files import HINT, MAX_BYTES, Opened, open_file
from bulkhead_cli.options import Form
from bulkhead_cli.output import Exit, Screen, Stop, err, json_line, out, print_json

PERSISTS_MS = 1_000
PERSISTS_EVENTS = 20
"""A circle of waits is told when it has stood so long, or to the end of the file: rows may be a little out of order."""
MAX_TRIPS = 10_000
STDIN = "standard input"
PIECE_BYTES = 1024 * 1024
TOLD_EVENTS, TOLD_S = 256, 1.0
"""How often a long file is looked at for how far it is, and how often that is said."""


Pending = tuple[Suspected, int, int]
"""A circle of waits, and the event and the time from which it stands."""


@dataclass(slots=True)
class Report:
    """Findings of one file."""

    form: str
    messages: int = 0
    """Events of a history: a message may give none or several."""
    events: int = 0
    lineages: set[str] = field(default_factory=set)
    trips: list[Finding] = field(default_factory=list)
    more: int = 0
    """Trips beyond MAX_TRIPS."""
    forgotten: int = 0
    """Tasks that went on after they had been forgotten: too many were held."""

    @property
    def stops(self) -> int:
        """Trips that would have stopped something."""
        return sum(trip.level == "stop" for trip in self.trips)


def analyze(opened: Opened, thresholds: Thresholds = DEFAULT, tell: Callable[[int], None] | None = None) -> Report:
    """Run every detector over a file; `tell` is told now and then how many events were judged. Raises Stop for a file
    that is malformed further on."""
    report, watch = Report(opened.form, len(opened.history.messages) if opened.history else 0), Watch(thresholds)
    pending: list[Pending] = []
    for event in opened.events():
        report.events += 1
        if tell is not None and not report.events % TOLD_EVENTS:
            tell(report.events)
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
def progress(
    opened: Opened, console: Screen = err, clock: Callable[[], float] = time.monotonic, *, as_json: bool = False
) -> Iterator[Callable[[int], None] | None]:
    """Progress report for a long file on a terminal; None elsewhere."""
    if as_json or not console.is_terminal:
        yield None
        return
    from rich.live import Live
    from rich.text import Text

    begun = last = clock()
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def tell(events: int) -> None:
            nonlocal last
            now = clock()
            if now - last >= TOLD_S:
                last = now
                live.update(Text(_so_far(events, now - begun, opened.place.part()), style="dim"), refresh=True)

        yield tell


def _so_far(events: int, spent_s: float, part: float | None) -> str:
    said = f"{counted(events, 'event')} judged, {events / spent_s:,.0f}/s"
    if not part:
        return said
    return f"{said}, {part:.0%} of the file, about {seconds(spent_s * (1 - part) / part * 1000)} to go"


def _persisting(report: Report, watch: Watch, pending: list[Pending]) -> list[Pending]:
    left: list[Pending] = []
    for suspected, since, since_unix_ms in pending:
        if not watch.graph.holds(suspected):
            continue
        if report.events - since >= PERSISTS_EVENTS or watch.now_unix_ms - since_unix_ms >= PERSISTS_MS:
            _add(report, watch.deadlock(suspected))
        else:
            left.append((suspected, since, since_unix_ms))
    return left


def _add(report: Report, trip: Finding) -> None:
    if len(report.trips) < MAX_TRIPS:
        report.trips.append(trip)
    else:
        report.more += 1


def show_analysis(path: Path, form: Form, *, as_rows: bool, as_json: bool) -> Exit:
    """Analyze a file and say what came out; 1 when something would have been stopped. Raises Stop."""
    if str(path) == "-":
        with _standard_input() as spooled:
            try:
                return show_analysis(spooled, form, as_rows=as_rows, as_json=as_json)
            except Stop as error:
                said = str(error).replace(str(spooled), STDIN).replace(spooled.name, STDIN)
                raise Stop(error.code, said, error.hint, error.name) from error
    opened = open_file(path, form)
    if as_rows:
        return _show_rows(opened)
    with _rarely_collected(), progress(opened, as_json=as_json) as tell:
        report = analyze(opened, tell=tell)
    if not report.events:
        # "Nothing found" of a file that says nothing would pass for health.
        raise Stop(Exit.USAGE, f"{path} holds no act that could be judged, read as {report.form}", HINT)
    if as_json:
        print_json(
            {
                "form": report.form,
                "messages": report.messages,
                "events": report.events,
                "tasks": len(report.lineages),
                "stops": report.stops,
                "warnings": len(report.trips) - report.stops,
                "left_out": report.more,
                "forgotten": report.forgotten,
                "trips": [trip.as_json() for trip in report.trips],
            }
        )
    else:
        _say(report)
    return Exit.FAILED if report.stops else Exit.OK


@contextmanager
def _standard_input() -> Iterator[Path]:
    """Standard input as a temporary file, since files are read more than once. Raises Stop."""
    with tempfile.NamedTemporaryFile(prefix="bulkhead-") as file:
        size = 0
        while piece := sys.stdin.buffer.read(PIECE_BYTES):
            size += len(piece)
            if size > MAX_BYTES:
                raise Stop(Exit.USAGE, f"{STDIN} holds more than {MAX_BYTES // 1024**3} GiB", "split it by task")
            file.write(piece)
        file.flush()
        yield Path(file.name)


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
    if report.forgotten:
        out.print(
            f"{counted(report.forgotten, 'task')} continued after they had been dropped from memory, which "
            f"holds {MAX_HELD_ACTS:,} acts: split the file by task, or sort it by task",
            style="yellow",
        )
    kinds = Counter(f"{trip.detector} ({trip.level})" for trip in report.trips)
    found = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items())) or "nothing found"
    within = f" (acts, waits and ends, in {counted(report.messages, 'message')})" if report.messages else ""
    out.print(
        f"{counted(report.events, 'event')}{within} of {counted(len(report.lineages), 'task')} read as "
        f"{report.form}: {found}",
        markup=False,
    )
