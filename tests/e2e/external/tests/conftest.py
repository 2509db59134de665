"""On which meshes the tests run, and what this repository's tool needs."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--meshes", default="memory,processes", help="memory, processes, containers")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "a_mesh" in metafunc.fixturenames:
        metafunc.parametrize("a_mesh", metafunc.config.getoption("--meshes").split(","), indirect=True)


@pytest.fixture
def a_mesh(request):
    """The same test on each kind of mesh."""
    name = {"memory": "mesh_memory", "processes": "mesh_processes", "containers": "mesh"}[request.param]
    return request.getfixturevalue(name)


@pytest.fixture(scope="session")
def bulkhead_settings(effects_url):
    return {"tool_settings": {"desk_url": effects_url}}
