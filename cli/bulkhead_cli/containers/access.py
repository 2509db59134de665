"""Access to a mesh in containers from its host: its containers, their ports through a relay, and its keys."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from bulkhead.testing.relay import BrokerRelay
from bulkhead_infra.docker.stack import PROJECT_LABEL, SERVICE_LABEL, run_docker
from bulkhead_infra.identity import tls

PORTS = {"nats": 4222, "redis": 6379, "gateway": 8080}
READ = """
import json, pathlib
files = [one for one in pathlib.Path("/k").rglob("*") if one.is_file()]
print(json.dumps({str(one.relative_to("/k")): one.read_text() for one in files}))
"""


def relay_to(container: Mapping[str, Any], port: int) -> BrokerRelay:
    """From a port of this machine to a container that listens."""
    host = container_address(container)
    return BrokerRelay(lambda: (host, port))


def write_key_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write what `keys_of` found, for its owner's eyes alone; the CA beside the keys, where commands look."""
    ca = files[f"identity/tls/{tls.CA_FILE}"]
    for path, text in {**files, f"identity/{tls.CA_FILE}": ca}.items():
        place = folder / path
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.touch(mode=0o600)
        place.write_text(text)


def keys_of(project: str, image: str) -> dict[str, str]:
    """{path in a data directory: text}: every identity's key, and the API keys of who runs the mesh."""
    mounts = (f"{project}_keys_all:/k/identity:ro", f"{project}_keys_operator:/k/operator:ro")
    volumes = [part for mount in mounts for part in ("--volume", mount)]
    done = run_docker("run", "--rm", "--network", "none", *volumes, "--entrypoint", "python3", image, "-c", READ)
    files: dict[str, str] = json.loads(done.stdout)
    return {path.removeprefix("operator/"): text for path, text in files.items()}


def running_containers(project: str, image: str, names: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """{service: what Docker knows of its first container} of those that run on an image; names: of these alone."""
    containers: dict[str, dict[str, Any]] = {}
    for container in inspect_containers(project, image):
        containers.setdefault(container["Config"]["Labels"][SERVICE_LABEL], container)
    return {name: container for name, container in sorted(containers.items()) if not names or name in names}


def inspect_containers(project: str, image: str, *options: str) -> list[dict[str, Any]]:
    filters = [f"--filter=label={PROJECT_LABEL}={project}", f"--filter=label=bulkhead.service={image}"]
    ids = run_docker("ps", "--quiet", *options, *filters).stdout.split()
    containers: list[dict[str, Any]] = json.loads(run_docker("inspect", *ids).stdout) if ids else []
    return containers


def container_address(container: Mapping[str, Any]) -> str:
    networks = container["NetworkSettings"]["Networks"].values()
    return str(next(network["IPAddress"] for network in networks if network["IPAddress"]))
