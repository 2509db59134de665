"""The paths of the OpenAPI document that tell what a task did and why, what holds tasks up, and dead letters."""

from bulkhead_contracts.budget import DeadLetter
from bulkhead_services.gateway.http import history_schemas, schemas
from bulkhead_services.gateway.http import operator_schemas as operators
from bulkhead_services.gateway.http.openapi_parts import (
    CHANGE,
    KEY_SCHEMA,
    TEXT,
    Json,
    answer_of,
    body_of,
    header_parameter,
    operation,
    path_parameter,
    query_parameter,
    schema_ref,
)

_READ = (401, 403, 503)
CONFIG_ID = "^[A-Za-z0-9_.-]{1,64}$"
_TASK = path_parameter("task_id", "The task's id")
_SIZE = query_parameter("limit", "Rows per page", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20})
_CHANGED = {
    "description": "Each event of the stream",
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["changed"]},
        "retry": {"type": "integer"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": schema_ref(schemas.ChangesDocument),
        },
    },
}
_CONTENT = (
    "Texts of models, tools, documents and people are shown to operators, and to the person who submitted the task "
    "where the tenant's output policy delivers drafts; each look at them is logged. Others get names, outcomes, "
    "sources and costs."
)

CHANGES: Json = {
    "/v1/changes": {
        "get": operation(
            "watchTasks",
            "Stream the ids of the tenant's tasks as something of them changes",
            {"200": {"description": "The stream", "content": {"text/event-stream": {"schema": _CHANGED}}}},
            (401, 403, 429, 503),
            description="Server-sent events `changed`, ten a second at most, the first at once and without a task; "
            "`data` is a ChangesDocument. Nothing is sent again: a client that was away reads anew what it shows.",
        )
    }
}

_CONFIG = {**path_parameter("config_id", "The config's id"), "schema": {"type": "string", "pattern": CONFIG_ID}}
_OF_PUSH = (
    "For submitters and operators, where the tenant's row names hosts (`push`). Each change of the task's state is "
    "posted, in the form of A2A; the first post says how it stands when the config is set."
)
PUSH: Json = {
    "/v1/tasks/{task_id}/push": {
        "get": operation(
            "listPush",
            "List where push notifications of a task go",
            {"200": answer_of(history_schemas.PushPage, "All of them")},
            (*_READ, 404),
            _TASK,
            description=_OF_PUSH,
        )
    },
    "/v1/tasks/{task_id}/push/{config_id}": {
        "get": operation(
            "showPush",
            "Show one of them, and whether it was given up",
            {"200": answer_of(history_schemas.PushDocument, "It")},
            (*_READ, 404, 422),
            _TASK,
            _CONFIG,
        ),
        "put": operation(
            "setPush",
            "Have a task's states posted to a URL",
            {"200": answer_of(history_schemas.PushDocument, "As it stands; the same again changes nothing")},
            (400, *_READ, 404, 408, 409, 413, 422, 429),
            _TASK,
            _CONFIG,
            description=_OF_PUSH,
            body=body_of(history_schemas.PushSubmission),
        ),
        "delete": operation(
            "deletePush",
            "Post nothing more there",
            {"200": answer_of(history_schemas.PushPage, "Those that are left")},
            (*_READ, 404, 422),
            _TASK,
            _CONFIG,
        ),
    },
}

_COORDINATION: Json = {
    "/v1/coordination": {
        "get": operation(
            "showCoordination",
            "Show who waits for whom, loops, chatter and broken circles, and windows of breakers; for operators and "
            "auditors",
            {"200": answer_of(operators.CoordinationPage, "As it stands now")},
            _READ,
        )
    },
    "/v1/mesh": {
        "get": operation(
            "showMesh",
            "Show replicas, lag, failures and dead letters of services and the messages between them; for operators "
            "and auditors",
            {"200": answer_of(operators.MeshPage, "As it stands now")},
            _READ,
            description="Of the whole mesh: an operator of any tenant sees its load, and no tenant, task or person. "
            "`replicas` is null while the broker cannot tell how many there are.",
        )
    },
}

_SUBSCRIBERS: Json = {
    "/v1/subscribers": {
        "get": operation(
            "listSubscribers",
            "List the tenant's outside subscribers: events that wait for each, and that it has not acknowledged; for "
            "operators and auditors",
            {"200": answer_of(operators.SubscriberPage, "As it stands now")},
            _READ,
        )
    }
}

