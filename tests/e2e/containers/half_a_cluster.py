"""Two of three brokers are missing: everybody who is asked says so, nothing is lost, and all goes on when they come.

In: a mesh on a cluster, with a write under way. Out: as above. The provisioner's patience alone takes a quarter of a
minute, so that only `make compose-test` names this file.
"""

import asyncio

import pytest

from bulkhead_infra.render.cluster import BROKERS
from tests.e2e.containers.field import Count
from tests.e2e.containers.test_operating import examined
from tests.e2e.containers.three import Three, well

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_half_a_cluster_says_so_and_goes_on_when_the_others_come(three: Three) -> None:
    stack, (left, *away) = three.stack, BROKERS
    async with three.client() as client:
        async with three.counter.held() as arrived:
            flying = await Count(three, client).submit()
            await arrived()
            await asyncio.to_thread(stack.run_compose, "stop", "--timeout", "5", *away)
        streams = asyncio.create_task(
            asyncio.to_thread(stack.run_compose, "run", "--rm", "-T", "--no-deps", "provision-streams", check=False)
        )
        code, found = await examined(stack.project)
        assert code == 1 and found["cluster"]["level"] == "problem", found
        assert found["cluster"]["detail"].startswith("1 of 3 brokers run; nats-2 (exited), nats-3 (exited) away: no")
        done = await streams
        assert done.returncode == 1 and "more than half of its brokers must run" in done.stderr + done.stdout, done
        for service in ("worker", "gateway"):
            assert "it has no leader now; start what is missing of a cluster" in stack.read_logs(service), service
        # Who only waits for the others is left alone by its own health check.
        assert stack.inspect_container(stack.running_containers_of(left)[0])["RestartCount"] == 0
        await asyncio.to_thread(three.begin, *away)
        await three.adds_up([flying, await Count(three, client).submit()])
    found = await well(stack.project)
    assert found["cluster"]["detail"] == "3 of 3 brokers run", found
