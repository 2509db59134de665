"""Examples of the OpenAPI document: requests that a mesh was sent, and its answers.

In: examples.json, which tests/integration/http_examples records and sends again. Out: operations with their examples,
and with every code that they answer with as a problem.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from bulkhead.http_server.connections import MEDIA_TYPE

Json = dict[str, Any]
FILE = Path(__file__).with_name("examples.json")
COMMON_CODES = {
    "400": ("malformed_json",),
    "401": ("unauthorized",),
    "403": ("forbidden",),
    "404": ("not_found",),
    "413": ("too_large",),
    "503": ("unavailable",),
}
"""Codes by status, of every operation that answers with it. 422 depends on where the field stands."""


@cache
def recorded_examples() -> Json:
    """`operations` by name: parameters, body, status, answer and codes of their own; `problems` by code."""
    examples: Json = json.loads(FILE.read_text())
    return examples


def add_example(operation: Json) -> None:
    """Put the recorded request and answer, and the codes of its problems, into an operation of the document."""
    row: Json = recorded_examples()["operations"].get(operation["operationId"], {})
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in row.get("parameters", {}):
            parameter["example"] = row["parameters"][parameter["name"]]
    if "body" in row:
        next(iter(operation["requestBody"]["content"].values()))["example"] = row["body"]
    for status, answer in operation["responses"].items():
        for media_type, content in answer.get("content", {}).items():
            if media_type == MEDIA_TYPE:
                codes = [*row.get("codes", {}).get(status, ()), *_common_codes(operation, status)]
                content["examples"] = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
            elif status == str(row.get("status")):
                content["example"] = row["answer"]


def problem_examples() -> Json:
    """The problems, by code: what happened, and what to do next."""
    problems: Json = recorded_examples()["problems"]
    return {code: {"summary": problem["title"], "value": problem} for code, problem in problems.items()}


def _common_codes(operation: Json, status: str) -> tuple[str, ...]:
    if status == "422":
        return ("invalid_body",) if "requestBody" in operation else ("invalid_query",)
    return COMMON_CODES.get(status, ())
