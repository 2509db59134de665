"""The reader of task ends: folds them, and what is said of them, into the canaries that stand and into drift alarms.

In: the gateway's inbox, where the planner tells how tasks ended and the gateway how they were rated; releases. Out: how
each canary stands; a canary that has regressed is handed to the registry, which drops it. Nothing is stored: whoever
starts anew reads from the beginning of the oldest canary on, and every replica comes to the same verdict.
"""

import asyncio
from collections.abc import Awaitable, Callable

from bulkhead.bus.port import Bus, BusError, StoredMessage
from bulkhead.runtime.background import BackgroundTasks, cancel_tasks
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.errors import Unreadable
from bulkhead.telemetry import names
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.metrics import Counts, ReadGauge
from bulkhead_contracts import subjects
from bulkhead_contracts.prompt import OF_WORKFLOW, CanaryWatch, DriftAlarm
from bulkhead_contracts.rating import TaskRated
from bulkhead_contracts.task import Progressed, TaskAccepted, TaskEnded
from bulkhead_contracts.types import Body
from bulkhead_services.registry.core import DAY_MS
from bulkhead_services.registry.watch.canary import CanaryFold, ComparedTask
from bulkhead_services.registry.watch.drift import DriftFold
from bulkhead_services.registry.watch.releases import WatchedReleases

log = Log("registry.watch")

INBOX = subjects.inbox_stream("gateway")
PROGRESSED = Progressed.ce_type()
BEGINS = frozenset({TaskAccepted.ce_type(), PROGRESSED})
ACCEPTED_FIELD = b'"accepted":{'
POLL_S, IDLE_POLL_S, RETRY_S = 1.0, 5.0, 2.0
"""Between two looks while a canary stands, without one, and after an error."""
CLOCKS_MS = 60_000
"""By which the broker's clock may be behind the registry's."""

DropCanary = Callable[[str, CanaryWatch], Awaitable[None]]


