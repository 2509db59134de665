"""The room of workflows: versions as graph and file, what differs, review, publication, runs, and the schedule.

In: visits; forms by which a person moves a version on, runs or schedules it. Out: pages.
"""

import time
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import OVERSEERS, SUBMITTERS
from bulkhead.workflows.acts import RULES
from bulkhead.workflows.compose import compose_run
from bulkhead.workflows.difference import compare_workflows
from bulkhead.workflows.files import write_workflow
from bulkhead.workflows.schedules import next_runs
from bulkhead_contracts.workflow import WorkflowAction, WorkflowContent, WorkflowSchedule
from bulkhead_services.gateway.console.api import ApiRefused, Json
from bulkhead_services.gateway.console.drawing import DrawnStep, LayeredGraph, draw_layers
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to

ACT_NAMES: dict[WorkflowAction, str] = {
    "submit": "Submit for review",
    "approve": "Approve",
    "publish": "Publish",
    "reject": "Reject",
    "retire": "Retire",
}
"""Acts that are a press of a button, in this order."""
VALUE = "value-"
SHOWN_RUNS = 10
SHOWN_NEXT_RUNS = 5


class ConsoleWorkflowRoutes(ConsoleRoutes):
    """The routes under /workflows."""

    def routes(self) -> list[Route]:
        """Routes of the pages of workflows."""
        get, post = self.factory.get_route, self.factory.post_route
        return [
            get("/workflows", self.list_workflows),
            get("/workflows/{workflow}", self.show_workflow),
            post("/workflows/{workflow}/run", self.run_version),
            post("/workflows/{workflow}/schedule", self.set_schedule),
            post("/workflows/{workflow}/pause", self.pause_schedule),
            post("/workflows/{workflow}/{act}", self.move_version),
        ]

    async def list_workflows(self, visit: Visit) -> Response:
        """GET /workflows"""
        page, spent = await visit.get("/v1/workflows", after=visit.query_value("after")), {}
        if visit.claim.role in OVERSEERS.names:
            spend = await visit.get_or("/v1/spend", {"rows": []}, {"by": "workflow", "since": "7d"})
            spent = {row["name"]: row["spent"] for row in spend["rows"]}
        return visit.render_page("workflows/list.html", workflows=page["workflows"], next=page.get("next"), spent=spent)

    async def show_workflow(self, visit: Visit) -> Response:
        """GET /workflows/{workflow}: a version, and what differs from another one"""
        number, against = visit.query_value("version"), visit.query_value("against")
        document = await visit.get(_api_path(visit), version=number or 0)
        content = WorkflowContent.model_validate(document["version"]["content"])
        changes = None
        if against:
            older = (await visit.get(_api_path(visit), version=against))["version"]
            changes = compare_workflows(WorkflowContent.model_validate(older["content"]), content)
        row, role = document["row"], visit.claim.role
        name = f"{row['workflow']}.{row['number']}"
        runs = await visit.get_or("/v1/tasks", {"tasks": []}, {"workflow": name, "limit": SHOWN_RUNS})
        schedule = WorkflowSchedule.model_validate(row["schedule"]) if row.get("schedule") else None
        return visit.render_page(
            "workflows/workflow.html",
            document=document,
            row=row,
            content=content,
            text=write_workflow(content),
            graph=_draw_plan(content, document["nested"]),
            changes=changes,
            name=name,
            runs=runs["tasks"],
            against=against,
            acts=[
                (act, act_name)
                for act, act_name in ACT_NAMES.items()
                if row["state"] in RULES[act].before and role in RULES[act].roles
            ],
            schedule=schedule,
            next_runs=next_runs(schedule, round(time.time() * 1000), SHOWN_NEXT_RUNS) if schedule else (),
            may_schedule=row["state"] in RULES["schedule"].before and role in RULES["schedule"].roles,
            may_run=row["state"] == "published" and role in SUBMITTERS.names,
            here=f"/workflows/{quote(row['workflow'], safe='')}",
        )

    async def move_version(self, visit: Visit) -> Response:
        """POST /workflows/{workflow}/{act}"""
        form, act = await visit.read_form(), visit.request.path_params["act"]
        return await _submit_act(visit, form, {"action": act})

    async def set_schedule(self, visit: Visit) -> Response:
        """POST /workflows/{workflow}/schedule: in the name of this person"""
        form = await visit.read_form()
        schedule: Json = {name: form.get(name, "") for name in ("cron", "zone", "missed")}
        schedule["parameters"] = _values_of(form)
        reason = f"at {schedule['cron']} in {schedule['zone']}"
        return await _submit_act(visit, form, {"action": "schedule", "reason": reason, "schedule": schedule})

    async def pause_schedule(self, visit: Visit) -> Response:
        """POST /workflows/{workflow}/pause: the schedule that stands, paused, or with `paused` no going on"""
        form = await visit.read_form()
        number, paused = form.get("number", ""), form.get("paused") != "no"
        row = (await visit.get(_api_path(visit), version=number if number.isdecimal() else 0))["row"]
        if not row.get("schedule"):
            refusal = {"title": "There is no schedule", "detail": "it was deleted", "hint": "set another one"}
            raise ApiRefused(409, refusal)
        fields = {"schedule": row["schedule"] | {"paused": paused}, "reason": "paused" if paused else "goes on"}
        return await _submit_act(visit, form, {"action": "schedule", **fields})

    async def run_version(self, visit: Visit) -> Response:
        """POST /workflows/{workflow}/run"""
        form = await visit.read_form()
        number = form.get("number", "")
        body = {
            "version": int(number) if number.isascii() and number.isdigit() and len(number) < 7 else 0,
            "parameters": _values_of(form),
        }
        receipt = await visit.post(f"{_api_path(visit)}/runs", body, form.get(KEY_FIELD, ""))
        return redirect_to(visit.request, f"/tasks/{receipt['task_id']}")


def _draw_plan(content: WorkflowContent, nested: list[Json]) -> LayeredGraph:
    """The steps of a run with sample values, those of nested workflows among them; as written where it cannot run."""
    contents = {f"{row['workflow']}.{row['number']}": WorkflowContent.model_validate(row["content"]) for row in nested}
    try:
        samples = {parameter.name: parameter.sample_value for parameter in content.parameters}
        steps = compose_run(content, samples, contents).steps
    except ValueError:
        steps = content.steps
    return draw_layers([DrawnStep(step.id, step.title or step.id, step.inputs, step.action) for step in steps])


async def _submit_act(visit: Visit, form: dict[str, str], act: Json) -> Response:
    """Move the version that a form names on, and go to its page. act: as the API takes it; what a person wrote as its
    reason comes before that."""
    number = form.get("number", "")
    body = act | {"sha256": form.get("sha256", ""), "reason": form.get("reason") or act.get("reason", "")}
    row = await visit.post(f"{_api_path(visit)}/versions/{quote(number, safe='')}", body, form.get(KEY_FIELD, ""))
    done = row["state"].replace("_", " ")
    if act["action"] in ("schedule", "unschedule"):
        schedule = row.get("schedule")
        done = "scheduled no more" if not schedule else "paused" if schedule.get("paused") else "scheduled"
    path = f"/workflows/{row['workflow']}?version={row['number']}"
    return redirect_to(visit.request, path, f"{row['workflow']}.{row['number']} is {done}.")


def _values_of(form: dict[str, str]) -> dict[str, str]:
    """Values of parameters, by name."""
    return {name.removeprefix(VALUE): text for name, text in form.items() if name.startswith(VALUE)}


def _api_path(visit: Visit) -> str:
    return f"/v1/workflows/{quote(visit.request.path_params['workflow'], safe='')}"
