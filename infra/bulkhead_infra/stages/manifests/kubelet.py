"""All pods of some manifests on one Docker network, each watched on its own.

In: objects with their Secrets. Out: a `Kubelet`: pods that are ready, where they are, what they said. Names of Services
lead to their pods; there is one namespace, and no NetworkPolicy is enforced.
"""

import asyncio
import json
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bulkhead_infra.docker.images import tag_of
from bulkhead_infra.identity import tls
from bulkhead_infra.kubernetes.objects import CLUSTER_CA, COMPONENT
from bulkhead_infra.stages.manifests import api_server, pods, tokens
from bulkhead_infra.stages.manifests.contents import File, Maps
from bulkhead_infra.stages.manifests.fields import Object
from bulkhead_infra.stages.manifests.pod_run import PodFailed, PodRun
from bulkhead_infra.stages.manifests.volume_keeper import API, API_FILES, VolumeKeeper
from bulkhead_infra.stages.testcontainers_stack import USER, Dock

POLL_S, STATES_S = 0.25, 0.4
DIGEST_OR_TAG = "@:"
TOKENS = "tokens"


def local_image(reference: str, tag: str = "") -> str:
    """The image of this machine that stands in for one of a registry: BULKHEAD_IMAGES and BULKHEAD_TAG say which, when
    nobody names a tag."""
    last = reference.rpartition("/")[2]
    for mark in DIGEST_OR_TAG:
        last = last.partition(mark)[0]
    return tag_of(last, tag)


