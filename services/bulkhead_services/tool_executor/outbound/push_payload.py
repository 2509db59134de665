"""Body and headers of a push notification, in A2A's form. Pure.

In: `PushPostRequested`, and the text of the answer where the task has one. Out: in the form of 1.0 a StreamResponse
(section 4.3.3): a statusUpdate; at the end of a task with an answer its artifactUpdate before that. In the form of 0.3
a Task.
"""

import json
from typing import Any

from bulkhead.a2a.states import a2a_state
from bulkhead.text.plain_text import escape_controls
from bulkhead_contracts.envelope import CONTENT_TYPE, format_rfc3339
from bulkhead_contracts.push import PushPostRequested

TOKEN = "X-A2A-Notification-Token"  # noqa: S105 - a header's name
MEDIA_TYPES = {"1.0": "application/a2a+json", "0.3": CONTENT_TYPE}
ANSWER = "answer"


def post_bodies(task: str, request: PushPostRequested, answer: str | None) -> tuple[bytes, ...]:
    """Bodies to post, in this order. answer: None where there is none, or it cannot be read any more."""
    messages = (_messages_of_0_3 if request.form == "0.3" else _messages_of_1_0)(task, request, answer)
    return tuple(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() for message in messages)


def post_headers(request: PushPostRequested) -> dict[str, str]:
    """The client's own token, by which it knows that it asked for this."""
    return {"content-type": MEDIA_TYPES[request.form]} | ({TOKEN: request.token} if request.token else {})


def _messages_of_1_0(task: str, request: PushPostRequested, answer: str | None) -> list[dict[str, Any]]:
    ids = {"taskId": task, "contextId": request.context_id or task}
    status: dict[str, Any] = {
        "state": a2a_state(request.status, request.asks),
        "timestamp": format_rfc3339(request.at_unix_ms),
    }
    if request.reason:
        status["message"] = {
            "role": "ROLE_AGENT",
            "parts": [{"text": escape_controls(request.reason)}],
            **_message_ids(task, request),
        }
    updates: list[dict[str, Any]] = []
    if answer is not None:
        parts = [
            {"text": escape_controls(answer), "mediaType": "text/plain"},
            {"data": _answer_metadata(request), "mediaType": CONTENT_TYPE},
        ]
        artifact = {"artifactId": ANSWER, "name": ANSWER, "parts": parts}
        updates.append({"artifactUpdate": {**ids, "artifact": artifact, "lastChunk": True}})
    metadata = {"bulkhead": {"status": request.status}}
    return [*updates, {"statusUpdate": {**ids, "status": status, "metadata": metadata}}]


def _messages_of_0_3(task: str, request: PushPostRequested, answer: str | None) -> list[dict[str, Any]]:
    message: dict[str, Any] = {"kind": "task", "id": task, "contextId": request.context_id or task}
    name = a2a_state(request.status, request.asks).removeprefix("TASK_STATE_").lower().replace("_", "-")
    message["status"] = {"state": name, "timestamp": format_rfc3339(request.at_unix_ms)}
    if request.reason:
        parts = [{"kind": "text", "text": escape_controls(request.reason)}]
        message["status"]["message"] = {
            "kind": "message",
            "role": "agent",
            "parts": parts,
            **_message_ids(task, request),
        }
    if answer is not None:
        answer_parts = [
            {"kind": "text", "text": escape_controls(answer)},
            {"kind": "data", "data": _answer_metadata(request)},
        ]
        message["artifacts"] = [{"artifactId": ANSWER, "name": ANSWER, "parts": answer_parts}]
    return [message | {"metadata": {"bulkhead": {"status": request.status}}}]


def _message_ids(task: str, request: PushPostRequested) -> dict[str, str]:
    return {"messageId": f"{task}-{request.update}", "taskId": task, "contextId": request.context_id or task}


def _answer_metadata(request: PushPostRequested) -> dict[str, Any]:
    return {"standing": request.standing, "complete": request.complete}
