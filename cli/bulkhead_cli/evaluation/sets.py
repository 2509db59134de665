"""`bulkhead eval check`, `from-tasks` and `labels`: sets that are validated; cases and labels that come of tasks.

In: a set, or a target and which of its tasks. Out: a summary, or cases as JSON Lines.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bulkhead.client import Mesh, Refused, request_checks
from bulkhead.evaluation.cases import CaseError, EvaluationCase, digest_cases
from bulkhead.evaluation.judges.certificates import SeatedJudge, seat_judges
from bulkhead.evaluation.labels import build_label_files
from bulkhead.evaluation.population import MIN_TEXTS, distance_json, measure_distances
from bulkhead.evaluation.production import build_case, sample_tasks
from bulkhead.evaluation.python_checks import load_python_checks
from bulkhead.gateway_api.ratings import OF_EVALUATIONS, LabelExportQuery
from bulkhead.gateway_api.tasks import TaskListQuery
from bulkhead.text.amounts import format_count, format_time
from bulkhead_cli.models.running import read_cases
from bulkhead_cli.output import CommandError, Exit, json_line, print_json
from bulkhead_cli.screen import err, out
from bulkhead_cli.target import GatewayTarget

MAX_TASKS_READ = 5_000
PAGE = 100
NOT_FOUND = 404
ENDED = "succeeded,failed,cancelled,halted"


@dataclass(frozen=True, slots=True)
class TaskSelection:
    """Tasks to make cases of. tasks: ids, in place of all filters. count: how many of those that fit."""

    since: str
    status: str
    standing: str
    answered: str
    rated: str
    tasks: tuple[str, ...]
    count: int


def check_set(path: Path, *, as_json: bool) -> Exit:
    """Validate a set. Raises CommandError for the first thing that does not fit."""
    cases = read_cases(path)
    try:
        seats = seat_judges(path, cases, round(time.time() * 1000))
        digest_cases(cases, {name: seat.digest for name, seat in seats.items()})
        load_python_checks(cases)
    except CaseError as error:
        raise CommandError(Exit.USAGE, str(error), error.hint, name="evaluation") from error
    kinds = Counter(check.kind for case in cases for check in case.checks)
    tags = Counter(tag for case in cases for tag in case.tags)
    documents = len({document for case in cases for document in case.documents})
    if as_json:
        summary = {"set": str(path), "cases": len(cases), "documents": documents, "checks": kinds, "tags": tags}
        print_json(summary | {"judges": {name: seat.advice or "certified" for name, seat in seats.items()}})
        return Exit.OK
    out.print(f"{path}: {format_count(len(cases), 'case')}, {format_count(documents, 'document')}", markup=False)
    for title, counts in (("checks", kinds), ("tags", tags)):
        names = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        out.print(f"{title}: {names or 'none'}", markup=False)
    print_standings(seats.values(), out)
    return Exit.OK


def print_standings(seats: Iterable[SeatedJudge], screen: Console) -> None:
    """Print which judges may fail a case, until when, and why the others may not."""
    for seat in seats:
        if seat.advice:
            screen.print(f"judge {seat.judge.name} is advice: {seat.advice}", style="yellow", markup=False)
        elif seat.certificate is not None:
            until = format_time(seat.certificate.expires_unix_ms)
            screen.print(f"judge {seat.judge.name} is certified until {until}", markup=False)


async def check_population(target: GatewayTarget, path: Path, since: str, *, as_json: bool) -> Exit:
    """Compare a set with the requests of a time. Raises CommandError."""
    cases = [case.objective for case in read_cases(path)]
    async with target.mesh_client() as mesh:
        rows = await _read_rows(mesh, {"since": since, "kind": "planned", "limit": PAGE})
    requests = [row["objective"] for row in rows if row["feature"] not in OF_EVALUATIONS]
    if min(len(cases), len(requests)) < MIN_TEXTS:
        few = f"{format_count(len(cases), 'case')} and {format_count(len(requests), 'request')}"
        hint = f"{MIN_TEXTS} of each are needed: take a longer time, or more cases"
        raise CommandError(Exit.USAGE, f"{few} are too few to compare", hint, name="evaluation")
    distances = measure_distances(cases, requests)
    if as_json:
        counts = {"set": str(path), "cases": len(cases), "requests": len(requests)}
        print_json(counts | {"distances": [distance_json(distance) for distance in distances]})
    else:
        for row in distances:
            verdict = "drifted" if row.has_drifted else "alike"
            figures = f"{row.distance:.3f}, by chance {row.typical:.3f} (p = {row.p_value:.3g})"
            out.print(f"{row.measure:10} {verdict:8} {figures}", markup=False, style="red" if row.has_drifted else "")
        out.print(f"{format_count(len(cases), 'case')}, {format_count(len(requests), 'request')}", markup=False)
    return Exit.FAILED if any(row.has_drifted for row in distances) else Exit.OK


async def write_task_cases(
    target: GatewayTarget, selection: TaskSelection, tags: tuple[str, ...], path: Path | None, *, as_json: bool
) -> Exit:
    """Print the cases, or write them to a file that is not there yet. Raises CommandError."""
    async with target.mesh_client() as mesh:
        ids = selection.tasks or await _select_tasks(mesh, selection)
        documents = [document for task in ids if (document := await _show_task(mesh, task)) is not None]
    try:
        cases = [case for document in documents if (case := build_case(document, tags)) is not None]
    except ValueError as error:
        raise CommandError(Exit.USAGE, f"--tag: {error}", "a tag has letters, digits, `.`, `_` and `-`") from error
    rows = [_case_row(case) for case in cases]
    if path is not None:
        try:
            with path.open("x") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        except OSError as error:
            hint = "name a file that is not there yet: cases that people have corrected are not replaced"
            raise CommandError(Exit.USAGE, f"{path} cannot be written: {error.strerror}", hint) from error
    if as_json:
        print_json({"cases": rows if path is None else len(rows), "file": str(path) if path is not None else None})
    elif path is None:
        for row in rows:
            print(json_line(row))
    if not as_json:
        err.print(
            f"{format_count(len(rows), 'case')} of {format_count(len(documents), 'task')}", style="dim", markup=False
        )
    return Exit.OK


async def write_labels(target: GatewayTarget, query: dict[str, str], path: Path, *, as_json: bool) -> Exit:
    """Write labelled answers and the texts that they cite, to files that are not there yet. Raises CommandError."""
    rows: list[dict[str, Any]] = []
    after: str | None = ""
    unread = 0
    async with target.mesh_client() as mesh:
        while after is not None:
            page = await mesh.read_json(request_checks.check_query(LabelExportQuery, {**query, "after": after}))
            rows, after, unread = [*rows, *page["rows"]], page["next"], page["unread"]
    try:
        for name, text in build_label_files(rows, path.name).items():
            file_path = path.parent / name
            file_path.parent.mkdir(parents=True, exist_ok=True)
            with file_path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        hint = "name a file that is not there yet: labels that are somewhere in use are not replaced"
        raise CommandError(Exit.USAGE, f"{error.filename} cannot be written: {error.strerror}", hint) from error
    if unread:
        err.print(f"{format_count(unread, 'task')} not read yet by the gateway: take them again later", style="yellow")
    if as_json:
        print_json({"file": str(path), "answers": len(rows), "unread": unread})
    else:
        err.print(f"{format_count(len(rows), 'labelled answer')} in {path}", style="dim", markup=False)
    return Exit.OK


async def _show_task(mesh: Mesh, task: str) -> dict[str, Any] | None:
    """A task; None, with a line about it, where the mesh has it no more: the others still make cases."""
    try:
        return await mesh.task(task).show()
    except Refused as error:
        if error.status != NOT_FOUND:
            raise
        err.print(f"{task} is left out: {error}", style="yellow", markup=False)
        return None


async def _select_tasks(mesh: Mesh, selection: TaskSelection) -> tuple[str, ...]:
    filters = {"since": selection.since, "status": selection.status or ENDED, "kind": "planned", "limit": PAGE}
    filters |= {"standing": selection.standing, "answered": selection.answered, "rated": selection.rated}
    return tuple(str(row["task_id"]) for row in sample_tasks(await _read_rows(mesh, filters), selection.count))


async def _read_rows(mesh: Mesh, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tasks that fit, the newest first, up to MAX_TASKS_READ."""
    rows: list[dict[str, Any]] = []
    cursor = ""
    while len(rows) < MAX_TASKS_READ:
        page = await mesh.read_json(request_checks.check_query(TaskListQuery, {**filters, "cursor": cursor}))
        rows += page["tasks"]
        cursor = page.get("next") or ""
        if not cursor:
            break
    return rows


def _case_row(case: EvaluationCase) -> dict[str, Any]:
    """A case as sets have it."""
    row = case.model_dump(mode="json", exclude_unset=True)
    return {"name": row.pop("name"), "input": row.pop("objective"), **row}