class Kubelet:
    """See the module. folder: for logs and the API server's certificate. tag: of the images. token_s: tokens last no
    longer than that."""

    def __init__(self, objects: Sequence[Object], folder: Path, *, tag: str = "", token_s: int = 0) -> None:
        """Reads all manifests. Raises FieldError."""
        self.logs, self._folder, self._tag = folder / "logs", folder, tag
        tls.ensure_certificates(folder / API, tokens.HOSTS)
        ca = (folder / API / tls.CA_FILE).read_text()
        # A cluster puts it into each namespace.
        self.objects = [*objects, {"kind": "ConfigMap", "metadata": {"name": CLUSTER_CA}, "data": {"ca.crt": ca}}]
        found = pods.read(self.objects)
        self.issuer = tokens.Issuer()
        self.keeper = VolumeKeeper(found, Maps(self.objects), self.issuer, token_s)
        self._dock = Dock(f"bulkhead-pods-{secrets.token_hex(3)}")
        self._pods, self.runs = found, dict[str, PodRun]()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._states: dict[str, str] = {}
        self._asked_at, self._asking = float("-inf"), asyncio.Lock()

    async def open(self) -> None:
        """Make network and volumes, and the API server. Raises DockError, FieldError."""
        try:
            await self._dock.open()
            volume = await self.keeper.open(self._dock, tag_of("provisioner", self._tag), self._api_files())
            if tokens.readers(self.objects):
                await self._dock.start_with(
                    API,
                    tag_of("identity", self._tag),
                    {volume: f"{API_FILES}:ro"},
                    aliases=tokens.HOSTS,
                    entrypoint=["python3", "-P", f"{API_FILES}/api_server.py", API_FILES],
                    user=f"{USER}:{USER}",
                    sysctls={"net.ipv4.ip_unprivileged_port_start": "0"},
                )
        except BaseException:
            await self.close()
            raise
        self._tasks[TOKENS] = asyncio.create_task(self.keeper.renew())

    def start(self, component: str = "") -> None:
        """Start all pods that are not started; of a component alone where one is named, as `kubectl apply -l` does."""
        for pod in self._pods:
            if pod.name not in self.runs and component in ("", pod.labels.get(COMPONENT)):
                self._begin(pod)

    async def replace(self, names: Sequence[str], ready_s: float) -> None:
        """As `kubectl delete pod`: returns when others are ready in their place. Raises as `ready` does, DockError."""
        await asyncio.gather(*map(self.delete, names))
        self.start()
        await self.ready(ready_s)

    async def delete(self, name: str) -> None:
        """End a pod in order. `start` begins another, with its name and claims and nothing else of it. Raises
        DockError."""
        await self._cancel(name)
        run = self.runs.pop(name)
        await run.end()
        await run.remove()
        await self.keeper.renew_all(run.pod)

    def _begin(self, pod: pods.Pod) -> None:
        image = partial(local_image, tag=self._tag)
        run = PodRun(pod, self._dock, image, self.keeper.volumes[pod.name], self._all_states)
        self.runs[pod.name], self._tasks[pod.name] = run, asyncio.create_task(run.run())

    async def _cancel(self, *names: str) -> None:
        tasks = [self._tasks.pop(name) for name in names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ready(self, timeout_s: float) -> None:
        """Return when every pod that is started is ready, and every Job has ended well. Raises TimeoutError, PodFailed,
        and what ended the watch of a pod."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while late := [run for run in self.runs.values() if not run.ready]:
            for task in self._tasks.values():
                if task.done() and (error := task.exception()):
                    raise error
            failed = [run for run in late if run.failure]
            if failed or asyncio.get_running_loop().time() > deadline:
                await self.collect_logs()
                why = "\n".join(f"{run.pod.name}: {run.why}" for run in failed or late)
                what = "failed" if failed else f"not ready within {timeout_s:g} s"
                raise (PodFailed if failed else TimeoutError)(f"{what}; logs are in {self.logs}\n{why}")
            await asyncio.sleep(POLL_S)

    def of(self, owner: str) -> list[PodRun]:
        """Pods of a workload, or chosen by a Service of that name."""
        return [run for run in self.runs.values() if owner in (run.pod.owner, *run.pod.names)]

    def url(self, owner: str, port: str = "http") -> str:
        """Where a port of a workload's first pod answers this machine, as `kubectl port-forward` would."""
        run = self.of(owner)[0]
        return f"http://{run.address}:{run.pod.container.ports[port]}"

    @property
    def network(self) -> str:
        """Docker's name for the network of the pods."""
        return self._dock.network_name

    async def end(self) -> dict[str, int]:
        """End all pods in order, at once; their exit codes by name. 137: killed after its grace period."""
        await self._cancel(*self._tasks)
        running = {name: run for name, run in self.runs.items() if not run.ended}
        codes = await asyncio.gather(*(run.end() for run in running.values()))
        return dict(zip(running, codes, strict=True))

    async def rotate_signing_key(self) -> None:
        """Another key signs tokens from now on, and all pods get new ones. Raises DockError."""
        self.issuer.rotate()
        await self.keeper.write_api(self._api_files())
        await self.keeper.exchange()

    async def collect_logs(self) -> None:
        """What every container said, in `logs`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for name, run in self.runs.items():
            if run.box is not None:
                (self.logs / f"{name}.log").write_bytes(await run.box.logs())

    async def close(self) -> None:
        """Containers, volumes, the network: all gone."""
        await self._cancel(*self._tasks)
        await self._dock.close()

    def _api_files(self) -> dict[str, File]:
        folder = self._folder / API
        texts = {
            "keys.json": self.issuer.key_set(),
            "readers.json": json.dumps(tokens.readers(self.objects)),
            "issuer": tokens.ISSUER,
            "tls.crt": (folder / tls.BROKER_FILE).read_text(),
            "tls.key": (folder / tls.BROKER_KEY_FILE).read_text(),
            "api_server.py": Path(api_server.__file__).read_text(),
        }
        return {name: File(text.encode(), 0o400, USER) for name, text in texts.items()}

    async def _all_states(self) -> dict[str, str]:
        """One question for all that ask at the same time."""
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now - self._asked_at > STATES_S:
                self._states, self._asked_at = await self._dock.states(), now
        return self._states
