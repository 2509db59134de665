"""One supervised process: started, watched until it is ready, started again when it ends by itself.

In: how to spawn it and how to ask it (`advise`: what to do about how it ended). Out: its state, and events for people.
A unit that is held stays down until it is released: that is how a test takes the broker away.
After `start_no_more` nothing is started again, whatever becomes of who is stopping it.
"""

import asyncio
import contextlib
import errno
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import psutil

from bulkhead_infra.processes.child import ChildProcess, NotReady, StartFailed

State = Literal["starting", "ready", "not ready", "down", "held", "stopped"]
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
STEADY_S = 30.0
"""After running so long, a crash counts as the first one again."""
FAILED_STARTS_MAX = 3
BAD_SETTINGS = 2
"""Exit code of a service that cannot run with these settings: trying again helps nobody."""
PROBE_STARTING_S = 0.03
PROBE_READY_S, PROBE_STEADY_S = 1.0, 5.0
"""The second of what has been ready for STEADY_S; its end is seen at once anyway."""

Say = Callable[[str], None]
Spawn = Callable[[], Awaitable[ChildProcess]]
Probe = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class UnreadyRestartPolicy:
    """A unit that is unready for `after_s`, although it runs, is restarted when `find_objection` has no objection."""

    after_s: float
    find_objection: Callable[[], str]


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """One process as people see it."""

    name: str
    state: State
    detail: str
    pid: int | None
    restarts: int
    rss_bytes: int


