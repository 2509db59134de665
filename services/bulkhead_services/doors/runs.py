"""Runs of outside agents: which one a call belongs to; it is opened, or found again. Each is a task.

In: callers. Out: `TaskRequested` to the gateway, the feed of an open run. The id of a run derives from its caller, its
session and a number, so that every replica finds it without asking anybody; a session's runs are numbered from 1, and
its newest one is the one that counts.
"""

import asyncio
import hashlib
import re
import unicodedata
from collections.abc import Iterable

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusUnavailable, WrongLastSequence
from bulkhead.callers.questions import request_voucher
from bulkhead.callers.step_keys import StepKey
from bulkhead.grants import GrantRefused
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.task import TaskLimits, TaskRequested
from bulkhead_services.doors import refusals
from bulkhead_services.doors.ends import RunFinisher, hold_failure
from bulkhead_services.doors.feed import INBOX, MAX_CALLS, SERVICE, RunFeed, RunFeeds
from bulkhead_services.doors.mcp.granted import GrantedTools
from bulkhead_services.doors.port import Caller, DoorRefusal, ParsedModelCall
from bulkhead_services.doors.run_places import RunPlaces
from bulkhead_services.doors.settings import Settings
from bulkhead_services.doors.steps.handover import StepHandOvers

MAX_SESSIONS = 10_000
"""Sessions whose newest run is remembered; that of another is looked up."""
MAX_RUNS = 2**20
"""Of one session."""
MAX_OBJECTIVE_CHARS = 500
LAYOUT = "\t\n\v\f\r"
STEP = "agent"
STOPPED = ("halted", "cancelled")
"""Ends by a ceiling, a halt or a person: no other run follows at once."""
KEY_HOLDS_MS = 24 * 3_600_000
"""So long an idempotency key of the tool door stands for its call, over the runs of its session."""
MAX_KEYED_RUNS = 64
REJECTED_AGAIN_MS = 5_000
"""A session whose run was rejected opens the next one after so long, and tells the old reason till then."""
log = Log("doors.runs")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

Session = tuple[str, str, str]
"""Tenant, person, name of the session; its name is "" where one run follows another by time alone."""


