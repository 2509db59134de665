"""Notes on what a limit or a halt names and nobody has, or has any more: it is kept, and may wait for what comes later.

In: a name. Out: a sentence, or "" where there is nothing to say. Notes are no errors: what was asked for is done.
"""

import asyncio
from collections.abc import Collection

from bulkhead.bus.port import Bus, BusError, Stored
from bulkhead.client import Mesh, MeshError, Refused
from bulkhead.client.mesh import UNENDED
from bulkhead.journal.reader import Renumbered, pages, parts
from bulkhead.validation_errors import meant
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.budget import Reserved

NOT_FOUND = 404
KINDS = ("agent", "tool", "model", "feature")
"""What a halt can name that nobody has to be told of before it is used."""
COUNTED = ("workflow", "feature", "user")
"""What a limit can name that people choose names for."""
SPENT_BY = ("agent", "model", *COUNTED)
SERVICES = {"tool": "tool_executor", "model": "model_gateway"}
RESERVED = "mesh.budget.journal.*.*.*"
LOOKS_BACK = 20_000
"""So many messages of the journal are looked through for names, the latest ones."""
LOOKS_S = 3.0


async def of_limit(mesh: Mesh, target: str) -> str:
    """Of the target of a limit that was set."""
    kind, _, name = target.partition("/")
    if kind == "task" and name:
        return await _of_task(mesh, name)
    if kind == "agent" and name:
        return of_agent(name)
    return await _of_counted(mesh, kind, name) if kind in COUNTED and name else ""


async def _of_counted(mesh: Mesh, kind: str, name: str) -> str:
    """A name under which nothing was spent is a new one, unless it nearly is one under which something was."""
    seen = await seen_by(mesh, kind)
    near = meant(name, seen) if seen and name not in seen else ""
    return f"nothing was spent under {kind}/{name} in the last 31 days; the limit waits for it{near}" if near else ""


async def _of_task(mesh: Mesh, task: str) -> str:
    try:
        status = (await mesh.task(task).show())["status"]
    except Refused as error:
        return (
            ""
            if error.status != NOT_FOUND
            else (
                f"your tenant has no task {task}: check the id (`bulkhead tasks`); the limit waits for a task of this "
                f"name"
            )
        )
    except MeshError:
        return ""  # The limit is set all the same, and its answer was told.
    return (
        ""
        if status in UNENDED
        else (
            f"task {task} has ended ({status}): the limit changes nothing; take it away with `bulkhead limits remove "
            f"task/{task}`"
        )
    )


def of_halt(
    scope: str, name: str, tenant: str = "", known: Collection[str] = (), seen: Collection[str] | None = None
) -> str:
    """Of what was halted. known: the mesh's tenants, where they are known; seen: what of this kind made calls lately,
    None where nobody could be asked."""
    if known and (whose := name if scope == "tenant" else tenant) and whose not in known:
        return (
            f"no tenant of this mesh is called {whose}: nothing waits for this halt. There are {', '.join(known)}"
            f"{meant(whose, known)}"
        )
    if scope not in KINDS or name in (seen or ()):
        return ""
    if scope == "agent" and (note := of_agent(name, seen or ())):
        return note
    if scope == "tool":
        return of_tool(name, seen or ())
    if seen is None or (scope == "agent" and "." not in name):
        return ""
    return (
        f"no {scope} of this name has made a call lately: the halt takes effect when one of the name {name} appears"
        f"{meant(name, seen)}"
    )


async def seen_by(mesh: Mesh, scope: str) -> set[str] | None:
    """Names of this kind under which the caller's tenant has spent; None where it cannot be told."""
    if scope not in SPENT_BY:
        return None
    try:
        page = await mesh.get("/v1/spend", {"by": scope, "since": "31d", "limit": "200"})
    except MeshError:
        return None  # The halt stands all the same, and its answer is to be told.
    return {row["name"] for row in page["rows"]}


async def seen_in(bus: Bus, scope: str) -> set[str] | None:
    """Names of this kind in the latest reservations of all tenants; None where they cannot be read in a moment."""
    found: set[str] = set()
    try:
        async with asyncio.timeout(LOOKS_S):
            newest = await bus.last(subjects.JOURNAL_STREAM, RESERVED)
            after = max(0, newest.sequence - LOOKS_BACK) if newest is not None else 0
            async for page in pages(bus, RESERVED, after):
                for stored in page:
                    found |= _named(stored, scope)
    except (TimeoutError, BusError, Renumbered):
        return None
    return found


def _named(stored: Stored, scope: str) -> set[str]:
    found = set()
    for one in parts(stored):
        body = one.body
        if isinstance(body, Reserved):
            if SERVICES.get(scope) == body.service:
                found.add(body.resource)
            scopes = (*body.scopes, *body.more_scopes)
            found |= {each.scope.split(":")[2] for each in scopes if each.scope.startswith(f"{scope}:")}
    return found


def of_agent(name: str, seen: Collection[str] = ()) -> str:
    """Agents are services that decide, and their roles; which roles packs bring is not known here."""
    service, dot, role = name.partition(".")
    if service in catalog.DECIDERS and bool(dot) == bool(role):
        return ""
    return (
        f"no agent is called {name}: an agent is {', '.join(catalog.DECIDERS)} (each of its roles), or one role as "
        "in worker.step; `bulkhead spend --by agent` lists those that made calls"
        f"{meant(name, {*catalog.DECIDERS, *seen})}"
    )


def of_tool(name: str, seen: Collection[str] = ()) -> str:
    """Tools of this house; those of packs are the mesh's, and not known here."""
    from bulkhead.tools.catalog import rows

    own = [row.spec.name for row in rows()]
    if name in own:
        return ""
    return (
        f"no tool that comes with the mesh is called {name}; it holds for one of a pack, now or later. With the "
        f"mesh come {', '.join(own)}{meant(name, {*own, *seen})}"
    )
