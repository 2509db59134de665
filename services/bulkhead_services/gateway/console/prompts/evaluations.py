"""The rooms of evaluations: what is evaluated, which cases fell and why, and what a label's gate still misses.

In: visits; forms by which a person has a version, or a canary, evaluated. Out: pages.
"""

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_contracts.prompt import PRODUCTION
from bulkhead_services.gateway.console.api import ApiRefused, Json
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to

ROOM = "/prompts/by-evaluation"


class ConsoleEvaluationRoutes(ConsoleRoutes):
    """The routes under /prompts/by-evaluation."""

    def routes(self) -> list[Route]:
        """Routes of the pages of evaluations."""
        get = self.factory.get_route
        return [get(ROOM, self.list_evaluations), get(f"{ROOM}/{{number:int}}", self.show_evaluation)]

    async def list_evaluations(self, visit: Visit) -> Response:
        """GET /prompts/by-evaluation"""
        page = await visit.get("/v1/evaluations", before=visit.query_value("before"))
        return visit.render_page("prompts/evaluations.html", rows=page["evaluations"], more=page["more"], room=ROOM)

    async def show_evaluation(self, visit: Visit) -> Response:
        """GET /prompts/by-evaluation/{number}: its progress, then the cases that fell"""
        number = visit.request.path_params["number"]
        document = await visit.get(f"/v1/evaluations/{number}")
        evaluation = document["evaluation"]
        page = await visit.get(f"/v1/releases/{evaluation['label']}")
        return visit.render_page(
            "prompts/evaluation.html",
            evaluation=evaluation,
            report=document["report"],
            statement=document["statement"],
            gate=page.get("gate"),
            here=f"{ROOM}/{number}",
            room=ROOM,
        )


async def request_evaluations(visit: Visit, form: dict[str, str], label: str, changes: list[Json]) -> Response:
    """Have changes evaluated with each set that the label's gate names, and go there. Raises ApiRefused."""
    gate = (await visit.get(f"/v1/releases/{label}")).get("gate")
    if not gate:
        reason = f"no gate stands before {label}, and names no set"
        hint = "promote without an evaluation, or have an operator write a gate (docs/how-to/change-prompts.md)"
        raise ApiRefused(409, {"title": "Nothing to evaluate with", "detail": reason, "hint": hint})
    names = ", ".join(f"{change['prompt']}@r{change['number']}" for change in changes)
    body: Json = {"label": label, "changes": changes, "reason": form.get("reason") or f"evaluate {names}"}
    numbers = []
    for case_set in sorted(gate["sets"]):
        row = await visit.post("/v1/evaluations", body | {"case_set": case_set}, form.get(KEY_FIELD, "") + case_set)
        numbers.append(row["evaluation"]["number"])
    return redirect_to(visit.request, f"{ROOM}/{numbers[0]}" if len(numbers) == 1 else ROOM)


async def read_gate(visit: Visit, prompt: str, number: int, label: str = PRODUCTION) -> dict[str, Any]:
    """The label's gate, and the newest evaluations that are of this version; for a page."""
    gate = (await visit.get(f"/v1/releases/{label}")).get("gate")
    page: Json = await visit.get("/v1/evaluations") if gate else {"evaluations": []}
    key = (prompt, number)
    rows = [
        row
        for row in page["evaluations"]
        if key in [(change["prompt"], change["number"]) for change in row["evaluation"]["changes"]]
    ]
    return {"gate": gate, "evaluations": rows[:5], "evaluation_room": ROOM}
