"""The mesh in containers: built once, one stack for all tests of this folder, removed at the end.

In: Docker (without it everything here is left out: tests/needs.py). Out: `built` images and a `field`: the
stack, a client, a counter in the outside world. Images are named for this run, so that two runs do not meet.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bulkhead_infra.docker import images
from bulkhead_infra.docker.image_contents import SERVICES
from bulkhead_infra.docker.stack import Stack, run_docker
from tests.e2e.containers.field import GIVEN_TAG, TAG, Field
from tests.e2e.containers.three import Three
from tests.e2e.fixtures.gate import GatedCounter


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs Docker, and time."""
    here = Path(__file__).parent
    mine = [item for item in items if here in item.path.parents]
    for item in mine:
        item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.timeout(600))
        item.add_marker(pytest.mark.needs("docker"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """Users of containers read files of these tests. A mesh of other tests, which stands in this process until the end,
    keeps new files from everybody else."""
    before = os.umask(0o022)
    try:
        return (yield)
    finally:
        os.umask(before)


def remove_what_was_left() -> None:
    """Stacks of runs that were killed: Docker starts their services over and over, on the cores of every later run."""
    names = run_docker("ps", "--all", "--format", "{{.Names}}").stdout.split()
    runs = {found[1] for name in names if (found := re.match(r"bulkhead-test-(\d+)[-_]", name))}
    gone = tuple(f"bulkhead-test-{pid}" for pid in runs if not Path("/proc", pid).exists())
    if left := [name for name in names if name.startswith(gone)] if gone else []:
        run_docker("rm", "--force", "--volumes", *left, timeout_s=120)
        networks = run_docker("network", "ls", "--format", "{{.Name}}").stdout.split()
        run_docker("network", "rm", *(name for name in networks if name.startswith(gone)), check=False)


@pytest.fixture(scope="session")
def built() -> Iterator[Mapping[str, str]]:
    """{name: image} of the tree as it is; with BULKHEAD_TEST_TAG images that are there, and nothing is built."""
    remove_what_was_left()
    if GIVEN_TAG:
        yield {name: images.tag_of(name, GIVEN_TAG) for name in images.IMAGE_NAMES}
        return
    os.environ["BULKHEAD_TAG"] = TAG
    try:
        found = images.ensure_images(tag=TAG)
        yield found
        # Only the names: what they share with later builds stays in the builder's cache.
        run_docker("image", "rm", "--force", *found.values(), check=False, timeout_s=120)
    finally:
        del os.environ["BULKHEAD_TAG"]


CONTAINERS = (*SERVICES, "nats", "redis", "offline-model", "upkeep", "provision-keys", "provision-streams")
IN_CLUSTER = ("nats-2", "nats-3", "redis-2", "sentinel")


def stack_beside(counter: GatedCounter, project: str, environ: Mapping[str, str], *, cluster: bool = False) -> Stack:
    """A mesh of the images of this run, whose tools reach a counter of this machine."""
    url = f"http://outside:{counter.url.rpartition(':')[2]}"
    # No image needs a shell: here there is none that could be started.
    more: dict[str, dict[str, object]] = {
        name: {"volumes": [f"/dev/null:/usr/bin/{shell}:ro" for shell in ("dash", "bash")]}
        for name in (*CONTAINERS, *(IN_CLUSTER if cluster else ()))
    }
    more["tool_executor"]["extra_hosts"] = ["outside:host-gateway"]
    return Stack(
        project,
        extra_env={"signer": {"BULKHEAD_COUNTER_URL": url}, "tool_executor": {"BULKHEAD_COUNTER_URL": url}},
        environ={"BULKHEAD_TAG": TAG, **environ},
        services=more,
        cluster=cluster,
    )


@pytest.fixture(scope="session")
def field(built: Mapping[str, str]) -> Iterator[Field]:
    """A running mesh with four shards of worker, and a counter that its tools reach."""
    environ = {"BULKHEAD_SHARDS_WORKER": "4"}
    with (
        GatedCounter(host="0.0.0.0") as counter,
        stack_beside(counter, f"bulkhead-test-{os.getpid()}", environ) as stack,
    ):
        stack.up()
        yield Field(stack, counter)


@pytest.fixture(scope="module")
def three(built: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    """A running mesh on a cluster. Not for longer than it is needed: brokers of a cluster are never idle."""
    with (
        GatedCounter(host="0.0.0.0") as counter,
        stack_beside(counter, f"bulkhead-test-{os.getpid()}-three", {}, cluster=True) as stack,
    ):
        stack.up()
        yield Three(stack, counter)


@pytest.fixture(autouse=True)
def logs_of_a_failure(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """A failed test leaves what every container said, and says where."""
    failed = request.session.testsfailed
    yield
    for name in {"field", "three"} & set(request.fixturenames) if request.session.testsfailed > failed else ():
        found: Field = request.getfixturevalue(name)
        path = tmp_path / "containers.log"
        path.write_text(found.stack.run_compose("logs", "--no-color", "--timestamps", check=False).stdout)
        print(f"what the containers said: {path}")
