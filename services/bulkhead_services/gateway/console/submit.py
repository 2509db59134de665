"""The room of a new task: what is asked, for which feature, at what cost and until when.

In: visits; a form. Out: a page, and the task's page once it is stored.
"""

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import SUBMITTERS
from bulkhead_contracts import bounds
from bulkhead_services.gateway.console.api import ApiRefused, Json
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to

DELIVERIES = {
    "draft": "as it is written",
    "verified": "sentence by sentence, with sources",
    "held": "when it is checked",
}


class ConsoleSubmissionRoutes(ConsoleRoutes):
    """The route /new-task."""

    def routes(self) -> list[Route]:
        """Routes of the form."""
        return [
            self.factory.get_route("/new-task", self.show_form),
            self.factory.post_route("/new-task", self.submit_task),
        ]

    async def show_form(self, visit: Visit) -> Response:
        """GET /new-task"""
        documents = await visit.get_or("/v1/documents", {"documents": [], "next": None}, {"limit": 5})
        return visit.render_page(
            "tasks/new.html",
            form={"objective": visit.query_value("objective"), "feature": visit.query_value("feature")},
            documents=documents,
            may_submit=visit.claim.role in SUBMITTERS.names,
            deliveries=DELIVERIES,
            max_chars=bounds.MAX_OBJECTIVE_CHARS,
        )

    async def submit_task(self, visit: Visit) -> Response:
        """POST /new-task"""
        form = await visit.read_form()
        body: Json = {"objective": form.get("objective", ""), "check": form.get("check") == "yes"}
        body |= {name: form[name] for name in ("feature", "delivery") if form.get(name)}
        limits: dict[str, Any] = {}
        if form.get("usd"):
            limits["cost_usd_micros"] = round(_parse_number(form["usd"], "the ceiling") * 1_000_000)
        if form.get("minutes"):
            limits["deadline_ms"] = round(_parse_number(form["minutes"], "the deadline") * 60_000)
        receipt = await visit.post("/v1/tasks", body | ({"limits": limits} if limits else {}), form.get(KEY_FIELD, ""))
        return redirect_to(visit.request, f"/tasks/{receipt['task_id']}")


def _parse_number(text: str, field: str) -> float:
    """A number above 0. Raises ApiRefused."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 10**6:
        problem: Json = {
            "title": "Not a number",
            "detail": f"{field} is {text[:40]!r}",
            "hint": "send a number above 0",
        }
        raise ApiRefused(422, problem)
    return number
