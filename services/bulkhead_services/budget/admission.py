"""Admission: every call asks before it is made.

In: ReserveRequested (rpc). Out: ReserveReplied, and before it the `Reserved` fact; to AllowanceRequested (rpc) what is
left under the same limits. An ask passes three steps in order, and an AdmissionRefusal of any of them is the answer:

    verify    the grant under which the task may spend            -> AdmissionRequest
    hold      the amount in every account of the ledger, or none  -> ReservationFact
    record    the fact in the journal                             -> `reserved`

A task that meets its ceiling waits there or ends. Admission never waits for a rebuild of the ledger: it
answers `wait`.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from bulkhead.bus.port import BusError
from bulkhead.grants import GrantRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.telemetry import trace
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.bounds import MAX_REASON_CHARS, UNLIMITED
from bulkhead_contracts.budget import AllowanceReplied, ReserveReplied, ReserveRequested
from bulkhead_contracts.control import Halt
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.retrieval import AHEAD_CALL_ID_PREFIX
from bulkhead_services.budget.ledger import facts, model
from bulkhead_services.budget.ledger.account_cache import ScopeCache
from bulkhead_services.budget.ledger.accounts import Limits
from bulkhead_services.budget.ledger.journal_writer import FactAppender, ReservationFact
from bulkhead_services.budget.ledger.model import (
    MetCeiling,
    ReservationConflict,
    ReservationDenied,
    ReservationHeld,
    ReservationStopped,
    ReservationWaiting,
    ReserveAnswer,
    StaleLimits,
    UnitSums,
)
from bulkhead_services.budget.ledger.rebuild import LedgerKeeper
from bulkhead_services.budget.ledger.store import QUICK_ADMISSION_S, Fenced, LedgerStore, RedisFailure
from bulkhead_services.budget.ledger.uncertain_holds import UncertainHolds
from bulkhead_services.budget.limits import messages
from bulkhead_services.budget.limits.ceiling_pause import CeilingPause
from bulkhead_services.budget.limits.task_halts import TaskHaltPublisher
from bulkhead_services.budget.limits.tenant_limits import TenantLimitsRegistry
from bulkhead_services.budget.settlement_reader import SettlementReader

log = Log("budget")

MAX_KNOWN_GRANTS = 1_024
"""Tokens of the steps that run now; a grant takes some 4 KiB."""
MIN_WALL_MS = 1_000
"""A call that a limit of wall time admits has so long at least: in less it could do nothing."""
MARGIN = 10
"""What is held in an account must fit so often into what it has left, for calls that only probably follow."""
AHEAD_MS = 60_000
"""So long at most a doer keeps what is held for these; a lowered limit comes as late for them."""
TRIES = 2
"""The ledger is asked again once, when a tenant's limits have changed or were not looked at for a while."""


class VerifiedGrant(NamedTuple):
    """A token's grants. expires_unix_ms: of the grant or of its step, whichever is earlier."""

    grant: TaskGrant
    step: StepGrant | None
    expires_unix_ms: int


class AdmissionRequest(NamedTuple):
    """An ask on its way. received_s, received_unix_ms: when it came, by the loop's clock and by the service's."""

    message: ReceivedMessage
    body: ReserveRequested
    grant: TaskGrant
    epoch: str
    key: str
    amount: UnitSums
    received_s: float
    received_unix_ms: int

    def key_of(self, fact: ReservationFact) -> str:
        """Key in the ledger of what is held for this ask."""
        return model.entry_key(fact.service, fact.tenant, fact.task, fact.ask.reservation_id)


class AdmissionRefusal(NamedTuple):
    """Why an ask is not admitted now (`wait`) or at all. scope: the account in the way. doubtful: it may be held all
    the same. halt: the task's, which waits for it to be lifted. ended: the task is over."""

    decision: Literal["wait", "refused"]
    reason: str
    scope: str = ""
    doubtful: bool = False
    halt: Halt | None = None
    ended: bool = False


