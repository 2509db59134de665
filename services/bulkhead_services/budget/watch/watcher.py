"""The watcher: reads the journal live, tells what is wrong as facts, and halts the tasks that loop or only chatter.

In: JOURNAL. Out: `Tripped` facts; warnings to the agents; for what is to be stopped `TaskHalted` to the planner and the
live halt, as for money; how the breakers stand; what tenants' webhooks are told of it. Every replica folds; the one
that holds the lease tells. A standby has folded as far, so that it goes on where the other one was killed: what is due
has no fact yet, and ids derive from the evidence, so nothing is lost or told twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from bulkhead.bus.port import Bus, BusError, StoredMessage
from bulkhead.health import models
from bulkhead.health.findings import HealthFinding
from bulkhead.health.thresholds import Thresholds
from bulkhead.journal.reader import place_of
from bulkhead.runtime.background import BackgroundTasks, cancel_tasks
from bulkhead.runtime.decider.history import at_its_source
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry import metrics, names
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.metrics import Counts, ReadGauge
from bulkhead_contracts import bounds, catalog, subjects
from bulkhead_contracts.agent import AgentWarned
from bulkhead_contracts.budget import TaskHalted, Tripped
from bulkhead_contracts.control import Halt
from bulkhead_services.budget.ledger import facts
from bulkhead_services.budget.ledger.accounts import task_scope
from bulkhead_services.budget.ledger.fact_lookup import measured_usage
from bulkhead_services.budget.ledger.store import Fenced, LedgerStore, RedisFailure
from bulkhead_services.budget.watch import deadlock_refusal
from bulkhead_services.budget.watch.breaker_entries import BreakerEntryOwner
from bulkhead_services.budget.watch.fold import TaskSpan, WatchFold, WatchMark
from bulkhead_services.budget.watch.journal_gaps import JournalGaps
from bulkhead_services.budget.watch.notices import LATENCY
from bulkhead_services.budget.watch.poison_messages import LeftOutMessages, message_identity
from bulkhead_services.budget.watch.time_slices import SlicedFold

log = Log("budget.watcher")

ROLE, MARK_NAME = "watcher", "watcher-mark"
LEASE_MS = 3_000
PAGE = 256
REFOLD_MESSAGES = 4_000
"""Count of messages before the mark that are folded again in order; each older live task is read by itself."""
AT_ONCE = 64
"""Tasks that are read at the same time."""
UNCOUNTED_MESSAGES = 8
"""Messages of a task that are not in the count: asked for one by one."""
MARK_EVERY = 2_000
ENDS_EVERY_MS, IDLE_ENDS_EVERY_MS = 5_000, 30_000
ENTRIES_EVERY_MS = 1_000
"""What people reset is read so often; what the fold changes is written at once."""
IDLE_TIMES, IDLE_GROWTH = 5.0, 1.25
"""While the journal brings nothing, the pause between two looks grows to so many intervals; the lease outlasts it."""
MAX_BACKOFF_S = 2.0
MAX_WARNED = 16
"""Steps of one group that are told."""
JOURNAL_LAG_MS = 5_000
"""The journal is made of the inboxes and may lag behind them: what has not come for so long did not come."""
CODES = {"loop": "loop_stopped", "chatter": "chatter_stopped"}
"""Detectors that stop a task, and the code that it ends with."""

PublishHalt = Callable[[Halt, str], Awaitable[None]]


class JournalRemade(Exception):
    """The journal was made again: its sequences begin anew."""


class Watcher:
    """One replica's watch. `holder` names the replica in the lease."""

    def __init__(
        self,
        bus: Bus,
        publisher: Publisher,
        store: LedgerStore,
        clock: Callable[[], int],
        publish_halt: PublishHalt,
        *,
        mark_ledger_lost: Callable[[str], None],
        on_message: Callable[[StoredMessage], None],
        holder: str,
        interval_s: float,
        halts_tasks: bool,
        thresholds: Thresholds,
        message_key: bytes,
        targets_ms: Mapping[str, int] | None = None,
    ) -> None:
        """mark_ledger_lost: told that the ledger does not answer, so that it is verified. on_message: told of every
        message that is read on."""
        self._bus, self._publisher, self._store, self._clock, self._publish_halt = (
            bus,
            publisher,
            store,
            clock,
            publish_halt,
        )
        self._holder, self._interval_s, self._halts_tasks, self._thresholds = (
            holder,
            interval_s,
            halts_tasks,
            thresholds,
        )
        self._message_key, self._mark_ledger_lost = message_key, mark_ledger_lost
        self._on_message = on_message
        self._breaker_entries, self._sliced_fold = BreakerEntryOwner(bus, message_key), SlicedFold(clock)
        self._task: asyncio.Task[None] | None = None
        self._last: StoredMessage | None = None
        self._folded_at_mark = 0
        self._backoff_s = self._pause_s = interval_s
        self._expects = asyncio.Event()
        self._entries_read_unix_ms = 0
        self.left_out = LeftOutMessages()
        self._targets_ms = targets_ms or {}
        self.fold = WatchFold(thresholds, self.left_out, self._targets_ms)
        self.gaps, self._ends_read_unix_ms, self._folded_at_ends = JournalGaps(), 0, 0
        self.leads = False
        self.caught_up = False
        self.ledger_answers = True
        """False from a failure of Redis until the next round that needs it has succeeded."""
        self.trips_told = 0

    @property
    def degraded(self) -> str:
        """The part that it does not see; "" when it sees all."""
        return "; ".join(filter(None, (self.left_out.degraded, self.gaps.degraded(self._clock()))))

    def gauges(self) -> dict[str, ReadGauge]:
        """Metrics of tasks and approvals, once the journal is read."""
        return {
            names.TASKS_LIVING: lambda: self._gauge_value(self.fold.standing.living_count()),
            names.TASKS_QUIET: lambda: self._gauge_value(self.fold.standing.quiet_count(self._clock())),
            names.APPROVALS_WAITING: lambda: self._gauge_value(self.fold.standing.approval_backlog(self._clock())[0]),
            names.APPROVALS_OLDEST: lambda: self._gauge_value(self.fold.standing.approval_backlog(self._clock())[1]),
        }

    def _gauge_value(self, value: int) -> Counts:
        return {(): value} if self.caught_up else {}

    def start(self, background: BackgroundTasks) -> None:
        """Begin; returns at once. An error in it ends neither the service nor its admissions."""
        self._task = background.keep_running("watcher", self._watch_journal, self._on_watch_broke)

    async def stop(self) -> None:
        """End; another replica takes over when the lease is over."""
        if self._task is not None:
            await cancel_tasks(self._task)

    def expect_messages(self) -> None:
        """The journal is about to bring something: look as often as while it does."""
        if self._pause_s > self._interval_s:
            self._expects.set()

    async def _watch_journal(self) -> None:
        """Until it is cancelled, or raises what is a bug: then it is begun anew."""
        begun = False
        while True:
            try:
                if not begun:
                    await self._begin_fold()
                    begun = True
                folded = self.fold.folded
                await self._read_on()
                is_idle = self.fold.folded == folded and not self._expects.is_set()
                longest_s = max(self._interval_s, min(self._interval_s * IDLE_TIMES, LEASE_MS / 2_000))
                self._pause_s = min(longest_s, self._pause_s * IDLE_GROWTH) if is_idle else self._interval_s
                self._expects.clear()
                await self._confirm_suspicions()
                await self._tell_due()
                self.left_out.clear_blame()
                self.ledger_answers = True
                self._backoff_s = self._interval_s
            except JournalRemade:
                log.warning("journal_made_again", after=self._last.sequence if self._last else 0)
                # The fold keeps what it knows: messages are told apart by their place in their inbox.
                self._last, self.caught_up = None, False
                self.gaps.forget_reading()
            except (BusError, *RedisFailure) as error:
                self.leads, self.left_out.telling = False, ""
                self.ledger_answers = self.ledger_answers and not isinstance(error, RedisFailure)
                pause_s = self._wait_longer()
                log.warning("watch_interrupted", reason=str(error) or type(error).__name__, retry_s=pause_s)
                await asyncio.sleep(pause_s)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._expects.wait()

    def _wait_longer(self) -> float:
        """Seconds until the next try."""
        pause_s, self._backoff_s = self._backoff_s, min(MAX_BACKOFF_S, self._backoff_s * 2)
        return pause_s

    async def _on_watch_broke(self, error: BaseException) -> None:
        """The watch has ended by a bug; see LeftOutMessages. A standby whose watch stands takes the lease meanwhile."""
        self.leads = self.caught_up = False
        folding, trip_id = self.left_out.folding, self.left_out.telling
        left_out, pause_s = self.left_out.blame_message(error), self._wait_longer()
        message = f"{folding.subject} {folding.sequence}" if folding is not None else trip_id and f"trip {trip_id}"
        log.error("left_out" if left_out else "watch_broke", reason=repr(error), message=message, retry_s=pause_s)
        metrics.watch_broke.add(1, {names.OUTCOME: "left_out" if left_out else "begun_anew"})
        await asyncio.sleep(pause_s)

    # Reading

    async def _begin_fold(self) -> None:
        """Fold what is needed of the past: where the mark says, or from the beginning."""
        mark = WatchMark.decode(await self._store.get_value(MARK_NAME))
        if mark.after:
            page = await self._bus.read(subjects.JOURNAL_STREAM, "mesh.>", after=mark.after - 1, limit=1)
            if not page or page[0].sequence != mark.after or message_identity(page[0]) != (mark.subject, mark.source):
                log.warning("mark_is_of_another_journal", after=mark.after)
                mark = WatchMark()
        self.fold = WatchFold(self._thresholds, self.left_out, self._targets_ms)
        self._folded_at_mark = 0
        breakers, breaker_thresholds, now_unix_ms = self.fold.watch.breakers, self._thresholds.breakers, self._clock()
        breakers.from_unix_ms = now_unix_ms - 2 * breaker_thresholds.window_ms
        breakers.talk_from_unix_ms = now_unix_ms - breaker_thresholds.chatter_window_ms
        breakers.talkers.restore_rows(mark.talks)
        self.fold.watch.models.restore_rows(mark.models)
        self._breaker_entries = BreakerEntryOwner(self._bus, self._message_key)
        start = max(0, mark.after - REFOLD_MESSAGES)
        old = {name: lived for name, lived in mark.living.items() if lived.first <= start}
        lineages = sorted(old, key=old.__getitem__)
        for first in range(0, len(lineages), AT_ONCE):
            batch = lineages[first : first + AT_ONCE]
            past = await asyncio.gather(*(self._past_messages(lineage, start, old[lineage]) for lineage in batch))
            for name, messages in zip(batch, past, strict=True):
                await self._sliced_fold.fold_each(messages, self.fold.replay_message)
                if messages:
                    old[name] = TaskSpan(old[name].first, len(messages), messages[-1].sequence)
        self.fold.restore_living(old, mark.read)
        self._last = None
        if start:
            page = await self._bus.read(subjects.JOURNAL_STREAM, "mesh.>", after=start - 1, limit=1)
            self._last = page[0] if page else None
            if page and page[0].sequence > start:
                self.fold.fold_message(page[0])  # What stood there was purged.
        log.info("watch_begins", after=start, tasks_read=len(old))

    async def _past_messages(self, lineage: str, until: int, span: TaskSpan) -> list[StoredMessage]:
        """One task's messages up to a sequence, and no more of them than there were: to find that there is not one more
        the broker searches the whole journal."""
        tenant, _, task = lineage.partition("/")
        subject = f"mesh.*.*.{place_of(task, tenant)}"
        messages, goal = list[StoredMessage](), min(span.last, until)
        expected = span.messages + UNCOUNTED_MESSAGES
        while True:
            limit = min(PAGE, max(1, span.messages - len(messages))) if len(messages) < expected else PAGE
            page = await self._bus.read(
                subjects.JOURNAL_STREAM, subject, limit=limit, after=messages[-1].sequence if messages else 0
            )
            messages += page
            if len(page) < limit or page[-1].sequence >= goal:
                return [stored for stored in messages if stored.sequence <= until]

    async def _read_on(self) -> None:
        """Fold up to the end of the journal. Raises JournalRemade, BusError."""
        if not self.gaps.begun:
            self.gaps.begin_at(await self._inbox_ends())
        while True:
            # Each page begins with the end of the one before: in another journal something else stands there.
            after = self._last.sequence - 1 if self._last is not None else 0
            page = await self._bus.read(subjects.JOURNAL_STREAM, "mesh.>", after=after, limit=PAGE)
            if self._last is not None:
                if (
                    not page
                    or page[0].sequence != self._last.sequence
                    or message_identity(page[0]) != message_identity(self._last)
                ):
                    raise JournalRemade
                page = page[1:]
            await self._sliced_fold.fold_each(page, self._fold_message)
            if len(page) < PAGE - 1:
                break
        for end in self.fold.standing.drain_ends():
            if self.leads and self.caught_up:  # One replica counts, and not what it reads once more.
                metrics.tasks_time.record(end.seconds, {names.STATUS: end.status, names.STANDING: end.answer})
        self.caught_up = True
        self.fold.pass_time(self._clock() - JOURNAL_LAG_MS)
        is_idle = self.fold.folded == self._folded_at_ends
        if self._clock() - self._ends_read_unix_ms >= (IDLE_ENDS_EVERY_MS if is_idle else ENDS_EVERY_MS):
            self._ends_read_unix_ms, self._folded_at_ends = self._clock(), self.fold.folded
            self.gaps.record_ends(await self._inbox_ends(), self._clock())

    def _fold_message(self, stored: StoredMessage) -> None:
        inbox = stored.subject.split(".")[2]
        if (gap := self.gaps.record_message(inbox, at_its_source(stored).sequence)) is not None:
            log.error("journal_lacks", inbox=gap.inbox, first=gap.first, last=gap.last)
            metrics.journal_lacks.add(gap.last - gap.first + 1, {names.INBOX: gap.inbox})
        self.fold.fold_message(stored)
        self._on_message(stored)
        self._last = stored

    async def _inbox_ends(self) -> dict[str, int]:
        """Last sequence of every inbox. Raises BusError."""
        return {inbox: await self._bus.last_sequence(subjects.inbox_stream(inbox)) for inbox in catalog.INBOXES}

    async def _confirm_suspicions(self) -> None:
        """A suspicion is judged when all that was said before it is read; see WatchFold. Raises BusError."""
        if self.fold.needs_inbox_ends:
            self.fold.set_inbox_ends(await self._inbox_ends())
        self.fold.judge_suspicions(self._clock())

    # Acting

    async def _tell_due(self) -> None:
        """Tell what is due, if this replica leads. Raises BusError, RedisFailure."""
        led, self.leads = self.leads, await self._store.take_lead(ROLE, self._holder, LEASE_MS)
        if self.leads and not led:
            log.info("watch_leads", due=len(self.fold.due))
        if not self.leads:
            return
        breakers = self.fold.watch.breakers
        is_due = self._clock() - self._entries_read_unix_ms >= ENTRIES_EVERY_MS
        if self._halts_tasks and (is_due or breakers.changed or not led):
            self._entries_read_unix_ms = self._clock()
            await self._breaker_entries.sync_entries(breakers, self.fold.notices)
        for trip in self.fold.due_findings(self._clock()):
            if self.left_out.is_trip_left_out(trip.id):
                self.fold.mark_told(trip.id)
                continue
            # Not cleared when this raises a bug: then it is the one to blame.
            self.left_out.telling = trip.id
            await self._publish_trip(trip)
            self.left_out.telling = ""
        for notice in self.fold.notices.due_notices(self._clock()):
            body, tenant, task = notice.to_request(), notice.tenant, notice.task
            # The last of them is the one by which it counts as told.
            for receiver, index in (("gateway", "notice/gateway"), ("tool_executor", "notice")):
                await self._publisher.send(receiver, body, tenant=tenant, task=task, cause=notice.id, index=index)
            self.fold.notices.mark_told(notice.id)
        if self.fold.folded - self._folded_at_mark >= MARK_EVERY:
            self._folded_at_mark = self.fold.folded
            await self._store.put_value(MARK_NAME, self.fold.make_mark().encode())

    async def _publish_trip(self, trip: HealthFinding) -> None:
        """The halt first, the fact after it: without the fact it is done again, under the same ids."""
        tenant, _, task = trip.lineage.partition("/")
        code = CODES.get(trip.detector.partition(".")[0], "")
        halts = (
            self._halts_tasks and trip.level == "stop" and bool(code) and not self.fold.watch.has_ended(trip.lineage)
        )
        if halts:
            reason = f"{trip.what}. What to do: {trip.hint}."
            log.warning("task_halted", tenant=tenant, task=task, detector=trip.detector, reason=trip.what)
            # The planner first: what the halt cuts short reaches it later, and knows less of why.
            halted = TaskHalted(code=code, reason=reason, scope=f"task:{tenant}:{task}")
            await self._publisher.send("planner", halted, tenant=tenant, task=task, cause=trip.id, index="halted")
            halt = Halt(scope="task", tenant=tenant, name=task, code=code, reason=reason, by="budget")
            await self._publish_halt(halt, f"trip/{trip.id}")
            if not await self._publish_charge(trip, tenant, task):
                return
        elif trip.detector == LATENCY:
            log.warning("latency_target_missed", tenant=tenant, task=task, what=trip.what)
            metrics.latency_missed.add(1, {names.FEATURE: str(trip.facts["feature"])})
        elif is_told_to_agents(trip) and not self.fold.watch.has_ended(trip.lineage):
            await self._warn_agents(trip, tenant, task)
        if trip.detector == "deadlock" and (refused := deadlock_refusal.build_refusal(trip)) is not None:
            tenant, task, body = refused
            log.warning("wait_refused", tenant=tenant, task=task, step=body.step_id, reason=trip.what)
            await self._publisher.send("worker", body, tenant=tenant, task=task, cause=trip.id, index="refused")
        if trip.detector.partition(".")[0] == models.FAMILY:
            log.warning("model_changed", tenant=tenant, task=task, reason=trip.what)
        fact = Tripped(
            trip=trip.id,
            detector=trip.detector,
            level=trip.level,
            agents=tuple(agent[:200] for agent in trip.agents[:64]),
            what=trip.what[:2000],
            hint=trip.hint[:2000],
            evidence=tuple(item[:200] for item in trip.evidence),
            halted=halts,
            tripped_unix_ms=trip.time_unix_ms,
            **deadlock_refusal.circle_fields(trip),
        )
        await self._publisher.send("journal", fact, tenant=tenant, task=task, cause=trip.id, index="tripped")
        self.fold.mark_told(trip.id)
        metrics.findings.add(1, {names.KIND: trip.detector.partition(".")[0], names.LEVEL: trip.level})
        self.trips_told += 1

    async def _publish_charge(self, trip: HealthFinding, tenant: str, task: str) -> bool:
        """Tell what the task has cost, and from now on every late settlement. False without a ledger: the trip stays
        due, and all of it is done again under the same ids. Raises BusError."""
        try:
            balance = await self._store.stop_scope(task_scope(tenant, task))
        except (Fenced, *RedisFailure) as error:
            # Where nobody asks this replica for money, nothing else finds that another one has built the ledger anew.
            self._mark_ledger_lost(str(error) or type(error).__name__)
            log.warning("charge_not_told", tenant=tenant, task=task, reason=str(error) or type(error).__name__)
            return False
        charged = facts.charged_fact(balance, await measured_usage(self._bus, tenant, task))
        await self._publisher.send("gateway", charged, tenant=tenant, task=task, cause=trip.id, index="charged")
        return True

    async def _warn_agents(self, trip: HealthFinding, tenant: str, task: str) -> None:
        """The agents of these steps hear of it in their next turn."""
        receiver = "doors" if subjects.is_of_doors(task) else "worker"
        steps = dict.fromkeys(agent.partition("/")[0][: bounds.MAX_NAME_CHARS] for agent in trip.agents)
        for step in list(steps)[:MAX_WARNED]:
            warned = AgentWarned(trip=trip.id, step_id=step, what=trip.what[:2000], hint=trip.hint[:2000])
            index = f"warned/{step}"
            await self._publisher.send(receiver, warned, tenant=tenant, task=task, cause=trip.id, index=index)


def is_told_to_agents(trip: HealthFinding) -> bool:
    """True when the agents of a warning hear of it."""
    return trip.level == "warn" and trip.detector.partition(".")[0] in CODES
