"""The room of tasks: the list with its filter, kept up to date while somebody looks at it.

In: visits. Out: pages.
"""

from typing import get_args

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.tasks import ANSWERS, Status
from bulkhead_contracts.result import Standing
from bulkhead_services.gateway.console import visits
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit

FILTERS = ("text", "status", "person", "feature", "standing", "answered")
PAGE = 50
STATUSES = tuple(status for status in get_args(Status) if status != "unknown")


class ConsoleTaskListRoutes(ConsoleRoutes):
    """The routes under /tasks."""

    def routes(self) -> list[Route]:
        """Routes of the task list."""
        return [
            self.factory.get_route("/live", visits.stream_changes),
            self.factory.get_route("/tasks", self.list_tasks, shared=True),
        ]

    async def list_tasks(self, visit: Visit) -> Response:
        """GET /tasks"""
        filters = {name: visit.query_value(name) for name in FILTERS}
        cursor = visit.query_value("cursor")
        page = await visit.get("/v1/tasks", limit=PAGE, cursor=cursor, **filters)
        return visit.render_page(
            "tasks/list.html",
            tasks=page["tasks"],
            next=page["next"],
            cursor=cursor,
            asked=filters,
            statuses=STATUSES,
            standings=get_args(Standing),
            answers=ANSWERS,
        )
