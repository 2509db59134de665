"""Faults for tests: services killed, paused or cut off; a slow broker, a full disk, an empty Redis.

In: names of services. Out: the fault is active when the call returns. A `with` block mends it at its end; without one
it is mended at the end of the test. A fault that the backend cannot make raises CannotDo, with an alternative.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Self

from bulkhead.client.loop_thread import LoopThread
from bulkhead.testing.mesh_backend import Stage
from bulkhead_contracts.catalog import SERVICES

READY_S = 60.0
Mend = Callable[[], Coroutine[Any, Any, None]]


class MeshFaults:
    """See the module."""

    def __init__(self, stage: Stage, loop: LoopThread) -> None:
        self._stage, self._loop = stage, loop
        self._mends: dict[str, Mend] = {}
        self._touched = False

    def kill(self, service: str) -> None:
        """kill -9. It is started again by itself, as a supervisor does."""
        self._run_fault(self._stage.kill(_known_service(service), hold=False))

    def down(self, service: str) -> "ActiveFault":
        """kill -9, and it stays away."""
        stage = self._stage
        return self._begin_fault(
            f"down {_known_service(service)}", stage.kill(service, hold=True), lambda: stage.restart(service)
        )

    def paused(self, service: str) -> "ActiveFault":
        """It stands still, as under SIGSTOP."""
        stage = self._stage
        return self._begin_fault(
            f"paused {_known_service(service)}", stage.pause(service), lambda: stage.resume(service)
        )

    def disconnected(self, service: str) -> "ActiveFault":
        """It runs and reaches the broker no more."""
        stage = self._stage
        return self._begin_fault(
            f"disconnected {_known_service(service)}", stage.disconnect(service), lambda: stage.reconnect(service)
        )

    def slow_broker(self, delay_ms: float) -> "ActiveFault":
        """Whatever goes to the broker or comes from it takes so much longer, each way."""
        return self._begin_fault("slow broker", self._stage.slow_broker(delay_ms), lambda: self._stage.slow_broker(0))

    def full_disk(self) -> "ActiveFault":
        """The broker cannot store anything."""
        return self._begin_fault("full disk", self._stage.fill_disk(), self._stage.free_disk)

    def empty_redis(self) -> None:
        """Redis dies and starts with nothing in it."""
        self._run_fault(self._stage.empty_redis())

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Return when every service is ready again. Raises TimeoutError."""
        self._loop.run(self._stage.ready(timeout_s))

    def undo_all(self) -> None:
        """Mend all that a test has left broken, the last first, and wait until the mesh is well."""
        while self._mends:
            _, mend = self._mends.popitem()
            self._loop.run(mend())
        if self._touched:
            self._touched = False
            self.wait_ready()

    def _run_fault(self, work: Coroutine[Any, Any, None]) -> None:
        self._touched = True
        self._loop.run(work)

    def end_fault(self, name: str) -> None:
        """End one fault; nothing when it has ended."""
        if (mend := self._mends.pop(name, None)) is not None:
            self._loop.run(mend())

    def _begin_fault(self, name: str, work: Coroutine[Any, Any, None], mend: Mend) -> "ActiveFault":
        if name in self._mends:
            work.close()
            raise ValueError(f"{name} is so already; mend it before it is broken again")
        self._run_fault(work)
        self._mends[name] = mend
        return ActiveFault(self, name)


class ActiveFault:
    """A fault that is there. `with faults.paused("worker"): ...` mends at the end of the block, `end_fault()` at
    once.
    """

    def __init__(self, faults: MeshFaults, name: str) -> None:
        self._faults, self._name = faults, name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.mend()

    def mend(self) -> None:
        """End it now."""
        self._faults.end_fault(self._name)


def _known_service(service: str) -> str:
    if service not in SERVICES:
        raise ValueError(f"there is no service {service!r}; there are {', '.join(SERVICES)}")
    return service
