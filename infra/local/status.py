"""What people see of a running mesh: coloured log lines, and one status line per process at the bottom.

In: a mesh, its lines and its events. Out: text on a terminal; plain lines where there is none.
"""

import asyncio
import math
import re
import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from infra.local.supervisor import BROKER, LocalMesh
from infra.local.unit import Row

REFRESH_S = 0.5
COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta", "bright_blue")
STATE_STYLES = {"ready": "green", "starting": "yellow", "not ready": "yellow", "held": "yellow"}
NAME_WIDTH = 17
LOUD = (" error ", " warning ", "[ERR]", "[WRN]", "[FTL]")
RECOVERY = re.compile(r"\[WRN\] Filestore .*(?:recover|rebuild|checksum|stale|prior|state)", re.I)
GARBAGE = re.compile(r"Filestore \[(\w+)\] .*corrupt record")
RECOVERY_APART_S = 10.0
PROBE = re.compile(r':doctor" - .*Subscription Violation - .*"mesh\.>"')
"""What `bulkhead doctor` asks for with each service's key (libs/bulkhead/cli/footing.py), to see it refused."""
MIB = 1024 * 1024


class Screen:
    """Prints lines and events; `follow` keeps the status lines until it is cancelled."""

    def __init__(self, console: Console | None = None, *, quiet: Sequence[str] = ()) -> None:
        """quiet: processes of which only warnings and errors are shown."""
        self.console = console or Console()
        self._quiet = frozenset(quiet)
        self._live: Live | None = None
        self._recovering_at = self._probed_at = -math.inf

    def line(self, name: str, line: str) -> None:
        """One line that a process said."""
        if name == BROKER and (garbage := GARBAGE.search(line)):
            self.event(f"the broker found garbage in the files of its stream {garbage[1]}: what it held is not whole "
                       "any more; stop the mesh and restore its directory from a backup (see logs/nats-server.log)")
            return
        if name == BROKER and RECOVERY.search(line):
            self._recovery()
            return
        if name == BROKER and PROBE.search(line):
            self._probed()
            return
        loud = any(word in line for word in LOUD)
        if name in self._quiet and not loud:
            return
        colour = COLOURS[sum(map(ord, name.rpartition("-")[0])) % len(COLOURS)]
        text = Text.assemble((f"{name:<{NAME_WIDTH}} ", colour), (line, "bold red" if loud else ""))
        self.console.print(text, soft_wrap=True, highlight=False)

    def _recovery(self) -> None:
        """After a kill the broker reads its store again, a warning per stream; people need to know it once."""
        if time.monotonic() - self._recovering_at > RECOVERY_APART_S:
            self.event("the broker ended without an orderly stop and reads its store again; nothing that was "
                       "acknowledged is lost (details in logs/nats-server.log)")
        self._recovering_at = time.monotonic()

    def _probed(self) -> None:
        """One refusal for each service; a name is the client's own word, so nothing is kept quiet."""
        if time.monotonic() - self._probed_at > RECOVERY_APART_S:
            self.event("who calls himself doctor asked the broker for everything and was refused: `bulkhead doctor` "
                       "does that with each service's key, to see that they are kept apart; if nobody ran it, look "
                       "into logs/nats-server.log")
        self._probed_at = time.monotonic()

    def event(self, text: str) -> None:
        """Something that the supervisor did or saw."""
        self.console.print(Text.assemble((f"{'bulkhead':<{NAME_WIDTH}} ", "bold"), text), soft_wrap=True)

    async def follow(self, mesh: LocalMesh) -> None:
        """Status lines on a terminal; elsewhere one line whenever a state changes."""
        if not self.console.is_terminal:
            await self._follow_plain(mesh)
            return
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(Group(table(mesh.rows())), refresh=True)
                await asyncio.sleep(REFRESH_S)

    async def _follow_plain(self, mesh: LocalMesh) -> None:
        before: dict[str, str] = {}
        while True:
            for row in mesh.rows():
                if before.get(row.name) != row.state:
                    before[row.name] = row.state
                    self.event(f"{row.name} is {row.state}")
            await asyncio.sleep(REFRESH_S)


def table(rows: Sequence[Row]) -> Table:
    """One line per process."""
    found = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for row in rows:
        memory = f"{row.rss_bytes // MIB} MiB" if row.rss_bytes else ""
        restarts = f"{row.restarts} restarts" if row.restarts else ""
        detail = row.detail.partition("\n")[0][:80]
        state = Text(row.state, STATE_STYLES.get(row.state, "red"))
        found.add_row(row.name, state, str(row.pid or ""), memory, restarts, Text(detail, "dim"))
    return found


def plain(rows: Sequence[Row], write: Callable[[str], None]) -> None:
    """The same for a pipe."""
    for row in rows:
        write(f"{row.name:<{NAME_WIDTH}} {row.state:<10} {row.pid or '':<8} {row.rss_bytes // MIB} MiB {row.detail}")
