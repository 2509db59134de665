"""The OpenAPI document says what the gateway does: every path, and answers generated against it."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from starlette.routing import Route

from bulkhead_services.gateway.http.openapi import openapi
from tests.unit.gateway.harness import OPERATOR, make_mesh

HEADERS = {"Authorization": f"Bearer {OPERATOR}"}


CHECKS = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
}
OPERATIONS = [
    (path, method) for path, item in openapi()["paths"].items() for method in item if not path.endswith("/events")
]  # A stream ends when its task does; see test_stream.


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_generated_requests_get_documented_answers(path, method, tmp_path):
    gateway = make_mesh(tmp_path).gateway(ingest_wait_s=0.0)
    gateway.http.started = True
    operation = schemathesis.openapi.from_asgi("/openapi.json", gateway.app)[path][method]
    checks = [check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ in CHECKS]
    assert len(checks) == len(CHECKS)
    answers = set()

    @settings(max_examples=10, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def ask(case):
        answer = case.call(headers=HEADERS)
        answers.add(answer.status_code)
        case.validate_response(answer, checks=checks)

    gateway._auth.load()
    ask()
    assert answers


def test_every_route_is_documented(tmp_path):
    app = make_mesh(tmp_path).gateway().app
    served = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods - {"HEAD"}
        if route.path != "/openapi.json"
    }
    documented = {(path, method) for path, item in openapi()["paths"].items() for method in item}
    assert served == documented


def test_the_document_is_whole_and_the_same_every_time():
    text = json.dumps(openapi(), sort_keys=True)
    assert json.dumps(json.loads(text), sort_keys=True) == text
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= set(openapi()["components"]["schemas"])
    assert openapi()["components"]["schemas"]["TaskSubmission"]["additionalProperties"] is False
    for item in openapi()["paths"].values():
        for operation in item.values():
            assert operation["operationId"] and operation["summary"]
