"""`bulkhead export`: one task as a portable history in one file.

In: the journal and the contents of a running mesh, under the operator's key, or a gateway's export. Out: the file; its
size and what is in it.
"""

import io
import sys
from pathlib import Path

from bulkhead.journal.export import export_task
from bulkhead.runtime.decider.history import HistoryError, TaskHistory
from bulkhead.runtime.decider.history_file import dump_history, parse_history, save_history
from bulkhead.text.amounts import format_count
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import err, out
from bulkhead_cli.target import GatewayTarget, operator_bus


async def show_export(data: Path, task: str, path: Path | None, tenant: str = "", *, as_json: bool) -> None:
    """Write the task's history to a file, or to standard output. Raises CommandError, BusError."""
    async with operator_bus(data) as bus:
        try:
            history = await export_task(bus, task, tenant)
        except HistoryError as error:
            raise CommandError(Exit.FAILED, f"the task cannot be exported: {error}", error.hint) from error
    _write_export(history, task, path, as_json=as_json)


async def show_remote_export(target: GatewayTarget, task: str, path: Path | None, *, as_json: bool) -> None:
    """The same from a gateway. What it sent is read whole before a file is written."""
    _write_export(await remote_history(target, task), task, path, as_json=as_json)


async def remote_history(target: GatewayTarget, task: str) -> TaskHistory:
    """A task's history as a gateway exports it. Raises CommandError."""
    async with target.mesh_client() as mesh:
        raw = await mesh.task(task).export()
    try:
        return parse_history(io.BytesIO(raw), "what the gateway sent")
    except HistoryError as error:
        raise CommandError(Exit.FAILED, f"the task cannot be exported: {error}", error.hint) from error


def _write_export(history: TaskHistory, task: str, path: Path | None, *, as_json: bool) -> None:
    try:
        raw = dump_history(history) if path is None else b""
        size = len(raw) if path is None else save_history(history, path)
    except HistoryError as error:
        raise CommandError(Exit.FAILED, f"the task cannot be exported: {error}", error.hint) from error
    except OSError as error:
        raise CommandError(
            Exit.FAILED, f"{path} cannot be written: {error.strerror}", "name another file with -o"
        ) from error
    if path is None:
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
        return
    expired = sum(content.data is None for content in history.contents.values())
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
                "gone": expired,
            }
        )
        return
    out.print(
        f"{path}: {format_count(len(history.messages), 'message')}, {format_count(len(history.contents), 'content')}, "
        f"{format_count(size, 'byte')}",
        markup=False,
    )
    if expired:
        err.print(
            f"{format_count(expired, 'content')} of them had expired: replay works unless a decision read one",
            style="yellow",
        )
    if not history.ended:
        err.print("the task has not ended: calls that are still running are not in the file", style="yellow")
