"""The HTTP API as an OpenAPI 3.1 document; schemas are generated from the pydantic models.

In: nothing. Out: a dict, the same every time; `make render` writes it to contracts/openapi.json.
"""

from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from bulkhead_contracts import bounds
from bulkhead_contracts.control import Breaker, Halt
from bulkhead_services.gateway.http.routes.halts import BreakerPage, HaltPage, HaltSubmission, ResetSubmission
from bulkhead_services.gateway.http.routes.spending import KINDS, SINCE, LimitPage, LimitSubmission, SpendPage
from bulkhead_services.gateway.http.routes.topups import TopUpReceipt, TopUpSubmission
from bulkhead_services.gateway.http.schemas import (
    CancelReceipt,
    CancelSubmission,
    DeletionReceipt,
    DocumentPage,
    DocumentReceipt,
    ServerHealth,
    TaskDocument,
    TaskPage,
    TaskReceipt,
    TaskSubmission,
)
from bulkhead_services.gateway.problems import MEDIA_TYPE, ProblemDetails

API_VERSION = "1.0.0"
_INPUTS = (TaskSubmission, CancelSubmission, HaltSubmission, ResetSubmission, LimitSubmission, TopUpSubmission)
_OUTPUTS = (
    TaskReceipt,
    CancelReceipt,
    TaskPage,
    TaskDocument,
    DocumentReceipt,
    DocumentPage,
    DeletionReceipt,
    Halt,
    HaltPage,
    Breaker,
    BreakerPage,
    LimitPage,
    SpendPage,
    TopUpReceipt,
    ServerHealth,
    ProblemDetails,
)

_TITLES = {
    400: "Idempotency-Key is missing, or the body is not JSON",
    401: "No credentials, or unknown ones",
    403: "The role, or the tenant's policy, does not allow this",
    404: "No such thing in the caller's tenant",
    409: "The same key is being handled right now, or what is asked for has ended",
    408: "The body came too slowly",
    413: "Larger than the limit, which the answer names",
    422: "A field does not fit, or the key was used for other content",
    429: "The caller, or its tenant, submits too many tasks, has too many waiting, has too many event streams open, or "
    "sends too much at once; Retry-After says when to come back",
    503: "Something that this depends on does not answer; nothing was lost",
}

EVENTS = """Server-sent events, in order. Every `id:` is opaque: send the last one as `Last-Event-ID` to go on after it.

`task.queued`, `task.released`, `task.accepted`, `plan.rejected`, `plan.adopted`, `step.started`, `step.ended`,
`task.paused` (held back where it stands: `reason` says by what, and what lets it go on), `task.resumed`, `task.ended`,
`task.rejected`, `budget.alerted` (a limit of the task comes near) are stored facts: each arrives exactly once. `text`
carries a step's text as it is written: {step_id, attempt, call_id, offset, text, replace}. Keep the first `offset`
characters (Unicode code points) of what you have for that step and append `text`; when `replace` is true, something
shown before is withdrawn. Before `step.ended` with outcome `accepted` the text is whole. `task.ended` carries the
answer. After it the stream ends; reconnecting then gives 204.
Lines beginning with a colon are heartbeats."""


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _json(model: type[BaseModel], description: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"description": description, "content": {"application/json": {"schema": _ref(model)}}}
    return found | ({"headers": headers} if headers else {})


def _problems(*codes: int) -> dict[str, Any]:
    return {
        str(code): {"description": _TITLES[code], "content": {MEDIA_TYPE: {"schema": _ref(ProblemDetails)}}}
        for code in codes
    }


def _header(name: str, description: str, *, required: bool = False, schema: Any = None) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": required,
        "description": description,
        "schema": schema or {"type": "string"},
    }