class SupervisedUnit:
    """See the module. probe: "" when ready, else what is missing."""

    def __init__(
        self,
        name: str,
        spawn: Spawn,
        probe: Probe,
        say: Say,
        *,
        stop_timeout_s: float,
        unready_policy: UnreadyRestartPolicy | None = None,
        on_change: Callable[[], None] = lambda: None,
        advise: Callable[[str], str] = lambda why: "",
    ) -> None:
        self.name = name
        self.state: State = "starting"
        self.detail = ""
        self.restarts = 0
        self.child: ChildProcess | None = None
        self._spawn, self._probe, self._say = spawn, probe, say
        self._stop_timeout_s = stop_timeout_s
        self._unready_policy, self._on_change, self._advise = unready_policy, on_change, advise
        self._held = False
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self.stopping = False
        """Whether it is being ended, or has been: what it says is no news to anybody then."""
        self._last = False
        self._failed_starts = 0
        self._hopeless = False
        self._backoff_s = BACKOFF_FIRST_S
        self._failure: StartFailed | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self.child.pid if self.child is not None and self.child.is_running else None

    @property
    def is_given_up(self) -> bool:
        """True when it is down and not started again by itself: its settings cannot work."""
        return self._hopeless and self.state == "down"

    def status_row(self) -> UnitStatus:
        rss = 0
        with contextlib.suppress(psutil.Error):
            rss = psutil.Process(self.pid).memory_info().rss if self.pid else 0
        return UnitStatus(self.name, self.state, self.detail, self.pid, self.restarts, rss)

    def process_record(self) -> dict[str, float | int | None]:
        """By what a later run knows the process: numbers are used again, start times are not."""
        started = None
        with contextlib.suppress(psutil.Error):
            started = psutil.Process(self.pid).create_time() if self.pid else None
        return {"pid": self.pid, "started_unix_s": started, "restarts": self.restarts}

    def start(self) -> None:
        """Begin to supervise; `wait_until_ready` tells how it went."""
        self._task = asyncio.create_task(self._supervise())
        self._task.add_done_callback(self._supervision_ended)

    async def wait_until_ready(self, timeout_s: float | None) -> None:
        """Return when it is ready. Raises NotReady after the timeout, StartFailed when it cannot start."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self.state == "ready" or self._failure is not None)
        except TimeoutError as error:
            last_lines = self.child.describe_end() if self.child is not None else ""
            raise NotReady(
                f"{self.name} was not ready within {timeout_s:g} s: {self.detail or self.state}\n{last_lines}"
            ) from error
        if self.state != "ready" and self._failure is not None:
            raise self._failure

    async def probe_now(self) -> None:
        """Ask now whether it is ready: between two probes a state may be out of date."""
        missing = await self._probe()
        if missing and self.state == "ready":
            await self._set_state("not ready", missing)

    async def kill_process(self, *, hold: bool = False) -> None:
        """kill -9. It comes back by itself, unless held."""
        self._held = self._held or hold
        self._wake.set()
        if self.child is not None:
            await self.child.kill_and_wait()
        await self._wait_until(lambda: self.state == "held" if hold else self.state != "ready")

    async def restart(self) -> None:
        """End it in order (when it runs) and start it again."""
        self._held = True
        self._wake.set()
        if self.child is not None and self.child.is_running:
            await self.child.stop(self._stop_timeout_s)
        await self._wait_until(lambda: self.state == "held")
        self.release_hold()

    def release_hold(self) -> None:
        self._failure, self._failed_starts, self._held = None, 0, False
        # Asked for by somebody: how it fared before has nothing to do with it.
        self._backoff_s = BACKOFF_FIRST_S
        self._wake.set()

    def start_no_more(self) -> None:
        """Never start it again, however the running process ends."""
        self._last, self._held = True, False
        self._wake.set()

    def end_at_once(self) -> None:
        """kill -9 it and what it has started, for good; `stop` returns as soon as it is gone."""
        self.start_no_more()
        self.stopping = True
        if self.child is not None and self.child.is_running:
            self.child.kill_group()

    async def stop(self) -> None:
        """End it for good; killed after its time to drain."""
        self.start_no_more()
        self.stopping = True
        if self.child is not None and self.child.is_running and not await self.child.stop(self._stop_timeout_s):
            self._say(f"{self.name} did not drain within {self._stop_timeout_s:g} s and was killed")
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        await self._set_state("stopped")

    async def _supervise(self) -> None:
        while not self._last:
            if self._held:
                await self._set_state("held")
                await self._wait_for_wake(None)
                continue
            started = time.monotonic()
            await self._set_state("starting")
            ended = await self._run_once()
            if self.stopping or self._held:
                continue
            await self._set_state("down", ended)
            if self._last:
                self._say(f"{ended}\n  {self.name} is not started again: the mesh is being stopped")
                continue
            if self._hopeless:
                self._say(f"{ended}\n  {self.name} is not started again: correct its settings, then restart the mesh")
                await self._wait_for_wake(None)
                continue
            backoff_s = BACKOFF_FIRST_S if time.monotonic() - started > STEADY_S else self._backoff_s
            self._backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
            self.restarts += 1
            self._say(f"{ended}\n  {self.name} is started again in {backoff_s:g} s")
            await self._wait_for_wake(backoff_s)

    def _explain_start_error(self, error: OSError) -> str:
        where = f" ({error.filename})" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        todo = "the disk is full; free some there (`df`, `df -i`)" if full else "put that right"
        return f"{self.name} cannot start: {error.strerror or error}{where}; {todo} and start the mesh again"

    async def _run_once(self) -> str:
        """Spawn and watch until the end; returns how it ended."""
        try:
            self.child = await self._spawn()
        except (StartFailed, OSError) as error:
            failure = error if isinstance(error, StartFailed) else StartFailed(self._explain_start_error(error))
            await self._record_failure(failure)
            return str(failure)
        if self._last or self._held:
            await self.child.kill_and_wait()  # Asked for while it was being started.
        was_ready = await self._watch_child(self.child)
        code = await self.child.wait()
        self._hopeless = code == BAD_SETTINGS and not was_ready
        if not was_ready and not self._held and not self._last:
            self._failed_starts += 1
            if self._hopeless or self._failed_starts >= FAILED_STARTS_MAX:
                await self._record_failure(StartFailed(self._explain_end(self.child)))
        return self._explain_end(self.child)

    def _explain_end(self, child: ChildProcess) -> str:
        """Explanation of how it ended, and what to do where that is known."""
        ending = child.describe_end()
        advice = self._advise(ending)
        return f"{ending}\n  {advice}" if advice else ending

    async def _watch_child(self, child: ChildProcess) -> bool:
        was_ready, unready_since, objection = False, 0.0, ""
        pause_s, ready_since = PROBE_STARTING_S, 0.0
        ended = asyncio.create_task(child.exited.wait())
        try:
            while child.is_running:
                missing = await self._probe()
                if child.is_running and not missing:
                    was_ready, unready_since, self._failed_starts = True, 0.0, 0
                    await self._set_state("ready")
                    ready_since = ready_since or time.monotonic()
                    pause_s = PROBE_STEADY_S if time.monotonic() - ready_since > STEADY_S else PROBE_READY_S
                elif child.is_running and was_ready:
                    await self._set_state("not ready", missing)
                    pause_s, ready_since = PROBE_READY_S, 0.0
                    unready_since = unready_since or time.monotonic()
                    objection = await self._restart_if_unready(child, missing, unready_since, objection)
                else:
                    self.detail = missing
                await asyncio.wait({ended}, timeout=pause_s)
        finally:
            ended.cancel()
        return was_ready

    async def _restart_if_unready(self, child: ChildProcess, missing: str, since: float, refused: str) -> str:
        if self._unready_policy is None or self._last or time.monotonic() - since < self._unready_policy.after_s:
            return refused
        objection = self._unready_policy.find_objection()
        if objection:
            if objection != refused:
                self._say(f"{self.name} is not healthy ({missing}): {objection}")
            return objection
        self._say(f"{self.name} does not recover by itself ({missing}) and is restarted")
        await child.stop(self._stop_timeout_s)
        return ""

    async def _wait_for_wake(self, seconds: float | None) -> None:
        """Until the time is over or something is asked for."""
        self._wake.clear()
        if self._last:
            return  # Asked for before anybody waited.
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            pass

    async def _record_failure(self, failure: StartFailed) -> None:
        self._failure = failure
        async with self._changed:
            self._changed.notify_all()

    async def _set_state(self, state: State, detail: str = "") -> None:
        changed = state != self.state
        self.state, self.detail = state, detail
        if changed:
            self._on_change()
            async with self._changed:
                self._changed.notify_all()

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(holds)

    def _supervision_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            failure = StartFailed(f"supervision of {self.name} failed: {task.exception()!r}; please report it")
            self._say(str(failure))
            self._telling = asyncio.ensure_future(self._record_failure(failure))


async def wait_until_all_ready(units: Iterable[SupervisedUnit], timeout_s: float) -> None:
    """Wait for all; the first that fails is the one that is told."""
    waiting = [asyncio.create_task(unit.wait_until_ready(timeout_s)) for unit in units]
    try:
        for done in asyncio.as_completed(waiting):
            await done
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
