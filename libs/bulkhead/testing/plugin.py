"""The pytest plugin `bulkhead`: meshes to test agents and tools on. Manual: docs/tutorial/test-your-agents.md.

In: options (`bulkhead_packs`, `bulkhead_evidence`, `bulkhead_disk_mib`), the fixture `bulkhead_settings`. Out: fixtures
`run_tool` (one tool, no mesh), `mesh_memory`, `mesh_processes`, `mesh` (containers), and for whichever mesh a test
uses: `faults`, `offline_model`, `effects`. A failed test leaves its journal, timeline and logs as files,
and its report says where.
"""

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Loaded in every pytest run where the package is installed: slow imports stand in the functions that need them.
if TYPE_CHECKING:
    from bulkhead.client.loop_thread import LoopThread
    from bulkhead.testing.fake_world import FakeWorld, FakeWorldEffects
    from bulkhead.testing.faults import MeshFaults
    from bulkhead.testing.mesh_backend import Stage
    from bulkhead.testing.mesh_under_test import MeshUnderTest
    from bulkhead.testing.model import ModelUnderTest
    from bulkhead.testing.tool_trial import ToolUnderTest

PACKS, EVIDENCE, DISK = "bulkhead_packs", "bulkhead_evidence", "bulkhead_disk_mib"
MAX_FOLDER_CHARS = 100
_MESHES: pytest.StashKey[list[Any]] = pytest.StashKey()
_FOLDER: pytest.StashKey[Path] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, in an ini file or (the folder for evidence) on the command line."""
    group = parser.getgroup("bulkhead", "testing agents on a Bulkhead mesh")
    group.addoption(
        "--bulkhead-evidence",
        metavar="DIR",
        default=None,
        help="where failed tests leave journals, timelines and logs (default: in pytest's temporary folder)",
    )
    parser.addini(PACKS, "packages with tools and worker roles, as BULKHEAD_PACKS names them", "args", [])
    parser.addini(EVIDENCE, "as --bulkhead-evidence", default="")
    parser.addini(
        DISK,
        "size of a disk of its own for mesh_processes, so that faults.full_disk() can fill it: needs "
        "root and loop devices",
        default="0",
    )


# Stages: started when the first test asks, stopped at the end of the session


@pytest.fixture(scope="session")
def bulkhead_settings() -> Mapping[str, Any]:
    """Knobs of services, by name; each service gets those that it has. Override it in your conftest.py.

    Example: `{"tool_settings": {"desk_url": effects_url}, "stall_timeout_s": 2}`.
    """
    return {}


@pytest.fixture(scope="session")
def _bulkhead_loop() -> "Iterator[LoopThread]":
    from bulkhead.client.loop_thread import LoopThread

    with LoopThread() as loop:
        yield loop


@pytest.fixture(scope="session")
def _bulkhead_outside() -> "Iterator[FakeWorld]":
    from bulkhead.testing.fake_world import FakeWorld

    with FakeWorld() as outside:
        yield outside


@pytest.fixture(scope="session")
def effects_url(_bulkhead_outside: "FakeWorld") -> str:
    """Base URL of the world outside, for `bulkhead_settings`: a tool that POSTs to `<url>/refund` makes a `refund`."""
    return f"http://127.0.0.1:{_bulkhead_outside.port}"


Open = Callable[[str, Path], "Stage"]


@pytest.fixture(scope="session")
def _bulkhead_open(
    request: pytest.FixtureRequest, _bulkhead_loop: "LoopThread", bulkhead_settings: Mapping[str, Any]
) -> Open:
    from bulkhead.testing.mesh_backend import StageOptions, find_stage
    from bulkhead.tools.packs import PackError
    from bulkhead.tools.packs import folder as places

    packs, disk_mib = tuple(request.config.getini(PACKS)), int(request.config.getini(DISK))

    def open_stage(mode: str, folder: Path) -> "Stage":
        stage: Stage = find_stage(mode)(StageOptions(folder, packs, bulkhead_settings, disk_mib))
        try:
            for pack in packs:
                places(pack)
            _bulkhead_loop.run(stage.open())
        except PackError as error:
            # It says all that helps; in tests there is a shorter way to be found than an installation.
            pytest.fail(f'bulkhead_packs: {error} (for pytest: pythonpath = ["."] names its folder)', pytrace=False)
        return stage

    return open_stage


@pytest.fixture(scope="session")
def _bulkhead_processes(
    _bulkhead_open: Open, _bulkhead_loop: "LoopThread", tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Stage]":
    stage = _bulkhead_open("processes", tmp_path_factory.mktemp("mesh_processes"))
    yield stage
    _bulkhead_loop.run(stage.close())


@pytest.fixture(scope="session")
def _bulkhead_containers(
    _bulkhead_open: Open, _bulkhead_loop: "LoopThread", tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Stage]":
    stage = _bulkhead_open("containers", tmp_path_factory.mktemp("mesh_containers"))
    yield stage
    _bulkhead_loop.run(stage.close())


@pytest.fixture(scope="session")
def _bulkhead_tenants() -> Iterator[str]:
    from bulkhead.testing.mesh_backend import TENANTS

    return iter(TENANTS)


# What tests use


@pytest.fixture
def mesh_memory(
    request: pytest.FixtureRequest, _bulkhead_open: Open, _bulkhead_loop: "LoopThread", tmp_path: Path
) -> "Iterator[MeshUnderTest]":
    """Every service in this process over an in-memory bus: a fresh mesh for each test, in milliseconds."""
    from bulkhead.testing.mesh_backend import TENANTS

    stage = _bulkhead_open("memory", tmp_path / "bulkhead")
    try:
        yield from _under_test(request, stage, _bulkhead_loop, TENANTS[0])
    finally:
        _bulkhead_loop.run(stage.close())


@pytest.fixture
def mesh_processes(
    request: pytest.FixtureRequest,
    _bulkhead_processes: "Stage",
    _bulkhead_loop: "LoopThread",
    _bulkhead_tenants: Iterator[str],
) -> "Iterator[MeshUnderTest]":
    """Every service a process with its own key, real nats-server and Redis; one mesh a session, a tenant per test."""
    yield from _under_test(request, _bulkhead_processes, _bulkhead_loop, _next_tenant(_bulkhead_tenants))


@pytest.fixture
def mesh(
    request: pytest.FixtureRequest,
    _bulkhead_containers: "Stage",
    _bulkhead_loop: "LoopThread",
    _bulkhead_tenants: Iterator[str],
) -> "Iterator[MeshUnderTest]":
    """Every service a container of the images that run in production; one mesh a session, a tenant per test."""
    yield from _under_test(request, _bulkhead_containers, _bulkhead_loop, _next_tenant(_bulkhead_tenants))


@pytest.fixture
def run_tool(
    request: pytest.FixtureRequest, _bulkhead_loop: "LoopThread", bulkhead_settings: Mapping[str, Any]
) -> "Iterator[ToolUnderTest]":
    """Calls one tool under the checks of the executor, without a mesh: `run_tool("refund", {"order": "A-17"})`."""
    from bulkhead.testing.tool_trial import ToolUnderTest, open_trial

    try:
        trial = open_trial(tuple(request.config.getini(PACKS)), bulkhead_settings)
    except ValueError as error:
        pytest.fail(f"bulkhead_packs: {error}", pytrace=False)
    yield ToolUnderTest(trial, _bulkhead_loop)
    _bulkhead_loop.run(trial.close())


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> "MeshFaults":
    """Faults on purpose in the mesh of this test; name the mesh before it in the test's arguments."""
    return _the_mesh(request, "faults").faults


