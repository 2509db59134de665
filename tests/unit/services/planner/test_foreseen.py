"""Searches whose queries are embedded before their steps begin: which, how many, and under which grant."""

import json

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.plan import ASK_PERSON, ApprovalQuestion, MapOver, Plan, PlanStep, StepCall, TimedWait
from bulkhead_contracts.retrieval import RetrievalForeseen
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner.core import Planner
from tests.playbook import START_UNIX_MS, Playbook
from tests.unit.services.planner.test_flow_steps import agent, assigned, branch, finishes, gate, plain
from tests.unit.services.planner.test_playbook import CALC, PAY, accepts, rejects, submit

SEARCH = ToolSpec(name="search_documents", description="finds", parameters_json="{}", served_by="rag")
ASK = ToolSpec(name=ASK_PERSON, description="asks", parameters_json="{}", effect="write")


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def search(id: str, *inputs: str, query: object = "harbour fees", **more) -> PlanStep:
    call = StepCall(tool="search_documents", arguments_json=json.dumps({"query": query}))
    return plain(id, *inputs, call=call, **more)


def begin(play: Playbook, *steps: PlanStep, most: int = 4) -> list[str]:
    """The steps that are asked ahead for as the plan begins."""
    submit(play, plan=Plan(steps=steps), tools=(SEARCH, CALC, PAY, ASK), retrievals_ahead=most)
    return foreseen(play)


def foreseen(play: Playbook) -> list[str]:
    return [body.request.step_id for body in play.outputs_of(RetrievalForeseen)]


def test_the_query_of_the_next_step_is_asked_under_a_grant_that_can_search_nothing(play):
    assert begin(play, agent("a"), search("b", "a"), agent("z", "b")) == ["b"]
    request, send = play.only_output(RetrievalForeseen).request, play.send_of(RetrievalForeseen)
    assert (request.query, request.attempt, request.asked_ahead) == ("harbour fees", 0, True)
    assert send.to == "worker" and send.grant == "task-token"
    grant = send.step_grant
    assert (grant.step_id, grant.attempt, grant.tools) == ("b", 0, ("search_documents",))
    assert grant.expires_unix_ms < START_UNIX_MS + 10 * 60_000 and not grant.flows and not grant.calls
    accepts(play, "a")
    assert play.only_output(StepAssigned).attempt == 1 and foreseen(play) == []
    play.replays()


def test_nothing_is_asked_ahead_unless_the_tenant_wants_it(play):
    assert begin(play, agent("a"), search("b", "a"), most=0) == []


def test_it_is_asked_once_however_often_the_step_before_it_is_tried(play):
    assert begin(play, agent("a"), search("b", "a")) == ["b"]
    rejects(play, "a")
    assert play.only_output(StepAssigned).attempt == 2 and foreseen(play) == []


def test_a_task_has_so_many_and_no_more(play):
    rows = [search(f"b{number}", "a", query=f"query {number}") for number in range(6)]
    steps = (agent("a"), agent("c", "a"), search("late", "c"), *rows, agent("z", "late", *(row.id for row in rows)))
    assert begin(play, *steps, most=2) == ["b0", "b1"]
    accepts(play, "a")
    assert foreseen(play) == []


@pytest.mark.parametrize("between", [gate("a"), branch("gate", "a", ("b",))])
def test_gates_and_branches_take_no_time(play, between):
    assert begin(play, agent("a"), between, search("b", "gate"), agent("z", "a", "b")) == ["b"]


def test_a_step_waits_for_all_of_its_inputs(play):
    steps = (agent("a"), agent("c", "a"), search("b", "a", "c"), agent("z", "b"))
    assert begin(play, *steps) == []
    accepts(play, "a")
    assert foreseen(play) == ["b"], "what it still waits for runs now"


@pytest.mark.parametrize(
    "between",
    [
        plain("x", "a", question=ApprovalQuestion(text="Search?")),
        plain("x", "a", wait=TimedWait(duration_ms=9_000)),
        gate("a", on_fail="person").model_copy(update={"id": "x"}),
    ],
)
def test_nothing_is_foreseen_beyond_a_persons_word_or_a_wait(play, between):
    assert begin(play, agent("a"), between, search("b", "x"), agent("z", "b")) == []
    accepts(play, "a")
    assert foreseen(play) == []


@pytest.mark.parametrize(
    "step",
    [
        search("b", "a", query={"$from": "a"}),
        search("b", "a", query=["fees"]),
        search("b", "a", query=""),
        search("b", "a", query="x" * (bounds.MAX_QUERY_CHARS + 1)),
        plain("b", "a", call=StepCall(tool="calculate", arguments_json='{"query": "1 + 1"}')),
        search("b", "a", query={"$item": ""}, over=MapOver(of="a")),
    ],
)
def test_what_is_no_search_for_a_known_query_is_not_foreseen(play, step):
    assert begin(play, agent("a"), step, agent("z", "b")) == []


def test_a_plan_of_gates_alone_is_not_looked_through(play):
    names = [f"g{number}" for number in range(6)]
    gates = [
        branch(name, "a", (target,)).model_copy(update={"inputs": tuple(dict.fromkeys(("a", before)))})
        for before, name, target in zip(["a", *names], names, [*names[1:], "b"], strict=False)
    ]
    assert begin(play, agent("a"), *gates, search("b", "g5"), agent("z", "a", "b")) == []
    accepts(play, "a")
    assert assigned(play) == ["g0"] and foreseen(play) == []
    finishes(play, "g0", chosen=("g1",))
    assert assigned(play) == ["g1"] and foreseen(play) == []
    finishes(play, "g1", chosen=("g2",))
    assert foreseen(play) == ["b"]
