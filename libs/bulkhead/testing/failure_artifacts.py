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
from bulkhead.runtime.decider.history_file import save
from bulkhead.testing.mesh_under_test import MeshUnderTest, TaskUnderTest, journal_so_far

TASKS = 5
"""The last ones: a test that fails in the middle of a hundred is told by its end."""
PATIENCE_S = 30.0
WIDTH = 160
T = TypeVar("T")


def leave(mesh: MeshUnderTest, folder: Path) -> list[str]:
    """Write everything; returns what to tell."""
    folder.mkdir(parents=True, exist_ok=True)
    told = [f"everything of this test: {folder}"]
    for task in mesh.submitted[-TASKS:]:
        told += _task(mesh, task, folder)
    try:
        mesh.loop.run(_within(mesh.stage.collect_logs()))
    except (OSError, TimeoutError) as error:
        told.append(f"the logs could not be collected: {error}")
    if mesh.stage.logs.is_dir() and any(mesh.stage.logs.iterdir()):
        shutil.copytree(mesh.stage.logs, folder / "logs", dirs_exist_ok=True)
        told.append(f"logs: {folder / 'logs'}")
    return told


def _task(mesh: MeshUnderTest, task: TaskUnderTest, folder: Path) -> list[str]:
    told = []
    try:
        shown = mesh.loop.run(_within(task.show()))
        (folder / f"{task.id}.json").write_text(json.dumps(shown, indent=1))
        told.append(f"task {task.id} ({shown['status']}): {folder / f'{task.id}.json'}")
    except (MeshError, TimeoutError) as error:
        told.append(f"task {task.id}: the gateway does not say: {error}")

    async def read(bus: Bus) -> list[history.Entry]:
        found = history.entries(await journal_so_far(bus, task.id))
        try:
            save(await export_task(bus, task.id), folder / f"{task.id}.journal.jsonl.gz")
        except (HistoryError, history.UnknownTask, BusError) as error:
            (folder / f"{task.id}.journal.txt").write_text(f"{error}\n")
        return found

    try:
        found = mesh.loop.run(_within(mesh.ask(read)))
    except (BusError, TimeoutError) as error:
        return [*told, f"its journal cannot be read: {error}"]
    if not found:
        return [*told, "the journal holds nothing of it"]
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None).print(timeline.tree(task.id, found))
    (folder / f"{task.id}.timeline.txt").write_text(text.getvalue())
    (folder / f"{task.id}.timeline.json").write_text(json.dumps(timeline.as_json(found), indent=1))
    told.append(f"  timeline: {folder / f'{task.id}.timeline.txt'}")
    told.append(f"  journal: {folder / f'{task.id}.journal.jsonl.gz'} (`bulkhead replay` takes it, `zcat` shows it)")
    return told


async def _within(work: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(PATIENCE_S):
        return await work
