"""Notes on names in limits and halts that nothing has used: each is stored all the same, and waits for its name.

In: a name. Out: one sentence with the name that was probably meant, or "".
"""

import asyncio
from collections.abc import Collection

from bulkhead.bus.port import Bus, BusError
from bulkhead.client import Mesh, MeshError
from bulkhead.client.mesh import UNENDED
from bulkhead.client.request_checks import check_query
from bulkhead.gateway_api.operators import SpendingQuery
from bulkhead.gateway_api.query import MAX_PAGE
from bulkhead.journal.reader import JournalRenumbered, facts_of, read_pages
from bulkhead.text.validation_errors import suggest_name
from bulkhead.tools import catalog as tools
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.budget import Reserved

KINDS = ("agent", "tool", "model", "feature")
"""Scopes of a halt whose names are not registered anywhere."""
COUNTED = ("workflow", "feature", "user")
"""Targets of a limit whose names people choose."""
SERVICES = {"tool": "tool_executor", "model": "model_gateway"}
RESERVED = "mesh.budget.journal.>"
READ_BACK = 20_000
"""Number of the latest messages of the journal in which names are looked up."""
READ_TIMEOUT_S = 3.0


async def limit_target_note(mesh: Mesh, target: str) -> str:
    """A note on the target of a limit."""
    kind, _, name = target.partition("/")
    if kind == "task" and name:
        return await _ended_task_note(mesh, name)
    if kind == "agent" and name:
        return unknown_name_note(kind, name, None)
    seen_names = await seen_by(mesh, kind) if kind in COUNTED and name else None
    near = (
        suggest_name(name, seen_names) if seen_names and name not in seen_names else ""
    )  # A new name is as good as any.
    return f"nothing was spent under {target} in the last 31 days{near}" if near else ""


async def _ended_task_note(mesh: Mesh, task: str) -> str:
    try:
        status = (await mesh.task(task).show())["status"]
    except MeshError as error:
        return str(error)  # The limit is set all the same.
    return "" if status in UNENDED else f"task {task} has ended ({status}); the limit has no effect"


def unknown_name_note(kind: str, name: str, seen: Collection[str] | None) -> str:
    """A note on a name that neither comes with the mesh nor is among seen, the names that have made calls lately (None:
    not known)."""
    shipped_names = {"agent": catalog.DECIDERS, "tool": tuple(row.spec.name for row in tools.tool_rows())}.get(kind, ())
    known_names = {*shipped_names, *(seen or ())}
    if kind not in KINDS or name in known_names or not (shipped_names or seen is not None):
        return ""
    service, _, role = name.partition(".")
    if kind == "agent" and service in shipped_names and role and seen is None:
        return ""  # Packs bring roles of their own.
    return f"no {kind} called {name} is known; this takes effect when one makes a call{suggest_name(name, known_names)}"


async def seen_by(mesh: Mesh, kind: str) -> set[str] | None:
    """Names of this kind under which the caller's tenant has spent; None when the mesh does not tell."""
    if kind == "tool":
        return None
    try:
        page = await mesh.read_json(check_query(SpendingQuery, {"by": kind, "since": "31d", "limit": MAX_PAGE}))
    except MeshError:
        return None
    return {row["name"] for row in page["rows"]}


async def seen_in(bus: Bus, kind: str) -> set[str] | None:
    """Names of this kind in the latest reservations of all tenants; None when they cannot be read in time."""
    names: set[str] = set()
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            newest = await bus.last(subjects.JOURNAL_STREAM, RESERVED)
            after = max(0, newest.sequence - READ_BACK) if newest is not None else 0
            async for page in read_pages(bus, RESERVED, after):
                bodies = [part.body for stored in page for part in facts_of(stored)]
                for body in bodies:
                    names |= _names_in_reservation(body, kind) if isinstance(body, Reserved) else set()
    except (TimeoutError, BusError, JournalRenumbered):
        return None
    return names


def _names_in_reservation(body: Reserved, kind: str) -> set[str]:
    scopes = (row.scope.split(":") for row in (*body.scopes, *body.more_scopes))
    resource_names = {body.resource} if SERVICES.get(kind) == body.service else set()
    return resource_names | {scope[2] for scope in scopes if scope[0] == kind}
