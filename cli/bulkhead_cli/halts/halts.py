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

from bulkhead.bus.port import Bus
from bulkhead.client import Refused
from bulkhead.gateway_api.operators import BreakerListQuery, HaltListQuery
from bulkhead.journal.reader import place_of
from bulkhead.runtime.context import unix_ms
from bulkhead.runtime.halts import operator
from bulkhead.runtime.halts.operator import HaltRequest
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.text.amounts import format_time
from bulkhead.text.validation_errors import suggest_name
from bulkhead_cli.halts.target_of_halt import RequestedHaltTarget
from bulkhead_cli.limits import unknown_names
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import out
from bulkhead_cli.target import GatewayTarget, local_user, operator_bus, read_json
from bulkhead_contracts import subjects
from bulkhead_contracts.control import Breaker, Halt
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import TaskEnded

LOOKED_AT = 64
NOT_HALTED = "not_halted"


@asynccontextmanager
async def _operator_publisher(data: Path) -> AsyncIterator[tuple[Bus, Publisher]]:
    async with operator_bus(data) as bus:
        yield bus, Publisher("operator", bus, secrets.token_bytes(16), unix_ms)


async def switch_halt(
    data: Path, remote: GatewayTarget | None, named: RequestedHaltTarget, reason: str, *, active: bool, as_json: bool
) -> None:
    """Halt, or let go on. Raises CommandError, BusError, MeshError."""
    if remote is not None:
        if named.tenant:
            raise CommandError(
                Exit.USAGE,
                "over HTTP a halt holds for your own tenant: --tenant is not needed",
                "leave it out, or use the operator's key: --data DIR",
            )
        async with remote.mesh_client() as mesh:
            send_request = mesh.halt if active else mesh.resume
            try:
                halt, over = Halt.model_validate(await send_request(named.scope, named.name, reason)), ""
            except Refused as error:
                if error.code != NOT_HALTED:
                    raise
                raise _not_halted_error(
                    named, list((await mesh.read(HaltListQuery())).halts), str(error), error.hint
                ) from error
            lookup = halt.active and named.scope in unknown_names.KINDS
            seen_names = await unknown_names.seen_by(mesh, named.scope) if lookup else None
    else:
        halt, over, seen_names = await _switch_by_key(data, named, reason, active)
    note = (
        (over or _halt_note(named, halt, reason, data if remote is None else None, seen_names)) if halt.active else ""
    )
    if as_json:
        extra_fields = ({"resume": _resume_command(named)} if halt.active else {}) | ({"note": note} if note else {})
        print_json(halt.model_dump(mode="json") | extra_fields)
    elif halt.active:
        out.print(f"halted: {named}, by {halt.by}: {halt.reason}", markup=False)
        out.print(f"to resume: {_resume_command(named)}", style="dim", markup=False)
        if note:
            out.print(f"note: {note}", style="yellow", markup=False)
    else:
        out.print(f"resumed: {named} ({halt.by}: {halt.reason})", markup=False)


def _resume_command(named: RequestedHaltTarget) -> str:
    """The command that takes this very halt away: one of a tenant's does not stand under the name alone."""
    whose = f" --tenant {named.tenant}" if named.tenant and named.scope not in ("task", "tenant") else ""
    return f"bulkhead resume --{named.scope} {shlex.quote(named.name)}{whose}"


def _halt_note(
    named: RequestedHaltTarget, found: Halt, reason: str, data: Path | None, seen: Collection[str] | None
) -> str:
    """A note on a halt that was active already, or whose name is unknown."""
    if found.reason != reason:
        since = format_time(found.at_unix_ms)
        return f"it has been halted since {since}, for the reason given then; the new reason is not stored"
    tenants = read_json(data / "mesh.json").get("tenants", ()) if data is not None else ()
    tenant = named.name if named.scope == "tenant" else named.tenant
    if tenants and tenant and tenant not in tenants:
        return f"this mesh has no tenant {tenant}{suggest_name(tenant, tenants)}"
    return unknown_names.unknown_name_note(named.scope, named.name, seen)


