"""Halt, resume, and what stands: by the operator's key of a data directory, or over HTTP as a person of a tenant.

In: what is meant and why. Out: the entry as it stands now, text or JSON. With the key no service is needed but the
broker: a mesh whose budget or gateway is down can be halted all the same.
"""

import secrets
import shlex
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from rich.markup import escape

from bulkhead.amounts import clock
from bulkhead.bus.port import Bus
from bulkhead.client import Refused
from bulkhead.runtime.context import unix_ms
from bulkhead.runtime.halts import operator
from bulkhead.runtime.halts.operator import Wish
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.validation_errors import meant
from bulkhead_cli.halts.target_of_halt import Named
from bulkhead_cli.limits import unknown_names
from bulkhead_cli.output import Exit, Stop, out, print_json
from bulkhead_cli.target import Target, operator_bus, person, read_json
from bulkhead_contracts import subjects
from bulkhead_contracts.control import Breaker, Halt
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import TaskEnded

LOOKED_AT = 64
NOT_HALTED = "not_halted"


@asynccontextmanager
async def _operating(data: Path) -> AsyncIterator[tuple[Bus, Publisher]]:
    async with operator_bus(data) as bus:
        yield bus, Publisher("operator", bus, secrets.token_bytes(16), unix_ms)


async def switch(data: Path, remote: Target | None, named: Named, reason: str, *, active: bool, as_json: bool) -> None:
    """Halt, or let go on. Raises Stop, BusError, MeshError."""
    if remote is not None:
        if named.tenant:
            raise Stop(
                Exit.USAGE,
                "over HTTP a halt holds for your own tenant: --tenant is not needed",
                "leave it out, or use the operator's key: --data DIR",
            )
        async with remote.mesh() as mesh:
            asked = mesh.halt if active else mesh.resume
            try:
                found, over = Halt.model_validate(await asked(named.scope, named.name, reason)), ""
            except Refused as error:
                if error.code != NOT_HALTED:
                    raise
                raise _not_halted(
                    named,
                    [Halt.model_validate(one) for one in (await mesh.get("/v1/halts"))["halts"]],
                    str(error),
                    error.hint,
                ) from error
            lookup = found.active and named.scope in unknown_names.KINDS
            seen = await unknown_names.seen_by(mesh, named.scope) if lookup else None
    else:
        found, over, seen = await _by_key(data, named, reason, active)
    note = (over or _note(named, found, reason, data if remote is None else None, seen)) if found.active else ""
    if as_json:
        more = ({"resume": _undo(named)} if found.active else {}) | ({"note": note} if note else {})
        print_json(found.model_dump(mode="json") | more)
    elif found.active:
        out.print(f"halted: {named}, by {found.by}: {found.reason}", markup=False)
        out.print(f"to resume: {_undo(named)}", style="dim", markup=False)
        if note:
            out.print(f"note: {note}", style="yellow", markup=False)
    else:
        out.print(f"resumed: {named} ({found.by}: {found.reason})", markup=False)


def _undo(named: Named) -> str:
    """The command that takes this very halt away: one of a tenant's does not stand under the name alone."""
    whose = f" --tenant {named.tenant}" if named.tenant and named.scope not in ("task", "tenant") else ""
    return f"bulkhead resume --{named.scope} {shlex.quote(named.name)}{whose}"


def _note(named: Named, found: Halt, reason: str, data: Path | None, seen: Collection[str] | None) -> str:
    """A note on a halt that was active already, or whose name is unknown."""
    if found.reason != reason:
        since = clock(found.at_unix_ms)
        return f"it has been halted since {since}, for the reason given then; the new reason is not stored"
    tenants = read_json(data / "mesh.json").get("tenants", ()) if data is not None else ()
    tenant = named.name if named.scope == "tenant" else named.tenant
    if tenants and tenant and tenant not in tenants:
        return f"this mesh has no tenant {tenant}{meant(tenant, tenants)}"
    return unknown_names.unknown(named.scope, named.name, seen)


async def _by_key(data: Path, named: Named, reason: str, active: bool) -> tuple[Halt, str, set[str] | None]:
    """The entry as it stands, what is to be said of a task that is over, and which names of this kind were seen. Raises
    Stop, BusError."""
    async with _operating(data) as (bus, publisher):
        tenant = named.tenant
        if named.scope == "task" and not tenant:
            tenant = await _tenant_of(bus, named.name)
        wish = Wish(
            named.scope,
            "" if named.scope == "tenant" else tenant,
            named.name,
            active,
            reason,
            f"{operator.OPERATOR}{person()}",
            unix_ms(),
        )
        found = await operator.switch(bus, publisher, wish)
        if isinstance(found, Failure) and found.code == NOT_HALTED:
            raise _not_halted(named, await operator.standing(bus), found.message, found.hint)
        over = await _ended(bus, tenant, named.name) if named.scope == "task" and active else ""
        # After it stands: nothing waits for a look at names.
        seen = await unknown_names.seen_in(bus, named.scope) if active and named.scope in unknown_names.KINDS else None
    if isinstance(found, Failure):
        raise Stop(Exit.REFUSED, found.message, found.hint, name=found.code)
    return found, over, seen


def _not_halted(named: Named, standing: list[Halt], what: str, hint: str) -> Stop:
    """Whoever mistypes a name must not believe that what it names goes on."""
    same = [one for one in standing if one.scope == named.scope]
    whose = next((one.tenant for one in same if one.tenant and one.known_as == named.name), "")
    of = f"; it is halted for tenant {whose}: --tenant {whose}"
    near = meant(named.name, {one.known_as for one in same})
    return Stop(Exit.REFUSED, f"{what}{of if whose else near}", hint, name=NOT_HALTED)


