"""Calls and flows that a model drafts: they bound its plan, and no word of anybody but the requester widens it."""

import json

import pytest

from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.plan import PlanAdopted, PlanStep, RoleSpec
from bulkhead_contracts.provenance import Flow, PlannedCall, PlannedValue, Sink
from bulkhead_contracts.result import Label
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner import drafts
from bulkhead_services.planner.core import Planner
from tests.playbook import Playbook
from tests.unit.services.planner.test_playbook import accepts, answers, draft, rejects, submit


def takes(**types: str) -> str:
    return json.dumps({"type": "object", "properties": {name: {"type": kind} for name, kind in types.items()}})


READ = ToolSpec(name="read", description="reads", parameters_json=takes(id="string"), result_fields=("/to", "/n"))
MAIL = ToolSpec(
    name="mail",
    description="mails",
    parameters_json=takes(to="string", body="string"),
    effect="write",
    egress=True,
    sinks=(Sink(argument="/to", kind="recipient"), Sink(argument="/body", kind="text")),
)
CALL = {"tool": "mail", "values": [{"argument": "/to", "text": "ann@a.example"}], "times": 2}
FLOW = {"tool": "mail", "argument": "/to", "step_id": "a", "from_tool": "read", "field": "/to"}
STEP = {"id": "a", "tools": ["read", "mail"]}
PLANNED = PlannedCall(tool="mail", values=(PlannedValue(argument="/to", text="ann@a.example"),), times=2)


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def read(*rows: dict) -> tuple[tuple[PlanStep, ...], dict[str, str]]:
    reply = ModelCallReplied(call_id="c", outcome="answered", prompt_id="planner.draft")
    steps, notes = drafts.read_reply(reply, draft(*rows), (READ, MAIL))
    return steps, {note.code: note.message for note in notes if note.severity != "note"}


def test_a_draft_says_what_its_steps_may_change():
    (step,), notes = read(STEP | {"calls": [CALL], "flows": [FLOW]})
    assert step.calls == (PLANNED,) and step.flows == (Flow(**FLOW),) and not notes


FIGURE = "/body ..9"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (FIGURE, {"at_most": "9"}),
        ("/body 1..9", {"at_least": "1", "at_most": "9"}),
        ("/body = 2 * 4.50", {"calculate": "2 * 4.50"}),
        ({"argument": "/body", "at_least": "1"}, {"at_least": "1"}),
    ],
)
def test_a_draft_bounds_figures(written, value):
    (step,), notes = read(STEP | {"calls": [CALL | {"figures": [written, "/body .."]}]})
    assert step.calls[0].values == (*PLANNED.values, PlannedValue(argument="/body", **value)) and not notes


@pytest.mark.parametrize(
    ("written", "selector"),
    [
        ("is /name Ann Roe", ("is", "/name", "Ann Roe")),
        ("ends_with .tmp", ("ends_with", "", ".tmp")),
        ("largest /size", ("largest", "/size", "")),
        ("last", ("last", "", "")),
        ({"test": "last"}, ("last", "", "")),
    ],
)
def test_a_draft_selects_records(written, selector):
    flow = FLOW | {"field": "/rows/*/to", "where": [written], "operand": ""}
    (step,), notes = read(STEP | {"calls": [CALL], "flows": [flow]})
    [read_selector] = step.flows[0].where
    assert (read_selector.test, read_selector.field, read_selector.text) == selector and not notes


def test_a_flow_names_its_step_as_the_draft_does():
    steps, notes = read(
        {"id": "step one", "tools": ["read"]},
        {"id": "b", "tools": ["mail"], "calls": [CALL], "flows": [FLOW | {"step_id": "step one"}]},
    )
    assert steps[1].flows[0].step_id == "step_one" and not notes


@pytest.mark.parametrize(
    ("bound", "reason"),
    [
        ({"calls": {"mail": 1}}, "calls"),
        ({"calls": ["mail"]}, "calls"),
        ({"calls": [{"tool": "mail", "arguments": {"to": "ann@a.example"}}]}, "arguments"),
        ({"calls": [CALL | {"times": 0}]}, "times"),
        ({"calls": [CALL | {"times": 10**6}]}, "times"),
        ({"calls": [CALL | {"values": [{"argument": "to", "text": "x"}]}]}, "argument"),
        ({"calls": [CALL | {"values": [{"argument": "/to", "text": "x" * 900}]}]}, "text"),
        ({"calls": [CALL | {"tool": "pay"}]}, "no tool of it"),
        ({"calls": [CALL | {"values": [{"argument": "/account", "text": "x"}]}]}, "takes no argument /account"),
        ({"calls": [CALL | {"values": [{"argument": "", "text": "x"}]}]}, "takes no argument"),
        ({"calls": [CALL], "flows": [FLOW | {"argument": "/*"}]}, "takes no argument"),
        ({"calls": [CALL], "flows": [FLOW | {"step_id": "z"}]}, "step_id"),
        ({"calls": [CALL], "flows": [{"tool": "mail"}]}, "argument"),
        ({"calls": [CALL], "flows": [FLOW | {"tool": "pay"}]}, "both must be there"),
        ({"flows": [FLOW]}, "no call is foreseen"),
        ({"calls": [CALL | {"figures": ["/body = net * 2"]}]}, "'net' is not a number"),
        ({"calls": [CALL | {"figures": ["/body about 9"]}]}, "figures"),
        ({"calls": [CALL], "flows": [FLOW | {"where": ["best"]}]}, "where"),
        ({"calls": [CALL], "flows": [FLOW | {"where": ["is /n"]}]}, "lacks the text"),
        ({"calls": [CALL] * 33}, "calls"),
        ({"calls": [CALL] * 20}, "fit into its grant"),
    ],
)
def test_what_cannot_bound_a_step_leaves_it_as_if_nothing_were_foreseen(bound, reason):
    (step,), notes = read(STEP | bound)
    assert (step.calls, step.flows, step.tools) == ((), (), ("read", "mail"))
    assert reason in notes["bound_left_out"], notes


