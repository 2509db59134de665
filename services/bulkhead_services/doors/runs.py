"""Runs of outside agents: which one a call belongs to; it is opened, or found again. Each is a task.

In: callers. Out: `TaskRequested` to the gateway, the feed of an open run. The id of a run derives from its caller, its
session and a number, so that every replica finds it without asking anybody; a session's runs are numbered from 1, and
its newest one is the one that counts.
"""

import asyncio
import hashlib
import re
import unicodedata

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusUnavailable, WrongLastSequence
from bulkhead.callers.step_keys import StepKey
from bulkhead.callers.vouchers import vouched
from bulkhead.grants import GrantRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead.telemetry.log import Log
from bulkhead.tenant_quotas import TenantQuotas
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.task import TaskLimits, TaskRequested
from bulkhead_services.doors import refusals
from bulkhead_services.doors.ends import Ends, held_by
from bulkhead_services.doors.feed import INBOX, MAX_CALLS, SERVICE, Feed, Feeds
from bulkhead_services.doors.mcp.granted import GrantedTools
from bulkhead_services.doors.port import Asked, Caller, Refusal
from bulkhead_services.doors.settings import Settings
from bulkhead_services.doors.steps.handover import HandOvers

MAX_SESSIONS = 10_000
"""Sessions whose newest run is remembered; that of another is looked up."""
MAX_RUNS = 2**20
"""Of one session."""
MAX_OBJECTIVE_CHARS = 500
LAYOUT = "\t\n\v\f\r"
STEP = "agent"
STOPPED = ("halted", "cancelled")
"""Ends by a ceiling, a halt or a person: no other run follows at once."""
REJECTED_AGAIN_MS = 5_000
"""A session whose run was rejected opens the next one after so long, and tells the old reason till then."""
log = Log("doors.runs")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

Session = tuple[str, str, str]
"""Tenant, person, name of the session; its name is "" where one run follows another by time alone."""


