"""The room of tasks: the list with its filters, tabs by state and saved views, kept up to date while somebody looks.

In: visits. Out: pages. A view is the list's address: what is chosen stands in its query, under names that people write.
"""

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from typing import NamedTuple, get_args
from urllib.parse import parse_qsl, urlencode

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import APPROVERS, OPERATORS, SUBMITTERS
from bulkhead_contracts.result import Standing
from bulkhead_services.gateway.console import visits
from bulkhead_services.gateway.console.api import Json, Query
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit, is_secure, redirect_to

PAGE = 50
STATES = ("status", "pause", "answered")
"""Filters that a tab stands for."""
PLAIN_FILTERS = ("text", "standing", "code", "model", "tool", "person", "feature", "workflow", "kind", "rated", "sort")
FILTERS = (*STATES, *PLAIN_FILTERS, "time", "from", "to", "min_usd", "min_s")
FEW = ("text", "time", "kind", "sort", *STATES)
"""Filters that always show; the others lie behind `More filters`."""
TIMES = {
    "": "any time",
    "1h": "last hour",
    "today": "today (UTC)",
    "24h": "last 24 hours",
    "7d": "last 7 days",
    "30d": "last 30 days",
}
SORTS = {"": "newest first", "updated": "changed last", "cost": "most expensive first", "duration": "longest first"}
KINDS = {"": "tasks and agent runs", "planned": "tasks of the mesh", "adopted": "runs of outside agents"}
BY_PERSON = "approval_wanted,halted_by_operator,budget_exceeded"
"""Reasons of a pause that a person's act ends; an open breaker closes by itself."""
WAY_ON = {
    "approval_wanted": (APPROVERS, "Decide", "/approvals?task={task}"),
    "halted_by_operator": (OPERATORS, "Resume", "/tasks/{task}#acts"),
    "budget_exceeded": (OPERATORS, "Top up", "/tasks/{task}#acts"),
    "breaker_open": (OPERATORS, "Reset", "/coordination"),
}
"""Who ends a pause, by which act, and where it is."""
VIEWS_COOKIE = "bulkhead_views"
MAX_VIEWS, MAX_VIEW_CHARS, MAX_COOKIE_CHARS = 12, 40, 2_800
YEAR_S = 365 * 24 * 3600


class StateTab(NamedTuple):
    """A tab of the list. query: of the API, for the tasks that it shows."""

    name: str
    query: dict[str, str]

    def count_tasks(self, counts: Json) -> int:
        """Number of its tasks."""
        for field in reversed(STATES):
            if field in self.query:
                return sum(counts[field].get(value, 0) for value in self.query[field].split(","))
        number: int = counts["fitting"]
        return number


class TaskListView(NamedTuple):
    """A view by name: the query of the list's address."""

    name: str
    query: str


TABS = (
    StateTab("All", {}),
    StateTab("Running", {"status": "requested,queued,running"}),
    StateTab("Needs a person", {"status": "paused", "pause": BY_PERSON}),
    StateTab("Held by a breaker", {"status": "paused", "pause": "breaker_open"}),
    StateTab("Succeeded", {"status": "succeeded"}),
    StateTab("Not answered", {"status": "succeeded", "answered": "partly,no"}),
    StateTab("Failed", {"status": "failed,halted,rejected"}),
    StateTab("Cancelled", {"status": "cancelled"}),
)
ALWAYS = ("All", "Running", "Needs a person", "Succeeded", "Not answered", "Failed")
"""Tabs that show without a task, too."""
BUILT_IN_VIEWS = (
    TaskListView("Most expensive today", "time=today&sort=cost"),
    TaskListView("Longest today", "time=today&sort=duration"),
    TaskListView("Failed today", urlencode(TABS[6].query | {"time": "today"})),
    TaskListView("Agent runs", "kind=adopted"),
)
"""Beside the tabs, which are views too."""