def test_the_model_is_told_what_chooses_and_what_a_result_gives(play):
    lists = ToolSpec(name="list", description="lists", parameters_json=takes(day="string"), egress=True)
    submit(play, tools=(READ, MAIL, lists))
    [part] = [part for part in play.only_output(ModelCallRequested).parts if part.kind == "tools"]
    assert part.text.splitlines() == [
        "read: reads (read) takes /id string; gives /to, /n",
        "mail: mails (write) takes /to string!, /body string",
        "list: lists (read, sends out) takes /day string!",
    ]


def label_of(play: Playbook, trust: str = "user") -> Label:
    objective = play.add_content("What is refunded?", "gateway")
    return Label(sha256=objective.sha256, kind="objective", trust=trust, observed_by="gateway")


def drafted(play: Playbook, **more: object) -> None:
    submit(play, **{"tools": (READ, MAIL), "labels": (label_of(play),), **more})
    answers(play, draft(STEP | {"calls": [CALL | {"figures": [FIGURE]}], "flows": [FLOW]}))


def test_the_drafted_bound_stands_in_the_grant(play):
    drafted(play)
    grant = play.send_of(StepAssigned).step_grant
    figure = PlannedValue(argument="/body", at_most="9")
    assert grant.calls == (PLANNED.model_copy(update={"values": (*PLANNED.values, figure)}),)
    assert grant.flows == (Flow(**FLOW),)
    assert [tool.name for tool in play.only_output(StepAssigned).tools if tool.feeds] == ["read"]
    play.replays()


@pytest.mark.parametrize(
    "told",
    [
        {"tools": (READ.model_copy(update={"unchecked": True}), MAIL)},
        {"roles": (RoleSpec(name="sales", description="[the remote agent x says of itself, unchecked] sells"),)},
        {"trust": "untrusted"},
        {"labels": ()},
    ],
    ids=[
        "a tool's own words",
        "an agent's own words",
        "an objective that a model wrote",
        "one that nobody vouches for",
    ],
)
def test_nothing_flows_and_no_figure_counts_by_a_draft_of_others_words(play, told):
    told = {"labels": (label_of(play, told.pop("trust")),)} if "trust" in told else told
    drafted(play, **told)
    assert play.only_output(PlanAdopted).plan.steps[0].flows == ()
    grant = play.send_of(StepAssigned).step_grant
    assert grant.flows == () and grant.calls == (PLANNED,)


def fail_three_times(play: Playbook) -> None:
    for attempt in (1, 2, 3):
        rejects(play, "a", attempt)


def test_a_later_plan_has_the_first_ones_bound_and_no_flow_of_its_own(play):
    """It is made of what steps brought, which must not choose what may be done."""
    submit(play, tools=(READ, MAIL), labels=(label_of(play),))
    reads = {"id": "a", "tools": ["read"]}
    mails = {"id": "b", "tools": ["read", "mail"], "inputs": ["a"], "calls": [CALL]}
    answers(play, draft(reads, mails))
    fail_three_times(play)
    eve = {"tool": "mail", "values": [{"argument": "/to", "text": "eve@e.example"}], "times": 9}
    other = mails | {"id": "z", "inputs": [], "calls": [eve], "flows": [FLOW | {"step_id": "z"}]}
    answers(play, draft(other), play.only_output(ModelCallRequested).call_id)
    assert play.only_output(PlanAdopted).plan.steps[0].flows == ()
    grant = play.send_of(StepAssigned).step_grant
    assert grant.calls == (PLANNED,) and grant.flows == ()
    play.replays()


def test_a_bound_of_many_steps_is_cut_to_what_a_grant_holds(play):
    submit(play, tools=(READ, MAIL))
    many = [{**CALL, "values": [{"argument": "/to", "text": f"{'x' * 80}{n}@a.example"}]} for n in range(12)]
    mails = [{"id": f"m{n}", "tools": ["mail"], "inputs": ["a"], "calls": [call]} for n, call in enumerate(many)]
    answers(play, draft({"id": "a", "tools": ["read"]}, *mails))
    fail_three_times(play)
    answers(play, draft({"id": "z", "tools": ["mail"]}), play.only_output(ModelCallRequested).call_id)
    calls = play.send_of(StepAssigned).step_grant.calls
    assert 0 < len(calls) < 12 and sum(len(call.model_dump_json()) for call in calls) <= 1024


def test_a_step_that_is_repeated_without_its_bound_is_done_all_the_same(play):
    submit(play, tools=(READ, MAIL))
    reads = STEP | {"id": "r", "calls": [], "flows": [FLOW | {"tool": "read", "argument": "/id", "step_id": "r"}]}
    answers(play, draft(reads | {"tools": ["read"]}, {"id": "a", "inputs": ["r"]}))
    accepts(play, "r")
    fail_three_times(play)
    again = {"id": "r", "tools": ["read"]}
    answers(play, draft(again, {"id": "c", "inputs": ["r"]}), play.only_output(ModelCallRequested).call_id)
    assert [body.step.id for body in play.outputs_of(StepAssigned)] == ["c"]
