"""Workflows as files, as plans of runs, compared, and made of tasks."""

import json
from typing import Any

import jsonschema_rs
import pytest
import yaml

from bulkhead.workflows.compose import ComposeError, compose_run, list_workflow_problems, plain_tool
from bulkhead.workflows.difference import compare_workflows
from bulkhead.workflows.files import read_workflow, workflow_schema, write_workflow
from bulkhead.workflows.saved import save_task
from bulkhead_contracts.workflow import WorkflowContent

FILE = """description: Find out, then pay.
objective: Report on {{topic}}
parameters:
- name: topic
- name: amount
  kind: number
  default: '12.50'
- name: urgent
  kind: boolean
  default: 'false'
steps:
- id: search
  title: Look it up
  instruction: |-
    Search for {{topic}}.
    Cite what you find.
  tools:
  - search_documents
  acceptance: has sources
- id: gate
  instruction: check it
  inputs:
  - search
  gate:
    of: search
    on_fail: retry
- id: pay
  instruction: pay it
  inputs:
  - gate
  call:
    tool: pay
    arguments:
      amount: '{{amount}}'
      note: for {{topic}}
      to:
        $from: search
        field: /iban
      urgent: '{{urgent}}'
limits:
  tokens: 50000
"""


def content(**changes: Any) -> WorkflowContent:
    document = {
        "objective": "Report on {{topic}}",
        "parameters": [{"name": "topic"}],
        "steps": [{"id": "a", "instruction": "Find {{topic}}.", "acceptance": "found"}],
    }
    return WorkflowContent.model_validate(document | changes)


def test_a_file_is_read_and_written_as_it_stands_and_fits_its_schema() -> None:
    workflow = read_workflow(FILE)
    assert write_workflow(workflow) == FILE
    assert read_workflow(write_workflow(workflow)).sha256 == workflow.sha256
    validator = jsonschema_rs.validator_for(workflow_schema())
    validator.validate(yaml.safe_load(FILE))
    assert not validator.is_valid(yaml.safe_load(FILE.replace("instruction:", "instructions:")))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [1]\nb: *a", "an alias stands in line 2"),
        ("objective: x\nobjective: y", "objective is there twice"),
        (FILE.replace("acceptance", "accepted"), "accepted"),
        (FILE.replace("  default: '12.50'", "  default: a lot"), "amount is a number"),
        (FILE.replace("    arguments:", "    arguments: 5\n    other:"), "`arguments` holds no names"),
        ("- a", "must be an object with the fields"),
    ],
)
def test_what_is_no_workflow_is_told_with_its_place(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_workflow(text)


def test_a_run_has_the_values_in_texts_and_typed_in_arguments() -> None:
    plan = compose_run(read_workflow(FILE), {"topic": 'a "quote"', "urgent": "true"}, {})
    assert plan.objective == 'Report on a "quote"'
    search, gate, pay = plan.steps
    assert search.instruction.startswith('Search for a "quote".')
    assert pay.call is not None and pay.action == "tool"
    assert pay.call.arguments_json == (
        '{"amount":12.5,"note":"for a \\"quote\\"","to":{"$from":"search","field":"/iban"},"urgent":true}'
    )
    assert plan.fixed == {"gate"} and gate.action == "validate"


def test_a_slip_within_a_field_is_refused_with_its_place() -> None:
    step = {"id": "b", "instruction": "x", "inputs": ["a"], "gate": {"of": "a", "checks": [{"test": "cites"}]}}
    read_workflow(yaml.safe_dump({"objective": "o", "steps": [step]}))
    step["gate"] = {"of": "a", "on_fial": "retry"}
    slipped = yaml.safe_dump({"objective": "o", "steps": [step]})
    with pytest.raises(ValueError, match=r"gate\.on_fial is no field; there are checks, json_schema, judge, of"):
        read_workflow(slipped)
    assert not jsonschema_rs.validator_for(workflow_schema()).is_valid(yaml.safe_load(slipped))


def test_a_text_that_looks_like_a_number_stays_a_text_and_a_value_is_filled_once() -> None:
    steps = [{"id": "a", "instruction": "go", "call": {"tool": "t", "arguments_json": '{"zip": "{{topic}}"}'}}]
    assert compose_run(content(steps=steps), {"topic": "10115"}, {}).steps[0].call.arguments_json == '{"zip":"10115"}'
    assert "{{topic}}" in compose_run(content(), {"topic": "{{topic}}"}, {}).objective


@pytest.mark.parametrize(
    ("values", "reason"), [({}, "topic is missing"), ({"topic": "x", "other": "y"}, "other is no parameter")]
)
def test_values_that_do_not_fit_are_refused(values: dict[str, str], reason: str) -> None:
    with pytest.raises(ComposeError, match=reason):
        compose_run(content(), values, {})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"objective": "x", "steps": [{"id": "a", "instruction": "x"}]}, "the parameter topic stands nowhere"),
        ({"objective": "{{topic}} {{other}}"}, "{{other}} stands in a text and is not declared"),
        ({"conversation": "c"}, "`conversation` is set by each run"),
        ({"steps": [{"id": "a", "instruction": "x", "tools": ["{{topic}}"]}]}, "may not stand in `tools`"),
        (
            {"steps": [{"id": "a", "instruction": "x", "call": {"tool": "{{topic}}"}}]},
            "may not stand in `tool`, `tools`",
        ),
        ({"steps": [{"id": "a", "instruction": "x"}]}, "step a has no acceptance criterion"),
        ({"steps": [{"id": "a", "instruction": "x", "acceptance": "y", "tools": ["pay"]}]}, "step a wants tool pay"),
        ({"steps": [{"id": "a", "workflow": "scan.1"}]}, "scan.1, which is not there"),
        ({"steps": [{"id": "a", "workflow": "scan.1", "instruction": "x"}]}, "id, inputs and parameters alone"),
    ],
)
def test_a_workflow_is_checked_as_the_planner_checks_a_plan(changes: dict[str, Any], reason: str) -> None:
    [problem] = list_workflow_problems(content(**changes), {}, [plain_tool("search_documents")])
    assert reason in problem


