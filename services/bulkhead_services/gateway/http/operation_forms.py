"""Pieces of the OpenAPI document: operations, their parameters, and references to the schemas of models. Pure."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from bulkhead.http_server.connections import MEDIA_TYPE
from bulkhead_services.gateway.problems import ProblemDetails

_TITLES = {
    400: "The Idempotency-Key header is missing, or the body is not JSON",
    401: "Credentials are missing or unknown",
    403: "The caller's role, or the tenant's policy, does not allow this",
    404: "The caller's tenant has nothing of this name",
    408: "The body arrived too slowly",
    409: "The current state does not allow this, or a request under the same key is in progress",
    413: "The body exceeds the limit that the answer names",
    422: "A field is invalid, or the key was used for other content",
    429: "The caller or its tenant has reached a rate limit or a quota; Retry-After says when to try again",
    503: "A component that this request depends on does not answer; nothing that was acknowledged is lost",
}
CHANGE = (400, 401, 403, 408, 409, 413, 422, 429, 503)
"""What may go wrong with a request that has a body and changes something."""

Json = dict[str, Any]
MODELS: dict[type[BaseModel], JsonSchemaMode] = {}
"""Every model that the document refers to: what clients send is described as it is validated, the rest as written."""


def schema_ref(model: type[BaseModel], mode: JsonSchemaMode = "serialization") -> Json:
    """A reference to the schema of a model."""
    MODELS[model] = mode
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def answer_of(model: type[BaseModel], description: str, headers: Json | None = None) -> Json:
    """An answer with a model as its JSON."""
    answer: Json = {"description": description, "content": {"application/json": {"schema": schema_ref(model)}}}
    return answer | ({"headers": headers} if headers else {})


def body_of(model: type[BaseModel], *, required: bool = True) -> Json:
    """A request body with a model as its JSON."""
    return {"required": required, "content": {"application/json": {"schema": schema_ref(model, "validation")}}}


def operation(
    name: str,
    summary: str,
    answers: Json,
    problems: Sequence[int],
    *parameters: Json,
    description: str = "",
    body: Json | None = None,
) -> Json:
    """One method of a path; `answers` by status, `problems` the statuses of problem details."""
    method: Json = {"operationId": name, "summary": summary}
    method |= {"description": description} if description else {}
    method |= {"parameters": list(parameters)} if parameters else {}
    method |= {"requestBody": body} if body else {}
    refusals = {
        str(code): {"description": _TITLES[code], "content": {MEDIA_TYPE: {"schema": schema_ref(ProblemDetails)}}}
        for code in problems
    }
    return method | {"responses": answers | refusals}


def header_parameter(name: str, description: str, *, required: bool = False, schema: Json | None = None) -> Json:
    """A header parameter."""
    place = {"name": name, "in": "header", "required": required}
    return place | {"description": description, "schema": schema or {"type": "string"}}


def query_parameter(name: str, description: str, schema: Json) -> Json:
    """A query parameter."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def path_parameter(name: str, description: str) -> Json:
    """A path parameter that is an id."""
    schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}
