"""Calls that a plan foresees, submitted or drafted, reach the gate in the step's grant, counted: the whole mesh."""

from pathlib import Path

from bulkhead.policy.planned_values import PlannedRules, calculation_digest
from bulkhead.policy.ruling import CallProposal, CallRuling
from bulkhead_contracts.provenance import Flow, PlannedCall, PlannedValue
from tests.replay.stage import call, offline_model, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

FORESEEN = {"tool": "counter_increment", "values": [{"argument": "/name", "text": "kept"}], "times": 2}
EXPECTED = PlannedCall(tool="counter_increment", values=(PlannedValue(argument="/name", text="kept"),), times=2)


async def test_the_gate_knows_what_the_plan_foresees_and_how_often_it_was_done(tmp_path: Path) -> None:
    proposals: list[CallProposal] = []

    def permit_all(proposal: CallProposal) -> CallRuling:
        proposals.append(proposal)
        return CallRuling("permit", "all", "c" * 64)

    step = {"id": "a", "title": "Count", "instruction": "Count kept.", "acceptance": "It is counted."}
    own_plan = {"steps": [{**step, "tools": ["counter_increment"], "calls": [FORESEEN]}]}
    async with stage(tmp_path, rule=permit_all) as on, on.client() as ann:
        on.model.will(
            a=[
                use(call("counter_increment", name="kept", amount=2)),
                use(call("counter_increment", name="kept", amount=3)),
                says("Here is a."),
            ]
        )
        task = await ann.submit("Count kept twice.", plan=own_plan)
        assert (await task.wait_until_ended(30))["status"] == "succeeded"
    assert [(proposal.planned, proposal.planned_before) for proposal in proposals] == [
        ((EXPECTED,), ()),
        ((EXPECTED,), (0,)),
    ]


async def test_of_calls_at_once_each_is_ruled_on_with_those_that_were_let_through_before(tmp_path: Path) -> None:
    ruled: dict[int, tuple[int, ...]] = {}

    def permit_all(proposal: CallProposal) -> CallRuling:
        ruled[proposal.arguments["amount"]] = proposal.planned_before
        return CallRuling("permit", "all", "c" * 64)

    step = {"id": "a", "title": "Count", "instruction": "Count kept.", "acceptance": "It is counted."}
    foreseen = [FORESEEN | {"times": 1}, FORESEEN | {"values": [{"argument": "/amount", "text": "3"}]}]
    own_plan = {"steps": [{**step, "tools": ["counter_increment"], "calls": foreseen}]}
    async with stage(tmp_path, rule=permit_all) as on, on.client() as ann:
        calls = [call("counter_increment", name="kept", amount=amount) for amount in (2, 4, 3)]
        on.model.will(a=[use(*calls), says("Here is a.")])
        task = await ann.submit("Count kept.", plan=own_plan)
        assert (await task.wait_until_ended(30))["status"] == "succeeded"
    assert sorted(map(len, ruled.values())) == [0, 1, 2]
    assert sum(ruled.values(), ()) and set(sum(ruled.values(), ())) <= {0, 1}


async def test_what_a_model_drafts_bounds_its_step_and_lets_its_fields_flow(tmp_path: Path) -> None:
    proposals: list[CallProposal] = []

    def permit_all(proposal: CallProposal) -> CallRuling:
        proposals.append(proposal)
        return CallRuling("permit", "all", "c" * 64)

    names = {"argument": "/amount", "from_tool": "calculate", "field": "/amount"}
    flow = {"tool": "counter_increment", "step_id": "a", **names}
    step = {"id": "a", "tools": ["calculate", "counter_increment"], "calls": [FORESEEN], "flows": [flow]}
    async with stage(tmp_path, rule=permit_all) as on, on.client() as ann:
        on.model.will(
            plan(step),
            a=[
                use(call("calculate", expression="1 + 1")),
                use(call("counter_increment", name="kept", amount=2)),
                says("Here is a."),
            ],
        )
        task = await ann.submit("Count kept by 1 + 1.", tools=["calculate", "counter_increment"])
        assert (await task.wait_until_ended(30))["status"] == "succeeded"
    [counts] = [proposal for proposal in proposals if proposal.tool.name == "counter_increment"]
    assert counts.planned == (EXPECTED,) and counts.flows == (Flow.model_validate(flow),)


async def test_the_offline_model_foresees_what_its_objective_names(tmp_path: Path) -> None:
    proposals: list[CallProposal] = []

    def permit_all(proposal: CallProposal) -> CallRuling:
        proposals.append(proposal)
        return CallRuling("permit", "all", "c" * 64)

    async with offline_model() as url, stage(tmp_path, rule=permit_all, openai_base_url=url) as on, on.client() as ann:
        task = await ann.submit("Use counter_increment with name=kept amount=2.", tools=["counter_increment"])
        await task.wait_until_ended(30)
    assert proposals and all(proposal.flows == () for proposal in proposals)
    values = (PlannedValue(argument="/amount", text="2"), PlannedValue(argument="/name", text="kept"))
    assert proposals[0].planned == (PlannedCall(tool="counter_increment", values=values),)
    assert proposals[0].arguments == {"name": "kept", "amount": 2}


async def test_a_figure_that_the_plan_calculates_is_signed_as_its_outcome(tmp_path: Path) -> None:
    proposals: list[CallProposal] = []

    def permit_all(proposal: CallProposal) -> CallRuling:
        proposals.append(proposal)
        return CallRuling("permit", "all", "c" * 64)

    figure = {"argument": "/amount", "calculate": "3 * 14"}
    step = {"id": "a", "title": "Count", "instruction": "Count kept.", "acceptance": "It is counted."}
    foreseen = [{"tool": "counter_increment", "values": [figure], "times": 2}]
    figures = {"steps": [{**step, "tools": ["counter_increment"], "calls": foreseen}]}
    async with stage(tmp_path, rule=permit_all) as on, on.client() as ann:
        amounts = [use(call("counter_increment", name="kept", amount=amount)) for amount in (42, 43)]
        on.model.will(a=[*amounts, says("Here is a.")])
        task = await ann.submit("Count kept, three times fourteen.", plan=figures)
        assert (await task.wait_until_ended(30))["status"] == "succeeded"
    planned = PlannedCall(tool="counter_increment", values=(PlannedValue.model_validate(figure),), times=2)
    digest = calculation_digest(planned.values[0], PlannedRules("counter_increment", (), (planned,)))
    outcomes = [
        [origin.planned for value in proposal.values or () if value.pointer == "/amount" for origin in value.origins]
        for proposal in proposals
    ]
    assert outcomes == [[digest], []]
