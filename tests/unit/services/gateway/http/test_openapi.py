"""The OpenAPI document names every route and is whole; tests/contract holds answers against it."""

import json

from starlette.routing import Route

from bulkhead_services.gateway.http.openapi import openapi
from tests.unit.services.gateway.harness import make_mesh


def test_every_route_is_documented(tmp_path):
    app = make_mesh(tmp_path).gateway().http.build_app()
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
