"""The room of coordination: who waits for whom, now and in each minute, what went in circles, which breakers and halts
hold work back.
In: visits; forms by which a person resets a breaker, halts or resumes. Out: pages, with the waits as a graph.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.journal.story.calls import SEARCH_TOOL
from bulkhead.text.plain_text import cut_line
from bulkhead_contracts.control import HaltScope
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.drawing import DrawnStep, LayeredGraph, WaitRing, draw_layers, draw_ring
from bulkhead_services.gateway.console.task.parties import read_party_names, split_party, tasks_in
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to, sending_page

DRAWN = 60
"""Waits that are drawn; all that are told stand in the table."""
RING = 12
"""Parties of a circle that are drawn."""
OF_MANY = ("breaker", "model")
"""Detectors whose evidence is of any tasks."""
PATHS = {"reset": "/v1/resets", "resume": "/v1/resumes", "halt": "/v1/halts"}
DONE = {
    "reset": "The breaker of {} is closed: calls go out again.",
    "resume": "The halt of {} is lifted: what it held goes on where it stopped.",
    "halt": "{} is halted: its work waits until it is resumed. Deadlines go on.",
}
"""What an act did."""
NOTHING: Json = {"waits": [], "more_waits": 0, "trips": [], "windows": [], "minutes": []}
MINUTE_MS, MINUTES_DRAWN = 60_000, 180
STRIP_HEIGHT, MINUTE_WIDTH = 48, 5
MAX_LABEL_CHARS = 60
NAMED_TASKS = 100
"""Newest tasks whose objectives name the parties of waits."""


@dataclass(frozen=True, slots=True)
class MinuteBar:
    """One minute that had waits. x, height, stuck_height: of its bar, in pixels."""

    start_unix_ms: int
    waits: int
    stuck: int
    x: int
    height: int
    stuck_height: int


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
        moment = visit.query_value("at")
        at_unix_ms = int(moment) if moment.isascii() and moment.isdigit() and len(moment) < 16 else 0
        coordination, breakers, halts, tasks = await asyncio.gather(
            visit.get_or("/v1/coordination", NOTHING, {"at": at_unix_ms} if at_unix_ms else {}),
            visit.get("/v1/breakers"),
            visit.get("/v1/halts"),
            visit.get("/v1/tasks", limit=NAMED_TASKS, counts="true"),
        )
        trips = [finding["trip"] for finding in coordination["trips"]]
        parties = [name for trip in trips for name in trip.get("cycle", ())]
        parties += [name for wait in coordination["waits"][:DRAWN] for name in (wait["waiter"], *wait["targets"])]
        sentences = [halt["reason"] for halt in halts["halts"]] + [trip["what"] for trip in trips]
        names = await read_party_names(
            visit, [*(split_party(name)[0] for name in parties), *tasks_in(sentences)], tasks["tasks"]
        )
        windows = {(window["scope"], window["name"]): window for window in coordination["windows"]}
        waits = coordination["waits"]
        return visit.render_page(
            "coordination/health.html",
            coordination=coordination,
            refused=coordination.get("refused"),
            at_unix_ms=at_unix_ms,
            bars=draw_minutes(coordination["minutes"]),
            names=names,
            graph=draw_waits(waits[:DRAWN]),
            waits=[wait for wait in waits if wait["kind"] != "held"],
            trips=[
                (finding["trip"], finding["task"], draw_deadlock(finding["trip"]), list_evidence(finding))
                for finding in coordination["trips"]
            ],
            leases=[wait for wait in waits if wait["kind"] == "held"],
            breakers=[
                (breaker, windows.pop((breaker["scope"], breaker["called"] or breaker["name"]), None))
                for breaker in breakers["breakers"]
            ],
            counting=[window for window in windows.values() if window["failed"] or window["slow"]],
            halts=halts["halts"],
            scopes=get_args(HaltScope),
            halt_names=names_to_halt(visit.claim.tenant, tasks, [*coordination["windows"], *breakers["breakers"]]),
        )

    async def submit_action(self, visit: Visit) -> Response:
        """POST /coordination/{act}: reset, resume or halt"""
        form = await visit.read_form()
        act = visit.request.path_params["act"]
        body = {name: form.get(name, "") for name in ("scope", "name", "reason")}
        await visit.post(PATHS.get(act, "/v1/no-such-act"), body, form.get(KEY_FIELD, ""))
        flash = DONE[act].format(f"{body['scope']} {body['name']}")
        return redirect_to(visit.request, sending_page(visit.request, "/coordination"), flash)


def names_to_halt(tenant: str, tasks: Json, watched: Sequence[Json]) -> list[tuple[str, str]]:
    """Names that may be halted, each with its scope in words. tasks: a page of the list with its counts. watched:
    breakers and their windows."""
    names = tasks["counts"]["names"]
    rows = [(name, "tool") for name in (SEARCH_TOOL, *names["tools"])]
    rows += [(name, "model") for name in names["models"]] + [(name, "feature") for name in names["features"]]
    rows += [(row.get("called") or row["name"], row["scope"]) for row in watched] + [(tenant, "tenant")]
    going_on = [task for task in tasks["tasks"] if task["status"] in ("queued", "running", "paused")]
    rows += [(task["task_id"], f"task: {cut_line(task['objective'], MAX_LABEL_CHARS)}") for task in going_on]
    return list(dict.fromkeys(rows))


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


def draw_minutes(minutes: Sequence[Json]) -> tuple[MinuteBar, ...]:
    """Minutes that had waits as bars of one scale, the last one at the right end of the strip."""
    most = max((minute["waits"] for minute in minutes), default=0)
    if not most:
        return ()
    last = minutes[-1]["start_unix_ms"]
    return tuple(
        MinuteBar(
            minute["start_unix_ms"],
            minute["waits"],
            minute["stuck"],
            (MINUTES_DRAWN - 1 - place) * MINUTE_WIDTH,
            max(4, STRIP_HEIGHT * minute["waits"] // most),
            STRIP_HEIGHT * minute["stuck"] // most,
        )
        for minute in minutes
        if (place := (last - minute["start_unix_ms"]) // MINUTE_MS) < MINUTES_DRAWN
    )


def draw_deadlock(trip: Json) -> WaitRing | None:
    """The circle of a deadlock that was broken, the one that gave way marked; None for other findings, and for a circle
    that is too large to be drawn: its words tell it."""
    cycle = trip.get("cycle", [])
    if not 2 <= len(cycle) <= RING:
        return None
    victim = trip.get("victim", "")
    steps = [DrawnStep(name, name, status="gave way" if name == victim else "") for name in cycle]
    return draw_ring(steps, ["waits for" if split_party(name)[0] else "is held by" for name in cycle])


def list_evidence(finding: Json) -> list[tuple[str, str]]:
    """Ids of messages, each with the task in whose messages it stands; "" where that is not known."""
    trip = finding["trip"]
    ids = trip["evidence"]
    tasks = trip.get("tasks", [])
    if trip["detector"] == "deadlock" or tasks:
        return list(zip(ids, tasks if len(tasks) == len(ids) else [""] * len(ids), strict=True))
    elsewhere = trip["detector"].partition(".")[0] in OF_MANY
    return [(name, "" if elsewhere else finding["task"]) for name in ids]


def _party_status(inputs: list[str]) -> str:
    return "waiting" if inputs else "running"
