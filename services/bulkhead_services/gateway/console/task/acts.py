"""Acts of a person on a task: cancel, halt, resume, top up, fork. Each is a request to the API with a reason.

In: forms. Out: their effect in words, or the API's refusal.
"""

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console.api import Json, Refused
from bulkhead_services.gateway.console.desk import KEY_FIELD, Desk, Visit, back

OF_THE_REQUEST = ("check", "feature", "workflow", "route", "constraints", "conversation", "delivery", "replan")


class TaskActs:
    """The routes under /tasks/{task_id} that change something, and the form of a fork."""

    def __init__(self, at: Desk) -> None:
        self._desk = at

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            self._desk.post("/tasks/{task_id}/cancel", self.cancel),
            self._desk.post("/tasks/{task_id}/halt", self.halt),
            self._desk.post("/tasks/{task_id}/resume", self.resume),
            self._desk.post("/tasks/{task_id}/topup", self.top_up),
            self._desk.get("/tasks/{task_id}/fork", self.fork_form),
            self._desk.post("/tasks/{task_id}/fork", self.fork),
        ]

    async def cancel(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/cancel"""
        form = await visit.form()
        await visit.post(f"/v1/tasks/{_id(visit)}/cancel", {"reason": form.get("reason", "")}, form.get(KEY_FIELD, ""))
        return _done(visit, "The cancel is stored: the planner ends the task.")

    async def halt(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/halt"""
        await self._switch(visit, "/v1/halts")
        return _done(visit, "The task is halted: its work waits until it is resumed. Deadlines go on.")

    async def resume(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/resume"""
        await self._switch(visit, "/v1/resumes")
        return _done(visit, "The halt is lifted: the task goes on where it stopped.")

    async def _switch(self, visit: Visit, path: str) -> None:
        form = await visit.form()
        body = {"scope": "task", "name": _id(visit), "reason": form.get("reason", "")}
        await visit.post(path, body, form.get(KEY_FIELD, ""))

    async def top_up(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/topup"""
        form = await visit.form()
        add: Json = {}
        if form.get("usd"):
            add["cost_usd_micros"] = round(_number(form["usd"], "US dollars") * 1_000_000)
        if form.get("tokens"):
            add["tokens"] = round(_number(form["tokens"], "tokens"))
        body = {"add": add, "reason": form.get("reason", "")}
        done = await visit.post(f"/v1/tasks/{_id(visit)}/topup", body, form.get(KEY_FIELD, ""))
        goes_on = " It was at its ceiling, and goes on." if done["resumed"] else ""
        return _done(visit, f"The task may spend more.{goes_on}")

    async def fork_form(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/fork"""
        past = await _past(visit)
        step = _chosen(past["steps"], visit.word("step"))
        story = (await visit.get(f"/v1/tasks/{_id(visit)}/why"))["story"]
        again, taken = _split(past["steps"], past["accepted"], step["id"])
        calls = [(row["step_id"], call) for row in story["steps"] for call in row["calls"]]
        return visit.page(
            "tasks/fork.html",
            task=past["task"],
            steps=past["steps"],
            step=step,
            again=again,
            taken=taken,
            written=[call for name, call in calls if name in again and call["writes"] and call["outcome"] != "refused"],
        )

    async def fork(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/fork"""
        form, past = await visit.form(), await _past(visit)
        chosen = _chosen(past["steps"], form.get("step", ""))
        edit = {name: form[name] for name in ("title", "instruction", "acceptance") if name in form}
        steps = [one | edit if one["id"] == chosen["id"] else one for one in past["steps"]]
        _, taken = _split(steps, past["accepted"], chosen["id"])
        task = past["task"]
        body = {name: task[name] for name in OF_THE_REQUEST if task.get(name) not in (None, "", [])}
        body |= {
            "objective": form.get("objective") or task["objective"],
            "limits": task["limits"],
            "tools": task["tools"],
            "plan": {"steps": steps},
            "fork": {"task": _id(visit), "steps": taken},
        }
        made = await visit.post("/v1/tasks", body, form.get(KEY_FIELD, ""))
        return back(visit.request, f"/tasks/{made['task_id']}")


def _id(visit: Visit) -> str:
    found: str = visit.request.path_params["task_id"]
    return found


def _done(visit: Visit, what: str) -> Response:
    return visit.page("tasks/done.html", what=what, task_id=_id(visit))


def _number(said: str, what: str) -> float:
    try:
        number = float(said)
    except ValueError:
        number = -1.0
    if not 0 < number < 1e12:
        raise Refused(
            422, {"title": "Not a number", "detail": f"{what}: {said[:40]!r}", "hint": "send a number above 0"}
        )
    return number


async def _past(visit: Visit) -> dict[str, Any]:
    """An ended task with the steps of its last plan, and which were accepted. Raises Refused."""
    task = await visit.get(f"/v1/tasks/{_id(visit)}")
    if task["status"] not in ("succeeded", "failed", "cancelled", "halted"):
        what = "the task has not ended"
        raise Refused(409, {"title": "Not yet", "detail": what, "hint": "wait for its end, or cancel it"})
    steps: list[Json] = []
    accepted: list[str] = []
    async for name, data in visit.api.events(visit.token, f"/v1/tasks/{_id(visit)}/events"):
        if name == "plan.adopted":
            steps, accepted = data["plan"]["steps"], []
        elif name == "step.ended" and data["outcome"] == "accepted":
            accepted.append(data["step_id"])
    if not steps or any(one["kind"] != "noop" and not one["instruction"] for one in steps):
        what = "it had no plan" if not steps else "its plan's words are kept back by the tenant's output policy"
        raise Refused(409, {"title": "Nothing to fork", "detail": what, "hint": "submit the objective again"})
    return {"task": task, "steps": steps, "accepted": accepted}


def _chosen(steps: list[Json], name: str) -> Json:
    return next((one for one in steps if one["id"] == name), steps[0])


def _split(steps: list[Json], accepted: list[str], first: str) -> tuple[list[str], list[str]]:
    """The steps that run again (this one, those that depend on it, those without a result), and those taken over."""
    again = {first} | {one["id"] for one in steps if one["id"] not in accepted}
    for _ in steps:
        again |= {one["id"] for one in steps if again & set(one["inputs"])}
    ids = [one["id"] for one in steps]
    return [name for name in ids if name in again], [name for name in ids if name not in again]
