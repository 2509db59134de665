"""The forms of the room of prompts, and the difference of two versions."""

import pytest

from bulkhead_contracts.prompt import PromptContent
from bulkhead_services.gateway.console.prompts.difference import DiffLine, compare_contents
from bulkhead_services.gateway.console.prompts.form import (
    content_of,
    find_problems,
    rows_of,
    share_of,
    undeclared_names,
    values_of,
)

TONE = {
    "name": "tone",
    "kind": "choice",
    "choices": ["plain", "warm, but short"],
    "default": "plain",
    "description": "",
}


def test_fields_become_a_content_and_again_the_rows_of_the_form() -> None:
    fields = {"name-0": "tone", "kind-0": "choice", "choices-0": "plain\nwarm, but short", "default-0": "plain"}
    content = content_of({"text": "Be {{tone}}.", **fields, "name-1": "", "default-1": "lost"})
    assert content == {"text": "Be {{tone}}.\n", "variables": [TONE]} and not find_problems(content)
    row, empty = rows_of(content)
    assert row["choices"] == "plain\nwarm, but short" and empty["name"] == ""


def test_faults_are_those_that_the_registry_would_name() -> None:
    content = content_of({"text": "Be {{tone}} in {{language}}, {{Odd One}}.", "name-0": "tone", "default-0": "plain"})
    assert find_problems(content) == list(PromptContent.model_validate(content).list_problems())
    assert undeclared_names(content) == ["language"], "no variable can have another name"
    assert find_problems(content_of({"text": ""})) == ["text: must have at least 1 characters"]
    unfit = content_of({"text": "x", "name-0": "Tone", "kind-0": "choice", "default-0": "loud"})
    assert any(problem.startswith("variables.0.name") for problem in find_problems(unfit))
    assert find_problems(content_of({"text": "x" * 40_000})) == ["text: must have at most 32768 characters"]


@pytest.mark.parametrize(
    ("form", "share"),
    [
        ({}, {"percent": 0}),
        ({"share": "all", "percent": "10"}, {"percent": 0}),
        ({"share": "some", "percent": "10", "sticky_by": "person"}, {"percent": 10, "sticky_by": "person"}),
        ({"share": "some", "percent": "0"}, {"percent": 99, "sticky_by": "task"}),
        ({"share": "some", "percent": "-1"}, {"percent": 99, "sticky_by": "task"}),
    ],
)
def test_a_share_that_is_none_never_becomes_everybody(form: dict[str, str], share: dict[str, object]) -> None:
    assert share_of(form) == share


def test_only_values_beside_the_default_are_sent() -> None:
    variables = [TONE, TONE | {"name": "other"}]
    assert values_of({"value-tone": "warm, but short", "value-other": "plain", "value-x": "y"}, variables) == {
        "tone": "warm, but short"
    }


def test_a_difference_shows_changed_lines_with_some_around_them() -> None:
    lines = [f"line {number}" for number in range(20)]
    old = {"text": "\n".join(lines), "variables": [TONE]}
    new = {
        "text": "\n".join([*lines[:10], "another", *lines[11:]]),
        "variables": [TONE | {"default": "warm, but short"}],
    }
    difference = compare_contents(old, new)
    assert difference.lines[0] == DiffLine("skipped", "7 lines the same in both")
    assert [line.text for line in difference.lines if line.mark == "removed"] == ["line 10"]
    assert [line.text for line in difference.lines if line.mark == "added"] == ["another"]
    assert [line.text for line in difference.lines if line.mark == "same"] == [
        *(f"line {number}" for number in (7, 8, 9, 11, 12, 13))
    ]
    assert difference.settings[0].endswith("'warm, but short' by default") and not difference.is_empty
    assert compare_contents(old, old).is_empty
    assert compare_contents({"text": "x\n" * 3_000, "variables": []}, new).is_cut


def test_a_difference_tells_model_parameters_and_schema() -> None:
    old = {"text": "Answer.", "variables": [], "parameters": {"temperature": 0.2}}
    new = {"text": "Answer.", "variables": [], "model": "fast", "output_schema": {"type": "object"}}
    assert compare_contents(old, new).settings == (
        "the model was the usual one; it is fast",
        "the temperature was 0.2; it is the usual one",
        "the output schema is another one",
    )
