"""A sample call has what its schema requires, and fits it."""

import json
from typing import Any

import jsonschema_rs
import pytest

from bulkhead.tools.catalog import tool_rows
from bulkhead_contracts.provenance import Sink
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.tool_executor.boundary.sample_calls import build_sample_arguments


def tool(parameters: object, *sinks: Sink) -> ToolSpec:
    return ToolSpec(name="send", description="d", parameters_json=json.dumps(parameters), effect="write", sinks=sinks)


def test_what_is_required_is_there_and_so_is_what_chooses() -> None:
    properties: dict[str, Any] = {
        "to": {"type": "string"},
        "kind": {"enum": ["a", "b"]},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}}},
        "note": {"type": "string"},
        "day": {"type": "string", "format": "date"},
    }
    properties["lines"]["items"]["required"] = ["n"]
    parameters = {"type": "object", "properties": properties, "required": ["kind", "lines", "day"]}
    assert build_sample_arguments(tool(parameters, Sink(argument="/to", kind="recipient"))) == {
        "to": "person@example.org",
        "kind": "a",
        "lines": [{"n": 3}],
        "day": "2026-01-31",
    }


@pytest.mark.parametrize("row", [row for row in tool_rows() if not row.built_in], ids=lambda row: row.spec.name)
def test_samples_of_the_tools_of_this_house_have_the_types_of_their_schemas(row: Any) -> None:
    problems = jsonschema_rs.Draft202012Validator(json.loads(row.spec.parameters_json)).iter_errors(
        build_sample_arguments(row.spec)
    )
    kinds = {type(problem.kind).__name__.rpartition("_")[2] for problem in problems}
    assert not kinds & {"Type", "Required", "AdditionalProperties"}, kinds


@pytest.mark.parametrize("parameters", [{}, [], {"properties": []}, {"properties": {"a": True}, "required": ["a"]}])
def test_a_schema_that_says_little_gives_a_small_sample(parameters: object) -> None:
    assert len(build_sample_arguments(tool(parameters))) <= 1
