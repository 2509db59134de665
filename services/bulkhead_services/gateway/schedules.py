"""Schedules of workflows: their runs begin at their times, once each, whichever replica is there.

In: schedules, as facts of the stream PROMPTS; the clock; API keys that there are now. Out: requests of tasks, in the
name of who set the schedule, as long as he has a key of that role. The id of a run is of version and instant: a second
replica, or a restart, finds the request stored.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from typing import Protocol

from bulkhead.bus.port import BusError
from bulkhead.callers.api_keys import ApiKey
from bulkhead.gateway_api.query import SUBMITTERS
from bulkhead.runtime.context import Context
from bulkhead.telemetry.log import Log
from bulkhead.workflows.ledger import WorkflowLedger
from bulkhead.workflows.schedules import previous_run
from bulkhead_contracts.task import RequesterClaim, TaskRequested
from bulkhead_contracts.workflow import WorkflowRow, WorkflowVersion
from bulkhead_services.gateway.problems import Problem
from bulkhead_services.gateway.workflow_runs import build_request

log = Log("gateway.schedules")
LOOK_S = 15.0
LATE_MS = 10 * 60_000
"""A run that begins later than this after its time was missed."""
CATCH_UP_MS = 7 * 24 * 3_600_000
"""With `run_once`: the last run of so long ago is made up for. Shorter than the retention of tasks, by whose ids a run
that began is known."""


class LapsedAuthority(ValueError):
    """Lack of a person in whose name the run could begin; the message says who is missing."""


class TaskIntake(Protocol):
    """The intake of tasks."""

    async def submit_request(self, request: TaskRequested, key: str) -> tuple[str, bool]:
        """Store a request; its task, and whether it was there before. Raises Problem."""
        ...


class ScheduleRunner:
    """Begins the runs that are due. Every replica does, and one of them is first. keys_of: a tenant's API keys now."""

    def __init__(
        self, context: Context, intake: TaskIntake, ledger: WorkflowLedger, keys_of: Callable[[str], tuple[ApiKey, ...]]
    ) -> None:
        self._context, self._intake, self._ledger, self._keys_of = context, intake, ledger, keys_of
        self._begun: dict[tuple[str, str], int] = {}
        self._told_lapsed: dict[tuple[str, str], int] = {}

    async def run(self) -> None:
        """Begin what is due, until cancelled."""
        while True:
            try:
                await self.begin_due_runs(self._context.clock())
            except BusError as error:
                log.warning("schedules_unread", reason=str(error))
            await asyncio.sleep(LOOK_S)

    async def begin_due_runs(self, now_unix_ms: int) -> None:
        """Begin each run whose time has come; of several that were missed the last one. Raises BusError."""
        await self._ledger.read_new()
        for tenant, row in self._ledger.list_scheduled():
            assert row.schedule is not None
            fact, key = row.transitions[-1], (tenant, f"{row.workflow}.{row.number}")
            due_unix_ms = previous_run(row.schedule, now_unix_ms)
            most_ms = CATCH_UP_MS if row.schedule.missed == "run_once" else LATE_MS
            is_missed = now_unix_ms - due_unix_ms > most_ms
            if due_unix_ms <= fact.moved_unix_ms or is_missed or self._begun.get(key) == due_unix_ms:
                continue
            try:
                await self._begin_run(tenant, row, due_unix_ms)
            except LapsedAuthority as error:
                # A key that is being replaced: the run begins when the new one is there, if that is soon enough.
                if self._told_lapsed.get(key) != due_unix_ms:
                    log.error("scheduled_run_skipped", tenant=tenant, workflow=key[1], reason=str(error))
                    self._told_lapsed[key] = due_unix_ms
                continue
            except Problem as problem:
                # The gateway's own trouble: tried again at the next look.
                log.warning("scheduled_run_delayed", tenant=tenant, workflow=key[1], reason=str(problem))
                continue
            except ValueError as error:
                log.error("scheduled_run_skipped", tenant=tenant, workflow=key[1], reason=str(error))
            self._begun[key] = due_unix_ms

    async def _begin_run(self, tenant: str, row: WorkflowRow, due_unix_ms: int) -> None:
        """Raises BusError, LapsedAuthority, Problem, ValueError."""
        version, nested = await self._ledger.read_runnable(tenant, row)
        key = f"schedule/{version.ref}/{due_unix_ms}"
        task = build_scheduled_request(tenant, row, version, nested, self._keys_of(tenant), key)
        task_id, repeated = await self._intake.submit_request(task, key)
        if not repeated:
            log.info("scheduled_run_begun", tenant=tenant, workflow=version.ref, task=task_id, due=due_unix_ms)


def build_scheduled_request(
    tenant: str,
    row: WorkflowRow,
    version: WorkflowVersion,
    nested: Iterable[WorkflowVersion],
    keys: Iterable[ApiKey],
    key: str,
) -> TaskRequested:
    """The request of a scheduled run. keys: the tenant's now; key: of the run. Raises ComposeError, LapsedAuthority."""
    assert row.schedule is not None
    claim, digest = find_authority(tenant, row, keys), hashlib.sha256(key.encode()).hexdigest()
    return build_request(version, nested, row.schedule.parameters, claim, payload_sha256=digest)


def find_authority(tenant: str, row: WorkflowRow, keys: Iterable[ApiKey]) -> RequesterClaim:
    """The person who set a version's schedule or trigger, as long as he has a key of that role. Raises
    LapsedAuthority."""
    fact, binding = row.transitions[-1], "schedule" if row.schedule is not None else "trigger"
    if fact.via != "api_key":
        raise LapsedAuthority(f"{fact.person} set the {binding} without an API key: set it again with one")
    live_keys = [live for live in keys if (live.person, live.role, live.agent) == (fact.person, fact.role, False)]
    if not live_keys or fact.role not in SUBMITTERS.names:
        reason = f"{fact.person}, who set the {binding} as {fact.role}, has no API key of that role any more"
        raise LapsedAuthority(f"{reason}: an operator has to set it again")
    role = live_keys[0].role
    assert role != "worker", "no program submits tasks"
    return RequesterClaim(tenant=tenant, person=fact.person, role=role, via="api_key")
