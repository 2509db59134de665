"""The room of workflows: versions as graph and file, what differs, review, publication, and a form to run one.

In: visits; forms by which a person moves a version on or runs it. Out: pages.
"""

from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import OVERSEERS, SUBMITTERS
from bulkhead.workflows.acts import RULES
from bulkhead.workflows.compose import compose_run
from bulkhead.workflows.difference import compare_workflows
from bulkhead.workflows.files import write_workflow
from bulkhead_contracts.workflow import WorkflowAction, WorkflowContent
from bulkhead_services.gateway.console.api import Json
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


class ConsoleWorkflowRoutes(ConsoleRoutes):
    """The routes under /workflows."""

    def routes(self) -> list[Route]:
        """Routes of the pages of workflows."""
        get, post = self.factory.get_route, self.factory.post_route
        return [
            get("/workflows", self.list_workflows),
            get("/workflows/{workflow}", self.show_workflow),
            post("/workflows/{workflow}/run", self.run_version),
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
            may_run=row["state"] == "published" and role in SUBMITTERS.names,
            here=f"/workflows/{quote(row['workflow'], safe='')}",
        )

    async def move_version(self, visit: Visit) -> Response:
        """POST /workflows/{workflow}/{act}"""
        form, act = await visit.read_form(), visit.request.path_params["act"]
        number, path = form.get("number", ""), _api_path(visit)
        body = {"action": act, "sha256": form.get("sha256", ""), "reason": form.get("reason", "")}
        row = await visit.post(f"{path}/versions/{quote(number, safe='')}", body, form.get(KEY_FIELD, ""))
        name = f"{row['workflow']}.{row['number']}"
        done = f"{name} is {row['state'].replace('_', ' ')}."
        return redirect_to(visit.request, f"/workflows/{row['workflow']}?version={row['number']}", done)

    async def run_version(self, visit: Visit) -> Response:
        """POST /workflows/{workflow}/run"""
        form = await visit.read_form()
        number = form.get("number", "")
        body = {
            "version": int(number) if number.isascii() and number.isdigit() and len(number) < 7 else 0,
            "parameters": {name.removeprefix(VALUE): text for name, text in form.items() if name.startswith(VALUE)},
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


def _api_path(visit: Visit) -> str:
    return f"/v1/workflows/{quote(visit.request.path_params['workflow'], safe='')}"