def _query(name: str, description: str, schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _path(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    }


_KEY_SCHEMA = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
_TEXT = {"schema": {"type": "string"}}
_NAMES = (
    "task.queued",
    "task.released",
    "task.accepted",
    "plan.rejected",
    "plan.adopted",
    "step.started",
    "step.ended",
    "task.paused",
    "task.resumed",
    "task.ended",
    "task.rejected",
    "budget.alerted",
    "text",
)
_EVENT = {
    "description": "Each event of the stream",
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": list(_NAMES)},
        "retry": {"type": "integer"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_TASK = _path("task_id", "The task's id")
_ONCE = _header(
    "Idempotency-Key",
    "Optional: a repeat under the same key counts once, also when others changed it "
    "since, and one with another content is refused",
    schema=_KEY_SCHEMA,
)


def _tasks() -> dict[str, Any]:
    return {
        "post": {
            "operationId": "submitTask",
            "summary": "Submit an objective; it is stored durably before the answer",
            "parameters": [
                _header(
                    "Idempotency-Key",
                    "Random; the same when you repeat a request: a repeat is "
                    "never a second task. Remembered as long as the task is: until it is purged after "
                    "its retention (30 days after its end, unless the operator chose another); then "
                    "the same key begins a new task",
                    required=True,
                    schema=_KEY_SCHEMA,
                )
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(TaskSubmission)}}},
            "responses": {
                "202": _json(
                    TaskReceipt,
                    "Stored; follow it under these URLs",
                    {"Location": _TEXT, "Idempotency-Replayed": _TEXT},
                ),
                **_problems(400, 401, 403, 408, 409, 413, 422, 429, 503),
            },
        },
        "get": {
            "operationId": "listTasks",
            "summary": "The tenant's tasks, the newest first",
            "parameters": [
                _query("limit", "How many", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
                _query("cursor", "`next` of the page before", {"type": "string", "pattern": "^[A-Za-z0-9_-]{11}$"}),
            ],
            "responses": {"200": _json(TaskPage, "A page"), **_problems(401, 403, 422, 503)},
        },
    }


def _one_task() -> dict[str, Any]:
    return {
        "get": {
            "operationId": "showTask",
            "summary": "Everything about a task",
            "parameters": [_TASK],
            "responses": {"200": _json(TaskDocument, "The task"), **_problems(401, 403, 404, 503)},
        }
    }


def _events() -> dict[str, Any]:
    return {
        "get": {
            "operationId": "watchTask",
            "summary": "What happens, as it happens",
            "description": EVENTS,
            "parameters": [
                _TASK,
                _header("Last-Event-ID", "Go on after this event"),
                _query("last_event_id", "The same, for clients that cannot set headers", {"type": "string"}),
            ],
            "responses": {
                "200": {
                    "description": "The stream",
                    "content": {"text/event-stream": {"schema": _EVENT}},
                    "headers": {"X-Accel-Buffering": _TEXT},
                },
                "204": {"description": "The task has ended and this client has seen all of it"},
                **_problems(400, 401, 403, 404, 429, 503),
            },
        }
    }


def _cancel() -> dict[str, Any]:
    return {
        "post": {
            "operationId": "cancelTask",
            "summary": "Ask for a task to end",
            "parameters": [_TASK],
            "requestBody": {"required": False, "content": {"application/json": {"schema": _ref(CancelSubmission)}}},
            "responses": {
                "202": _json(CancelReceipt, "Stored; the planner ends the task", {"Location": _TEXT}),
                **_problems(400, 401, 403, 404, 408, 409, 413, 422, 429, 503),
            },
        }
    }


def _top_up() -> dict[str, Any]:
    return {
        "post": {
            "operationId": "topUpTask",
            "summary": "Let a task spend more than its limits say; for operators",
            "description": "Halted at its ceiling, it goes on where it stands, at once: what is done is not done "
            "again. "
            "Who, how much and why are kept as a fact.",
            "parameters": [_TASK, _ONCE],
            "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(TopUpSubmission)}}},
            "responses": {
                "200": _json(TopUpReceipt, "What all its top-ups come to"),
                **_problems(400, 401, 403, 404, 408, 409, 413, 422, 429, 503),
            },
        }
    }


def _documents() -> dict[str, Any]:
    file = {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
    headers = {"Location": _TEXT}
    name_schema = {"type": "string", "minLength": 1, "maxLength": bounds.MAX_NAME_CHARS, "pattern": "^[ -~]+$"}
    listing = {
        "operationId": "listDocuments",
        "summary": "The tenant's documents, by name",
        "parameters": [
            _query("limit", "How many", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
            _query("after", "`next` of the page before", name_schema),
        ],
        "responses": {"200": _json(DocumentPage, "A page"), **_problems(401, 403, 422, 503)},
    }
    deletion = {
        "operationId": "deleteDocument",
        "summary": "Erase a document and every version of it from the store; repeating is harmless",
        "description": "It is not found any more by tasks. Answers that were given stay, and what they quote.",
        "parameters": [
            _query("name", "The document's name", name_schema) | {"required": True},
            _header("Idempotency-Key", "Optional: repeats of one deletion get its first outcome", schema=_KEY_SCHEMA),
        ],
        "responses": {
            "200": _json(DeletionReceipt, "Gone"),
            "202": _json(DeletionReceipt, "Under way; repeat to see"),
            **_problems(400, 401, 403, 404, 422, 503),
        },
    }
    return {
        "get": listing,
        "delete": deletion,
        "post": {
            "operationId": "addDocument",
            "summary": f"Add a document (at most {bounds.MAX_BLOB_BYTES} bytes) to the tenant's store",
            "description": "Raw bytes with `name` in the query (media type from Content-Type or the name), or a form. "
            "A "
            "document of the same name is replaced; the answer says so (`replaced_sha256`).",
            "parameters": [
                _query("name", "The document's name", name_schema),
                _header(
                    "Idempotency-Key", "Optional: repeats of one ingestion get its first outcome", schema=_KEY_SCHEMA
                ),
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                    "multipart/form-data": {"schema": file},
                },
            },
            "responses": {
                "200": _json(DocumentReceipt, "Already there, unchanged", headers),
                "201": _json(DocumentReceipt, "Taken in", headers),
                "202": _json(DocumentReceipt, "Under way; ask at status_url", headers),
                **_problems(400, 401, 403, 408, 413, 422, 429, 503),
            },
        },
    }


def _one_document() -> dict[str, Any]:
    return {
        "get": {
            "operationId": "showDocument",
            "summary": "How an ingestion ended",
            "parameters": [_path("ingest_id", "The ingestion's id")],
            "responses": {
                "200": _json(DocumentReceipt, "Already there, unchanged"),
                "201": _json(DocumentReceipt, "Taken in"),
                **_problems(401, 403, 404, 422, 503),
            },
        }
    }


def _halts() -> dict[str, Any]:
    return {
        "get": {
            "operationId": "listHalts",
            "summary": "What people have halted, the oldest first",
            "responses": {"200": _json(HaltPage, "What stands"), **_problems(401, 403, 503)},
        },
        "post": _switch(
            "halt",
            "Halt something of your tenant: its work waits until it is resumed",
            "Streams in flight are cut, tool calls that were not started are put off. The clock of a "
            "task's deadline goes on. Repeating is harmless.",
        ),
    }


def _switch(name: str, summary: str, description: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "description": description,
        "parameters": [_ONCE],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(HaltSubmission)}}},
        "responses": {
            "200": _json(Halt, "How it stands now"),
            **_problems(400, 401, 403, 408, 409, 413, 422, 429, 503),
        },
    }


