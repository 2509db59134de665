"""The room of coordination health: who waits for whom, what went in circles, which breakers and halts hold work back.

In: visits; forms by which a person resets a breaker, halts or resumes. Out: pages, with the waits as a graph.
"""

from typing import get_args

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_contracts.control import HaltScope
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.drawing import DrawnStep, LayeredGraph, WaitRing, draw_layers, draw_ring
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to

DRAWN = 60
"""Waits that are drawn; all that are told stand in the table."""
RING = 12
"""Parties of a circle that are drawn."""
OF_MANY = ("breaker", "model")
"""Detectors whose evidence is of any tasks."""
PATHS = {"reset": "/v1/resets", "resume": "/v1/resumes", "halt": "/v1/halts"}
NOTHING: Json = {"waits": [], "more_waits": 0, "trips": [], "windows": []}


class ConsoleCoordinationRoutes(ConsoleRoutes):
    """The routes under /coordination."""

    def routes(self) -> list[Route]:
        """Routes of the coordination pages."""
        return [
            self.factory.get_route("/coordination", self.show_health),
            self.factory.post_route("/coordination/{act}", self.submit_action),
        ]

    async def show_health(self, visit: Visit) -> Response:
        """GET /coordination"""
        coordination = await visit.get_or("/v1/coordination", NOTHING)
        breakers = (await visit.get("/v1/breakers"))["breakers"]
        windows = {(window["scope"], window["name"]): window for window in coordination["windows"]}
        return visit.render_page(
            "coordination/health.html",
            told=coordination,
            refused=coordination.get("refused"),
            graph=draw_waits(coordination["waits"][:DRAWN]),
            trips=[
                (finding["trip"], finding["task"], draw_deadlock(finding["trip"]), list_evidence(finding))
                for finding in coordination["trips"]
            ],
            leases=[wait for wait in coordination["waits"] if wait["kind"] == "held"],
            breakers=[
                (breaker, windows.pop((breaker["scope"], breaker["called"] or breaker["name"]), None))
                for breaker in breakers
            ],
            counting=[window for window in windows.values() if window["failed"] or window["slow"]],
            halts=(await visit.get("/v1/halts"))["halts"],
            scopes=get_args(HaltScope),
        )

    async def submit_action(self, visit: Visit) -> Response:
        """POST /coordination/{act}: reset, resume or halt"""
        form = await visit.read_form()
        path = PATHS.get(visit.request.path_params["act"], "")
        body = {name: form.get(name, "") for name in ("scope", "name", "reason")}
        await visit.post(path or "/v1/no-such-act", body, form.get(KEY_FIELD, ""))
        return redirect_to(visit.request, "/coordination")


def draw_waits(waits: list[Json]) -> LayeredGraph:
    """The parties of open waits, each behind those that it waits for. A party that is stuck is drawn as failed."""
    behind: dict[str, list[str]] = {}
    stuck = {wait["waiter"] for wait in waits if wait["stuck"]}
    for wait in waits:
        behind.setdefault(wait["waiter"], []).extend(wait["targets"])
        for target in wait["targets"]:
            behind.setdefault(target, [])
    return draw_layers(
        [
            DrawnStep(name, name, tuple(dict.fromkeys(inputs)), "failed" if name in stuck else _party_status(inputs))
            for name, inputs in behind.items()
        ]
    )


def waits_of_task(waits: list[Json], task: str) -> list[Json]:
    """The waits of a task's steps, those for them, and whatever they wait for in turn."""

    def belongs_to_task(party: str) -> bool:
        return party.startswith(f"{task}/")

    related = [wait for wait in waits if belongs_to_task(wait["waiter"]) or any(map(belongs_to_task, wait["targets"]))]
    related_ids, front = {id(one) for one in related}, {target for one in related for target in one["targets"]}
    while front:
        added = [wait for wait in waits if wait["waiter"] in front and id(wait) not in related_ids]
        related_ids |= {id(wait) for wait in added}
        related += added
        front = {target for wait in added for target in wait["targets"]}
    return related


def draw_deadlock(trip: Json) -> WaitRing | None:
    """The circle of a deadlock that was broken, the one that gave way marked; None for other findings, and for a circle
    that is too large to be drawn: its words tell it."""
    cycle = trip.get("cycle", [])
    if not 2 <= len(cycle) <= RING:
        return None
    victim = trip.get("victim", "")
    steps = [DrawnStep(name, name, status="gave way" if name == victim else "") for name in cycle]
    return draw_ring(steps, ["waits for" if _is_step(name) else "is held by" for name in cycle])


def _is_step(party: str) -> bool:
    """Resources have a colon in front, and may have a slash behind it."""
    task, slash, _ = party.partition("/")
    return bool(slash) and ":" not in task


def list_evidence(finding: Json) -> list[tuple[str, str]]:
    """Ids of messages, each with the task in whose messages it stands; "" where that is not known."""
    trip = finding["trip"]
    ids = trip["evidence"]
    if trip["detector"] == "deadlock":
        tasks = trip.get("tasks", [])
        return list(zip(ids, tasks if len(tasks) == len(ids) else [""] * len(ids), strict=True))
    elsewhere = trip["detector"].partition(".")[0] in OF_MANY
    return [(name, "" if elsewhere else finding["task"]) for name in ids]


def _party_status(inputs: list[str]) -> str:
    return "waiting" if inputs else "running"
