"""Artifacts of a failed test: each task's document, timeline and history, and all logs.

In: a mesh under test, a folder. Out: files, and lines with their paths. It runs while the mesh still stands, and leaves
what it can when half of it does not.
"""

import asyncio
import io
import json
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from bulkhead.bus.port import Bus, BusError
from bulkhead.client import MeshError
from bulkhead.journal import history, timeline
from bulkhead.journal.export import export_task
from bulkhead.runtime.decider.history import HistoryError
from bulkhead.runtime.decider.history_file import save_history
from bulkhead.testing.mesh_under_test import MeshUnderTest, TaskUnderTest, journal_so_far

TASKS = 5
"""The last ones: a test that fails in the middle of a hundred is told by its end."""
PATIENCE_S = 30.0
WIDTH = 160
T = TypeVar("T")


def leave_artifacts(mesh: MeshUnderTest, folder: Path) -> list[str]:
    """Write everything; returns what to tell."""
    folder.mkdir(parents=True, exist_ok=True)
    report = [f"everything of this test: {folder}"]
    for task in mesh.submitted[-TASKS:]:
        report += _leave_task(mesh, task, folder)
    try:
        mesh.loop.run(_within_patience(mesh.stage.collect_logs()))
    except (OSError, TimeoutError) as error:
        report.append(f"the logs could not be collected: {error}")
    if mesh.stage.logs.is_dir() and any(mesh.stage.logs.iterdir()):
        shutil.copytree(mesh.stage.logs, folder / "logs", dirs_exist_ok=True)
        report.append(f"logs: {folder / 'logs'}")
    return report


def _leave_task(mesh: MeshUnderTest, task: TaskUnderTest, folder: Path) -> list[str]:
    report = []
    try:
        document = mesh.loop.run(_within_patience(task.show_document()))
        (folder / f"{task.id}.json").write_text(json.dumps(document, indent=1))
        report.append(f"task {task.id} ({document['status']}): {folder / f'{task.id}.json'}")
    except (MeshError, TimeoutError) as error:
        report.append(f"task {task.id}: the gateway does not say: {error}")

    async def read_entries(bus: Bus) -> list[history.JournalEntry]:
        entries = history.build_entries(await journal_so_far(bus, task.id))
        try:
            save_history(await export_task(bus, task.id), folder / f"{task.id}.journal.jsonl.gz")
        except (HistoryError, history.UnknownTask, BusError) as error:
            (folder / f"{task.id}.journal.txt").write_text(f"{error}\n")
        return entries

    try:
        entries = mesh.loop.run(_within_patience(mesh.ask_broker(read_entries)))
    except (BusError, TimeoutError) as error:
        return [*report, f"its journal cannot be read: {error}"]
    if not entries:
        return [*report, "the journal holds nothing of it"]
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None).print(timeline.build_tree(task.id, entries))
    (folder / f"{task.id}.timeline.txt").write_text(text.getvalue())
    (folder / f"{task.id}.timeline.json").write_text(json.dumps(timeline.as_json(entries), indent=1))
    report.append(f"  timeline: {folder / f'{task.id}.timeline.txt'}")
    report.append(f"  journal: {folder / f'{task.id}.journal.jsonl.gz'} (`bulkhead replay` takes it, `zcat` shows it)")
    return report


async def _within_patience(work: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(PATIENCE_S):
        return await work
