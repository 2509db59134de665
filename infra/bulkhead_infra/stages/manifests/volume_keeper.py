"""Volumes of pods, and the hand that writes them: one container that has them all, as a kubelet has the machine's disk.

In: pods, contents. Out: Docker's volumes, filled as a kubelet fills them; tokens are exchanged in place, a whole folder
at once. Volumes in memory live for as long as this container runs, as an emptyDir does for as long as its pod.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

from bulkhead_infra.stages.manifests import contents
from bulkhead_infra.stages.manifests.contents import File, Maps
from bulkhead_infra.stages.manifests.pods import Pod, quantity
from bulkhead_infra.stages.manifests.tokens import Issuer
from bulkhead_infra.stages.testcontainers_stack import Box, Dock, DockError

NAME, VOLUMES = "kubelet", "/volumes"
API, API_FILES = "api-server", "/api"
KEEP = "import signal; signal.pause()"
EXCHANGE = """
import os, shutil, sys
for folder, version in zip(sys.argv[1::2], sys.argv[2::2]):
    os.chdir(folder)
    before = os.readlink("..data")
    os.symlink(version, "..data_tmp")
    os.rename("..data_tmp", "..data")
    shutil.rmtree(before)
"""
EMPTY = """
import pathlib, shutil, sys
for path in [path for folder in sys.argv[1:] for path in pathlib.Path(folder).iterdir()]:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
"""
RENEW_AT = 0.8
"""Of a token's time: then the file holds another."""
LOOK_S = 1.0


class VolumeKeeper:
    """See the module. lasts_s: tokens last no longer, whatever the manifests ask for; 0 where they may."""

    def __init__(self, pods: Sequence[Pod], maps: Maps, issuer: Issuer, lasts_s: int) -> None:
        self._pods, self._maps, self._issuer, self._lasts_s = pods, maps, issuer, lasts_s
        self._box: Box
        self._versions = 0
        self._due: dict[tuple[str, str], float] = {}
        """When the tokens of a volume are to be exchanged, by pod and volume."""
        self.exchanges = 0
        self.volumes: dict[str, dict[str, str]] = {}
        """Docker's name of each volume, by the pod's name and the pod's own."""

    async def open(self, dock: Dock, image: str, api: Mapping[str, File]) -> str:
        """Make and fill all volumes. Returns the volume with the API server's files. Raises DockError, FieldError."""
        where: dict[str, str] = {}
        for pod in self._pods:
            self.volumes[pod.name] = {name: await self._made(dock, pod, name) for name in pod.volumes}
            where |= {whole: f"{VOLUMES}/{pod.name}/{name}" for name, whole in self.volumes[pod.name].items()}
        where[api_volume := await dock.volume(API)] = f"{VOLUMES}/{API}"
        binds = {whole: f"{path}:rw,nocopy" for whole, path in where.items()}
        self._box = await dock.start_with(
            NAME, image, binds, entrypoint=["python3", "-c", KEEP], user="0:0", network_mode="none"
        )
        written = [(pod, name) for pod in self._pods for name, row in pod.volumes.items() if contents.is_written(row)]
        rows = [(_place(pod, name), pod.fs_group, self._files(pod, name), self._version()) for pod, name in written]
        await self._box.put(VOLUMES, contents.archive([*rows, (API, 0, api, self._version())]))
        theirs = [(pod, name) for pod in self._pods for name in pod.volumes if (pod, name) not in written]
        await self._box.put(VOLUMES, contents.empty((_place(pod, name), pod.fs_group) for pod, name in theirs))
        return api_volume

    async def renew(self) -> None:
        """Exchange tokens when their time comes, until it is cancelled. Raises DockError."""
        while True:
            await asyncio.sleep(LOOK_S)
            if due := [key for key, when in self._due.items() if when <= time.monotonic()]:
                await self.exchange(due)

    async def exchange(self, keys: Sequence[tuple[str, str]] = ()) -> None:
        """New tokens in the volumes of these pods, (pod, volume); in all where none is named. Raises DockError."""
        pods, words = {pod.name: pod for pod in self._pods}, []
        for name, volume in keys or list(self._due):
            pod, version = pods[name], self._version()
            found = self._files(pod, volume)
            await self._box.put(VOLUMES, contents.fresh(_place(pod, volume), pod.fs_group, found, version))
            words += [f"{VOLUMES}/{_place(pod, volume)}", version]
        await self._swap(*words)
        self.exchanges += 1

    async def renew_all(self, pod: Pod) -> None:
        """What a pod in the place of this one finds: other tokens, empty folders. Raises DockError."""
        if mine := [key for key in self._due if key[0] == pod.name]:
            await self.exchange(mine)
        folders = [f"{VOLUMES}/{_place(pod, name)}" for name, row in pod.volumes.items() if "emptyDir" in row]
        if why := await self._box.fails("python3", "-c", EMPTY, *folders):
            raise DockError(f"folders of {pod.name} could not be emptied: {why}")

    async def write_api(self, files: Mapping[str, File]) -> None:
        """Exchange the API server's files. Raises DockError."""
        version = self._version()
        await self._box.put(VOLUMES, contents.fresh(API, 0, files, version))
        await self._swap(f"{VOLUMES}/{API}", version)

    async def _swap(self, *words: str) -> None:
        if why := await self._box.fails("python3", "-c", EXCHANGE, *words):
            raise DockError(f"files could not be exchanged: {why}")

    async def _made(self, dock: Dock, pod: Pod, name: str) -> str:
        row = pod.volumes[name]
        if "emptyDir" in row:
            size = int(quantity(row["emptyDir"]["sizeLimit"]))
            return await dock.volume(f"{pod.name}-{name}", {"type": "tmpfs", "device": "tmpfs", "o": f"size={size}"})
        return await dock.volume(pod.claims.get(name, f"{pod.name}-{name}"))

    def _files(self, pod: Pod, name: str) -> dict[str, File]:
        row = pod.volumes[name]
        if lasting := contents.token_ends(row):
            self._due[pod.name, name] = time.monotonic() + RENEW_AT * min(map(self._lasts, lasting))

        def mint(audience: str, seconds: int) -> str:
            return self._issuer.token(pod.namespace, pod.account, pod.name, audience, self._lasts(seconds))

        return contents.files(f"{pod.kind} {pod.owner}", row, self._maps, mint, pod.container.user)

    def _lasts(self, seconds: int) -> int:
        return min(seconds, self._lasts_s) if self._lasts_s else seconds

    def _version(self) -> str:
        self._versions += 1
        return f"..{self._versions:06}"


def _place(pod: Pod, volume: str) -> str:
    return f"{pod.name}/{volume}"