class RunDirectory:
    """Finds and opens runs."""

    def __init__(
        self,
        context: Context,
        settings: Settings,
        feeds: RunFeeds,
        ends: RunFinisher,
        places: RunPlaces,
        tools: GrantedTools,
        steps: StepHandOvers,
    ) -> None:
        self._context, self._settings, self._feeds, self._ends = context, settings, feeds, ends
        self._places, self._tools, self._steps = places, tools, steps
        self._quotas = TenantQuotas(settings.tenants_file)
        self._newest = BoundedDict[Session, int](MAX_SESSIONS)
        self._finding: dict[Session, asyncio.Task[RunFeed]] = {}
        self._id_key = hashlib.blake2b(context.message_key, digest_size=32, person=b"bulkhead-runs").digest()

    # Which run

    async def find_known(self, caller: Caller, parsed_call: ParsedModelCall) -> RunFeed | None:
        """The run that a call belongs to as it stands, without opening one. Raises DoorRefusal, BusError."""
        if caller.step is not None:
            return await self._steps.held_feed(caller.step)
        if caller.task:
            return await self.own_run(caller, caller.task)
        session = session_of(caller, parsed_call)
        feed = self._feeds.run_feed(session[0], self._task_id(session, await self._newest_number(session)))
        await feed.refresh()
        return feed if feed.assigned is not None else None

    async def find_recent(
        self, caller: Caller, parsed_call: ParsedModelCall, *, for_key: bool = False
    ) -> tuple[RunFeed, ...]:
        """The newest run that a call could belong to and the one before it, open or not; for_key: those of a day,
        MAX_KEYED_RUNS at most. Raises DoorRefusal, BusError.
        """
        if caller.step is not None:
            return (await self._steps.held_feed(caller.step),)
        if caller.task:
            return (await self.own_run(caller, caller.task),)
        session = session_of(caller, parsed_call)
        number = await self._newest_number(session)
        oldest = max(1, number - (MAX_KEYED_RUNS if for_key else 2) + 1)
        feeds = [
            self._feeds.run_feed(session[0], self._task_id(session, candidate))
            for candidate in range(number, oldest - 1, -1)
        ]
        await asyncio.gather(*(feed.refresh() for feed in feeds))
        since_ms = self._context.clock() - KEY_HOLDS_MS
        return tuple(feed for feed in feeds if feed.assigned is not None and feed.last_unix_ms >= since_ms)

    async def find_runs(self, caller: Caller, tasks: Iterable[str]) -> tuple[RunFeed, ...]:
        """Those of these runs that are known, and this caller's. Raises BusError."""
        feeds = [self._feeds.run_feed(caller.claim.tenant, task) for task in dict.fromkeys(tasks)]
        await asyncio.gather(*(feed.refresh() for feed in feeds))
        return tuple(feed for feed in feeds if feed.assigned is not None and feed.actor == caller.claim.person)

    async def find_or_open(self, caller: Caller, parsed_call: ParsedModelCall) -> RunFeed:
        """The open run with its place, or the delegated step that a call belongs to. Raises DoorRefusal, BusError."""
        if caller.step is not None:
            step_feed = await self._steps.held_feed(caller.step)
            self._check_limits(step_feed, caller)
            return step_feed
        feed = await self._find_or_open_run(caller, parsed_call)
        self._check_limits(feed, caller)
        await self._places.regain_place(feed)
        return feed

    def _check_limits(self, feed: RunFeed, caller: Caller) -> None:
        """Refuse a limit that a run which was open already does not have: nobody may believe in it. Raises
        DoorRefusal.
        """
        if caller.limit_usd_micros is None and caller.limit_tokens is None:
            return
        now_ms = self._context.clock()
        try:
            grant = self._context.verifier.verify_authority(
                feed.grant, tenant=feed.tenant, task=feed.task, now_unix_ms=now_ms
            )
        except GrantRefused:
            return  # Its time is over, and the model gateway says so.
        limits = grant.task.limits
        for name, wished, has in (
            ("X-Bulkhead-Limit-Usd", caller.limit_usd_micros, limits.cost_usd_micros),
            ("X-Bulkhead-Limit-Tokens", caller.limit_tokens, limits.tokens),
        ):
            if wished is not None and wished < has:
                message = f"{name} is lower than the limit with which run {feed.task} began"
                hint = "name a run of its own (X-Bulkhead-Run), or leave the limit out"
                raise DoorRefusal(400, "limit_too_late", message, hint, field=name)

    async def _find_or_open_run(self, caller: Caller, parsed_call: ParsedModelCall) -> RunFeed:
        if caller.task:
            feed = await self._named_run(caller)
            self._ends.note_local_use(feed)
            return feed
        session = session_of(caller, parsed_call)
        if (number := self._newest.get_refreshed(session)) is not None:
            feed = self._feeds.run_feed(session[0], self._task_id(session, number))
            await feed.refresh()
            if feed.is_open and not self._is_superseded(session, feed):
                _refuse_full(feed)
                self._ends.note_local_use(feed)
                return feed
        finding = self._finding.get(session)
        if finding is None:
            finding = self._finding[session] = asyncio.create_task(self._find_newest(session, caller, parsed_call))
            finding.add_done_callback(lambda done: self._on_find_done(session, done))
        feed = await asyncio.shield(finding)
        self._ends.note_local_use(feed)
        return feed

    def _on_find_done(self, session: Session, finding: "asyncio.Task[RunFeed]") -> None:
        del self._finding[session]
        if not finding.cancelled():
            finding.exception()  # All who waited for it may have gone.

    async def own_run(self, caller: Caller, task: str) -> RunFeed:
        """A run of this caller by its id, open or not. Raises DoorRefusal, BusError."""
        if caller.step is not None:
            # A response is gone on from within its step alone; no run is the holder's to end.
            return await self._of_step(caller.step, task)
        try:
            subjects.check_token(task)
        except subjects.SubjectError:
            raise refusals.no_such_run(task[: bounds.MAX_NAME_CHARS]) from None
        feed = self._feeds.run_feed(caller.claim.tenant, task)
        await feed.refresh()
        if feed.assigned is None or feed.actor != caller.claim.person:
            raise refusals.no_such_run(task)
        return feed

    async def _of_step(self, key: StepKey, task: str) -> RunFeed:
        if key.task != task:
            raise refusals.no_such_run(task)
        return await self._steps.held_feed(key)

    async def _named_run(self, caller: Caller) -> RunFeed:
        feed = await self.own_run(caller, caller.task)
        if feed.ended is not None:
            raise refusals.of_end(feed.task, feed.ended, 0)
        _refuse_full(feed)
        return feed

    async def _find_newest(self, session: Session, caller: Caller, parsed_call: ParsedModelCall) -> RunFeed:
        """The newest run of a session, or the next one where that is over and may be followed."""
        number = await self._newest_number(session)
        while True:
            self._newest[session] = number
            feed = self._feeds.run_feed(session[0], self._task_id(session, number))
            await feed.refresh()
            if feed.is_open and not self._is_superseded(session, feed):
                _refuse_full(feed)
                return feed
            if feed.is_open:
                self._ends.mark_superseded(feed)
            elif not feed.is_over:
                await self._open_run(feed, caller, parsed_call)
                return feed
            else:
                self._refuse_next(session, feed)
            number = min(number + 1, MAX_RUNS)

    def _is_superseded(self, session: Session, feed: RunFeed) -> bool:
        """True when the next run takes this one's place: a session without a name goes on for ever, a run does not.
        The calls that it has begun have the last quarter of its time. One that is held back is not stepped over.
        """
        left_ms, whole_ms = feed.deadline_unix_ms - self._context.clock(), feed.deadline_unix_ms - feed.opened_unix_ms
        return not (session[2] or hold_failure(feed)) and (left_ms * 4 < whole_ms or len(feed.calls) >= MAX_CALLS)

    def _refuse_next(self, session: Session, feed: RunFeed) -> None:
        """Raise why no run may follow yet one that is over: nobody steps over a ceiling by asking again."""
        now_ms = self._context.clock()
        if feed.rejected is not None:
            if now_ms - feed.last_unix_ms < REJECTED_AGAIN_MS:
                raise refusals.of_rejection(feed.rejected)
            return
        assert feed.ended is not None
        if feed.assigned is None:
            return  # It left the queue, and never had a place.
        failure = feed.ended.failure
        late = failure is not None and failure.code == "deadline_exceeded" and bool(session[2])
        if not (late or feed.ended.status in STOPPED or hold_failure(feed)):
            return
        again_ms = feed.last_unix_ms + round(self._settings.idle_s * 1000) - now_ms
        if again_ms > 0:
            raise refusals.of_end(feed.task, feed.ended, again_ms / 1000)

    async def _newest_number(self, session: Session) -> int:
        """The number of a session's newest run; 1 where there is none. Raises BusError."""
        if (number := self._newest.get_refreshed(session)) is not None:
            return number
        last, beyond = 0, 1
        while beyond < MAX_RUNS and await self._run_exists(session, beyond):
            last, beyond = beyond, beyond * 2
        while beyond - last > 1:
            middle = (last + beyond) // 2
            last, beyond = (middle, beyond) if await self._run_exists(session, middle) else (last, middle)
        return max(1, last)

    async def _run_exists(self, session: Session, number: int) -> bool:
        of_run = subjects.task_filter(SERVICE, session[0], self._task_id(session, number))
        return bool(await self._context.bus.read(INBOX, of_run, limit=1))

    def _task_id(self, session: Session, number: int) -> str:
        # Keyed, so that nobody else can compute an id to come.
        parts = (part.encode() for part in (*session, str(number)))
        joined = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return f"{SERVICE}-{hashlib.blake2b(joined, digest_size=16, key=self._id_key).hexdigest()}"

    # Opening

    async def _open_run(self, feed: RunFeed, caller: Caller, parsed_call: ParsedModelCall) -> None:
        """Ask for the task and wait until its step is here. Raises DoorRefusal, BusError."""
        claim, task = caller.claim, feed.task
        body = TaskRequested(
            objective=_objective_of(parsed_call),
            limits=self._task_limits(caller),
            check=False,
            plan=Plan(steps=(_adopted_step(caller, await self._tools.list_names(claim)),)),
            requester=claim,
            feature=_clean_tag(caller.feature),
            workflow=_clean_tag(caller.workflow),
            replan="none",
            voucher=await self._fetch_voucher(caller, task),
        )
        traceparent = caller.traceparent if _TRACEPARENT.fullmatch(caller.traceparent) else ""
        try:
            async with asyncio.timeout(self._settings.open_wait_s):
                ack = await self._context.publisher.send(
                    "gateway",
                    body,
                    tenant=claim.tenant,
                    task=task,
                    index=f"request/{task}",
                    actor=claim.person,
                    traceparent=traceparent,
                    expect_last_on_subject=0,
                )
            opened = not ack.duplicate
        except WrongLastSequence:
            opened = False  # It was asked for before, by another replica perhaps; the mesh has not come to it yet.
        except TimeoutError as error:
            raise refusals.mesh_unavailable("the message broker has not stored the run in time") from error
        log.info("run_asked_for", tenant=claim.tenant, task=task)
        wait_s = self._settings.open_wait_s
        with self._places.waiting_for(feed, opened=opened) as place:
            if not await self._feeds.wait_until(feed, lambda: feed.is_open or feed.is_over, wait_s):
                raise self._places.refuse_waiting(feed, place)
        if feed.rejected is not None:
            raise refusals.of_rejection(feed.rejected)
        if feed.ended is not None and feed.assigned is None:
            raise refusals.mesh_unavailable(f"run {task} has left the queue", retry_after_s=1.0)
        if feed.ended is not None:
            raise refusals.of_end(task, feed.ended, self._settings.idle_s)

    def _task_limits(self, caller: Caller) -> TaskLimits:
        """The tenant's, or narrower by the caller's wish."""
        self._quotas.reload_if_changed()
        most = self._quotas.max_task_limits(caller.claim.tenant)
        deadline_ms = min(most.deadline_ms, round(self._settings.run_deadline_s * 1000))
        return TaskLimits(
            cost_usd_micros=_lower_limit(most.cost_usd_micros, caller.limit_usd_micros),
            tokens=_lower_limit(most.tokens, caller.limit_tokens),
            deadline_ms=max(1, _lower_limit(deadline_ms, caller.deadline_ms)),
            approval_wait_ms=0,
        )

    async def _fetch_voucher(self, caller: Caller, task: str) -> str:
        """The signer's word that it saw the caller's own token; "" for who has none. Raises DoorRefusal."""
        try:
            reply = await request_voucher(self._context, caller.claim, caller.token, task)
        except (BusUnavailable, RpcRefused) as error:
            raise refusals.mesh_unavailable("the signer, which vouches for who asks, does not answer") from error
        if (failure := reply.failure) is not None:
            raise DoorRefusal(403, failure.code, failure.message, failure.hint)
        return reply.voucher