class ReservationAdmission:
    """Answers asks: verify, hold, record, answer."""

    def __init__(
        self,
        context: Context,
        store: LedgerStore,
        keeper: LedgerKeeper,
        limits: TenantLimitsRegistry,
        parking: CeilingPause,
        halts: TaskHaltPublisher,
        uncertain: UncertainHolds,
        reader: SettlementReader,
        *,
        mesh_day: UnitSums,
        retry_after_ms: int,
        lease_ms: int,
    ) -> None:
        self._clock, self._verifier = context.clock, context.verifier
        self._store, self._keeper, self._limits = store, keeper, limits
        self._parking, self._halts, self._uncertain, self._reader = parking, halts, uncertain, reader
        self._retry_after_ms, self._lease_ms = retry_after_ms, lease_ms
        self._scopes = ScopeCache(mesh_day)
        self._writer = FactAppender(context.publisher)
        self._grants: OrderedDict[tuple[str, str, str], VerifiedGrant] = OrderedDict()

    async def admit(self, message: ReceivedMessage) -> ReserveReplied:
        """Answer one ask."""
        body = message.body
        assert isinstance(body, ReserveRequested)
        request = self._verify_request(message, body)
        if isinstance(request, AdmissionRefusal):
            return self._reply_refused(body, request)
        fact = await self._hold_amount(request)
        if isinstance(fact, AdmissionRefusal):
            return self._reply_refused(body, fact)
        self._reader.on_admitted(message.sender)
        wall_ms, ahead = await self._wall_left(fact), len(fact.ahead)
        reply = ReserveReplied(
            reservation_id=body.reservation_id,
            decision="reserved",
            wall_ms=wall_ms,
            ahead=ahead,
            ahead_ms=min(AHEAD_MS, self._lease_ms // 4) if ahead else 0,
        )
        refusal = await self._record_fact(request, fact, reply)
        return self._reply_refused(body, refusal) if refusal is not None else reply

    async def answer_allowance(self, message: ReceivedMessage) -> AllowanceReplied:
        """The least that is left under the limits which stand now."""
        verified, now_unix_ms = self._verify_grant(message), self._clock()
        if isinstance(verified, AdmissionRefusal):
            return AllowanceReplied()
        step = verified.step
        try:
            await self._limits.newest_revision(message.tenant)
            revision, limits = await self._limits.last_read_limits(message.tenant)
            scopes = self._scopes.scopes_for(
                message.envelope.grant,
                verified.grant,
                now_unix_ms,
                step_id=step.step_id if step is not None else "",
                agent=f"{message.sender}.{step.role}" if step is not None and step.role else message.sender,
                limits=limits,
                revision=revision.number,
            )
            balances = await asyncio.gather(*(self._store.read_balance(scope.name) for scope in scopes))
        except (BusError, Fenced, *RedisFailure) as error:
            log.debug("allowance_unknown", task=message.task, reason=str(error))
            return AllowanceReplied()
        return AllowanceReplied(
            known=True,
            tokens=model.least_left(scopes, balances, "tokens"),
            cost_usd_micros=model.least_left(scopes, balances, "cost_usd_micros"),
        )

    def _verify_grant(self, message: ReceivedMessage) -> VerifiedGrant | AdmissionRefusal:
        """The grants of a message. Signatures are checked once per token: they cost more than all the rest."""
        now_unix_ms = self._clock()
        cache_key = (message.envelope.grant, message.tenant, message.task)
        verified = self._grants.get(cache_key)
        if verified is None or now_unix_ms >= verified.expires_unix_ms:
            try:
                authority = self._verifier.verify_authority(
                    message.envelope.grant, tenant=message.tenant, task=message.task, now_unix_ms=now_unix_ms
                )
            except GrantRefused as error:
                log.warning("grant_refused", code=error.code, sender=message.sender, task=message.task)
                reason = f"{error}. Nothing was halted; submit the task again for a new grant."
                return AdmissionRefusal("refused", reason)
            verified = self._grants[cache_key] = VerifiedGrant(
                authority.task, authority.step, authority.expires_unix_ms
            )
            if len(self._grants) > MAX_KNOWN_GRANTS:
                self._grants.popitem(last=False)
        self._grants.move_to_end(cache_key)
        return verified

    def _verify_request(self, message: ReceivedMessage, body: ReserveRequested) -> AdmissionRequest | AdmissionRefusal:
        """The ask with its verified grant."""
        received_s, now_unix_ms = asyncio.get_running_loop().time(), self._clock()
        verified = self._verify_grant(message)
        if isinstance(verified, AdmissionRefusal):
            return verified
        epoch = self._keeper.epoch
        if not epoch:
            return AdmissionRefusal("wait", f"budget admits nothing now: {self._keeper.reason}")
        key = model.entry_key(message.sender, message.tenant, message.task, body.reservation_id)
        return AdmissionRequest(
            message, body, verified.grant, epoch, key, model.sum_of(body.worst_case), received_s, now_unix_ms
        )

    async def _hold_amount(self, request: AdmissionRequest) -> ReservationFact | AdmissionRefusal:
        """Hold the amount in every account or in none, under the limits that stand now; the fact that tells it."""
        message, now_unix_ms = request.message, request.received_unix_ms
        fact: ReservationFact | None = None
        try:
            for _ in range(TRIES):
                revision, limits = await self._limits.last_read_limits(message.tenant)
                fact = self._make_facts(request, limits, revision.number)
                if fact.bounds_time and not await self._reader.read_all():
                    return AdmissionRefusal("wait", "it cannot be read now how long the calls before took")
                self._writer.schedule_if_idle(self._writer.prepare_ahead, fact)
                answer, *ahead = await asyncio.gather(
                    self._store.reserve(request.key, request.amount, fact.held.scopes, now_unix_ms, revision),
                    *(
                        self._store.reserve(
                            request.key_of(row),
                            model.sum_of(row.ask.worst_case),
                            row.held.scopes,
                            now_unix_ms,
                            revision,
                            MARGIN,
                        )
                        for row in fact.ahead
                    ),
                )
                if not isinstance(answer, StaleLimits):
                    break
                await self._limits.reread_limits(message.tenant, now_unix_ms)
            assert fact is not None
            held_fact = await self._keep_held(request, fact, (answer, *ahead))
        except BusError as error:
            return AdmissionRefusal("wait", f"the tenant's limits cannot be read: {error}")
        except (Fenced, *RedisFailure) as error:
            # It may be held all the same, and the asker may end before it settles that.
            self._add_uncertain(request, fact)
            return self._refuse_lost_ledger(error)
        if isinstance(answer, ReservationHeld):
            return held_fact
        return await self._refuse_not_held(request, answer)

    def _make_facts(self, request: AdmissionRequest, limits: Limits, revision: int) -> ReservationFact:
        """The fact of an ask, as if all of it were held on the terms of now; with those of the calls that follow."""
        message, body = request.message, request.body

        def make_fact(ask: ReserveRequested, index: str) -> ReservationFact:
            scopes = self._scopes.scopes_for(
                message.envelope.grant,
                request.grant,
                request.received_unix_ms,
                step_id=ask.step_id,
                agent=ask.agent or message.sender,
                limits=limits,
                revision=revision,
            )
            return ReservationFact(
                message.tenant,
                message.task,
                message.sender,
                ask,
                ReservationHeld(scopes, request.received_unix_ms),
                facts.cause_of(ask.reservation_id, request.epoch),
                index,
                message.envelope.actor,
                message.envelope.grant_digest,
                trace.current_traceparent(),
            )

        fact = make_fact(body, f"reserved/{message.sender}/{message.tenant}/{message.task}")
        if not subjects.is_of_doors(message.task):
            asks = enumerate((facts.ask_ahead(body, number) for number in range(1, len(body.ahead) + 1)), 1)
            fact.ahead = tuple(make_fact(ask, f"{fact.index}/{number}") for number, ask in asks)
        if any(row.bounds_time for row in (fact, *fact.ahead)):
            fact.ahead = ()  # Nobody reserves time: a limit of it knows only the calls that were made.
        return fact

    async def _keep_held(
        self, request: AdmissionRequest, fact: ReservationFact, answers: Sequence[ReserveAnswer]
    ) -> ReservationFact:
        """The fact of what is held, without a gap: what is held behind one is given back. Raises Fenced,
        RedisFailure."""
        held_facts: list[ReservationFact] = []
        for number, (row, answer) in enumerate(zip((fact, *fact.ahead), answers, strict=True)):
            if isinstance(answer, ReservationHeld) and number == len(held_facts):
                held_facts.append(row if answer == row.held else replace(row, held=answer, ready=None))
            elif isinstance(answer, ReservationHeld):
                await self._store.release(request.key_of(row))
        first, *others = held_facts or (fact,)
        ahead = tuple(others)
        return first if first.ahead == ahead else replace(first, ahead=ahead, ready=None)

    def _add_uncertain(self, request: AdmissionRequest, fact: ReservationFact | None) -> None:
        """Remember what may be held although nobody is told so."""
        for row in (fact, *fact.ahead) if fact is not None else ():
            self._uncertain.add_attempt(request.key_of(row), request.message, row.ask.reservation_id)

    async def _wall_left(self, fact: ReservationFact) -> int:
        """The least that a limit of wall time leaves to a call, in milliseconds; 0 where none bounds it."""
        if not fact.bounds_time:
            return 0
        scopes = [scope for scope in fact.held.scopes if scope.limit.wall_ms < UNLIMITED]
        try:
            balances = [await self._store.read_balance(scope.name) for scope in scopes]
        except (Fenced, *RedisFailure) as error:
            log.debug("wall_unknown", task=fact.task, reason=str(error))
            return 0  # Where the ledger is lost, the next step says so.
        return max(MIN_WALL_MS, model.least_left(scopes, balances, "wall_ms") or 0)

    async def _refuse_not_held(
        self,
        request: AdmissionRequest,
        answer: ReservationDenied | ReservationWaiting | ReservationStopped | StaleLimits | ReservationConflict,
    ) -> AdmissionRefusal:
        """Refusal that an answer of the ledger which holds nothing means for the asker."""
        match answer:
            case ReservationDenied(ceiling):
                self._reader.on_no_room()
                return await self._refuse_at_ceiling(request, ceiling)
            case ReservationWaiting(ceiling):
                self._reader.on_no_room()
                return AdmissionRefusal("wait", messages.waiting_text(ceiling), ceiling.scope)
            case ReservationStopped(scope):
                reason = f"Task {request.message.task} has ended: no other call of it is paid for. Ask in another task."
                return AdmissionRefusal("refused", reason, scope, ended=True)
            case StaleLimits():
                return AdmissionRefusal("wait", "the tenant's limits were changed just now")
            case ReservationConflict(settled=True):
                # Refusing would end the task: a doer that may not act defers, and its next try has an id of its own.
                log.warning("reservation_settled", key=request.key)
                reason = "This reservation is settled: its call was made and paid. Ask for another call under a new id."
                return AdmissionRefusal("wait", reason)
            case ReservationConflict(held):
                log.warning("reservation_conflict", key=request.key)
                return AdmissionRefusal("refused", messages.conflict_text(request.amount, held))

    async def _record_fact(
        self, request: AdmissionRequest, fact: ReservationFact, reply: ReserveReplied
    ) -> AdmissionRefusal | None:
        """Store the fact before the answer; an answer counts only in the ledger that holds the money."""
        key = request.key
        attempted_before = key in self._uncertain.attempts
        self._writer.schedule_if_idle(request.message.prepare, reply)
        try:
            await self._writer.store_fact(fact)
        except BusError as error:
            log.warning("fact_not_appended", key=key, reason=str(error))
            # It may be stored all the same: released now and found by the next rebuild, its money would be held twice.
            self._add_uncertain(request, fact)
            return AdmissionRefusal("wait", f"the journal does not take the reservation: {error}", doubtful=True)
        # By both clocks: the loop's may stand still while something runs in it, the other one may be set.
        waited_s = asyncio.get_running_loop().time() - request.received_s
        quick = max(waited_s, (self._clock() - request.received_unix_ms) / 1000) < QUICK_ADMISSION_S
        try:
            if self._store.epoch != request.epoch:
                raise Fenced("the ledger was built anew meanwhile")
            # A rebuild that began meanwhile may have read the journal before this fact was in it: then this is fenced.
            # An earlier attempt of this id may have been released before the fact was there. Neither happens to a quick
            # admission: a rebuild rests longer, and an uncertain hold longer than anybody asks for one id.
            for row in (fact, *fact.ahead) if attempted_before or not quick else ():
                if not await self._store.is_held_or_settled(row_key := request.key_of(row)):
                    amount = model.sum_of(row.ask.worst_case)
                    await self._store.restore(row_key, amount, row.held.scopes, row.held.at_unix_ms)
        except (Fenced, *RedisFailure) as error:
            return self._refuse_lost_ledger(error)
        return None

    async def _refuse_at_ceiling(self, request: AdmissionRequest, ceiling: MetCeiling) -> AdmissionRefusal:
        """Park or end the task: its halt stands before the answer."""
        message, body, grant = request.message, request.body, request.grant
        if subjects.is_of_doors(message.task) and ceiling.scope.startswith("task:") and ceiling.asked > ceiling.limit:
            # No pause helps such a call, and others of its agent may well fit.
            return AdmissionRefusal("refused", messages.beyond_limit_text(ceiling, message.task), ceiling.scope)
        reason = messages.denied_text(ceiling)
        if body.call_id.startswith(AHEAD_CALL_ID_PREFIX):
            # Its step may never ask: whether the task stops is for that call.
            return AdmissionRefusal("refused", f"{reason} Nothing was halted.", ceiling.scope)
        try:
            if self._parking.should_park(message.envelope):
                if await self._parking.is_ceiling_raised(body, body.agent or message.sender, grant, ceiling):
                    return AdmissionRefusal("wait", "the limits were raised since this was refused", ceiling.scope)
                halt = await self._parking.park_task(message.tenant, message.task, ceiling, grant.expires_unix_ms)
                if halt is not None:
                    return AdmissionRefusal("refused", halt.reason, ceiling.scope, halt=halt)
            await self._halts.end_task(message, ceiling, reason)
        except (Fenced, *RedisFailure) as error:
            return self._refuse_lost_ledger(error)
        except BusError as error:
            # Asked again, it is refused again: the halt must not get lost.
            log.error("halt_not_published", task=message.task, reason=str(error))
            return AdmissionRefusal("wait", f"the halt could not be published: {error}", ceiling.scope)
        return AdmissionRefusal("refused", reason, ceiling.scope)

    def _refuse_lost_ledger(self, error: Exception) -> AdmissionRefusal:
        """The ledger did not answer as it must: it is verified or rebuilt before anything else is admitted."""
        self._keeper.mark_lost(str(error) or type(error).__name__)
        return AdmissionRefusal("wait", "budget admits nothing now: its ledger is being verified", doubtful=True)

    def _reply_refused(self, body: ReserveRequested, refusal: AdmissionRefusal) -> ReserveReplied:
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