class Runs:
    """Finds and opens runs."""

    def __init__(
        self, context: Context, settings: Settings, feeds: Feeds, ends: Ends, tools: GrantedTools, steps: HandOvers
    ) -> None:
        self._context, self._settings, self._feeds, self._ends = context, settings, feeds, ends
        self._tools, self._steps = tools, steps
        self._quotas = TenantQuotas(settings.tenants_file)
        self._newest = BoundedDict[Session, int](MAX_SESSIONS)
        self._finding: dict[Session, asyncio.Task[Feed]] = {}
        self._id_key = hashlib.blake2b(context.message_key, digest_size=32, person=b"bulkhead-runs").digest()

    # Which run

    async def known(self, caller: Caller, asked: Asked) -> Feed | None:
        """The run that a call belongs to as it stands, without opening one. Raises Refusal, BusError."""
        if caller.step is not None:
            return await self._steps.held(caller.step)
        if caller.task:
            return await self.own(caller, caller.task)
        session = session_of(caller, asked)
        feed = self._feeds.feed(session[0], self._task(session, await self._number(session)))
        await feed.refresh()
        return feed if feed.assigned is not None else None

    async def lately(self, caller: Caller, asked: Asked) -> tuple[Feed, ...]:
        """The newest run that a call could belong to and the one before it, open or not. Raises Refusal, BusError."""
        if caller.step is not None:
            return (await self._steps.held(caller.step),)
        if caller.task:
            return (await self.own(caller, caller.task),)
        session = session_of(caller, asked)
        number = await self._number(session)
        feeds = [self._feeds.feed(session[0], self._task(session, at)) for at in (number, number - 1) if at >= 1]
        for feed in feeds:
            await feed.refresh()
        return tuple(feed for feed in feeds if feed.assigned is not None)

    async def current(self, caller: Caller, asked: Asked) -> Feed:
        """The open run, or the delegated step, that a call belongs to. Raises Refusal, BusError."""
        if caller.step is not None:
            return await self._steps.held(caller.step)
        feed = await self._current(caller, asked)
        self._check_limits(feed, caller)
        return feed

    def _check_limits(self, feed: Feed, caller: Caller) -> None:
        """Refuse a limit that a run which was open already does not have: nobody may believe in it. Raises Refusal."""
        if caller.limit_usd_micros is None and caller.limit_tokens is None:
            return
        now = self._context.clock()
        try:
            grant = self._context.verifier.authority(feed.grant, tenant=feed.tenant, task=feed.task, now_unix_ms=now)
        except GrantRefused:
            return  # Its time is over, and the model gateway says so.
        limits = grant.task.limits
        for name, wished, has in (
            ("X-Bulkhead-Limit-Usd", caller.limit_usd_micros, limits.cost_usd_micros),
            ("X-Bulkhead-Limit-Tokens", caller.limit_tokens, limits.tokens),
        ):
            if wished is not None and wished < has:
                what = f"{name} is lower than the limit with which run {feed.task} began"
                hint = "name a run of its own (X-Bulkhead-Run), or leave the limit out"
                raise Refusal(400, "limit_too_late", what, hint, field=name)

    async def _current(self, caller: Caller, asked: Asked) -> Feed:
        if caller.task:
            feed = await self._named(caller)
            self._ends.used(feed)
            return feed
        session = session_of(caller, asked)
        if (number := self._newest.use(session)) is not None:
            feed = self._feeds.feed(session[0], self._task(session, number))
            await feed.refresh()
            if feed.is_open and not self._passes(session, feed):
                _refuse_full(feed)
                self._ends.used(feed)
                return feed
        finding = self._finding.get(session)
        if finding is None:
            finding = self._finding[session] = asyncio.create_task(self._find(session, caller, asked))
            finding.add_done_callback(lambda done: self._found(session, done))
        feed = await asyncio.shield(finding)
        self._ends.used(feed)
        return feed

    def _found(self, session: Session, finding: "asyncio.Task[Feed]") -> None:
        del self._finding[session]
        if not finding.cancelled():
            finding.exception()  # All who waited for it may have gone.

    async def own(self, caller: Caller, task: str) -> Feed:
        """A run of this caller by its id, open or not. Raises Refusal, BusError."""
        if caller.step is not None:
            # A response is gone on from within its step alone; no run is the holder's to end.
            return await self._of_step(caller.step, task)
        try:
            subjects.token(task)
        except subjects.SubjectError:
            raise refusals.no_such_run(task[: bounds.MAX_NAME_CHARS]) from None
        feed = self._feeds.feed(caller.claim.tenant, task)
        await feed.refresh()
        if feed.assigned is None or feed.actor != caller.claim.person:
            raise refusals.no_such_run(task)
        return feed

    async def _of_step(self, key: StepKey, task: str) -> Feed:
        if key.task != task:
            raise refusals.no_such_run(task)
        return await self._steps.held(key)

    async def _named(self, caller: Caller) -> Feed:
        feed = await self.own(caller, caller.task)
        if feed.ended is not None:
            raise refusals.of_end(feed.task, feed.ended, 0)
        _refuse_full(feed)
        return feed

    async def _find(self, session: Session, caller: Caller, asked: Asked) -> Feed:
        """The newest run of a session, or the next one where that is over and may be followed."""
        number = await self._number(session)
        while True:
            self._newest[session] = number
            feed = self._feeds.feed(session[0], self._task(session, number))
            await feed.refresh()
            if feed.is_open and not self._passes(session, feed):
                _refuse_full(feed)
                return feed
            if feed.is_open:
                self._ends.leave(feed)
            elif not feed.over:
                await self._open(feed, caller, asked)
                return feed
            else:
                self._refuse_next(session, feed)
            number = min(number + 1, MAX_RUNS)

    def _passes(self, session: Session, feed: Feed) -> bool:
        """Whether the next run takes this one's place: a session without a name goes on for ever, a run does not. The
        calls that it has begun have the last quarter of its time. One that is held back is not stepped over."""
        left_ms, whole_ms = feed.deadline_unix_ms - self._context.clock(), feed.deadline_unix_ms - feed.opened_unix_ms
        return not (session[2] or held_by(feed)) and (left_ms * 4 < whole_ms or len(feed.calls) >= MAX_CALLS)

    def _refuse_next(self, session: Session, feed: Feed) -> None:
        """Raise why no run may follow yet one that is over: nobody steps over a ceiling by asking again."""
        now = self._context.clock()
        if feed.rejected is not None:
            if now - feed.last_unix_ms < REJECTED_AGAIN_MS:
                raise refusals.of_rejection(feed.rejected)
            return
        assert feed.ended is not None
        failure = feed.ended.failure
        late = failure is not None and failure.code == "deadline_exceeded" and bool(session[2])
        if not (late or feed.ended.status in STOPPED or held_by(feed)):
            return
        again_ms = feed.last_unix_ms + round(self._settings.idle_s * 1000) - now
        if again_ms > 0:
            raise refusals.of_end(feed.task, feed.ended, again_ms / 1000)

    async def _number(self, session: Session) -> int:
        """The number of a session's newest run; 1 where there is none. Raises BusError."""
        if (number := self._newest.use(session)) is not None:
            return number
        last, beyond = 0, 1
        while beyond < MAX_RUNS and await self._exists(session, beyond):
            last, beyond = beyond, beyond * 2
        while beyond - last > 1:
            middle = (last + beyond) // 2
            last, beyond = (middle, beyond) if await self._exists(session, middle) else (last, middle)
        return max(1, last)

    async def _exists(self, session: Session, number: int) -> bool:
        of_run = subjects.task_filter(SERVICE, session[0], self._task(session, number))
        return bool(await self._context.bus.read(INBOX, of_run, limit=1))

    def _task(self, session: Session, number: int) -> str:
        # Keyed, so that nobody else can compute an id to come.
        parts = (part.encode() for part in (*session, str(number)))
        joined = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return f"{SERVICE}-{hashlib.blake2b(joined, digest_size=16, key=self._id_key).hexdigest()}"

    # Opening

    async def _open(self, feed: Feed, caller: Caller, asked: Asked) -> None:
        """Ask for the task and wait until its step is here. Raises Refusal, BusError."""
        claim, task = caller.claim, feed.task
        body = TaskRequested(
            objective=_objective(asked),
            limits=self._limits(caller),
            check=False,
            plan=Plan(steps=(_step(caller, await self._tools.names(claim)),)),
            requester=claim,
            feature=_tag(caller.feature),
            workflow=_tag(caller.workflow),
            replan="none",
            voucher=await self._voucher(caller, task),
        )
        traceparent = caller.traceparent if _TRACEPARENT.fullmatch(caller.traceparent) else ""
        try:
            async with asyncio.timeout(self._settings.open_wait_s):
                await self._context.publisher.send(
                    "gateway",
                    body,
                    tenant=claim.tenant,
                    task=task,
                    index=f"request/{task}",
                    actor=claim.person,
                    traceparent=traceparent,
                    expect_last_on_subject=0,
                )
        except WrongLastSequence:
            pass  # It was asked for before, by another replica perhaps, and the mesh has not come to it yet.
        except TimeoutError as error:
            raise refusals.unavailable("the message broker has not stored the run in time") from error
        log.info("run_asked_for", tenant=claim.tenant, task=task)
        wait_s = self._settings.open_wait_s
        if not await self._feeds.until(feed, lambda: feed.is_open or feed.over, wait_s):
            what = f"run {task} is asked for and has not begun after {wait_s:g} s"
            raise refusals.unavailable(what, "it waits for a place, or a part of the mesh is away: ask again")
        if feed.rejected is not None:
            raise refusals.of_rejection(feed.rejected)
        if feed.ended is not None:
            raise refusals.of_end(task, feed.ended, self._settings.idle_s)

    def _limits(self, caller: Caller) -> TaskLimits:
        """The tenant's, or narrower by the caller's wish."""
        self._quotas.look()
        most = self._quotas.most(caller.claim.tenant)
        deadline_ms = min(most.deadline_ms, round(self._settings.run_deadline_s * 1000))
        return TaskLimits(
            cost_usd_micros=_least(most.cost_usd_micros, caller.limit_usd_micros),
            tokens=_least(most.tokens, caller.limit_tokens),
            deadline_ms=max(1, _least(deadline_ms, caller.deadline_ms)),
            approval_wait_ms=0,
        )

    async def _voucher(self, caller: Caller, task: str) -> str:
        """The signer's word that it saw the caller's own token; "" for who has none. Raises Refusal."""
        try:
            reply = await vouched(self._context, caller.claim, caller.token, task)
        except (BusUnavailable, RpcRefused) as error:
            raise refusals.unavailable("the signer, which vouches for who asks, does not answer") from error
        if (failure := reply.failure) is not None:
            raise Refusal(403, failure.code, failure.message, failure.hint)
        return reply.voucher


