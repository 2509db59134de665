"""Acts that the command palette offers: what ends a wait, what is done about the task that is open, colours, sign out.

In: a visit, with the page from which it asks. Out: links to where an act is done with its reason; forms where it needs
none.
"""

import asyncio
import re
from typing import NamedTuple
from urllib.parse import quote

from bulkhead.gateway_api.query import APPROVERS, OPERATORS, SUBMITTERS
from bulkhead_services.gateway.console import pages
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.task.page import FORKED
from bulkhead_services.gateway.console.visits import Visit, safe_path, split_url
from bulkhead_services.gateway.read_model.task_view import ENDED

TASK_PATH = re.compile(r"/tasks/([A-Za-z0-9_-]{1,64})(?:/[a-z]+)?")
THEME_ICONS = {"auto": "monitor", "dark": "moon", "light": "sun"}


class SearchResult(NamedTuple):
    """One link or act. note: beside the name; state: a word with a colour of its own; fields: of the form that does
    an act at `href`, None for a link."""

    name: str
    href: str
    icon: str
    note: str = ""
    state: str = ""
    standing: str | None = None
    answered: str | None = None
    fields: dict[str, str] | None = None


async def list_acts(visit: Visit) -> list[SearchResult]:
    """The acts that this person may do now."""
    current_url = split_url(visit.request.headers.get("hx-current-url", ""))
    match = TASK_PATH.fullmatch(current_url.path)
    halts, breakers, task = await asyncio.gather(
        visit.get_or("/v1/halts", {"halts": []}),
        visit.get_or("/v1/breakers", {"breakers": []}),
        visit.get_or(f"/v1/tasks/{match[1]}", {}) if match else _read_nothing(),
    )
    acts = _task_acts(task, visit.claim.role) if "task_id" in task else []
    if visit.claim.role in APPROVERS.names:
        acts.append(SearchResult("Decide about calls that wait", "/approvals", "shield-check", "approve, grant, deny"))
    if visit.claim.role in OPERATORS.names:
        acts += [
            SearchResult(
                f"Resume {row['scope']} {row.get('called') or row['name']}", _halt_path(row), "play", "lift the halt"
            )
            for row in halts["halts"]
        ]
        acts += [
            SearchResult(
                f"Reset the breaker of {row['scope']} {row.get('called') or row['name']}",
                "/coordination#breakers",
                "play",
            )
            for row in breakers["breakers"]
            if row["phase"] != "closed"
        ]
        acts.append(
            SearchResult("Halt something", "/coordination#act-halt-something", "pause", "stop a tool, model, tenant")
        )
    page_path = safe_path(current_url.path or "/")
    acts += [
        SearchResult(name, "/theme", THEME_ICONS[theme], "colours, theme", fields={"theme": theme, "next": page_path})
        for theme, name in (("dark", "Dark colours"), ("light", "Light colours"), ("auto", "Colours of the system"))
        if theme != pages.theme_of(visit.request)
    ]
    return [*acts, SearchResult("Sign out", "/logout", "log-out", "log out", fields={})]


async def _read_nothing() -> Json:
    return {}


def _halt_path(halt: Json) -> str:
    return f"/tasks/{quote(halt['name'], safe='')}" if halt["scope"] == "task" else "/coordination#halts"


def _task_acts(task: Json, role: str) -> list[SearchResult]:
    """Acts on the task whose page is open."""
    path, note = f"/tasks/{task['task_id']}", "this task"
    ended = task["status"] in ENDED
    acts = []
    if ended and task["status"] in FORKED and task["kind"] != "adopted" and role in SUBMITTERS.names:
        name = "Run this task again" if task["status"] == "succeeded" else "Retry this task"
        acts += [
            SearchResult(name, f"{path}/retry", "play", "retry", fields={}),
            SearchResult("Fork this task", f"{path}/fork", "split"),
        ]
    if not ended and role in OPERATORS.names:
        acts += [
            SearchResult("Halt this task", f"{path}#act-halt", "pause"),
            SearchResult("Top up this task", f"{path}#act-top-up", "wallet"),
        ]
    if not ended and role in SUBMITTERS.names:
        acts.append(SearchResult("Cancel this task", f"{path}#act-cancel", "ban"))
    return [*acts, SearchResult("Compare this task", f"{path}/compare", "scale", note)]
