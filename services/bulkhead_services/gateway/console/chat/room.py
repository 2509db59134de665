"""The room Chat: a person asks, and sees what is looked at, the answer as it is written, and its sources.

In: visits; forms. Out: pages, pieces of them, streams. A conversation is a session, each of its turns a task.
"""

import asyncio
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.prompts import READERS as PROMPT_READERS
from bulkhead.gateway_api.query import SUBMITTERS
from bulkhead.text.plain_text import cut_line
from bulkhead_contracts import bounds
from bulkhead_services.gateway.console import visits
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.chat.following import TurnDoings, follow_turn
from bulkhead_services.gateway.console.task.holds import find_hold
from bulkhead_services.gateway.console.task.page import split_markers
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to
from bulkhead_services.gateway.read_model.task_view import ENDED

MAX_TITLE_CHARS = 80


class ConsoleChatRoutes(ConsoleRoutes):
    """The routes under /chat."""

    def routes(self) -> list[Route]:
        """Routes of conversations and their turns."""
        get, post = self.factory.get_route, self.factory.post_route
        return [
            get("/chat", self.list_conversations),
            post("/chat", self.begin_conversation),
            get("/chat/{session_id}", self.show_conversation),
            post("/chat/{session_id}", self.take_turn),
            post("/chat/{session_id}/delete", self.delete_conversation),
            post("/chat/{session_id}/pin", self.pin_fact),
            post("/chat/{session_id}/unpin", self.unpin_fact),
            post("/chat/{session_id}/fork", self.fork_conversation),
            get("/chat/{session_id}/turns/{task_id}", self.show_turn),
            get("/chat/{session_id}/turns/{task_id}/doings", self.list_doings),
            get("/chat/{session_id}/turns/{task_id}/live", self.stream_turn),
        ]

    async def list_conversations(self, visit: Visit) -> Response:
        """GET /chat: this person's conversations, and a question that begins one"""
        page = await visit.get("/v1/sessions")
        return visit.render_page("chat/list.html", sessions=page["sessions"], **_page_values(visit))

    async def begin_conversation(self, visit: Visit) -> Response:
        """POST /chat: a session, and its first turn; the same form twice is the same"""
        form = await visit.read_form()
        text, key = form.get("text", ""), form.get(KEY_FIELD, "")
        session = await visit.post("/v1/sessions", {"title": cut_line(text, MAX_TITLE_CHARS)}, key)
        path = f"/chat/{session['session_id']}"
        await visit.post(f"/v1/sessions/{session['session_id']}/turns", {"text": text}, key)
        return redirect_to(visit.request, path)

    async def show_conversation(self, visit: Visit) -> Response:
        """GET /chat/{session_id}: its newest turns, or with `before` those below a number"""
        before = visit.query_value("before")
        session = await visit.get(_session_path(visit), before=before if before.isdecimal() else 0)
        turns = await asyncio.gather(*(_read_turn(visit, turn["task_id"], turn["text"]) for turn in session["turns"]))
        for turn, row in zip(turns, session["turns"], strict=True):
            turn |= {"number": row["number"], "replaced": row["replaced"]}
            turn["is_last"] = row["number"] == session["turn_count"]
        return visit.render_page("chat/chat.html", session=session, turns=turns, **_page_values(visit))

    async def take_turn(self, visit: Visit) -> Response:
        """POST /chat/{session_id}: the next turn, or with `replaces` one in the place of an earlier turn"""
        form = await visit.read_form()
        body = {"text": form.get("text", ""), "replaces": form.get("replaces", "")}
        await visit.post(f"{_session_path(visit)}/turns", body, form.get(KEY_FIELD, ""))
        return redirect_to(visit.request, f"/chat/{visit.request.path_params['session_id']}")

    async def fork_conversation(self, visit: Visit) -> Response:
        """POST /chat/{session_id}/fork: another conversation, which begins with the turns up to one"""
        form = await visit.read_form()
        body = {"task_id": form.get("task_id", "")}
        fork = await visit.post(f"{_session_path(visit)}/forks", body, form.get(KEY_FIELD, ""))
        notice = "This conversation begins with the turns of another, which stays as it is."
        return redirect_to(visit.request, f"/chat/{fork['session_id']}", notice)

    async def delete_conversation(self, visit: Visit) -> Response:
        """POST /chat/{session_id}/delete"""
        form = await visit.read_form()
        await visit.post(_session_path(visit), {}, form.get(KEY_FIELD, ""), "DELETE")
        return redirect_to(visit.request, "/chat", "The conversation is deleted.")

    async def pin_fact(self, visit: Visit) -> Response:
        """POST /chat/{session_id}/pin: a text from the answer of a turn, or without one this person's own words"""
        form = await visit.read_form()
        turn, key = form.get("turn", ""), form.get(KEY_FIELD, "")
        body = {"text": form.get("text", ""), "turn": int(turn) if turn.isdecimal() and len(turn) < 7 else 0}
        await visit.post(f"{_session_path(visit)}/facts/{quote(key, safe='')}", body, key, "PUT")
        return redirect_to(visit.request, f"/chat/{visit.request.path_params['session_id']}", "It is pinned.")

    async def unpin_fact(self, visit: Visit) -> Response:
        """POST /chat/{session_id}/unpin"""
        form = await visit.read_form()
        path = f"{_session_path(visit)}/facts/{quote(form.get('fact', ''), safe='')}"
        await visit.post(path, {}, form.get(KEY_FIELD, ""), "DELETE")
        return redirect_to(visit.request, f"/chat/{visit.request.path_params['session_id']}", "It is pinned no more.")

    async def show_turn(self, visit: Visit) -> Response:
        """GET /chat/{session_id}/turns/{task_id}: what an open page reads again when the turn has ended"""
        turn = await _read_turn(visit, visit.request.path_params["task_id"], "")
        if turn.get("ended"):
            rows = (await visit.get_or(_session_path(visit), {"turns": []}))["turns"]
            turn["number"] = next((row["number"] for row in rows if row["task_id"] == turn["task"]["task_id"]), 0)
        return visit.render_page("chat/chat.html", session=None, turns=[turn], **_page_values(visit))

    async def list_doings(self, visit: Visit) -> Response:
        """GET /chat/{session_id}/turns/{task_id}/doings: of a turn that has ended"""
        doings = TurnDoings(visit.request.path_params["task_id"])
        if (await visit.get(_task_path(visit)))["status"] in ENDED:
            async for name, data in visit.api.stream_events(visit.token, _task_path(visit) + "/events"):
                doings.render_event(name, data)
        return visit.render_page("chat/doings.html", rows=list(doings.rows.values()), **_page_values(visit))

    async def stream_turn(self, visit: Visit) -> Response:
        """GET /chat/{session_id}/turns/{task_id}/live"""
        events = visit.api.stream_events(visit.token, _task_path(visit) + "/events")
        return visits.live_stream(follow_turn(visit.request.path_params["task_id"], events))


