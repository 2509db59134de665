"""The room of approvals: what waits for a person, exactly as it is made if it is granted, and what became of the rest.

In: visits, and forms with the digest of the call that the person saw. Out: pages.
"""

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console import pages
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.desk import KEY_FIELD, Desk, Visit, back
from bulkhead_services.gateway.http.approval_schemas import STATES
from bulkhead_services.gateway.read_model.task_view import MAY_APPROVE

TRUST = {
    "user": "the asker's own words",
    "operator": "the operator of the mesh",
    "retrieved": "a document: its author may be anybody",
    "tool": "a tool's answer: whoever filled it may be anybody",
    "model": "a model's words: nobody vouches for them",
}
"""The author of a value, from the most trusted to the least."""


class Approvals:
    """The routes under /approvals."""

    def __init__(self, at: Desk) -> None:
        self._desk = at

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            self._desk.get("/approvals", self.list),
            self._desk.get("/approvals/{approval_id}", self.show),
            self._desk.get("/approvals/{approval_id}/state", self.state),
            self._desk.post("/approvals/{approval_id}", self.decide),
        ]

    async def list(self, visit: Visit) -> Response:
        """GET /approvals"""
        state, task = visit.word("state") or "waiting", visit.word("task")
        found = await visit.get("/v1/approvals", state=state, task=task)
        return visit.page(
            "approvals/list.html",
            approvals=found["approvals"],
            more=found["more"],
            state=state,
            task=task,
            states=STATES,
        )

    async def show(self, visit: Visit) -> Response:
        """GET /approvals/{approval_id}"""
        found = await visit.get(_path(visit))
        asked = found["request"]
        task = await visit.get_or(f"/v1/tasks/{found['task_id']}", {"objective": "", "status": ""})
        told = await visit.get_or(f"/v1/tasks/{found['task_id']}/why", {"story": {"steps": []}})
        step, call = _doing(told["story"]["steps"], asked)
        return visit.page(
            "approvals/approval.html",
            approval=found,
            asked=asked,
            arguments=pages.spread(asked["arguments_json"]),
            task=task,
            step=step,
            call=call,
            trust=TRUST,
            **_acts(visit, asked),
        )

    async def state(self, visit: Visit) -> Response:
        """GET /approvals/{approval_id}/state: what an open page reads again at each change, the approval alone"""
        found = await visit.get(_path(visit))
        asked = found["request"]
        return visit.page("approvals/state_page.html", approval=found, asked=asked, **_acts(visit, asked))

    async def decide(self, visit: Visit) -> Response:
        """POST /approvals/{approval_id}"""
        form = await visit.form()
        body = {name: form.get(name, "") for name in ("decision", "arguments_sha256")}
        if form.get("reason"):
            body["reason"] = form["reason"]
        await visit.post(_path(visit), body, form.get(KEY_FIELD, ""))
        return back(visit.request, f"/approvals/{visit.request.path_params['approval_id']}")


def _acts(visit: Visit, asked: Json) -> Json:
    """What the page offers: a decision, to those who may decide. here: the approval's own page."""
    return {
        "here": f"/approvals/{visit.request.path_params['approval_id']}",
        "may": visit.claim.role in MAY_APPROVE,
        "own": asked["four_eyes"] and visit.claim.person == asked["asked_for"],
    }


def _path(visit: Visit) -> str:
    return f"/v1/approvals/{visit.request.path_params['approval_id']}"


def _doing(steps: list[Json], asked: Json) -> tuple[Json | None, Json | None]:
    """The step that asks, and its call, as the task's story has them; None where it has them not yet."""
    step = next((one for one in reversed(steps) if one["step_id"] == asked["step_id"]), None)
    calls: list[Json] = step["calls"] if step else []
    return step, next((one for one in calls if one["call_id"] == asked["call_id"]), None)
