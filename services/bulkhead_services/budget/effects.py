"""Budget acts: admissions are answered, settlements charged, halts published.

In: ReserveRequested (rpc), Settled (inbox). Out: ReserveReplied; the `Reserved` fact before it; on a ceiling
`TaskHalted` to the planner and a halt in the control entries, which cuts streams in flight.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from bulkhead.bus.port import BusError
from bulkhead.grants import Authority, GrantRefused
from bulkhead.runtime.background import cancel
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import Edge, Received, RpcTable
from bulkhead.runtime.errors import HandBack
from bulkhead.telemetry.log import Log
from bulkhead_contracts import envelope, subjects
from bulkhead_contracts.budget import (
    LimitsRequested,
    Reserved,
    ReserveReplied,
    ReserveRequested,
    Settled,
    SpendRequested,
    TaskHalted,
    TopUpRequested,
)
from bulkhead_contracts.control import Halt, HaltRequested, ResetRequested
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import TaskStopped
from bulkhead_contracts.tool import WritesRequested
from bulkhead_services.budget.ledger import facts, model
from bulkhead_services.budget.ledger.account_cache import ScopeBook
from bulkhead_services.budget.ledger.accounts import task_scope
from bulkhead_services.budget.ledger.checkpoint import Checkpointer
from bulkhead_services.budget.ledger.fact_lookup import find_fact, settled_before
from bulkhead_services.budget.ledger.journal_writer import Appender, Fact
from bulkhead_services.budget.ledger.model import (
    NO_LIMIT,
    Answer,
    Balance,
    Ceiling,
    Conflict,
    Denied,
    Held,
    Settlement,
    Stale,
    Waiting,
)
from bulkhead_services.budget.ledger.rebuild import Keeper
from bulkhead_services.budget.ledger.store import QUICK_S, Fenced, RedisFailure, Store
from bulkhead_services.budget.limits import messages
from bulkhead_services.budget.limits.alerts import Alerts
from bulkhead_services.budget.limits.ceiling_pause import Parking
from bulkhead_services.budget.limits.tenant_limits import LimitBook
from bulkhead_services.budget.queries.halts import Switches
from bulkhead_services.budget.queries.spending import SpendBook
from bulkhead_services.budget.queries.uncertain_writes import WriteBook
from bulkhead_services.budget.settings import Settings
from bulkhead_services.budget.watch.watcher import Watcher

log = Log("budget")

MAX_KNOWN_GRANTS = 4_096
CLOCKS_MS = 5_000
"""So far the clocks of a doer and of this service may be apart: a call that was admitted under earlier limits is judged
by the next admission, under those that hold now."""
DOUBT_S = 30.0
"""Twice as long as a doer asks for one reservation (its patience and its requests' timeouts, 12 s at most): whoever
holds one has its fact in the journal by then."""


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """A fact that was made before it was known whether it is one: it counts for the very ask, on the terms foreseen."""

    message: Received
    epoch: str
    held: Held
    fact: Fact

    def of(self, message: Received, epoch: str, held: Held) -> bool:
        return self.message is message and (self.epoch, self.held) == (epoch, held)


class Budget(Edge):
    """The edge. Admission never waits for a rebuild: it answers `wait`."""

    def __init__(self, context: Context, settings: Settings, store: Store) -> None:
        self._context = context
        self._retry_after_ms = settings.retry_after_ms
        self._always_look = settings.beside_previous
        self._store = store
        self._background = context.background
        self.keeper = Keeper(
            context.bus,
            context.publisher,
            store,
            context.clock,
            lease_ms=settings.lease_ms,
            keep_ms=settings.keep_ms,
            rebuild_at_start=settings.rebuild_at_start,
            tail_grace_s=settings.tail_grace_s,
        )
        watches = settings.watch == "on" or (settings.watch == "auto" and not settings.in_memory)
        self.watcher = (
            Watcher(
                context.bus,
                context.publisher,
                store,
                context.clock,
                self._publish_halt,
                lost=self.keeper.lose,
                holder=context.instance,
                interval_s=settings.watch_interval_s,
                halts=settings.watch_halts,
                thresholds=settings.thresholds,
                message_key=context.message_key,
            )
            if watches
            else None
        )
        self._appender = Appender(context.publisher, alone=settings.beside_previous)
        self._foreseen: _Foreseen | None = None
        self._grants: OrderedDict[tuple[str, str, str], Authority] = OrderedDict()
        self._doubts: dict[str, list[tuple[float, int, Received, ReserveRequested]]] = {}
        self._tidying: list[asyncio.Task[None]] = []
        self.checkpoints = Checkpointer(
            context.bus,
            context.publisher,
            store,
            context.clock,
            self.keeper.fold_on,
            holder=context.instance,
            lease_ms=settings.lease_ms,
            keep_ms=settings.keep_ms,
            every_s=settings.checkpoint_s,
            messages=settings.checkpoint_messages,
        )
        self.alerts = Alerts(context.bus, context.publisher, store, context.clock)
        self.limits = LimitBook(context.bus, context.publisher, store, context.clock, self.keeper.lose)
        self.parking = Parking(
            context.bus, context.publisher, self.limits, context.clock, parks=settings.ceiling == "wait"
        )
        self.limits.on_change = self.parking.lift_all
        self._scopes = ScopeBook(
            NO_LIMIT._replace(tokens=settings.mesh_day_tokens, cost_usd_micros=settings.mesh_day_cost_usd_micros)
        )
        self.rpc: RpcTable = {
            ReserveRequested: self.admit,
            LimitsRequested: self.limits.answer,
            TopUpRequested: self.limits.top_up,
            SpendRequested: SpendBook(context.bus, context.clock).answer,
            WritesRequested: WriteBook(context.bus).answer,
            HaltRequested: Switches(context).answer,
            ResetRequested: Switches(context).reset,
        }

    async def start(self) -> None:
        """Begin to build the ledger; admissions answer `wait` until it stands."""
        start = self._background.start
        self.keeper.start(self._background)
        self._tidying = [start("tidying", self._tidy()), start("checkpoints", self.checkpoints.run())]
        if self.watcher is not None:
            self.watcher.start(self._background)

    async def stop(self) -> None:
        """Close what was opened."""
        if self.watcher is not None:
            await self.watcher.stop()
        await cancel(*self._tidying)
        await self.checkpoints.resign()
        await self.keeper.stop()
        await self._store.close()

    def ready(self) -> bool:
        """Whether the ledger stands."""
        return bool(self.keeper.epoch)

    def degraded(self) -> str:
        """What of it does not work while admissions go on; "" when nothing."""
        return self.watcher.aside.degraded if self.watcher is not None else ""

    # Admission

    async def admit(self, message: Received) -> ReserveReplied:
        """Answer one ask. The order: grant, Redis (all scopes or none), journal, Redis again if that took long."""
        asked = self._moment()
        body = message.body
        assert isinstance(body, ReserveRequested)
        try:
            authority = self._authority(message)
        except GrantRefused as refusal:
            log.warning("grant_refused", code=refusal.code, sender=message.sender, task=message.task)
            return _refused(body, f"{refusal}. Nothing was halted; submit the task again for a new grant.")
        epoch = self.keeper.epoch
        if not epoch:
            return self._wait(body, f"budget admits nothing now: {self.keeper.reason}")
        key = model.entry_key(message.sender, message.tenant, message.task, body.reservation_id)
        ask = model.sum_of(body.worst_case)
        now = self._context.clock()
        try:
            answer = await self._ask(message, body, authority, epoch, key, now)
        except BusError as error:
            return self._wait(body, f"the tenant's limits cannot be read: {error}")
        except (Fenced, *RedisFailure) as error:
            # It may be held all the same, and who asks may end before it settles that.
            self._doubts.setdefault(key, []).append((*self._moment(), message, body))
            return self._lost(body, error)
        match answer:
            case Held():
                return await self._held(message, body, epoch, key, answer, asked)
            case Denied(ceiling):
                return await self._denied(message, body, ceiling)
            case Waiting(ceiling):
                return self._wait(body, messages.waiting(ceiling), ceiling.scope)
            case Stale():
                return self._wait(body, "the tenant's limits were changed just now")
            case Conflict(settled=True):
                # Not a refusal, which would end the task: a doer that may not act defers, and the next try has an id
                # of its own.
                log.warning("reservation_settled", key=key)
                return self._wait(body, messages.spent())
            case Conflict(held):
                log.warning("reservation_conflict", key=key)
                return _refused(body, messages.conflict(ask, held))

    async def _ask(
        self, message: Received, body: ReserveRequested, authority: Authority, epoch: str, key: str, now: int
    ) -> Answer:
        """Hold it in every account, under the limits that hold now. Raises BusError, Fenced, RedisFailure."""
        answer: Answer = Stale(0)
        for _ in range(2):
            revision, limits = await self.limits.of(message.tenant)
            scopes = self._scopes.of(
                message.envelope.grant,
                authority.task,
                now,
                step_id=body.step_id,
                agent=body.agent or message.sender,
                limits=limits,
                revision=revision.number,
            )
            if self._appender.idle:
                _meanwhile(self._foresee, message, body, epoch, Held(scopes, now))
            answer = await self._store.reserve(key, model.sum_of(body.worst_case), scopes, now, revision)
            if not isinstance(answer, Stale):
                break
            await self.limits.renew(message.tenant, now)
        return answer

    def _foresee(self, message: Received, body: ReserveRequested, epoch: str, held: Held) -> None:
        """Most asks are held: the fact of this one is made while the ledger is asked."""
        self._foreseen = _Foreseen(message, epoch, held, self._appender.made(_fact(message, body, held, epoch)))

    def _authority(self, message: Received) -> Authority:
        """The verified grant. Signatures are checked once per token: they cost more than the rest of an admission."""
        token, now = message.envelope.grant, self._context.clock()
        name = (token, message.tenant, message.task)
        known = self._grants.get(name)
        if known is not None and now < min(one.expires_unix_ms for one in (known.task, known.step) if one is not None):
            self._grants.move_to_end(name)
            return known
        found = self._context.verifier.authority(token, tenant=message.tenant, task=message.task, now_unix_ms=now)
        self._grants[name] = found
        while len(self._grants) > MAX_KNOWN_GRANTS:
            self._grants.popitem(last=False)
        return found

    async def _held(
        self, message: Received, body: ReserveRequested, epoch: str, key: str, held: Held, asked: tuple[float, int]
    ) -> ReserveReplied:
        """The fact is stored before the answer; an answer counts only in the ledger that holds the money."""
        doubted, reply = key in self._doubts, ReserveReplied(reservation_id=body.reservation_id, decision="reserved")
        if self._appender.idle:
            _meanwhile(message.prepare, reply)
        try:
            await self._append(message, body, held, epoch)
        except BusError as error:
            log.warning("fact_not_appended", key=key, reason=str(error))
            await self._release(key, message, body)
            # It may be stored all the same, and is found by the next rebuild then.
            return self._wait(body, f"the journal does not take the reservation: {error}", doubtful=True)
        try:
            if self._store.epoch != epoch:
                raise Fenced("the ledger was built anew meanwhile")
            # A rebuild that began meanwhile may have read the journal before this fact was in it: then this is fenced.
            # And whoever doubted an earlier attempt of this id may have let it go before the fact was there. Neither is
            # so where it went quickly: a rebuild rests longer, and a doubt for longer than anybody asks for one id.
            if (doubted or not self._quick(asked)) and not await self._store.holds(key):
                await self._store.restore(key, model.sum_of(body.worst_case), held.scopes, held.at_unix_ms)
        except (Fenced, *RedisFailure) as error:
            return self._lost(body, error)
        return reply

    def _moment(self) -> tuple[float, int]:
        return asyncio.get_running_loop().time(), self._context.clock()

    def _quick(self, asked: tuple[float, int]) -> bool:
        """By both clocks: the loop's may stand still while something runs in it, the other one may be set."""
        began_s, began_ms = asked
        now_s, now_ms = self._moment()
        return not self._always_look and max(now_s - began_s, (now_ms - began_ms) / 1000) < QUICK_S

    async def _append(self, message: Received, body: ReserveRequested, held: Held, epoch: str) -> None:
        foreseen, self._foreseen = self._foreseen, None
        fact = foreseen.fact if foreseen is not None and foreseen.of(message, epoch, held) else None
        await self._appender.store(fact or _fact(message, body, held, epoch))

    async def _release(self, key: str, message: Received, body: ReserveRequested) -> None:
        try:
            await self._store.release(key)
        except (Fenced, *RedisFailure) as error:
            self._doubts.setdefault(key, []).append((*self._moment(), message, body))
            self.keeper.lose(str(error))

    async def _denied(self, message: Received, body: ReserveRequested, ceiling: Ceiling) -> ReserveReplied:
        reason = messages.denied(ceiling)
        try:
            if self.parking.waits(message.envelope):
                grant = self._authority(message).task
                if await self.parking.raised(body, body.agent or message.sender, grant, ceiling):
                    return self._wait(body, "the limits were raised since this was refused", ceiling.scope)
                halt = await self.parking.park(message.tenant, message.task, ceiling, grant.expires_unix_ms)
                if halt is not None:
                    return _refused(body, halt.reason, ceiling.scope, halt)
            await self._halt(message, ceiling, reason)
            await self._stop(message)
        except (Fenced, *RedisFailure) as error:
            return self._lost(body, error)
        except BusError as error:
            # Asked again, it is refused again: the halt must not get lost.
            log.error("halt_not_published", task=message.task, reason=str(error))
            return self._wait(body, f"the halt could not be published: {error}", ceiling.scope)
        return _refused(body, reason, ceiling.scope)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(DOUBT_S / 2)
            await self.let_go()
            await self.parking.look()

    async def let_go(self) -> None:
        """Release what may be held and has no fact although its time is over: nobody was told that it holds."""
        for key, doubts in list(self._doubts.items()):
            # By the loop's clock: the other one may be set, and whoever asks may have no fact yet.
            asked_s, _, message, body = doubts[-1]
            since, now_s = doubts[0][1], asyncio.get_running_loop().time()
            if now_s - asked_s < DOUBT_S or not self.keeper.epoch:
                continue
            try:
                fact = await self._find(message, body.reservation_id, since)
                if fact is None:
                    # Each of them may hold it: as many let go.
                    for _ in doubts:
                        await self._store.release(key)
                    # An admission that took long, here or in another replica, may have its fact just now.
                    fact = await self._find(message, body.reservation_id, since)
                    if fact is not None:
                        scopes = model.scopes_from((*fact.scopes, *fact.more_scopes))
                        await self._store.restore(key, model.sum_of(fact.amount), scopes, fact.reserved_unix_ms)
            except (BusError, Fenced, *RedisFailure) as error:
                log.debug("doubt_stays", key=key, reason=str(error))
                continue
            if self._doubts.get(key) is doubts:
                del self._doubts[key]

    def _lost(self, body: ReserveRequested, error: Exception) -> ReserveReplied:
        self.keeper.lose(str(error) or type(error).__name__)
        return self._wait(body, "budget admits nothing now: its ledger is being verified", doubtful=True)

    def _wait(self, body: ReserveRequested, reason: str, scope: str = "", *, doubtful: bool = False) -> ReserveReplied:
        return ReserveReplied(
            reservation_id=body.reservation_id,
            decision="wait",
            scope=scope,
            reason=reason[:2000],
            retry_after_ms=self._retry_after_ms,
            doubtful=doubtful,
        )

    # Settlement

    async def handle(self, message: Received) -> None:
        """Charge what a call used. Raises HandBack while there is no ledger or no bus."""
        body = message.body
        if isinstance(body, TaskStopped):
            await self._stopped(message, body)
            return
        if not isinstance(body, Settled):
            return
        if not self.keeper.epoch:
            raise HandBack(0.5, f"no ledger: {self.keeper.reason}")
        key = model.entry_key(message.sender, message.tenant, message.task, body.reservation_id)
        try:
            settlement = await self._store.settle(key, model.used(body.usage, body.wall_ms), body.estimated)
            if settlement.kind == "unknown":
                settlement = await self._look_up(message, body, key)
            if settlement.ceiling is not None and self.parking.waits(message.envelope):
                since = message.time_unix_ms - body.wall_ms - CLOCKS_MS
                if not self.limits.changed_since(message.tenant, since):
                    await self.parking.park(message.tenant, message.task, settlement.ceiling)
                if settlement.stopped is not None:
                    await self._tell_charge(message, settlement.stopped)
            elif settlement.ceiling is not None:
                await self._halt(message, settlement.ceiling, messages.exceeded(settlement.ceiling))
                await self._stop(message)
            elif settlement.stopped is not None:
                await self._tell_charge(message, settlement.stopped)
            await self.alerts.settled(message, body, settlement)
        except (Fenced, *RedisFailure) as error:
            self.keeper.lose(str(error) or type(error).__name__)
            raise HandBack(0.5, f"the ledger does not answer: {error}") from error
        except BusError as error:
            raise HandBack(0.5, f"the broker does not answer: {error}") from error

    async def _look_up(self, message: Received, body: Settled, key: str) -> Settlement:
        """The ledger does not know the reservation; the journal has the last word on whether it was one."""
        fact = await self._find(message, body.reservation_id, message.time_unix_ms - body.wall_ms)
        if fact is None:
            # Settled with nothing by who gave up asking: it never came to be.
            given_up = body.usage == Usage() and not body.estimated
            (log.debug if given_up else log.warning)("settled_without_reservation", key=key)
            return Settlement("unknown")
        if await settled_before(
            self._context.bus, message.tenant, message.task, message.sender, body.reservation_id, message.sequence
        ):
            return Settlement("repeated")  # Charged long ago, and forgotten since then.
        scopes = model.scopes_from((*fact.scopes, *fact.more_scopes))
        return await self._store.restore(key, model.sum_of(fact.amount), scopes, fact.reserved_unix_ms)

    async def _find(self, message: Received, reservation_id: str, since_unix_ms: int) -> Reserved | None:
        """Raises BusError."""
        return await find_fact(
            self._context.bus, message.tenant, message.task, message.sender, reservation_id, since_unix_ms
        )

    # Halts

    async def _stopped(self, message: Received, body: TaskStopped) -> None:
        """The planner ended the task early: what is in flight for it is cut, nothing more is admitted by doers."""
        halt = Halt(
            scope="task",
            tenant=message.tenant,
            name=message.task,
            code=body.code,
            reason=body.reason,
            by=message.sender,
        )
        try:
            await self._publish_halt(halt, f"stopped/{message.envelope.id}")
        except BusError as error:
            raise HandBack(0.5, f"the broker does not answer: {error}") from error
        if not self.keeper.epoch:
            raise HandBack(0.5, f"no ledger: {self.keeper.reason}")
        try:
            await self._stop(message)
        except (Fenced, *RedisFailure) as error:
            self.keeper.lose(str(error) or type(error).__name__)
            raise HandBack(0.5, f"the ledger does not answer: {error}") from error
        except BusError as error:
            raise HandBack(0.5, f"the broker does not answer: {error}") from error

    async def _stop(self, message: Received) -> None:
        """From now on every settlement of the task is told. Raises BusError, Fenced, RedisFailure."""
        await self._tell_charge(message, await self._store.stop(task_scope(message.tenant, message.task)))

    async def _tell_charge(self, message: Received, balance: Balance) -> None:
        """To whoever shows the task: what it has cost by now, all of its calls. Raises BusError."""
        await self._context.publisher.send(
            "gateway",
            facts.charged(balance),
            tenant=message.tenant,
            task=message.task,
            cause=message.envelope.id,
            index="charged",
            actor=message.envelope.actor,
        )

    async def _publish_halt(self, halt: Halt, index: str) -> None:
        await self._context.bus.publish(
            subjects.control_key(halt.scope, halt.tenant, halt.name),
            halt.model_dump_json().encode(),
            {"content-type": envelope.CONTENT_TYPE},
            envelope.message_id(self._context.message_key, index),
        )

    async def _halt(self, message: Received, ceiling: Ceiling, reason: str) -> None:
        """Live and durable at once: doers cut their streams, the planner ends the task. Raises BusError."""
        log.warning("task_halted", tenant=message.tenant, task=message.task, scope=ceiling.scope, reason=reason)
        halt = Halt(
            scope="task",
            tenant=message.tenant,
            name=message.task,
            code=messages.CODE,
            reason=reason,
            by=self._context.service,
        )
        halted = TaskHalted(code=messages.CODE, reason=reason, scope=ceiling.scope)
        done = await asyncio.gather(
            self._publish_halt(halt, f"halt/{message.envelope.id}"),
            self._context.publisher.send(
                "planner",
                halted,
                tenant=message.tenant,
                task=message.task,
                cause=message.envelope.id,
                index="halted",
                actor=message.envelope.actor,
                grant_digest=message.envelope.grant_digest,
            ),
            return_exceptions=True,
        )
        for one in done:
            if isinstance(one, BaseException):
                raise one


def _meanwhile(make: Callable[..., None], *what: object) -> None:
    """In the turn after the next one: what the caller is about to wait for is on its way by then."""
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, make, *what)


def _fact(message: Received, body: ReserveRequested, held: Held, epoch: str) -> Fact:
    head, index = message.envelope, f"reserved/{message.sender}/{message.tenant}/{message.task}"
    return Fact(
        message.tenant,
        message.task,
        facts.reserved(message.sender, body, held),
        facts.cause_of(body.reservation_id, epoch),
        index,
        head.actor,
        head.grant_digest,
    )


def _refused(body: ReserveRequested, reason: str, scope: str = "", halt: Halt | None = None) -> ReserveReplied:
    """halt: the task waits for it to be lifted."""
    return ReserveReplied(
        reservation_id=body.reservation_id,
        decision="refused",
        scope=scope,
        reason=reason[:2000],
        pauses=halt is not None,
        halted_unix_ms=halt.at_unix_ms if halt is not None else 0,
    )
