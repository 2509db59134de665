"""Acts on several tasks at once: cancel, retry, fork. Each is a request to the API of its own, with a key of its own.

In: a form with the chosen tasks. Out: the effect on each task, or why it had none. A form that is sent again counts
once for each task.
"""

import asyncio
from dataclasses import dataclass

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console.api import ApiRefused, Json
from bulkhead_services.gateway.console.task.acts import fork_body, read_past, retry_body
from bulkhead_services.gateway.console.task.uncertain import require_resolved_writes
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit

CHOSEN = "task-"
"""A chosen task's field begins so: a form's fields have each name once."""
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class TaskActResult:
    """The effect on one task. objective: "" where it is not known; new_task: that was submitted; refused: why there was
    none."""

    task_id: str
    objective: str = ""
    new_task: str = ""
    refused: ApiRefused | None = None


class ConsoleBulkRoutes(ConsoleRoutes):
    """The route /tasks/acts."""

    def routes(self) -> list[Route]:
        """Route of the acts on several tasks."""
        return [self.factory.post_route("/tasks/acts", self.submit_acts)]

    async def submit_acts(self, visit: Visit) -> Response:
        """POST /tasks/acts"""
        form = await visit.read_form()
        tasks = [value for name, value in form.items() if name.startswith(CHOSEN)]
        if not tasks or form.get("act") not in ("cancel", "retry", "fork"):
            hint = "choose tasks in the list, then Cancel, Retry or Fork"
            raise ApiRefused(422, {"title": "Nothing is chosen", "detail": "no task was chosen", "hint": hint})
        act, free_places = form["act"], asyncio.Semaphore(AT_ONCE)

        async def act_on(task_id: str) -> TaskActResult:
            key, objective = f"{form.get(KEY_FIELD, '')}-{act}-{task_id}", ""
            async with free_places:
                try:
                    task = await visit.get(f"/v1/tasks/{task_id}")
                    objective = task["objective"]
                    new_task = await _submit_act(visit, act, task, form.get("reason", ""), key)
                    return TaskActResult(task_id, objective, new_task)
                except ApiRefused as error:
                    return TaskActResult(task_id, objective, refused=error)

        results = await asyncio.gather(*map(act_on, tasks))
        return visit.render_page("tasks/acts.html", act=act, results=results)


async def _submit_act(visit: Visit, act: str, task: Json, reason: str, key: str) -> str:
    """Act on one task; the id of a task that was submitted for it. Raises ApiRefused."""
    if act == "cancel":
        await visit.post(f"/v1/tasks/{task['task_id']}/cancel", {"reason": reason}, key)
        return ""
    if task["kind"] == "adopted":
        detail = "its agent runs outside the mesh"
        raise ApiRefused(409, {"title": "Not to be run again", "detail": detail, "hint": "start the agent again"})
    await require_resolved_writes(visit, task)
    past = await read_past(visit, task["task_id"], planned=act == "fork")
    receipt = await visit.post("/v1/tasks", retry_body(past) if act == "retry" else _last_fork_body(past), key)
    new_task: str = receipt["task_id"]
    return new_task


def _last_fork_body(past: Json) -> Json:
    """A fork that runs what was not accepted, or the last step where all was."""
    unaccepted = [step["id"] for step in past["steps"] if step["id"] not in past["accepted"]]
    return fork_body(past, (unaccepted or [past["steps"][-1]["id"]])[0])
