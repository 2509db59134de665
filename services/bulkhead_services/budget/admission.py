"""Admission: every call asks before it is made.

In: ReserveRequested (rpc). Out: ReserveReplied, and before it the `Reserved` fact. An ask passes three steps in order,
and a Refusal of any of them is the answer:

    verify    the grant under which the task may spend            -> Request
    hold      the amount in every account of the ledger, or none  -> Fact
    record    the fact in the journal                             -> `reserved`

A task that meets its ceiling waits there or ends. Admission never waits for a rebuild of the ledger: it answers `wait`.
"""

import asyncio
from collections import OrderedDict
from dataclasses import replace
from typing import Literal, NamedTuple

from bulkhead.bus.port import BusError
from bulkhead.grants import GrantRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import Received
from bulkhead.telemetry import trace
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.bounds import MAX_REASON_CHARS
from bulkhead_contracts.budget import ReserveReplied, ReserveRequested
from bulkhead_contracts.control import Halt
from bulkhead_contracts.grant import TaskGrant
from bulkhead_services.budget.ledger import facts, model
from bulkhead_services.budget.ledger.account_cache import ScopeBook
from bulkhead_services.budget.ledger.journal_writer import Appender, Fact
from bulkhead_services.budget.ledger.model import Ceiling, Conflict, Denied, Held, Stale, Stopped, Sum, Waiting
from bulkhead_services.budget.ledger.rebuild import Keeper
from bulkhead_services.budget.ledger.store import QUICK_S, Fenced, RedisFailure, Store
from bulkhead_services.budget.ledger.uncertain_holds import UncertainHolds
from bulkhead_services.budget.limits import messages
from bulkhead_services.budget.limits.ceiling_pause import Parking
from bulkhead_services.budget.limits.task_halts import TaskHalts
from bulkhead_services.budget.limits.tenant_limits import LimitBook

log = Log("budget")

MAX_KNOWN_GRANTS = 1_024
"""Tokens of the steps that run now; a grant takes some 4 KiB."""
TRIES = 2
"""The ledger is asked again once, when a tenant's limits have changed or were not looked at for a while."""


class Verified(NamedTuple):
    """A token's grant. expires_unix_ms: of the grant or of its step, whichever is earlier."""

    grant: TaskGrant
    expires_unix_ms: int


class Request(NamedTuple):
    """An ask on its way. asked_s, asked_unix_ms: when it came, by the loop's clock and by the service's."""

    message: Received
    body: ReserveRequested
    grant: TaskGrant
    epoch: str
    key: str
    amount: Sum
    asked_s: float
    asked_unix_ms: int


class Refusal(NamedTuple):
    """Why an ask is not admitted now (`wait`) or at all. scope: the account in the way. doubtful: it may be held all
    the same. halt: the task's, which waits for it to be lifted. ended: the task is over."""

    decision: Literal["wait", "refused"]
    reason: str
    scope: str = ""
    doubtful: bool = False
    halt: Halt | None = None
    ended: bool = False