def session_of(caller: Caller, parsed_call: ParsedModelCall) -> Session:
    """The session that a call belongs to, by the first of these that it names."""
    trace = _TRACEPARENT.fullmatch(caller.traceparent)
    named = (("run", caller.run), ("session", parsed_call.session), ("trace", trace.group(1) if trace else ""))
    name = next((f"{kind}/{text}" for kind, text in named if text), "")
    return caller.claim.tenant, caller.claim.person, name


def _adopted_step(caller: Caller, tools: tuple[str, ...]) -> PlanStep:
    """The plan's one step: the outside agent, under a name that a role can have."""
    role = re.sub(r"[^a-z0-9_]", "_", caller.agent.lower())[:32]
    if not re.match(r"[a-z]", role):
        role = "outside"
    title = f"What {caller.agent[:64] or role} does"
    instruction = "Carried out outside."
    return PlanStep(id=STEP, title=title, instruction=instruction, kind="noop", role=role, adopted=True, tools=tools)


def _objective_of(parsed_call: ParsedModelCall) -> str:
    """The first words of a person in the conversation."""
    first = next((message for message in parsed_call.messages if message.get("role") == "user"), {})
    content = first.get("content")
    if isinstance(content, list):
        parts = (part.get("text", "") for part in content if isinstance(part, dict))
        content = " ".join(part for part in parts if isinstance(part, str))
    text = content[: 2 * MAX_OBJECTIVE_CHARS] if isinstance(content, str) else ""
    # The gateway takes no control characters, and an agent's first words may be the output of a terminal.
    kinds = [(char, unicodedata.category(char)) for char in text]
    readable = any(kind[0] not in "CZ" for _, kind in kinds)
    cleaned = "".join(" " if kind in ("Cc", "Cs") and char not in LAYOUT else char for char, kind in kinds).strip()
    return cleaned[:MAX_OBJECTIVE_CHARS] if readable else "A run of an outside agent"


def _clean_tag(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[: bounds.MAX_NAME_CHARS]


def _lower_limit(most: int, wished: int | None) -> int:
    return most if wished is None else min(most, wished)


def _refuse_full(feed: RunFeed) -> None:
    if len(feed.calls) >= MAX_CALLS:
        message = f"run {feed.task} has {MAX_CALLS} calls, and may have no more"
        raise DoorRefusal(403, "run_is_full", message, "name another run (X-Bulkhead-Run)")
