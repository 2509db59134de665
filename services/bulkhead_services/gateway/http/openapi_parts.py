"""Building blocks of the OpenAPI document: operations, parameters, answers and problem details.

In: names, texts and pydantic models. Out: dictionaries as OpenAPI 3.1 has them.
"""

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from bulkhead.http_server.connections import MEDIA_TYPE
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Standing
from bulkhead_services.gateway.problems import ProblemDetails
from bulkhead_services.gateway.read_model.task_view import Status

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
    schema = {"content": {MEDIA_TYPE: {"schema": schema_ref(ProblemDetails)}}}
    method: Json = {"operationId": name, "summary": summary}
    method |= {"description": description} if description else {}
    method |= {"parameters": list(parameters)} if parameters else {}
    method |= {"requestBody": body} if body else {}
    return method | {"responses": answers | {str(code): {"description": _TITLES[code]} | schema for code in problems}}


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


KEY_SCHEMA = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
NAME_SCHEMA = {"type": "string", "minLength": 1, "maxLength": bounds.MAX_NAME_CHARS, "pattern": "^[ -~]+$"}
TEXT = {"schema": {"type": "string"}}
_WORD = {"type": "string", "maxLength": bounds.MAX_NAME_CHARS}
_ONE_OR_SEVERAL, _COMMAS = {"type": "array"}, {"style": "form", "explode": False}
FILTERS = (
    query_parameter(
        "text", "Words that the objective or the id has, in any order; small letters and capitals alike", _WORD
    ),
    query_parameter(
        "status", "Only tasks of these statuses", _ONE_OR_SEVERAL | {"items": {"enum": list(get_args(Status))}}
    )
    | _COMMAS,
    query_parameter("person", "Only tasks of this person", _WORD),
    query_parameter("feature", "Only tasks of this feature", _WORD),
    query_parameter(
        "standing", "Only results of these", _ONE_OR_SEVERAL | {"items": {"enum": list(get_args(Standing))}}
    )
    | _COMMAS,
    query_parameter("fork_of", "Only forks of this task", _WORD),
)
"""Of a list of tasks. A page reads 500 tasks at most: it may be short, and `next` leads on. What has not ended is found
at once."""
EVENT_NAMES = (
    "task.queued task.released task.accepted plan.rejected plan.adopted step.started step.ended task.paused "
    "task.resumed task.ended task.rejected budget.alerted text"
)
EVENT = {
    "description": "Each event of the stream",
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": EVENT_NAMES.split()},
        "retry": {"type": "integer"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
