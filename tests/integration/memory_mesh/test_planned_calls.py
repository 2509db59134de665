"""Calls that a submitted plan foresees reach the gate in the step's grant, counted: the whole mesh."""

from pathlib import Path

from bulkhead.policy.ruling import CallProposal, CallRuling
from bulkhead_contracts.provenance import PlannedCall, PlannedValue
from tests.replay.stage import call, stage, use
from tests.unit.services.model_gateway.scripted_provider import says


async def test_the_gate_knows_what_the_plan_foresees_and_how_often_it_was_done(tmp_path: Path) -> None:
    proposals: list[CallProposal] = []

    def permit_all(proposal: CallProposal) -> CallRuling:
        proposals.append(proposal)
        return CallRuling("permit", "all", "c" * 64)

    foreseen = {"tool": "counter_increment", "values": [{"argument": "/name", "text": "kept"}], "times": 2}
    step = {"id": "a", "title": "Count", "instruction": "Count kept.", "acceptance": "It is counted."}
    plan = {"steps": [{**step, "tools": ["counter_increment"], "calls": [foreseen]}]}
    async with stage(tmp_path, rule=permit_all) as on, on.client() as ann:
        on.model.will(
            a=[
                use(call("counter_increment", name="kept", amount=2)),
                use(call("counter_increment", name="kept", amount=3)),
                says("Here is a."),
            ]
        )
        task = await ann.submit("Count kept twice.", plan=plan)
        assert (await task.result(30))["status"] == "succeeded"
    expected = PlannedCall(tool="counter_increment", values=(PlannedValue(argument="/name", text="kept"),), times=2)
    assert [(proposal.planned, proposal.planned_before) for proposal in proposals] == [
        ((expected,), 0),
        ((expected,), 1),
    ]
