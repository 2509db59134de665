"""Gates and branches of plans, evaluated on a result. Pure.

In: a `QualityGate` or a `Branch`, and the text of the result that it looks at. Out: why it lets the result not pass;
the steps that a branch begins. Patterns are of RE2, and schemas refer to nothing: the time is bounded by both sizes.
"""

from collections.abc import Iterator, Sequence

import jsonschema_rs
from pydantic import ValidationError

from bulkhead.evaluation.answers import CaseAnswer
from bulkhead.evaluation.cases import Check, ExpectedNumber, LengthBounds
from bulkhead.evaluation.checks import escape_surrogates, failed_checks
from bulkhead.evaluation.judges.panels import read_object
from bulkhead.flow import bounded
from bulkhead.flow.step_calls import UnresolvedReference, find_field, load_result_json
from bulkhead.policy.planned_values import passes_test
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import JUDGE_ROLE, Branch, GateJudge, PlanStep, PropertyCheck, QualityGate
from bulkhead_contracts.result import Failure

REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
"""Keywords that could fetch something, or look at the same place without end."""


VERDICT = jsonschema_rs.Draft202012Validator(
    {
        "type": "object",
        "required": ["verdict", "reasons"],
        "properties": {
            "verdict": {"enum": ["pass", "fail"]},
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            "reasons": {"type": "array", "maxItems": 8, "items": {"type": "string"}},
        },
    }
)
"""The answer of a step that judges."""
JUDGE_ACCEPTANCE = "It is the JSON object that is asked for."


def load_schema(text: str) -> jsonschema_rs.Draft202012Validator:
    """The validator of a schema that refers to nothing and takes linear time for patterns. Raises ValueError."""
    schema = bounded.load_json(text)
    if not isinstance(schema, dict):
        raise ValueError("it is no JSON object")
    if referring := next((key for key in _keys_in(schema) if key in REFERENCES), None):
        raise ValueError(f"it holds {referring}: write what it refers to in its place")
    try:
        return jsonschema_rs.Draft202012Validator(schema, offline=True, pattern_options=jsonschema_rs.RegexOptions())
    except (ValueError, TypeError, jsonschema_rs.ReferencingError) as error:
        raise ValueError(str(error).splitlines()[0][:200]) from error


def find_gate_problem(gate: QualityGate) -> str:
    """The reason why a gate could never be evaluated, with its field; "" for none."""
    if gate.judge is not None and (gate.json_schema or gate.checks):
        return "gate.judge: put json_schema and checks into a gate of their own before it, which costs nothing"
    if gate.judge is None and not gate.json_schema and not gate.checks:
        return "gate: it has neither a json_schema nor checks nor a judge, so that everything would pass"
    if gate.json_schema:
        try:
            load_schema(gate.json_schema)
        except ValueError as error:
            return f"gate.json_schema is no schema: {error}"
    for index, row in enumerate(gate.checks):
        try:
            if row.test != "cites":
                _as_check(row)
        except ValidationError as error:
            return f"gate.checks[{index}] ({row.test}): {error.errors()[0]['msg'].removeprefix('Value error, ')}"
        except ValueError:
            return f"gate.checks[{index}] ({row.test}): {row.text!r} is no number"
    return ""


def list_gate_reasons(gate: QualityGate, text: str, *, is_citing: bool) -> tuple[str, ...]:
    """The reasons why a result does not pass a gate that has no problem; () when it passes."""
    reasons = [_schema_reason(gate.json_schema, text)] if gate.json_schema else []
    checks = [_as_check(row) for row in gate.checks if row.test != "cites"]
    reasons += failed_checks(checks, CaseAnswer(text))
    if not is_citing and any(row.test == "cites" for row in gate.checks):
        reasons.append("it cites no source")
    return tuple(reason[: bounds.MAX_REASON_CHARS] for reason in reasons if reason)[:16]