def _session_path(visit: Visit) -> str:
    return f"/v1/sessions/{visit.request.path_params['session_id']}"


def _task_path(visit: Visit) -> str:
    return f"/v1/tasks/{visit.request.path_params['task_id']}"


def _page_values(visit: Visit) -> dict[str, Any]:
    return {
        "here": f"/chat/{visit.request.path_params.get('session_id', '')}".rstrip("/"),
        "may_submit": visit.claim.role in SUBMITTERS.names,
        "may_read_prompts": visit.claim.role in PROMPT_READERS.names,
        "max_chars": bounds.MAX_OBJECTIVE_CHARS,
        "max_fact_chars": bounds.MAX_PINNED_FACT_CHARS,
    }


async def _read_turn(visit: Visit, task_id: str, text: str) -> Json:
    """Values of a turn: its task (None once it is purged), its answer in pieces, and what may be done about it."""
    task = await visit.get_or(f"/v1/tasks/{task_id}", {})
    # Of a turn that is read by itself: only the last one runs.
    place: Json = {"number": 0, "replaced": (), "is_last": True}
    if "task_id" not in task:
        return place | {"text": text, "task": None, "refused": task["refused"]}
    return place | {
        "text": task["objective"],
        "task": task,
        "ended": task["status"] in ENDED,
        "hold": None if task["status"] in ENDED else await find_hold(visit, task),
        "answer": split_markers(task["answer"] or ""),
    }
