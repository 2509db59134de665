"""The room of labels: one answer after the other, good or bad by two keys, without knowing what others say.

In: visits; forms with a label. Out: pages; the labelled answers as an archive. The queue's filters stand in the
address. Nothing here tells which model or prompt an answer came from, nor the mesh's own verdict.
"""

import asyncio
import io
import zipfile
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.evaluation.labels import build_label_files
from bulkhead.gateway_api.ratings import EXPORTERS
from bulkhead_services.gateway.console import pages
from bulkhead_services.gateway.console.api import ApiRefused, Json
from bulkhead_services.gateway.console.task.page import split_markers
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to

FILTERS = ("feature", "since", "release", "share", "double_every")
OF_EXPORT = ("feature", "since", "release")
MAX_SOURCES = 12


class ConsoleLabelRoutes(ConsoleRoutes):
    """The routes under /labels."""

    def routes(self) -> list[Route]:
        """Routes of the page of labels."""
        return [
            self.factory.get_route("/labels", self.show_next),
            self.factory.get_route("/labels/export", self.download_labels),
            self.factory.post_route("/labels/{task_id}", self.submit_label),
        ]

    async def show_next(self, visit: Visit) -> Response:
        """GET /labels: the next answer that this person is to label; `skip` passes over so many"""
        filters = _filters_of(visit, FILTERS)
        queue = await visit.get("/v1/labels", **filters)
        skip = visit.query_value("skip")
        place = int(skip) if skip.isascii() and skip.isdigit() and len(skip) < 3 else 0
        tasks = queue["tasks"][place:] or queue["tasks"]
        answer = await _read_answer(visit, tasks[0]) if tasks else None
        names = (await visit.get("/v1/tasks", limit=1, counts="true"))["counts"]["names"]
        return visit.render_page(
            "quality/labels.html",
            queue=queue,
            answer=answer,
            here=urlencode(filters),
            filters=filters,
            skip=place + 1 if len(queue["tasks"]) > place + 1 else 0,
            features=names["features"],
            may_export=visit.claim.role in EXPORTERS.names,
        )

    async def submit_label(self, visit: Visit) -> Response:
        """POST /labels/{task_id}: the label, and on to the next answer"""
        form = await visit.read_form()
        body = {"kind": "label", "score": form.get("score", ""), "comment": form.get("reason", "")}
        path = f"/v1/tasks/{visit.request.path_params['task_id']}/rating"
        await visit.post(path, body, form.get(KEY_FIELD, ""), "PUT")
        filters = urlencode({name: form[name] for name in FILTERS if form.get(name)})
        return redirect_to(visit.request, f"/labels?{filters}" if filters else "/labels")

    async def download_labels(self, visit: Visit) -> Response:
        """GET /labels/export: the files that a calibration reads, as one archive"""
        rows: list[Json] = []
        after: str | None = ""
        while after is not None:
            page = await visit.get("/v1/labels/export", **_filters_of(visit, OF_EXPORT), after=after)
            rows, after = [*rows, *page["rows"]], page["next"]
        archive = await asyncio.to_thread(_pack_files, build_label_files(rows, "labels.jsonl"))
        headers = pages.SAFE | pages.NOT_KEPT | {"Content-Disposition": 'attachment; filename="labels.zip"'}
        return Response(archive, 200, headers, "application/zip")


def _filters_of(visit: Visit, names: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name in names if (value := visit.query_value(name))}


async def _read_answer(visit: Visit, task_id: str) -> dict[str, Any]:
    """Question, answer and sources of a task, and nothing else of it."""
    task, cited = await asyncio.gather(visit.get(f"/v1/tasks/{task_id}"), visit.get(f"/v1/tasks/{task_id}/citations"))
    pieces = split_markers(task["answer"] or "")
    numbers = {marker: number for _, marker, number in pieces if marker}
    markers = [row["marker"] for row in cited["citations"] if row["kind"] != "unknown"][:MAX_SOURCES]
    sources = await asyncio.gather(*(_read_source(visit, task_id, marker) for marker in markers))
    return {
        "task_id": task_id,
        "question": task["objective"],
        "pieces": pieces,
        "sources": [(numbers.get(source["marker"], 0), source) for source in sources],
        "more": len(cited["citations"]) - len(markers) + cited["more"],
    }


async def _read_source(visit: Visit, task_id: str, marker: str) -> Json:
    try:
        return await visit.get(f"/v1/tasks/{task_id}/citations/{marker}")
    except ApiRefused as error:
        if error.status == 401:
            raise
        return {"marker": marker, "source": "", "text": None, "note": error.detail}


def _pack_files(files: dict[str, str]) -> bytes:
    to = io.BytesIO()
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return to.getvalue()
