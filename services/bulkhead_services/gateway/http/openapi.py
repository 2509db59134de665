"""The HTTP API as an OpenAPI 3.1 document: reads from their rows, writes and streams from what stands here.

In: nothing. Out: a dictionary, always the same; `make render` writes it to contracts/openapi.json.
"""

import json
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from bulkhead.gateway_api import (
    approvals,
    documents,
    evaluations,
    histories,
    identities,
    operators,
    prompts,
    ratings,
    sessions,
    tasks,
    tools,
    workflows,
    writes,
)
from bulkhead.gateway_api.query import Query
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import DeadLetter
from bulkhead_contracts.control import Breaker, Halt
from bulkhead_contracts.evaluation import EvaluationRow
from bulkhead_contracts.prompt import PromptRelease, PromptVersion
from bulkhead_contracts.push import CONFIG_ID
from bulkhead_contracts.workflow import WorkflowRow
from bulkhead_services.gateway.http import schemas
from bulkhead_services.gateway.http.event_forms import EVENT, EVENTS
from bulkhead_services.gateway.http.field_texts import describe_fields
from bulkhead_services.gateway.http.operation_examples import add_example, problem_examples
from bulkhead_services.gateway.http.operation_forms import (
    CHANGE,
    MODELS,
    Json,
    answer_of,
    body_of,
    header_parameter,
    operation,
    path_parameter,
    query_parameter,
    schema_ref,
)
from bulkhead_services.gateway.http.sessions.operations import session_writes

API_VERSION = "1.0.0"
QUERIES: tuple[type[Query[Any]], ...] = tuple(
    query
    for room in (
        *(tasks, histories, documents, approvals, writes, prompts, evaluations, operators, tools),
        *(identities, ratings, sessions, workflows),
    )
    for query in vars(room).values()
    if isinstance(query, type) and issubclass(query, Query) and query.__module__ == room.__name__ and query.NAME
)
KEY_SCHEMA = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
NAME_SCHEMA = {"type": "string", "minLength": 1, "maxLength": bounds.MAX_NAME_CHARS, "pattern": "^[ -~]+$"}
TEXT = {"schema": {"type": "string"}}


def _query_operation(query: type[Query[Any]]) -> Json:
    """The operation of a read, as its class declares it."""
    return operation(
        query.NAME,
        query.summary(),
        {"200": answer_of(query.reply_model(), "The answer")},
        query.statuses(),
        *(_parameter_of(query, name, schema) for name, schema in query.model_json_schema()["properties"].items()),
        description=query.description(),
    )


def _parameter_of(query: type[Query[Any]], name: str, schema: Json) -> Json:
    absent = {"title", "description"} | ({"default"} if schema.get("default") in ("", []) else set())
    plain = {key: value for key, value in schema.items() if key not in absent}
    if query.in_path(name):
        return {"name": name, "in": "path", "required": True, "description": schema["description"], "schema": plain}
    several = {"style": "form", "explode": False} if schema["type"] == "array" else {}
    return query_parameter(name, schema["description"], plain) | several


_READ = (401, 403, 503)
_WORKFLOW = path_parameter("workflow", "The workflow's name, weekly-report")
_TASK = path_parameter("task_id", "The task's id")
_REASON = query_parameter(
    "reason", "The reason, which is kept with the request", {"type": "string", "maxLength": bounds.MAX_REASON_CHARS}
)
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

_APPROVAL = path_parameter("approval_id", "The approval's id")
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
_CONFIG = {**path_parameter("config_id", "The config's id"), "schema": {"type": "string", "pattern": CONFIG_ID}}

