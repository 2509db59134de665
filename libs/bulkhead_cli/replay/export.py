"""`bulkhead export`: one task as a portable history in one file.

In: the journal and the contents of a running mesh, under the operator's key, or a gateway's export. Out: the file; its
size and what is in it.
"""

import io
import sys
from pathlib import Path

from bulkhead.amounts import counted
from bulkhead.journal.export import export_task
from bulkhead.runtime.decider.history import History, HistoryError
from bulkhead.runtime.decider.history_file import dump, parse, save
from bulkhead_cli.output import Exit, Stop, err, out, print_json
from bulkhead_cli.target import Target, operator_bus


async def show_export(data: Path, task: str, path: Path | None, tenant: str = "", *, as_json: bool) -> None:
    """Write the task's history to a file, or to standard output. Raises Stop, BusError."""
    async with operator_bus(data) as bus:
        try:
            history = await export_task(bus, task, tenant)
        except HistoryError as error:
            raise Stop(Exit.FAILED, f"the task cannot be exported: {error}", error.hint) from error
    _write(history, task, path, as_json=as_json)


async def show_remote_export(target: Target, task: str, path: Path | None, *, as_json: bool) -> None:
    """The same from a gateway. What it sent is read whole before a file is written."""
    _write(await remote_history(target, task), task, path, as_json=as_json)


async def remote_history(target: Target, task: str) -> History:
    """A task's history as a gateway exports it. Raises Stop."""
    async with target.mesh() as mesh:
        raw = await mesh.task(task).export()
    try:
        return parse(io.BytesIO(raw), "what the gateway sent")
    except HistoryError as error:
        raise Stop(Exit.FAILED, f"the task cannot be exported: {error}", error.hint) from error


def _write(history: History, task: str, path: Path | None, *, as_json: bool) -> None:
    try:
        raw = dump(history) if path is None else b""
        size = len(raw) if path is None else save(history, path)
    except HistoryError as error:
        raise Stop(Exit.FAILED, f"the task cannot be exported: {error}", error.hint) from error
    except OSError as error:
        raise Stop(Exit.FAILED, f"{path} cannot be written: {error.strerror}", "name another file with -o") from error
    if path is None:
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
        return
    gone = sum(one.data is None for one in history.contents.values())
    if as_json:
        print_json(
            {
                "file": str(path),
                "bytes": size,
                "task": task,
                "tenant": history.tenant,
                "ended": history.ended,
                "messages": len(history.messages),
                "contents": len(history.contents),
                "gone": gone,
            }
        )
        return
    out.print(
        f"{path}: {counted(len(history.messages), 'message')}, {counted(len(history.contents), 'content')}, "
        f"{counted(size, 'byte')}",
        markup=False,
    )
    if gone:
        err.print(
            f"{counted(gone, 'content')} of them had expired: replay works unless a decision read one", style="yellow"
        )
    if not history.ended:
        err.print("the task has not ended: calls that are still running are not in the file", style="yellow")
