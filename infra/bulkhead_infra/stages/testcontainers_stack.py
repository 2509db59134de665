"""Containers by testcontainers: one network, volumes, boxes. All calls of the Docker client run beside the event loop.

In: images by name. Out: boxes that are killed, frozen, asked and read; everything is gone after `close`. No reaper is
started (its image comes from a registry): what a killed test run leaves has the label `bulkhead.test`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from bulkhead.testing.mesh_backend import StageMissing

try:
    from docker.errors import DockerException, ImageNotFound, NotFound
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network
except ImportError as missing:
    raise StageMissing(f"{missing.name} is not installed: pip install 'bulkhead[containers]'") from None

USER = 10001
LABEL = "bulkhead.test"
NO_HEALTHCHECK = {"test": ["NONE"]}
"""Each look is a process in the container: tests ask when they want to know, and nobody else."""
STOP_S = 15
SAID_CHARS = 2_000
HOW = (
    "build them in a checkout (`python -m bulkhead_infra.docker.images`), or name others by "
    "BULKHEAD_IMAGES and BULKHEAD_TAG"
)
T = TypeVar("T")


class ContainerError(Exception):
    """Docker cannot do what was asked; says why and what to do."""


class StartedContainer:
    def __init__(self, container: Any) -> None:
        self._container = container
        self.held = False
        """Whether it is down on purpose."""

    async def kill(self, *, hold: bool) -> None:
        """Kill it as kill -9 does; it comes back at once, unless held."""
        self.held = True
        await _call(self._container.kill)
        await _call(self._container.wait)
        if not hold:
            await self.restart()

    async def restart(self) -> None:
        """Start it, when it is down; else end it in order and start it."""
        if self.held:
            await _call(self._container.start)
        else:
            await _call(lambda: self._container.restart(timeout=STOP_S))
        self.held = False

    async def pause(self) -> None:
        await _call(self._container.pause)

    async def resume(self) -> None:
        await _call(self._container.reload)
        if self._container.status == "paused":
            await _call(self._container.unpause)

    async def fails(self, *command: str) -> str:
        """The complaint of a command in it; "" for exit code 0."""
        try:
            done = await _call(lambda: self._container.exec_run(list(command)))
        except ContainerError as error:
            return str(error)
        said = done.output.decode("utf-8", "replace").strip()
        return "" if done.exit_code == 0 else said or f"exit code {done.exit_code}"

    async def ended(self) -> str:
        """Its last words, when it has ended by itself; "" while it runs or is down on purpose."""
        await _call(self._container.reload)
        if self.held or self._container.status != "exited":
            return ""
        return await self.last_words()

    async def last_words(self) -> str:
        return (await self.logs()).decode("utf-8", "replace")[-SAID_CHARS:] or "nothing"

    async def python(self, source: str) -> None:
        """Run a few lines in it. Raises ContainerError."""
        if why := await self.fails("python3", "-c", source):
            raise ContainerError(f"{self._container.name}: {why}")

    async def logs(self) -> bytes:
        found: bytes = await _call(lambda: self._container.logs(timestamps=True))
        return found

    async def archive(self, path: str) -> bytes:
        pieces, _ = await _call(lambda: self._container.get_archive(path))
        return b"".join(pieces)


class ContainerNetwork:
    """A network and what is in it, under one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gateway = ""
        """Where the containers find the machine of the tests."""
        self._network: Network | None = None
        self._containers: list[Any] = []
        self._volumes: dict[str, Any] = {}

    async def open(self) -> None:
        """Make the network. Raises ContainerError."""
        testcontainers_config.ryuk_disabled = True

        def make() -> tuple[Network, Any]:
            network = Network(docker_network_kw={"labels": {LABEL: self.name}}).create()
            made = network._unwrap_network
            made.reload()
            return network, made

        try:
            self._network, made = await _call(make)
        except ContainerError as error:
            what = "start dockerd, or let this user use it (group docker); without Docker use mesh_processes"
            raise ContainerError(f"no Docker daemon answers: {error}; {what}") from error
        self.gateway = made.attrs["IPAM"]["Config"][0]["Gateway"]

    async def start(
        self,
        name: str,
        image: str,
        volumes: Mapping[str, str],
        sized: Mapping[str, int] | None = None,
        *,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        ports: Mapping[int, int] | None = None,
        hosts: Mapping[str, str] | None = None,
        tmpfs: Mapping[str, str] | None = None,
        entrypoint: Sequence[str] | None = None,
        network: bool = True,
        retries: int = 0,
    ) -> StartedContainer:
        """volumes: a path or a name of a volume, to `path[:ro]`. sized: MiB of volumes that lie in memory. retries: so
        often it is started again when it ends by itself."""
        names = {
            key if key.startswith("/") else await self._volume(key, (sized or {}).get(key, 0)): where
            for key, where in volumes.items()
        }

        def make() -> DockerContainer:
            container = DockerContainer(image, name=f"{self.name}-{name}").with_envs(**(environment or {}))
            for source, where in names.items():
                path, _, mode = where.partition(":")
                container.with_volume_mapping(source, path, mode or "rw")
            for inner, outer in (ports or {}).items():
                container.ports[str(inner)] = ("127.0.0.1", outer)  # type: ignore[assignment]
            container.tmpfs = {"/tmp": "size=64m,mode=1777,noexec,nosuid,nodev", **(tmpfs or {})}  # noqa: S108
            more: dict[str, Any] = {"entrypoint": list(entrypoint)} if entrypoint else {}
            if retries:
                more["restart_policy"] = {"Name": "on-failure", "MaximumRetryCount": retries}
            if network:
                assert self._network is not None
                container.with_network(self._network).with_network_aliases(name)
                more["extra_hosts"] = dict(hosts or {})
            else:
                more["network_mode"] = "none"
            container.with_command(list(command) if command else None)  # type: ignore[arg-type]
            container.with_kwargs(
                user=f"{USER}:{USER}",
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                labels={LABEL: self.name},
                healthcheck=NO_HEALTHCHECK,
                **more,
            )
            return container

        return await self._start_container(image, make)

    async def _start_container(self, image: str, make: Callable[[], DockerContainer]) -> StartedContainer:
        def start() -> Any:
            container = make()
            try:
                container.start()
            finally:
                if container._container is not None:
                    self._containers.append(container._container)
            return container.get_wrapped_container()

        try:
            return StartedContainer(await _call(start))
        except ImageMissing as error:
            raise ImageMissing(f"there is no image {image}: {HOW}") from error

    async def _volume(self, name: str, size_mib: int) -> str:
        whole = f"{self.name}-{name}"
        if name not in self._volumes:
            assert self._network is not None
            client = self._network._docker.client
            options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={size_mib}m,uid={USER},gid={USER},mode=0700"}
            driver_opts, labels = options if size_mib else None, {LABEL: self.name}
            self._volumes[name] = await _call(
                lambda: client.volumes.create(whole, driver_opts=driver_opts, labels=labels)
            )
        return whole

    async def run(
        self, image: str, command: Sequence[str], timeout_s: int, *, keep: bool = False, **more: Any
    ) -> StartedContainer:
        """To its end. Raises ContainerError with what it said. keep: it stays, to be read."""
        from bulkhead_infra.docker.images import tag_of

        container = await self.start(
            f"{image}-{command[0]}", tag_of(image), more.pop("volumes", {}), command=command, **more
        )
        code = (await _call(lambda: container._container.wait(timeout=timeout_s)))["StatusCode"]
        if code:
            raise ContainerError(
                f"{image} {' '.join(command)} ended with {code}:\n{(await container.logs()).decode()[-2000:]}"
            )
        if not keep:
            await _call(lambda: container._container.remove(force=True))
            self._containers.remove(container._container)
        return container

    async def close(self) -> None:
        """Containers, volumes, the network: what is gone already is no matter."""
        await asyncio.gather(*(_gone(partial(container.remove, force=True, v=True)) for container in self._containers))
        await asyncio.gather(*(_gone(partial(volume.remove, force=True)) for volume in self._volumes.values()))
        self._containers.clear()
        self._volumes.clear()
        if self._network is not None:
            network, self._network = self._network, None
            await _gone(network.remove)


class ImageMissing(ContainerError):
    """An image is neither here nor to be pulled."""


async def _call(operation: Callable[[], T]) -> T:
    """Beside the event loop. Raises ContainerError, ImageMissing."""
    try:
        return await asyncio.to_thread(operation)
    except ImageNotFound as error:
        raise ImageMissing(str(error)) from error
    except (DockerException, OSError) as error:
        raise ContainerError(str(error)) from error


async def _gone(remove: Callable[[], Any]) -> None:
    def done() -> None:
        try:
            remove()
        except NotFound:
            pass

    await _call(done)
