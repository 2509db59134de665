"""Halts and resets of breakers that a tenant's people ask for: judged here, for the gateway faces the internet and may
set none itself.

In: HaltRequested, ResetRequested (rpc, from the gateway, which established who asks). Out: the control entry, the fact,
HaltReplied, ResetReplied.
"""

from bulkhead.bus.port import BusError
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.halts.operator import HaltRequest, change_of, find_repeat, judge_reset, reset_breaker, switch_halt
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.control import Breaker, HaltReplied, HaltRequested, ResetReplied, ResetRequested
from bulkhead_contracts.result import Failure

log = Log("budget.switches")

OPERATORS = frozenset({"operator"})


class HaltRequestHandler:
    """A tenant's operators halt what is their tenant's."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def answer_halt(self, message: ReceivedMessage) -> HaltReplied:
        """Do it, or say why not."""
        body = message.body
        assert isinstance(body, HaltRequested)
        if (refusal := check_requester(body, message.tenant)) is not None:
            return HaltReplied(failure=refusal)
        who, tenant = body.requester, message.tenant
        full_name = _full_name(body)
        owner, by, now_unix_ms = (
            "" if body.scope == "tenant" else tenant,
            f"{tenant}/{who.person}",
            self._context.clock(),
        )
        change, name = change_of(message.envelope.id, f"{body.active} {body.reason}"), full_name or body.name
        request = HaltRequest(
            body.scope, owner, name, body.active, body.reason, by, now_unix_ms, change, exact=bool(full_name)
        )
        try:
            halt = await switch_halt(self._context.bus, self._context.publisher, request)
        except BusError as error:
            log.error("halt_not_stored", scope=body.scope, tenant=tenant, reason=str(error))
            halt = _broker_unavailable(error, "halts")
        if isinstance(halt, Failure):
            return HaltReplied(failure=halt)
        log_fields = halt.model_dump(include={"scope", "by", "reason"}) | {"name": halt.known_as, "tenant": tenant}
        log.warning("halted" if halt.active else "resumed", **log_fields)
        return HaltReplied(halt=halt)

    async def answer_reset(self, message: ReceivedMessage) -> ResetReplied:
        """Close a breaker of the tenant's, or say why not."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, ResetRequested)
        if (refusal := check_requester(body, tenant)) is not None:
            return ResetReplied(failure=refusal)
        try:
            breaker = await self._reset_breaker(body, tenant, change_of(message.envelope.id, body.reason))
        except BusError as error:
            log.error("reset_not_stored", scope=body.scope, tenant=tenant, reason=str(error))
            breaker = _broker_unavailable(error, "breakers")
        if isinstance(breaker, Failure):
            return ResetReplied(failure=breaker)
        log_fields = {"scope": breaker.scope, "name": breaker.known_as, "tenant": tenant, "by": breaker.by}
        log.warning("breaker_reset", **log_fields, reason=body.reason)
        return ResetReplied(breaker=breaker)

    async def _reset_breaker(self, body: ResetRequested, tenant: str, change: str) -> Breaker | Failure:
        bus, person = self._context.bus, body.requester.person
        full_name = _full_name(body) or body.name
        owner = "" if body.scope == "tenant" else tenant
        breaker = await self._read_breaker(subjects.breaker_key(body.scope, owner, full_name))
        if full_name != body.name and (breaker is None or breaker.phase == "closed"):
            # One that a budget of the version before opened is known by its token alone.
            token_breaker = await self._read_breaker(subjects.breaker_key(body.scope, owner, body.name))
            breaker = (
                token_breaker
                if token_breaker is not None and not token_breaker.called and token_breaker.phase != "closed"
                else breaker
            )
        if (closed_before := find_repeat(breaker, change)) is not None:
            return closed_before
        failure = judge_reset(breaker, f"{body.scope}:{full_name}", person)
        if failure is not None or breaker is None:
            return failure or Failure.from_text("not_open", "it is not there", "")
        publisher, now_unix_ms = self._context.publisher, self._context.clock()
        closed = await reset_breaker(bus, publisher, breaker, f"{tenant}/{person}", now_unix_ms, body.reason, change)
        reason = f"{body.scope}:{full_name} has changed meanwhile"
        return closed or Failure.from_text("busy", reason, "look at `bulkhead breakers`, then try again")

    async def _read_breaker(self, key: str) -> Breaker | None:
        stored = await self._context.bus.last(subjects.CONTROL_STREAM, key)
        return Breaker.model_validate_json(stored.body) if stored is not None else None


def _broker_unavailable(error: BusError, kind: str) -> Failure:
    return Failure.from_text(
        "unavailable", f"the broker does not answer: {error}", f"look at the {kind}, then try again"
    )


def _full_name(body: HaltRequested | ResetRequested) -> str:
    """The whole name; "" where its token alone is known, or is the name."""
    return body.called if body.scope not in ("task", "tenant") and subjects.as_token(body.called) == body.name else ""


def check_requester(body: HaltRequested | ResetRequested, tenant: str) -> Failure | None:
    """Why this person may not: other roles, and everything that is another's."""
    who = body.requester
    if who.role not in OPERATORS:
        return Failure.from_text("forbidden", f"the role {who.role} may not halt, resume or reset", "ask an operator")
    if who.tenant != tenant or (body.scope == "tenant" and body.name != tenant):
        reason = f"{who.person} may switch what is {who.tenant}'s, and nothing else"
        return Failure.from_text("forbidden", reason, "who operates the mesh may: `bulkhead halt` on their machine")
    return None