_DEAD_LETTERS: Json = {
    "/v1/dead-letters": {
        "get": operation(
            "listDeadLetters",
            "List the tenant's messages that a service could not handle, the oldest first; for operators and auditors",
            {"200": answer_of(operators.DeadLetterPage, "A page")},
            (*_READ, 422),
            query_parameter(
                "all", "Those too that were sent again or dismissed", {"type": "boolean", "default": False}
            ),
            _SIZE,
            query_parameter("cursor", "`next` of the previous page", {"type": "string"}),
            description="A page is chosen from 2,000 letters at most: it may be short, and `next` leads on. Reasons "
            "may quote what a message holds: operators alone are told them, and each look is logged.",
        )
    },
    "/v1/dead-letters/{letter_id}": {
        "get": operation(
            "showDeadLetter",
            "Show one of them, for operators with headers and body as text",
            {"200": answer_of(operators.DeadLetterDocument, "The letter")},
            (*_READ, 404, 409, 422),
            path_parameter("letter_id", "The letter's id, or its first characters, four at least"),
            description="Grants, vouchers and whatever looks like a key are left out; each look at content is logged.",
        )
    },
    "/v1/dead-letters/{letter_id}/dismiss": {
        "post": operation(
            "dismissDeadLetter",
            "Say that a dead letter needs no action; its message stays stored",
            {"200": answer_of(DeadLetter, "The letter, with what was done about it")},
            (*CHANGE, 404),
            path_parameter("letter_id", "The letter's id, or its first characters, four at least"),
            header_parameter("Idempotency-Key", "A repeat under it counts once", schema=KEY_SCHEMA),
            body=body_of(operators.DismissalSubmission),
        )
    },
}

TROUBLES = _COORDINATION | _SUBSCRIBERS | _DEAD_LETTERS

HISTORIES: Json = {
    "/v1/tasks/{task_id}/why": {
        "get": operation(
            "explainTask",
            "Tell what a task did and why: plan, calls, sources, costs, refusals, and the cause of a failure",
            {"200": answer_of(history_schemas.StoryDocument, "The story")},
            (*_READ, 404, 422, 429),
            _TASK,
            query_parameter("all", "Every call, message and sentence, uncut", {"type": "boolean", "default": False}),
            description=_CONTENT,
        )
    },
    "/v1/tasks/{task_id}/timeline": {
        "get": operation(
            "showTimeline",
            "List a task's messages and calls in order: arguments, results, attempts, waits, writes",
            {"200": answer_of(history_schemas.TimelinePage, "A page")},
            (*_READ, 404, 422, 429),
            _TASK,
            _SIZE,
            query_parameter("after", "`next` of the previous page", {"type": "integer", "minimum": 0, "default": 0}),
            description=_CONTENT,
        )
    },
    "/v1/tasks/{task_id}/messages/{message_id}": {
        "get": operation(
            "showMessage",
            "Show one message of a task as it stands in the journal: its headers and its body",
            {"200": answer_of(history_schemas.MessageDocument, "The message")},
            (*_READ, 404, 429),
            _TASK,
            path_parameter("message_id", "The message's id, as the timeline and the evidence of findings have it"),
            description=f"{_CONTENT} Grants and approvals in it have no signature and vouchers are left out.",
        )
    },
    "/v1/tasks/{task_id}/calls/{call_id}": {
        "get": operation(
            "showCall",
            "Show one call of a task: what it was given, its answer, sources, versions, attempts, waits and cost",
            {"200": answer_of(history_schemas.CallDocument, "The call")},
            (*_READ, 404, 429),
            _TASK,
            path_parameter("call_id", "The call's id, as story and timeline have it"),
            description=_CONTENT,
        )
    },
    "/v1/tasks/{task_id}/export": {
        "get": operation(
            "exportTask",
            "Export a task as a portable history, which `bulkhead replay` repeats on any machine",
            {
                "200": {
                    "description": "The history, a JSON object on each line",
                    "content": {"application/x-ndjson": {"schema": TEXT["schema"]}},
                    "headers": {"Content-Disposition": TEXT},
                }
            },
            (*_READ, 404, 413, 429),
            _TASK,
            description="For those who may read its texts: operators, and the person who submitted it where drafts are "
            "delivered; each export is logged. Grants and approvals in it have no signature and vouchers are left out: "
            "it gives nobody any authority.",
        )
    },
}
