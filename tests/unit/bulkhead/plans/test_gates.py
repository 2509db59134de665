"""Gates and branches, evaluated on texts that a model or a tool wrote."""

import json

import pytest

from bulkhead.plans.gates import choose_steps, expand_judges, find_gate_problem, list_gate_reasons, list_judge_reasons
from bulkhead_contracts.plan import Branch, BranchCase, GateJudge, PlanStep, PropertyCheck, QualityGate
from bulkhead_contracts.result import Failure

SCHEMA = '{"type": "object", "required": ["fee"], "properties": {"fee": {"type": "number", "maximum": 50}}}'


def gate(*checks: tuple[str, str], schema: str = "") -> QualityGate:
    rows = tuple(PropertyCheck(test=test, text=text) for test, text in checks)
    return QualityGate(of="a", json_schema=schema, checks=rows)


@pytest.mark.parametrize(
    ("checks", "passing", "failing"),
    [
        (("contains", "Refund"), "a  refund", "a fee"),
        (("lacks", "refund"), "a fee", "a refund"),
        (("matches", "INV-[0-9]{3}"), "see INV-123", "see INV-12"),
        (("min_words", "2"), "two words", "one"),
        (("max_words", "1"), "one", "two words"),
        (("equals_number", "40.5"), "It is 40,50 EUR", "It is 45 EUR"),
    ],
)
def test_each_property_passes_and_fails(checks, passing, failing):
    assert list_gate_reasons(gate(checks), passing, is_citing=False) == ()
    [reason] = list_gate_reasons(gate(checks), failing, is_citing=False)
    assert checks[1] in reason


def test_a_result_cites_or_does_not():
    assert list_gate_reasons(gate(("cites", "")), "x", is_citing=True) == ()
    assert list_gate_reasons(gate(("cites", "")), "x", is_citing=False) == ("it cites no source",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"fee": 40}', ""),
        ('```json\n{"fee": 40}\n``` [#82c53ac14b68]', ""),
        ('{"fee": 60}', "/fee does not fit the schema"),
        ("{}", "it does not fit"),
        ("forty", "no JSON"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_result_fits_a_schema_or_the_reason_names_the_place(text, reason):
    reasons = list_gate_reasons(gate(schema=SCHEMA), text, is_citing=False)
    assert bool(reasons) == bool(reason) and reason in " ".join(reasons)


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        (gate(), "neither"),
        (gate(schema="{"), "json_schema"),
        (gate(schema='{"type": "nope"}'), "json_schema"),
        (gate(schema='{"allOf": [{"$ref": "#"}, {"$ref": "#"}]}'), "holds $ref"),
        (gate(schema=json.dumps('{"$ref": "#"}')), "no JSON object"),
        (gate(schema='{"$ref": "http://127.0.0.1/x"}'), "holds $ref"),
        (gate(("matches", "(?=a)")), "checks[0] (matches)"),
        (gate(("cites", ""), ("min_words", "few")), "checks[1] (min_words)"),
        (gate(("equals_number", "inf")), "checks[0] (equals_number)"),
        (gate(("contains", "")), "checks[0] (contains)"),
    ],
)
def test_a_gate_that_could_never_be_evaluated_is_told_with_its_field(broken, place):
    assert place in find_gate_problem(broken)


def test_patterns_of_schemas_take_linear_time():
    slow = gate(schema='{"type": "string", "pattern": "^(a+)+$"}')
    assert list_gate_reasons(slow, json.dumps("a" * 50_000 + "b"), is_citing=False)


ROUTE = Branch(
    of="a",
    field="/kind",
    cases=(BranchCase(test="is", text="Refund", steps=("r",)), BranchCase(test="at_least", text="100", steps=("b",))),
    otherwise=("o",),
)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [('{"kind": "refund"}', "r"), ('{"kind": 250.5}', "b"), ('{"kind": "99"}', "o"), ('{"kind": null}', "o")],
)
def test_a_branch_begins_the_first_case_that_passes(text, chosen):
    assert choose_steps(ROUTE, text) == (chosen,)


@pytest.mark.parametrize("text", ["refund", "{}", '{"kind": {"is": "refund"}}'])
def test_a_branch_without_its_value_chooses_nothing(text):
    failure = choose_steps(ROUTE, text)
    assert isinstance(failure, Failure) and failure.code == "no_such_field"


def test_a_branch_without_a_field_looks_at_the_text():
    of_text = Branch(of="a", cases=(BranchCase(test="contains", text="refund", steps=("r",)),))
    assert choose_steps(of_text, "Category: Refund.") == ("r",)
    assert choose_steps(of_text, "Category: fee") == ()


@pytest.mark.parametrize(
    ("verdict", "threshold", "reasons"),
    [
        ('{"verdict": "pass", "score": 0.5, "reasons": ["ok"]}', 0.5, ()),
        ('```json\n{"verdict": "pass", "reasons": []}\n```', 0, ()),
        (
            '{"verdict": "fail", "score": 1, "reasons": ["no  date", "no name"]}',
            0,
            ("the judge: no date", "the judge: no name"),
        ),
        ('{"verdict": "fail", "reasons": []}', 0, ("the judge gives no reason",)),
        (r'{"verdict": "fail", "reasons": ["half \ud800"]}', 0, (r"the judge: half \ud800",)),
        (
            '{"verdict": "pass", "score": 0.4, "reasons": ["thin"]}',
            0.5,
            ("the judge gives it 0.4, and 0.5 is wanted", "the judge: thin"),
        ),
        ('{"verdict": "pass", "reasons": []}', 0.5, ("the judge gives it 0, and 0.5 is wanted",)),
    ],
)
def test_a_judge_passes_a_result_or_says_why_not(verdict, threshold, reasons):
    assert list_judge_reasons(GateJudge(question="right?", threshold=threshold), verdict) == reasons


@pytest.mark.parametrize(
    "verdict",
    [
        "It passes.",
        '{"verdict": "PASS", "reasons": []}',
        '{"verdict": "pass"}',
        '{"verdict": "pass", "score": 2, "reasons": []}',
        '{"verdict": "pass", "reasons": []} {"verdict": "fail", "reasons": []}',
        '{"verdict": "fail", "verdict": "pass", "reasons": []}',
        "[" * 10_000,
    ],
)
def test_what_is_no_verdict_lets_nothing_pass(verdict):
    [reason] = list_judge_reasons(GateJudge(question="right?"), verdict)
    assert reason.startswith("the judge gave no verdict") and len(reason) < 200


def test_a_gate_with_a_judge_gets_the_step_that_judges_and_has_no_checks_beside_it():
    judge = GateJudge(question="Is it right?")
    looking = PlanStep(
        id="sound", title="", instruction="", kind="noop", inputs=("a",), gate=QualityGate(of="a", judge=judge)
    )
    judging, gated = expand_judges((looking,))
    assert (judging.id, judging.role, judging.inputs, judging.instruction) == (
        "sound-judge",
        "gate_judge",
        ("a",),
        "Is it right?",
    )
    assert gated.inputs == ("a", "sound-judge") and gated.gate.judge.step == "sound-judge"
    assert expand_judges((judging, gated)) == (judging, gated), "what has its step is left as it is"
    assert find_gate_problem(gated.gate) == ""
    both = gate(("cites", "")).model_copy(update={"judge": judge})
    assert "a gate of their own" in find_gate_problem(both)
