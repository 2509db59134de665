"""A service does not outlive what it cannot be without, and says what ended."""

import asyncio

import pytest

from bulkhead.runtime import background
from bulkhead.runtime.background import BackgroundFailed, BackgroundTasks, cancel_tasks, finish_despite_cancel


async def for_ever() -> None:
    await asyncio.Event().wait()


async def breaks(error: BaseException) -> None:
    raise error


async def test_an_error_in_the_background_ends_the_work_and_is_named() -> None:
    background, cancelled = BackgroundTasks(), []

    async def work() -> None:
        try:
            await for_ever()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    background.start("watcher", breaks(AttributeError("writelines")))
    with pytest.raises(BackgroundFailed, match=r"watcher ended: AttributeError\('writelines'\)") as told:
        await asyncio.wait_for(background.run_beside(work()), 5)
    assert cancelled and isinstance(told.value.__cause__, AttributeError)


async def test_who_waits_for_what_was_cancelled_has_failed_and_was_not_stopped() -> None:
    background = BackgroundTasks()
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def waits() -> None:
        await answer

    background.start("keeper", waits())
    await asyncio.sleep(0)
    answer.cancel()
    with pytest.raises(BackgroundFailed, match=r"keeper ended: .*what it waited for was cancelled"):
        await asyncio.wait_for(background.run_beside(for_ever()), 5)


async def test_one_that_failed_before_the_work_began_is_not_missed() -> None:
    background = BackgroundTasks()
    task = background.start("halts", breaks(ValueError("no entry")))
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(BackgroundFailed, match="halts"):
        await asyncio.wait_for(background.run_beside(for_ever()), 5)


async def test_work_ends_as_it_does_when_nothing_fails() -> None:
    background = BackgroundTasks()
    task = background.start("timers", for_ever())
    await background.run_beside(asyncio.sleep(0))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(KeyError):
        await background.run_beside(breaks(KeyError("own")))


async def test_who_is_cancelled_leaves_no_work_behind() -> None:
    background, ended = BackgroundTasks(), asyncio.Event()

    async def work() -> None:
        try:
            await for_ever()
        finally:
            ended.set()

    outer = asyncio.create_task(background.run_beside(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    assert ended.is_set()


async def test_a_cancel_that_was_forgotten_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `asyncio.wait_for` of Python 3.11 forgets one that comes when its result is there."""
    monkeypatch.setattr("bulkhead.runtime.background.CANCEL_AGAIN_S", 0.01)
    forgotten = []

    async def forgets() -> None:
        while True:
            try:
                return await asyncio.sleep(5)
            except asyncio.CancelledError:
                if len(forgotten) == 2:
                    raise
                forgotten.append(True)

    task = asyncio.create_task(forgets())
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel_tasks(task), 4)
    assert task.cancelled() and len(forgotten) == 2


async def test_what_is_kept_is_begun_anew_beside_the_service_until_it_is_cancelled() -> None:
    background, begun, broke = BackgroundTasks(), [], list[str]()

    async def work() -> None:
        begun.append(len(begun))
        if len(begun) < 3:
            raise ValueError(f"bug {len(begun)}")
        await for_ever()

    async def told(error: BaseException) -> None:
        broke.append(str(error))

    async def service() -> None:
        while len(begun) < 3:
            await asyncio.sleep(0)

    task = background.keep_running("watcher", work, told)
    await asyncio.wait_for(background.run_beside(service()), 5)
    assert broke == ["bug 1", "bug 2"] and not task.done()
    await cancel_tasks(task)
    assert task.cancelled() and len(begun) == 3, "a cancel is no error: nothing is begun anew"


async def test_what_is_kept_does_not_end_because_what_it_waits_for_is_cancelled() -> None:
    background, begun, broke = BackgroundTasks(), [], list[str]()

    async def work() -> None:
        begun.append(len(begun))
        if len(begun) == 1:
            answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            answer.cancel()
            await answer
        await for_ever()

    async def told(error: BaseException) -> None:
        broke.append(str(error))

    task = background.keep_running("watcher", work, told)
    async with asyncio.timeout(5):
        while len(begun) < 2:
            await asyncio.sleep(0)
    assert broke == ["what it waited for was cancelled"] and not task.done()
    await cancel_tasks(task)
    assert task.cancelled() and len(begun) == 2


async def test_an_error_of_who_is_told_ends_the_service() -> None:
    background = BackgroundTasks()

    async def told(error: BaseException) -> None:
        raise KeyError("told") from error

    background.keep_running("watcher", lambda: breaks(ValueError("bug")), told)
    with pytest.raises(BackgroundFailed, match=r"watcher ended: KeyError\('told'\)"):
        await asyncio.wait_for(background.run_beside(for_ever()), 5)


async def test_what_has_to_be_said_is_said_however_often_its_task_is_cancelled() -> None:
    begun, goes_on, done = asyncio.Event(), asyncio.Event(), []

    async def settle() -> None:
        begun.set()
        await goes_on.wait()
        done.append("settled")

    task = asyncio.create_task(finish_despite_cancel(settle()))
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["settled"]


async def test_what_cannot_be_said_keeps_no_task_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "GRACE_S", 0.05)
    task = asyncio.create_task(finish_despite_cancel(for_ever()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
