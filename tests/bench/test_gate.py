"""The regression gate: what a step costs as a multiple of bare JetStream's publish and ack, both measured here and now.

Never an absolute time: a slow or busy machine slows both. Rounds alternate, and the median of the rounds' ratios is
held against a bound, so that a bad second spoils one round and not the result.
"""

import statistics
from pathlib import Path

import pytest

from tests.bench import accounting
from tests.bench.floor import Floor, floor
from tests.bench.rig import Rig, rig
from tests.bench.stepping import UNTIL_WARM, gaps_ms, stored_messages

ROUNDS = 7
PUBLISHES = 200
IN_FLIGHT, LENGTH = 50, 8
FLOOR_LENGTH = 40

MAX_LATENCY_RATIO = 0.0
MAX_CPU_RATIO = 0.0
MAX_WRITES_PER_STEP = 4


async def _floor_round(bare: Floor) -> tuple[float, float]:
    found = await bare.measure(single=PUBLISHES, loads=(IN_FLIGHT,), length=FLOOR_LENGTH)
    return found["step_p50_ms"], found[f"cpu_per_step_ms_{IN_FLIGHT}"]


async def _mesh_round(mesh: Rig) -> tuple[float, float]:
    latency_ms = statistics.median(await gaps_ms(mesh, 2))
    before = accounting.cpu_s(mesh.pids())
    await mesh.run_many(IN_FLIGHT, LENGTH)
    return latency_ms, (accounting.cpu_s(mesh.pids()) - before) / (IN_FLIGHT * LENGTH) * 1000
