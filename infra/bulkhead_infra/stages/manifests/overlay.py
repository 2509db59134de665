"""An overlay of infra/kubernetes as containers: rendered by kubectl, with keys and Secrets as a person makes them.

In: its name, a folder. Out: a running `Kubelet`, and the API keys of the local user. Nothing but the printed manifests
and the printed Secrets is read, so that what is missing there is missing here.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import yaml

from bulkhead_infra.docker.image_contents import ROOT
from bulkhead_infra.kubernetes.objects import FOLDER
from bulkhead_infra.stages.manifests.fields import Object
from bulkhead_infra.stages.manifests.kubelet import Kubelet
from bulkhead_infra.stages.testcontainers_stack import DockError

READY_S = 300.0
COMMAND_S = 120


def manifests(overlay: str) -> list[Object]:
    """Objects of an overlay. Raises DockError."""
    return _objects("kubectl", "kustomize", str(ROOT / FOLDER / "overlays" / overlay))


def made_secrets(overlay: str, keys: Path) -> list[Object]:
    """Secrets of new keys, which lie in a folder afterwards. Raises DockError."""
    program = (sys.executable, "-m", "bulkhead_infra.kubernetes")
    _said(*program, "keys", str(keys), "--overlay", overlay)
    return _objects(*program, "secrets", str(keys))


@asynccontextmanager
async def running(
    overlay: str,
    folder: Path,
    *,
    change: Callable[[list[Object]], None] | None = None,
    first: str = "",
    tag: str = "",
    token_s: int = 0,
    ready_s: float = READY_S,
) -> AsyncIterator[Kubelet]:
    """The mesh of an overlay; keys are made in `folder/keys`.

    change: of its objects, as a patch in somebody's own overlay. first: a component that is ready before the others
    start; without one all start at once, and services again until there are streams.
    Raises DockError, FieldError, TimeoutError, PodFailed.
    """
    rendered, made = await asyncio.gather(
        asyncio.to_thread(manifests, overlay), asyncio.to_thread(made_secrets, overlay, folder / "keys")
    )
    if change is not None:
        change(rendered)
    found = Kubelet([*rendered, *made], folder, tag=tag, token_s=token_s)
    await found.open()
    try:
        for component in (first, "") if first else ("",):
            found.start(component)
            await found.ready(ready_s)
        yield found
    finally:
        try:
            await found.collect_logs()
        finally:
            await found.close()


def credentials(folder: Path) -> dict[str, str]:
    """API keys of the local user by role."""
    found: dict[str, str] = json.loads((folder / "keys" / "operator" / "credentials.json").read_text())
    return found


def _objects(*command: str) -> list[Object]:
    return [one for one in yaml.load_all(_said(*command), yaml.CSafeLoader) if one]


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)  # noqa: S603
    except OSError as error:
        raise DockError(
            f"{command[0]}: {error.strerror}; install kubectl 1.27 or newer, which has Kustomize 5"
        ) from error
    if done.returncode:
        raise DockError(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
