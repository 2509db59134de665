"""The type check of plans: each finding names its step and field."""

import json

import pytest

from bulkhead.plans.plans import check_plan
from bulkhead_contracts.plan import (
    ASK_PERSON,
    ApprovalQuestion,
    Branch,
    BranchCase,
    GateJudge,
    MapOver,
    PlanStep,
    PropertyCheck,
    QualityGate,
    StepCall,
    TimedWait,
)
from bulkhead_contracts.tool import ToolSpec

HOUR_MS = 3_600_000
LOOKUP = ToolSpec(
    name="lookup",
    description="finds a customer",
    parameters_json=json.dumps(
        {
            "type": "object",
            "properties": {"id": {"type": "string"}, "limit": {"type": "integer"}},
            "required": ["id"],
            "additionalProperties": False,
        }
    ),
    output_json=json.dumps(
        {
            "type": "object",
            "properties": {
                "mail": {"type": "string"},
                "age": {"type": "integer"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
        }
    ),
)
PAY = ToolSpec(name="pay", description="pays", parameters_json="{}", effect="write")
ASK = ToolSpec(name=ASK_PERSON, description="asks", parameters_json="{}", effect="write")


def agent(id: str, *inputs: str, **more) -> PlanStep:
    return PlanStep(id=id, title="", instruction="do it", acceptance="done", inputs=inputs, **more)


def plain(id: str, *inputs: str, **action) -> PlanStep:
    return PlanStep(id=id, title="", instruction="", kind="noop", inputs=inputs, **action)


def lookup(step_id: str, /, *inputs: str, tool: str = "lookup", **arguments) -> PlanStep:
    return plain(step_id, *inputs, tools=(tool,), call=StepCall(tool=tool, arguments_json=json.dumps(arguments)))


def branch(id: str, of: str, *steps: str, field: str = "", test: str = "is", text: str = "x", inputs=None) -> PlanStep:
    cases = (BranchCase(test=test, text=text, steps=steps),)
    return plain(id, *(inputs if inputs is not None else (of,)), branch=Branch(of=of, field=field, cases=cases))


def gate(of: str, *inputs: str, **changes) -> PlanStep:
    checks = (PropertyCheck(test="cites"),)
    return plain("gate", *inputs, gate=QualityGate(of=of, checks=checks, **changes))


def errors(*steps: PlanStep, tools=(LOOKUP, PAY), **more) -> dict[str, str]:
    notes = check_plan(steps, tools, **more)
    return {note.code: note.message for note in notes if note.severity == "error"}


def judged(step: str = "j", inputs: tuple[str, ...] = ("a", "j")) -> PlanStep:
    return plain("gate", *inputs, gate=QualityGate(of="a", on_fail="retry", judge=GateJudge(question="?", step=step)))


A = agent("a")
J = agent("j", "a", role="gate_judge")
FOUND = lookup("c", id="7")


def test_a_plan_of_every_kind_passes():
    steps = (
        FOUND,
        branch("b", "c", "d", field="/mail"),
        agent("d", "b"),
        gate("d", "d", on_fail="retry"),
        plain("w", "gate", wait=TimedWait(duration_ms=HOUR_MS)),
        lookup("e", "w", "c", id={"$from": "c", "field": "/tags/0"}, limit={"$from": "c", "field": "/age"}),
    )
    assert errors(*steps, began_unix_ms=1, deadline_unix_ms=2 * HOUR_MS) == {}
    assert errors(A, J, judged(), agent("end", "gate")) == {}


@pytest.mark.parametrize(
    ("steps", "code", "words"),
    [
        ((A, branch("b", "a", "z")), "unknown_target", "step b, branch: z is no step"),
        ((A, branch("b", "a", "d"), agent("d", "a")), "unbranched_target", "add b to its inputs"),
        (
            (A, branch("b", "a", "d"), branch("e", "a", "d"), agent("d", "b", "e")),
            "shared_target",
            "d is begun by b, too",
        ),
        ((A, branch("b", "a", inputs=())), "unread_input", "step b, branch.of: a is none of its inputs"),
        ((branch("b", "z", inputs=()),), "unknown_input", "step b, branch.of: z is no step"),
        ((A, branch("b", "a", test="at_least", text="lots")), "bad_case", "step b, branch.cases[0].text"),
        ((FOUND, branch("b", "c", field="/phone")), "unknown_field", "step b, branch.of: the result of c"),
        ((FOUND, branch("b", "c"), branch("d", "b", field="/phone")), "unknown_field", "no field /phone"),
        ((A, gate("a", "a", json_schema="{")), "bad_gate", "step gate, gate.json_schema"),
        ((A, gate("a", "a", on_fail="retry"), agent("d", "a")), "bypassed_gate", "d would build on a"),
        ((A, judged("", ("a",))), "bad_gate", "step gate, gate.judge.step: name the step that judges"),
        ((A, judged("a", ("a",))), "bad_gate", "of the role gate_judge"),
        ((A, agent("j", role="gate_judge"), judged()), "bad_gate", "with a among its inputs"),
        ((A, J, judged(inputs=("a",))), "unread_input", "step gate, gate.judge.step: j is none of its inputs"),
        ((A, J, judged(), agent("end", "gate", "j")), "bad_judge", "step j has the role gate_judge"),
        ((A, J, gate("a", "a", "j")), "bad_judge", "the one gate that names it alone builds on it"),
        ((A, agent("j", "a", role="gate_judge", tools=("pay",)), judged()), "bad_judge", "it has no tools"),
        ((A, J), "bad_judge", "step j has the role gate_judge"),
        ((FOUND.model_copy(update={"id": "n", "kind": "agent"}),), "mixed_step", "kind must be noop"),
        (
            (PlanStep(id="n", title="", instruction="say", kind="noop"), gate("n", "n", on_fail="retry")),
            "bad_gate",
            "gate.on_fail",
        ),
        ((lookup("p", tool="pay"), gate("p", "p", on_fail="retry")), "bad_gate", "gate.on_fail"),
        ((plain("w", wait=TimedWait()),), "bad_wait", "step w, wait"),
        ((plain("w", wait=TimedWait(duration_ms=1, until_unix_ms=1)),), "bad_wait", "step w, wait"),
        ((plain("w", wait=TimedWait(duration_ms=1), tools=("pay",)),), "unused_field", "leave tools out"),
        ((plain("w", wait=TimedWait(duration_ms=1), call=StepCall(tool="pay")),), "mixed_step", "call and wait"),
        ((lookup("c", id=7),), "bad_arguments", "step c, call.arguments_json: /id"),
        ((lookup("c"),), "bad_arguments", "step c, call.arguments_json: they"),
        ((lookup("c", id="7", mail="x"),), "bad_arguments", "mail"),
        ((lookup("c", id={"$item": ""}),), "bad_arguments", "$item stands outside of a map"),
        ((FOUND, lookup("d", "c", id={"$from": "c", "field": "/phone"})), "unknown_field", "arguments_json at /id"),
        ((FOUND, lookup("d", "c", id={"$from": "c", "field": "/age"})), "unfit_field", "is of type integer"),
        ((FOUND, lookup("d", id={"$from": "c", "field": "/mail"})), "unread_input", "c is none of its inputs"),
        ((lookup("c", tool="steal"),), "tool_not_granted", "steal"),
        ((agent("a", "a"),), "cycle", "a -> a"),
        ((lookup("c", tool=ASK_PERSON, question="Well?"),), "asks_by_call", "step c, call.tool"),
    ],
)
def test_each_error_names_its_step_and_field(steps, code, words):
    assert words in errors(*steps)[code]


def test_the_field_of_a_maps_items_has_so_many_characters():
    field, tags = "/" + "x" * 120, agent("tags")
    calls = lookup("m", "tags", id={"$item": field}).model_copy(update={"over": MapOver(of="tags", field=field)})
    assert "over.field and $item at /id" in errors(tags, calls)["bad_arguments"]


def test_waits_one_after_the_other_fit_into_the_deadline():
    waits = (plain("v", wait=TimedWait(duration_ms=HOUR_MS)), plain("w", "v", wait=TimedWait(duration_ms=HOUR_MS)))
    beside = plain("x", wait=TimedWait(until_unix_ms=HOUR_MS))
    assert errors(*waits, beside, began_unix_ms=1, deadline_unix_ms=3 * HOUR_MS) == {}
    found = errors(*waits, beside, began_unix_ms=1, deadline_unix_ms=2 * HOUR_MS)
    assert "step w waits too long: 7200000 ms" in found["wait_beyond_deadline"]


def test_what_tools_say_is_not_checked_where_they_are_not_known():
    assert errors(lookup("c", tool="steal", id=7), tools=None) == {}


def test_a_question_is_for_roles_that_may_approve():
    asks = plain("ask", question=ApprovalQuestion(text="Well?", roles=("operator", "finance")))
    assert "question.roles: finance may not approve" in errors(asks, tools=(ASK,))["unknown_role"]
    roles = ApprovalQuestion(text="Well?", roles=("operator",))
    assert errors(plain("ask", question=roles), tools=(ASK,)) == {}
