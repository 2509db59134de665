"""The end of runs: one that is idle for long, or that its caller ends, succeeds with its last answer.

In: feeds, calls that are begun, notices of other replicas. Out: `StepFinished` to the planner. The replica at which a
run was used last ends it; another one does so later, in case that one is gone.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import BusError
from bulkhead.runtime.context import Context
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, envelope
from bulkhead_contracts.result import Failure, Result, merge_labels
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.step import StepAssigned, StepFinished
from bulkhead_contracts.tool import ToolCallReplied
from bulkhead_services.doors import refusals
from bulkhead_services.doors.feed import INBOX, SERVICE, RunFeed, RunFeeds
from bulkhead_services.doors.run_call import CallsInFlight
from bulkhead_services.doors.run_places import RunPlaces
from bulkhead_services.doors.settings import Settings

MAX_WATCHED = 10_000
"""Runs that are ended here when they are idle; another one ends at its deadline."""
LEFT_MS = bounds.MAX_TOOL_TIMEOUT_MS + 15_000
"""After its last call began a run whose place another has taken ends no sooner: that call may be in flight."""
LOOK_BACK = 50_000
"""So many of the newest messages are looked through at a start for runs that nobody else may end."""
log = Log("doors.ends")


@dataclass(slots=True)
class RunIdleWatch:
    """A run that is ended here when it is idle. own: this replica used it. leaving: no new call comes."""

    used_unix_ms: int
    own: bool = False
    leaving: bool = False


class RunFinisher:
    """Ends runs. in_flight: the calls of each door at this replica. places: hears of runs that were
    opened before."""

    def __init__(
        self,
        context: Context,
        settings: Settings,
        feeds: RunFeeds,
        in_flight: tuple[CallsInFlight[Any], ...],
        places: RunPlaces,
    ) -> None:
        self._context, self._settings, self._feeds, self._in_flight = context, settings, feeds, in_flight
        self._places = places
        self._watched = BoundedDict[tuple[str, str], RunIdleWatch](MAX_WATCHED)

    async def finish_and_wait(self, feed: RunFeed) -> None:
        """End a run now, and wait until it has ended. Raises DoorRefusal, BusError."""
        if feed.is_over:
            return
        await self._finish_run(feed)
        if not await self._feeds.wait_until(feed, lambda: feed.is_over, self._settings.open_wait_s):
            raise refusals.mesh_unavailable(f"the end of run {feed.task} is stored, and not carried out yet")

    async def _finish_run(self, feed: RunFeed) -> None:
        """The step of a run is over: with its last answer, or by what held it back."""
        assert feed.assigned is not None
        last, failure = feed.last_answer, hold_failure(feed)
        result = Result(standing="failed", standing_reason=failure.message if failure else "")
        if failure is None and last is not None:
            result = Result(
                content=last.content,
                summary=last.content.summary if last.content else "",
                standing=last.standing,
                standing_reason=last.standing_reason,
                completeness=last.completeness,
                provenance=merge_labels(last.provenance),
            )
        elif failure is None and feed.last_tool_reply is not None:
            result = _result_of_tool(feed.last_tool_reply)
        elif failure is None:
            failure = Failure.from_text("no_answer", "no call of this run was answered")
        body = StepFinished(
            step_id=feed.assigned.step.id,
            attempt=feed.assigned.attempt,
            plan_version=feed.assigned.plan_version,
            result=result,
            failure=failure,
            usage=feed.usage,
        )
        await self._context.publisher.send(
            "planner",
            body,
            tenant=feed.tenant,
            task=feed.task,
            cause=feed.cause,
            index="finished",
            actor=feed.actor,
            grant_digest=envelope.grant_digest(feed.grant),
            traceparent=feed.traceparent,
        )

    def note_activity(self, tenant: str, task: str) -> RunIdleWatch:
        """Note that a message of this run was handled somewhere."""
        watch, now_ms = self._watched.get_refreshed((tenant, task)), self._context.clock()
        if watch is None:
            watch = self._watched[tenant, task] = RunIdleWatch(now_ms)
        watch.used_unix_ms = now_ms
        return watch

    def note_local_use(self, feed: RunFeed) -> None:
        """Note that a call of this run is begun here."""
        self.note_activity(feed.tenant, feed.task).own = True

    def mark_superseded(self, feed: RunFeed) -> None:
        """Another run has taken its place: it ends when its calls have."""
        self.note_activity(feed.tenant, feed.task).leaving = True

    async def run(self) -> None:
        """End runs that are idle; until cancelled."""
        try:
            await self._find_earlier_runs()
        except BusError as error:
            log.warning("runs_not_looked_for", reason=str(error))
        while True:
            await asyncio.sleep(min(5.0, self._settings.idle_s / 4))
            for (tenant, task), watched in list(self._watched.items()):
                try:
                    await self._finish_if_idle(tenant, task, watched)
                except BusError as error:
                    log.debug("run_not_ended", task=task, reason=str(error))
                    break

    async def _find_earlier_runs(self) -> None:
        """Watch runs that were opened before this replica began."""
        of_planner = f"mesh.planner.{SERVICE}.>"
        last = await self._context.bus.last(INBOX, of_planner)
        after = max(0, last.sequence - LOOK_BACK) if last is not None else 0
        async for stored in stored_messages(self._context.bus, INBOX, of_planner, after=after):
            if stored.ce_type == StepAssigned.ce_type():
                self._watched.setdefault((stored.tenant, stored.task), RunIdleWatch(self._context.clock()))
                self._places.note_activity(stored.tenant, stored.task)

    async def _finish_if_idle(self, tenant: str, task: str, watched: RunIdleWatch) -> None:
        # A call may be in flight at another replica, which has just begun to use this run.
        idle_ms = self._idle_ms if watched.own else self._idle_ms + round(self._settings.call_timeout_s * 1000)
        feed = self._feeds.run_feed(tenant, task) if watched.leaving or self._idle_for(watched) >= idle_ms else None
        if feed is None:
            return
        await feed.refresh()
        is_busy = any(calls.has_call_of(tenant, task) for calls in self._in_flight)
        if is_busy or not (watched.leaving or self._idle_for(watched) >= idle_ms):
            return  # A call may have begun meanwhile.
        last_ms = max(feed.last_unix_ms, _approval_deadline_ms(feed))
        if watched.leaving:
            # A call that began last may be in flight at another replica; when it began, all replicas heard.
            last_ms = max(last_ms, watched.used_unix_ms)
            idle_ms = max(round(self._settings.call_timeout_s * 1000) + 5_000, LEFT_MS)
        if feed.is_open and self._context.clock() - last_ms >= idle_ms:
            await self._finish_run(feed)
        elif feed.is_open:
            watched.used_unix_ms = max(watched.used_unix_ms, last_ms)
            return
        self._watched.pop((tenant, task), None)

    def _idle_for(self, watched: RunIdleWatch) -> int:
        return self._context.clock() - watched.used_unix_ms

    @property
    def _idle_ms(self) -> int:
        return round(self._settings.idle_s * 1000)


def _approval_deadline_ms(feed: RunFeed) -> int:
    """Time until which a call of it may be approved: it is not idle before."""
    deferral = feed.held
    return deferral.until_unix_ms if deferral is not None and deferral.code == refusals.APPROVAL_WANTED else 0


def _result_of_tool(tool_reply: ToolCallReplied | RetrievalReplied) -> Result:
    """The result of a run that asked no model: that of its newest call of a tool."""
    content = tool_reply.content if isinstance(tool_reply, ToolCallReplied) else None
    summary = content.summary if content else "It called tools of the mesh, and asked no model through it."
    return Result(
        content=content,
        summary=summary,
        standing=tool_reply.standing,
        standing_reason=tool_reply.standing_reason if isinstance(tool_reply, RetrievalReplied) else "",
        completeness=tool_reply.completeness,
        provenance=merge_labels(tool_reply.provenance),
    )


def hold_failure(feed: RunFeed) -> Failure | None:
    """The failure that a run ends by which is held back: a person's halt, or a ceiling that nobody has raised."""
    deferral = feed.held
    if deferral is None or deferral.code in (refusals.BREAKER_OPEN, refusals.APPROVAL_WANTED):
        return None
    code = refusals.BY_BUDGET if deferral.code == refusals.AT_CEILING else refusals.HALTED
    return Failure.from_text(
        code, deferral.reason, "it was held back until it was idle; begin another run when that is lifted"
    )
