"""Terminal output of a running mesh: coloured log lines, and one status line per process at the bottom.

In: a mesh, its lines and its events. Out: text on a terminal; plain lines where there is none.
"""

import asyncio
import math
import re
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bulkhead_infra.local.doctor_denials import DoctorRefusals
from bulkhead_infra.local.supervisor import BROKER, LocalMesh
from bulkhead_infra.nats.server import LOG_FILE
from bulkhead_infra.processes.supervised import UnitStatus

REFRESH_S = 0.5
COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta", "bright_blue")
STATE_STYLES = {"ready": "green", "starting": "yellow", "not ready": "yellow", "held": "yellow"}
NAME_WIDTH = 17
LOUD_MARKS = (" error ", " warning ", "[ERR]", "[WRN]", "[FTL]")
RECOVERY = re.compile(r"\[WRN\] Filestore .*(?:recover|rebuild|checksum|stale|prior|state)", re.I)
CORRUPT_RECORDS = re.compile(r"Filestore \[(\w+)\] .*corrupt record")
RECOVERY_APART_S = 10.0
SETTLING = re.compile(
    r"\[WRN\] JetStream (?:error response for stream INBOX_\w+ create source consumer (?:TIMERS|PUBLISHED)_\w+: "
    r"stream not found"
    r"|source stream \"(?:TIMERS|PUBLISHED)_\w+\" for stream \S+ > INBOX_\w+. was recreated, resetting source state)"
)
"""While the broker reads its store, it has inboxes before the timers that they take from; it finds them by itself."""
MIB = 1024 * 1024


class StatusScreen:
    """Prints lines and events; `follow_mesh` keeps the status lines until it is cancelled."""

    def __init__(self, console: Console | None = None, *, quiet: Sequence[str] = ()) -> None:
        """quiet: processes of which only warnings and errors are shown."""
        self.console = console or Console()
        self._quiet = frozenset(quiet)
        self._live: Live | None = None
        self._recovering_at = -math.inf
        self._refusals = DoctorRefusals()

    def print_line(self, name: str, line: str) -> None:
        self._report_other_accounts(time.monotonic())
        if name == BROKER and self._reword_broker_line(line):
            return
        loud = any(mark in line for mark in LOUD_MARKS)
        if name in self._quiet and not loud:
            return
        colour = COLOURS[sum(map(ord, name.rpartition("-")[0])) % len(COLOURS)]
        text = Text.assemble((f"{name:<{NAME_WIDTH}} ", colour), (line, "bold red" if loud else ""))
        self.console.print(text, soft_wrap=True, highlight=False)

    def _reword_broker_line(self, line: str) -> bool:
        """True for a line of the broker that people get in other words, or that means nothing to them."""
        if garbage := CORRUPT_RECORDS.search(line):
            way = f"messages are missing; stop the mesh and restore its directory from a backup (see {LOG_FILE})"
            self.print_event(f"the broker found corrupt records in the files of its stream {garbage[1]}: {way}")
            return True
        if RECOVERY.search(line):
            self._report_recovery()
            return True
        if self._refusals.record_line(line, time.monotonic()):
            if self._refusals.pop_full_round():
                self.print_event(
                    "`bulkhead doctor` tried the key of every service: each was refused the messages of others",
                    style="dim",
                )
            return True
        return SETTLING.search(line) is not None

    def _report_recovery(self) -> None:
        """After a kill the broker reads its store again, a warning per stream; people need to know it once."""
        if time.monotonic() - self._recovering_at > RECOVERY_APART_S:
            way = f"no message that was acknowledged is lost (details in {LOG_FILE})"
            self.print_event(f"the broker was not stopped in order and reads its store again; {way}")
        self._recovering_at = time.monotonic()

    def _report_other_accounts(self, now_s: float) -> None:
        if accounts := self._refusals.pop_other_accounts(now_s):
            self.print_event(
                f"a client named doctor asked for all messages of the account {', '.join(accounts)} alone, and the "
                "broker refused: `bulkhead doctor` tries the key of every service, so this was another program (or an "
                f"interrupted doctor); see {LOG_FILE}"
            )

    def print_event(self, text: str, style: str = "") -> None:
        """Something that the supervisor did or saw."""
        head = (f"{'bulkhead':<{NAME_WIDTH}} ", "bold")
        self.console.print(Text.assemble(head, (text, style)), soft_wrap=True)

    async def follow_mesh(self, mesh: LocalMesh) -> None:
        """Status lines on a terminal; elsewhere one line whenever a state changes."""
        try:
            await (self._follow_live(mesh) if self.console.is_terminal else self._follow_plain(mesh))
        finally:
            self._report_other_accounts(math.inf)

    async def _follow_live(self, mesh: LocalMesh) -> None:
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                self._report_other_accounts(time.monotonic())
                live.update(Group(status_table(mesh.rows())), refresh=True)
                await asyncio.sleep(REFRESH_S)

    async def _follow_plain(self, mesh: LocalMesh) -> None:
        before: dict[str, str] = {}
        while True:
            self._report_other_accounts(time.monotonic())
            for row in mesh.rows():
                if before.get(row.name) != row.state:
                    before[row.name] = row.state
                    self.print_event(f"{row.name} is {row.state}")
            await asyncio.sleep(REFRESH_S)


def status_table(rows: Sequence[UnitStatus]) -> Table:
    """One line per process."""
    grid = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for row in rows:
        memory = f"{row.rss_bytes // MIB} MiB" if row.rss_bytes else ""
        restarts = f"{row.restarts} restarts" if row.restarts else ""
        detail = row.detail.partition("\n")[0][:80]
        state = Text(row.state, STATE_STYLES.get(row.state, "red"))
        grid.add_row(row.name, state, str(row.pid or ""), memory, restarts, Text(detail, "dim"))
    return grid
