"""The regression gate: what a step costs as a multiple of bare JetStream's publish and ack, both measured here and now.

Never an absolute time: a slow or busy machine slows both. Both wait for fsync, because then whoever else uses the disk
slows the floor at least as much as the mesh, and the ratio falls rather than rises. Measured in turns, the best of
each: whatever else runs can only lengthen a round. A busy machine gets more rounds; what has become dearer itself stays
over the bound in all of them.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.bench import accounting
from tests.bench.measures.stepping import CHAIN, UNTIL_WARM, gaps_ms, writes_of_a_step
from tests.bench.peers.floor import Floor, floor
from tests.bench.rig import Rig, rig

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

MAX_LATENCY_RATIO = 18.0
"""Seen on 2 cores: 8 to 9 at a load of 5, 14 at a load of 20, where a chain of four processes waits for a core more
often than one process does. A planner that forgets its folds has 30, and 49 at that load. CPU is the finer measure."""
MAX_CPU_RATIO = 24.0
"""Seen: 11.6 to 14 under load, 14 to 21 where the floor runs alone on a fast core; twice as much with folds
forgotten."""
WRITES_PER_STEP = 3.0
"""Handed out, finished, and what of both is told; a count, so that one write more is caught by itself."""

MIN_ROUNDS, MAX_ROUNDS, PUBLISHES = 8, 50, 100
MIN_CPU_ROUNDS, MAX_CPU_ROUNDS = 3, 12
IN_FLIGHT, LENGTH, FLOOR_LENGTH = 50, 10, 160


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    folder: Path = tmp_path_factory.mktemp("floor")
    async with floor(folder, "power") as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(tmp_path_factory.mktemp("gate"), "power") as found:
        await gaps_ms(found, UNTIL_WARM)
        yield found


async def test_a_step_takes_no_larger_multiple_of_an_acked_publish(mesh: Rig, bare: Floor) -> None:
    floors_ms: list[float] = []
    ours_ms: list[float] = []
    while len(ours_ms) < MIN_ROUNDS or (_best(ours_ms, floors_ms) > MAX_LATENCY_RATIO and len(ours_ms) < MAX_ROUNDS):
        floors_ms.append((await bare.measure(single=PUBLISHES))["step_p50_ms"])
        at = await mesh.chain_ms(CHAIN)
        ours_ms.append((at[-1] - at[0]) / (len(at) - 1))
    ratio = _best(ours_ms, floors_ms)
    print(f"step {min(ours_ms):.2f} ms, floor {min(floors_ms):.3f} ms, ratio {ratio:.2f} after {len(ours_ms)} rounds")
    assert ratio <= MAX_LATENCY_RATIO, (ratio, ours_ms, floors_ms)


def _best(ours_ms: list[float], floors_ms: list[float]) -> float:
    return min(ours_ms) / min(floors_ms)


async def test_a_step_uses_no_larger_multiple_of_a_publishs_cpu(mesh: Rig, bare: Floor) -> None:
    floors_ms: list[float] = []
    ours_ms: list[float] = []
    while len(ours_ms) < MIN_CPU_ROUNDS or (
        _best(ours_ms, floors_ms) > MAX_CPU_RATIO and len(ours_ms) < MAX_CPU_ROUNDS
    ):
        found = await bare.measure(single=1, loads=(IN_FLIGHT,), length=FLOOR_LENGTH)
        floors_ms.append(found[f"cpu_per_step_ms_{IN_FLIGHT}"])
        before = accounting.cpu_s(mesh.pids())
        await mesh.run_many(IN_FLIGHT, LENGTH)
        ours_ms.append((accounting.cpu_s(mesh.pids()) - before) / (IN_FLIGHT * LENGTH) * 1000)
    ratio = _best(ours_ms, floors_ms)
    print(f"CPU {min(ours_ms):.2f} ms, floor {min(floors_ms):.3f} ms, ratio {ratio:.1f} after {len(ours_ms)} rounds")
    assert ratio <= MAX_CPU_RATIO, (ratio, ours_ms, floors_ms)


async def test_a_step_is_no_more_durable_writes_than_it_was(mesh: Rig) -> None:
    per_step, _ = await writes_of_a_step(mesh)
    assert per_step <= WRITES_PER_STEP