def test_arguments_are_checked_against_the_tools_schema_where_their_values_are_known() -> None:
    schema = '{"type": "object", "properties": {"day": {"type": "string", "maxLength": 3}}, "required": ["day"]}'
    tool = plain_tool("book").model_copy(update={"parameters_json": schema})
    steps = [{"id": "a", "instruction": "go", "call": {"tool": "book", "arguments_json": '{"day": "{{topic}}"}'}}]
    assert list_workflow_problems(content(steps=steps), {}, [tool]) == ()
    known = content(steps=steps, parameters=[{"name": "topic", "default": "monday"}])
    [problem] = list_workflow_problems(known, {}, [tool])
    assert "step a" in problem and "day" in problem


def test_a_nested_workflow_gives_its_steps_in_the_place_of_the_step() -> None:
    inner = read_workflow(FILE)
    steps = [
        {"id": "first", "instruction": "Begin.", "acceptance": "begun"},
        {"id": "scan", "workflow": "scan.1", "inputs": ["first"], "parameters": {"topic": "all {{topic}}"}},
        {"id": "last", "instruction": "End.", "acceptance": "ended", "inputs": ["scan"]},
    ]
    plan = compose_run(content(steps=steps), {"topic": "tea"}, {"scan.1": inner})
    assert [(step.id, step.inputs) for step in plan.steps] == [
        ("first", ()),
        ("scan-search", ("first",)),
        ("scan-gate", ("scan-search",)),
        ("scan", ("scan-gate",)),
        ("last", ("scan",)),
    ]
    assert "all tea" in plan.steps[1].instruction and plan.steps[2].gate.of == "scan-search"
    assert '"$from":"scan-search"' in plan.steps[3].call.arguments_json
    assert plan.fixed == {"first", "scan-gate", "last"}


