"""One process that does nothing but publish and wait for the ack: `python -m tests.bench.peers.floor_client URL PID`.

In: a Work as JSON per line of standard input, until its end. Out: per Work one JSON object with its figures; CPU and
memory are those of this process and of the broker, whose pid it is told. Apart, so that the bench's own work is not
counted.
"""

import asyncio
import itertools
import json
import os
import sys
import time
from dataclasses import asdict, dataclass

import nats
from nats.js.client import JetStreamContext

from tests.bench.accounting import cpu_s, pss_mb
from tests.bench.figures import quantile

BODY = b"x" * 512
"""About what a step's messages carry beside their headers."""
TASK3_PUBLISHES = 5
"""A task of three steps must at least write down: asked for, three results, ended."""
ACK_TIMEOUT_S = 30.0
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Work:
    """What to do: so many publishes one by one, so many tasks of three, so many per chain under each load."""

    subject: str
    single: int
    tasks: int = 0
    loads: tuple[int, ...] = ()
    length: int = 0

    def line(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


async def publish(js: JetStreamContext, subject: str) -> float:
    """One acked publish with an id of its own; milliseconds."""
    began = time.perf_counter()
    name = f"{os.getpid()}-{next(_numbers)}"
    await js.publish(f"{subject}.{name}", BODY, timeout=ACK_TIMEOUT_S, headers={"Nats-Msg-Id": name})
    return (time.perf_counter() - began) * 1000


async def singles(js: JetStreamContext, subject: str, count: int) -> list[float]:
    """One after the other."""
    return [await publish(js, subject) for _ in range(count)]


async def run(js: JetStreamContext, pids: tuple[int, ...], work: Work) -> dict[str, float]:
    """Everything; the figures by measure."""
    subject = work.subject
    times = await singles(js, subject, work.single)
    found = {"step_p50_ms": quantile(times, 0.5), "step_p99_ms": quantile(times, 0.99)}
    if work.tasks:
        tasks = [sum(await singles(js, subject, TASK3_PUBLISHES)) for _ in range(work.tasks)]
        found["task3_p50_ms"] = quantile(tasks, 0.5)
    for in_flight in work.loads:
        cpu, began, done = cpu_s(pids), time.perf_counter(), in_flight * work.length
        await asyncio.gather(*(singles(js, subject, work.length) for _ in range(in_flight)))
        found[f"steps_per_s_{in_flight}"] = done / (time.perf_counter() - began)
        found[f"cpu_per_step_ms_{in_flight}"] = (cpu_s(pids) - cpu) / done * 1000
    found["pss_total_mb"] = pss_mb(pids)
    return found


async def serve(url: str, server_pid: int) -> None:
    """Until standard input ends."""
    client = await nats.connect(url)
    js, pids = client.jetstream(), (os.getpid(), server_pid)
    while line := await asyncio.to_thread(sys.stdin.readline):
        row = json.loads(line)
        print(json.dumps(await run(js, pids, Work(**row | {"loads": tuple(row["loads"])}))), flush=True)
    await client.close()


def main() -> None:
    """See the module."""
    import uvloop

    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))


if __name__ == "__main__":
    main()
