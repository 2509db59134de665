"""The demo over 20 generated cases on one running mesh: right, cited, replayed byte for byte; and as a command."""

import asyncio
import os
import sys

import pytest

from bulkhead_infra.demo.corpus import generate_demo
from tests.e2e.fixtures.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_demo_command_ends_with_0_and_leaves_nothing_running(tmp_path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bulkhead_cli.main",
        "demo",
        "--seed",
        "7",
        "--data",
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await asyncio.wait_for(process.communicate(), 90))[0].decode()
    assert process.returncode == 0, said
    expected = generate_demo(7).expected
    assert f"right: {expected.currency} {expected.amount}" in said and "Timeline" in said, said
    assert '"processes": {}' in (tmp_path / "mesh.json").read_text()


@pytest.mark.nightly
async def test_the_demo_command_ends_with_1_when_no_right_answer_comes(world: World, tmp_path) -> None:
    """Through the whole command: this world's offline model is its provider, and misbehaves for this case."""
    demo = generate_demo(8)
    await world.arm("invented_tool", demo.airline, times=500)
    environ = {
        **os.environ,
        "OPENAI_BASE_URL": world.mesh.model_url,
        "OPENAI_API_KEY": "any",
        "BULKHEAD_MODEL": "offline-rules-1",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bulkhead_cli.main",
        "demo",
        "--seed",
        "8",
        env=environ,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await asyncio.wait_for(process.communicate(), 90))[0].decode()
    await world.disarm()
    assert process.returncode == 1, said
    assert "the answer is not the expected one" in said and f"{demo.expected.amount}" in said, said
