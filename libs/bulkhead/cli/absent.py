"""Notes on what a limit or a halt names and nobody has, or has any more: it is kept, and may wait for what comes later.

In: a name. Out: a sentence, or "" where there is nothing to say. Notes are no errors: what was asked for is done.
"""

from collections.abc import Collection

from bulkhead.client import Mesh, MeshError, Refused
from bulkhead.client.mesh import UNENDED
from bulkhead_contracts import catalog, subjects

NOT_FOUND = 404


async def of_limit(mesh: Mesh, target: str) -> str:
    """Of the target of a limit that was set."""
    kind, _, name = target.partition("/")
    if kind == "task" and name:
        return await _of_task(mesh, name)
    return of_agent(name) if kind == "agent" and name else ""


async def _of_task(mesh: Mesh, task: str) -> str:
    try:
        status = (await mesh.task(task).show())["status"]
    except Refused as error:
        return "" if error.status != NOT_FOUND else (
            f"your tenant has no task {task}: check the id (`bulkhead tasks`); the limit waits for a task of this name")
    except MeshError:
        return ""  # The limit is set all the same, and its answer was told.
    return "" if status in UNENDED else (
        f"task {task} has ended ({status}): the limit changes nothing; take it away with `bulkhead limits remove "
        f"task/{task}`")  # fmt: skip


def of_halt(scope: str, name: str, tenant: str = "", known: Collection[str] = ()) -> str:
    """Of what was halted. known: the mesh's tenants, where they are known."""
    if known and (whose := name if scope == "tenant" else tenant) and whose not in known:
        return (f"no tenant of this mesh is called {whose}: nothing waits for this halt. There are {', '.join(known)}")
    return of_agent(name) if scope == "agent" else of_tool(name) if scope == "tool" else ""


def of_agent(name: str) -> str:
    """Agents are services that decide, and their roles; which roles packs bring is not known here."""
    service, dot, role = name.partition(".")
    if service in catalog.DECIDERS and bool(dot) == bool(role):
        return ""
    return (f"no agent is called {name}: an agent is {', '.join(catalog.DECIDERS)} (each of its roles), or one role as "
            "in worker.step; `bulkhead spend --by agent` lists those that made calls")  # fmt: skip


def of_tool(name: str) -> str:
    """Tools of this house; those of packs are the mesh's, and not known here."""
    from infra.tools import rows

    own = [row.spec.name for row in rows()]
    if subjects.as_token(name) in map(subjects.as_token, own):
        return ""
    return (f"no tool that comes with the mesh is called {name}; it holds for one of a pack, now or later. With the "
            f"mesh come {', '.join(own)}")  # fmt: skip