_WRITES: Json = {
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
            (*CHANGE, 404),
            _KEY,
            body=body_of(schemas.TaskSubmission),
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
    "/v1/tasks/{task_id}/plan": {
        "post": operation(
            "decidePlan",
            "Approve, edit or reject a task's drafted plan",
            {"202": answer_of(schemas.PlanDecisionReceipt, "Stored; the planner runs the plan, or not", _LOCATION)},
            (*CHANGE, 404, 409),
            _TASK,
            body=body_of(schemas.PlanDecisionSubmission),
        )
    },
    "/v1/tasks/{task_id}/topup": {
        "post": operation(
            "topUpTask",
            "Let a task spend more than its limits allow; for operators",
            {"200": answer_of(schemas.TopUpReceipt, "The sum of all its top-ups")},
            (*CHANGE, 404),
            _TASK,
            _ONCE,
            description="A task that is halted at its ceiling goes on at once, and finished work is not repeated. The "
            "operator, the amount and the reason are kept as a fact.",
            body=body_of(schemas.TopUpSubmission),
        )
    },
    "/v1/tasks/{task_id}/rating": {
        "put": operation(
            "rateTask",
            "Say whether a task's answer is good",
            {"200": answer_of(ratings.TaskRatings, "Ratings as they stand")},
            (*CHANGE, 404),
            _TASK,
            description="For everybody who may read the task. A person has one rating of each kind: a later one "
            "replaces it, and a repeat changes nothing. Of a comment keys and personal data are masked.",
            body=body_of(schemas.RatingSubmission),
        )
    },
    "/v1/documents": {
        "delete": operation(
            "deleteDocument",
            "Erase a document and all its versions from the store; a repeat is harmless",
            {
                "200": answer_of(schemas.DeletionReceipt, "Deleted"),
                "202": answer_of(schemas.DeletionReceipt, "In progress; repeat the request to see the outcome"),
            },
            (400, 401, 403, 404, 422, 503),
            _NAME | {"required": True},
            _REASON,
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
    "/v1/approvals/{approval_id}": {
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
            body=body_of(schemas.DecisionSubmission),
        )
    },
    "/v1/writes/{write_id}": {
        "post": operation(
            "resolveWrite",
            "Say what became of an uncertain write",
            {
                "200": answer_of(writes.WriteDocument, "The write with the word that stands"),
                "202": answer_of(writes.WriteDocument, "The word is on its way to the executor"),
            },
            (400, *_READ, 404, 409, 413, 422),
            path_parameter("write_id", "The write's id"),
            description="For approvers and operators. The next call alike has `result` as its answer, or makes the "
            "write where it did not happen. The first word stands; the same again is harmless.",
            body=body_of(schemas.ResolutionSubmission),
        )
    },
    "/v1/prompts/{prompt}": {
        "post": operation(
            "publishPrompt",
            "Publish a version of a prompt",
            {"201": answer_of(PromptVersion, "The version, which never changes")},
            (*CHANGE, 404),
            path_parameter("prompt", "The prompt's id, worker.step"),
            _ONCE,
            description="For prompt editors and operators. No task uses it until a label is moved to it.",
            body=body_of(schemas.PromptSubmission),
        )
    },
    "/v1/releases/{label}": {
        "post": operation(
            "moveLabel",
            "Move a label to other versions, to a canary, or back",
            {"201": answer_of(PromptRelease, "The release that the label stands for now")},
            (*CHANGE, 404),
            path_parameter("label", "The label, production"),
            _ONCE,
            description="For prompt editors and operators. Tasks that begin from now on use it; a task keeps what it "
            "began with. Who moved the label meanwhile is not overruled: name the release that you saw in `after`.",
            body=body_of(schemas.ReleaseSubmission),
        )
    },
    "/v1/workflows/{workflow}": {
        "post": operation(
            "draftWorkflow",
            "Draft a version of a workflow",
            {"201": answer_of(WorkflowRow, "The version, whose content never changes")},
            (*CHANGE, 404),
            _WORKFLOW,
            _ONCE,
            body=body_of(schemas.WorkflowSubmission),
        )
    },
    "/v1/workflows/{workflow}/versions/{number}": {
        "post": operation(
            "moveWorkflow",
            "Submit, approve, publish, schedule or retire a version of a workflow",
            {"201": answer_of(WorkflowRow, "The version as it stands now")},
            (*CHANGE, 404),
            _WORKFLOW,
            path_parameter("number", "The version's number"),
            _ONCE,
            description="Editors submit it for review; approvers and operators decide; operators schedule it.",
            body=body_of(schemas.WorkflowActSubmission),
        )
    },
    "/v1/workflows/{workflow}/runs": {
        "post": operation(
            "runWorkflow",
            "Run a published version of a workflow as a task",
            {"202": answer_of(schemas.TaskReceipt, "The task is stored", _LOCATION)},
            (*CHANGE, 404),
            _WORKFLOW,
            _KEY,
            description="For submitters and operators. No model plans it. Spending is counted under name and number.",
            body=body_of(schemas.RunSubmission),
        )
    },
    "/v1/events": {
        "post": operation(
            "publishEvent",
            "Tell that something happened outside",
            {"202": answer_of(schemas.EventReceipt, "The event is stored")},
            CHANGE,
            description="For submitters and operators. It begins a run of each workflow with a trigger for it, and "
            "ends waits for it. The same id of the same person is the same event.",
            body=body_of(schemas.EventSubmission),
        )
    },
    "/v1/evaluations": {
        "post": operation(
            "requestEvaluation",
            "Have changes of prompts evaluated, or make a release to try them on",
            {"201": answer_of(EvaluationRow, "The request; tasks that name its `release` get the changes")},
            (*CHANGE, 404),
            _ONCE,
            description="For prompt editors and operators. An evaluator of the tenant runs the set, and reports.",
            body=body_of(schemas.EvaluationSubmission),
        )
    },
    "/v1/evaluations/{number}/report": {
        "post": operation(
            "reportEvaluation",
            "Hand in the signed statement of an evaluation",
            {"201": answer_of(EvaluationRow, "The evaluation with its report")},
            (*CHANGE, 404),
            path_parameter("number", "The evaluation's number"),
            description="For evaluators and operators. What counts is the signature, by a key that a gate names.",
            body=body_of(schemas.ReportSubmission),
        )
    },
    "/v1/console-links": {
        "post": operation(
            "linkConsole",
            "Make a link that signs its maker in at the console, once",
            {"201": answer_of(schemas.ConsoleLink, "The link; a person opens it within ten minutes")},
            (400, *_READ, 408, 413, 422, 429),
            description="For people with an API key, each for themselves. The token stands behind the `#` of the path, "
            "where no log has it; it is none for the API.",
            body=body_of(schemas.ConsoleLinkSubmission, required=False),
        )
    },
    "/v1/halts": {
        "post": operation(
            "halt",
            "Halt a part of the tenant: its work waits until it is resumed",
            {"200": answer_of(Halt, "The halt's state")},
            CHANGE,
            _ONCE,
            description="Streams in progress are cut, and tool calls that have not started are deferred. Deadlines are "
            "not extended. A repeat is harmless.",
            body=body_of(schemas.HaltSubmission),
        )
    },
    "/v1/resumes": {
        "post": operation(
            "resume",
            "Lift a halt of the tenant",
            {"200": answer_of(Halt, "The halt's state")},
            CHANGE,
            _ONCE,
            description="Only halts set by people of the tenant can be lifted. Finished work is not repeated.",
            body=body_of(schemas.HaltSubmission),
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
            body=body_of(schemas.ResetSubmission),
        )
    },
    "/v1/limits": {
        "put": operation(
            "changeLimit",
            "Set, change or remove the limit of one target",
            {"200": answer_of(operators.LimitPage, "All limits after the change")},
            CHANGE,
            _ONCE,
            description="It holds from the next admission on. The operator, the time and both limits (old and new) are "
            "kept as a fact.",
            body=body_of(schemas.LimitSubmission),
        )
    },
    "/v1/policy-trials": {
        "post": operation(
            "tryPolicy",
            "Say what a call of a tool would be: permitted, asked about or forbidden; nothing is called",
            {"200": answer_of(tools.PolicyTrialDocument, "The ruling, with the rule that decided and its reasons")},
            (*CHANGE, 404),
            description="For operators and auditors. The executor's own decision, with the sources as they are given: "
            "no plan, no earlier call of the task and no label of a place counts. Nothing is stored.",
            body=body_of(schemas.PolicyTrialSubmission),
        )
    },
    "/v1/changes": {
        "get": operation(
            "watchTasks",
            "Stream the ids of the tenant's tasks as something of them changes",
            {"200": {"description": "The stream", "content": {"text/event-stream": {"schema": _CHANGED}}}},
            (401, 403, 429, 503),
            description="Server-sent events `changed`, ten a second at most, the first at once and without a task; "
            "`data` is a ChangesDocument. Nothing is sent again: a client that was away reads anew what it shows.",
        )
    },
    "/v1/tasks/{task_id}/push/{config_id}": {
        "put": operation(
            "setPush",
            "Have a task's states posted to a URL",
            {"200": answer_of(tasks.PushDocument, "As it stands; the same again changes nothing")},
            (400, *_READ, 404, 408, 409, 413, 422, 429),
            _TASK,
            _CONFIG,
            description=tasks.PUSH_OF,
            body=body_of(schemas.PushSubmission),
        ),
        "delete": operation(
            "deletePush",
            "Post nothing more there",
            {"200": answer_of(tasks.PushPage, "Those that are left")},
            (*_READ, 404, 422),
            _TASK,
            _CONFIG,
        ),
    },
    "/v1/dead-letters/{letter_id}/dismiss": {
        "post": operation(
            "dismissDeadLetter",
            "Say that a dead letter needs no action; its message stays stored",
            {"200": answer_of(DeadLetter, "The letter, with what was done about it")},
            (*CHANGE, 404),
            path_parameter("letter_id", "The letter's id, or its first characters, four at least"),
            header_parameter("Idempotency-Key", "A repeat under it counts once", schema=KEY_SCHEMA),
            body=body_of(schemas.DismissalSubmission),
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


def _probe_path(name: str, summary: str) -> Json:
    """The path of a probe; it needs no credentials."""
    yes, no = answer_of(schemas.ServerHealth, "Yes"), answer_of(schemas.ServerHealth, "No, with the reason")
    return {f"/{name}": {"get": operation(name, summary, {"200": yes, "503": no}, ()) | {"security": []}}}


_PROBES: Json = (
    _probe_path("livez", "Whether the process runs")
    | _probe_path("readyz", "Whether it can take requests now")
    | _probe_path("startupz", "Whether the start has finished")
)


def _probes_last(path: str) -> tuple[bool, str]:
    """Sort key: the probes stand last."""
    return not path.startswith("/v1/"), path


def _tag_of(path: str) -> str:
    """The group of a path in the reference: its collection."""
    return path.split("/")[2] if path.startswith("/v1/") else "probes"


@cache
def openapi() -> Json:
    """The document of this gateway."""
    return build_document(QUERIES)


@cache
def encode_openapi() -> bytes:
    """The document as JSON, made once: anybody may ask for it."""
    return json.dumps(openapi(), ensure_ascii=False).encode()


def build_document(queries: Sequence[type[Query[Any]]]) -> Json:
    """The document with these reads; writes, streams and probes are always the same."""
    paths = deepcopy(_WRITES | session_writes(_KEY) | _PROBES)
    for query in queries:
        paths.setdefault(query.PATH, {})["get"] = _query_operation(query)
    for path, operations in paths.items():
        for method in operations.values():
            method["tags"] = [_tag_of(path)]
            add_example(method)
    _, definitions = models_json_schema(list(MODELS.items()), ref_template="#/components/schemas/{model}")
    describe_fields(definitions["$defs"])
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
        "tags": [{"name": tag} for tag in dict.fromkeys(("tasks", *map(_tag_of, sorted(paths, key=_probes_last))))],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(definitions["$defs"].items())),
            "examples": problem_examples(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (bk_…) or a JWT"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }
