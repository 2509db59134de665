"""The HTTP API as an OpenAPI 3.1 document; schemas are generated from the pydantic models.

In: nothing. Out: a dictionary, always the same; `make render` writes it to contracts/openapi.json.
"""

from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from bulkhead_contracts import bounds
from bulkhead_contracts.control import Breaker, Halt
from bulkhead_services.gateway.http.openapi_parts import (
    CHANGE,
    EVENT,
    KEY_SCHEMA,
    NAME_SCHEMA,
    TEXT,
    Json,
    answer_of,
    body_of,
    header,
    operation,
    path,
    query,
)
from bulkhead_services.gateway.http.operator_schemas import (
    KINDS,
    SINCE,
    BreakerPage,
    HaltPage,
    HaltSubmission,
    LimitPage,
    LimitSubmission,
    ResetSubmission,
    SpendPage,
    TopUpReceipt,
    TopUpSubmission,
)
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
from bulkhead_services.gateway.problems import ProblemDetails

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

EVENTS = """Server-sent events, in order. Every `id:` is opaque: send the last one as `Last-Event-ID` to resume
after it.

`task.queued`, `task.released`, `task.accepted`, `plan.rejected`, `plan.adopted`, `step.started`, `step.ended`,
`task.paused` (`reason` says what holds the task back and what lets it go on), `task.resumed`, `task.ended`,
`task.rejected` and `budget.alerted` (a limit of the task is near) are stored facts: each arrives exactly once. `text`
carries a step's text while it is written: {step_id, attempt, call_id, offset, text, replace}. Keep the first `offset`
characters (Unicode code points) of the step's text and append `text`; `replace` set to true withdraws text that was
shown before. The text is complete before `step.ended` with outcome `accepted`. `task.ended` carries the answer, and
the stream ends after it; reconnecting then gives 204. Lines that begin with a colon are heartbeats."""

_TASK = path("task_id", "The task's id")
_SIZE = query("limit", "Rows per page", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20})
_ONCE = header(
    "Idempotency-Key",
    "Optional. A repeat under the same key counts once, even if others have made changes since; a repeat with other "
    "content is refused",
    schema=KEY_SCHEMA,
)


def _tasks() -> Json:
    key = header(
        "Idempotency-Key",
        "A random value, sent again when the request is repeated: a repeat never makes a second task. The key is "
        "remembered until the task is purged after its retention (30 days after its end, unless the operator chose "
        "another); after that it makes a new task",
        required=True,
        schema=KEY_SCHEMA,
    )
    cursor = query("cursor", "`next` of the previous page", {"type": "string", "pattern": "^[A-Za-z0-9_-]{11}$"})
    headers = {"Location": TEXT, "Idempotency-Replayed": TEXT}
    return {
        "post": operation(
            "submitTask",
            "Submit an objective; it is stored durably before the answer",
            {"202": answer_of(TaskReceipt, "Stored; the URLs show its progress", headers)},
            CHANGE,
            key,
            body=body_of(TaskSubmission),
        ),
        "get": operation(
            "listTasks",
            "List the tenant's tasks, the newest first",
            {"200": answer_of(TaskPage, "A page")},
            (401, 403, 422, 503),
            _SIZE,
            cursor,
        ),
    }


def _task() -> Json:
    answer = {"200": answer_of(TaskDocument, "The task")}
    return {"get": operation("showTask", "Show one task", answer, (401, 403, 404, 503), _TASK)}


def _events() -> Json:
    stream = {
        "description": "The stream",
        "content": {"text/event-stream": {"schema": EVENT}},
        "headers": {"X-Accel-Buffering": TEXT},
    }
    return {
        "get": operation(
            "watchTask",
            "Stream the events of a task as they happen",
            {"200": stream, "204": {"description": "The task has ended and this client has received all events"}},
            (400, 401, 403, 404, 429, 503),
            _TASK,
            header("Last-Event-ID", "Resume after this event"),
            query("last_event_id", "The same, for clients that cannot set headers", {"type": "string"}),
            description=EVENTS,
        )
    }


def _cancel() -> Json:
    return {
        "post": operation(
            "cancelTask",
            "Ask for a task to end",
            {"202": answer_of(CancelReceipt, "Stored; the planner ends the task", {"Location": TEXT})},
            (*CHANGE, 404),
            _TASK,
            body=body_of(CancelSubmission, required=False),
        )
    }


def _top_up() -> Json:
    return {
        "post": operation(
            "topUpTask",
            "Let a task spend more than its limits allow; for operators",
            {"200": answer_of(TopUpReceipt, "The sum of all its top-ups")},
            (*CHANGE, 404),
            _TASK,
            _ONCE,
            description="A task that is halted at its ceiling goes on at once, and finished work is not repeated. The "
            "operator, the amount and the reason are kept as a fact.",
            body=body_of(TopUpSubmission),
        )
    }


def _documents() -> Json:
    file = {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
    upload = {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {"schema": file},
        },
    }
    headers = {"Location": TEXT}
    name = query("name", "The document's name", NAME_SCHEMA)
    return {
        "get": operation(
            "listDocuments",
            "List the tenant's documents, by name",
            {"200": answer_of(DocumentPage, "A page")},
            (401, 403, 422, 503),
            _SIZE,
            query("after", "`next` of the previous page", NAME_SCHEMA),
        ),
        "delete": operation(
            "deleteDocument",
            "Erase a document and all its versions from the store; a repeat is harmless",
            {
                "200": answer_of(DeletionReceipt, "Deleted"),
                "202": answer_of(DeletionReceipt, "In progress; repeat the request to see the outcome"),
            },
            (400, 401, 403, 404, 422, 503),
            name | {"required": True},
            header("Idempotency-Key", "Optional: repeats of one deletion get its first outcome", schema=KEY_SCHEMA),
            description="Tasks no longer find it. Answers that were given keep what they quote from it.",
        ),
        "post": operation(
            "addDocument",
            f"Add a document (at most {bounds.MAX_BLOB_BYTES} bytes) to the tenant's store",
            {
                "200": answer_of(DocumentReceipt, "Already stored, unchanged", headers),
                "201": answer_of(DocumentReceipt, "Stored", headers),
                "202": answer_of(DocumentReceipt, "In progress; status_url shows the outcome", headers),
            },
            (400, 401, 403, 408, 413, 422, 429, 503),
            name,
            header("Idempotency-Key", "Optional: repeats of one ingestion get its first outcome", schema=KEY_SCHEMA),
            description="Raw bytes with `name` in the query (the media type comes from Content-Type or the name), or a "
            "form. A document of the same name is replaced, and `replaced_sha256` in the answer says so.",
            body=upload,
        ),
    }


def _document_receipt() -> Json:
    return {
        "get": operation(
            "showDocument",
            "Show the outcome of an ingestion",
            {
                "200": answer_of(DocumentReceipt, "Already stored, unchanged"),
                "201": answer_of(DocumentReceipt, "Stored"),
            },
            (401, 403, 404, 422, 503),
            path("ingest_id", "The ingestion's id"),
        )
    }


def _halts() -> Json:
    answer = {"200": answer_of(HaltPage, "The halts in force")}
    return {
        "get": operation("listHalts", "List the halts set by people, the oldest first", answer, (401, 403, 503)),
        "post": operation(
            "halt",
            "Halt a part of the tenant: its work waits until it is resumed",
            {"200": answer_of(Halt, "The halt's state")},
            CHANGE,
            _ONCE,
            description="Streams in progress are cut, and tool calls that have not started are deferred. Deadlines are "
            "not extended. A repeat is harmless.",
            body=body_of(HaltSubmission),
        ),
    }


def _resumes() -> Json:
    return {
        "post": operation(
            "resume",
            "Lift a halt of the tenant",
            {"200": answer_of(Halt, "The halt's state")},
            CHANGE,
            _ONCE,
            description="Only halts set by people of the tenant can be lifted. Finished work is not repeated.",
            body=body_of(HaltSubmission),
        )
    }


def _limits() -> Json:
    return {
        "get": operation(
            "showLimits", "Show the tenant's limits", {"200": answer_of(LimitPage, "The limits")}, (401, 403, 503)
        ),
        "put": operation(
            "changeLimit",
            "Set, change or remove the limit of one target",
            {"200": answer_of(LimitPage, "All limits after the change")},
            CHANGE,
            _ONCE,
            description="It holds from the next admission on. The operator, the time and both limits (old and new) are "
            "kept as a fact.",
            body=body_of(LimitSubmission),
        ),
    }


def _spend() -> Json:
    since = {"type": "string", "pattern": f"^{SINCE}$", "default": "24h"}
    return {
        "get": operation(
            "showSpending",
            "Show the cost of the tenant's calls, by name; for operators and auditors",
            {"200": answer_of(SpendPage, "The sums")},
            (401, 403, 409, 422, 503),
            query("by", "Key of the sums", {"type": "string", "enum": list(KINDS), "default": "agent"}),
            query("since", "Age of the oldest call, at most 31d", since),
            _SIZE | {"description": "Number of rows; the others are added up in one"},
            description="A call counts at the time of its admission. The sums are the providers' own counts.",
        )
    }


def _breakers() -> Json:
    answer = {"200": answer_of(BreakerPage, "The breakers")}
    return {
        "get": operation("listBreakers", "List breakers that have opened, the open ones first", answer, (401, 403, 503))
    }


def _reset() -> Json:
    return {
        "post": operation(
            "resetBreaker",
            "Close a breaker of the tenant after its cause is repaired",
            {"200": answer_of(Breaker, "The breaker's state")},
            CHANGE,
            _ONCE,
            description="The breaker of a tool, model or agent. A person whose own calls opened it cannot reset it: it "
            "is probed automatically, or another person resets it. The breaker of the tenant itself is only probed.",
            body=body_of(ResetSubmission),
        )
    }


def _probe(name: str, summary: str) -> Json:
    answers = {"200": answer_of(ServerHealth, "Yes"), "503": answer_of(ServerHealth, "No, with the reason")}
    return {"get": operation(name, summary, answers, ()) | {"security": []}}


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
            "description": "Submit objectives to the mesh, follow their progress, and add documents. Errors are RFC "
            "9457 problem details with a `hint`. All data is scoped to the tenant of the credentials.",
        },
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": {
            "/v1/tasks": _tasks(),
            "/v1/tasks/{task_id}": _task(),
            "/v1/tasks/{task_id}/events": _events(),
            "/v1/tasks/{task_id}/cancel": _cancel(),
            "/v1/tasks/{task_id}/topup": _top_up(),
            "/v1/documents": _documents(),
            "/v1/documents/{ingest_id}": _document_receipt(),
            "/v1/halts": _halts(),
            "/v1/resumes": _resumes(),
            "/v1/breakers": _breakers(),
            "/v1/resets": _reset(),
            "/v1/limits": _limits(),
            "/v1/spend": _spend(),
            "/livez": _probe("livez", "Whether the process runs"),
            "/readyz": _probe("readyz", "Whether it can take requests now"),
            "/startupz": _probe("startupz", "Whether the start has finished"),
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