def _limits() -> dict[str, Any]:
    return {
        "get": {
            "operationId": "showLimits",
            "summary": "The tenant's limits",
            "responses": {"200": _json(LimitPage, "As they stand"), **_problems(401, 403, 503)},
        },
        "put": {
            "operationId": "changeLimit",
            "summary": "Set, change or remove the limit of one target",
            "description": "Holds from the next admission on. Who, when, the old and the new are kept as a fact.",
            "parameters": [_ONCE],
            "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(LimitSubmission)}}},
            "responses": {
                "200": _json(LimitPage, "All limits as they stand now"),
                **_problems(400, 401, 403, 408, 409, 413, 422, 429, 503),
            },
        },
    }


def _spend() -> dict[str, Any]:
    return {
        "get": {
            "operationId": "showSpending",
            "summary": "What the tenant's calls cost, by name; for operators and auditors",
            "description": "Calls count for the time in which they were admitted. Sums are the providers' own counts.",
            "parameters": [
                _query("by", "What to sum by", {"type": "string", "enum": list(KINDS), "default": "agent"}),
                _query(
                    "since", "How far back, at most 31d", {"type": "string", "pattern": f"^{SINCE}$", "default": "24h"}
                ),
                _query(
                    "limit",
                    "So many rows; the others come as one sum",
                    {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
                ),
            ],
            "responses": {"200": _json(SpendPage, "The sums"), **_problems(401, 403, 409, 422, 503)},
        }
    }


def _breakers() -> dict[str, Any]:
    return {
        "get": {
            "operationId": "listBreakers",
            "summary": "Breakers that have opened, the open ones first",
            "responses": {"200": _json(BreakerPage, "How they stand"), **_problems(401, 403, 503)},
        }
    }


def _reset() -> dict[str, Any]:
    return {
        "post": {
            "operationId": "resetBreaker",
            "summary": "Close a breaker of your tenant whose cause is mended",
            "description": "Of a tool, model or agent. Not for whom the calls were made that opened it, nor of the "
            "tenant "
            "itself: those are tried again by themselves, or reset by somebody else.",
            "parameters": [_ONCE],
            "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(ResetSubmission)}}},
            "responses": {
                "200": _json(Breaker, "How it stands now"),
                **_problems(400, 401, 403, 408, 409, 413, 422, 429, 503),
            },
        }
    }


def _probe(name: str, summary: str) -> dict[str, Any]:
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "security": [],
            "responses": {"200": _json(ServerHealth, "Yes"), "503": _json(ServerHealth, "No, and why")},
        }
    }


