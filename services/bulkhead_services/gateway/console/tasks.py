"""The room of tasks: the list with its filter, kept up to date while somebody looks at it.

In: visits. Out: pages.
"""

from typing import get_args

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_contracts.result import Standing
from bulkhead_services.gateway.console import desk
from bulkhead_services.gateway.console.desk import Desk, Visit
from bulkhead_services.gateway.read_model.task_view import Status

FILTERS = ("text", "status", "person", "feature", "standing")
PAGE = 50
STATUSES = tuple(status for status in get_args(Status) if status != "unknown")


class Tasks:
    """The routes under /tasks."""

    def __init__(self, at: Desk) -> None:
        self._desk = at

    def routes(self) -> list[Route]:
        """Where they are."""
        return [self._desk.get("/live", desk.changes), self._desk.get("/tasks", self.list, shared=True)]

    async def list(self, visit: Visit) -> Response:
        """GET /tasks"""
        asked = {name: visit.word(name) for name in FILTERS}
        cursor = visit.word("cursor")
        found = await visit.get("/v1/tasks", limit=PAGE, cursor=cursor, **asked)
        return visit.page(
            "tasks/list.html",
            tasks=found["tasks"],
            next=found["next"],
            cursor=cursor,
            asked=asked,
            statuses=STATUSES,
            standings=get_args(Standing),
        )
