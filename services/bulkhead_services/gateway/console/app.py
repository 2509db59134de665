"""The console beside the API: which paths are whose, and what its pages answer when something fails.

In: every request of the gateway's HTTP. Out: those for rooms go to the rooms, all others to the API.
"""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bulkhead_services.gateway.console import pages
from bulkhead_services.gateway.console.api import ApiRefused, ConsoleApi
from bulkhead_services.gateway.console.approvals import ConsoleApprovalRoutes
from bulkhead_services.gateway.console.calls import ConsoleCallRoutes
from bulkhead_services.gateway.console.chat.room import ConsoleChatRoutes
from bulkhead_services.gateway.console.coordination import ConsoleCoordinationRoutes
from bulkhead_services.gateway.console.documents import ConsoleDocumentRoutes
from bulkhead_services.gateway.console.login import ConsoleLoginRoutes
from bulkhead_services.gateway.console.mesh.room import ConsoleMeshRoutes
from bulkhead_services.gateway.console.models import ConsoleModelRoutes
from bulkhead_services.gateway.console.operate.dead_letters import ConsoleDeadLetterRoutes
from bulkhead_services.gateway.console.operate.identities import ConsoleIdentityRoutes
from bulkhead_services.gateway.console.operate.reference import ConsoleReferenceRoutes
from bulkhead_services.gateway.console.operate.runbooks import ConsoleRunbookRoutes
from bulkhead_services.gateway.console.operate.tools import ConsoleToolRoutes
from bulkhead_services.gateway.console.overview import ConsoleOverviewRoutes
from bulkhead_services.gateway.console.prompts.evaluations import ConsoleEvaluationRoutes
from bulkhead_services.gateway.console.prompts.room import ConsolePromptRoutes
from bulkhead_services.gateway.console.quality.labels import ConsoleLabelRoutes
from bulkhead_services.gateway.console.quality.room import ConsoleQualityRoutes
from bulkhead_services.gateway.console.search.room import ConsoleSearchRoutes
from bulkhead_services.gateway.console.spend.room import ConsoleSpendRoutes
from bulkhead_services.gateway.console.submit import ConsoleSubmissionRoutes
from bulkhead_services.gateway.console.task.acts import ConsoleTaskActionRoutes
from bulkhead_services.gateway.console.task.bulk import ConsoleBulkRoutes
from bulkhead_services.gateway.console.task.comparison import ConsoleComparisonRoutes
from bulkhead_services.gateway.console.task.page import ConsoleTaskRoutes
from bulkhead_services.gateway.console.task.task_list import ConsoleTaskListRoutes
from bulkhead_services.gateway.console.visits import ConsoleRouteFactory, ConsoleRoutes
from bulkhead_services.gateway.console.workflows.room import ConsoleWorkflowRoutes
from bulkhead_services.gateway.http.auth import GatewayAuthenticator

ROOMS: tuple[type[ConsoleRoutes], ...] = (
    ConsoleOverviewRoutes,
    ConsoleMeshRoutes,
    ConsoleTaskListRoutes,
    ConsoleBulkRoutes,
    ConsoleTaskRoutes,
    ConsoleTaskActionRoutes,
    ConsoleComparisonRoutes,
    ConsoleApprovalRoutes,
    ConsoleChatRoutes,
    ConsoleSubmissionRoutes,
    ConsoleDocumentRoutes,
    ConsoleSpendRoutes,
    ConsoleCoordinationRoutes,
    ConsoleDeadLetterRoutes,
    ConsoleRunbookRoutes,
    ConsoleModelRoutes,
    ConsoleToolRoutes,
    ConsoleEvaluationRoutes,
    ConsolePromptRoutes,
    ConsoleQualityRoutes,
    ConsoleLabelRoutes,
    ConsoleIdentityRoutes,
    ConsoleCallRoutes,
    ConsoleSearchRoutes,
    ConsoleWorkflowRoutes,
)


class Console:
    """The rooms; a new one is a module with `routes`, a folder of templates, and a line here and in `base.html`."""

    def __init__(self, api: ASGIApp, auth: GatewayAuthenticator, session_s: int, runbooks: str = "") -> None:
        self._api = api
        route_factory = ConsoleRouteFactory(ConsoleApi(api, auth.watch_session), auth, runbooks)
        routes = [
            *ConsoleLoginRoutes(auth, session_s).routes(),
            *ConsoleReferenceRoutes(auth).routes(),
            *(route for room in ROOMS for route in room(route_factory).routes()),
        ]
        self._first = frozenset(_first_segment(route.path) for route in routes)
        self._rooms = Starlette(
            routes=routes,
            exception_handlers={HTTPException: _render_failure, ApiRefused: _render_failure, Exception: _render_fault},
        )

    def build_app(self) -> ASGIApp:
        """Both, as one application."""

        async def serve_request(scope: Scope, receive: Receive, send: Send) -> None:
            ours = scope["type"] == "http" and _first_segment(scope["path"]) in self._first
            await (self._rooms if ours else self._api)(scope, receive, send)

        return serve_request


def _first_segment(path: str) -> str:
    return path.lstrip("/").partition("/")[0]


async def _render_failure(request: Request, error: Exception) -> Response:
    """A page for a path that is not there, or a form that was not sent from here."""
    if not isinstance(error, ApiRefused):
        status = error.status_code if isinstance(error, HTTPException) else 500
        title = {404: "There is no such page", 405: "This page takes no such request"}.get(status, "This did not work")
        error = ApiRefused(
            status, {"title": title, "detail": f"nothing is at {request.url.path}", "hint": "begin at /"}
        )
    return pages.render_page(request, "error.html", error.status, error=error, claim=None, key="", url="/")


async def _render_fault(request: Request, error: Exception) -> Response:
    """A page for a fault of the console itself; the server logs it, too."""
    fault = {
        "title": "This page has a fault",
        "detail": f"{type(error).__name__} at {request.url.path}: the mesh goes on, this page cannot be drawn",
        "hint": "the gateway's log has the place; the command line shows the same: bulkhead --help",
    }
    return await _render_failure(request, ApiRefused(500, fault))
