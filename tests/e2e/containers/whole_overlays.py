"""Overlays with three brokers, two Redis and two replicas of each service come up from their manifests alone; they take
minutes, so that only `make compose-test` tries them."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from bulkhead_infra.kubernetes.overlays import PROMOTED
from bulkhead_infra.stages.manifests import overlay
from tests.e2e.containers.field import TAG

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.needs("kubectl")]
READY_S = 480


@pytest.mark.parametrize("name", PROMOTED)
async def test_an_overlay_comes_up_and_ends_in_order(name: str, built: Mapping[str, str], tmp_path: Path) -> None:
    async with overlay.running(name, tmp_path, tag=TAG, ready_s=READY_S) as kubelet:
        assert len(kubelet.of("nats")) == len(kubelet.of("sentinel")) == 3
        assert len(kubelet.of("redis")) == len(kubelet.of("gateway")) == 2
        assert {name: code for name, code in (await kubelet.end()).items() if code} == {}
