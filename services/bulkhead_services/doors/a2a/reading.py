"""Tasks read from the gateway. In: a caller's client of the gateway. Out: whole tasks as A2A shows them, and pages."""

from dataclasses import dataclass

from a2a.types import ListTasksRequest, Task, TaskState

from bulkhead.client import Mesh
from bulkhead_services.doors.a2a import tasks
from bulkhead_services.doors.a2a.tasks import Document

MAX_PAGES_SCANNED = 20
"""A list that is filtered asks the gateway no more often for one page; its next page goes on from there."""


@dataclass(frozen=True, slots=True)
class A2aTaskPage:
    """Rows that fit a filter. following: where the next page begins; "" where nothing is left. total: of all pages;
    behind a filter, those that were seen, at least."""

    rows: list[Document]
    following: str
    total: int


async def read_page(mesh: Mesh, params: ListTasksRequest, size: int) -> A2aTaskPage:
    """A page of the tenant's tasks."""
    rows: list[Document] = []
    cursor, requests, total = params.page_token, 0, 0
    since = params.status_timestamp_after.ToMilliseconds() if params.HasField("status_timestamp_after") else 0
    while len(rows) < size and requests < MAX_PAGES_SCANNED:
        query = {"limit": str(size - len(rows))} | ({"cursor": cursor} if cursor else {})
        answer = await mesh.get("/v1/tasks", query)
        total = answer.get("total") or 0
        for row in answer["tasks"]:
            fits = params.context_id in ("", tasks.context_id(row)) and row["updated_unix_ms"] >= since
            if fits and await _has_state(mesh, row, params.status):
                rows.append(row)
        requests += 1
        cursor = answer["next"] or ""
        if not cursor:
            break
    known_total = len(rows) + bool(cursor)
    filtered = params.context_id or since or params.status != TaskState.TASK_STATE_UNSPECIFIED
    return A2aTaskPage(rows, cursor, known_total if filtered else max(known_total, total))


async def _has_state(mesh: Mesh, row: Document, wanted: TaskState) -> bool:
    if wanted == TaskState.TASK_STATE_UNSPECIFIED:
        return True
    return tasks.task_state(row, await waiting_approvals(mesh, row)) == wanted


async def read_task(mesh: Mesh, document: Document, history: int) -> Task:
    """A task with what waits for a person and what its answer cites. history: how many messages to show."""
    return tasks.render_task(
        document, await waiting_approvals(mesh, document), await read_citations(mesh, document), history
    )


async def waiting_approvals(mesh: Mesh, document: Document) -> list[Document]:
    """The calls of a task that wait for a person."""
    if document["status"] != "paused":
        return []
    approvals: list[Document] = (await mesh.approvals("waiting", document["task_id"]))["approvals"]
    return approvals


async def read_citations(mesh: Mesh, document: Document) -> Document | None:
    """The citations of an answer that has markers."""
    return await mesh.task(document["task_id"]).citations() if "[#" in (document.get("answer") or "") else None