@pytest.fixture
def offline_model(request: pytest.FixtureRequest) -> "ModelUnderTest":
    """The model of the mesh of this test, and its misbehaviour; name the mesh before it in the test's arguments."""
    return _the_mesh(request, "offline_model").offline_model


@pytest.fixture
def effects(_bulkhead_outside: "FakeWorld", effects_url: str) -> "Iterator[FakeWorldEffects]":
    """Effects that the tools have really had on the world outside since this test began."""
    from bulkhead.testing.fake_world import FakeWorldEffects

    yield FakeWorldEffects(_bulkhead_outside, effects_url)
    _bulkhead_outside.clear_faults()


def _under_test(
    request: pytest.FixtureRequest, stage: "Stage", loop: "LoopThread", tenant: str
) -> "Iterator[MeshUnderTest]":
    from bulkhead.testing.mesh_under_test import MeshUnderTest

    under_test = MeshUnderTest(stage, loop, tenant)
    request.node.stash.setdefault(_MESHES, []).append(under_test)
    request.node.stash[_FOLDER] = _evidence_folder(request)
    yield under_test
    request.node.stash[_MESHES].remove(under_test)
    under_test.close()


def _the_mesh(request: pytest.FixtureRequest, asked: str) -> "MeshUnderTest":
    meshes: list[MeshUnderTest] = request.node.stash.get(_MESHES, [])
    if len(meshes) == 1:
        return meshes[0]
    names = ("mesh_memory", "mesh_processes", "mesh")
    how = f"name one of {', '.join(names)} before {asked} in the test's arguments"
    if meshes:
        how = f"this test has {len(meshes)} meshes: say whose, as in `mesh_processes.{asked}`"
    pytest.fail(f"fixture {asked!r} belongs to the mesh of a test: {how}", pytrace=False)


def _next_tenant(tenants: Iterator[str]) -> str:
    tenant = next(tenants, None)
    if tenant is None:
        pytest.fail("more tests than a mesh has tenants; split the session (pytest -n 2, or two runs)", pytrace=False)
    return tenant


# When a test fails


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """While the mesh still stands, its journal, timelines and logs are written down."""
    report = yield
    if call.when == "call" and report.failed:
        for failed_mesh in item.stash.get(_MESHES, []):
            from bulkhead.testing import failure_artifacts

            folder = item.stash[_FOLDER]
            mesh_folder = folder if len(item.stash[_MESHES]) == 1 else folder / failed_mesh.mode
            report.sections.append(
                (f"bulkhead: {failed_mesh!r}", "\n".join(failure_artifacts.leave_artifacts(failed_mesh, mesh_folder)))
            )
    return report


def _evidence_folder(request: pytest.FixtureRequest) -> Path:
    config = request.config
    chosen_folder: str = config.getoption("--bulkhead-evidence") or config.getini(EVIDENCE)
    name = re.sub(r"[^\w.-]+", "-", request.node.nodeid).strip("-")[-MAX_FOLDER_CHARS:]
    if chosen_folder:
        return config.rootpath / chosen_folder / name
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    return factory.getbasetemp() / "bulkhead" / name
