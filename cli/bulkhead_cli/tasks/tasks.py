"""The commands that speak to a gateway over HTTP.

In: a target and the command's options. Out: text or JSON on standard output, and an exit code.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from rich.markup import escape

from bulkhead.client import Mesh, MeshError, Task, TaskEvent
from bulkhead.text.amounts import format_count, format_time
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import err, out
from bulkhead_cli.target import GatewayTarget
from bulkhead_cli.tasks import answer, document_files, follow, uncertain_writes
from bulkhead_cli.tasks.listing import ADOPTED
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import planned_ids

REJECTION_WAIT_S = 2.0
"""Time that `submit` waits for a rejection, which takes milliseconds in a healthy mesh."""
MAX_PLAN_BYTES = 1024 * 1024


async def submit_task(
    target: GatewayTarget,
    objective: str,
    docs: list[Path],
    wanted: dict[str, Any],
    *,
    watch: bool,
    as_json: bool,
    complete: bool = False,
    skip_unreadable: bool = False,
) -> Exit:
    """Add the documents, submit, and with `watch` follow. Raises CommandError when the mesh refuses the task
    at once, and for unreadable documents unless skip_unreadable.
    """
    text = _read_objective(objective)
    uploads = document_files.find_uploads(docs)
    if (file := wanted.get("plan")) is not None:
        wanted = wanted | {"plan": read_plan(file)}
    async with target.mesh_client() as mesh:
        fates = await _add_documents(mesh, uploads, as_lines=watch and as_json, told=not as_json)
        if watch or not as_json:
            document_files.print_skipped_files(docs, as_lines=as_json)
        without = document_files.unreadable_note(uploads, fates)
        if without and not skip_unreadable:
            raise CommandError(
                Exit.REFUSED,
                f"{without}; no task was submitted",
                "repair or remove them, or submit without them: --skip-unreadable",
                name="unreadable_documents",
            )
        task = await mesh.submit(text, **wanted)
        if watch:
            if as_json:
                print_json({"event": "submitted", "task_id": task.id})
            else:
                err.print(f"task {task.id}", style="dim", markup=False)
            code = await follow.watch_to_end(task, out, as_json=as_json, complete=complete)
            if without and not as_json:
                out.print(f"the answer may be incomplete: {without}", style="yellow", markup=False)
            return code
        first = await first_event(task)
    rejection = first.data if first is not None and first.name == "task.rejected" else None
    missing = first.data.get("left_out", []) if first is not None and first.name == "task.accepted" else []
    if as_json:
        extra_fields = document_files.as_json(uploads, fates, docs) if uploads else {}
        extra_fields |= {"tools_left_out": missing} if missing else {}
        path = f"/v1/tasks/{task.id}"
        print_json({"task_id": task.id, "status_url": path, "events_url": f"{path}/events", **extra_fields})
    else:
        out.print(task.id, markup=False)
    if rejection is not None:
        raise CommandError(
            Exit.REFUSED,
            f"the task was rejected: {rejection['message']}",
            str(rejection.get("hint") or ""),
            name=str(rejection["code"]),
        )
    if not as_json:
        if first is not None and first.name == "task.queued":
            err.print(f"it {answer.queue_line(first.data)}", style="yellow", markup=False)
        for line in answer.left_out_lines(missing):
            err.print(line, style="yellow", markup=False)
        err.print(f"follow it: bulkhead watch {task.id}", style="dim", markup=False)
    return Exit.OK


def _read_objective(given: str) -> str:
    """The objective, from standard input where it is `-`. Raises CommandError."""
    text = _standard_input() if given == "-" else given
    if not text.strip():
        raise CommandError(Exit.USAGE, "the objective is empty", "describe what the mesh is to find out or do")
    if len(text) > bounds.MAX_OBJECTIVE_CHARS:
        raise CommandError(
            Exit.USAGE,
            f"the objective has {len(text)} characters; the limit is {bounds.MAX_OBJECTIVE_CHARS}",
            "put long material into documents (--docs)",
        )
    return text


def read_plan(file: Path) -> dict[str, Any]:
    """The plan in a file; the gateway looks at what stands in it. Raises CommandError."""
    hint = 'write {"steps": [{"id": ..., "title": ..., "instruction": ..., "acceptance": ..., "role": ...}]}'
    try:
        raw = file.read_bytes()
        plan = json.loads(raw) if len(raw) <= MAX_PLAN_BYTES else None
    except OSError as error:
        raise CommandError(
            Exit.USAGE, f"{file} cannot be read: {error.strerror}", "--plan names a JSON file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CommandError(Exit.USAGE, f"{file} is no JSON: {str(error)[:200]}", hint) from error
    if not isinstance(plan, dict):
        raise CommandError(Exit.USAGE, f"{file} holds no JSON object of at most {MAX_PLAN_BYTES:,} bytes", hint)
    return plan


async def _add_documents(
    mesh: Mesh, uploads: list[document_files.DocumentUpload], *, as_lines: bool, told: bool
) -> list[document_files.Fate]:
    """Put them in; as_lines: each is a line of the stream that follows."""

    def print_fate(upload: document_files.DocumentUpload, fate: document_files.Fate) -> None:
        print_json(document_files.fate_event(upload, fate))

    return await document_files.add_documents(mesh, uploads, told=told, on_fate=print_fate if as_lines else None)


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise CommandError(
            Exit.USAGE,
            f"standard input is not UTF-8 text (byte {error.start})",
            "convert it first, for example with iconv; PDF and other files go in with --docs",
        ) from error


async def first_event(task: Task) -> TaskEvent | None:
    """The first event of a task (rejected, queued or accepted); None when it does not come in time."""
    try:
        async with asyncio.timeout(REJECTION_WAIT_S), aclosing(task.events()) as events:
            async for event in events:
                return event
    except (TimeoutError, MeshError):
        pass  # The task is stored: `watch` tells how it goes on.
    return None


async def rejected_at_once(task: Task) -> dict[str, Any] | None:
    """The rejection of a task, when it comes in time; None otherwise."""
    first = await first_event(task)
    return first.data if first is not None and first.name == "task.rejected" else None


async def watch_task(target: GatewayTarget, task: str, *, as_json: bool, complete: bool = False) -> Exit:
    """Follow a task from its beginning. complete: as `follow.watch_to_end`."""
    async with target.mesh_client() as mesh:
        return await follow.watch_to_end(mesh.task(task), out, as_json=as_json, complete=complete)


async def show_task(target: GatewayTarget, task: str, *, as_json: bool) -> None:
    """Everything about one task."""
    async with target.mesh_client() as mesh:
        document = await mesh.task(task).show()
    if as_json:
        print_json(document)
        return
    out.print(document["objective"], style="bold", markup=False)
    out.print(
        f"submitted {format_time(document['created_unix_ms'])} by {(document['requester'] or {}).get('person', '?')}"
        f"{'; adopted: an agent outside carries it out' if document.get('kind') == ADOPTED else ''}",
        style="dim",
        markup=False,
    )
    if (queue := document.get("queue")) is not None:
        out.print(answer.queue_line(queue), style="yellow", markup=False)
    if (pause := document.get("pause")) is not None:
        who = "waiting for a person" if pause.get("until_unix_ms") else "held back"
        out.print(f"{who} since {format_time(pause['since_unix_ms'])}: {pause['reason']}", style="yellow", markup=False)
    for line in answer.left_out_lines(document.get("tools_left_out", ())):
        out.print(line, style="yellow", markup=False)
    items = _count_items(document["steps"])
    for step in document["steps"]:
        if _is_item(step, items):
            continue  # Its map's line counts it.
        style = {"accepted": "green", "waiting": "dim", "skipped": "dim", "running": "blue"}.get(step["status"], "red")
        tries = f", {format_count(step['attempts'], 'attempt')}" if step["attempts"] > 1 else ""
        until = f", waits until {format_time(step['until_unix_ms'])}" if step.get("until_unix_ms") else ""
        doubt = escape(answer.ANSWERED_LABELS.get(step.get("answered") or "", ""))
        out.print(
            f"  [bold]{escape(step['step_id'])}[/bold] {escape(step['title'])} "
            f"[{'yellow' if doubt else style}]{step['status']}{doubt}[/]{tries}{until}"
            + (f": {items[step['step_id']]}" if step["step_id"] in items else "")
        )
        for reason in step["reasons"]:
            out.print(f"      {reason}", style="dim", markup=False)
    out.print()
    answer.print_answer(out, document)
    uncertain_writes.print_uncertain_writes(out, document)


def _count_items(steps: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Number of items of each map by status, in words. An item has its map's title."""
    titles, counts = {step["step_id"]: step["title"] for step in steps}, dict[str, Counter[str]]()
    for step in steps:
        for map_id in planned_ids(step["step_id"])[1:]:
            if titles.get(map_id) == step["title"]:
                counts.setdefault(map_id, Counter())[step["status"]] += 1
    return {
        map_id: ", ".join(f"{count:,} {status}" for status, count in sorted(by_status.items()))
        for map_id, by_status in counts.items()
    }


def _is_item(step: dict[str, Any], items: Mapping[str, str]) -> bool:
    return any(map_id in items for map_id in planned_ids(step["step_id"])[1:])
