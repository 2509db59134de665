"""The life of one pod: init containers, its container, probes, restarts with a back-off, the end in order.

In: a Pod, its volumes, an image. Out: whether it is ready, what it lacks, how often it was started again. All timing is
Kubernetes' own.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from bulkhead_infra.stages.manifests import probes
from bulkhead_infra.stages.manifests.pods import Container, Pod, Probe
from bulkhead_infra.stages.testcontainers_stack import Box, Dock, DockError

POLL_S = 0.5
BACKOFF_FIRST_S, BACKOFF_MAX_S = 10.0, 300.0
CPU_SHARES = 1024
ENDED = ("exited", "dead")


class Unhealthy(Exception):
    """A probe has failed too often: the container is to end."""


class PodFailed(Exception):
    """A pod that will not run; the message says why."""


class PodRun:
    """See the module. ready: as its readiness probe says, or for a Job that it ended well."""

    def __init__(
        self,
        pod: Pod,
        dock: Dock,
        image: Callable[[str], str],
        volumes: Mapping[str, str],
        states: Callable[[], Awaitable[dict[str, str]]],
    ) -> None:
        """volumes: Docker's names by the pod's."""
        self.pod = pod
        self.ready = self.ended = False
        self.restarts, self.ready_after_s = 0, 0.0
        self.restarts_at_ready = 0
        """How often it was started again before it was ready for the first time."""
        self.trouble = "its container has not started"
        self.last_end = ""
        """How its container ended the last time; "" while it has not."""
        self.failure = ""
        """Why it will never be ready; "" while it may."""
        self.address = ""
        self.box: Box | None = None
        self._dock, self._image, self._volumes, self._states = dock, image, volumes, states
        self._began = time.monotonic()

    async def run(self) -> None:
        """Until it is cancelled, or a Job's pod ends."""
        try:
            for one in self.pod.before:
                await self._to_its_end(one)
            self.box = await self._start(self.pod.container, self.pod.name)
            while not await self._live_once():
                self.restarts += 1
                # As in a cluster the first restart comes at once.
                await asyncio.sleep(
                    min(BACKOFF_FIRST_S * 2 ** (self.restarts - 2), BACKOFF_MAX_S) if self.restarts > 1 else 0
                )
                await self.box.start()
        except (DockError, PodFailed) as error:
            self.failure = self.trouble = str(error)

    @property
    def why(self) -> str:
        """What keeps it from being ready, and how its container ended before."""
        ends = f"{self.last_end} (restarts: {self.restarts})" if self.last_end else ""
        return "; ".join(filter(None, (self.trouble, ends)))

    async def end(self) -> int:
        """preStop, SIGTERM, and SIGKILL when the grace period is over. Its exit code."""
        self.ready = False
        if self.box is None:
            return 0
        pause = self.pod.container.pre_stop_s
        await asyncio.sleep(pause)
        await self.box.stop(max(1, int(self.pod.grace_s - pause)))
        return int((await self.box.facts())["State"]["ExitCode"])

    async def remove(self) -> None:
        """Its container is gone. Raises DockError."""
        if self.box is not None:
            await self.box.remove()

    async def _live_once(self) -> bool:
        """From a start to an end. Whether that was the pod's end. Raises PodFailed, DockError."""
        assert self.box is not None
        where = (await self.box.facts())["NetworkSettings"]["Networks"]
        self.address = str(where[self._dock.network_name]["IPAddress"])
        probing = asyncio.create_task(self._probe(self.pod.container.probes))
        gone = asyncio.create_task(self._gone(self.box))
        try:
            await asyncio.wait((probing, gone), return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                self.last_end = str(probing.exception())
                await self.end()
                await gone
        finally:
            self.ready = False
            for task in (probing, gone):
                task.cancel()
                with suppress(asyncio.CancelledError, Unhealthy):
                    await task
        code = gone.result()
        if code == 0 and self.pod.restart != "Always":
            self.ended = True
            self._is_ready()
            return True
        if probing.cancelled() or not probing.exception():
            said = (await self.box.last_words()).strip().splitlines()[-1:]
            self.last_end = f"its container ended with {code}: {''.join(said)}"
        if self.pod.kind == "Job" and self.restarts >= self.pod.retries:
            raise PodFailed(f"the job has failed {self.restarts + 1} times; {self.last_end}")
        return False

    async def _gone(self, box: Box) -> int:
        while True:
            if (await self._states()).get(box.id) in ENDED:
                state = (await box.facts())["State"]
                # What all ask together may be older than the last start.
                if state["Status"] in ENDED:
                    return int(state["ExitCode"])
            await asyncio.sleep(POLL_S)

    async def _probe(self, found: Mapping[str, Probe]) -> None:
        """All probes, for as long as they succeed. Raises Unhealthy."""
        if (startup := found.get("startupProbe")) is not None:
            await self._started(startup)
        more = []
        if (alive := found.get("livenessProbe")) is not None:
            more.append(self._alive(alive))
        if (takes := found.get("readinessProbe")) is not None:
            more.append(self._ready(takes))
        elif self.pod.kind != "Job":
            self._is_ready()
        watching = [asyncio.create_task(one) for one in more]
        try:
            # Without any it is watched by nobody, until its container ends.
            await asyncio.gather(*watching, asyncio.get_running_loop().create_future())
        finally:
            for task in watching:
                task.cancel()

    async def _started(self, probe: Probe) -> None:
        await asyncio.sleep(probe.delay_s)
        for _ in range(probe.failures):
            if not (said := await self._look(probe)):
                return
            self.trouble = f"startupProbe: {said}"
            await asyncio.sleep(probe.period_s)
        raise Unhealthy(f"startupProbe has failed {probe.failures} times: {said}")

    async def _alive(self, probe: Probe) -> None:
        await asyncio.sleep(probe.delay_s)
        failures = 0
        while failures < probe.failures:
            said = await self._look(probe)
            failures = failures + 1 if said else 0
            await asyncio.sleep(probe.period_s)
        raise Unhealthy(f"livenessProbe has failed {failures} times: {said}")

    async def _ready(self, probe: Probe) -> None:
        await asyncio.sleep(probe.delay_s)
        in_a_row, before = 0, False
        while True:
            said = await self._look(probe)
            good = not said
            in_a_row, before = (in_a_row + 1 if good is before else 1), good
            if good and in_a_row >= probe.successes:
                self._is_ready()
            elif said:
                self.trouble = f"readinessProbe: {said}"
                self.ready = self.ready and in_a_row < probe.failures
            await asyncio.sleep(probe.period_s)

    async def _look(self, probe: Probe) -> str:
        assert self.box is not None
        return await probes.look(probe, self.address, self.box)

    def _is_ready(self) -> None:
        self.ready, self.trouble = True, ""
        if not self.ready_after_s:
            self.ready_after_s, self.restarts_at_ready = time.monotonic() - self._began, self.restarts

    async def _to_its_end(self, one: Container) -> None:
        """An init container: once more when it fails, and the pod goes on when it has ended well."""
        box = await self._start(one, f"{self.pod.name}-{one.name}")
        tries = 0
        while code := await self._gone(box):
            said = (await box.last_words()).strip().splitlines()[-1:]
            self.trouble = f"init container {one.name} ended with {code}: {''.join(said)}"
            tries += 1
            if self.pod.restart == "Never" or (self.pod.kind == "Job" and tries > self.pod.retries):
                raise PodFailed(self.trouble)
            await asyncio.sleep(min(BACKOFF_FIRST_S * 2 ** (tries - 1), BACKOFF_MAX_S))
            await box.start()

    async def _start(self, one: Container, name: str) -> Box:
        binds = {
            self._volumes[mount.volume]: f"{mount.path}:{'ro' if mount.read_only else 'rw'},nocopy"
            for mount in one.mounts
        }
        names = self.pod.names if one is self.pod.container else ()
        return await self._dock.start_with(name, self._image(one.image), binds, aliases=names, **options(self.pod, one))


def options(pod: Pod, one: Container) -> dict[str, Any]:
    """A container's fields as Docker has them."""
    found: dict[str, Any] = {
        "hostname": pod.name,
        "environment": dict(one.environment),
        "user": f"{one.user}:{one.group}",
        "group_add": [str(pod.fs_group)],
        "extra_hosts": dict(pod.hosts),
        "read_only": one.read_only,
        "cap_drop": list(one.drops),
        "security_opt": [] if one.may_gain else ["no-new-privileges:true"],
        "cpu_shares": max(2, int(one.cpu_request * CPU_SHARES)),
    }
    if one.memory_bytes:
        # No swap beside it, as a kubelet has it.
        found |= {"mem_limit": one.memory_bytes, "memswap_limit": one.memory_bytes}
    if one.cpus:
        found["nano_cpus"] = int(one.cpus * 10**9)
    if one.command is not None:
        # The image's own arguments go with its own command.
        found |= {"entrypoint": list(one.command), "command": list(one.args or ())}
    elif one.args is not None:
        found["command"] = list(one.args)
    return found
