"""Declarations and functions agree; specs are what models and the signer see."""

import json
from dataclasses import replace

import pytest

from bulkhead.tools.catalog import rows, specs
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.tool_executor import registry
from bulkhead_services.tool_executor.core import ToolExecutor
from bulkhead_services.tool_executor.effects import Workbench
from bulkhead_services.tool_executor.settings import Settings

BUILT_IN = ("ask_steps", "answer_step", "acquire_lease", "release_lease")


def test_every_row_is_served_by_someone() -> None:
    found = registry.load({"http_allow_hosts", "counter_url"})
    assert set(found.tools) | set(found.elsewhere) == {row.spec.name for row in rows()}
    assert found.elsewhere == {"search_documents": "rag", **dict.fromkeys(BUILT_IN, "worker")}
    for row in rows():
        assert len(row.spec.parameters_json) <= bounds.MAX_SCHEMA_BYTES
        assert json.loads(row.spec.parameters_json)["additionalProperties"] is False


def test_what_is_not_configured_is_not_offered() -> None:
    offered = {spec.name for spec in specs()}
    assert offered == {"search_documents", "calculate", "date_difference", "date_add", *BUILT_IN}
    assert "counter_increment" in {spec.name for spec in specs({"counter_url"})}
    assert set(registry.load().tools) == offered - {"search_documents", *BUILT_IN}


def test_effects_are_declared() -> None:
    by_name = {row.spec.name: row.spec for row in rows()}
    assert (by_name["counter_increment"].effect, by_name["counter_increment"].idempotent) == ("write", True)
    assert by_name["counter_increment_unkeyed"].idempotent is False
    assert by_name["calculate"].effect == "read"


def test_a_row_without_a_function_fails_at_start() -> None:
    row = rows()[1]
    ghost = replace(row, spec=row.spec.model_copy(update={"name": "no_such_tool"}))
    with pytest.raises(ValueError, match="no_such_tool"):
        registry.load(declared=(ghost,))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "one JSON object"),
        ('{"expression": NaN}', "NaN"),
        ("[" * 16_000, "not JSON"),
        ('{"expression": "1 \\ud800"}', "half a character"),
        ('{"\\udc00": 1}', "half a character"),
        ("{}", "required"),
        ('{"expression": 3}', "expression: 3 is not of type"),
        ('{"expression": "1", "verbose": true}', "verbose"),
    ],
)
def test_unfit_arguments_are_told_in_words(arguments: str, words: str) -> None:
    tool = registry.load().find("calculate")
    assert tool is not None
    refused = tool.read_arguments(arguments)
    assert isinstance(refused, Failure)
    assert refused.code == "bad_arguments" and words in refused.message and "expression" in refused.hint


@pytest.mark.parametrize(
    ("tool", "changes"),
    [("calculate", False), ("counter_increment", True), ("counter_increment_unkeyed", True), ("nosuch", False)],
)
def test_who_gives_up_a_call_knows_whether_it_may_have_written(tool, changes):
    doer = ToolExecutor(registry.load({"counter_url"}), Workbench(Settings()))
    request = ToolCallRequested(
        call_id="c1", step_id="s1", attempt=1, tool=tool, arguments_json="{}", deadline_unix_ms=1
    )
    assert doer.changes(request) is changes
