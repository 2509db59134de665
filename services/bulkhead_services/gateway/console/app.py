"""The console beside the API: which paths are whose, and what its pages answer when something fails.

In: every request of the gateway's HTTP. Out: those for rooms go to the rooms, all others to the API.
"""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bulkhead_services.gateway.console import pages
from bulkhead_services.gateway.console.api import Api, Refused
from bulkhead_services.gateway.console.approvals import Approvals
from bulkhead_services.gateway.console.coordination import Coordination
from bulkhead_services.gateway.console.desk import Desk
from bulkhead_services.gateway.console.login import Login
from bulkhead_services.gateway.console.mesh.room import MeshPart
from bulkhead_services.gateway.console.models import Models
from bulkhead_services.gateway.console.operate.dead_letters import DeadLetters
from bulkhead_services.gateway.console.overview import Overview
from bulkhead_services.gateway.console.spend import Spend
from bulkhead_services.gateway.console.task.acts import TaskActs
from bulkhead_services.gateway.console.task.comparison import Comparison
from bulkhead_services.gateway.console.task.page import Task
from bulkhead_services.gateway.console.tasks import Tasks
from bulkhead_services.gateway.http.auth import Authenticator

ROOMS = (Overview, MeshPart, Tasks, Task, TaskActs, Comparison, Approvals, Spend, Coordination, DeadLetters, Models)


class Console:
    """The rooms; a new one is a module with `routes`, a folder of templates, and a line here and in `base.html`."""

    def __init__(self, api: ASGIApp, auth: Authenticator, session_s: int, runbooks: str = "") -> None:
        self._api = api
        at = Desk(Api(api), auth, runbooks)
        routes = [*Login(auth, session_s).routes(), *(route for room in ROOMS for route in room(at).routes())]
        self._first = frozenset(_first(route.path) for route in routes)
        self._rooms = Starlette(routes=routes, exception_handlers={HTTPException: _failed, Refused: _failed})

    def app(self) -> ASGIApp:
        """Both, as one application."""

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            ours = scope["type"] == "http" and _first(scope["path"]) in self._first
            await (self._rooms if ours else self._api)(scope, receive, send)

        return served


def _first(path: str) -> str:
    return path.lstrip("/").partition("/")[0]


async def _failed(request: Request, error: Exception) -> Response:
    """A page for a path that is not there, or a form that was not sent from here."""
    if not isinstance(error, Refused):
        status = error.status_code if isinstance(error, HTTPException) else 500
        what = {404: "There is no such page", 405: "This page takes no such request"}.get(status, "This did not work")
        error = Refused(status, {"title": what, "detail": f"nothing is at {request.url.path}", "hint": "begin at /"})
    return pages.page(request, "error.html", error.status, error=error, claim=None, key="", url="/")