async def _switch_by_key(
    data: Path, named: RequestedHaltTarget, reason: str, active: bool
) -> tuple[Halt, str, set[str] | None]:
    """The entry as it stands, what is to be said of a task that is over, and which names of this kind were
    seen. Raises CommandError, BusError.
    """
    async with _operator_publisher(data) as (bus, publisher):
        tenant = named.tenant
        if named.scope == "task" and not tenant:
            tenant = await _tenant_of(bus, named.name)
        wish = HaltRequest(
            named.scope,
            "" if named.scope == "tenant" else tenant,
            named.name,
            active,
            reason,
            f"{operator.OPERATOR}{local_user()}",
            unix_ms(),
        )
        outcome = await operator.switch_halt(bus, publisher, wish)
        if isinstance(outcome, Failure) and outcome.code == NOT_HALTED:
            raise _not_halted_error(named, await operator.standing_halts(bus), outcome.message, outcome.hint)
        over = await _ended_task_note(bus, tenant, named.name) if named.scope == "task" and active else ""
        # After it stands: nothing waits for a look at names.
        seen_names = (
            await unknown_names.seen_in(bus, named.scope) if active and named.scope in unknown_names.KINDS else None
        )
    if isinstance(outcome, Failure):
        raise CommandError(Exit.REFUSED, outcome.message, outcome.hint, name=outcome.code)
    return outcome, over, seen_names


def _not_halted_error(named: RequestedHaltTarget, standing: list[Halt], what: str, hint: str) -> CommandError:
    """Refusal, so that nobody takes a mistyped name for work that goes on."""
    same = [halt for halt in standing if halt.scope == named.scope]
    whose = next((halt.tenant for halt in same if halt.tenant and halt.known_as == named.name), "")
    of = f"; it is halted for tenant {whose}: --tenant {whose}"
    near = suggest_name(named.name, {halt.known_as for halt in same})
    return CommandError(Exit.REFUSED, f"{what}{of if whose else near}", hint, name=NOT_HALTED)


async def _ended_task_note(bus: Bus, tenant: str, task: str) -> str:
    last = await bus.last(subjects.JOURNAL_STREAM, subjects.mesh_subject("planner", "gateway", tenant, task))
    if last is None or not last.ce_type.startswith(f"{TaskEnded.TYPE}.v"):
        return ""
    return f"the task has ended, so this halt has no effect; remove it: bulkhead resume --task {task}"


async def _tenant_of(bus: Bus, task: str) -> str:
    """The tenant of a task. Raises CommandError."""
    page = await bus.read(subjects.JOURNAL_STREAM, f"mesh.*.*.{place_of(task)}", limit=LOOKED_AT)
    tenants = {stored.tenant for stored in page}
    if len(tenants) != 1:
        problem = f"tenants {', '.join(sorted(tenants))} have" if tenants else "nobody has"
        raise CommandError(
            Exit.USAGE, f"{problem} a task {task}", "`bulkhead tasks` lists ids; --tenant names whose it is"
        )
    return tenants.pop()


async def show_halts(data: Path, remote: GatewayTarget | None, *, as_json: bool) -> None:
    """Print the active halts. Raises CommandError, BusError, MeshError."""
    if remote is not None:
        async with remote.mesh_client() as mesh:
            halts = list((await mesh.read(HaltListQuery())).halts)
    else:
        async with operator_bus(data) as bus:
            halts = await operator.standing_halts(bus)
    if as_json:
        print_json({"halts": [halt.model_dump(mode="json") for halt in halts]})
        return
    if not halts:
        out.print("nothing is halted")
    for halt in halts:
        named = RequestedHaltTarget(halt.scope, halt.known_as, halt.tenant)
        out.print(
            f"[bold]{escape(str(named))}[/bold]  since {format_time(halt.at_unix_ms)}, by {escape(halt.by)}: "
            f"{escape(halt.reason)}"
        )


