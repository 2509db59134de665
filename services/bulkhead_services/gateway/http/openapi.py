"""The HTTP API as an OpenAPI 3.1 document; schemas are generated from the pydantic models.

In: nothing. Out: a dictionary, always the same; `make render` writes it to contracts/openapi.json.
"""

from functools import cache

from pydantic.json_schema import models_json_schema

from bulkhead_contracts import bounds
from bulkhead_contracts.control import Breaker, Halt
from bulkhead_services.gateway.http import approval_schemas as approvals
from bulkhead_services.gateway.http import operator_schemas as operators
from bulkhead_services.gateway.http import schemas
from bulkhead_services.gateway.http.approval_schemas import STATES
from bulkhead_services.gateway.http.openapi_histories import CHANGES, HISTORIES, PUSH, TROUBLES
from bulkhead_services.gateway.http.openapi_parts import (
    CHANGE,
    EVENT,
    FILTERS,
    KEY_SCHEMA,
    MODELS,
    NAME_SCHEMA,
    TEXT,
    Json,
    answer_of,
    body_of,
    header_parameter,
    operation,
    path_parameter,
    query_parameter,
)

API_VERSION = "1.0.0"

EVENTS = """Server-sent events, in order. Every `id:` is opaque: send the last one as `Last-Event-ID` to resume
after it.

`task.queued`, `task.released`, `task.accepted`, `plan.rejected`, `plan.adopted`, `step.started`, `step.ended`,
`task.paused` (`reason` says what holds the task back and what lets it go on), `task.resumed`, `task.ended`,
`task.rejected` and `budget.alerted` (a limit of the task is near) are stored facts: each arrives exactly once. `text`
carries a step's text while it is written: {step_id, attempt, call_id, offset, text, replace}. Keep the first `offset`
characters (Unicode code points) of the step's text and append `text`; `replace` set to true withdraws text that was
shown before. The text is complete before `step.ended` with outcome `accepted`. `task.ended` carries the answer, and
the stream ends after it; reconnecting then gives 204. Lines that begin with a colon are heartbeats."""

_READ = (401, 403, 503)
_TASK = path_parameter("task_id", "The task's id")
_SIZE = query_parameter("limit", "Rows per page", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20})
_CURSOR = query_parameter("cursor", "`next` of the previous page", {"type": "string", "pattern": "^[A-Za-z0-9_-]{11}$"})
_NAME = query_parameter("name", "The document's name", NAME_SCHEMA)
_LOCATION = {"Location": TEXT}
_KEY = header_parameter(
    "Idempotency-Key",
    "A random value, sent again when the request is repeated: a repeat never makes a second task. The key is "
    "remembered until the task is purged after its retention (30 days after its end, unless the operator chose "
    "another); after that it makes a new task",
    required=True,
    schema=KEY_SCHEMA,
)
_ONCE = header_parameter(
    "Idempotency-Key",
    "Optional. A repeat under the same key counts once, even if others have made changes since; a repeat with other "
    "content is refused",
    schema=KEY_SCHEMA,
)
_FIRST_OUTCOME = "Optional: repeats of one {} get its first outcome"

_TASKS: Json = {
    "/v1/tasks": {
        "post": operation(
            "submitTask",
            "Submit an objective; it is stored durably before the answer",
            {
                "202": answer_of(
                    schemas.TaskReceipt,
                    "Stored; the URLs show its progress",
                    _LOCATION | {"Idempotency-Replayed": TEXT},
                )
            },
            CHANGE,
            _KEY,
            body=body_of(schemas.TaskSubmission),
        ),
        "get": operation(
            "listTasks",
            "List the tenant's tasks, the newest first",
            {"200": answer_of(schemas.TaskPage, "A page")},
            (401, 403, 422, 503),
            _SIZE,
            _CURSOR,
            query_parameter("opened_by", "Only the runs of agents outside", {"type": "string", "enum": ["doors"]}),
            *FILTERS,
        ),
    },
    "/v1/tasks/{task_id}": {
        "get": operation(
            "showTask",
            "Show one task",
            {"200": answer_of(schemas.TaskDocument, "The task")},
            (401, 403, 404, 503),
            _TASK,
        )
    },
    "/v1/tasks/{task_id}/events": {
        "get": operation(
            "watchTask",
            "Stream the events of a task as they happen",
            {
                "200": {
                    "description": "The stream",
                    "content": {"text/event-stream": {"schema": EVENT}},
                    "headers": {"X-Accel-Buffering": TEXT},
                },
                "204": {"description": "The task has ended and this client has received all events"},
            },
            (400, 401, 403, 404, 429, 503),
            _TASK,
            header_parameter("Last-Event-ID", "Resume after this event"),
            query_parameter("last_event_id", "The same, for clients that cannot set headers", {"type": "string"}),
            description=EVENTS,
        )
    },
    "/v1/tasks/{task_id}/citations": {
        "get": operation(
            "listCitations",
            "List what the markers of a task's answer cite",
            {"200": answer_of(schemas.CitationPage, "The citations")},
            (401, 403, 404, 503),
            _TASK,
        )
    },
    "/v1/tasks/{task_id}/citations/{marker}": {
        "get": operation(
            "showCitation",
            "Show the text behind a marker, from the version that was cited",
            {"200": answer_of(schemas.CitationDocument, "The citation")},
            (401, 403, 404, 503),
            _TASK,
            path_parameter("marker", "The 12 hexadecimal digits of [#...]"),
        )
    },
    "/v1/tasks/{task_id}/cancel": {
        "post": operation(
            "cancelTask",
            "Ask for a task to end",
            {"202": answer_of(schemas.CancelReceipt, "Stored; the planner ends the task", _LOCATION)},
            (*CHANGE, 404),
            _TASK,
            body=body_of(schemas.CancelSubmission, required=False),
        )
    },
    "/v1/tasks/{task_id}/topup": {
        "post": operation(
            "topUpTask",
            "Let a task spend more than its limits allow; for operators",
            {"200": answer_of(operators.TopUpReceipt, "The sum of all its top-ups")},
            (*CHANGE, 404),
            _TASK,
            _ONCE,
            description="A task that is halted at its ceiling goes on at once, and finished work is not repeated. The "
            "operator, the amount and the reason are kept as a fact.",
            body=body_of(operators.TopUpSubmission),
        )
    },
}

