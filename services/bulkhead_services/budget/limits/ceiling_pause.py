"""A task at its ceiling is halted where it stands, until somebody raises the ceiling or its own time is up.

A call that cost many times its reservation halts its task too, until an operator has looked at it. In: ceilings that
were met, limits that were changed. Out: the task's halt in the control entries, live at once, which
cuts its streams and holds its calls back; the same entry lifted, which wakes them; a `Switched` fact for each. Whoever
asks again is judged by the ledger anew, so that lifting too much costs nothing but a question. An ended task has
nothing to hold back: a halt that came before the journal knew of its end is lifted.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, BusError
from bulkhead.runtime.halts import operator
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry import metrics, names
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.budget import ReserveRequested
from bulkhead_contracts.control import Halt
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.task import TaskEnded
from bulkhead_services.budget.ledger.accounts import scopes_of, targets_of
from bulkhead_services.budget.ledger.model import CeilingLevel, MetCeiling
from bulkhead_services.budget.limits import alert_rules, messages
from bulkhead_services.budget.limits.tenant_limits import LastReadTargetLimits, TenantLimitsRegistry

log = Log("budget.parking")

BY = "budget"
ENDED = "the task has ended"
TRIES = 5
MAX_REMEMBERED = 10_000
PAGE = 256
DAY_MS = 24 * 3600 * 1000
JOURNAL_LAG_MS = 10 * 60 * 1000
"""For so long after a halt the journal is asked whether its task had ended before it."""
OWN = frozenset({"task", "step"})
"""Accounts that end with their task; the others' periods end, and begin anew."""


class ParkedTask(NamedTuple):
    """A task that this replica halted. known: the limits by which it was. ends_unix_ms: of the account's time."""

    known: LastReadTargetLimits
    scope: str
    ends_unix_ms: int

    @property
    def has_task_account(self) -> bool:
        return self.scope.partition(":")[0] in OWN


