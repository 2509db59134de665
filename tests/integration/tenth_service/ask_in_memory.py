"""Runs in the copied tree: the memory mesh with all services, asked for an echo. Argument: a folder."""

import asyncio
import sys
from pathlib import Path

from bulkhead.testing.mesh_backend import StageOptions
from bulkhead_contracts import subjects
from bulkhead_contracts.echo import EchoReplied, EchoRequested
from bulkhead_infra.services import SERVICES
from bulkhead_infra.stages.memory import Memory
from tests.integration.tenth_service.granting import grant


async def ask(folder: Path) -> None:
    """Print the answer, and how many services run."""
    stage = Memory(StageOptions(folder, settings={"echo_prefix": "heard: "}))
    await stage.open()
    try:
        mesh = stage._mesh
        token = grant(mesh.context("signer"), "t1")
        body = EchoRequested(call_id="c1", text="hello")
        await mesh.context("gateway").publisher.send("echo", body, tenant="demo", task="t1", cause="t1", grant=token)
        reply = await mesh.wait_for_fact(subjects.mesh_subject("echo", "gateway", "demo", "t1", "c1"), EchoReplied)
        print(f"{len(SERVICES)} services, {len(mesh.running)} run; {reply.text}")
    finally:
        await stage.close()


asyncio.run(ask(Path(sys.argv[1])))