def test_only_references_follow_the_ids_of_nested_steps() -> None:
    call = {"tool": "deploy", "arguments_json": '{"of":"build","steps":["build"],"log":{"$from":"build"}}'}
    inner = content(
        parameters=[],
        objective="o",
        steps=[
            {"id": "build", "instruction": "Build.", "acceptance": "built"},
            {"id": "deploy", "instruction": "", "inputs": ["build"], "call": call},
        ],
    )
    outer = content(parameters=[], objective="o", steps=[{"id": "x", "workflow": "scan.1"}])
    [_, deploy] = compose_run(outer, {}, {"scan.1": inner}).steps
    assert json.loads(deploy.call.arguments_json) == {"of": "build", "steps": ["build"], "log": {"$from": "x-build"}}


def test_arguments_of_nested_calls_are_not_judged_by_a_sample() -> None:
    schema = '{"type": "object", "properties": {"day": {"type": "string", "maxLength": 3}}, "required": ["day"]}'
    tool = plain_tool("book").model_copy(update={"parameters_json": schema})
    inner = content(
        objective="o",
        steps=[{"id": "a", "instruction": "", "call": {"tool": "book", "arguments_json": '{"day":"{{topic}}"}'}}],
    )
    outer = content(steps=[{"id": "x", "workflow": "scan.1", "parameters": {"topic": "{{topic}}"}}])
    assert list_workflow_problems(outer, {"scan.1": inner}, [tool]) == ()


def test_workflows_that_nest_each_other_are_refused() -> None:
    looped = content(steps=[{"id": "a", "workflow": "scan.1", "parameters": {"topic": "{{topic}}"}}])
    with pytest.raises(ComposeError, match="nest each other"):
        compose_run(looped, {"topic": "x"}, {"scan.1": looped})


def test_a_placeholder_in_escapes_is_one_in_the_check_and_in_the_trust() -> None:
    call = {"tool": "mail", "arguments_json": r'{"to": "\u007b\u007btopic\u007d\u007d"}'}
    steps = [{"id": "a", "instruction": "go", "call": call}]
    plan = compose_run(content(steps=steps), {"topic": "eve"}, {})
    assert plan.steps[0].call.arguments_json == '{"to":"eve"}' and plan.fixed == frozenset()
    undeclared = content(objective="x", parameters=[], steps=steps)
    assert undeclared.list_problems() == ("{{topic}} stands in a text and is not declared",)
    named = [steps[0] | {"call": {"tool": "mail", "arguments_json": '{"{{topic}}": 1}'}}]
    assert "may not stand in `name of an argument`" in content(steps=named).list_problems()[0]


def test_values_of_nested_workflows_do_not_grow_without_bound() -> None:
    inner = content()
    steps = [{"id": "a", "workflow": "scan.1", "parameters": {"topic": "{{topic}}" * 400}}]
    with pytest.raises(ComposeError, match=r"a \(scan.1\): topic has 40,000 characters, of 4,000"):
        compose_run(content(steps=steps), {"topic": "x" * 100}, {"scan.1": inner})
    with pytest.raises(ComposeError, match="a text would have"):
        compose_run(content(steps=steps), {"topic": "x" * 4_000}, {"scan.1": inner})


def test_a_plan_that_no_message_holds_is_refused_with_its_longest_step() -> None:
    steps = [{"id": f"s{number}", "instruction": "{{topic}}" * 2, "acceptance": "x"} for number in range(60)]
    with pytest.raises(ComposeError, match="step s10 is the longest of 60"):
        compose_run(content(steps=steps), {"topic": "x" * 4_000}, {})
    default = content(steps=steps, parameters=[{"name": "topic", "default": "x" * 4_000}])
    assert "the plan of a run takes" in list_workflow_problems(default, {}, None)[0]


def test_two_versions_are_compared_by_their_structure() -> None:
    new = FILE.replace("Cite", "Quote").replace("  default: 'false'\n", "").replace("tokens: 50000", "tokens: 60000")
    assert [row[:2] for row in compare_workflows(read_workflow(FILE), read_workflow(new))] == [
        ("changed", "limits.tokens"),
        ("removed", "parameters.urgent.default"),
        ("changed", "steps.search.instruction"),
    ]
    fewer = content(steps=[{"id": "b", "instruction": "{{topic}}", "acceptance": "x"}])
    assert [row[:2] for row in compare_workflows(content(), fewer)] == [("removed", "steps.a"), ("added", "steps.b")]


TASK = {"task_id": "t1", "status": "succeeded", "objective": "Pay 12 to ACME", "limits": None, "check": False}
STEPS = [
    {"id": "a", "title": "", "instruction": "Look for ACME's iban, not ACMES", "acceptance": "found", "kind": "agent"},
    {
        "id": "pay",
        "title": "",
        "instruction": "pay",
        "kind": "noop",
        "inputs": ["a"],
        "call": {"tool": "pay", "arguments_json": '{"amount": 12, "to": "ACME", "urgent": true}'},
    },
]


def test_a_task_that_went_well_becomes_a_workflow() -> None:
    saved = save_task(TASK, STEPS, {"customer": "ACME", "amount": "12"})
    assert saved.objective == "Pay {{amount}} to {{customer}}" and not saved.check
    assert saved.steps[0].instruction == "Look for {{customer}}'s iban, not ACMES"
    assert [(parameter.name, parameter.kind) for parameter in saved.parameters] == [
        ("customer", "text"),
        ("amount", "number"),
    ]
    run = compose_run(saved, {"customer": "Bee", "amount": "7"}, {})
    assert run.steps[1].call.arguments_json == '{"amount":7,"to":"Bee","urgent":true}'


@pytest.mark.parametrize(
    ("task", "steps", "parameters", "reason"),
    [
        (TASK | {"status": "failed"}, STEPS, {}, "has failed: save one that succeeded"),
        (TASK, [], {}, "had no plan"),
        (TASK, STEPS, {"x": "nowhere"}, "the parameter x stands nowhere"),
        (TASK, [STEPS[0] | {"instruction": ""}], {}, "kept back"),
    ],
)
def test_a_task_that_cannot_be_saved_is_refused(task: Any, steps: Any, parameters: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        save_task(task, steps, parameters)


def judging(**judge: Any) -> dict[str, Any]:
    return {"id": "sound", "inputs": ["a"], "gate": {"of": "a", "on_fail": "retry", "judge": judge}}


def test_a_judge_of_a_gate_becomes_a_step_of_the_run_with_its_question_filled() -> None:
    find = {"id": "a", "instruction": "Find it.", "acceptance": "found"}
    asking, own = (judging(question=text) for text in ("Does it speak of {{topic}}?", "Is it right?"))
    inner = content(steps=[find, asking])
    run = compose_run(inner, {"topic": "tea"}, {})
    assert [(step.id, step.role, step.inputs) for step in run.steps] == [
        ("a", "step", ()),
        ("sound-judge", "gate_judge", ("a",)),
        ("sound", "step", ("a", "sound-judge")),
    ]
    assert run.steps[1].instruction == "Does it speak of tea?" and run.fixed == {"a"}
    assert list_workflow_problems(inner, {}, ()) == ()
    fixed = content(objective="Look", parameters=[], steps=[find, own])
    outer = content(objective="Look", parameters=[], steps=[{"id": "x", "workflow": "inner.1"}])
    nested = compose_run(outer, {}, {"inner.1": fixed})
    assert [step.id for step in nested.steps] == ["x-a", "x-judge", "x"] and nested.fixed == {"x-a", "x-judge", "x"}
    gate = nested.steps[2].gate
    assert gate is not None and gate.judge is not None and (gate.of, gate.judge.step) == ("x-a", "x-judge")
