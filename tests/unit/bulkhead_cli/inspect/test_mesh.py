"""How `bulkhead mesh` shows services with their troubles, and what is not known of them."""

import json
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from bulkhead.gateway_api.operators import MeshQuery
from bulkhead_cli.inspect.gateway import print_mesh
from bulkhead_cli.query_command import show_reply
from bulkhead_contracts.budget import MeshReplied, MessageEdge, ServiceLoad

TOLD = MeshReplied(
    services=(
        ServiceLoad(service="worker", replicas=0, listens=False, pending=1_200, in_work=0, troubles=("no_replica",)),
        ServiceLoad(service="rag", listens=True, pending=0, in_work=2, received=6, failed=1, troubles=("failures",)),
        ServiceLoad(service="signer"),
    ),
    edges=(MessageEdge(sender="planner", receiver="worker", messages=12),),
    window_ms=60_000,
).model_dump(mode="json", exclude={"failure"})


class Told:
    """A gateway's client that answers this."""

    @asynccontextmanager
    async def mesh_client(self):  # type: ignore[no-untyped-def]
        async def read_json(query: object) -> dict[str, Any]:
            assert query == MeshQuery()
            return TOLD

        yield SimpleNamespace(read_json=read_json)


async def test_troubles_and_what_is_not_known_have_words(capsys: pytest.CaptureFixture[str]) -> None:
    await show_reply(Told(), MeshQuery(), print_mesh, as_json=False)  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["worker", "no", "replica", "0", "1,200", "0", "0", "0", "0"],
        ["rag", "failures", "1", "or", "more", "0", "2", "6", "1", "0"],
        ["signer", "unknown", "unknown", "unknown", "unknown", "0", "0", "0"],
    ]
    assert lines[-1] == "planner -> worker: 12 messages a minute"
    await show_reply(Told(), MeshQuery(), print_mesh, as_json=True)  # type: ignore[arg-type]
    assert json.loads(capsys.readouterr().out) == TOLD
