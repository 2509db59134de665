"""Output schemas at the tool door: declared where every success can be held to them, and held to then."""

import json
from typing import Any

import pytest
from mcp_types import CallToolResult

from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.doors.mcp.contents import result_of, tool_of
from bulkhead_services.doors.mcp.port import ToolCallAnswer

REPORT = {"type": "object", "properties": {"degrees": {"type": "integer"}}, "required": ["degrees"]}


def spec(output: Any, effect: str = "read") -> ToolSpec:
    return ToolSpec(
        name="look",
        description="Look at a thermometer.",
        parameters_json='{"type": "object"}',
        effect=effect,
        idempotent=True,
        output_json=json.dumps(output),
    )


def told(text: str, effect: str = "read", left_out: tuple[str, ...] = ()) -> CallToolResult:
    return result_of(ToolCallAnswer("t1", "c1", "succeeded", text, left_out=left_out), spec(REPORT, effect))


@pytest.mark.parametrize(
    "output",
    [
        {"type": "array", "items": REPORT},
        {"anyOf": [REPORT, {"type": "null"}]},
        {**REPORT, "$schema": "http://json-schema.org/draft-07/schema#"},
        {**REPORT, "properties": {"degrees": {"$ref": "https://elsewhere.example/degrees"}}},
        {**REPORT, "properties": {"degrees": {"type": "string", "pattern": "^\\p{N}+$"}}},
        {**REPORT, "properties": {"degrees": {"type": "warm"}}},
    ],
    ids=["list", "no type", "other draft", "outside", "dialect", "no schema"],
)
def test_a_schema_that_not_every_client_can_hold_a_result_to_is_not_declared(output: Any) -> None:
    assert tool_of(spec(output)).output_schema is None


def test_a_reads_schema_is_declared_and_a_writes_is_not() -> None:
    nested = {**REPORT, "properties": {"degrees": {"$ref": "#/$defs/d"}}, "$defs": {"d": {"type": "integer"}}}
    assert tool_of(spec(nested)).output_schema == nested
    assert tool_of(spec(nested, "write")).output_schema is None


@pytest.mark.parametrize("text", ['{"degrees": 2', "look was made", '{"degrees": "warm"}', "[22]", "null"])
def test_a_result_that_is_cut_or_unfit_is_no_success_of_a_tool_with_a_declared_schema(text: str) -> None:
    found = told(text, left_out=("output of look: output_truncated",))
    assert found.is_error and found.structured_content is None
    assert "unfit_output: the call was made" in found.content[0].text and text in found.content[0].text
    assert found.meta["io.bulkhead/outcome"] == "succeeded"
    assert not told(text, "write").is_error, "nobody makes a write again because its result is unfit"


def test_a_whole_result_of_which_something_is_missing_is_a_success_with_structured_content() -> None:
    found = told('{"degrees": 22}', left_out=("output of look: no wind",))
    assert not found.is_error and found.structured_content == {"degrees": 22}