async def _ended(bus: Bus, tenant: str, task: str) -> str:
    subject = f"mesh.planner.gateway.{subjects.partition_of(task)}.{tenant}.{task}"
    last = await bus.last(subjects.JOURNAL_STREAM, subject)
    if last is None or not last.ce_type.startswith(f"{TaskEnded.TYPE}.v"):
        return ""
    return f"the task has ended, so this halt has no effect; remove it: bulkhead resume --task {task}"


async def _tenant_of(bus: Bus, task: str) -> str:
    """The tenant of a task. Raises Stop."""
    pattern = f"mesh.*.*.{subjects.partition_of(task)}.*.{task}"
    page = await bus.read(subjects.JOURNAL_STREAM, pattern, limit=LOOKED_AT)
    found = {stored.tenant for stored in page}
    if len(found) != 1:
        what = f"tenants {', '.join(sorted(found))} have" if found else "nobody has"
        raise Stop(Exit.USAGE, f"{what} a task {task}", "`bulkhead tasks` lists ids; --tenant names whose it is")
    return found.pop()


async def show_halts(data: Path, remote: Target | None, *, as_json: bool) -> None:
    """Print the active halts. Raises Stop, BusError, MeshError."""
    if remote is not None:
        async with remote.mesh() as mesh:
            found = [Halt.model_validate(one) for one in (await mesh.get("/v1/halts"))["halts"]]
    else:
        async with operator_bus(data) as bus:
            found = await operator.standing(bus)
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    if not found:
        out.print("nothing is halted")
    for one in found:
        named = Named(one.scope, one.known_as, one.tenant)
        out.print(
            f"[bold]{escape(str(named))}[/bold]  since {clock(one.at_unix_ms)}, by {escape(one.by)}: "
            f"{escape(one.reason)}"
        )


async def show_breakers(data: Path, remote: Target | None, *, as_json: bool) -> None:
    """Print the breakers with their states. Raises Stop, BusError, MeshError."""
    if remote is not None:
        async with remote.mesh() as mesh:
            found = [Breaker.model_validate(one) for one in (await mesh.get("/v1/breakers"))["breakers"]]
    else:
        async with operator_bus(data) as bus:
            found = await operator.breakers(bus)
    now = unix_ms()
    if as_json:
        print_json([{**one.model_dump(mode="json"), "state": state_of(one, now)} for one in found])
        return
    if not found:
        out.print("no breaker has opened")
    for one in found:
        state = state_of(one, now)
        colour = {"open": "red", "half_open": "yellow"}.get(state, "green")
        whose = f" of tenant {one.tenant}" if one.tenant else ""
        until = f", tried again at {clock(one.until_unix_ms)}" if state == "open" else ""
        out.print(
            f"[{colour}]{state}[/{colour}]  {one.scope}:{escape(one.known_as)}{whose}  since "
            f"{clock(one.since_unix_ms)}{until}: {escape(one.reason)}"
        )


def state_of(one: Breaker, now_unix_ms: int) -> str:
    """open, half_open (trials go out), closed."""
    return "half_open" if one.phase == "open" and now_unix_ms >= one.until_unix_ms else one.phase


async def reset_breaker(
    data: Path, remote: Target | None, named: str, tenant: str, reason: str, *, as_json: bool
) -> None:
    """Close one by hand. Raises Stop, BusError, MeshError."""
    if remote is None:
        closed = await _reset_by_key(data, named, tenant, reason)
    elif tenant:
        raise Stop(
            Exit.USAGE,
            "over HTTP you reset breakers of your own tenant: --tenant is not needed",
            "leave it out, or use the operator's key: --data DIR",
        )
    else:
        scope, _, name = named.partition(":")
        async with remote.mesh() as mesh:
            closed = Breaker.model_validate(await mesh.reset_breaker(scope, name, reason))
    if as_json:
        print_json({**closed.model_dump(mode="json"), "state": closed.phase})
    else:
        out.print(f"closed: {named}, by {closed.by}", markup=False)


async def _reset_by_key(data: Path, named: str, tenant: str, reason: str) -> Breaker:
    scope, _, name = named.partition(":")
    async with _operating(data) as (bus, publisher):
        standing = await operator.breakers(bus)
        there = [one for one in standing if one.scope == scope and tenant in ("", one.tenant)]
        found = [one for one in there if one.known_as == name] or [
            one for one in there if not one.called and one.name == subjects.as_token(name)
        ]
        if len(found) != 1:
            what = f"{len(found)} breakers are" if found else "no breaker is"
            others = {f"{one.scope}:{one.known_as}" for one in standing} - {named}
            near = "" if found else meant(named, others)
            raise Stop(
                Exit.USAGE,
                f"{what} called {named[:80]!r}{near}",
                "`bulkhead breakers` lists them, as SCOPE:NAME; --tenant tells those of tenants apart",
            )
        if found[0].phase == "closed":
            raise Stop(Exit.REFUSED, f"{named} is closed", "there is nothing to reset")
        by = f"{operator.OPERATOR}{person()}"
        closed = await operator.reset(bus, publisher, found[0], by, unix_ms(), reason)
    if closed is None:
        raise Stop(Exit.REFUSED, f"{named} has changed meanwhile", "look at `bulkhead breakers`, then try again")
    return closed
