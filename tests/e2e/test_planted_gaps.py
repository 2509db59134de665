"""What planted bugs showed to be untested: services that are told to stop finish what they have begun."""

from bulkhead_contracts import catalog
from infra.local.supervisor import LocalMesh


async def test_every_service_drains_when_it_is_told_to_stop(tmp_path):
    async with LocalMesh(tmp_path / "mesh") as mesh:
        logs = mesh.directory / "logs"
    said = {name: (logs / f"{name}-0.log").read_text() for name in catalog.SERVICES}
    assert [name for name, text in said.items() if "started" not in text or "drained" not in text] == []
