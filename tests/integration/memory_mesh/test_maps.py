"""A step is run for each item of a list that an earlier one gave: the whole mesh, with agents and with calls."""

import json
from pathlib import Path

import pytest

from bulkhead_contracts.plan import MapOver
from tests.replay.stage import stage
from tests.unit.services.model_gateway.scripted_provider import says

EACH_KIND = {"kind": "noop", "inputs": ["lines"]}
LINES = ["U1", "U2", "U3"]
LIST = {"id": "lines", "title": "Lines", "instruction": "List the lines.", "acceptance": "They are listed."}


@pytest.mark.slow
async def test_an_agent_sees_one_item_and_the_results_are_one_list_in_order(tmp_path: Path) -> None:
    fares = {
        "id": "fares",
        "title": "Fare",
        "instruction": "Name the fare of this line.",
        "acceptance": "It is named.",
        **EACH_KIND,
        "over": MapOver(of="lines", field="/lines", parallel=2).model_dump(),
    }
    async with stage(tmp_path) as on:
        on.model.will(
            lines=[says(json.dumps({"lines": LINES}))],
            **{f"fares-{index:04}": [says(f"Fare of {line} runs.")] for index, line in enumerate(LINES)},
        )
        async with on.client() as ann:
            task = await ann.submit("Name all fares.", plan={"steps": [LIST, fares]}, check=False)
            document = await task.wait_until_ended(30)
        assert document["status"] == "succeeded", document
        assert json.loads(document["answer"]) == [f"Fare of {line} runs." for line in LINES]
        prompts = {step: json.dumps(body) for role, step, body in on.model.asked if role == "work"}
        for index, line in enumerate(LINES):
            shown = prompts[f"fares-{index:04}"]
            assert line in shown and not any(other in shown for other in LINES if other != line)


@pytest.mark.slow
async def test_each_item_is_a_call_that_the_plan_makes_once(tmp_path: Path) -> None:
    names = [f"line_{number}" for number in range(70)]
    count = {
        "id": "count",
        "title": "Count",
        "instruction": "",
        **EACH_KIND,
        "call": {"tool": "counter_increment", "arguments_json": '{"name": {"$item": "/name"}, "amount": 1}'},
        "over": MapOver(of="lines", parallel=16).model_dump(),
    }
    async with stage(tmp_path) as on:
        on.model.will(lines=[says(json.dumps([{"name": name} for name in names]))])
        async with on.client() as ann:
            task = await ann.submit("Count all lines.", plan={"steps": [LIST, count]}, check=False)
            document = await task.wait_until_ended(60)
        assert document["status"] == "succeeded", document
        assert on.counter.counts() == {"counts": dict.fromkeys(names, 1), "increments": len(names), "repeats": 0}
        assert len(json.loads(document["answer"])) == len(names)
        assert (document["steps_done"], document["steps_total"]) == (2, 2)