class CeilingPause:
    """Halts tasks at their ceilings and lets them go on."""

    def __init__(
        self, bus: Bus, publisher: Publisher, limits: TenantLimitsRegistry, clock: Callable[[], int], *, parks: bool
    ) -> None:
        """parks: False lets every task end at its ceiling."""
        self._bus, self._publisher, self._limits, self._clock = bus, publisher, limits, clock
        self._parks = parks
        self._known = BoundedDict[tuple[str, str], ParkedTask](MAX_REMEMBERED)
        self._fresh = BoundedDict[tuple[str, str], int](MAX_REMEMBERED)
        """Tasks that this replica halted of late, and when."""
        self._looked_on = -1
        """The day on which all entries were looked at, since 1970."""

    def should_park(self, head: Envelope) -> bool:
        """True when the task that this is said for waits at its ceiling."""
        return self._parks

    async def is_ceiling_raised(
        self, body: ReserveRequested, agent: str, grant: TaskGrant, ceiling: MetCeiling
    ) -> bool:
        """True when this ceiling is none any more: a known id gets its first answer, from before the limits were
        changed; the next try has another id. Raises BusError.
        """
        limits = (await self._limits.last_read_limits(grant.tenant)).limits
        scopes = scopes_of(grant, self._clock(), step_id=body.step_id, agent=agent, limits=limits)
        return any(
            scope.name == ceiling.scope and getattr(scope.limit, ceiling.unit) > ceiling.limit for scope in scopes
        )

    async def has_ended(self, tenant: str, task: str) -> bool:
        """True when the journal holds the task's end. Raises BusError."""
        last = await self._bus.last(subjects.JOURNAL_STREAM, subjects.mesh_subject("planner", "gateway", tenant, task))
        return last is not None and last.ce_type.startswith(f"{TaskEnded.TYPE}.v")

    async def park_task(self, tenant: str, task: str, ceiling: MetCeiling, until_unix_ms: int = 0) -> Halt | None:
        """Halt it, or find it halted; None when it is over. until_unix_ms: of its account. Raises BusError."""
        limits_when_parked = self._limits.last_read_target_limits(tenant, targets_of(ceiling.scope))
        reason = messages.parked_text(ceiling, task)
        for _ in range(TRIES):
            stored, after = await self._stored_halt(tenant, task)
            if stored is not None and stored.active:
                return stored if stored.pauses else None
            halt = self._pausing_halt(tenant, task, messages.CODE, reason, stored)
            if await self._store_halt(halt, after):
                break
        else:
            raise BusError(f"others halt and resume task {task} at this moment")
        metrics.ceilings.add(1, {names.UNIT: ceiling.unit, names.ACCOUNT: ceiling.scope.partition(":")[0]})
        log.warning("task_parked", tenant=tenant, task=task, scope=ceiling.scope, reason=reason)
        level = CeilingLevel(ceiling.scope, ceiling.unit, ceiling.spent, ceiling.limit, until_unix_ms)
        self._fresh[tenant, task] = self._clock()
        park = self._known[tenant, task] = ParkedTask(limits_when_parked, ceiling.scope, alert_rules.period_end(level))
        # The halt first, then the limits; who changes limits stores them first and looks for halts then: one of both
        # sees the other.
        if await self._limits.newest_revision(tenant) != limits_when_parked.revision and self._are_limits_changed(
            tenant, park
        ):
            await self.lift_halt(tenant, task, "the limits were changed meanwhile")
        return halt

    async def hold_task(self, tenant: str, task: str, reason: str, change: str) -> None:
        """Halt it until an operator has looked at it, in place of a halt at its ceiling; nothing else lifts it.

        change: names the cause, which halts once, also when it comes again after somebody let the task go on. Raises
        BusError.
        """
        for _ in range(TRIES):
            stored, after = await self._stored_halt(tenant, task)
            if stored is not None and (change in stored.changes or (stored.active and not _is_parked(stored))):
                return
            halt = self._pausing_halt(tenant, task, messages.HELD, reason, stored)
            changes = (*halt.changes, change)[-bounds.MAX_SWITCH_CHANGES :]
            if await self._store_halt(halt.model_copy(update={"changes": changes}), after):
                self._known.pop((tenant, task), None)
                self._fresh[tenant, task] = self._clock()
                log.warning("task_held", tenant=tenant, task=task, reason=reason)
                return
        raise BusError(f"others halt and resume task {task} at this moment")

    def _pausing_halt(self, tenant: str, task: str, code: str, reason: str, stored: Halt | None) -> Halt:
        """A halt of budget's own behind the entry that stands, whose changes it remembers."""
        at_unix_ms, changes = self._clock(), stored.changes if stored is not None else ()
        if stored is not None:
            at_unix_ms = max(at_unix_ms, stored.at_unix_ms + 1)
        same: dict[str, Any] = {"tenant": tenant, "name": task, "reason": reason, "at_unix_ms": at_unix_ms}
        return Halt(scope="task", code=code, by=BY, pauses=True, changes=changes, **same)

    async def lift_halt(self, tenant: str, task: str, reason: str, *, is_over: bool = False) -> bool:
        """Let it go on, if it is halted at a ceiling; True when it was. is_over: it has ended, and no halt of budget's
        own stands any more. Raises BusError."""
        self._known.pop((tenant, task), None)
        for _ in range(TRIES):
            stored, after = await self._stored_halt(tenant, task)
            if stored is None or not (_is_parked(stored) or (is_over and _is_of_budget(stored))):
                return False
            lifted_unix_ms = max(self._clock(), stored.at_unix_ms + 1)
            lifted = stored.model_copy(update={"active": False, "reason": reason, "at_unix_ms": lifted_unix_ms})
            if await self._store_halt(lifted, after):
                metrics.let_go.add(1)
                log.warning("task_let_go", tenant=tenant, task=task, why=reason)
                return True
        raise BusError(f"others halt and resume task {task} at this moment")

    async def lift_for_target(self, tenant: str, target: str, reason: str) -> int:
        """A limit of this target was changed: who may be concerned asks again. How many. Raises BusError."""
        kind, _, name = target.partition("/")
        if kind == "task" and name:
            return int(await self.lift_halt(tenant, name, reason))
        concerned = [
            halt
            for halt in await self._halts_of_budget(tenant)
            if messages.may_concern_target(halt.reason, target) and _is_parked(halt)
        ]
        return sum([await self.lift_halt(tenant, halt.name, reason) for halt in concerned])

    def _are_limits_changed(self, tenant: str, park: ParkedTask) -> bool:
        """True when the limits that its ceiling is made of are known to be others now."""
        return self._limits.last_read_target_limits(tenant, targets_of(park.scope)).limits != park.known.limits

    async def lift_due(self) -> None:
        """Lift what nobody was there to lift: limits that a lagging reader did not see, a day that is over, an end that
        reached the journal behind the halt."""
        now_unix_ms, newest = self._clock(), dict[str, int]()
        for (tenant, task), park in list(self._known.items()):
            try:
                if tenant not in newest:
                    newest[tenant] = await self._limits.newest_revision(tenant)
                if newest[tenant] != park.known.revision and self._are_limits_changed(tenant, park):
                    await self.lift_halt(tenant, task, "the limits were changed")
                elif now_unix_ms >= park.ends_unix_ms and park.has_task_account:
                    self._known.pop((tenant, task), None)
                elif now_unix_ms >= park.ends_unix_ms:
                    await self.lift_halt(tenant, task, "a new period has begun")
            except BusError as error:
                log.debug("parks_not_looked_at", reason=str(error))
                return
        try:
            await self._lift_ended()
        except BusError as error:
            log.debug("parks_not_looked_at", reason=str(error))
            return
        if self._looked_on < now_unix_ms // DAY_MS:
            try:
                await self._lift_left_behind(now_unix_ms // DAY_MS)
            except BusError as error:
                log.debug("parks_not_looked_at", reason=str(error))

    async def _lift_ended(self) -> None:
        """Raises BusError."""
        for (tenant, task), halted_unix_ms in list(self._fresh.items()):
            if await self.has_ended(tenant, task):
                await self.lift_halt(tenant, task, ENDED, is_over=True)
            elif self._clock() < halted_unix_ms + JOURNAL_LAG_MS:
                continue
            self._fresh.pop((tenant, task), None)

    async def _lift_left_behind(self, today: int) -> None:
        """Lift what a replica halted that is no more: once when this one begins, and once a day. Raises BusError.

        A month is not over after a day: who is let go too soon is halted again by what it asks next.
        """
        for halt in await self._halts_of_budget("*"):
            if (halt.tenant, halt.name) in self._known:
                continue
            if await self.has_ended(halt.tenant, halt.name):
                await self.lift_halt(halt.tenant, halt.name, ENDED, is_over=True)
                continue
            if not _is_parked(halt):
                continue
            if halt.at_unix_ms // DAY_MS < today and messages.ends_with_period(halt.reason):
                await self.lift_halt(halt.tenant, halt.name, "a new period has begun")
                continue
            await self._limits.newest_revision(halt.tenant)
            if self._limits.was_changed_since(halt.tenant, halt.at_unix_ms):
                await self.lift_halt(halt.tenant, halt.name, "the limits were changed")
        self._looked_on = today

    async def _halts_of_budget(self, tenant: str) -> list[Halt]:
        halts, pattern, after = list[Halt](), f"$KV.CONTROL.task.{tenant}.*", 0
        while page := await self._bus.read(subjects.CONTROL_STREAM, pattern, after=after, limit=PAGE):
            halts += [halt for stored in page if _is_of_budget(halt := Halt.model_validate_json(stored.body))]
            after = page[-1].sequence
        return halts

    async def _stored_halt(self, tenant: str, task: str) -> tuple[Halt | None, int]:
        stored = await self._bus.last(subjects.CONTROL_STREAM, subjects.halt_key("task", tenant, task))
        return (Halt.model_validate_json(stored.body), stored.sequence) if stored is not None else (None, 0)

    async def _store_halt(self, halt: Halt, after: int) -> bool:
        key = subjects.halt_key("task", halt.tenant, halt.name)
        if not await operator.store_entry(self._bus, self._publisher, key, halt.model_dump_json().encode(), after):
            return False
        try:
            await operator.publish_switched(self._publisher, halt)
        except BusError as error:
            log.warning("halt_not_told", task=halt.name, reason=str(error))  # It stands all the same.
        return True


def _is_of_budget(halt: Halt) -> bool:
    return halt.active and halt.pauses and halt.by == BY


def _is_parked(halt: Halt) -> bool:
    return _is_of_budget(halt) and halt.code == messages.CODE
