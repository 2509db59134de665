"""The room of coordination health: who waits for whom, what went in circles, which breakers and halts hold work back.

In: visits; forms by which a person resets a breaker, halts or resumes. Out: pages, with the waits as a graph.
"""

from typing import get_args

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_contracts.control import HaltScope
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.desk import KEY_FIELD, Desk, Visit, back
from bulkhead_services.gateway.console.drawing import Graph, Step, layered

DRAWN = 60
"""Waits that are drawn; all that are told stand in the table."""
PATHS = {"reset": "/v1/resets", "resume": "/v1/resumes", "halt": "/v1/halts"}
NOTHING: Json = {"waits": [], "more_waits": 0, "trips": [], "windows": []}


class Coordination:
    """The routes under /coordination."""

    def __init__(self, at: Desk) -> None:
        self._desk = at

    def routes(self) -> list[Route]:
        """Where they are."""
        return [self._desk.get("/coordination", self.show), self._desk.post("/coordination/{act}", self.act)]

    async def show(self, visit: Visit) -> Response:
        """GET /coordination"""
        told = await visit.get_or("/v1/coordination", NOTHING)
        breakers = (await visit.get("/v1/breakers"))["breakers"]
        windows = {(one["scope"], one["name"]): one for one in told["windows"]}
        return visit.page(
            "coordination/health.html",
            told=told,
            refused=told.get("refused"),
            graph=waiting(told["waits"][:DRAWN]),
            leases=[one for one in told["waits"] if one["kind"] == "held"],
            breakers=[(one, windows.pop((one["scope"], one["called"] or one["name"]), None)) for one in breakers],
            counting=[one for one in windows.values() if one["failed"] or one["slow"]],
            halts=(await visit.get("/v1/halts"))["halts"],
            scopes=get_args(HaltScope),
        )

    async def act(self, visit: Visit) -> Response:
        """POST /coordination/{act}: reset, resume or halt"""
        form = await visit.form()
        path = PATHS.get(visit.request.path_params["act"], "")
        body = {name: form.get(name, "") for name in ("scope", "name", "reason")}
        await visit.post(path or "/v1/no-such-act", body, form.get(KEY_FIELD, ""))
        return back(visit.request, "/coordination")


def waiting(waits: list[Json]) -> Graph:
    """The parties of open waits, each behind those that it waits for. A party that is stuck is drawn as failed."""
    behind: dict[str, list[str]] = {}
    stuck = {one["waiter"] for one in waits if one["stuck"]}
    for wait in waits:
        behind.setdefault(wait["waiter"], []).extend(wait["targets"])
        for target in wait["targets"]:
            behind.setdefault(target, [])
    return layered(
        [
            Step(name, name, tuple(dict.fromkeys(inputs)), "failed" if name in stuck else _phase(inputs))
            for name, inputs in behind.items()
        ]
    )


def _phase(inputs: list[str]) -> str:
    return "waiting" if inputs else "running"