def list_judge_reasons(judge: GateJudge, verdict: str) -> tuple[str, ...]:
    """The reasons why a judge lets a result not pass, from what it answered; () when it passes. What is no verdict lets
    nothing pass."""
    document = read_object(verdict)
    if not isinstance(document, dict) or not VERDICT.is_valid(document):
        return (f"the judge gave no verdict: {' '.join(escape_surrogates(verdict).split())[:120]!r}",)
    texts = (" ".join(escape_surrogates(text).split()) for text in document["reasons"])
    reasons = tuple(f"the judge: {text[: bounds.MAX_SUMMARY_CHARS]}" for text in texts)
    if document["verdict"] == "fail":
        return reasons or ("the judge gives no reason",)
    if (score := document.get("score", 0)) < judge.threshold:
        return (f"the judge gives it {score:g}, and {judge.threshold:g} is wanted", *reasons)
    return ()


def expand_judges(steps: Sequence[PlanStep]) -> tuple[PlanStep, ...]:
    """The steps of a plan, before each gate with a judge the step that judges, unless the plan has it already."""
    expanded: list[PlanStep] = []
    for step in steps:
        if step.gate is None or step.gate.judge is None or step.gate.judge.step:
            expanded.append(step)
            continue
        judging = PlanStep(
            id=f"{step.id[:57]}-judge",
            title=f"Judge {step.gate.of}"[: bounds.MAX_TITLE_CHARS],
            instruction=step.gate.judge.question,
            acceptance=JUDGE_ACCEPTANCE,
            inputs=(step.gate.of,),
            role=JUDGE_ROLE,
        )
        judge = step.gate.judge.model_copy(update={"step": judging.id})
        gate = step.gate.model_copy(update={"judge": judge})
        expanded += [judging, step.model_copy(update={"gate": gate, "inputs": (*step.inputs, judging.id)})]
    return tuple(expanded)


def choose_steps(branch: Branch, text: str) -> tuple[str, ...] | Failure:
    """The steps that a branch begins; a failure where its field is not there, for then nobody knows which."""
    value: object = text
    if branch.field:
        hint = f"have step {branch.of} answer in JSON with this field, or leave `field` out to look at its text"
        try:
            value = find_field(load_result_json(text), branch.field)
        except UnresolvedReference as error:
            return Failure.from_text("no_such_field", f"the result of {branch.of}: {error}", hint)
        except ValueError:
            return Failure.from_text("no_such_field", f"the result of {branch.of} is no JSON", hint)
        if isinstance(value, dict | list):
            reason = f"{branch.field} of the result of {branch.of} is no single value"
            return Failure.from_text("no_such_field", reason, hint)
    for case in branch.cases:
        if passes_test(value, case.test, case.text):
            return case.steps
    return branch.otherwise


def _as_check(row: PropertyCheck) -> Check:
    """The check of an evaluation that looks at the same property. Raises ValueError."""
    match row.test:
        case "contains":
            return Check(contains=row.text)
        case "lacks":
            return Check(not_contains=row.text)
        case "matches":
            return Check(regex=row.text)
        case "min_words":
            return Check(length=LengthBounds(min_words=int(row.text)))
        case "max_words":
            return Check(length=LengthBounds(max_words=int(row.text)))
        case "equals_number":
            return Check(equals_number=ExpectedNumber(value=float(row.text)))
    raise AssertionError(row.test)


def _schema_reason(schema: str, text: str) -> str:
    try:
        document = load_result_json(text)
        error = next(iter(load_schema(schema).iter_errors(document)), None)
    except ValueError as unreadable:
        return f"it is no JSON that the schema can judge: {str(unreadable)[:80]}"
    if error is None:
        return ""
    place = "/".join(str(part) for part in error.instance_path)
    return f"{f'/{place}' if place else 'it'} does not fit the schema: {error.message[:300]}"


def _keys_in(schema: object) -> Iterator[str]:
    """Every key of a schema, at any depth. A property of such a name counts too: nobody needs one."""
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield from node
        pending.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
