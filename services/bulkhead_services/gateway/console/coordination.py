"""The room of coordination health: who waits for whom, what went in circles, which breakers and halts hold work back.

In: visits; forms by which a person resets a breaker, halts or resumes. Out: pages, with the waits as a graph.
"""

from typing import get_args

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_contracts.control import HaltScope
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.desk import KEY_FIELD, Desk, Visit, back
from bulkhead_services.gateway.console.drawing import Graph, Ring, Step, layered, ring

DRAWN = 60
"""Waits that are drawn; all that are told stand in the table."""
RING = 12
"""Parties of a circle that are drawn."""
OF_MANY = ("breaker", "model")
"""Detectors whose evidence is of any tasks."""
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
            trips=[(one["trip"], one["task"], broken(one["trip"]), evidence(one)) for one in told["trips"]],
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


def of_task(waits: list[Json], task: str) -> list[Json]:
    """The waits of a task's steps, those for them, and whatever they wait for in turn."""

    def its(party: str) -> bool:
        return party.startswith(f"{task}/")

    found = [one for one in waits if its(one["waiter"]) or any(map(its, one["targets"]))]
    known, front = {id(one) for one in found}, {target for one in found for target in one["targets"]}
    while front:
        more = [one for one in waits if one["waiter"] in front and id(one) not in known]
        known |= {id(one) for one in more}
        found += more
        front = {target for one in more for target in one["targets"]}
    return found


def broken(trip: Json) -> Ring | None:
    """The circle of a deadlock that was broken, the one that gave way marked; None for other findings, and for a circle
    that is too large to be drawn: its words tell it."""
    cycle = trip.get("cycle", [])
    if not 2 <= len(cycle) <= RING:
        return None
    victim = trip.get("victim", "")
    steps = [Step(name, name, status="gave way" if name == victim else "") for name in cycle]
    return ring(steps, ["waits for" if _is_step(name) else "is held by" for name in cycle])


def _is_step(party: str) -> bool:
    """Resources have a colon in front, and may have a slash behind it."""
    task, slash, _ = party.partition("/")
    return bool(slash) and ":" not in task


def evidence(one: Json) -> list[tuple[str, str]]:
    """Ids of messages, each with the task in whose messages it stands; "" where that is not known."""
    trip = one["trip"]
    ids = trip["evidence"]
    if trip["detector"] == "deadlock":
        tasks = trip.get("tasks", [])
        return list(zip(ids, tasks if len(tasks) == len(ids) else [""] * len(ids), strict=True))
    elsewhere = trip["detector"].partition(".")[0] in OF_MANY
    return [(name, "" if elsewhere else one["task"]) for name in ids]


def _phase(inputs: list[str]) -> str:
    return "waiting" if inputs else "running"
