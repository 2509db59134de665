"""One mesh before the scripted provider, and the programs of others: both are made once, side by side."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from bulkhead_infra.local.supervisor import LocalMesh
from tests.e2e.clients.mesh import ClientMesh, environ_of
from tests.e2e.clients.programs import Programs
from tests.e2e.clients.scripted_provider import ScriptedProvider
from tests.e2e.fixtures.world import write_tenants


@pytest.fixture(scope="package")
def provider() -> Iterator[ScriptedProvider]:
    """The provider that every model of the mesh is at."""
    with ScriptedProvider() as provider:
        yield provider


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def mesh(provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClientMesh]:
    """A mesh of one door."""
    folder = Path(tmp_path_factory.mktemp("clients"))
    tenants = folder / "tenants.yaml"
    write_tenants(tenants)
    environ = {**os.environ, **environ_of(provider.url)}
    async with LocalMesh(folder / "mesh", offline_model=False, tenants=tenants, environ=environ) as mesh:
        yield ClientMesh(mesh, provider)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def installing(tmp_path_factory: pytest.TempPathFactory) -> "asyncio.Task[Programs]":
    """The programs, as they are being installed: what uses them needs `packages` (tests/needs.py)."""
    programs = Programs(tmp_path_factory.mktemp("homes"))

    async def install() -> Programs:
        await asyncio.to_thread(programs.install)
        return programs

    return asyncio.create_task(install())


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def programs(installing: "asyncio.Task[Programs]", mesh: ClientMesh) -> Programs:
    """The programs, ready to run."""
    return await installing
