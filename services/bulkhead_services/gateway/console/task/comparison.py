"""A task beside another: a fork beside its origin, or any two of the tenant.

In: visits. Out: a page. Both are read as their own pages read them, so who may not see the one's texts sees them here
no more than there.
"""

import asyncio

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_contracts import subjects
from bulkhead_services.gateway.console.api import ApiRefused
from bulkhead_services.gateway.console.task.difference import compare_tasks
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit

FORKS, RECENT = 20, 12
"""Forks of a task, and the last tasks of its tenant, that are offered beside it."""


class ConsoleComparisonRoutes(ConsoleRoutes):
    """The route /tasks/{task_id}/compare."""

    def routes(self) -> list[Route]:
        """Route of the comparison."""
        return [self.factory.get_route("/tasks/{task_id}/compare", self.show_comparison)]

    async def show_comparison(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/compare"""
        task = await visit.get(f"/v1/tasks/{visit.request.path_params['task_id']}")
        mine = task["task_id"]
        name = _other_task_id(visit.query_value("with") or task["fork_of"], mine)
        if not name:
            forks, recent = await asyncio.gather(
                visit.get("/v1/tasks", fork_of=mine, limit=FORKS), visit.get("/v1/tasks", limit=RECENT + 1)
            )
            other_tasks = [row for row in recent["tasks"] if row["task_id"] != mine][:RECENT]
            return visit.render_page(
                "tasks/compare.html", task=task, other=None, forks=forks["tasks"], recent=other_tasks
            )
        other_task, explanation, other_explanation = await asyncio.gather(
            visit.get(f"/v1/tasks/{name}"), visit.get(f"/v1/tasks/{mine}/why"), visit.get(f"/v1/tasks/{name}/why")
        )
        return visit.render_page(
            "tasks/compare.html",
            task=task,
            other=other_task,
            forks=(),
            content=explanation["content"] and other_explanation["content"],
            cut=explanation["cut"] or other_explanation["cut"],
            # In a thread: two long answers take a while.
            difference=await asyncio.to_thread(
                compare_tasks, task, other_task, explanation["story"], other_explanation["story"]
            ),
        )


def _other_task_id(text: str, mine: str) -> str:
    """The id of the other task; "" for none. Raises ApiRefused."""
    if not text:
        return ""
    hint = "choose another task of your tenant by its id"
    try:
        subjects.check_token(text)
    except subjects.SubjectError as error:
        raise ApiRefused(422, {"title": "Not a task's id", "detail": str(error), "hint": hint}) from error
    if text == mine:
        raise ApiRefused(422, {"title": "The same task", "detail": "a task is not compared with itself", "hint": hint})
    return text
