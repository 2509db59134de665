"""A task beside another: a fork beside its origin, or any two of the tenant.

In: visits. Out: a page. Both are read as their own pages read them, so who may not see the one's texts sees them here
no more than there.
"""

import asyncio

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_contracts import subjects
from bulkhead_services.gateway.console.api import Refused
from bulkhead_services.gateway.console.desk import Desk, Visit
from bulkhead_services.gateway.console.task.difference import compare

FORKS = 20
"""Forks of a task that are offered beside it."""


class Comparison:
    """The route /tasks/{task_id}/compare."""

    def __init__(self, at: Desk) -> None:
        self._desk = at

    def routes(self) -> list[Route]:
        """Where it is."""
        return [self._desk.get("/tasks/{task_id}/compare", self.show)]

    async def show(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/compare"""
        task = await visit.get(f"/v1/tasks/{visit.request.path_params['task_id']}")
        mine = task["task_id"]
        name = _other(visit.word("with") or task["fork_of"], mine)
        if not name:
            forks = await visit.get("/v1/tasks", fork_of=mine, limit=FORKS)
            return visit.page("tasks/compare.html", task=task, other=None, forks=forks["tasks"])
        other, told, others = await asyncio.gather(
            visit.get(f"/v1/tasks/{name}"), visit.get(f"/v1/tasks/{mine}/why"), visit.get(f"/v1/tasks/{name}/why")
        )
        return visit.page(
            "tasks/compare.html",
            task=task,
            other=other,
            forks=(),
            content=told["content"] and others["content"],
            cut=told["cut"] or others["cut"],
            difference=compare(task, other, told["story"], others["story"]),
        )


def _other(said: str, mine: str) -> str:
    """The id of the other task; "" for none. Raises Refused."""
    if not said:
        return ""
    hint = "choose another task of your tenant by its id"
    try:
        subjects.token(said)
    except subjects.SubjectError as error:
        raise Refused(422, {"title": "Not a task's id", "detail": str(error), "hint": hint}) from error
    if said == mine:
        raise Refused(422, {"title": "The same task", "detail": "a task is not compared with itself", "hint": hint})
    return said
