"""The room Chat: a person asks, and sees what is looked at, the answer as it is written, and its sources.

In: visits; forms. Out: pages, pieces of them, streams. Each turn is a task.
"""

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.prompts import READERS as PROMPT_READERS
from bulkhead.gateway_api.query import SUBMITTERS
from bulkhead_contracts import bounds
from bulkhead_services.gateway.console import visits
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.chat.following import TurnDoings, follow_turn
from bulkhead_services.gateway.console.task.page import FORKED, split_markers
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to
from bulkhead_services.gateway.read_model.task_view import ENDED

LISTED = 20


class ConsoleChatRoutes(ConsoleRoutes):
    """The routes under /chat."""

    def routes(self) -> list[Route]:
        """Routes of conversations and their turns."""
        return [
            self.factory.get_route("/chat", self.show_new),
            self.factory.post_route("/chat", self.ask),
            self.factory.get_route("/chat/{task_id}", self.show_conversation),
            self.factory.get_route("/chat/turns/{task_id}", self.show_turn),
            self.factory.get_route("/chat/turns/{task_id}/doings", self.list_doings),
            self.factory.get_route("/chat/turns/{task_id}/live", self.stream_turn),
        ]

    async def show_new(self, visit: Visit) -> Response:
        """GET /chat: a new conversation, and this person's earlier ones"""
        page = await visit.get("/v1/tasks", person=visit.claim.person, limit=LISTED)
        return visit.render_page("chat/chat.html", earlier=page["tasks"], turns=[], **_page_values(visit))

    async def ask(self, visit: Visit) -> Response:
        """POST /chat: what a person says becomes a task"""
        form = await visit.read_form()
        receipt = await visit.post("/v1/tasks", {"objective": form.get("text", "")}, form.get(KEY_FIELD, ""))
        return redirect_to(visit.request, f"/chat/{receipt['task_id']}")

    async def show_conversation(self, visit: Visit) -> Response:
        """GET /chat/{task_id}"""
        turns = [_turn_values(visit, await visit.get(_api_path(visit)))]
        return visit.render_page("chat/chat.html", earlier=[], turns=turns, **_page_values(visit))

    async def show_turn(self, visit: Visit) -> Response:
        """GET /chat/turns/{task_id}: what an open page reads again when the turn has ended"""
        turn = _turn_values(visit, await visit.get(_api_path(visit)))
        return visit.render_page("chat/chat.html", earlier=[], turns=[turn], **_page_values(visit))

    async def list_doings(self, visit: Visit) -> Response:
        """GET /chat/turns/{task_id}/doings: of a turn that has ended"""
        task_id = visit.request.path_params["task_id"]
        doings = TurnDoings(task_id)
        if (await visit.get(_api_path(visit)))["status"] in ENDED:
            async for name, data in visit.api.stream_events(visit.token, _api_path(visit) + "/events"):
                doings.render_event(name, data)
        return visit.render_page("chat/doings.html", rows=list(doings.rows.values()), task_id=task_id)

    async def stream_turn(self, visit: Visit) -> Response:
        """GET /chat/turns/{task_id}/live"""
        events = visit.api.stream_events(visit.token, _api_path(visit) + "/events")
        return visits.live_stream(follow_turn(visit.request.path_params["task_id"], events))


def _api_path(visit: Visit) -> str:
    return f"/v1/tasks/{visit.request.path_params['task_id']}"


def _page_values(visit: Visit) -> dict[str, Any]:
    return {
        "may_submit": visit.claim.role in SUBMITTERS.names,
        "may_read_prompts": visit.claim.role in PROMPT_READERS.names,
        "max_chars": bounds.MAX_OBJECTIVE_CHARS,
    }


def _turn_values(visit: Visit, task: Json) -> Json:
    """Values of a turn: its task, its answer in pieces, and what may be done about it."""
    return {
        "task": task,
        "ended": task["status"] in ENDED,
        "forks": task["status"] in FORKED and task["kind"] != "adopted" and visit.claim.role in SUBMITTERS.names,
        "answer": split_markers(task["answer"] or ""),
    }
