"""Acts of a person on a task: cancel, halt, lift what holds it, top up, retry, fork. Each is a request to the API.

In: forms. Out: their effect in words, or the API's refusal.
"""

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.plans.plan_types import must_run_again
from bulkhead_contracts.plan import PlanStep
from bulkhead_contracts.task_options import TaskOptions
from bulkhead_services.gateway.console.api import ApiRefused, Json
from bulkhead_services.gateway.console.task.uncertain import require_resolved_writes
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to, safe_path


class ConsoleTaskActionRoutes(ConsoleRoutes):
    """The routes under /tasks/{task_id} that change something, and the form of a fork."""

    def routes(self) -> list[Route]:
        """Routes of the actions on a task."""
        return [
            self.factory.post_route("/tasks/{task_id}/cancel", self.cancel_task),
            self.factory.post_route("/tasks/{task_id}/plan", self.decide_plan),
            self.factory.post_route("/tasks/{task_id}/halt", self.halt_task),
            self.factory.post_route("/tasks/{task_id}/resume", self.lift_halt),
            self.factory.post_route("/tasks/{task_id}/reset", self.reset_breaker),
            self.factory.post_route("/tasks/{task_id}/topup", self.top_up),
            self.factory.post_route("/tasks/{task_id}/writes/{write_id}", self.resolve_write),
            self.factory.post_route("/tasks/{task_id}/rating", self.rate_task),
            self.factory.post_route("/tasks/{task_id}/retry", self.retry_task),
            self.factory.get_route("/tasks/{task_id}/fork", self.fork_form),
            self.factory.post_route("/tasks/{task_id}/fork", self.submit_fork),
        ]

    async def cancel_task(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/cancel"""
        form = await visit.read_form()
        body = {"reason": form.get("reason", "")}
        try:
            await visit.post(f"/v1/tasks/{_task_id(visit)}/cancel", body, form.get(KEY_FIELD, ""))
        except ApiRefused as error:
            if error.status != 409:
                raise
            return _render_done(visit, "It had ended already.")
        return _render_done(visit, "The cancel is stored: the planner ends the task.")

    async def decide_plan(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/plan: the drafted plan that was shown"""
        form = await visit.read_form()
        body = {name: form.get(name, "") for name in ("decision", "sha256", "reason")} | {"redraft": "redraft" in form}
        body |= {"skip": form["skip"]} if form.get("skip") else {}
        await visit.post(f"/v1/tasks/{_task_id(visit)}/plan", body, form.get(KEY_FIELD, ""))
        done = "The skip is stored: the planner goes on without the step."
        if "skip" not in body:
            done = "The decision is stored: the planner runs the plan, drafts another or ends the task."
        return _render_done(visit, done)

    async def halt_task(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/halt: the task, or a tool that it uses, for all tasks"""
        form = {"scope": "task", "name": _task_id(visit)} | await visit.read_form()
        await _submit_switch(visit, "/v1/halts", form)
        halted = "The task" if form["scope"] == "task" else f"The {form['scope']} {form['name']}"
        return _render_done(visit, f"{halted} is halted: its work waits until the halt is lifted. Deadlines go on.")

    async def lift_halt(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/resume: of the task, or of the halt that the form names"""
        form = {"scope": "task", "name": _task_id(visit)} | await visit.read_form()
        await _submit_switch(visit, "/v1/resumes", form)
        return _render_done(visit, "The halt is lifted: what it held goes on where it stopped.")

    async def reset_breaker(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/reset"""
        await _submit_switch(visit, "/v1/resets", await visit.read_form())
        return _render_done(visit, "The breaker is closed: what it held goes on.")

    async def resolve_write(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/writes/{write_id}"""
        form = await visit.read_form()
        body = {"happened": form.get("happened") == "yes", "reason": form.get("reason", "")}
        await visit.post(f"/v1/writes/{visit.request.path_params['write_id']}", body, form.get(KEY_FIELD, ""))
        return _render_done(visit, "Your word on the write is stored.")

    async def rate_task(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/rating"""
        form = await visit.read_form()
        body = {"score": form.get("score", ""), "comment": form.get("comment", "")}
        await visit.post(f"/v1/tasks/{_task_id(visit)}/rating", body, form.get(KEY_FIELD, ""), "PUT")
        page = safe_path(form.get("next") or f"/tasks/{_task_id(visit)}")
        return redirect_to(visit.request, page, f"Your rating is stored: {body['score']}.")

    async def top_up(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/topup"""
        form = await visit.read_form()
        body = {"add": _parse_amounts(form), "reason": form.get("reason", "")}
        done = await visit.post(f"/v1/tasks/{_task_id(visit)}/topup", body, form.get(KEY_FIELD, ""))
        goes_on = " It was at its ceiling, and goes on." if done["resumed"] else ""
        return _render_done(visit, f"The task may spend more.{goes_on}")

    async def fork_form(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/fork"""
        past = await read_past(visit, _task_id(visit))
        step = _chosen_step(past["steps"], visit.query_value("step"))
        story = (await visit.get(f"/v1/tasks/{_task_id(visit)}/why"))["story"]
        rerun, reused = _split_steps(past["steps"], past["accepted"], step["id"])
        calls = [(row["step_id"], call) for row in story["steps"] for call in row["calls"]]
        return visit.render_page(
            "tasks/fork.html",
            task=past["task"],
            steps=past["steps"],
            step=step,
            again=rerun,
            taken=reused,
            written=[call for name, call in calls if name in rerun and call["writes"] and call["outcome"] != "refused"],
        )

    async def submit_fork(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/fork"""
        form, past = await visit.read_form(), await read_past(visit, _task_id(visit))
        chosen = _chosen_step(past["steps"], form.get("step", ""))
        edit = {name: form[name] for name in ("title", "instruction", "acceptance") if name in form}
        steps = [step | edit if step["id"] == chosen["id"] else step for step in past["steps"]]
        return await _submit_again(visit, form, fork_body(past | {"steps": steps}, chosen["id"]))

    async def retry_task(self, visit: Visit) -> Response:
        """POST /tasks/{task_id}/retry: its steps without a result again, all of them where each has one; under its
        limits, or those of the form"""
        form, past = await visit.read_form(), await read_past(visit, _task_id(visit), planned=False)
        await require_resolved_writes(visit, past["task"])
        return await _submit_again(visit, form, retry_body(past) | _raised_limits(past["task"], form))


async def _submit_switch(visit: Visit, path: str, form: dict[str, str]) -> None:
    body = {name: form.get(name, "") for name in ("scope", "name", "reason")}
    await visit.post(path, body, form.get(KEY_FIELD, ""))


async def _submit_again(visit: Visit, form: dict[str, str], body: Json) -> Response:
    body["objective"] = form.get("objective") or body["objective"]
    receipt = await visit.post("/v1/tasks", body, form.get(KEY_FIELD, ""))
    return redirect_to(visit.request, f"/tasks/{receipt['task_id']}")


def _task_id(visit: Visit) -> str:
    task_id: str = visit.request.path_params["task_id"]
    return task_id


def _render_done(visit: Visit, act: str) -> Response:
    return visit.render_page("tasks/done.html", what=act, task_id=_task_id(visit))


def _parse_amounts(form: dict[str, str]) -> Json:
    """Money and tokens of a form, those that it has. Raises ApiRefused."""
    amounts: Json = {}
    if form.get("usd"):
        amounts["cost_usd_micros"] = round(_parse_number(form["usd"], "US dollars") * 1_000_000)
    if form.get("tokens"):
        amounts["tokens"] = round(_parse_number(form["tokens"], "tokens"))
    return amounts


def _raised_limits(task: Json, form: dict[str, str]) -> Json:
    amounts = _parse_amounts(form)
    return {"limits": (task["limits"] or {}) | amounts} if amounts else {}


def _parse_number(text: str, field: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < 1e12:
        raise ApiRefused(
            422, {"title": "Not a number", "detail": f"{field}: {text[:40]!r}", "hint": "send a number above 0"}
        )
    return number


async def read_past(visit: Visit, task_id: str, *, planned: bool = True) -> dict[str, Any]:
    """An ended task with the steps of its last plan, and which were accepted. planned: refuse one that had no plan.
    Raises ApiRefused."""
    task = await visit.get(f"/v1/tasks/{task_id}")
    if task["status"] not in ("succeeded", "failed", "cancelled", "halted"):
        detail = "the task has not ended"
        raise ApiRefused(409, {"title": "Not yet", "detail": detail, "hint": "wait for its end, or cancel it"})
    steps: list[Json] = []
    accepted: list[str] = []
    async for name, data in visit.api.stream_events(visit.token, f"/v1/tasks/{task_id}/events"):
        if name == "plan.adopted":
            steps, accepted = data["plan"]["steps"], []
        elif name == "step.ended" and data["outcome"] == "accepted":
            accepted.append(data["step_id"])
    if (planned and not steps) or any(step["kind"] != "noop" and not step["instruction"] for step in steps):
        detail = "it had no plan" if not steps else "its plan's words are kept back by the tenant's output policy"
        raise ApiRefused(409, {"title": "Nothing to fork", "detail": detail, "hint": "submit the objective again"})
    return {"task": task, "steps": steps, "accepted": accepted}


def retry_body(past: dict[str, Any]) -> Json:
    """The request that runs an ended task's steps without a result again, all of them where each has one."""
    without_result = [step["id"] for step in past["steps"] if step["id"] not in past["accepted"]]
    return fork_body(past if without_result else past | {"accepted": []}, next(iter(without_result), ""))


def fork_body(past: dict[str, Any], first: str) -> Json:
    """The request of a fork of an ended task from a step on; its own request once more where it had no plan."""
    task, steps = past["task"], past["steps"]
    body = {name: task[name] for name in TaskOptions.model_fields if task.get(name) not in (None, "", [])}
    body |= {"objective": task["objective"], "limits": task["limits"]}
    if steps:
        reused = _split_steps(steps, past["accepted"], first)[1]
        body |= {"plan": {"steps": steps}, "fork": {"task": task["task_id"], "steps": reused}}
    return body


def _chosen_step(steps: list[Json], name: str) -> Json:
    return next((step for step in steps if step["id"] == name), steps[0])


def _split_steps(steps: list[Json], accepted: list[str], first: str) -> tuple[list[str], list[str]]:
    """The steps that run again (this one, those without a result, those that always do, and what depends on them), and
    those taken over."""
    rerun = {first} - {""} | {step["id"] for step in steps if step["id"] not in accepted}
    unedited = [PlanStep.model_validate(step | {"title": "", "instruction": "", "acceptance": ""}) for step in steps]
    rerun |= {step.id for step in unedited if must_run_again(step)}
    for _ in steps:
        rerun |= {step["id"] for step in steps if rerun & set(step["inputs"])}
    ids = [step["id"] for step in steps]
    return [name for name in ids if name in rerun], [name for name in ids if name not in rerun]
