"""The writes of sessions in the OpenAPI document. Pure."""

from bulkhead.gateway_api.sessions import SessionDocument, SessionErasureReceipt, SessionSummaryRow
from bulkhead_services.gateway.http import schemas
from bulkhead_services.gateway.http.operation_forms import (
    CHANGE,
    Json,
    answer_of,
    body_of,
    operation,
    path_parameter,
    query_parameter,
)

LOCATION = {"Location": {"schema": {"type": "string"}}}
_SESSION, _FACT = path_parameter("session_id", "The session's id"), path_parameter("fact_id", "A name of yours for it")


def session_writes(key: Json) -> Json:
    """Their paths. key: the parameter `Idempotency-Key`."""
    return {
        "/v1/sessions": {
            "post": operation(
                "openSession",
                "Open a conversation whose turns are tasks",
                {"201": answer_of(SessionDocument, "The session", LOCATION)},
                CHANGE,
                key,
                description="Each turn is shown what was said before: pinned facts, a summary of old turns where one "
                "pays for itself, and the turns since then. A session is kept as long as a task, from its last change "
                "on. A `conversation` that goes on keeps the options of its beginning; another person's is not there: "
                "404, or one of your own under the same name.",
                body=body_of(schemas.SessionSubmission),
            ),
            "delete": operation(
                "eraseSessions",
                "Erase all sessions that a person opened",
                {"200": answer_of(SessionErasureReceipt, "Erased, at most 100; what is kept, and why")},
                (401, 403, 404, 409, 422, 503),
                query_parameter("person", "Name of the person, as of the key or the token", {"type": "string"})
                | {"required": True},
                description="For the person and for operators, by no agent's key. Each session is deleted as by "
                "`deleteSession`. A request that is repeated goes on where the one before was cut off.",
            ),
        },
        "/v1/sessions/{session_id}": {
            "delete": operation(
                "deleteSession",
                "Delete a session: shown no more from now on, and erased by a purge",
                {"200": answer_of(SessionSummaryRow, "Deleted")},
                (401, 403, 404, 409, 503),
                _SESSION,
                description="By an agent's key only where an agent opened it. Turns and summaries that run are "
                "cancelled. A daily purge erases the session, the tasks of its turns and their contents when nothing "
                "of them is under way and their grants have expired.",
            )
        },
        "/v1/sessions/{session_id}/turns": {
            "post": operation(
                "takeTurn",
                "Say something; a task answers",
                {"202": answer_of(schemas.TurnReceipt, "The turn is taken", LOCATION)},
                (*CHANGE, 404),
                _SESSION,
                key,
                description="`events_url` streams the answer as of any task. One turn at a time: until the one "
                "before has ended, or is cancelled, the answer is 409 `turn_in_progress`. "
                "409 `session_changed` says that another request was first. A task of the session's `conversation` "
                "that you submitted under the same key is the turn, too. With `replaces` an earlier turn is put in "
                "other words: it and those after it are shown to no model again.",
                body=body_of(schemas.TurnSubmission),
            )
        },
        "/v1/sessions/{session_id}/forks": {
            "post": operation(
                "forkSession",
                "Begin another session with the turns of this one",
                {"201": answer_of(SessionDocument, "The new session", LOCATION)},
                (*CHANGE, 404),
                _SESSION,
                key,
                description="It has the options of this one, is the caller's alone, and stands by itself from then on. "
                "The tasks of its first turns are those of this session, and are erased with it.",
                body=body_of(schemas.SessionForkSubmission),
            )
        },
        "/v1/sessions/{session_id}/facts/{fact_id}": {
            "put": operation(
                "pinFact",
                "Pin a fact that every later turn is shown",
                {"200": answer_of(SessionDocument, "The session")},
                (*CHANGE, 404),
                _SESSION,
                _FACT,
                body=body_of(schemas.FactSubmission),
            ),
            "delete": operation(
                "unpinFact",
                "Pin a fact no longer; one that is not there is gone already",
                {"200": answer_of(SessionDocument, "The session")},
                (401, 403, 404, 409, 503),
                _SESSION,
                _FACT,
            ),
        },
    }
