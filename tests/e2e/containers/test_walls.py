"""What keeps containers apart: roots, users, networks, keys. Each wall is run against, from inside."""

import functools
import itertools
import json
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from bulkhead_contracts import catalog
from bulkhead_infra.docker.stack import Stack, StackError, run_docker
from bulkhead_infra.identity import policy
from bulkhead_infra.identity.policy import ReachablePlace
from tests.e2e.containers.field import TAG, Field

pytestmark = pytest.mark.nightly
PLACES = {"nats": 4222, "gateway": 8080, "doors": 8090, "redis": 6379, "offline-model": 8000}
TRY = """
import concurrent.futures, json, os, socket, sys
asked, pool = json.loads(sys.argv[1]), concurrent.futures.ThreadPoolExecutor()
def knock(host, port):
    try:
        socket.create_connection((host, port), 1).close()
        return True
    except OSError:
        return False
def writes(path):
    try:
        open(path, "w").close()
        return True
    except OSError:
        return False
caps = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")][0]
print(json.dumps({
    "reached": [name for (name, _, _), open_ in zip(asked, pool.map(lambda one: knock(*one[1:]), asked)) if open_],
    "wrote": [one for one in ("/x", "/opt/bulkhead/code/x", "/bulkhead/identity/x", "/etc/x") if writes(one)],
    "keys": sorted(os.listdir("/bulkhead/identity")), "uid": os.getuid(), "capabilities": int(caps, 16),
}))
"""
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def addresses(field: Field) -> list[tuple[str, str, int]]:
    """(name, address, port) of everything that listens, on each of its networks: who knows them needs no DNS."""
    found = []
    for name, port in PLACES.items():
        networks = field.stack.inspect_container(field.stack.running_containers_of(name)[0])["NetworkSettings"][
            "Networks"
        ]
        found += [(name, one["IPAddress"], port) for one in networks.values()]
    return found


@pytest.fixture(scope="session")
def inside(field: Field, addresses: list[tuple[str, str, int]]) -> Callable[[str], dict]:
    """What a service's container finds when it tries."""

    @functools.cache
    def look(service: str) -> dict:
        container = field.stack.running_containers_of(service)[0]
        said = field.stack.exec_in_container(container, "python3", "-c", TRY, json.dumps(addresses))
        assert said.returncode == 0, said.stderr
        return json.loads(said.stdout)

    return look


@pytest.mark.parametrize("service", catalog.SERVICES)
def test_a_service_reaches_what_the_policy_says_and_nothing_else(
    field: Field, inside: Callable[[str], dict], service: str
) -> None:
    rules = policy.load_policy().services
    reaches = rules[service].reaches
    found = inside(service)
    expected = {"nats"}
    expected |= {"redis"} if ReachablePlace.REDIS in reaches else set()
    expected |= {"offline-model"} if ReachablePlace.PROVIDERS in reaches else set()
    expected |= {service} if ReachablePlace.CLIENTS in reaches else set()  # Itself.
    askers = {name for name, row in rules.items() if ReachablePlace.GATEWAY in row.reaches}
    # A network of Docker has no direction: who is asked over it could ask.
    expected |= {"gateway"} if service in askers else askers if service == "gateway" else set()
    assert set(found["reached"]) == expected
    # A way out of the machine: whoever calls providers or tools, or is called from outside.
    networks = field.stack.inspect_container(field.stack.running_containers_of(service)[0])["NetworkSettings"][
        "Networks"
    ]
    leads_outside = [not one["Internal"] for one in json.loads(run_docker("network", "inspect", *networks).stdout)]
    assert any(leads_outside) == bool(
        reaches & {ReachablePlace.PROVIDERS, ReachablePlace.TOOLS, ReachablePlace.CLIENTS}
    )


@pytest.mark.parametrize("service", [*catalog.SERVICES, "nats"])
def test_a_root_is_read_only_nobody_is_root_and_only_own_keys_are_there(
    inside: Callable[[str], dict], service: str
) -> None:
    found = inside(service)
    assert found["wrote"] == [] and found["uid"] == 10001 and found["capabilities"] == 0
    others = [one for one in catalog.SERVICES if one != service]
    assert not [key for key in found["keys"] if key.partition(".")[0] in others], found["keys"]
    assert service == "nats" or f"{service}.nkey" in found["keys"]


