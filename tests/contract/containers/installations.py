"""Examples of the chart with Secrets of keys that were made for them, once per run."""

import copy
import functools
import tempfile
from pathlib import Path

from bulkhead_infra.kubernetes import key_folder
from tests.contract.containers.image_contract import breaches, fitted
from tests.contract.containers.pods import Object, read_pods
from tests.unit.infra.kubernetes.rendered import installation
from tests.unit.infra.kubernetes.rules import CLUSTER_CA


@functools.cache
def _secrets(name: str) -> list[Object]:
    with tempfile.TemporaryDirectory() as folder:
        key_folder.ensure_key_folder(Path(folder), "single" if name == "dev" else "")
        made = list(key_folder.render_secrets(Path(folder)))
    return [*made, {"kind": "ConfigMap", "metadata": {"name": CLUSTER_CA}, "data": {"ca.crt": "-"}}]


def broken(name: str, folder: Path) -> list[str]:
    """Breaches of the contract in an example. Skips where Helm is not installed."""
    objects = [*installation(name), *copy.deepcopy(_secrets(name))]
    return breaches(fitted(read_pods(objects), folder))
