"""Programs that wait for a step: bounded by tenant at once, in the way of neither beats nor calls."""

import asyncio
import time

import pytest

from bulkhead.bus.port import LiveMessage
from bulkhead.callers.step_keys import WorkerIdentity
from bulkhead.runtime.edge.handler import RpcServer
from bulkhead_contracts import subjects
from bulkhead_contracts.delegation import StepBeatReplied, StepBeatRequested, StepTakeReplied, StepTakeRequested
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.types import Body
from tests.unit.services.doors.steps_world import ME, StepsWorld, steps_world

pytestmark = pytest.mark.virtual_time

OTHER = WorkerIdentity("acme", "wrk_acme")


async def asks(here: StepsWorld, body: Body, by: WorkerIdentity = ME, number: int = 0) -> Body:
    """A request over the bus, as a program outside makes it."""
    head = Envelope(id=f"{number:032x}", type=body.ce_type(), source=by.name, time_unix_ms=1)
    subject = subjects.rpc_subject(by.name, "doors", by.tenant, by.name)
    answer = await here.worker.bus.request(subject, body.encode(), head.to_headers(), timeout_s=10)
    kind = StepTakeReplied if isinstance(body, StepTakeRequested) else StepBeatReplied
    return kind.model_validate_json(answer.body)


async def test_a_tenants_polls_beyond_its_share_are_refused_at_once_and_no_others():
    async with steps_world(max_step_polls_per_tenant=3, max_calls=1) as here:
        poll = StepTakeRequested(wait_ms=2_000)
        standing = [asyncio.create_task(asks(here, poll, number=at)) for at in range(3)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        refused = await asks(here, poll, number=9)
        assert refused.failure.code == "too_many_calls" and time.monotonic() - began < 1
        assert "wait for a step" in refused.failure.message
        assert (await asks(here, StepTakeRequested(wait_ms=0), OTHER)).failure is None
        await here.hand_over()
        [step] = [reply.step for reply in await asyncio.gather(*standing) if reply.step is not None]
        assert (await asks(here, StepBeatRequested(key=step.key))).beaten.go_on


async def test_polls_take_no_place_of_a_call_and_stand_apart_on_the_bus():
    async with steps_world(max_calls=1) as here:
        doors = here.doors()
        waiting = asyncio.create_task(asks(here, StepTakeRequested(wait_ms=500)))
        await asyncio.sleep(0.1)
        assert doors.pools()["calls"].demand == 0
        await waiting
        assert doors.rpc_long_polls == {StepTakeRequested} < set(doors.rpc)


@pytest.mark.parametrize("name", ["ce-type", "Ce-Type"])
async def test_what_stands_is_known_by_its_type_however_its_header_is_written(name):
    async with steps_world() as here:
        server = RpcServer(here.mesh.context("doors"), here.doors().rpc, here.doors().rpc_long_polls)
        asked = {kind: live(name, kind) for kind in here.doors().rpc}
        assert [kind for kind, request in asked.items() if server.is_long_poll(request)] == [StepTakeRequested]


def live(name: str, kind: type[Body]):

    return LiveMessage("rpc.wrk_demo.doors", {name: kind.ce_type()}, b"")