_DOCUMENTS: Json = {
    "/v1/documents": {
        "get": operation(
            "listDocuments",
            "List the tenant's documents, by name",
            {"200": answer_of(schemas.DocumentPage, "A page")},
            (401, 403, 422, 503),
            _SIZE,
            query_parameter("after", "`next` of the previous page", NAME_SCHEMA),
        ),
        "delete": operation(
            "deleteDocument",
            "Erase a document and all its versions from the store; a repeat is harmless",
            {
                "200": answer_of(schemas.DeletionReceipt, "Deleted"),
                "202": answer_of(schemas.DeletionReceipt, "In progress; repeat the request to see the outcome"),
            },
            (400, 401, 403, 404, 422, 503),
            _NAME | {"required": True},
            header_parameter("Idempotency-Key", _FIRST_OUTCOME.format("deletion"), schema=KEY_SCHEMA),
            description="Tasks no longer find it. Answers that were given keep what they quote from it.",
        ),
        "post": operation(
            "addDocument",
            f"Add a document (at most {bounds.MAX_BLOB_BYTES} bytes) to the tenant's store",
            {
                "200": answer_of(schemas.DocumentReceipt, "Already stored, unchanged", _LOCATION),
                "201": answer_of(schemas.DocumentReceipt, "Stored", _LOCATION),
                "202": answer_of(schemas.DocumentReceipt, "In progress; status_url shows the outcome", _LOCATION),
            },
            (400, 401, 403, 408, 413, 422, 429, 503),
            _NAME,
            header_parameter("Idempotency-Key", _FIRST_OUTCOME.format("ingestion"), schema=KEY_SCHEMA),
            description="Raw bytes with `name` in the query (the media type comes from Content-Type or the name), or a "
            "form. A document of the same name is replaced, and `replaced_sha256` in the answer says so.",
            body={
                "required": True,
                "content": {
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "required": ["file"],
                            "properties": {"file": {"type": "string", "format": "binary"}},
                        }
                    },
                },
            },
        ),
    },
    "/v1/documents/{ingest_id}": {
        "get": operation(
            "showDocument",
            "Show the outcome of an ingestion",
            {
                "200": answer_of(schemas.DocumentReceipt, "Already stored, unchanged"),
                "201": answer_of(schemas.DocumentReceipt, "Stored"),
            },
            (401, 403, 404, 422, 503),
            path_parameter("ingest_id", "The ingestion's id"),
        )
    },
}

_APPROVAL = path_parameter("approval_id", "The approval's id")
_APPROVALS: Json = {
    "/v1/approvals": {
        "get": operation(
            "listApprovals",
            "List calls that wait for a person's word, or did, the newest first",
            {"200": answer_of(approvals.ApprovalPage, "The approvals")},
            (*_READ, 422),
            query_parameter("state", "How they stand", {"type": "string", "enum": list(STATES), "default": "waiting"}),
            query_parameter("task", "Only calls of this task", {"type": "string"}),
        )
    },
    "/v1/approvals/{approval_id}": {
        "get": operation(
            "showApproval",
            "Show a call exactly as it is made if it is granted",
            {"200": answer_of(approvals.ApprovalDocument, "The approval")},
            (*_READ, 404),
            _APPROVAL,
        ),
        "post": operation(
            "decide",
            "Grant or deny a call",
            {
                "200": answer_of(approvals.ApprovalDocument, "The approval with its end"),
                "202": answer_of(approvals.ApprovalDocument, "The decision is on its way to the executor"),
            },
            (400, *_READ, 404, 409, 413, 422),
            _APPROVAL,
            description="For approvers and operators. The digest binds the decision to the call that was read. The "
            "first decision counts; a tool may want another person than the one who asked for the task.",
            body=body_of(approvals.DecisionSubmission),
        ),
    },
}

