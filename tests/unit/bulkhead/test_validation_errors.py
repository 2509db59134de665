"""What does not fit is told in the words of whoever wrote it: which field, what is wrong, what was meant."""

import json

import pytest
from pydantic import ValidationError

from bulkhead.text.validation_errors import MAX_MISFITS, fields_at, find_misfits
from bulkhead_cli.output import CommandError
from bulkhead_cli.replay.fork import ForkEdit, read_edit
from bulkhead_infra.identity.policy import IdentityPolicyError, load_tenants
from bulkhead_services.gateway.http.request_values import parse_body
from bulkhead_services.gateway.http.schemas import TaskSubmission
from bulkhead_services.gateway.problems import Problem, ProblemDetails

STEP = {"id": "pay", "title": "Pay", "instruction": "Pay it.", "acceptance": "It is paid."}


def refused(*steps: dict, **more) -> ProblemDetails:
    body = json.dumps({"objective": "Pay", "plan": {"steps": steps}, **more}).encode()
    with pytest.raises(Problem) as found:
        parse_body(TaskSubmission, body)
    return found.value.body


def test_a_typo_in_a_step_names_the_step_the_field_and_what_was_meant() -> None:
    problem = refused(STEP | {"tool": ["calculate"]})
    assert problem.detail == "plan.steps.0.tool (step pay): unknown field; did you mean tools?"
    known = problem.hint.partition(";")[0]
    assert "instruction" in known and "role" in known and "objective" not in known, "the fields of a step"


def test_a_list_whose_item_is_wrong_is_not_called_empty() -> None:
    for problem in (refused(STEP, STEP | {"id": "b", "instruction": 7}), refused(STEP, {"id": "b", "title": "B"})):
        assert "at least 1" not in problem.detail and "plan.steps.1.instruction (step b): " in problem.detail
    assert "plan.steps: must hold at least 1" in refused().detail


def test_no_words_of_the_parser_get_out() -> None:
    for body in (
        {"objective": "x", "limits": {"tokens": "many"}},
        {"objective": 7},
        {"objective": "x", "plan": 3},
        {"objective": "x", "tools": {"a": 1}},
        {"objective": "x", "check": "maybe"},
        {},
    ):
        with pytest.raises(Problem) as found:
            parse_body(TaskSubmission, json.dumps(body).encode())
        assert not any(word in found.value.body.detail for word in ("Input", "Tuple", "String", "instance of", "Extra"))


def test_an_edit_and_a_tenants_file_say_it_likewise(tmp_path) -> None:
    edit, tenants = tmp_path / "edit.json", tmp_path / "tenants.yaml"
    edit.write_text('{"instructions": "x"}')
    with pytest.raises(CommandError, match="instructions: unknown field; did you mean instruction"):
        read_edit(str(edit))
    tenants.write_text("tenants: {acme: 7}")
    with pytest.raises(IdentityPolicyError, match=r"tenants\.acme: must be an object with the fields "):
        load_tenants(tenants)
    tenants.write_text("tenants: [acme]")
    with pytest.raises(IdentityPolicyError, match=r"tenants: must be an object$"):
        load_tenants(tenants)


def test_the_fields_of_a_place() -> None:
    assert "instruction" in fields_at(TaskSubmission, ("plan", "steps", 0))
    assert fields_at(TaskSubmission, ()) == tuple(TaskSubmission.model_fields)
    with pytest.raises(ValidationError) as found:
        ForkEdit.model_validate_json("[]")
    assert find_misfits(found.value, ForkEdit)[0].what.startswith("must be an object with the fields objective")


def test_many_unknown_fields_are_told_by_the_first_of_them() -> None:
    with pytest.raises(ValidationError) as found:
        TaskSubmission.model_validate({f"x{number}": 1 for number in range(20_000)})
    assert len(find_misfits(found.value, TaskSubmission)) == MAX_MISFITS
