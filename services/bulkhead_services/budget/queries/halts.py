"""Halts and resets of breakers that a tenant's people ask for: judged here, for the gateway faces the internet and may
set none itself.

In: HaltRequested, ResetRequested (rpc, from the gateway, which established who asks). Out: the control entry, the fact,
HaltReplied, ResetReplied.
"""

from bulkhead.bus.port import BusError
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import Received
from bulkhead.runtime.halts.operator import Wish, change_of, judge_reset, repeated, reset, switch
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.control import Breaker, HaltReplied, HaltRequested, ResetReplied, ResetRequested
from bulkhead_contracts.result import Failure

log = Log("budget.switches")

OPERATORS = frozenset({"operator"})


class Switches:
    """A tenant's operators halt what is their tenant's."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def answer(self, message: Received) -> HaltReplied:
        """Do it, or say why not."""
        body = message.body
        assert isinstance(body, HaltRequested)
        if (refusal := refused(body, message.tenant)) is not None:
            return HaltReplied(failure=refusal)
        who, tenant = body.requester, message.tenant
        called = _called(body)
        whose, by, now = "" if body.scope == "tenant" else tenant, f"{tenant}/{who.person}", self._context.clock()
        change, name = change_of(message.envelope.id, f"{body.active} {body.reason}"), called or body.name
        wish = Wish(body.scope, whose, name, body.active, body.reason, by, now, change, exact=bool(called))
        try:
            found = await switch(self._context.bus, self._context.publisher, wish)
        except BusError as error:
            log.error("halt_not_stored", scope=body.scope, tenant=tenant, reason=str(error))
            found = _unavailable(error, "halts")
        if isinstance(found, Failure):
            return HaltReplied(failure=found)
        what = found.model_dump(include={"scope", "by", "reason"}) | {"name": found.known_as, "tenant": tenant}
        log.warning("halted" if found.active else "resumed", **what)
        return HaltReplied(halt=found)

    async def reset(self, message: Received) -> ResetReplied:
        """Close a breaker of the tenant's, or say why not."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, ResetRequested)
        if (refusal := refused(body, tenant)) is not None:
            return ResetReplied(failure=refusal)
        try:
            found = await self._reset(body, tenant, change_of(message.envelope.id, body.reason))
        except BusError as error:
            log.error("reset_not_stored", scope=body.scope, tenant=tenant, reason=str(error))
            found = _unavailable(error, "breakers")
        if isinstance(found, Failure):
            return ResetReplied(failure=found)
        what = {"scope": found.scope, "name": found.known_as, "tenant": tenant, "by": found.by}
        log.warning("breaker_reset", **what, reason=body.reason)
        return ResetReplied(breaker=found)

    async def _reset(self, body: ResetRequested, tenant: str, change: str) -> Breaker | Failure:
        bus, person = self._context.bus, body.requester.person
        called = _called(body) or body.name
        whose = "" if body.scope == "tenant" else tenant
        stands = await self._entry(subjects.breaker_key(body.scope, whose, called))
        if called != body.name and (stands is None or stands.phase == "closed"):
            # One that a budget of the version before opened is known by its token alone.
            loose = await self._entry(subjects.breaker_key(body.scope, whose, body.name))
            stands = loose if loose is not None and not loose.called and loose.phase != "closed" else stands
        if (known := repeated(stands, change)) is not None:
            return known
        failure = judge_reset(stands, f"{body.scope}:{called}", person)
        if failure is not None or stands is None:
            return failure or Failure.of("not_open", "it is not there", "")
        publisher, now = self._context.publisher, self._context.clock()
        closed = await reset(bus, publisher, stands, f"{tenant}/{person}", now, body.reason, change)
        what = f"{body.scope}:{called} has changed meanwhile"
        return closed or Failure.of("busy", what, "look at `bulkhead breakers`, then try again")

    async def _entry(self, key: str) -> Breaker | None:
        stored = await self._context.bus.last(subjects.CONTROL_STREAM, key)
        return Breaker.model_validate_json(stored.body) if stored is not None else None


def _unavailable(error: BusError, kind: str) -> Failure:
    return Failure.of("unavailable", f"the broker does not answer: {error}", f"look at the {kind}, then try again")


def _called(body: HaltRequested | ResetRequested) -> str:
    """The whole name; "" where its token alone is known, or is the name."""
    return body.called if body.scope not in ("task", "tenant") and subjects.as_token(body.called) == body.name else ""


def refused(body: HaltRequested | ResetRequested, tenant: str) -> Failure | None:
    """Why this person may not: other roles, and everything that is another's."""
    who = body.requester
    if who.role not in OPERATORS:
        return Failure.of("forbidden", f"the role {who.role} may not halt, resume or reset", "ask an operator")
    if who.tenant != tenant or (body.scope == "tenant" and body.name != tenant):
        what = f"{who.person} may switch what is {who.tenant}'s, and nothing else"
        return Failure.of("forbidden", what, "who operates the mesh may: `bulkhead halt` on their machine")
    return None
