"""The room of one task: its head, its tree beside the chosen row, its raw messages and its record.

In: visits. Out: pages, fragments and a stream. `?at=KEY` names the chosen row (`TreeNode.key`), `find` what is looked
for, `open` rows that are open besides, `as=json` the row as the API has it.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import SUBMITTERS
from bulkhead_services.gateway.console import pages, visits
from bulkhead_services.gateway.console.api import ApiRefused, Json
from bulkhead_services.gateway.console.drawing import DrawnStep, LayeredGraph, draw_layers
from bulkhead_services.gateway.console.task.ceilings import raise_limits
from bulkhead_services.gateway.console.task.holds import find_hold
from bulkhead_services.gateway.console.task.parties import PartyNames, read_party_names, tasks_in
from bulkhead_services.gateway.console.task.sums import LABELS, reserved_amount, retry_cost, sum_run
from bulkhead_services.gateway.console.task.task_list import WAY_ON
from bulkhead_services.gateway.console.task.tree import PIECES, WAITED, WAITS, TaskTree
from bulkhead_services.gateway.console.task.uncertain import read_resolutions
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit
from bulkhead_services.gateway.console.watching import follow_task
from bulkhead_services.gateway.read_model.citations import MARKER
from bulkhead_services.gateway.read_model.task_view import ENDED

FORKED = ENDED - {"rejected"}
"""A task that was turned away has nothing to fork."""
ROWS = 100
MAX_OPENED = 100
MAX_DRAWN = 60
"""Steps of a graph."""
LONG_BYTES = 64 * 1024
"""A longer story is made a page in a thread: streams go on meanwhile."""


class ConsoleTaskRoutes(ConsoleRoutes):
    """The routes under /tasks/{task_id} that only look."""

    def routes(self) -> list[Route]:
        """Routes of a task's pages."""
        get = self.factory.get_route
        return [
            get("/tasks/{task_id}", self.show_task),
            get("/tasks/{task_id}/head", self.show_head),
            get("/tasks/{task_id}/tree", self.show_tree),
            get("/tasks/{task_id}/pane", self.show_pane),
            get("/tasks/{task_id}/live", self.stream_task),
            get("/tasks/{task_id}/replay", self.show_replay),
            get("/tasks/{task_id}/messages", self.list_messages),
            get("/tasks/{task_id}/messages/{message_id}", self.show_message),
            get("/tasks/{task_id}/export", self.download_export),
            get("/tasks/{task_id}/calls/{call_id}", self.redirect_call),
            get("/tasks/{task_id}/citations/{marker}", self.show_citation),
        ]

    async def show_task(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}"""
        task, answer = await asyncio.gather(visit.get(_api_path(visit)), _read_story(visit))
        head = await _head_values(visit, task)
        story_values = await _story_values(visit, task, answer)
        return visit.render_page("tasks/task.html", **head | story_values)

    async def show_head(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/head: what an open page reads again at each event"""
        return visit.render_page("tasks/head.html", **await _head_values(visit, await visit.get(_api_path(visit))))

    async def show_tree(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/tree: the tree alone; with `under` the children of a row, from `from` on"""
        task, answer = await asyncio.gather(visit.get(_api_path(visit)), _read_story(visit))
        template = "tasks/rows.html" if visit.query_value("under") else "tasks/tree.html"
        return visit.render_page(template, **await _story_values(visit, task, answer))

    async def show_pane(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/pane: the chosen row alone"""
        task, answer = await asyncio.gather(visit.get(_api_path(visit)), _read_story(visit))
        return visit.render_page("tasks/pane.html", **await _story_values(visit, task, answer))

    async def stream_task(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/live"""
        return visits.live_stream(follow_task(visit.api.stream_events(visit.token, _api_path(visit) + "/events")))

    async def show_replay(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/replay"""
        task = await visit.get(_api_path(visit))
        return visit.render_page(
            "tasks/replay.html",
            task=task,
            exports=_may_export(visit, task),
            address=visits.gateway_address(visit.request),
        )

    async def list_messages(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/messages"""
        after = visit.query_value("after") or "0"
        page = await visit.get(_api_path(visit) + "/timeline", limit=ROWS, after=after)
        return visit.render_page("tasks/messages.html", timeline=page)

    async def show_message(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/messages/{message_id}"""
        document = await visit.get(f"{_api_path(visit)}/messages/{visit.request.path_params['message_id']}")
        return visit.render_page("tasks/message.html", told=document, rows=document["messages"])

    async def redirect_call(self, visit: Visit) -> Response:
        """GET /tasks/{task_id}/calls/{call_id}"""
        path = visit.request.path_params
        return visits.redirect_to(visit.request, f"/tasks/{path['task_id']}?at=call.{path['call_id']}")

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


def _api_path(visit: Visit) -> str:
    return f"/v1/tasks/{visit.request.path_params['task_id']}"


def _may_export(visit: Visit, task: Json) -> bool:
    person = (task["requester"] or {}).get("person")
    return visit.claim.role == "operator" or (visit.claim.role == "submitter" and person == visit.claim.person)


async def _head_values(visit: Visit, task: Json) -> dict[str, Any]:
    """Values of the head: the task, why it does not go on, its answer. doubts: its uncertain writes, each with a
    person's resolution or None."""
    resolutions = await read_resolutions(visit, task)
    doubts = [(write, resolutions.get(write["write_id"])) for write in task["uncertain_writes"] or ()]
    return {
        "doubts": doubts,
        "unresolved": task["uncertain_writes"] is None
        or bool(task["more_uncertain_writes"])
        or any(resolution is None for _, resolution in doubts),
        "task": task,
        "ended": task["status"] in ENDED,
        "hold": await find_hold(visit, task),
        "raised": raise_limits(task),
        "names": PartyNames({task["task_id"]: task}),
        "exports": _may_export(visit, task),
        "forks": task["status"] in FORKED and task["kind"] != "adopted" and visit.claim.role in SUBMITTERS.names,
        "answer": split_markers(task["answer"] or ""),
    }


async def _read_story(visit: Visit) -> Json:
    """The story; `refused` where the API has none to tell now."""
    try:
        answer = await visit.api.send_request("GET", visit.token, _api_path(visit) + "/why")
        if len(answer.body) < LONG_BYTES:
            return answer.decode_json()
        return await asyncio.to_thread(answer.decode_json)
    except ApiRefused as error:
        if error.status in (401, 404):
            raise
        return {"story": None, "refused": error, "content": True, "cut": False}


async def _story_values(visit: Visit, task: Json, document: Json) -> dict[str, Any]:
    """Values of tree and pane."""
    story, now_unix_ms = document["story"], round(time.time() * 1000)
    values = {
        "task": task,
        "document": document,
        "story": story,
        "find": visit.query_value("find"),
        "as_json": visit.query_value("as") == "json",
        "waits": WAITS,
        "waited": WAITED,
        "way_on": WAY_ON,
        "pieces": PIECES,
        "time_labels": LABELS,
        "ended": task["status"] in ENDED,
        "as_graph": visit.query_value("view") == "graph",
        "forks": task["status"] in FORKED and task["kind"] != "adopted" and visit.claim.role in SUBMITTERS.names,
    }
    if story is None:
        return values | {
            "names": PartyNames(),
            "tree": None,
            "rows": (),
            "more": False,
            "at": "",
            "node": None,
            "call": None,
            "raw": "",
        }
    tree = await asyncio.to_thread(TaskTree, story, now_unix_ms, has_ended=task["status"] in ENDED)
    pause = task["pause"] or {}
    chosen = tree.choose_key(visit.query_value("at"), pause.get("step_id", ""))
    node = tree.nodes.get(chosen)
    sentences = [wait["what"] for wait in node.waits] if node else []
    sentences += [wait["what"] for _, wait in tree.open_waits()] + [reason["what"] for reason in story["reasons"]]
    other_task_ids = [task_id for task_id in tasks_in(sentences) if task_id != task["task_id"]]
    call = None
    if node is not None and chosen.startswith("call."):
        call = (await visit.get(f"{_api_path(visit)}/calls/{node.told['call_id']}"))["call"]
    return (
        values
        | _row_values(visit, tree, chosen)
        | {
            "names": await read_party_names(visit, other_task_ids, [task]),
            "tree": tree,
            "sums": sum_run(tree),
            "graph": _draw_run(tree),
            "reserved": reserved_amount(node) if node is not None else 0,
            "again": retry_cost(node) if node is not None and node.kind == "step" else 0,
            "at": chosen,
            "node": node,
            "call": call,
            "cited": _number_sources(story, task["answer"] or ""),
            "unsourced": [sentence["text"] for sentence in story["answer"] if not sentence["sources"]],
            "raw": json.dumps(call or _without_children(node.told), indent=2, ensure_ascii=False) if node else "",
        }
    )


def _row_values(visit: Visit, tree: TaskTree, chosen: str) -> dict[str, Any]:
    """The rows that the tree shows: those that match, the children of one, or what is open."""
    opened = tree.opened_keys(chosen, visit.query_value("open").split(",")[:MAX_OPENED])
    if find := visit.query_value("find"):
        rows, is_cut = tree.matching_rows(find)
        return {"rows": rows, "more": is_cut}
    if under := visit.query_value("under"):
        start = visit.query_value("from")
        return {
            "rows": list(tree.rows_below(under, int(start) if start.isdecimal() and len(start) < 8 else 0, opened)),
            "more": False,
        }
    return {"rows": list(tree.visible_rows(opened, chosen)), "more": False}


def _draw_run(tree: TaskTree) -> LayeredGraph | None:
    """The steps of the last plan, without the items of its maps; None where they are one, or too many to be seen."""
    steps = [tree.nodes[key] for root in tree.roots[-1:] for key in tree.nodes[root].children if key[:5] == "step."]
    if not 1 < len(steps) <= MAX_DRAWN:
        return None
    keys = {node.told["step_id"]: node.key for node in steps}
    inputs = {node.key: tuple(keys[name] for name in node.told["inputs"] if name in keys) for node in steps}
    return draw_layers([DrawnStep(node.key, node.name, inputs[node.key], node.state) for node in steps])


def _number_sources(story: Json, answer: str) -> list[tuple[int, Json]]:
    """The sources of an answer by the numbers that its markers have in the page."""
    numbers = {marker: number for _, marker, number in split_markers(answer) if marker}
    sources = {source["marker"]: source for sentence in story["answer"] for source in sentence["sources"]}
    return [(number, sources[marker]) for marker, number in numbers.items() if marker in sources]


def _without_children(row: Json) -> Json:
    """A step or plan without what stands in rows of its own."""
    return {name: value for name, value in row.items() if name != "calls"}


def split_markers(text: str) -> Sequence[tuple[str, str, int]]:
    """A text in pieces: each with the marker behind it, "" for none, and that marker's number."""
    parts = MARKER.split(text)
    numbers: dict[str, int] = {}
    return [
        (piece, marker, numbers.setdefault(marker, len(numbers) + 1) if marker else 0)
        for piece, marker in zip(parts[::2], [*parts[1::2], ""], strict=True)
    ]
