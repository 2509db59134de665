"""The room of one task: how it stands, its plan as it runs, its answer with sources, its calls, its raw messages.

In: visits. Out: pages, fragments and a stream.
"""

import asyncio
from collections.abc import Sequence

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import SUBMITTERS
from bulkhead_services.gateway.console import pages, visits
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.coordination import DRAWN, NOTHING, draw_waits, waits_of_task
from bulkhead_services.gateway.console.drawing import BAR_WIDTH, ROW_HEIGHT, DrawnStep, draw_bars, draw_layers
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit
from bulkhead_services.gateway.console.watching import element_of, follow_task
from bulkhead_services.gateway.read_model.citations import MARKER
from bulkhead_services.gateway.read_model.task_view import ENDED

FORKED = ENDED - {"rejected"}
"""A task that was turned away has nothing to fork."""
ROWS = 100
MAX_BARS, MAX_CALLS, MAX_STEP_CALLS = 200, 400, 100
LONG_BYTES = 64 * 1024
"""A longer story is made a page in a thread."""


class ConsoleTaskRoutes(ConsoleRoutes):
    """The routes under /tasks/{task_id} that only look."""

    def routes(self) -> list[Route]:
        """Routes of a task's pages."""
        get = self.factory.get_route
        return [
            get("/tasks/{task_id}", self.show_task),
            get("/tasks/{task_id}/live", self.stream_task),
            get("/tasks/{task_id}/story", self.show_story),
            get("/tasks/{task_id}/waits", self.show_waits),
            get("/tasks/{task_id}/messages", self.list_messages),
            get("/tasks/{task_id}/messages/{message_id}", self.show_message),
            get("/tasks/{task_id}/export", self.download_export),
            get("/tasks/{task_id}/calls/{call_id}", self.show_call),
            get("/tasks/{task_id}/citations/{marker}", self.show_citation),
        ]

    async def show_task(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}"""
        task = await visit.get(_api_path(visit))
        asker = (task["requester"] or {}).get("person")
        exports = visit.claim.role == "operator" or (visit.claim.role == "submitter" and asker == visit.claim.person)
        return visit.render_page(
            "tasks/task.html",
            task=task,
            exports=exports,
            ended=task["status"] in ENDED,
            answer=split_markers(task["answer"] or ""),
            address=visits.gateway_address(visit.request),
            approval=await self._approval_path(visit, task),
        )

    @staticmethod
    async def _approval_path(visit: Visit, task: Json) -> str:
        """Path to the decision that the task waits for; "" when it waits for none."""
        if not task["pause"] or not (task["pause"]["code"] == "approval" or task["pause"]["until_unix_ms"]):
            return ""
        query = {"state": "waiting", "task": task["task_id"]}
        rows = (await visit.get_or("/v1/approvals", {"approvals": []}, query))["approvals"]
        return f"/approvals/{rows[0]['approval_id']}" if len(rows) == 1 else f"/approvals?task={task['task_id']}"

    async def stream_task(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/live"""
        return visits.live_stream(follow_task(visit.api.stream_events(visit.token, _api_path(visit) + "/events")))

    async def show_story(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/story"""
        answer = await visit.api.send_request("GET", visit.token, _api_path(visit) + "/why")
        if len(answer.body) < LONG_BYTES:
            return _render_story(visit, answer.decode_json())
        return await asyncio.to_thread(lambda: _render_story(visit, answer.decode_json()))  # Streams go on meanwhile.

    async def show_waits(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/waits"""
        task = await visit.get(_api_path(visit))
        coordination = await visit.get_or("/v1/coordination", NOTHING)
        waits = waits_of_task(coordination["waits"], task["task_id"])
        return visit.render_page(
            "coordination/of_task.html",
            task_id=task["task_id"],
            refused=coordination.get("refused"),
            waits=waits,
            more=coordination["more_waits"],
            graph=draw_waits(waits[:DRAWN]),
        )

    async def list_messages(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/messages"""
        after = visit.query_value("after") or "0"
        page = await visit.get(_api_path(visit) + "/timeline", limit=ROWS, after=after)
        return visit.render_page("tasks/messages.html", timeline=page)

    async def show_message(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/messages/{message_id}"""
        document = await visit.get(f"{_api_path(visit)}/messages/{visit.request.path_params['message_id']}")
        rows = [(message, pages.indent_json(message["body"])) for message in document["messages"]]
        return visit.render_page("tasks/message.html", told=document, rows=rows)

    async def show_call(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/calls/{call_id}"""
        document = await visit.get(f"{_api_path(visit)}/calls/{visit.request.path_params['call_id']}")
        return visit.render_page("tasks/call.html", told=document, call=document["call"])

    async def show_citation(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/citations/{marker}"""
        citation = await visit.get(f"{_api_path(visit)}/citations/{visit.request.path_params['marker']}")
        return visit.render_page("tasks/citation.html", citation=citation, task_id=visit.request.path_params["task_id"])

    async def download_export(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/export"""
        answer = await visit.api.send_request("GET", visit.token, _api_path(visit) + "/export")
        if answer.status >= 400:
            answer.decode_json()
        name = {"Content-Disposition": answer.headers["content-disposition"]}
        return Response(answer.body, 200, pages.SAFE | pages.NOT_KEPT | name, answer.headers["content-type"])


def _render_story(visit: Visit, told: Json) -> Response:
    story = told["story"]
    call_groups = (story["planning"], *(step["calls"] for step in story["steps"]))
    calls = sorted((call for group in call_groups for call in group), key=lambda call: call["asked_unix_ms"])
    last = max((call["asked_unix_ms"] + (call["took_ms"] or 0) for call in calls), default=0)
    took = max(story["took_ms"], last - story["began_unix_ms"])
    rows = [
        DrawnStep(row["step_id"], row["title"], tuple(row["inputs"]), row["outcome"], row["attempts"])
        for row in story["steps"]
        if row["plan_version"] == story["plans"][-1]["version"]
    ]
    return visit.render_page(
        "tasks/story.html",
        told=told,
        story=story,
        forks=story["status"] in FORKED and not story["adopted"] and visit.claim.role in SUBMITTERS.names,
        calls=calls,
        listed=listed_calls(story["steps"]),
        bars=draw_bars(calls[:MAX_BARS], story["began_unix_ms"], took),
        bar_width=BAR_WIDTH,
        row_height=ROW_HEIGHT,
        took_ms=took,
        graph=draw_layers(rows),
        element_of=element_of,
    )


def listed_calls(steps: Sequence[Json]) -> list[list[Json]]:
    """Calls of each step, the first of each and MAX_CALLS of all of them."""
    room, shown_calls = MAX_CALLS, list[list[Json]]()
    for step in steps:
        shown_calls.append(step["calls"][: min(room, MAX_STEP_CALLS)])
        room -= len(shown_calls[-1])
    return shown_calls


def _api_path(visit: Visit) -> str:
    return f"/v1/tasks/{visit.request.path_params['task_id']}"


def split_markers(text: str) -> Sequence[tuple[str, str, int]]:
    """A text in pieces: each with the marker behind it, "" for none, and that marker's number."""
    parts = MARKER.split(text)
    numbers: dict[str, int] = {}
    return [
        (piece, marker, numbers.setdefault(marker, len(numbers) + 1) if marker else 0)
        for piece, marker in zip(parts[::2], [*parts[1::2], ""], strict=True)
    ]