def session_of(caller: Caller, asked: Asked) -> Session:
    """The session that a call belongs to, by the first of these that it names."""
    trace = _TRACEPARENT.fullmatch(caller.traceparent)
    named = (("run", caller.run), ("session", asked.session), ("trace", trace.group(1) if trace else ""))
    name = next((f"{kind}/{text}" for kind, text in named if text), "")
    return caller.claim.tenant, caller.claim.person, name


def _step(caller: Caller, tools: tuple[str, ...]) -> PlanStep:
    """The plan's one step: the outside agent, under a name that a role can have."""
    role = re.sub(r"[^a-z0-9_]", "_", caller.agent.lower())[:32]
    if not re.match(r"[a-z]", role):
        role = "outside"
    title = f"What {caller.agent[:64] or role} does"
    said = "Carried out outside."
    return PlanStep(id=STEP, title=title, instruction=said, kind="noop", role=role, adopted=True, tools=tools)


def _objective(asked: Asked) -> str:
    """The first words of a person in the conversation."""
    first = next((message for message in asked.messages if message.get("role") == "user"), {})
    content = first.get("content")
    if isinstance(content, list):
        parts = (part.get("text", "") for part in content if isinstance(part, dict))
        content = " ".join(part for part in parts if isinstance(part, str))
    text = content[: 2 * MAX_OBJECTIVE_CHARS] if isinstance(content, str) else ""
    # The gateway takes no control characters, and an agent's first words may be the output of a terminal.
    kinds = [(char, unicodedata.category(char)) for char in text]
    readable = any(kind[0] not in "CZ" for _, kind in kinds)
    said = "".join(" " if kind in ("Cc", "Cs") and char not in LAYOUT else char for char, kind in kinds).strip()
    return said[:MAX_OBJECTIVE_CHARS] if readable else "A run of an outside agent"


def _tag(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[: bounds.MAX_NAME_CHARS]


def _least(most: int, wished: int | None) -> int:
    return most if wished is None else min(most, wished)


def _refuse_full(feed: Feed) -> None:
    if len(feed.calls) >= MAX_CALLS:
        what = f"run {feed.task} has {MAX_CALLS} calls, and may have no more"
        raise Refusal(403, "run_is_full", what, "name another run (X-Bulkhead-Run)")
