"""A gateway on a bus in memory, and a client of it that says nothing of who it is."""

import httpx
import pytest

from tests.unit.services.gateway.harness import Mesh, make_mesh


@pytest.fixture
async def mesh(tmp_path):
    found = make_mesh(tmp_path)
    await found.gateway().attach_inbox()
    yield found
    for gateway in found.gateways:
        await gateway.stop()


@pytest.fixture
async def http(mesh: Mesh):
    transport = httpx.ASGITransport(app=mesh.gateways[0].app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client