async def show_breakers(data: Path, remote: GatewayTarget | None, *, as_json: bool) -> None:
    """Print the breakers with their states. Raises CommandError, BusError, MeshError."""
    if remote is not None:
        async with remote.mesh_client() as mesh:
            breakers = list((await mesh.read(BreakerListQuery())).breakers)
    else:
        async with operator_bus(data) as bus:
            breakers = await operator.read_breakers(bus)
    now_unix_ms = unix_ms()
    if as_json:
        print_json({"breakers": [breaker.model_dump(mode="json") for breaker in breakers]})
        return
    if not breakers:
        out.print("no breaker has opened")
    for breaker in breakers:
        state = state_of(breaker, now_unix_ms)
        colour = {"open": "red", "half_open": "yellow"}.get(state, "green")
        whose = f" of tenant {breaker.tenant}" if breaker.tenant else ""
        until = f", tried again at {format_time(breaker.until_unix_ms)}" if state == "open" else ""
        out.print(
            f"[{colour}]{state}[/{colour}]  {breaker.scope}:{escape(breaker.known_as)}{whose}  since "
            f"{format_time(breaker.since_unix_ms)}{until}: {escape(breaker.reason)}"
        )


def state_of(one: Breaker, now_unix_ms: int) -> str:
    """open, half_open (trials go out), closed."""
    return "half_open" if one.phase == "open" and now_unix_ms >= one.until_unix_ms else one.phase


async def reset_breaker(
    data: Path, remote: GatewayTarget | None, named: str, tenant: str, reason: str, *, as_json: bool
) -> None:
    """Close one by hand. Raises CommandError, BusError, MeshError."""
    if remote is None:
        closed = await _reset_by_key(data, named, tenant, reason)
    elif tenant:
        raise CommandError(
            Exit.USAGE,
            "over HTTP you reset breakers of your own tenant: --tenant is not needed",
            "leave it out, or use the operator's key: --data DIR",
        )
    else:
        scope, _, name = named.partition(":")
        async with remote.mesh_client() as mesh:
            closed = Breaker.model_validate(await mesh.reset_breaker(scope, name, reason))
    if as_json:
        print_json(closed.model_dump(mode="json"))
    else:
        out.print(f"closed: {named}, by {closed.by}", markup=False)


async def _reset_by_key(data: Path, named: str, tenant: str, reason: str) -> Breaker:
    scope, _, name = named.partition(":")
    async with _operator_publisher(data) as (bus, publisher):
        standing = await operator.read_breakers(bus)
        candidates = [breaker for breaker in standing if breaker.scope == scope and tenant in ("", breaker.tenant)]
        matching = [breaker for breaker in candidates if breaker.known_as == name] or [
            breaker for breaker in candidates if not breaker.called and breaker.name == subjects.as_token(name)
        ]
        if len(matching) != 1:
            problem = f"{len(matching)} breakers are" if matching else "no breaker is"
            other_names = {f"{breaker.scope}:{breaker.known_as}" for breaker in standing} - {named}
            near = "" if matching else suggest_name(named, other_names)
            raise CommandError(
                Exit.USAGE,
                f"{problem} called {named[:80]!r}{near}",
                "`bulkhead breakers` lists them, as SCOPE:NAME; --tenant tells those of tenants apart",
            )
        if matching[0].phase == "closed":
            raise CommandError(Exit.REFUSED, f"{named} is closed", "there is nothing to reset")
        by = f"{operator.OPERATOR}{local_user()}"
        closed = await operator.reset_breaker(bus, publisher, matching[0], by, unix_ms(), reason)
    if closed is None:
        raise CommandError(
            Exit.REFUSED, f"{named} has changed meanwhile", "look at `bulkhead breakers`, then try again"
        )
    return closed