class Admission:
    """Answers asks: verify, hold, record, answer."""

    def __init__(
        self,
        context: Context,
        store: Store,
        keeper: Keeper,
        limits: LimitBook,
        parking: Parking,
        halts: TaskHalts,
        uncertain: UncertainHolds,
        *,
        mesh_day: Sum,
        retry_after_ms: int,
    ) -> None:
        self._clock, self._verifier = context.clock, context.verifier
        self._store, self._keeper, self._limits = store, keeper, limits
        self._parking, self._halts, self._uncertain = parking, halts, uncertain
        self._retry_after_ms = retry_after_ms
        self._scopes = ScopeBook(mesh_day)
        self._writer = Appender(context.publisher)
        self._grants: OrderedDict[tuple[str, str, str], Verified] = OrderedDict()

    async def admit(self, message: Received) -> ReserveReplied:
        """Answer one ask."""
        body = message.body
        assert isinstance(body, ReserveRequested)
        request = self._verify(message, body)
        if isinstance(request, Refusal):
            return self._replied(body, request)
        fact = await self._hold(request)
        if isinstance(fact, Refusal):
            return self._replied(body, fact)
        reply = ReserveReplied(reservation_id=body.reservation_id, decision="reserved")
        refusal = await self._record(request, fact, reply)
        return self._replied(body, refusal) if refusal is not None else reply

    def _verify(self, message: Received, body: ReserveRequested) -> Request | Refusal:
        """The ask with its verified grant. Signatures are checked once per token: they cost more than all the rest."""
        asked_s, now = asyncio.get_running_loop().time(), self._clock()
        name = (message.envelope.grant, message.tenant, message.task)
        known = self._grants.get(name)
        if known is None or now >= known.expires_unix_ms:
            try:
                authority = self._verifier.authority(
                    message.envelope.grant, tenant=message.tenant, task=message.task, now_unix_ms=now
                )
            except GrantRefused as error:
                log.warning("grant_refused", code=error.code, sender=message.sender, task=message.task)
                return Refusal("refused", messages.grant_refused(error))
            grants = (authority.task, authority.step) if authority.step is not None else (authority.task,)
            known = self._grants[name] = Verified(authority.task, min(grant.expires_unix_ms for grant in grants))
            if len(self._grants) > MAX_KNOWN_GRANTS:
                self._grants.popitem(last=False)
        self._grants.move_to_end(name)
        epoch = self._keeper.epoch
        if not epoch:
            return Refusal("wait", messages.no_ledger(self._keeper.reason))
        key = model.entry_key(message.sender, message.tenant, message.task, body.reservation_id)
        return Request(message, body, known.grant, epoch, key, model.sum_of(body.worst_case), asked_s, now)

    async def _hold(self, request: Request) -> Fact | Refusal:
        """Hold the amount in every account or in none, under the limits that stand now; the fact that tells it."""
        message, body, now = request.message, request.body, request.asked_unix_ms
        try:
            for _ in range(TRIES):
                revision, limits = await self._limits.of(message.tenant)
                scopes = self._scopes.of(
                    message.envelope.grant,
                    request.grant,
                    now,
                    step_id=body.step_id,
                    agent=body.agent or message.sender,
                    limits=limits,
                    revision=revision.number,
                )
                expected = Held(scopes, now)
                fact = Fact(
                    message.tenant,
                    message.task,
                    message.sender,
                    body,
                    expected,
                    facts.cause_of(body.reservation_id, request.epoch),
                    f"reserved/{message.sender}/{message.tenant}/{message.task}",
                    message.envelope.actor,
                    message.envelope.grant_digest,
                    trace.current_traceparent(),
                )
                self._writer.meanwhile(self._writer.prepare, fact)
                answer = await self._store.reserve(request.key, request.amount, scopes, now, revision)
                if not isinstance(answer, Stale):
                    break
                await self._limits.renew(message.tenant, now)
        except BusError as error:
            return Refusal("wait", messages.limits_unread(error))
        except (Fenced, *RedisFailure) as error:
            # It may be held all the same, and the asker may end before it settles that.
            self._uncertain.add(request.key, message, body.reservation_id)
            return self._lost(error)
        if answer == expected:
            return fact
        if isinstance(answer, Held):
            return replace(fact, held=answer, ready=None)
        return await self._not_held(request, answer)

    async def _not_held(self, request: Request, answer: Denied | Waiting | Stopped | Stale | Conflict) -> Refusal:
        """What an answer of the ledger that holds nothing means for the asker."""
        match answer:
            case Denied(ceiling):
                return await self._at_ceiling(request, ceiling)
            case Waiting(ceiling):
                return Refusal("wait", messages.waiting(ceiling), ceiling.scope)
            case Stopped(scope):
                return Refusal("refused", messages.ended(request.message.task), scope, ended=True)
            case Stale():
                return Refusal("wait", messages.limits_changed())
            case Conflict(settled=True):
                # Refusing would end the task: a doer that may not act defers, and its next try has an id of its own.
                log.warning("reservation_settled", key=request.key)
                return Refusal("wait", messages.spent())
            case Conflict(held):
                log.warning("reservation_conflict", key=request.key)
                return Refusal("refused", messages.conflict(request.amount, held))

    async def _record(self, request: Request, fact: Fact, reply: ReserveReplied) -> Refusal | None:
        """Store the fact before the answer; an answer counts only in the ledger that holds the money."""
        key = request.key
        attempted_before = key in self._uncertain.attempts
        self._writer.meanwhile(request.message.prepare, reply)
        try:
            await self._writer.store(fact)
        except BusError as error:
            log.warning("fact_not_appended", key=key, reason=str(error))
            # It may be stored all the same: released now and found by the next rebuild, its money would be held twice.
            self._uncertain.add(key, request.message, request.body.reservation_id)
            return Refusal("wait", messages.fact_not_stored(error), doubtful=True)
        # By both clocks: the loop's may stand still while something runs in it, the other one may be set.
        waited_s = asyncio.get_running_loop().time() - request.asked_s
        quick = max(waited_s, (self._clock() - request.asked_unix_ms) / 1000) < QUICK_S
        try:
            if self._store.epoch != request.epoch:
                raise Fenced("the ledger was built anew meanwhile")
            # A rebuild that began meanwhile may have read the journal before this fact was in it: then this is fenced.
            # An earlier attempt of this id may have been released before the fact was there. Neither happens to a quick
            # admission: a rebuild rests longer, and an uncertain hold longer than anybody asks for one id.
            if (attempted_before or not quick) and not await self._store.holds(key):
                await self._store.restore(key, request.amount, fact.held.scopes, fact.held.at_unix_ms)
        except (Fenced, *RedisFailure) as error:
            return self._lost(error)
        return None

    async def _at_ceiling(self, request: Request, ceiling: Ceiling) -> Refusal:
        """Park or end the task: its halt stands before the answer."""
        message, body, grant = request.message, request.body, request.grant
        if subjects.is_of_doors(message.task) and ceiling.scope.startswith("task:") and ceiling.asked > ceiling.limit:
            # No pause helps such a call, and others of its agent may well fit.
            return Refusal("refused", messages.beyond(ceiling, message.task), ceiling.scope)
        reason = messages.denied(ceiling)
        try:
            if self._parking.waits(message.envelope):
                if await self._parking.raised(body, body.agent or message.sender, grant, ceiling):
                    return Refusal("wait", messages.limits_raised(), ceiling.scope)
                halt = await self._parking.park(message.tenant, message.task, ceiling, grant.expires_unix_ms)
                if halt is not None:
                    return Refusal("refused", halt.reason, ceiling.scope, halt=halt)
            await self._halts.end(message, ceiling, reason)
        except (Fenced, *RedisFailure) as error:
            return self._lost(error)
        except BusError as error:
            # Asked again, it is refused again: the halt must not get lost.
            log.error("halt_not_published", task=message.task, reason=str(error))
            return Refusal("wait", messages.halt_not_published(error), ceiling.scope)
        return Refusal("refused", reason, ceiling.scope)

    def _lost(self, error: Exception) -> Refusal:
        """The ledger did not answer as it must: it is verified or rebuilt before anything else is admitted."""
        self._keeper.lose(str(error) or type(error).__name__)
        return Refusal("wait", messages.ledger_verified(), doubtful=True)

    def _replied(self, body: ReserveRequested, refusal: Refusal) -> ReserveReplied:
        waits, halt = refusal.decision == "wait", refusal.halt
        return ReserveReplied(
            reservation_id=body.reservation_id,
            decision=refusal.decision,
            scope=refusal.scope,
            reason=refusal.reason[:MAX_REASON_CHARS],
            retry_after_ms=self._retry_after_ms if waits else 0,
            doubtful=refusal.doubtful,
            pauses=halt is not None,
            halted_unix_ms=halt.at_unix_ms if halt is not None else 0,
            ended=refusal.ended,
        )
