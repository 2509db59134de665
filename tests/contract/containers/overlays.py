"""Overlays with Secrets of keys that were made for them, once per run."""

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

from bulkhead_infra.kubernetes import key_folder
from bulkhead_infra.kubernetes.objects import CLUSTER_CA
from bulkhead_infra.stages.manifests import overlay, pods
from bulkhead_infra.stages.manifests.contents import Maps
from bulkhead_infra.stages.manifests.fields import Object
from tests.contract.containers.image_contract import breaches, fitted
from tests.needs import need

Change = Callable[[list[Object]], None]


@functools.cache
def _objects(name: str) -> list[Object]:
    with tempfile.TemporaryDirectory() as folder:
        key_folder.ensure(Path(folder), name)
        made = list(key_folder.secrets(Path(folder)))
    ca = {"kind": "ConfigMap", "metadata": {"name": CLUSTER_CA}, "data": {"ca.crt": "-"}}
    return [*overlay.manifests(name), *made, ca]


def objects(name: str) -> list[Object]:
    """Fresh objects, which a test may change. Skips where kubectl is too old."""
    need("kubectl")
    return copy.deepcopy(_objects(name))


def broken(name: str, folder: Path, change: Change = lambda found: None) -> list[str]:
    """Breaches of the contract in an overlay, after a change of its objects."""
    found = objects(name)
    change(found)
    return breaches(fitted(pods.read(found), Maps(found), folder))


def workload(found: list[Object], name: str) -> Object:
    """The workload of this name."""
    return next(one for one in found if one["kind"] in pods.WORKLOADS and one["metadata"]["name"].startswith(name))


def spec(found: list[Object], name: str) -> Object:
    """The content of its pods."""
    content: Object = workload(found, name)["spec"]["template"]["spec"]
    return content


def container(found: list[Object], name: str) -> Object:
    """Its one container."""
    content: Object = spec(found, name)["containers"][0]
    return content
