"""Search over everything that has a page: rooms, views, tasks, approvals, documents, prompts, keys, alerts.

In: words. Out: links in groups, as a page, whose results the command palette shows too. Each group is read by one
request to the API, in the person's name, and is bounded.
"""

import asyncio
import re
from typing import NamedTuple
from urllib.parse import quote, urlencode

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.prompts import READERS
from bulkhead.gateway_api.query import OVERSEERS, SUBMITTERS
from bulkhead_services.gateway.console import pages
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.search.acts import SearchResult, list_acts
from bulkhead_services.gateway.console.task.task_list import BUILT_IN_VIEWS, TABS, saved_views
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit

MAX_WORDS_CHARS = 64
SHOWN = 8
"""Results of a group."""
READ = 100
"""Documents and approvals that are looked through."""
SECTIONS = pages.HERE / "templates" / "runbooks" / "sections.html"
RUNBOOKS = re.findall(r'<h2 id="(\w+)">(\w+)', SECTIONS.read_text())
"""Anchor and name of each alert that has one."""
NAMES = (
    ("people", "person", "user"),
    ("features", "feature", "git-branch"),
    ("models", "model", "cpu"),
    ("tools", "tool", "wrench"),
    ("codes", "code", "circle-alert"),
)
"""Names that tasks have: the API's field, the list's filter, an icon."""


class SearchGroup(NamedTuple):
    """Results of one kind. more: address of all of them, "" where these are all."""

    name: str
    results: list[SearchResult]
    more: str = ""


class ConsoleSearchRoutes(ConsoleRoutes):
    """The route /search."""

    def routes(self) -> list[Route]:
        """Route of the search."""
        return [self.factory.get_route("/search", self.show_results)]

    async def show_results(self, visit: Visit) -> Response:
        """GET /search"""
        text = visit.query_value("q")[:MAX_WORDS_CHARS]
        words = text.casefold().split()
        groups = [
            SearchGroup(
                "Go to",
                [*_matching(words, _rooms(visit.claim.role)), *_matching(words, _views(visit) if words else [])],
            )
        ]
        if words:
            (acts, prompts), tasks, approvals, documents, tools, identities = await asyncio.gather(
                asyncio.gather(list_acts(visit), _read_prompts(visit)),
                visit.get_or(
                    "/v1/tasks", {"tasks": [], "counts": None}, {"text": text, "limit": SHOWN, "counts": "true"}
                ),
                visit.get_or("/v1/approvals", {"approvals": []}, {"state": "waiting"}),
                visit.get_or("/v1/documents", {"documents": []}, {"limit": READ}),
                visit.get_or("/v1/tools", {"tools": []}),
                _read_identities(visit),
            )
            groups += [
                SearchGroup("Do", _matching(words, acts)),
                SearchGroup("Tasks", _task_results(tasks), f"/tasks?{urlencode({'text': text})}"),
                SearchGroup("Approvals", _matching(words, _approvals(approvals["approvals"][:READ]))),
                SearchGroup("Documents", _matching(words, _documents(documents["documents"]))),
                SearchGroup("Tools", _matching(words, _tools(tools["tools"]))),
                SearchGroup("Prompts", _matching(words, _prompts(prompts["prompts"]))),
                SearchGroup("Keys and identities", _matching(words, _identities(identities))),
                SearchGroup("Tasks by name", _matching(words, _names(tasks["counts"]))),
                SearchGroup("Runbooks", _matching(words, _runbooks())),
            ]
            if visit.claim.role in SUBMITTERS.names:
                ask = f"/new-task?{urlencode({'objective': text})}"
                groups.append(SearchGroup("Ask", [SearchResult(f"New task: {text}", ask, "plus")]))
        return visit.render_page("search.html", words=text, groups=[group for group in groups if group.results])


def _matching(words: list[str], results: list[SearchResult]) -> list[SearchResult]:
    """The results that have all words, those whose name begins with the first one first."""
    fitting = [result for result in results if all(term in f"{result.name} {result.note}".casefold() for term in words)]
    first = words[0] if words else ""
    return sorted(fitting, key=lambda result: not result.name.casefold().startswith(first))[: SHOWN if words else READ]


def _rooms(role: str) -> list[SearchResult]:
    return [SearchResult(name, href, icon) for _, rooms in pages.rooms_of(role) for href, name, icon in rooms]


def _views(visit: Visit) -> list[SearchResult]:
    views = [(view.name, view.query) for view in (*BUILT_IN_VIEWS, *saved_views(visit))]
    views += [(tab.name, urlencode(tab.query)) for tab in TABS[1:]]
    return [SearchResult(name, f"/tasks?{query}", "list-checks", "tasks") for name, query in views]


def _task_results(page: Json) -> list[SearchResult]:
    return [
        SearchResult(
            task["objective"] or task["task_id"],
            f"/tasks/{task['task_id']}",
            "bot" if task["kind"] == "adopted" else "list-checks",
            task["person"],
            task["status"],
            task["standing"],
            task["answered"],
        )
        for task in page["tasks"]
    ]


def _approvals(approvals: list[Json]) -> list[SearchResult]:
    return [
        SearchResult(
            approval["request"]["tool"],
            f"/approvals/{approval['approval_id']}",
            "shield-check",
            f"{approval['request']['arguments_json'][:120]} {approval['request']['asked_for']}",
            approval["state"],
        )
        for approval in approvals
    ]


def _documents(documents: list[Json]) -> list[SearchResult]:
    return [
        SearchResult(row["name"], f"/documents/show?{urlencode({'name': row['name']})}", "files") for row in documents
    ]


async def _read_prompts(visit: Visit) -> Json:
    """Prompts, for those who may see them."""
    empty: Json = {"prompts": []}
    return await visit.get_or("/v1/prompts", empty) if visit.claim.role in READERS.names else empty


async def _read_identities(visit: Visit) -> Json:
    """Keys and programs, for those who may see them."""
    empty: Json = {"keys": [], "publishers": [], "subscribers": []}
    return await visit.get_or("/v1/identities", empty) if visit.claim.role in OVERSEERS.names else empty


def _tools(tools: list[Json]) -> list[SearchResult]:
    return [
        SearchResult(tool["name"], f"/tools/{quote(tool['name'], safe='')}", "wrench", tool["about"]) for tool in tools
    ]


def _prompts(prompts: list[Json]) -> list[SearchResult]:
    return [
        SearchResult(row["prompt"], f"/prompts/{quote(row['prompt'], safe='')}", "bot", row["description"])
        for row in prompts
    ]


def _identities(page: Json) -> list[SearchResult]:
    keys = [SearchResult(row["person"], "/identities#keys", "key-round", f"key, {row['role']}") for row in page["keys"]]
    programs = [
        SearchResult(row["name"], "/identities#programs", "plug", "identity on the bus")
        for row in (*page["publishers"], *page["subscribers"])
    ]
    return [*keys, *programs]


def _names(counts: Json | None) -> list[SearchResult]:
    names = counts["names"] if counts else {}
    return [
        SearchResult(name, f"/tasks?{urlencode({filter_name: name})}", icon, filter_name)
        for field, filter_name, icon in NAMES
        for name in names.get(field, ())
    ]


def _runbooks() -> list[SearchResult]:
    return [SearchResult(name, f"/runbooks#{anchor}", "book-open", "runbook") for anchor, name in RUNBOOKS]
