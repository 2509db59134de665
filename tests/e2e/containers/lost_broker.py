"""Three brokers and a Redis with a replica, in containers: one of each goes for good under load, and the mesh goes on.

In: a mesh of its own, of docker-compose.yml and docker-compose.cluster.yml. Out: every task ends rightly, each step
changes the world once, what was settled is what was used; whoever operates it is told how it stands.
"""

import asyncio

import pytest

from bulkhead_infra.docker.redis_container import SERVERS
from bulkhead_infra.render.cluster import BROKERS
from tests.e2e.containers.field import Count, load
from tests.e2e.containers.three import Three, another_ends, well

pytestmark = pytest.mark.asyncio(loop_scope="session")

LED = "INBOX_TOOL_EXECUTOR"
KNOCK = """
import ssl, socket
trusted = ssl.create_default_context(cafile="/bulkhead/identity/ca.pem")
with socket.create_connection(("nats-2", 6222), 5) as connection:
    with trusted.wrap_socket(connection, server_hostname="nats-2") as line:
        line.sendall(b'CONNECT {"verbose":true}\\r\\nPING\\r\\n')
        while line.recv(4096):
            pass
"""
"""Somebody with this mesh's CA and no certificate of it, at the door by which brokers come."""


async def test_a_broker_is_lost_with_its_disk_and_redis_with_its_own(three: Three) -> None:
    """The broker that leads the tools' inbox goes with a write under way. It comes back empty and is needed again: the
    one that leads most by then is restarted, and all of it moves. Redis' master goes the same way; what its replica has
    is not believed, the ledger is made of the facts."""
    stack = three.stack
    lost = (await asyncio.to_thread(three.leaders))[LED]
    async with three.client() as client:
        async with load(three, client) as tasks:
            async with three.counter.held() as arrived:
                flying = await Count(three, client).submit()
                await arrived()
                await asyncio.to_thread(three.lose, lost, f"data_nats_{BROKERS.index(lost) + 1}_of_3")
            await another_ends(tasks)
            found = await well(stack.project)
            assert found["cluster"]["detail"] == f"2 of 3 brokers run; {lost} (gone) away", found
            await asyncio.to_thread(three.begin, lost)

            led = list((await asyncio.to_thread(three.leaders)).values())
            most = max((name for name in BROKERS if name != lost), key=led.count)
            assert led.count(most)
            await asyncio.to_thread(stack.restart_service, most)
            await another_ends(tasks)
            assert lost in (await asyncio.to_thread(three.leaders)).values(), "it leads again"

            rebuilt = stack.read_logs("budget").count("ledger_rebuilt")
            await asyncio.to_thread(three.lose, SERVERS[0], "data_redis")
            await another_ends(tasks)
            assert stack.read_logs("budget").count("ledger_rebuilt") > rebuilt
            await asyncio.to_thread(three.begin, SERVERS[0])
            # Who comes back follows the one that is the master now.
            assert "Connecting to MASTER" in stack.read_logs(SERVERS[0])
        _, found = await asyncio.gather(three.adds_up([flying, *tasks]), well(stack.project))
    assert found["cluster"]["detail"] == "3 of 3 brokers run" and found["redis"]["level"] == "ok", found
    # And nobody else becomes one of the brokers.
    said = stack.exec_in_container(stack.running_containers_of("worker")[0], "python3", "-c", KNOCK)
    assert said.returncode == 1 and "certificate required" in said.stderr, (said.stdout, said.stderr)