class ConsoleTaskListRoutes(ConsoleRoutes):
    """The routes under /tasks."""

    def routes(self) -> list[Route]:
        """Routes of the task list."""
        return [
            self.factory.get_route("/live", visits.stream_changes),
            self.factory.get_route("/tasks", self.list_tasks, shared=True),
            self.factory.post_route("/tasks/views", self.save_view),
        ]

    async def list_tasks(self, visit: Visit) -> Response:
        """GET /tasks"""
        filters = {name: visit.query_value(name) for name in FILTERS}
        chosen = {name: value for name, value in filters.items() if value}
        cursor = visit.query_value("cursor")
        page = await visit.get("/v1/tasks", limit=PAGE, cursor=cursor, counts="true", **_to_api_query(chosen))
        current = next((tab for tab in TABS if all(filters[name] == tab.query.get(name, "") for name in STATES)), None)
        other_filters = {name: value for name, value in chosen.items() if name not in STATES}
        shown_tabs = [tab for tab in TABS if tab.name in ALWAYS or tab is current or tab.count_tasks(page["counts"])]
        return visit.render_page(
            "tasks/list.html",
            tasks=page["tasks"],
            counts=page["counts"],
            total=page["total"],
            note=page["note"],
            next=urlencode(chosen | {"cursor": page["next"]}) if page["next"] else "",
            cursor=cursor,
            filters=filters,
            query=urlencode(chosen),
            hidden_filters=sum(name not in FEW for name in chosen),
            tabs=[
                (tab, tab.count_tasks(page["counts"]), urlencode(other_filters | tab.query), tab is current)
                for tab in shown_tabs
            ],
            state_words="" if current else " ".join(filters[name] for name in STATES).replace("_", " "),
            standings=get_args(Standing),
            times=TIMES,
            sorts=SORTS,
            kinds=KINDS,
            way_on=_ways_on(visit.claim.role),
            may_act=visit.claim.role in SUBMITTERS.names,
            built_in=BUILT_IN_VIEWS,
            saved=() if visit.shared else saved_views(visit),
        )

    async def save_view(self, visit: Visit) -> Response:
        """POST /tasks/views: keep a view under a name, or forget it"""
        form = await visit.read_form()
        name, query = form.get("name", "")[:MAX_VIEW_CHARS].strip(), _known_query(form.get("query", ""))
        views = [view for view in saved_views(visit) if view.name != name]
        if name and form.get("act") != "forget":
            views = [*views, TaskListView(name, query)]
        views = views[-MAX_VIEWS:]
        while len(cookie := json.dumps(views)) > MAX_COOKIE_CHARS:
            views = views[1:]
        answer = redirect_to(visit.request, f"/tasks?{query}")
        answer.set_cookie(
            _cookie_name(visit),
            base64.urlsafe_b64encode(cookie.encode()).decode(),
            max_age=YEAR_S,
            secure=is_secure(visit.request),
            httponly=True,
            samesite="lax",
            path="/",
        )
        return answer


def _ways_on(role: str) -> dict[str, tuple[str, str]]:
    """Words and address of the way on from each pause: the act, or for whom the task waits where that is another."""
    return {
        code: (act, place) if role in allowed.names else (f"for an {allowed.needed}", "/tasks/{task}")
        for code, (allowed, act, place) in WAY_ON.items()
    }


def _to_api_query(chosen: dict[str, str]) -> Query:
    """The query of GET /v1/tasks for what a person chose. What is no number is sent as it is: the API says so."""
    query: dict[str, str | int] = {name: chosen[name] for name in (*STATES, *PLAIN_FILTERS) if name in chosen}
    if "code" in query:  # Pages show a code with spaces.
        query["code"] = re.sub(r"[ _]+", "_", chosen["code"].strip())
    for name, parameter, factor in (("min_usd", "min_cost_usd_micros", 1e6), ("min_s", "min_duration_ms", 1e3)):
        try:
            query[parameter] = round(float(chosen.get(name, "0")) * factor)
        except (ValueError, OverflowError):
            query[parameter] = chosen[name]
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    time = chosen.get("time", "")
    query |= {"since": chosen.get("from", today if time == "today" else time), "until": chosen.get("to", "")}
    return {name: value for name, value in query.items() if value not in ("", 0)}


def _known_query(query: str) -> str:
    """The part of an address that chooses tasks, and nothing else of it."""
    return urlencode([(name, value) for name, value in parse_qsl(query.lstrip("?")) if name in FILTERS])


def _cookie_name(visit: Visit) -> str:
    """A cookie per person: a browser may have several."""
    person = f"{visit.claim.tenant}/{visit.claim.person}"
    return f"{VIEWS_COOKIE}_{hashlib.sha256(person.encode()).hexdigest()[:16]}"


def saved_views(visit: Visit) -> list[TaskListView]:
    """The person's own views; none where the cookie holds none."""
    try:
        rows = json.loads(base64.urlsafe_b64decode(visit.request.cookies.get(_cookie_name(visit), "")) or b"[]")
        return [TaskListView(str(name)[:MAX_VIEW_CHARS], _known_query(str(query))) for name, query in rows][-MAX_VIEWS:]
    except (ValueError, TypeError, RecursionError):
        return []