@pytest.fixture
def volume(field: Field) -> Iterator[str]:
    """A volume that belongs to nobody yet, with a copy of planner's keys to spoil."""
    name = f"{field.stack.project}-spoiled-{next(_numbers)}"
    run_docker("volume", "create", name)
    # The provisioner's image has a folder of the right owner, which a new volume takes over.
    run_docker(
        "run",
        "--rm",
        "--network",
        "none",
        "--volume",
        f"{field.stack.key_volume('planner')}:/from:ro",
        "--volume",
        f"{name}:/bulkhead/keys/all",
        "--entrypoint",
        "python3",
        field.stack.image_name("provisioner"),
        "-c",
        "import shutil; shutil.copytree('/from', '/bulkhead/keys/all', dirs_exist_ok=True)",
    )
    yield name
    run_docker("volume", "rm", "--force", name, check=False)


def _start(field: Field, service: str, volume: str, *more: str) -> subprocess.CompletedProcess[str]:
    """One container by hand, as an operator who made a mistake would start it; it must end by itself."""
    environ = {"BULKHEAD_NATS_URL": "tls://nats:4222", "BULKHEAD_NATS_CA_FILE": "/bulkhead/identity/ca.pem"}
    variables = [f"--env={name}={value}" for name, value in environ.items()]
    return run_docker(
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--network",
        field.stack.network_name("bus"),
        "--volume",
        f"{volume}:/bulkhead/identity:ro",
        *variables,
        *more,
        field.stack.image_name(service),
        check=False,
        timeout_s=60,
    )


DIGESTS = """
import hashlib, json, os
found = [f"{folder}/{one}" for folder, _, names in os.walk("/bulkhead/keys") for one in names]
print(json.dumps({one: hashlib.sha256(open(one, "rb").read()).hexdigest() for one in sorted(found)}))
"""


def test_the_broker_speaks_to_nobody_in_the_clear(field: Field) -> None:
    done = _start(
        field,
        "planner",
        field.stack.key_volume("planner"),
        "--env=BULKHEAD_NATS_URL=nats://nats:4222",
        "--env=BULKHEAD_NATS_CA_FILE=/nowhere.pem",
    )
    assert done.returncode == 1 and "the CA file /nowhere.pem cannot be used" in done.stdout + done.stderr
    container = field.stack.running_containers_of("worker")[0]
    clear = """
import socket
with socket.create_connection(("nats", 4222), 5) as connection:
    connection.sendall(b'CONNECT {"verbose":true}\\r\\nPING\\r\\n')
    said = b""
    while more := connection.recv(4096):
        said += more
assert b"PONG" not in said, said
"""
    said = field.stack.exec_in_container(container, "python3", "-c", clear)
    assert said.returncode == 0, said.stderr


def test_provisioning_again_changes_nothing(field: Field) -> None:
    def digests() -> str:
        return field.stack.run_compose(
            "run", "--rm", "-T", "--no-deps", "--entrypoint", "python3", "provision-keys", "-c", DIGESTS
        ).stdout

    before = digests()
    field.stack.run_compose("run", "--rm", "-T", "--no-deps", "provision-keys")
    field.stack.run_compose("run", "--rm", "-T", "--no-deps", "provision-streams")
    assert len(json.loads(before)) > 40 and digests() == before


def test_a_port_that_is_taken_is_said_with_a_way_out(field: Field) -> None:
    """Somebody else listens where the gateway is to be published; once he is gone, the same command does it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        stack = Stack(f"{field.stack.project}-port", environ={"BULKHEAD_TAG": TAG, "BULKHEAD_HTTP_PORT": port})
        up = ("up", "--detach", "--no-build", "--no-deps", "gateway")
        with stack:
            with pytest.raises(StackError, match=r"(?s)address already in use.*BULKHEAD_HTTP_PORT=8081"):
                stack.run_compose(*up)
            assert not stack.running_containers
            taken.close()
            stack.run_compose(*up)
            assert stack.running_containers_of("gateway")
