"""The room of approvals: what waits for a person, exactly as it is made if it is granted, and what became of the rest;
writes of which a person has to say whether they were done.

In: visits, and forms with the digest of the call that the person saw. Out: pages.
"""

import asyncio

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.approvals import STATES
from bulkhead.gateway_api.query import APPROVERS
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to

TRUST = {
    "user": "the asker's own words",
    "operator": "the operator of the mesh",
    "retrieved": "a document: its author may be anybody",
    "tool": "a tool's answer: whoever filled it may be anybody",
    "model": "a model's words: nobody vouches for them",
}
"""The author of a value, from the most trusted to the least."""
SHOWN_WRITES, NAMED_TASKS = 50, 100

NO_TASK: Json = {"objective": "", "status": "", "standing": None, "answered": None}


class ConsoleApprovalRoutes(ConsoleRoutes):
    """The routes under /approvals."""

    def routes(self) -> list[Route]:
        """Routes of the approval pages."""
        return [
            self.factory.get_route("/approvals", self.list_approvals),
            self.factory.get_route("/approvals/{approval_id}", self.show_approval),
            self.factory.get_route("/approvals/{approval_id}/state", self.show_state),
            self.factory.post_route("/approvals/{approval_id}", self.submit_decision),
        ]

    async def list_approvals(self, visit: Visit) -> Response:
        """GET /approvals"""
        state, task = visit.query_value("state") or "waiting", visit.query_value("task")
        page, writes, tasks = await asyncio.gather(
            visit.get("/v1/approvals", state=state, task=task),
            visit.get_or("/v1/writes", {"writes": [], "more": 0}, {"task": task}),
            visit.get("/v1/tasks", code="uncertain_effect", limit=NAMED_TASKS),
        )
        shown = writes["writes"][:SHOWN_WRITES]
        left_out = writes["more"] + len(writes["writes"]) - len(shown)
        return visit.render_page(
            "approvals/list.html",
            approvals=page["approvals"],
            more=page["more"],
            writes=writes | {"writes": shown, "more": left_out},
            objectives={row["task_id"]: row["objective"] for row in tasks["tasks"]},
            state=state,
            task=task,
            states=STATES,
        )

    async def show_approval(self, visit: Visit) -> Response:
        """GET /approvals/{approval_id}"""
        approval = await visit.get(_api_path(visit))
        request = approval["request"]
        task = await visit.get_or(f"/v1/tasks/{approval['task_id']}", NO_TASK)
        explanation = await visit.get_or(f"/v1/tasks/{approval['task_id']}/why", {"story": {"steps": []}})
        step, call = _asking_step(explanation["story"]["steps"], request)
        return visit.render_page(
            "approvals/approval.html",
            approval=approval,
            asked=request,
            arguments=request["arguments_json"],
            task=task,
            step=step,
            call=call,
            trust=TRUST,
            **_allowed_actions(visit, request),
        )

    async def show_state(self, visit: Visit) -> Response:
        """GET /approvals/{approval_id}/state: what an open page reads again at each change, the approval alone"""
        approval = await visit.get(_api_path(visit))
        request = approval["request"]
        return visit.render_page(
            "approvals/state_page.html", approval=approval, asked=request, **_allowed_actions(visit, request)
        )

    async def submit_decision(self, visit: Visit) -> Response:
        """POST /approvals/{approval_id}"""
        form = await visit.read_form()
        body = {name: form.get(name, "") for name in ("decision", "arguments_sha256")}
        if form.get("reason"):
            body["reason"] = form["reason"]
        await visit.post(_api_path(visit), body, form.get(KEY_FIELD, ""))
        granted = body["decision"] == "granted"
        flash = (
            "The call is granted: it is made once, as shown." if granted else "The call is denied: its agent is told."
        )
        return redirect_to(visit.request, f"/approvals/{visit.request.path_params['approval_id']}", flash)


def _allowed_actions(visit: Visit, approval: Json) -> Json:
    """Actions that the page offers: a decision, to those who may decide. here: the approval's own page."""
    return {
        "here": f"/approvals/{visit.request.path_params['approval_id']}",
        "may": visit.claim.role in APPROVERS.names,
        "own": approval["four_eyes"] and visit.claim.person == approval["asked_for"],
    }


def _api_path(visit: Visit) -> str:
    return f"/v1/approvals/{visit.request.path_params['approval_id']}"


def _asking_step(steps: list[Json], approval: Json) -> tuple[Json | None, Json | None]:
    """The step that asks, and its call, as the task's story has them; None where it has them not yet."""
    step = next((candidate for candidate in reversed(steps) if candidate["step_id"] == approval["step_id"]), None)
    calls: list[Json] = step["calls"] if step else []
    return step, next((candidate for candidate in calls if candidate["call_id"] == approval["call_id"]), None)