_OPERATORS: Json = {
    "/v1/halts": {
        "get": operation(
            "listHalts",
            "List the halts set by people, the oldest first",
            {"200": answer_of(operators.HaltPage, "The halts in force")},
            _READ,
        ),
        "post": operation(
            "halt",
            "Halt a part of the tenant: its work waits until it is resumed",
            {"200": answer_of(Halt, "The halt's state")},
            CHANGE,
            _ONCE,
            description="Streams in progress are cut, and tool calls that have not started are deferred. Deadlines are "
            "not extended. A repeat is harmless.",
            body=body_of(operators.HaltSubmission),
        ),
    },
    "/v1/resumes": {
        "post": operation(
            "resume",
            "Lift a halt of the tenant",
            {"200": answer_of(Halt, "The halt's state")},
            CHANGE,
            _ONCE,
            description="Only halts set by people of the tenant can be lifted. Finished work is not repeated.",
            body=body_of(operators.HaltSubmission),
        )
    },
    "/v1/breakers": {
        "get": operation(
            "listBreakers",
            "List breakers that have opened, the open ones first",
            {"200": answer_of(operators.BreakerPage, "The breakers")},
            _READ,
        )
    },
    "/v1/resets": {
        "post": operation(
            "resetBreaker",
            "Close a breaker of the tenant after its cause is repaired",
            {"200": answer_of(Breaker, "The breaker's state")},
            CHANGE,
            _ONCE,
            description="The breaker of a tool, model or agent. A person whose own calls opened it cannot reset it: it "
            "is probed automatically, or another person resets it. The breaker of the tenant itself is only probed.",
            body=body_of(operators.ResetSubmission),
        )
    },
    "/v1/limits": {
        "get": operation(
            "showLimits",
            "Show the tenant's limits",
            {"200": answer_of(operators.LimitPage, "The limits")},
            (*_READ, 422),
            query_parameter("history", "Whether to tell the last changes, too", {"type": "boolean", "default": False}),
        ),
        "put": operation(
            "changeLimit",
            "Set, change or remove the limit of one target",
            {"200": answer_of(operators.LimitPage, "All limits after the change")},
            CHANGE,
            _ONCE,
            description="It holds from the next admission on. The operator, the time and both limits (old and new) are "
            "kept as a fact.",
            body=body_of(operators.LimitSubmission),
        ),
    },
    "/v1/spend": {
        "get": operation(
            "showSpending",
            "Show the cost of the tenant's calls, by name; for operators and auditors",
            {"200": answer_of(operators.SpendPage, "The sums")},
            (401, 403, 409, 422, 503),
            query_parameter(
                "by", "Key of the sums", {"type": "string", "enum": list(operators.KINDS), "default": "agent"}
            ),
            query_parameter(
                "since",
                "Age of the oldest call, at most 31d",
                {"type": "string", "pattern": f"^{operators.SINCE}$", "default": "24h"},
            ),
            _SIZE | {"description": "Number of rows; the others are added up in one"},
            query_parameter(
                "slices",
                "Number of equal parts of the time whose costs are told, too",
                {"type": "integer", "minimum": 0, "maximum": bounds.MAX_SPEND_SLICES, "default": 0},
            ),
            query_parameter(
                "tasks", f"Of calls of these alone: up to {bounds.MAX_SPEND_ROWS} ids, with commas", {"type": "string"}
            ),
            description="A call counts at the time of its admission. The sums are the providers' own counts.",
        )
    },
}


def _probe_path(name: str, summary: str) -> Json:
    """The path of a probe; it needs no credentials."""
    yes, no = answer_of(schemas.ServerHealth, "Yes"), answer_of(schemas.ServerHealth, "No, with the reason")
    return {f"/{name}": {"get": operation(name, summary, {"200": yes, "503": no}, ()) | {"security": []}}}


_PROBES: Json = (
    _probe_path("livez", "Whether the process runs")
    | _probe_path("readyz", "Whether it can take requests now")
    | _probe_path("startupz", "Whether the start has finished")
)


@cache
def openapi() -> Json:
    """The document."""
    _, definitions = models_json_schema(list(MODELS.items()), ref_template="#/components/schemas/{model}")
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
        "paths": _TASKS | CHANGES | PUSH | HISTORIES | _DOCUMENTS | _APPROVALS | _OPERATORS | TROUBLES | _PROBES,
        "components": {
            "schemas": dict(sorted(definitions["$defs"].items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (bk_…) or a JWT"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }
