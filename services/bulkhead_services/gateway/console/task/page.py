"""The room of one task: how it stands, its plan as it runs, its answer with sources, its calls, its raw messages.

In: visits. Out: pages, fragments and a stream.
"""

import asyncio
import re
from collections.abc import Sequence

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console import desk, pages
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.coordination import DRAWN, NOTHING, of_task, waiting
from bulkhead_services.gateway.console.desk import Desk, Visit
from bulkhead_services.gateway.console.drawing import BAR_WIDTH, ROW_HEIGHT, Step, bars, layered
from bulkhead_services.gateway.console.watching import element_of, followed
from bulkhead_services.gateway.read_model.task_view import MAY_SUBMIT

MARKER = re.compile(r"\[#([0-9a-f]{12})\]")
ENDED = frozenset({"rejected", "succeeded", "failed", "cancelled", "halted"})
FORKED = ENDED - {"rejected"}
"""A task that was turned away has nothing to fork."""
ROWS = 100
MAX_BARS, MAX_CALLS, MAX_STEP_CALLS = 200, 400, 100
LONG_BYTES = 64 * 1024
"""A longer story is made a page in a thread."""


class Task:
    """The routes under /tasks/{task_id} that only look."""

    def __init__(self, at: Desk) -> None:
        self._desk = at

    def routes(self) -> list[Route]:
        """Where they are."""
        get = self._desk.get
        return [
            get("/tasks/{task_id}", self.show),
            get("/tasks/{task_id}/live", self.live),
            get("/tasks/{task_id}/story", self.story),
            get("/tasks/{task_id}/waits", self.waits),
            get("/tasks/{task_id}/messages", self.messages),
            get("/tasks/{task_id}/messages/{message_id}", self.message),
            get("/tasks/{task_id}/export", self.export),
            get("/tasks/{task_id}/calls/{call_id}", self.call),
            get("/tasks/{task_id}/citations/{marker}", self.citation),
        ]

    async def show(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}"""
        task = await visit.get(_api(visit))
        asker = (task["requester"] or {}).get("person")
        exports = visit.claim.role == "operator" or (visit.claim.role == "submitter" and asker == visit.claim.person)
        return visit.page(
            "tasks/task.html",
            task=task,
            exports=exports,
            ended=task["status"] in ENDED,
            answer=cited(task["answer"] or ""),
            address=desk.address(visit.request),
            approval=await self._approval(visit, task),
        )

    @staticmethod
    async def _approval(visit: Visit, task: Json) -> str:
        """Where the decision is taken that the task waits for; "" when it waits for none."""
        if not task["pause"] or not (task["pause"]["code"] == "approval" or task["pause"]["until_unix_ms"]):
            return ""
        query = {"state": "waiting", "task": task["task_id"]}
        rows = (await visit.get_or("/v1/approvals", {"approvals": []}, query))["approvals"]
        return f"/approvals/{rows[0]['approval_id']}" if len(rows) == 1 else f"/approvals?task={task['task_id']}"

    async def live(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/live"""
        return desk.live(followed(visit.api.events(visit.token, _api(visit) + "/events")))

    async def story(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/story"""
        answer = await visit.api.ask("GET", visit.token, _api(visit) + "/why")
        if len(answer.body) < LONG_BYTES:
            return _story(visit, answer.json())
        return await asyncio.to_thread(lambda: _story(visit, answer.json()))  # Streams go on meanwhile.

    async def waits(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/waits"""
        task = await visit.get(_api(visit))
        told = await visit.get_or("/v1/coordination", NOTHING)
        waits = of_task(told["waits"], task["task_id"])
        return visit.page(
            "coordination/of_task.html",
            task_id=task["task_id"],
            refused=told.get("refused"),
            waits=waits,
            more=told["more_waits"],
            graph=waiting(waits[:DRAWN]),
        )

    async def messages(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/messages"""
        after = visit.word("after") or "0"
        page = await visit.get(_api(visit) + "/timeline", limit=ROWS, after=after)
        return visit.page("tasks/messages.html", timeline=page)

    async def message(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/messages/{message_id}"""
        found = await visit.get(f"{_api(visit)}/messages/{visit.request.path_params['message_id']}")
        rows = [(one, pages.spread(one["body"])) for one in found["messages"]]
        return visit.page("tasks/message.html", told=found, rows=rows)

    async def call(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/calls/{call_id}"""
        found = await visit.get(f"{_api(visit)}/calls/{visit.request.path_params['call_id']}")
        return visit.page("tasks/call.html", told=found, call=found["call"])

    async def citation(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/citations/{marker}"""
        found = await visit.get(f"{_api(visit)}/citations/{visit.request.path_params['marker']}")
        return visit.page("tasks/citation.html", citation=found, task_id=visit.request.path_params["task_id"])

    async def export(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/export"""
        answer = await visit.api.ask("GET", visit.token, _api(visit) + "/export")
        if answer.status >= 400:
            answer.json()
        name = {"Content-Disposition": answer.headers["content-disposition"]}
        return Response(answer.body, 200, pages.SAFE | pages.NOT_KEPT | name, answer.headers["content-type"])


def _story(visit: Visit, told: Json) -> Response:
    story = told["story"]
    made = (story["planning"], *(step["calls"] for step in story["steps"]))
    calls = sorted((call for one in made for call in one), key=lambda call: call["asked_unix_ms"])
    last = max((call["asked_unix_ms"] + (call["took_ms"] or 0) for call in calls), default=0)
    took = max(story["took_ms"], last - story["began_unix_ms"])
    rows = [
        Step(row["step_id"], row["title"], tuple(row["inputs"]), row["outcome"], row["attempts"])
        for row in story["steps"]
        if row["plan_version"] == story["plans"][-1]["version"]
    ]
    return visit.page(
        "tasks/story.html",
        told=told,
        story=story,
        forks=story["status"] in FORKED and not story["adopted"] and visit.claim.role in MAY_SUBMIT,
        calls=calls,
        listed=listed(story["steps"]),
        bars=bars(calls[:MAX_BARS], story["began_unix_ms"], took),
        bar_width=BAR_WIDTH,
        row_height=ROW_HEIGHT,
        took_ms=took,
        graph=layered(rows),
        element_of=element_of,
    )


def listed(steps: Sequence[Json]) -> list[list[Json]]:
    """Calls of each step, the first of each and MAX_CALLS of all of them."""
    room, found = MAX_CALLS, list[list[Json]]()
    for step in steps:
        found.append(step["calls"][: min(room, MAX_STEP_CALLS)])
        room -= len(found[-1])
    return found


def _api(visit: Visit) -> str:
    return f"/v1/tasks/{visit.request.path_params['task_id']}"


def cited(text: str) -> Sequence[tuple[str, str, int]]:
    """A text in pieces: each with the marker behind it, "" for none, and that marker's number."""
    parts = MARKER.split(text)
    numbers: dict[str, int] = {}
    return [
        (said, marker, numbers.setdefault(marker, len(numbers) + 1) if marker else 0)
        for said, marker in zip(parts[::2], [*parts[1::2], ""], strict=True)
    ]