@cache
def _document() -> dict[str, Any]:
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in _INPUTS]
    modes += [(model, "serialization") for model in _OUTPUTS]
    _, schemas = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Bulkhead gateway",
            "version": API_VERSION,
            "license": {"name": "Apache-2.0"},
            "description": "Submit objectives to the mesh, follow them, add documents. Errors are RFC 9457 problem "
            "details with a `hint`. Everything is scoped to the tenant of the credentials.",
        },
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": {
            "/v1/tasks": _tasks(),
            "/v1/tasks/{task_id}": _one_task(),
            "/v1/tasks/{task_id}/events": _events(),
            "/v1/tasks/{task_id}/cancel": _cancel(),
            "/v1/tasks/{task_id}/topup": _top_up(),
            "/v1/documents": _documents(),
            "/v1/documents/{ingest_id}": _one_document(),
            "/v1/halts": _halts(),
            "/v1/resumes": {
                "post": _switch(
                    "resume",
                    "Let something of your tenant go on",
                    "Only what a person of your tenant halted. Nothing is done again that was done.",
                )
            },
            "/v1/breakers": _breakers(),
            "/v1/resets": _reset(),
            "/v1/limits": _limits(),
            "/v1/spend": _spend(),
            "/livez": _probe("livez", "Whether the process runs"),
            "/readyz": _probe("readyz", "Whether it can serve requests now"),
            "/startupz": _probe("startupz", "Whether its start is over"),
        },
        "components": {
            "schemas": dict(sorted(schemas["$defs"].items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (bk_…) or a JWT"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def openapi() -> dict[str, Any]:
    """The document."""
    return _document()
