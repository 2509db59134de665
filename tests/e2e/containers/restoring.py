"""A mesh in containers is copied with tasks in flight and made again of the copy, beside it: as other containers with
other certificates, another broker or three of them, another number of shards. The same answers, the same money, every
write once.

In: the running mesh, as the one that was lost. Out: a second one, which goes on where the copy was taken.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.containers.conftest import stack_beside
from tests.e2e.containers.field import Count, Field
from tests.e2e.containers.test_operating import operate

pytestmark = pytest.mark.asyncio(loop_scope="session")

READS_VOLUMES = os.geteuid() == 0
"""Without root a backup has everything but the documents, and says so."""
PASSPHRASE = "a passphrase for this test"
FARES = "Flex tickets: 80% of the price is refunded when cancelled 14 days before departure.\n"


@contextmanager
def lost(field: Field) -> Iterator[None]:
    """Nobody hears of the mesh, and it takes no time from the one that is made instead; afterwards it goes on."""
    field.stack.run_compose("pause")
    try:
        yield
    finally:
        field.stack.run_compose("unpause")
        field.stack.wait_until_ready()


@pytest.mark.parametrize("cluster", [False, True], ids=["one-broker", "three-brokers"])
async def test_a_mesh_in_containers_goes_on_from_its_backup(
    field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: bool
) -> None:
    sealed, file = tmp_path / "passphrase", tmp_path / "mesh.bulkhead"
    sealed.write_text(PASSPHRASE)
    async with field.client() as client:
        await client.add_document(FARES.encode(), name="restored.md", media_type="text/markdown")
        done = await Count(field, client).submit()
        before = await done.ends_rightly()
        documents = await client.documents()
        async with field.counter.held() as arrived:
            # Its write stands at the counter: sent, not answered, recorded by nobody.
            flying = await Count(field, client).submit()
            await arrived()
            code, *said = await operate(field.stack.project, "backup", str(file), "--keys-passphrase", str(sealed))
            assert code == 0, said
    code, *said = await operate(field.stack.project, "restore", str(file), "--check")
    assert code == 0, said
    monkeypatch.setenv("BULKHEAD_SHARDS_WORKER", "2")
    project, shards = f"{field.stack.project}-{'cluster' if cluster else 'second'}", {"BULKHEAD_SHARDS_WORKER": "2"}
    with lost(field), stack_beside(field.counter, project, shards, cluster=cluster) as second:
        into = ["--cluster"] * cluster
        code, *said = await operate(
            second.project, "restore", str(file), *into, "--keys-passphrase", str(sealed), "--json"
        )
        assert code == 0, said
        restored = json.loads(said[0])
        assert restored["shards"] == {"worker": 2} and restored["keys"]
        assert restored["documents"] == ["demo"] * READS_VOLUMES
        await asyncio.to_thread(second.up)
        there = Field(second, field.counter)
        # People keep their keys: the first mesh's open the second.
        assert there.credentials == field.credentials
        async with there.client() as client:
            assert await client.documents() == (documents if READS_VOLUMES else [])
            for one in (done, flying):
                assert one.task is not None
                one.client, one.task = client, client.task(one.task.id)
            assert await done.ends_rightly() == before
            await flying.ends_rightly()
            await (await Count(there, client).submit()).ends_rightly()
        code, *said = await operate(second.project, "restore", str(file), *into)
        assert code == 1 and "already: a backup is restored into a project that has none" in said[1], said
