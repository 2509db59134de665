"""The paths of the OpenAPI document that tell what a task did and why: story, timeline, calls, export."""

from bulkhead_services.gateway.http import operator_schemas as operators
from bulkhead_services.gateway.http import schemas
from bulkhead_services.gateway.http.openapi_parts import TEXT, Json, answer_of, operation, path, query, ref

_READ = (401, 403, 503)
_TASK = path("task_id", "The task's id")
_SIZE = query("limit", "Rows per page", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20})
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
            "contentSchema": ref(schemas.ChangesDocument),
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

COORDINATION: Json = {
    "/v1/coordination": {
        "get": operation(
            "showCoordination",
            "Show who waits for whom, loops, chatter and broken circles, and windows of breakers; for operators and "
            "auditors",
            {"200": answer_of(operators.CoordinationPage, "As it stands now")},
            _READ,
        )
    }
}

HISTORIES: Json = {
    "/v1/tasks/{task_id}/why": {
        "get": operation(
            "explainTask",
            "Tell what a task did and why: plan, calls, sources, costs, refusals, and the cause of a failure",
            {"200": answer_of(schemas.StoryDocument, "The story")},
            (*_READ, 404, 422, 429),
            _TASK,
            query("all", "Every call, message and sentence, uncut", {"type": "boolean", "default": False}),
            description=_CONTENT,
        )
    },
    "/v1/tasks/{task_id}/timeline": {
        "get": operation(
            "showTimeline",
            "List a task's messages and calls in order: arguments, results, attempts, waits, writes",
            {"200": answer_of(schemas.TimelinePage, "A page")},
            (*_READ, 404, 422, 429),
            _TASK,
            _SIZE,
            query("after", "`next` of the previous page", {"type": "integer", "minimum": 0, "default": 0}),
            description=_CONTENT,
        )
    },
    "/v1/tasks/{task_id}/calls/{call_id}": {
        "get": operation(
            "showCall",
            "Show one call of a task: what it was given, its answer, sources, versions, attempts, waits and cost",
            {"200": answer_of(schemas.CallDocument, "The call")},
            (*_READ, 404, 429),
            _TASK,
            path("call_id", "The call's id, as story and timeline have it"),
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