class CanaryWatcher:
    """One replica's reader. drop_canary: roll back what regressed."""

    def __init__(
        self, bus: Bus, releases: WatchedReleases, clock: Callable[[], int], drop_canary: DropCanary, propose_after: int
    ) -> None:
        self._bus, self._releases, self._clock = bus, releases, clock
        self._drop_canary, self._propose_after = drop_canary, propose_after
        self._canaries: dict[tuple[str, str], CanaryFold] = {}
        self._drift = DriftFold()
        self._after: int | None = None
        self._matching = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self, background: BackgroundTasks) -> None:
        """Begin; returns at once. An error in it ends neither the service nor its answers."""
        self._task = background.keep_running("reader of task ends", self._watch_ends, self._on_reader_broke)

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            await cancel_tasks(self._task)

    def list_canaries(self, tenant: str, label: str = "") -> tuple[CanaryWatch, ...]:
        """Canaries of a tenant as they stand now, of one label or workflow, or of all labels."""
        return tuple(
            canary.report_watch()
            for (owner, name), canary in sorted(self._canaries.items())
            if owner == tenant and (name == label if label else not name.startswith(OF_WORKFLOW))
        )

    def list_drifts(self, tenant: str) -> tuple[DriftAlarm, ...]:
        """Drift alarms of the last day."""
        return tuple(self._drift.list_standing(tenant, self._clock()))

    def gauges(self) -> dict[str, ReadGauge]:
        """Metrics of canaries, by label, and of drift, by feature and signal; over all tenants."""
        return {
            names.CANARY_TASKS: self._count_tasks,
            names.CANARY_EVIDENCE: self._read_evidence,
            names.DRIFTS: self._count_drifts,
        }

    def _count_tasks(self) -> Counts:
        counts: dict[tuple[tuple[str, str], ...], float] = {}
        for (_, label), canary in list(self._canaries.items()):
            watch = canary.report_watch()
            for side, arm in (("canary", watch.canary), ("rest", watch.rest)):
                key = (names.LABEL, label), (names.STATE, side)
                counts[key] = counts.get(key, 0) + arm.tasks
        return counts

    def _read_evidence(self) -> Counts:
        highest: dict[tuple[tuple[str, str], ...], float] = {}
        for (_, label), canary in list(self._canaries.items()):
            for row in canary.report_watch().evidence:
                key = (names.LABEL, label), (names.KIND, row.metric)
                highest[key] = max(row.worse, highest.get(key, 0))
        return highest

    def _count_drifts(self) -> Counts:
        counts: dict[tuple[tuple[str, str], ...], float] = {}
        for alarm in self._drift.list_standing("*", self._clock()):
            key = (names.FEATURE, alarm.feature), (names.KIND, alarm.signal)
            counts[key] = counts.get(key, 0) + 1
        return counts

    async def _watch_ends(self) -> None:
        """Until it is cancelled, or raises what is a bug: then it is begun anew."""
        while True:
            try:
                await self.read_on()
                for (tenant, _), canary in list(self._canaries.items()):
                    if canary.has_regressed:
                        await self._drop_canary(tenant, canary.report_watch())
                pause_s = POLL_S if self._canaries else IDLE_POLL_S
            except BusError as error:
                pause_s = RETRY_S
                log.warning("task_ends_unread", reason=str(error), retry_s=pause_s)
            await asyncio.sleep(pause_s)

    async def _on_reader_broke(self, error: BaseException) -> None:
        """A bug: all is folded anew."""
        log.error("reader_broke", reason=repr(error), retry_s=RETRY_S)
        self._canaries, self._drift, self._after = {}, DriftFold(), None
        await asyncio.sleep(RETRY_S)

    async def match_canaries(self) -> None:
        """Watch the canaries that stand now, and no others. Raises BusError."""
        async with self._matching:
            await self._releases.read_new()
            standing = self._releases.list_canaries()
            for key in self._canaries.keys() - standing.keys():
                del self._canaries[key]
            for key, release in standing.items():
                assert release.canary is not None
                watched = self._canaries.get(key)
                if watched is None or watched.began != release.canary.began:
                    watched = CanaryFold(key[1], release.canary.began, release.canary.sticky_by, self._propose_after)
                    self._canaries[key] = watched
                for number in range(max(watched.shares, default=watched.began - 1) + 1, release.number + 1):
                    earlier = await self._releases.find_release(*key, number)
                    if earlier is not None and earlier.canary is not None:
                        watched.shares[number] = earlier.canary.percent / 100

    async def _find_start(self) -> int:
        """The last sequence before all that is watched, by the broker's clock. Raises BusError."""
        since_unix_ms = self._clock() - DAY_MS
        for key, canary in self._canaries.items():
            first = await self._releases.find_release(*key, canary.began)
            if first is not None:
                since_unix_ms = min(since_unix_ms, first.moved_unix_ms - CLOCKS_MS)
        newest = await self._bus.last(INBOX, "mesh.>")
        low, high = 0, newest.sequence if newest is not None else 0
        while low < high:
            middle = (low + high) // 2
            page = await self._bus.read(INBOX, "mesh.>", after=middle, limit=1)
            if page and page[0].time_unix_ms < since_unix_ms:
                low = page[0].sequence
            else:
                high = middle
        log.info("watch_begins", after=low, canaries=len(self._canaries))
        return low

    async def read_on(self) -> None:
        """Fold up to the end of the inbox. Raises BusError."""
        await self.match_canaries()
        if self._after is None:
            self._after = await self._find_start()
        # One read of all, in the order of the stream: every replica folds the same, and no rating before its task.
        while page := await self._bus.read(INBOX, "mesh.>", after=self._after):
            # After the page is read: what a task in it began with stands in a release by then.
            await self.match_canaries()
            for stored in page:
                await self._fold_message(stored)
                self._after = stored.sequence

    async def _fold_message(self, stored: StoredMessage) -> None:
        sender, kind = stored.sender, stored.ce_type
        if sender == "gateway" and kind == TaskRated.ce_type():
            if (rated := _read_body(stored)) is not None:
                self._fold_rating(stored, rated)
        elif sender == "planner" and kind == TaskEnded.ce_type():
            await self._fold_end(stored)
        elif sender == "planner" and kind in BEGINS and (kind != PROGRESSED or ACCEPTED_FIELD in stored.body):
            await self._fold_begin(stored)

    def _fold_rating(self, stored: StoredMessage, rated: Body) -> None:
        """A rating of a person, or a certified judge's verdict: one that is not certified is advice, and labels are
        blind."""
        assert isinstance(rated, TaskRated)
        for fold in self._folds_of(stored.tenant):
            if rated.kind == "rating":
                fold.add_rating(stored.task, rated.person, rated.score == "bad")
            elif rated.certified:
                fold.add_verdict(stored.task, rated.score == "bad")

    async def _fold_begin(self, stored: StoredMessage) -> None:
        if (progress := _read_body(stored)) is None:
            return
        accepted = progress.accepted if isinstance(progress, Progressed) else progress
        assert isinstance(accepted, TaskAccepted)
        for fold, compared in await self._find_places(stored, accepted):
            fold.add_begin(compared, stored.time_unix_ms)

    async def _fold_end(self, stored: StoredMessage) -> None:
        if (ended := _read_body(stored)) is None:
            return
        assert isinstance(ended, TaskEnded)
        for fold, compared in await self._find_places(stored, ended):
            fold.add_end(compared, ended, stored.time_unix_ms)
        for alarm in self._drift.add_end(stored.tenant, stored.task, ended):
            log.warning("drift", tenant=stored.tenant, task=stored.task, feature=alarm.feature, signal=alarm.signal)

    async def _find_places(
        self, stored: StoredMessage, body: TaskAccepted | TaskEnded
    ) -> list[tuple[CanaryFold, ComparedTask]]:
        """The canaries that a task is of, or stands beside: of its prompts, and of its workflow. Raises BusError."""
        places = []
        for prefix, release in (("", body.release), (OF_WORKFLOW, body.workflow_release)):
            if not release:
                continue
            name, number, *canary = f"{prefix}{release}".split(".")
            newest = self._releases.find_newest(stored.tenant, name)
            if newest is None or int(number) > newest.number:
                await self.match_canaries()  # It was released after the last look.
            fold = self._canaries.get((stored.tenant, name))
            share = fold.shares.get(int(number)) if fold is not None else None
            if fold is not None and share is not None:
                places.append((fold, ComparedTask(stored.task, body.asker, bool(canary), share)))
        return places

    def _folds_of(self, tenant: str) -> list[CanaryFold]:
        return [fold for (owner, _), fold in self._canaries.items() if owner == tenant]


def _read_body(stored: StoredMessage) -> Body | None:
    """The body of a message; None of what cannot be read, which is passed over."""
    try:
        return inbound.read_message(stored, stored.receiver).body
    except Unreadable as error:
        log.warning("message_unreadable", subject=stored.subject, reason=error.reason)
        return None
