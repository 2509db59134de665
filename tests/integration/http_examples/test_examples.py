"""The examples of the HTTP reference are requests that work: each is sent again, and gets the example's answer.

BULKHEAD_WRITE_EXAMPLES=1 records them anew; then `make render`.
"""

import json
import os
from pathlib import Path

import jsonschema_rs
import pytest

from bulkhead.http_server.connections import MEDIA_TYPE
from bulkhead_services.gateway.http.field_texts import refers_to_model
from bulkhead_services.gateway.http.openapi import openapi
from bulkhead_services.gateway.http.operation_examples import FILE, recorded_examples
from tests.integration.http_examples.recorder import ExampleRecorder, Json, mask_values
from tests.integration.http_examples.scenes import record_all

WRITE = "BULKHEAD_WRITE_EXAMPLES"
OPERATIONS = {
    operation["operationId"]: operation for item in openapi()["paths"].values() for operation in item.values()
}
UNTOLD = {"408", "409", "429"}
"""Statuses that some operations share with others, where an example could be no other than there."""


@pytest.mark.slow
async def test_each_example_gets_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKHEAD_WATCH", "on")
    recorder = ExampleRecorder()
    await record_all(recorder, tmp_path)
    if os.environ.get(WRITE):
        content = {
            "operations": dict(sorted(recorder.operations.items())),
            "problems": dict(sorted(recorder.problems.items())),
        }
        FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return
    examples = recorded_examples()
    assert recorder.operations.keys() == examples["operations"].keys()
    assert recorder.problems.keys() == examples["problems"].keys()
    for name, row in recorder.operations.items():
        kept: Json = examples["operations"][name]
        for part in ("parameters", "body", "status", "codes"):
            assert mask_values(row.get(part)) == mask_values(kept.get(part)), f"{name}: record it again with {WRITE}=1"
        assert type(row["answer"]) is type(kept["answer"])
        if isinstance(row["answer"], dict):
            assert row["answer"].keys() == kept["answer"].keys(), f"{name}: record it again with {WRITE}=1"


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_shows_a_request_and_an_answer_that_fit_its_schemas(name: str) -> None:
    operation, shown = OPERATIONS[name], 0
    assert name in recorded_examples()["operations"], "record an example in tests/integration/http_examples/scenes.py"
    for parameter in operation.get("parameters", ()):
        required = parameter.get("required") and "example" not in parameter
        assert not required, f"{parameter['name']} has no example"
    contents = [*operation.get("requestBody", {"content": {}})["content"].values()]
    assert not contents or "example" in contents[0]
    for status, answer in operation["responses"].items():
        for media_type, content in answer.get("content", {}).items():
            shown += "example" in content
            assert media_type != MEDIA_TYPE or status in UNTOLD or content["examples"], f"{status} has no example"
        contents += answer.get("content", {}).values()
    assert shown == 1
    for content in contents:
        if isinstance(content.get("example"), dict):
            schema = content["schema"] | {"components": openapi()["components"]}
            jsonschema_rs.Draft202012Validator(schema).validate(content["example"])


def test_each_field_and_each_model_is_described() -> None:
    schemas: Json = openapi()["components"]["schemas"]
    assert [name for name, schema in schemas.items() if not schema.get("description")] == []
    assert [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, content in schema.get("properties", {}).items()
        if not content.get("description") and not refers_to_model(content)
    ] == [], "say it in the docstring of the model, or in field_meanings.toml"
