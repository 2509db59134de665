"""Background tasks of a service: followers, folds and timers that run for as long as it does.

In: coroutines that end only when they are cancelled. Out: the end of the service when one of them fails.
A service that went on without it would look healthy and, say, admit by halts that it no longer hears; a
restart begins anew. A coroutine that the service can miss for a while is restarted beside it instead
(`keep_running`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from bulkhead.telemetry.log import Log

log = Log("background")

StartWork = Callable[[], Coroutine[Any, Any, None]]
OnFailure = Callable[[BaseException], Awaitable[None]]

CANCEL_AGAIN_S = 1.0
GRACE_S = 10.0
"""For what has to be said before a task ends: a broker that is away for longer does not keep a service from ending."""


class BackgroundFailed(Exception):
    """A task that the service cannot do without has ended; `__cause__` says why."""


class BackgroundTasks:
    """The background tasks of one service."""

    def __init__(self) -> None:
        self._failed = asyncio.Event()
        self._failed_name = ""
        self._error: BaseException | None = None

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start a task, which its caller cancels. When it fails, the service ends."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._on_task_done)
        return task

    def keep_running(self, name: str, start_work: StartWork, on_failure: OnFailure) -> "asyncio.Task[None]":
        """Start a task, and restart it each time that it fails, after `on_failure` was called and has waited. An error
        of `on_failure` itself ends the service."""
        return self.start(name, _keep_running(name, start_work, on_failure))

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        if (error := _task_error(task)) is None:
            return
        log.error("background_failed", what=task.get_name(), error=repr(error))
        if self._error is None:
            self._failed_name, self._error = task.get_name(), error
            self._failed.set()

    async def run_beside(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do the service's work; cancel it and raise BackgroundFailed when something in the background fails."""
        working, failed = asyncio.create_task(work), asyncio.create_task(self._failed.wait())
        try:
            await asyncio.wait({working, failed}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                ended = f"{self._failed_name} ended: {self._error!r}"
                raise BackgroundFailed(
                    f"{ended}; the service ends, too, to be started anew; please report it"
                ) from self._error
        finally:
            await cancel_tasks(working, failed)
        working.result()


async def _keep_running(name: str, start_work: StartWork, on_failure: OnFailure) -> None:
    while True:
        task = asyncio.create_task(start_work(), name=name)
        try:
            await asyncio.wait({task})
        finally:
            await cancel_tasks(task)
        if (error := _task_error(task)) is None:
            return
        await on_failure(error)


def _task_error(task: "asyncio.Task[Any]") -> BaseException | None:
    """By what it ended; also where what it waited for was cancelled and it was not, which has no word of its own."""
    if not task.cancelled():
        return task.exception()
    return None if task.cancelling() else RuntimeError("what it waited for was cancelled")


async def cancel_tasks(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel them, and again, until all have ended; how they did is theirs to tell.

    Once is not enough: `asyncio.wait_for` before Python 3.12 forgets a cancel that comes at the moment of its result,
    and so does redis-py, which uses it for every write.
    """
    while pending := {task for task in tasks if not task.done()}:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)


async def finish_despite_cancel(work: Coroutine[Any, Any, object]) -> None:
    """Do what has to be done before this task ends: a cancel is kept until then, for GRACE_S at most."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    until_s = 0.0
    while not task.done() and (cancelled is None or loop.time() < until_s):
        try:
            await asyncio.wait({task}, timeout=None if cancelled is None else until_s - loop.time())
        except asyncio.CancelledError as error:
            until_s = until_s or loop.time() + GRACE_S
            cancelled = error
    if cancelled is None:
        task.result()
        return
    if task.done():
        _task_error(task)  # Asked for, so that nobody complains of it.
    else:
        task.cancel()
    raise cancelled
