"""Three agents that only talk, in a ring, on real processes: they are told, then stopped, and everybody reads why."""

from pathlib import Path
from typing import Any

import pytest

from bulkhead_contracts.agent import AgentWarned
from bulkhead_contracts.budget import Tripped
from tests.e2e.fixtures.world import TOOLS, World, until, write_tenants
from tests.e2e.test_watcher import why

RING = (("ada", "bob", " Begin."), ("bob", "cyd", " Begin."), ("cyd", "ada", ""))
TALK = ["ask_steps", "answer_step"]


def talkers() -> dict[str, Any]:
    """A plan of three steps that ask each other, and of nothing that one could get done with."""
    return {"steps": [
        {"id": name, "title": f"Talk as {name}", "instruction": f"You are {name}. Talk with {other}.{begins}",
         "tools": TALK, "inputs": [], "acceptance": "All points are settled."}
        for name, other, begins in RING
    ]}  # fmt: skip


@pytest.mark.slow
async def test_a_triangle_that_only_talks_is_warned_then_stopped_and_told_why(tmp_path: Path) -> None:
    world = World(tmp_path)
    write_tenants(tmp_path / "tenants.yaml", demo={"tools": [*TOOLS, *TALK]})
    async with world:
        await world.arm("chatter", pattern=r"You are \w+\. Talk with", times=1_000)
        task = await world.submit("demo", "Settle all points.", plan=talkers(), check=False)
        document = await world.finish(task)
        assert (document["status"], document["failure"]["code"]) == ("halted", "chatter_stopped"), document
        bodies = [one.body for one in await world.history(task)]
        trips = [one for one in bodies if isinstance(one, Tripped) and one.detector == "chatter.group"]
        assert [one.level for one in trips] == ["warn", "stop"] and trips[1].halted and not trips[0].halted
        assert {one.partition("/")[0] for one in trips[1].agents} == {"ada", "bob", "cyd"}
        warned = {one.step_id for one in bodies if isinstance(one, AgentWarned) and one.trip == trips[0].trip}
        assert warned == {"ada", "bob", "cyd"}, "first they are told"
        reasons = await why(world, task.id)
        stop = next(one for one in reasons if one["kind"] == "tripped" and one["level"] == "stop")
        assert "messages between" in str(stop["what"]) and stop["todo"] and len(stop["evidence"]) > 20

        async def whole() -> dict[str, Any]:
            shown = await task.show()
            return shown if shown["charged"] else {}

        # The calls that were cut have settled: what it cost is no longer "at least".
        shown = await until(whole, "the whole cost is told")
        assert not shown["spent_more"] and shown["charged"]["model_calls"] >= len(RING)
